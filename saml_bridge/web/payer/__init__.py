"""The pages for payers: launches, sign-out, and the rehearsal of a key.

Owns: their addresses and their looks. Does not own: any decision (`flows`).

- `launch`: `/launch/{biller}/{link}` and `/t/{ticket}`; `answers`: how an outcome of a launch is answered.
- `pages`: the parts that all pages share; templates lie in `web/templates`, texts in `web/translations`.
- `logout`, `logout_pages`, `logout_guards`: signing out, its pages, and the requests that may begin it.
- `rehearsal`: `/rehearse/{token}`, for operations.
"""
