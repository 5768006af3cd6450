"""Keys as values, what they sign, and the ring that keeps ours.

- `ring`: our key files: reading, making and importing them.
- `signing_key`: the kinds of key that may sign, and one signature over bytes.
- `jws`: the one reader and the one writer of tokens in compact form.
- `biller_keys`: the names of the keys that a biller's tokens need.
- `partner_keys`: partners' public keys as a document holds them.
- `sealing`: values at rest that the database must not tell.

The room does not own XML signatures (`protocols.saml.xml`), keys that are fetched (`network.key_sets`), and how one key
takes over from another (`flows.key_rollover`).
"""
