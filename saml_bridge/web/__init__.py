"""The web edge: thin views over the use cases, and the pages that people see.

Owns: HTTP: addresses, parameters, cookies, headers, pages, status codes. Does not own: any rule or order (`flows`).
Way in: each `create_…_views` gives a blueprint; `app.wiring` registers them.

- `payer/`, `partner/`, `portal/`, `operations/`: views and pages, by who calls.
- `visit`: everything that a view reads of a browser's request, and its cookies.
- `faults`: the one door for errors that no code foresaw.
- `header_bounds`: requests whose headers are too large.
"""
