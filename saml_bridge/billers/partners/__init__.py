"""The configuration of partners, one file a protocol: settings, checks, words of change.

Owns: `saml`, `oidc`, `signed_link` (the protocol `jwt`), `encrypted_token` and `backchannel_token`, each with an
`ENTRY`. `entry` says what a protocol gives, `index` finds the entries.
Shared pieces: `identifier` (name IDs and subjects), `browser_token` (signed links and encrypted tokens),
`public_keys` (the setting with a partner's keys), `settings_rules` (rules of several protocols).

Does not own: the document (`model.document`), sign-ons (`protocols`), rules over partners of different protocols
(`billers.checks.partners`).

Way in: `index.ENTRIES`. A new protocol is a file here with an `ENTRY`, a dataclass in `model.document`, a module in
`protocols` and a line in `protocols.index`. A protocol with logout needs a channel in `flows.logout`, too.
"""
