"""The protocols that partners speak, as pure code: no clock, randomness, network, database or Flask.

Owns: messages, tokens and metadata: reading, judging, building. Does not own: the order of a launch (`flows`), where
anything is kept (`storage`), keys (`keys`).
Way in: `interface`, the seam to a launch; `index`, the one list of protocols.

- `saml`: SAML 2.0. `oidc`: OpenID Connect 1.0. `tokens/`: signed links, encrypted and back-channel tokens.
- `claims`: a mapping as JSON. `pairwise`: opaque identifiers of payers. `auth_contexts`: how a payer signed in.
- `token_key`: the check that a partner's tokens can be signed.
"""
