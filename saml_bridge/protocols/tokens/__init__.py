"""Tokens that are no session of a specification: signed links, encrypted and back-channel tokens.

Owns: the three protocols. Does not own: keys and signatures (`keys`), calls (`network`), the mapping as claims
(`protocols.claims`).
Way in: each module's `compile_receiver` and `check_partner`, through `protocols.index`.

- `browser_token`: the common part of the first two, which a browser carries one way.
- `signed_link`, `encrypted_token`: a JWT or JWE in the address or a form.
- `backchannel_token`: a token that the partner's server gives ours at each launch.
"""
