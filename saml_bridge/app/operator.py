"""The operator's name, for the list of revisions and the audit trail.

Owns: the system's user name and its replacement. Does not own: accounts of people.
Called by: the commands that publish or record (`cli`).
"""

from __future__ import annotations

import getpass
import os


def name_operator() -> str:
    """The system's user name, or `uid-N` for a user without one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"
