"""`saml-bridge`: the command line over the same use cases as the web service.

Owns: arguments, what is printed, exit codes (0 done, 1 refused with findings, 2 wrong usage). Does not own: any rule.
Each module holds the commands of one subject, on the group of `group.py`.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import click
from sqlalchemy.exc import SQLAlchemyError

from saml_bridge.cli import audit, catalog, configuration, keys, launching, metadata, portal_keys, secrets, service
from saml_bridge.cli.group import cli, explain_os, show_error
from saml_bridge.model.errors import BridgeError
from saml_bridge.model.values import clean
from saml_bridge.storage.database import DATABASE_FIX, explain_failure

__all__ = ["cli", "main"]

SUBJECTS = (audit, catalog, configuration, keys, launching, metadata, portal_keys, secrets, service)
"""Importing them puts their commands on the group."""


def main() -> NoReturn:
    """The entry point. Every refusal is one line with its fix, never a traceback."""
    try:
        code = cli.main(prog_name="saml-bridge", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BridgeError as error:
        show_error(error)
        sys.exit(1)
    except SQLAlchemyError as error:
        click.echo(f"saml-bridge: the database does not answer: {explain_failure(error)}. {DATABASE_FIX}", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"saml-bridge: {clean(explain_os(error))}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
