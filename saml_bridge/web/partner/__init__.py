"""The addresses that partners lead browsers to, and those that their servers call.

Owns: reading requests in each binding, and answers in each protocol's form. Does not own: any decision (`flows`).

- `saml`: `/saml/{biller}/metadata` and `/saml/{biller}/sso`.
- `oidc_authorize`, `oidc_logout`: a relying party's requests that a browser brings.
- `oidc`: discovery, keys, tokens, UserInfo and pushed requests, which servers call.
- `sign_on`: the answers and cookies that `saml` and `oidc_authorize` share.
"""
