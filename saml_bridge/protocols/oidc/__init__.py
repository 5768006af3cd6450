"""OpenID Connect 1.0, the pure part: requests, tokens and documents as values.

Owns: reading and judging requests, making ID tokens, codes' checks, the discovery document. Does not own: the order of
an exchange (`flows.sign_on.oidc`, `flows.tokens`), rows (`storage.grants`), signatures (`keys.jws`).
Way in: `receiver` for a launch; the modules below for the flows.

- `authorization_request`, `pending_request`: a request as it comes, and while it waits.
- `parameters`, `client_auth`, `code_exchange`: requests of a client's server.
- `grant`, `id_token`: what a code stands for, and the claims made of it.
- `discovery`, `relying_party`, `logout_request`: our description, a biller's clients, their sign-outs.
"""
