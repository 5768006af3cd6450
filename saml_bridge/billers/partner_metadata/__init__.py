"""Partners' metadata that is fetched from an address.

Owns: fetching one service provider's metadata (`fetch`), and its refresh over time (`refresh`). Does not own: the
connection (`network.client`), and judging metadata (`protocols.saml.metadata`). The way in is `refresh.Refresher`.
"""
