"""Sign-on that starts at the partner.

Owns: the order from the verified request to the answer, a request's wait for the payer's sign-in, refusals that a
partner is told. Does not own: messages (`protocols.saml`, `protocols.oidc`), the launch that answers
(`flows.launch`), pages and cookies (`web.partner`).
Way in: `saml.open_saml_sign_on`, `oidc.open_authorization`.

- `sign_on`: the part that every protocol shares.
- `saml`, `oidc`: a request in that protocol, read, verified and judged.
- `hints`: payers on the way from a launch to an OpenID Connect partner.
"""
