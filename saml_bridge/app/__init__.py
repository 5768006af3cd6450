"""The program: settings, the wiring, an installation on one machine, the schedule.

Owns: how the rooms below become one program. Does not own: commands (`cli`), views (`web`), any rule.

- `wiring`: the way in; `open_bridge` for commands, `create_app` for the web service, one function a room
- `flask_app`: the Flask application itself, and its answers to errors
- `settings`: the environment variables `SAML_BRIDGE_*`
- `session_sources`: the session sources that the settings ask for
- `installation`: making and examining an installation (`saml-bridge init`, `saml-bridge doctor`)
- `schedule`: the thread that looks after fetched metadata
- `logging`: how events are written
- `operator`: the name of the person at work
"""
