"""The use cases, step by step: launches, sign-on at partners, tokens, sign-out, key rollover.

Owns: the order of steps, and which of them are recorded. Does not own: rules (`protocols`, `mapping`, `billers`), rows
(`storage`), calls to other servers (`network`), HTTP (`web`).
Way in: one module for each use case, read from top to bottom.

- `launch`: one payer goes to one partner through one link.
- `sign_on`: a partner asks first, in SAML or OpenID Connect.
- `tokens`: a relying party's server exchanges a code.
- `logout`: a portal session ends, everywhere.
- `key_rollover`: a new signing key takes over without a lost sign-on.
"""
