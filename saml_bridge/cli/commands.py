"""The table of all commands, whose modules are imported when they are called.

Owns: the names of the commands, their modules and their lines in `saml-bridge --help`.
Does not own: arguments and work (the modules that the table names). Called by: `main`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final

import click


@dataclass(frozen=True, slots=True)
class Entry:
    """A command's place and its line in the list.

    `module` is below `saml_bridge.cli`, `attribute` the command in it, `help` the first paragraph of its help text.
    """

    module: str
    attribute: str
    help: str

    def load(self) -> click.Command:
        """The command; imports its module."""
        command = getattr(import_module(f"saml_bridge.cli.{self.module}"), self.attribute)
        assert isinstance(command, click.Command)  # noqa: S101 a mistake in the table, which a test finds
        return command


COMMANDS: Final[Mapping[str, Entry]] = {
    "apply": Entry("configuration", "apply", "Publish the billers in FILE: all of them or none."),
    "audit": Entry("audit", "audit", "Ask who was sent where, who was refused, who published what."),
    "catalog": Entry(
        "catalog",
        "catalog",
        "Known partners: what each wants, how sure that is, and a configuration to start from.",
    ),
    "demo": Entry(
        "service",
        "demo",
        "Start a demo portal, the bridge and six demo partner portals on this machine. Ctrl-C stops everything.",
    ),
    "doctor": Entry(
        "service", "doctor", "Check settings, keys, database and partners; say what is wrong and what to do."
    ),
    "export": Entry("configuration", "export", "Print a biller's configuration as a file that 'apply' takes."),
    "init": Entry(
        "service",
        "init",
        "Make what a service needs: a secret, the signing key 'default', the database with its tables.",
    ),
    "keys": Entry("keys", "keys", "Make signing keys, and let one take over from another without losing a sign-on."),
    "launch": Entry("launching", "launch", "Make a real, recorded launch without a browser."),
    "metadata": Entry(
        "metadata", "metadata", "Check partners' metadata, look after what is fetched, and print our own."
    ),
    "plan": Entry("configuration", "plan", "Show in words what applying FILE would change, and what is wrong with it."),
    "portal-keys": Entry("portal_keys", "portal_keys", "Make, list and end the keys that portals call us with."),
    "sample-session": Entry(
        "launching",
        "sample_session",
        "Print a portal session of an invented payer, good for an hour: something to try 'launch' with.",
    ),
    "secrets": Entry(
        "secrets",
        "partner_secrets",
        "Set, list and revoke the secrets that are shared with partners; a value is never shown again.",
    ),
    "serve": Entry("service", "serve", "Start the service. TLS is ended before it, by a reverse proxy."),
}


class CommandsOnCall(Mapping[str, click.Command]):
    """The commands of the table by name; reading one imports its module."""

    def __getitem__(self, name: str) -> click.Command:
        return COMMANDS[name].load()

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class GroupOnCall(click.Group):
    """The root of the commands, which lists them without importing a module."""

    commands: Mapping[str, click.Command]  # type: ignore[assignment] # nothing is added to it

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 click's
        """Writes the list of commands, with lines as click shortens them."""
        limit = formatter.width - 6 - max(map(len, COMMANDS))
        rows = [(name, click.Command(name, help=one.help).get_short_help_str(limit)) for name, one in COMMANDS.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
