"""The words that every other room uses: values, errors, findings and the configuration document.

Owns: types without behaviour of their own, and small pure functions on text. Does not own: rules of any protocol.
It imports the standard library and PyYAML alone.

- `values`: values that pass between rooms; `document`: the configuration of a biller
- `errors`: the tree of errors; `error_logging`: their place in the log
- `findings`: making findings; `fixes`: the fix for each code; `nearest`: the name that was meant
- `comparisons`: the words of a refusal by comparison
- `strict_json`, `yaml_lines`, `urls`: reading text from outside
- `trace_id`: the one name of an act; `built_once`: values that are built at their first use
"""
