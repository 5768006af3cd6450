"""The command line: arguments, what is printed, and exit codes.

Exit codes are 0 (done), 1 (refused, with findings) and 2 (wrong usage). The rules are in the rooms below.

The way in is `main.main`; `commands` names every command's module, which is imported when the command is called.
A module of commands imports only the model at its top, so that help and wrong usage are answered at once.

- `main`, `commands`, `parameters`: the root, the table of commands, and types of arguments
- `opening`: opens the installation for one command
- `audit`, `catalog`, `configuration`, `keys`, `launching`, `metadata`, `portal_keys`, `secrets`, `service`: commands
- `serving`: starts the web server
- `show_audit`, `show_catalog`, `show_keys`, `show_metadata`, `terminal`: how a terminal shows things
"""
