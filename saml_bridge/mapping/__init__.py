"""From a portal session to the values that a partner gets. Pure.

Owns, file by file: `fields` (the fields of a session, and paths through it), `rules` (attribute mappings), `conditions`
(tests of a session), `transforms` (the closed set of functions on values), `identifiers` (name IDs and subjects),
`callback_uri` (the address at which a launch ends), `characters` (the characters that may leave this service).

Does not own: where a session comes from (`portal`), how values are carried (`protocols`), the document's shape
(`model.document`).

Way in: `check_` functions at a publication, and `compile_` functions, whose results serve every launch.
"""
