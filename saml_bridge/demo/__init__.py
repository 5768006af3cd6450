"""The demo: a bill portal and partner portals to try the bridge with.

The bill portal stands in for the host system, the partner portals stand in for the vendors.

Owns: demo payers and their bills, the demo session source, the partner portals with service providers of their own.
Does not own: any part of the bridge. The partner portals read our responses with pysaml2's client and never import the
bridge's SAML code, so that the demo is not our own code checking itself.

- `start`: the way in, which `saml-bridge demo` calls; `run` registers and serves the partners
- `portal`, `payers`, `source`, `logout_callback`: the bill portal, its people, its session source, its end of sessions
- `partners`: the partner portals as one application; `partner_portals`, `partner_pages`: what each is and shows
- `saml_portals`, `openid_portal`, `token_portal`: signing in and out; `memory`, `usage`: their memory and their meters
- `service_provider`, `sign_out`, `crypto`: SAML as the partners speak it, with pysaml2
- `relying_party`, `session_tokens`: OpenID Connect and session tokens as the partners speak them
- `headers`, `language`: content security policies, and the languages of the pages
"""
