"""XML of SAML documents: read safely, signed, verified, encrypted.

- `parse`: from bytes of outside to a tree that is safe to read; the schemas.
- `verify`: signatures of others, on documents and in queries.
- `sign`: our enveloped signatures.
- `encrypt`: assertions encrypted to a partner's key.
- `certificates`: the key in a certificate, and its uses.
- `instants`: xs:dateTime and xs:duration.
- `names`: namespaces, and the form of an ID.
- `libraries`: the check that lxml and xmlsec fit together.

Everything of outside comes in through `parse.parse_xml`; only the root that `verify` returns counts as signed.

The sub-room does not own the meaning of a document (`protocols.saml`), our keys (`keys.signing_key`), and the choice of
the keys that may speak for a partner.
"""
