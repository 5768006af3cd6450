"""Commands about signing keys and their rollover.

Owns: their arguments, and the questions before a risky step. Does not own: the steps (`flows.key_rollover`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from saml_bridge.app.operator import name_operator
from saml_bridge.cli.opening import now, opened, show_published
from saml_bridge.cli.parameters import FILE
from saml_bridge.cli.terminal import show_error, show_finding
from saml_bridge.model.document import KeyNames
from saml_bridge.model.errors import BridgeError
from saml_bridge.model.trace_id import make_trace_id
from saml_bridge.model.values import Finding, Severity

if TYPE_CHECKING:
    from saml_bridge.app.wiring import Bridge
    from saml_bridge.flows.key_rollover import Change, KeyUse
    from saml_bridge.keys.ring import KeyKind
    from saml_bridge.storage.rehearsals import Verdict

KEY_KINDS: tuple[KeyKind, ...] = ("rsa-2048", "rsa-3072", "rsa-4096", "ec-p256", "ec-p384", "ed25519")
VERDICTS: Final = ("accepted", "refused")
"""The verdicts of `storage.rehearsals`, which is not loaded for help; a test compares them."""


@click.group()
def keys() -> None:
    """Make signing keys, and let one take over from another without losing a sign-on.

    \b
    A rollover:
      keys create NAME                     a new key
      keys publish-next NAME BILLER        partners can learn it from our metadata
      keys rehearse BILLER PARTNER         does this partner accept it already?
      keys status BILLER                   the board: who does
      keys promote BILLER                  it signs from now on; 'keys demote BILLER' is the way back
      keys retire BILLER                   the old one is published no more
    """


@keys.command("list")
def keys_list() -> None:
    """Show the keys in the certificates folder."""
    from saml_bridge.cli.show_keys import show_ring

    with opened(need_tables=False) as bridge:
        show_ring(bridge.keys)


@keys.command("create")
@click.argument("name")
@click.option("--kind", type=click.Choice(KEY_KINDS), default="rsa-2048", show_default=True)
@click.option("--encrypt", is_flag=True, help="With the passphrase in SAML_BRIDGE_KEY_PASSPHRASE.")
def keys_create(name: str, kind: KeyKind, encrypt: bool) -> None:
    """Make a signing key NAME, for a biller's idp.keys (RSA, EC) or tokens.keys (Ed25519, too)."""
    with opened(need_tables=False) as bridge:
        for path in bridge.keys.create(name, kind=kind, now=now(), encrypt=encrypt):
            click.echo(f"made {path}")


@keys.command("import")
@click.argument("name")
@click.option("--key", "key_file", required=True, type=FILE, help="The private key in PEM form.")
@click.option("--cert", "certificate_file", required=True, type=FILE, help="Its certificate in PEM form.")
@click.option("--encrypt", is_flag=True, help="With the passphrase in SAML_BRIDGE_KEY_PASSPHRASE.")
def keys_import(name: str, key_file: Path, certificate_file: Path, encrypt: bool) -> None:
    """Take a copy of a key that was made elsewhere, as NAME.

    RSA of 2048 to 4096 bits, P-256 or P-384; Ed25519 for tokens. A key that is encrypted is opened with
    SAML_BRIDGE_KEY_PASSPHRASE, and stays encrypted with it. The files themselves are left as they are.
    """
    from saml_bridge.cli.show_keys import describe_kind

    with opened(need_tables=False) as bridge:
        key = bridge.keys.import_files(name, key_file=key_file, certificate_file=certificate_file, encrypt=encrypt)
        click.echo(f"took {describe_kind(key)} as {name}, certificate SHA-256 {key.fingerprint_sha256}")
        if key.not_after <= now():
            click.echo(f"Its certificate expired on {key.not_after.date()}; some partners mind.", err=True)


@keys.command("publish-next")
@click.argument("name")
@click.argument("billers", nargs=-1)
@click.option("--all", "everywhere", is_flag=True, help="Every biller that signs with the key of --replace.")
@click.option("--replace", "old", default=None, metavar="OLD", help="With --all: the current key.  [default: default]")
def keys_publish_next(name: str, billers: tuple[str, ...], everywhere: bool, old: str | None) -> None:
    """Publish NAME beside the current key of each of BILLERS, so that partners can trust it before it signs.

    With --all of those billers whose current key is 'default', or the one named with --replace: all of them or none.
    """
    if everywhere == bool(billers):
        raise click.UsageError("Name the billers, or say --all.")
    if old is not None and not everywhere:
        raise click.UsageError("--replace goes with --all.")
    with opened() as bridge:
        chosen = bridge.rollover.list_billers_of("current", old or KeyNames().current) if everywhere else billers
        _publish_change(bridge, bridge.rollover.plan_next(name, chosen))
        click.echo(f"Partners find {name} in our metadata now. Rehearse it with 'saml-bridge keys rehearse'.")


@keys.command("rehearse")
@click.argument("biller")
@click.argument("partner")
@click.option("--link", default=None, help="Default: the first enabled link to the partner.")
@click.option("--outcome", type=click.Choice(VERDICTS), default=None, help="Record what you saw in another way.")
def keys_rehearse(biller: str, partner: str, link: str | None, outcome: Verdict | None) -> None:
    """Print a one-time address at which PARTNER gets a real launch that the next key signs.

    Open it in a browser that is signed in at the portal, as any payer, and say there how it went.
    """
    if link is not None and outcome is not None:
        raise click.UsageError("--link and --outcome do not go together.")
    with opened() as bridge:
        who, trace_id = name_operator(), make_trace_id(bridge.launcher.random_bytes)
        if outcome is not None:
            made = bridge.rollover.judge_by_hand(biller, partner, outcome, actor=who, trace_id=trace_id)
            click.echo(f"{partner} of {biller}: {outcome} the key {made.key}")
            return
        token, made = bridge.rollover.invite(biller, partner, link=link, actor=who, trace_id=trace_id)
        click.echo(f"{bridge.settings.base_url}/rehearse/{token}")
        until = made.expires_at.strftime("%H:%M UTC")
        click.echo(f"Good for one rehearsal of {made.key} at {partner}, until {until}.", err=True)


@keys.command("status")
@click.argument("biller", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a biller.")
def keys_status(biller: str | None, as_json: bool) -> int:
    """The board: which key signs for whom, and which partner was seen to accept the next one."""
    from saml_bridge.cli.show_keys import build_json, show_board

    failed = False
    with opened() as bridge:
        for slug in (biller,) if biller else bridge.registry.list_billers():
            try:
                board = bridge.rollover.build_board(slug)
            except BridgeError as error:
                if biller:
                    raise
                show_error(error)
                failed = True
            else:
                click.echo(json.dumps(build_json(board))) if as_json else show_board(board)
    return 1 if failed else 0


ALL_WITH = "Instead of BILLER: every biller whose {} key is KEY, all or none."


@keys.command("promote")
@click.argument("biller", required=False)
@click.argument("partners", nargs=-1)
@click.option("--all-with", "name", default=None, metavar="KEY", help=ALL_WITH.format("next"))
@click.option("--yes", is_flag=True, help="Also for partners that were not seen to accept the key.")
def keys_promote(biller: str | None, partners: tuple[str, ...], name: str | None, yes: bool) -> None:
    """Let the next key sign: for PARTNERS, or without any for all of BILLER, which makes it the current key."""
    from saml_bridge.flows.key_rollover import merge_changes

    with opened() as bridge:
        billers = _choose_billers(bridge, biller, name, "next")
        change = merge_changes([bridge.rollover.plan_promotion(slug, partners) for slug in billers])
        if change.unverified and not yes:
            _confirm(
                f"not seen to accept the next key: {', '.join(change.unverified)}",
                "Their payers cannot sign on if they do not. Promote all the same?",
                code="partners-unverified",
                fix="Rehearse it with them ('saml-bridge keys rehearse'), or say --yes.",
            )
        _publish_change(bridge, change)
        click.echo("Watch the sign-ons; 'saml-bridge keys demote' is the way back.")


@keys.command("demote")
@click.argument("biller", required=False)
@click.argument("partners", nargs=-1)
@click.option("--all-with", "name", default=None, metavar="KEY", help=ALL_WITH.format("previous"))
def keys_demote(biller: str | None, partners: tuple[str, ...], name: str | None) -> None:
    """Take a promotion back: for PARTNERS, or without any for all of BILLER."""
    from saml_bridge.flows.key_rollover import merge_changes

    with opened() as bridge:
        billers = _choose_billers(bridge, biller, name, "previous")
        _publish_change(bridge, merge_changes([bridge.rollover.plan_demotion(slug, partners) for slug in billers]))


@keys.command("retire")
@click.argument("biller", required=False)
@click.option("--next", "withdraw", is_flag=True, help="The next key, which is not to be used after all.")
@click.option("--all-with", "name", default=None, metavar="KEY", help=ALL_WITH.format("previous (or next)"))
@click.option("--yes", is_flag=True, help="Also within a day of the promotion.")
def keys_retire(biller: str | None, withdraw: bool, name: str | None, yes: bool) -> None:
    """Publish the previous key of BILLER no more. Its files stay in the certificates folder."""
    from saml_bridge.flows.key_rollover import METADATA_KEPT, merge_changes

    use: Literal["previous", "next"] = "next" if withdraw else "previous"
    with opened() as bridge:
        billers = _choose_billers(bridge, biller, name, use)
        change = merge_changes([bridge.rollover.plan_retirement(slug, use=use) for slug in billers])
        if change.early and not yes:
            hours = int(METADATA_KEPT.total_seconds() // 3600)
            _confirm(
                f"the promotion is less than {hours} hours old: {', '.join(change.early)}",
                "Partners may still go by the metadata of before, and 'keys demote' is no way back then. Retire it?",
                code="promotion-young",
                fix="Wait until partners have fetched our metadata again, or say --yes.",
            )
        _publish_change(bridge, change)
        click.echo(f"The files of the key stay in {bridge.keys.folder}; remove them when no biller names it.")


def _choose_billers(bridge: Bridge, biller: str | None, name: str | None, use: KeyUse) -> tuple[str, ...]:
    if (biller is None) == (name is None):
        raise click.UsageError("Name a BILLER, or say --all-with KEY.")
    return (biller,) if biller is not None else bridge.rollover.list_billers_of(use, name or "")


def _confirm(message: str, question: str, *, code: str, fix: str) -> None:
    """Ask; without a terminal to ask at it is a refusal."""
    from saml_bridge.flows.key_rehearsals import RolloverRefused

    if not sys.stdin.isatty():
        raise RolloverRefused(message, findings=[Finding(code, Severity.ERROR, message, fix)])
    click.echo(f"{message[0].upper()}{message[1:]}")
    if not click.confirm(question):
        raise RolloverRefused("nothing was changed")


def _publish_change(bridge: Bridge, change: Change) -> None:
    for note in change.notes:
        click.echo(note, err=True)
    published = bridge.rollover.publish(
        change, author=name_operator(), trace_id=make_trace_id(bridge.launcher.random_bytes)
    )
    for finding in published.findings:
        show_finding(finding, err=True)
    show_published(published)
