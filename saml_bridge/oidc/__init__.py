"""OpenID Connect 1.0, the pure part: requests, tokens and documents as values. No clock, network, database or Flask.

Called by `authorization.py` and `token_exchange.py` (the order of an exchange) and through `protocols.py` (the launch).
"""
