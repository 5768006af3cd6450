"""Commands about the partner catalog: list, show, use.

Owns: their arguments, and writing the file that `catalog use` changes.
Does not own: the templates (`billers.catalog`) and how they look (`show_catalog`).
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click


@click.group()
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
    from saml_bridge.billers.catalog.templates import list_templates
    from saml_bridge.cli.show_catalog import show_list

    show_list(list_templates())


@catalog.command("show")
@click.argument("name")
def catalog_show(name: str) -> None:
    """Show what is known of a partner and how sure it is, what it gets and why, and what to ask its vendor."""
    from saml_bridge.billers.catalog.templates import find_template
    from saml_bridge.cli.show_catalog import show_template

    show_template(find_template(name))


@catalog.command("use")
@click.argument("name")
@click.option("--biller", required=True, help="The biller's slug; one that the file does not have yet is made.")
@click.option("--file", "file", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--slug", default=None, help="What partner, mapping and link are called; default: NAME.")
@click.option("--set", "pairs", multiple=True, metavar="BLANK=VALUE", help="Fill in a blank. Repeatable.")
def catalog_use(name: str, biller: str, file: Path, slug: str | None, pairs: tuple[str, ...]) -> None:
    """Put the template NAME into a configuration file, as a partner, a mapping and a link of a biller.

    FILE is made if it is missing. What stands in it stays, comments included, and nothing is overwritten. Blanks
    that are not filled in stand there as {{NAME}}; 'plan' refuses the file until they are. Nothing is published.
    """
    from saml_bridge.billers.catalog.apply_template import apply_template
    from saml_bridge.billers.catalog.templates import CatalogRefused, find_template
    from saml_bridge.cli.show_catalog import show_used

    template = find_template(name)
    values = dict(_split_pair(pair) for pair in pairs)
    is_new = not file.exists()
    try:
        used = apply_template(None if is_new else file.read_bytes(), template, biller=biller, slug=slug, values=values)
    except CatalogRefused as refused:
        click.echo(refused.by_hand, nl=False)
        raise
    _write_whole(file, used.content)
    show_used(template, used, biller=biller, file=file, is_new=is_new)


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
