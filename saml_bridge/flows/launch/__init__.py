"""The launch: one payer goes to one partner through one link.

Owns: the order of a launch's checks, and that nothing leaves before it is recorded under the configuration in force.
Does not own: pages (`web.payer`), the payer's session (`portal`), attributes (`mapping`), messages (`protocols`).
Way in: `launch.Launcher.launch`, with a `launch.LaunchRequest`.

- `launch`: the order, from top to bottom.
- `visit`: one request of a browser, as a value.
- `posted_session`: the session of a form that the portal's page posts.
- `tickets`: one-time addresses for launches from another site or an app.
- `links`: the links that a payer sees, and if each would launch now.
"""
