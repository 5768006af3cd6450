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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import click
from rich.markup import escape
from sqlalchemy.exc import SQLAlchemyError

from saml_bridge import __version__
from saml_bridge.app import Bridge, create_app, open_bridge
from saml_bridge.audit import Outcome as AuditOutcome
from saml_bridge.audit import Record, Search
from saml_bridge.db import DATABASE_FIX, check_schema, explain_failure
from saml_bridge.errors import BridgeError, LaunchRefused, SignInFailed
from saml_bridge.fields import build_example
from saml_bridge.identity import build_biller_metadata
from saml_bridge.installation import examine, initialise, name_operator
from saml_bridge.keys import KeyKind, create_key
from saml_bridge.launch import ChooseAccount, Launched, LaunchRequest, Outcome
from saml_bridge.metadata_report import build_json, show_report
from saml_bridge.publishing import PlannedFile, Sources, apply_plan, export_biller, plan_file
from saml_bridge.saml.metadata import check_metadata
from saml_bridge.sessions import FileSource
from saml_bridge.settings import Settings, allows_http_acs, check_environment
from saml_bridge.terminal import clean, make_console, make_table, show_finding
from saml_bridge.values import Credentials, Finding, Severity
from saml_bridge.web.launch import new_trace_id
from saml_bridge.web.metrics import FOLDER_VARIABLE
from saml_bridge.web.pages import render_launch

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
        for slug, number in published.revisions.items():
            click.echo(f"{slug}: revision {number}" + (" (unchanged)" if slug in published.unchanged else " published"))


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
    than 20 service providers each gets one line.

    Exit code 1 when a file has no service provider that can be used.
    """
    allow_http = allow_http or allows_http_acs()
    refused = False
    for file in files:
        report = check_metadata(file.read_bytes(), now=at or _now(), entity_id=entity_id, allow_http=allow_http)
        refused |= report.refused
        if as_json:
            click.echo(json.dumps(build_json(file, report)))
        else:
            show_report(file, report, verbose=verbose)
    return 1 if refused else 0


@metadata.command("show")
@click.argument("biller")
def metadata_show(biller: str) -> None:
    """Print our metadata for BILLER, to be given to a partner."""
    with _opened() as bridge:
        content = build_biller_metadata(bridge.registry, biller, base_url=bridge.settings.base_url)
        click.echo(content.decode("utf-8"))


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
            done = tuple(refresher.refresh(*one) for one in refresher.list_partners(biller, partner))
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
    """List and make signing keys."""


@keys.command("list")
def keys_list() -> None:
    """Show the keys in the certificates folder."""
    with _opened(need_tables=False) as bridge:
        table = make_table("name", "kind", "certificate expires", "certificate SHA-256")
        for name in bridge.keys.list_names():
            key = bridge.keys.find(name)
            kind = f"RSA {key.bits}" if key.kind == "rsa" else f"ECDSA {key.curve}"
            table.add_row(name, kind, key.not_after.date().isoformat(), key.fingerprint_sha256)
        make_console().print(table)


@keys.command("create")
@click.argument("name")
@click.option("--kind", type=click.Choice(KEY_KINDS), default="rsa-2048", show_default=True)
def keys_create(name: str, kind: KeyKind) -> None:
    """Make a signing key NAME, for a biller's idp.keys."""
    with _opened(need_tables=False) as bridge:
        for path in create_key(bridge.settings.certs_dir, name, kind=kind, now=_now()):
            click.echo(f"made {path}")


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
