"""The partner catalog as the command line shows it.

Owns: which facts of a template are shown, in which words and order, and the next steps after its use.
Does not own: the templates (`billers.catalog`), how a table looks (`terminal`). Called by: `catalog`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from saml_bridge.billers.catalog.apply_template import AppliedTemplate
from saml_bridge.billers.catalog.schemas import Evidence
from saml_bridge.billers.catalog.templates import EVIDENCE_WORDS, Template
from saml_bridge.cli.terminal import make_console, make_table, say
from saml_bridge.model.values import clean

_COLOURS = {"documented": "green", "observed": "yellow", "unverified": "red"}
_PROTOCOL_NAMES = {
    "saml": "SAML 2.0",
    "oidc": "OpenID Connect 1.0",
    "jwt": "signed link (JWT)",
    "encrypted_token": "encrypted token",
    "backchannel_token": "back-channel token",
}


def show_list(templates: Iterable[Template]) -> None:
    """Prints a line for each template, and the meaning of each evidence."""
    table = make_table("name", "partner", "protocol", "evidence")
    for one in templates:
        table.add_row(one.slug, escape(one.title), _PROTOCOL_NAMES[one.protocol], _colour(one.evidence))
    make_console().print(table)
    say("")
    for evidence, words in EVIDENCE_WORDS.items():
        say(f"{_colour(evidence)}: {escape(words)}")


def show_template(one: Template) -> None:
    """Prints everything about one template."""
    say(f"[bold]{one.slug}[/bold]  {escape(one.title)}, by {escape(one.vendor)}")
    say(escape(one.summary))
    say("")
    say(f"evidence   {_colour(one.evidence)}: {escape(EVIDENCE_WORDS[one.evidence])}")
    say(f"protocol   {_PROTOCOL_NAMES[one.protocol]} ({one.protocol})")
    say(f"subject    {_describe_subject(one)}{escape(one.subject)}")
    say(f"callback   {escape(one.callback)}")
    _show_facts(one)
    _show_attributes(one)
    _show_list("What to ask the vendor before going live", one.ask)
    _show_blanks(one)
    say(f"Use it: saml-bridge catalog use {one.slug} --biller BILLER --file billers.yaml")


def _describe_subject(template: Template) -> str:
    chosen = template.settings.get("name_id") or template.settings.get("subject")
    if chosen is None:
        return ""
    return f"{chosen.get('format') or chosen.get('type')}, from {chosen['from']}. "


def _show_facts(template: Template) -> None:
    say("\n[bold]What is known[/bold]")
    for fact in template.facts:
        say(f"  {_colour(fact.evidence)}: {escape(fact.says)}")
        say(f"    [dim]{escape(', '.join(filter(None, (fact.source, fact.url, f'as of {fact.as_of}'))))}[/dim]")


def _show_attributes(template: Template) -> None:
    say("\n[bold]What is sent[/bold]")
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
    say(f"\n[bold]{title}[/bold]")
    for line in lines:
        say(f"  - {escape(line)}")


def _show_blanks(template: Template) -> None:
    say("\n[bold]What to fill in[/bold]")
    table = make_table("  blank", "what it is", "example")
    for blank in template.blanks:
        table.add_row(f"  {blank.name}", escape(blank.about), escape(blank.example))
    make_console().print(table)
    say("")


def show_used(template: Template, used: AppliedTemplate, *, biller: str, file: Path, is_new: bool) -> None:
    """Prints the parts that a file got from a template, blanks, and next steps."""
    own = used.parts.partner["slug"]
    say(f"{'made' if is_new else 'added to'} {escape(clean(str(file)))}: partner, mapping and link {own} of {biller}")
    if template.evidence != "documented":
        say(f"{_colour(template.evidence)}: {escape(EVIDENCE_WORDS[template.evidence])}")
    _show_left(used)
    say("\n[bold]Next[/bold]")
    steps = Table(box=None, pad_edge=False, show_header=False)
    for command, why in _list_steps(template, used, biller=biller, file=file):
        steps.add_row(f"  {escape(clean(command))}", escape(why))
    make_console().print(steps)


def _show_left(used: AppliedTemplate) -> None:
    if used.blanks:
        say("\n[bold]Still to fill in[/bold], in place of {{NAME}} in the file")
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
