"""Tokens for relying parties: the token endpoint, UserInfo, and the clients that call them.

Owns: the order of an exchange, client authentication against a biller's configuration. Does not own: codes and access
tokens (`storage.grants`), their contents (`protocols.oidc`), HTTP (`web.partner.oidc`).

- `token_endpoint`: a code for tokens, an access token for claims.
- `clients`: the relying party of a request, and a biller's description of itself as OpenID Provider.
"""
