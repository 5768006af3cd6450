"""The pages for the people who run the service, and its metrics.

Owns: `/healthz`, `/readyz` and `/metrics`, and the names of all metrics.
Does not own: the problems that they tell (`storage.database`, the session sources of `portal`).

- `endpoints`: the way in, the three pages as a blueprint
- `metrics`: counters and times for Prometheus, which the other rooms of `web` count in
"""
