"""The payer who is signed in at the portal, as the portal's credentials tell.

- `session_source`: the interface of every source, and the errors that it raises; the way in.
- `source_by_biller`: the source of each biller.
- `open_source`, `sources_file`: making a source from its settings, and the file that names several.
- `jwt_source`: a token that the portal signs.
- `introspection_source`, `introspection_client`: a token that the portal is asked about, and the asking.
- `file_source`: a session document in a file, for the command line.
- `credentials`: the token that a request carries.

The room does not own the portal's keys (`network.key_sets`), connections (`network.connections`), the fields of a
session document (`mapping.fields`), and reading the request (`web`).
"""
