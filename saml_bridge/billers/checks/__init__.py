"""The checks of a biller's configuration, each by its subject.

Owns, file by file: `document` (references, unique names, URLs of one document), `partners` (rules between partners),
`publication` (everything before a document comes into force: keys, metadata), `keys` (keys for tokens), `holdings`
(names and keys of all billers together), `addresses` (addresses that this service calls).

Does not own: single values (`billers.file`), the rules of one protocol (`billers.partners`, and `protocols` where keys,
secrets or values of a mapping decide), rules and conditions (`mapping`).

Way in: `document.check_parts` for a file, `publication.Checks` for a publication. Every check gives findings and raises
nothing.
"""
