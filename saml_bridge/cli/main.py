"""`saml-bridge`: the root of the commands, and the entry point.

Owns: the first page of help, and what becomes of an error that ends a command. Does not own: the commands (`commands`).
Called by: the program `saml-bridge` and `python -m saml_bridge.cli`.

A newcomer's example, in a folder of its own::

    saml-bridge init
    saml-bridge catalog use aquahawk --biller riverton-water --file billers.yaml
    saml-bridge plan billers.yaml
"""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from saml_bridge import __version__
from saml_bridge.cli.commands import CommandsOnCall, GroupOnCall
from saml_bridge.cli.terminal import explain_os, show_error
from saml_bridge.model.errors import BridgeError
from saml_bridge.model.values import clean


@click.group(
    cls=GroupOnCall,
    commands=CommandsOnCall(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="saml-bridge")
def cli() -> None:
    """Turn a bill-portal session into a signed-in session at a partner portal.

    \b
    First steps:
      saml-bridge demo                     everything at once, with a demo portal and demo partners
      saml-bridge init                     keys, secret and database for a service of your own
      saml-bridge catalog list             partners to begin with, and how sure each is
      saml-bridge metadata check FILE      is this partner's metadata good?
      saml-bridge secrets set BILLER NAME  keep a secret that is shared with a partner
      saml-bridge plan FILE                what would this configuration change?
      saml-bridge apply FILE               publish it
      saml-bridge serve                    start the service

    Settings are environment variables SAML_BRIDGE_*; 'saml-bridge doctor' says what is wrong with them.
    """


def main() -> NoReturn:
    """The entry point: every refusal is one line with its fix, without a traceback."""
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
    except OSError as error:
        click.echo(f"saml-bridge: {clean(explain_os(error))}", err=True)
        sys.exit(1)
    except Exception as error:
        if not _is_of_database(error):
            raise
        _show_database_failure(error)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _is_of_database(error: Exception) -> bool:
    """Tells SQLAlchemy's errors without importing it: none was raised where nothing has loaded it."""
    loaded = sys.modules.get("sqlalchemy.exc")
    return loaded is not None and isinstance(error, loaded.SQLAlchemyError)


def _show_database_failure(error: Exception) -> None:
    from saml_bridge.storage.database import DATABASE_FIX, explain_failure  # loaded already, as it raised the error

    click.echo(f"saml-bridge: the database does not answer: {explain_failure(error)}. {DATABASE_FIX}", err=True)
