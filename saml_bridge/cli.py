"""`saml-bridge`: the command line over the same use cases as the web service.

Owns: arguments, what is printed, exit codes (0 done, 1 refused with findings, 2 wrong usage). Does not own: any rule.
"""

from __future__ import annotations

import getpass
import json
import multiprocessing
import os
import secrets
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NoReturn

import click
from rich.markup import escape
from sqlalchemy.exc import SQLAlchemyError

from saml_bridge import __version__
from saml_bridge.app import Bridge, create_app, open_bridge
from saml_bridge.audit import Entry, Kind, Record, Search
from saml_bridge.audit import Outcome as AuditOutcome
from saml_bridge.db import DATABASE_FIX, check_schema, explain_failure
from saml_bridge.errors import BridgeError, LaunchRefused, MetadataRefused, SignInFailed, XmlRefused
from saml_bridge.fields import build_example
from saml_bridge.identity import IdentityProvider
from saml_bridge.installation import DEFAULT_KEY, examine, initialise, name_operator
from saml_bridge.key_report import build_json as build_board_json
from saml_bridge.key_report import describe_kind, show_board, show_ring
from saml_bridge.keys import KeyKind
from saml_bridge.launch import ChooseAccount, Launched, LaunchRequest, Outcome
from saml_bridge.metadata_report import build_json, show_report
from saml_bridge.portal_keys import CALLS, DEFAULT_OVERLAP, DEFAULT_PER_MINUTE, EVERY_BILLER, PortalKey
from saml_bridge.publishing import PlannedFile, Sources, apply_plan, export_biller, plan_file
from saml_bridge.registry import Published
from saml_bridge.rehearsals import VERDICTS, Verdict
from saml_bridge.rollover import Change as KeyChange
from saml_bridge.rollover import KeyUse, RolloverRefused, merge_changes
from saml_bridge.saml.aggregate import read_metadata
from saml_bridge.saml.metadata import MetadataReport, check_metadata
from saml_bridge.sessions import FileSource
from saml_bridge.settings import Settings, allows_http_acs, check_environment
from saml_bridge.terminal import clean, make_console, make_table, show_finding
from saml_bridge.values import Credentials, Finding, Severity
from saml_bridge.web.launch import new_trace_id
from saml_bridge.web.metrics import FOLDER_VARIABLE
from saml_bridge.web.pages import render_launch

FILE: click.Path = click.Path(exists=True, dir_okay=False, path_type=Path)
KEY_KINDS: tuple[KeyKind, ...] = ("rsa-2048", "rsa-3072", "rsa-4096", "ec-p256", "ec-p384")


class Instant(click.ParamType[datetime]):
    """An ISO 8601 time; one without a time zone is UTC."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            parsed = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write it like 2026-01-15T12:00:00Z", param, ctx)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


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
        _show_error(error)
        sys.exit(1)
    except SQLAlchemyError as error:
        click.echo(f"saml-bridge: the database does not answer: {explain_failure(error)}. {DATABASE_FIX}", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"saml-bridge: {clean(_explain_os(error))}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _explain_os(error: OSError) -> str:
    """The file and what the system says of it."""
    what = error.strerror or str(error)
    return what if error.filename is None else f"{error.filename}: {what}"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="saml-bridge")
def cli() -> None:
    """Turn a bill-portal session into a signed-in session at a partner portal.

    \b
    First steps:
      saml-bridge demo                     everything at once, with a demo portal and demo partners
      saml-bridge init                     keys, secret and database for a service of your own
      saml-bridge metadata check FILE      is this partner's metadata good?
      saml-bridge plan FILE                what would this configuration change?
      saml-bridge apply FILE               publish it
      saml-bridge serve                    start the service

    Settings are environment variables SAML_BRIDGE_*; 'saml-bridge doctor' shows what is in force and what is wrong.
    """


@cli.command()
def init() -> None:
    """Make what a service needs: a secret, the signing key 'default', the database with its tables.

    What is there already stays as it is; running it again is safe, and brings the tables up to date.
    """
    for line in initialise(os.environ):
        click.echo(line)


@cli.command()
@click.option("--bind", default="127.0.0.1:8700", metavar="HOST:PORT", show_default=True, help="Where to listen.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes; one a core.")
@click.option("--threads", type=click.IntRange(1, 64), default=8, show_default=True, help="Requests at once a process.")
def serve(bind: str, workers: int, threads: int) -> None:
    """Start the service. TLS is ended before it, by a reverse proxy."""
    host, port = _read_bind(bind)
    for finding in check_environment():
        show_finding(finding)
    settings = Settings.from_env()
    create_app(settings)  # everything that can be wrong is said here, once, and not by each worker
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces
    from granian.log import LogLevels

    server = Granian(
        "saml_bridge.app:create_served_app",
        factory=True,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        address=host,
        port=port,
        workers=workers,
        blocking_threads=threads,
        backpressure=threads * 8,
        log_level=LogLevels.error,  # it warns of more threads than cores; ours wait for the database
    )
    with _summed_metrics(settings) if workers > 1 else nullcontext():
        server.serve()


@contextmanager
def _summed_metrics(settings: Settings) -> Iterator[None]:
    """Have workers that start now write their metrics to a folder, for each to sum up."""
    settings.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    multiprocessing.set_start_method("spawn")  # a forked worker would go on with the metrics library as loaded here
    with TemporaryDirectory(prefix="metrics-", dir=settings.instance_dir) as folder:
        os.environ[FOLDER_VARIABLE] = folder
        yield


def _read_bind(bind: str) -> tuple[str, int]:
    """The address and the port to listen on; a host name becomes its address."""
    host, _, port = bind.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{bind!r} is not HOST:PORT, for example 0.0.0.0:8700", param_hint="--bind")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise click.BadParameter(f"{host!r} is no address of this machine: {error}", param_hint="--bind") from error
    first = min(found, key=lambda one: one[0] != socket.AF_INET)
    return str(first[4][0]), int(port)


@cli.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def plan(file: Path) -> None:
    """Show in words what applying FILE would change, and what is wrong with it."""
    with _opened() as bridge:
        planned = plan_file(bridge.registry, file, now=_now(), sources=_find_sources(bridge))
        _show_plan(planned)
        for risky in planned.risky:
            show_finding(risky.to_finding(Severity.WARNING))


@cli.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--comment", default="", help="Why, for the list of revisions.")
@click.option("--author", default=None, help="Who publishes; default: the system's user name.")
@click.option(
    "--accept-metadata",
    "accepted",
    multiple=True,
    metavar="PARTNER",
    help="Take over a risky change of this partner's metadata; BILLER/PARTNER for one biller's. Repeatable.",
)
def apply(file: Path, comment: str, author: str | None, accepted: tuple[str, ...]) -> None:
    """Publish the billers in FILE: all of them or none.

    A change of a partner's metadata that an attacker could want is refused unless --accept-metadata names the partner.
    """
    with _opened() as bridge:
        planned = plan_file(bridge.registry, file, now=_now(), sources=_find_sources(bridge))
        _show_plan(planned)
        trace_id = new_trace_id(bridge.launcher)
        published = apply_plan(
            bridge.registry,
            planned,
            author=author or getpass.getuser(),
            comment=comment,
            now=_now(),
            trace_id=trace_id,
            accept=accepted,
        )
        _show_published(published)


@cli.command()
@click.argument("biller")
@click.option("--revision", type=click.IntRange(1), default=None, help="Default: the one in force.")
def export(biller: str, revision: int | None) -> None:
    """Print a biller's configuration as a file that 'apply' takes."""
    with _opened() as bridge:
        click.echo(export_biller(bridge.registry, biller, revision=revision), nl=False)


@cli.command()
@click.argument("biller")
@click.argument("link")
@click.option(
    "--session",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The portal session as JSON.",
)
@click.option("--account", default=None, metavar="NUMBER", help="One of the session's accounts.")
@click.option("--callback", default=None, metavar="URI", help="Landing page, below one of the link's callback_allow.")
@click.option("--output", type=click.Choice(["form", "xml", "json"]), default="form", show_default=True)
def launch(biller: str, link: str, session: Path, account: str | None, callback: str | None, output: str) -> None:
    """Make a real, recorded launch without a browser.

    'form' prints the page that posts itself, 'xml' the SAML Response, 'json' the form's action and fields.
    """
    with _opened() as bridge:
        ask = LaunchRequest(
            biller=biller,
            link=link,
            credentials=Credentials(),
            trace_id=new_trace_id(bridge.launcher),
            account=account,
            callback=callback,
            returned=True,
        )
        try:
            outcome = bridge.launcher.launch(ask, FileSource(session))
        except BridgeError as error:
            click.echo(f"trace ID {ask.trace_id}", err=True)
            raise (error.__cause__ if isinstance(error, SignInFailed) and error.__cause__ else error) from None
        if not isinstance(outcome, Launched):
            raise _explain_unfinished(outcome)
        click.echo(_render_launched(bridge, outcome, output))


def _explain_unfinished(outcome: Outcome) -> BridgeError:
    """What a browser would have shown a page for, as an error of the command line."""
    if isinstance(outcome, ChooseAccount):
        numbers = ", ".join(one["number"] for one in outcome.accounts)
        return LaunchRefused(
            f"the session has several accounts, say --account with one of {numbers}", code="no-account"
        )
    return LaunchRefused(f"the launch stopped at {type(outcome).__name__}", code="launch-unfinished")


def _render_launched(bridge: Bridge, launched: Launched, output: str) -> str:
    if output == "xml":
        return launched.document.decode("utf-8")
    if output == "json":
        return json.dumps({"action": launched.reply.action, **dict(launched.reply.fields)}, indent=2)
    with bridge.app.app_context():
        return render_launch(launched, "en")


@cli.group()
def metadata() -> None:
    """Check partners' metadata, look after what is fetched, and print our own."""


@metadata.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--entity-id", default=None, help="Of a file that describes several: this one alone.")
@click.option("--at", "at", type=Instant(), default=None, help="The clock to judge by, such as 2026-01-15T12:00:00Z.")
@click.option("--allow-http", is_flag=True, help="Take http:// endpoints too, as SAML_BRIDGE_ALLOW_HTTP_ACS=1 does.")
@click.option("--verbose", is_flag=True, help="Show everything about each, however many the file describes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a file, with everything.")
def metadata_check(
    files: tuple[Path, ...], entity_id: str | None, at: datetime | None, allow_http: bool, verbose: bool, as_json: bool
) -> int:
    """Is this partner's metadata good? Says what is wrong, what it means, and what to do.

    Shows what the metadata offers and asks for too: its keys, endpoints, name IDs and attributes. Of a file of more
    than 20 service providers each gets one line. A file of more than 5 MiB needs --entity-id.

    Exit code 1 when a file has no service provider that can be used.
    """
    allow_http = allow_http or allows_http_acs()
    refused = False
    for file in files:
        report = _check_file(file, now=at or _now(), entity_id=entity_id, allow_http=allow_http)
        refused |= report.refused
        if as_json:
            click.echo(json.dumps(build_json(file, report)))
        else:
            show_report(file, report, verbose=verbose)
    return 1 if refused else 0


def _check_file(path: Path, *, now: datetime, entity_id: str | None, allow_http: bool) -> MetadataReport:
    """The report on a file, or on one entity of a file that is too large for a report on all of them."""
    try:
        with path.open("rb") as file:
            content = read_metadata(file, entity_id)
    except (MetadataRefused, XmlRefused) as refused:
        return MetadataReport(findings=refused.findings)
    return check_metadata(content, now=now, entity_id=entity_id, allow_http=allow_http)


@metadata.command("show")
@click.argument("biller")
@click.argument("partner", required=False)
def metadata_show(biller: str, partner: str | None) -> None:
    """Print our metadata for BILLER, to be given to a partner.

    With PARTNER as that partner sees us: by the entity ID that it insists on, the key that signs for it first.
    """
    with _opened() as bridge:
        identity = IdentityProvider(bridge.registry, base_url=bridge.settings.base_url)
        click.echo(identity.find_metadata(biller, partner=partner, now=_now()).xml.decode("utf-8"))


@metadata.command("refresh")
@click.argument("biller", required=False)
@click.argument("partner", required=False)
@click.option("--due", is_flag=True, help="Only those whose time has come; for cron.")
def metadata_refresh(biller: str | None, partner: str | None, due: bool) -> int:
    """Fetch the metadata of partners that have an address: of all, of BILLER's, or of one PARTNER.

    What is safe is published, what is risky waits for 'metadata accept', and what fails leaves things as they are.
    Exit code 1 when any failed.
    """
    if due and biller:
        raise click.UsageError("--due goes over all billers: name none.")
    with _opened() as bridge:
        refresher = bridge.refresher
        if due:
            done = refresher.run_due(f"command {os.getpid()} {secrets.token_hex(8)}")
            if done is None:
                click.echo("another process is at it")
                return 0
        else:
            done = refresher.refresh_all(biller, partner)
    for one in done:
        click.echo(clean(f"{one.biller}/{one.partner}: {one.outcome}" + (f": {one.detail}" if one.detail else "")))
    if not done:
        click.echo("nothing is due" if due else "no partner has a metadata_url or mdq_url")
    return 1 if any(one.failed for one in done) else 0


@metadata.command("held")
def metadata_held() -> None:
    """List the changes of partners' metadata that wait for a decision, in words."""
    with _opened() as bridge:
        held = bridge.refresher.list_waiting()
    for one in held:
        click.echo(f"{one.biller}/{one.partner}: held since {one.held_at:%Y-%m-%d %H:%M} UTC, sha256:{one.sha256}")
        for line in one.words:
            click.echo(f"  {clean(line)}")
    if not held:
        click.echo("No change waits.")


@metadata.command("accept")
@click.argument("biller")
@click.argument("partner")
def metadata_accept(biller: str, partner: str) -> None:
    """Bring the change that waits for PARTNER into force, exactly as it was held."""
    with _opened() as bridge:
        number = bridge.refresher.accept(biller, partner, author=name_operator())
        click.echo(f"{biller}: revision {number} published")


@metadata.command("reject")
@click.argument("biller")
@click.argument("partner")
def metadata_reject(biller: str, partner: str) -> None:
    """Decide against the change that waits for PARTNER; the same content does not come up again."""
    with _opened() as bridge:
        held = bridge.refresher.reject(biller, partner, author=name_operator())
        click.echo(f"{biller}/{partner}: rejected sha256:{held.sha256}; the metadata in force stays")


@cli.group()
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
    with _opened(need_tables=False) as bridge:
        show_ring(bridge.keys)


@keys.command("create")
@click.argument("name")
@click.option("--kind", type=click.Choice(KEY_KINDS), default="rsa-2048", show_default=True)
@click.option("--encrypt", is_flag=True, help="With the passphrase in SAML_BRIDGE_KEY_PASSPHRASE.")
def keys_create(name: str, kind: KeyKind, encrypt: bool) -> None:
    """Make a signing key NAME, for a biller's idp.keys."""
    with _opened(need_tables=False) as bridge:
        for path in bridge.keys.create(name, kind=kind, now=_now(), encrypt=encrypt):
            click.echo(f"made {path}")


@keys.command("import")
@click.argument("name")
@click.option("--key", "key_file", required=True, type=FILE, help="The private key in PEM form.")
@click.option("--cert", "certificate_file", required=True, type=FILE, help="Its certificate in PEM form.")
@click.option("--encrypt", is_flag=True, help="With the passphrase in SAML_BRIDGE_KEY_PASSPHRASE.")
def keys_import(name: str, key_file: Path, certificate_file: Path, encrypt: bool) -> None:
    """Take a copy of a key that was made elsewhere, as NAME.

    RSA of 2048 to 4096 bits, P-256 or P-384. A key that is encrypted is opened with SAML_BRIDGE_KEY_PASSPHRASE, and
    stays encrypted with it. The files themselves are left as they are.
    """
    with _opened(need_tables=False) as bridge:
        key = bridge.keys.import_files(name, key_file=key_file, certificate_file=certificate_file, encrypt=encrypt)
        click.echo(f"took {describe_kind(key)} as {name}, certificate SHA-256 {key.fingerprint_sha256}")
        if key.not_after <= _now():
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
    with _opened() as bridge:
        chosen = bridge.rollover.list_billers_of("current", old or DEFAULT_KEY) if everywhere else billers
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
    with _opened() as bridge:
        who, trace_id = name_operator(), new_trace_id(bridge.launcher)
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
    failed = False
    with _opened() as bridge:
        for slug in (biller,) if biller else bridge.registry.list_billers():
            try:
                board = bridge.rollover.build_board(slug)
            except BridgeError as error:
                if biller:
                    raise
                _show_error(error)
                failed = True
            else:
                click.echo(json.dumps(build_board_json(board))) if as_json else show_board(board)
    return 1 if failed else 0


ALL_WITH = "Instead of BILLER: every biller whose {} key is KEY, all or none."


@keys.command("promote")
@click.argument("biller", required=False)
@click.argument("partners", nargs=-1)
@click.option("--all-with", "name", default=None, metavar="KEY", help=ALL_WITH.format("next"))
@click.option("--yes", is_flag=True, help="Also for partners that were not seen to accept the key.")
def keys_promote(biller: str | None, partners: tuple[str, ...], name: str | None, yes: bool) -> None:
    """Let the next key sign: for PARTNERS, or without any for all of BILLER, which makes it the current key."""
    with _opened() as bridge:
        billers = _choose_billers(bridge, biller, name, "next")
        change = merge_changes([bridge.rollover.plan_promotion(slug, partners) for slug in billers])
        if change.unverified and not yes:
            _confirm_unverified(change.unverified)
        _publish_change(bridge, change)
        click.echo("Watch the sign-ons; 'saml-bridge keys demote' is the way back.")


@keys.command("demote")
@click.argument("biller", required=False)
@click.argument("partners", nargs=-1)
@click.option("--all-with", "name", default=None, metavar="KEY", help=ALL_WITH.format("previous"))
def keys_demote(biller: str | None, partners: tuple[str, ...], name: str | None) -> None:
    """Take a promotion back: for PARTNERS, or without any for all of BILLER."""
    with _opened() as bridge:
        billers = _choose_billers(bridge, biller, name, "previous")
        _publish_change(bridge, merge_changes([bridge.rollover.plan_demotion(slug, partners) for slug in billers]))


@keys.command("retire")
@click.argument("biller", required=False)
@click.option("--next", "withdraw", is_flag=True, help="The next key, which is not to be used after all.")
@click.option("--all-with", "name", default=None, metavar="KEY", help=ALL_WITH.format("previous (or next)"))
def keys_retire(biller: str | None, withdraw: bool, name: str | None) -> None:
    """Publish the previous key of BILLER no more. Its files stay in the certificates folder."""
    use: Literal["previous", "next"] = "next" if withdraw else "previous"
    with _opened() as bridge:
        billers = _choose_billers(bridge, biller, name, use)
        change = merge_changes([bridge.rollover.plan_retirement(slug, use=use) for slug in billers])
        _publish_change(bridge, change)
        click.echo(f"The files of the key stay in {bridge.keys.folder}; remove them when no biller names it.")


def _choose_billers(bridge: Bridge, biller: str | None, name: str | None, use: KeyUse) -> tuple[str, ...]:
    if (biller is None) == (name is None):
        raise click.UsageError("Name a BILLER, or say --all-with KEY.")
    return (biller,) if biller is not None else bridge.rollover.list_billers_of(use, name or "")


def _confirm_unverified(unverified: Sequence[str]) -> None:
    """Ask; without a terminal to ask at it is a refusal."""
    names = ", ".join(unverified)
    if not sys.stdin.isatty():
        message = f"not seen to accept the next key: {names}"
        fix = "Rehearse it with them ('saml-bridge keys rehearse'), or say --yes."
        raise RolloverRefused(message, findings=[Finding("partners-unverified", Severity.ERROR, message, fix)])
    click.echo(f"Not seen to accept the next key: {names}")
    if not click.confirm("Their payers cannot sign on if they do not. Promote all the same?"):
        raise RolloverRefused("nothing was changed")


def _publish_change(bridge: Bridge, change: KeyChange) -> None:
    for note in change.notes:
        click.echo(note, err=True)
    published = bridge.rollover.publish(change, author=name_operator(), trace_id=new_trace_id(bridge.launcher))
    for finding in published.findings:
        show_finding(finding, err=True)
    _show_published(published)


@cli.group("portal-keys")
def portal_keys() -> None:
    """Make, list and end the keys that portals call us with."""


@portal_keys.command("create")
@click.argument("name")
@click.option("--biller", "billers", multiple=True, metavar="BILLER", help="May be given several times.")
@click.option("--every-biller", is_flag=True, help="For all billers, those to come as well.")
@click.option(
    "--call", "calls", multiple=True, type=click.Choice(CALLS), help="Several times for more; all if not given."
)
@click.option("--per-minute", type=click.IntRange(1, 1_000_000), default=DEFAULT_PER_MINUTE, show_default=True)
def portal_keys_create(
    name: str, billers: tuple[str, ...], every_biller: bool, calls: tuple[str, ...], per_minute: int
) -> None:
    """Make the portal key NAME and print it, once: it is not kept."""
    if bool(billers) == every_biller:
        raise click.UsageError("say which billers it is for: --biller BILLER, or --every-biller")
    with _opened() as bridge:
        for biller in billers:
            bridge.registry.find_current(biller)
        key, token = bridge.portal_keys.create(
            name=name,
            billers=(EVERY_BILLER,) if every_biller else tuple(dict.fromkeys(billers)),
            calls=tuple(call for call in CALLS if call in calls) or CALLS,
            per_minute=per_minute,
            now=_now(),
        )
        _record_portal_key(bridge, Kind.PORTAL_KEY_CREATED, key)
        click.echo(token)


@portal_keys.command("list")
def portal_keys_list() -> None:
    """Show all portal keys, without their secrets."""
    with _opened() as bridge:
        table = make_table("name", "ID", "billers", "calls", "a minute", "made", "last used", "state")
        for key in bridge.portal_keys.list_keys():
            table.add_row(
                key.name,
                key.id,
                ", ".join(key.billers),
                ", ".join(key.calls),
                str(key.per_minute),
                key.created_at.date().isoformat(),
                "never" if key.used_at is None else f"{key.used_at:%Y-%m-%d %H:%M}",
                _describe_portal_key(key),
            )
        make_console().print(table)


def _describe_portal_key(key: PortalKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d %H:%M}"
    if key.expires_at is None:
        return "valid"
    return f"{'valid until' if key.is_valid(_now()) else 'ended'} {key.expires_at:%Y-%m-%d %H:%M}"


@portal_keys.command("rotate")
@click.argument("name")
@click.option(
    "--overlap-hours",
    type=click.IntRange(0, 24 * 365),
    default=int(DEFAULT_OVERLAP.total_seconds() // 3600),
    show_default=True,
    help="How long the old one stays good.",
)
def portal_keys_rotate(name: str, overlap_hours: int) -> None:
    """Make a new key in place of NAME and print it, once. Both are good until the old one's time is over."""
    with _opened() as bridge:
        key, token = bridge.portal_keys.rotate(name, overlap=timedelta(hours=overlap_hours), now=_now())
        _record_portal_key(bridge, Kind.PORTAL_KEY_ROTATED, key)
        click.echo(token)


@portal_keys.command("revoke")
@click.argument("key_id", metavar="ID")
def portal_keys_revoke(key_id: str) -> None:
    """End the key with this ID (as 'portal-keys list' shows it) at once."""
    with _opened() as bridge:
        key = bridge.portal_keys.revoke(key_id, now=_now())
        _record_portal_key(bridge, Kind.PORTAL_KEY_REVOKED, key)
        click.echo(f"revoked {key.id} ({key.name})")


def _record_portal_key(bridge: Bridge, kind: Kind, key: PortalKey) -> None:
    for biller in key.billers:
        bridge.audit.record(
            Entry(
                kind=kind,
                at=_now(),
                trace_id=new_trace_id(bridge.launcher),
                biller=biller,
                detail=f"{key.id} ({key.name}) for {', '.join(key.calls)}",
                actor=getpass.getuser(),
            )
        )


@cli.group()
def audit() -> None:
    """Ask who was sent where, who was refused, who published what."""


@audit.command("list")
@click.option("--trace", "trace_id", default=None, help="The number that the payer gave you.")
@click.option("--biller", default=None)
@click.option("--link", default=None)
@click.option("--partner", default=None)
@click.option("--kind", default=None, help="For example payer:launch, or payer:launch:refused.")
@click.option("--outcome", type=click.Choice([one.value for one in AuditOutcome]), default=None)
@click.option("--code", default=None, help="For example mapping-required.")
@click.option("--payer", default=None, help="A payer's ID, in clear; needs --biller.")
@click.option("--account", default=None, help="An account number, in clear; needs --biller.")
@click.option("--since", type=Instant(), default=None)
@click.option("--until", type=Instant(), default=None)
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def audit_list(as_json: bool, outcome: str | None, **wanted: Any) -> None:
    """Show records, newest first."""
    if (wanted["payer"] or wanted["account"]) and not wanted["biller"]:
        raise click.UsageError("--payer and --account need --biller: their pseudonyms differ from biller to biller.")
    if wanted["trace_id"]:
        wanted["trace_id"] = wanted["trace_id"].strip().upper()
    search = Search(outcome=None if outcome is None else AuditOutcome(outcome), **wanted)
    with _opened() as bridge:
        records = bridge.audit.search(search)
    if as_json:
        for record in records:
            click.echo(json.dumps(_record_as_json(record)))
        return
    _show_records(records)


@cli.command()
def doctor() -> int:
    """Check settings, keys, database and partners; say what is wrong and what to do."""
    findings = list(check_environment())
    try:
        bridge = open_bridge(Settings.from_env())
    except BridgeError as error:
        findings += error.findings or [Finding(error.code, Severity.ERROR, error.detail)]
    except OSError as error:
        findings.append(Finding("file-unusable", Severity.ERROR, _explain_os(error)))
    else:
        findings += examine(bridge, now=_now())
    for finding in findings:
        show_finding(finding)
    if not findings:
        click.echo("Everything is in order.")
    return 1 if any(finding.refuses for finding in findings) else 0


@cli.command("sample-session")
@click.argument("biller")
def sample_session(biller: str) -> None:
    """Print a portal session of an invented payer, good for an hour: something to try 'launch' with."""
    now = int(_now().timestamp())
    click.echo(json.dumps(build_example(biller, now=now), indent=2))


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8700, show_default=True, help="Bridge and demo portal.")
@click.option("--partners-port", type=click.IntRange(1, 65535), default=8701, show_default=True, help="Demo partners.")
def demo(port: int, partners_port: int) -> int:
    """Start a demo portal, the bridge and four demo partner portals on this machine. Ctrl-C stops everything."""
    from saml_bridge.demo.start import run_demo  # loads pysaml2's client, which no other command needs

    return run_demo(port=port, partners_port=partners_port, say=click.echo)


@contextmanager
def _opened(*, need_tables: bool = True) -> Iterator[Bridge]:
    bridge = open_bridge(Settings.from_env())
    if need_tables:
        for finding in check_schema(bridge.app):
            raise BridgeError(finding.message, code=finding.code, findings=[finding])
    yield bridge


def _find_sources(bridge: Bridge) -> Sources:
    return Sources(bridge.refresher.fetcher, bridge.refreshes.is_rejected)


def _now() -> datetime:
    return datetime.now(UTC)


def _show_error(error: BridgeError) -> None:
    refusing = [finding for finding in error.findings if finding.refuses]
    if not refusing:
        click.echo(f"saml-bridge: {error.code}: {clean(error.detail or error.public_message)}", err=True)
    for finding in error.findings:
        show_finding(finding, err=True)


def _show_plan(planned: PlannedFile) -> None:
    for finding in planned.findings:
        show_finding(finding)
    for biller in planned.billers:
        if not biller.changes:
            click.echo(f"{biller.slug}: no changes")
        for change in biller.changes:
            click.echo(clean(str(change)))


def _show_published(published: Published) -> None:
    for slug, number in published.revisions.items():
        click.echo(f"{slug}: revision {number}" + (" (unchanged)" if slug in published.unchanged else " published"))


def _show_records(records: Iterable[Record]) -> None:
    table = make_table(
        "time", "trace ID", "kind", "biller", "link", "partner", "revision", "key", "payer", "account", "actor", "code"
    )
    details = []
    for record in records:
        entry = record.entry
        row = (entry.at.strftime("%Y-%m-%d %H:%M:%S"), entry.trace_id, entry.kind, entry.biller, entry.link)
        more = (entry.partner, entry.revision, entry.key, _short(entry.payer), _short(entry.account))
        last = (_short(entry.actor) if entry.payer else entry.actor, entry.code)
        table.add_row(*(escape(clean("" if one is None else str(one))) for one in (*row, *more, *last)))
        if entry.detail:
            details.append(f"{entry.trace_id}: {clean(entry.detail)}")
    make_console().print(table)
    for line in details:
        click.echo(line)


def _short(pseudonym: str | None) -> str | None:
    return pseudonym and pseudonym[:10]


def _record_as_json(record: Record) -> dict[str, Any]:
    entry = record.entry
    return {"number": record.number, **asdict(entry), "at": entry.at.isoformat(), "outcome": entry.outcome}


if __name__ == "__main__":
    main()
