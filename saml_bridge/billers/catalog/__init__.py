"""The partner catalog: known partners, each with a template of its configuration.

Owns, file by file: `templates` (the templates `*.yaml`, reading and filling them), `schemas` (the form of a template),
`apply_template` (adding one to a configuration file).

Does not own: the configuration itself (`billers.file`), how a template is shown (`cli`).

Way in: `templates` to list and show, `apply_template.apply_template` to add one.
"""
