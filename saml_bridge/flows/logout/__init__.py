"""Signing out: a payer's portal session ends, and partners are notified of it.

Owns: the order of a logout, the channel to each partner, the state of a logout under way, its audit record.
Does not own: messages (`protocols.saml`, `protocols.oidc`), tables (`storage`), pages and cookies (`web.payer.logout`).
Way in: `sign_out.SignOut`; `end_session.RpInitiatedLogout` for what a relying party asks.

- `sign_out`: the order; `plan`: the requests of one logout; `outcomes`: what a caller gets.
- `saml_requests`: a SAML partner's request; `end_session`: a relying party's.
- `server_calls`: calls to partners' servers and the portal; `browser_steps`: the part that the browser takes.
- `channel`, `channels`, `saml_channel`, `oidc_channel`: the way to one partner, by protocol.
- `final_answers`: the answer to the partner that asked.
- `progress`: the states, as values; `kept_logouts`: where they wait between two requests.
- `record`: audit entries; `logout_token`, `portal_callback`: the JWT that notifies a relying party or the portal.
"""
