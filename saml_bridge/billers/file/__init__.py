"""The configuration file of billers: reading, writing and completing it.

Owns, file by file: `load` (files and stored text to a document and back; the way in), `schemas` (the keys of each
part), `strict_schema` (mappings and lists), `fields` (single values), `placed_findings` (errors with path and line),
`resolve` (files that a document names), `blanks` (values to be filled in), `insertion` (adding an item as text).

Does not own: the dataclasses (`model.document`), the settings of one protocol (`billers.partners`), rules over several
values (`billers.checks`), YAML (`model.yaml_lines`), storage (`billers.registry`).

Way in: `load.load_file`, `load.from_json`; `resolve.resolve_metadata` before a publication.
"""
