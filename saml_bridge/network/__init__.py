"""Every call to another server, within bounds of time, size and addresses.

- `client`: one request within bounds; the way in for URLs of documents and of the operator.
- `address_rule`: the servers that may be asked; `operator_urls`: the addresses that an operator may name.
- `connections`, `lookups`, `deadlines`: opening and keeping connections, names, and the one sort of deadline.
- `connection_faults`: the kinds of faults of a connection, and the words for them.
- `partner_calls`, `breaker`: calls of partners in the middle of a launch, and leaving a failing server alone.
- `concurrent_calls`: several calls at once under one deadline.
- `key_sets`: public keys of others, from a file or a URL.

The room does not own the meaning of an answer (its callers), and the question to the portal's introspection endpoint
(`portal.introspection_client`, which uses `connections`).
"""
