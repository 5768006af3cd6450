"""Commands about the partner catalog: list, show, use."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from saml_bridge.billers.catalog.apply_template import AppliedTemplate, apply_template
from saml_bridge.billers.catalog.schemas import Evidence
from saml_bridge.billers.catalog.templates import (
    EVIDENCE_WORDS,
    CatalogRefused,
    Template,
    find_template,
    list_templates,
)
from saml_bridge.cli.group import cli
from saml_bridge.cli.terminal import make_console, make_table
from saml_bridge.model.values import clean

_COLOURS = {"documented": "green", "observed": "yellow", "unverified": "red"}
_PROTOCOL_NAMES = {
    "saml": "SAML 2.0",
    "oidc": "OpenID Connect 1.0",
    "jwt": "signed link (JWT)",
    "encrypted_token": "encrypted token",
    "backchannel_token": "back-channel token",
}


@cli.group()
def catalog() -> None:
    """Known partners: what each wants, how sure that is, and a configuration to start from.

    \b
    A new partner:
      catalog list                             which are known, and how well
      catalog show NAME                        everything about one, and what to ask its vendor
      catalog use NAME --biller B --file F     put it into a configuration file
    """


@catalog.command("list")
def catalog_list() -> None:
    """Show every template: its name, its protocol, and how sure it is."""
    table = make_table("name", "partner", "protocol", "evidence")
    for one in list_templates():
        table.add_row(one.slug, escape(one.title), _PROTOCOL_NAMES[one.protocol], _colour(one.evidence))
    make_console().print(table)
    _say("")
    for evidence, words in EVIDENCE_WORDS.items():
        _say(f"{_colour(evidence)}: {escape(words)}")


@catalog.command("show")
@click.argument("name")
def catalog_show(name: str) -> None:
    """Show what is known of a partner and how sure it is, what it gets and why, and what to ask its vendor."""
    one = find_template(name)
    _say(f"[bold]{one.slug}[/bold]  {escape(one.title)}, by {escape(one.vendor)}")
    _say(escape(one.summary))
    _say("")
    _say(f"evidence   {_colour(one.evidence)}: {escape(EVIDENCE_WORDS[one.evidence])}")
    _say(f"protocol   {_PROTOCOL_NAMES[one.protocol]} ({one.protocol})")
    _say(f"subject    {_describe_subject(one)}{escape(one.subject)}")
    _say(f"callback   {escape(one.callback)}")
    _show_facts(one)
    _show_attributes(one)
    _show_list("What to ask the vendor before going live", one.ask)
    _show_blanks(one)
    _say(f"Use it: saml-bridge catalog use {one.slug} --biller BILLER --file billers.yaml")


def _describe_subject(template: Template) -> str:
    chosen = template.settings.get("name_id") or template.settings.get("subject")
    if chosen is None:
        return ""
    return f"{chosen.get('format') or chosen.get('type')}, from {chosen['from']}. "


def _show_facts(template: Template) -> None:
    _say("\n[bold]What is known[/bold]")
    for fact in template.facts:
        _say(f"  {_colour(fact.evidence)}: {escape(fact.says)}")
        _say(f"    [dim]{escape(', '.join(filter(None, (fact.source, fact.url, f'as of {fact.as_of}'))))}[/dim]")


def _show_attributes(template: Template) -> None:
    _say("\n[bold]What is sent[/bold]")
    table = make_table("  attribute", "made of", "required", "evidence", "why")
    for told in template.attributes:
        rule = template.find_rule(told.attribute)
        required = "yes" if rule.get("required") else ""
        source = escape(_describe_source(rule))
        table.add_row(f"  {escape(told.attribute)}", source, required, _colour(told.evidence), escape(told.why))
    make_console().print(table)


def _describe_source(rule: object) -> str:
    if not isinstance(rule, dict):
        return ""
    if "each" in rule:
        return f"each of {rule['each']}: {rule.get('from') or rule.get('template')}"
    if "constant" in rule:
        return f"always {rule['constant']}"
    return str(rule.get("from") or rule.get("template"))


def _show_list(title: str, lines: Iterable[str]) -> None:
    _say(f"\n[bold]{title}[/bold]")
    for line in lines:
        _say(f"  - {escape(line)}")


def _show_blanks(template: Template) -> None:
    _say("\n[bold]What to fill in[/bold]")
    table = make_table("  blank", "what it is", "example")
    for blank in template.blanks:
        table.add_row(f"  {blank.name}", escape(blank.about), escape(blank.example))
    make_console().print(table)
    _say("")


@catalog.command("use")
@click.argument("name")
@click.option("--biller", required=True, help="The biller's slug; one that the file does not have yet is made.")
@click.option("--file", "file", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--slug", default=None, help="What partner, mapping and link are called; default: NAME.")
@click.option("--set", "pairs", multiple=True, metavar="BLANK=VALUE", help="Fill in a blank. Repeatable.")
def catalog_use(name: str, biller: str, file: Path, slug: str | None, pairs: tuple[str, ...]) -> None:
    """Put the template NAME into a configuration file, as a partner, a mapping and a link of a biller.

    FILE is made where there is none. What stands in it stays, comments included, and nothing is overwritten. Blanks
    that are not filled in stand there as {{NAME}}; 'plan' refuses the file until they are. Nothing is published.
    """
    template = find_template(name)
    values = dict(_split_pair(pair) for pair in pairs)
    is_new = not file.exists()
    try:
        used = apply_template(None if is_new else file.read_bytes(), template, biller=biller, slug=slug, values=values)
    except CatalogRefused as refused:
        click.echo(refused.by_hand, nl=False)
        raise
    _write_whole(file, used.content)
    own = used.parts.partner["slug"]
    _say(f"{'made' if is_new else 'added to'} {escape(clean(str(file)))}: partner, mapping and link {own} of {biller}")
    if template.evidence != "documented":
        _say(f"{_colour(template.evidence)}: {escape(EVIDENCE_WORDS[template.evidence])}")
    _show_left(used)
    _say("\n[bold]Next[/bold]")
    steps = Table(box=None, pad_edge=False, show_header=False)
    for command, why in _list_steps(template, used, biller=biller, file=file):
        steps.add_row(f"  {escape(clean(command))}", escape(why))
    make_console().print(steps)


def _split_pair(pair: str) -> tuple[str, str]:
    name, found, value = pair.partition("=")
    if not found:
        raise click.UsageError(f"--set {pair}: write it as BLANK=VALUE")
    return name, value


def _write_whole(file: Path, content: bytes) -> None:
    """Put the content in the file's place all at once; a link stays one, and the file's mode stays."""
    target = file.resolve()
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        beside.write_bytes(content)
        if target.exists():
            beside.chmod(target.stat().st_mode & 0o7777)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def _show_left(used: AppliedTemplate) -> None:
    if used.blanks:
        _say("\n[bold]Still to fill in[/bold], in place of {{NAME}} in the file")
        table = make_table("  blank", "what it is", "example")
        for blank in used.blanks:
            table.add_row(f"  {blank.name}", escape(blank.about), escape(blank.example))
        make_console().print(table)


def _list_steps(template: Template, used: AppliedTemplate, *, biller: str, file: Path) -> Iterator[tuple[str, str]]:
    """Commands in their order, and what each is for."""
    slug, settings = used.parts.partner["slug"], used.parts.partner[template.protocol]
    yield f"saml-bridge catalog show {template.slug}", "what to ask the vendor before going live"
    if used.made_biller:
        yield (
            f"saml-bridge export {biller}",
            "if it is published already: a file holds all of a biller, so begin with that",
        )
    if "metadata" in settings:
        yield f"saml-bridge metadata check {_find_metadata(settings['metadata'], file)}", "is the vendor's file good?"
    if "secret" in settings:
        yield f"saml-bridge secrets set {biller} {settings['secret']}", "the secret that is shared with the partner"
    yield f"saml-bridge plan {file}", "what would it change, and what is wrong with it?"
    yield f"saml-bridge apply {file}", "publish it"
    if template.protocol == "saml":
        yield f"saml-bridge metadata show {biller} {slug}", "what the vendor needs from you"


def _find_metadata(metadata: str, file: Path) -> str:
    """The vendor's metadata file, which the configuration names relative to itself."""
    return "FILE" if "{{" in metadata else str(file.parent / metadata)


def _colour(evidence: Evidence) -> str:
    return f"[{_COLOURS[evidence]}]{evidence}[/{_COLOURS[evidence]}]"


def _say(line: str) -> None:
    make_console().print(line, soft_wrap=True)
