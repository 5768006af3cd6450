"""Every text that a payer may read is there in Spanish, and the compiled catalogue is that of the source."""

from __future__ import annotations

from datetime import date
from gettext import GNUTranslations
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from saml_bridge.app import wiring as app
from saml_bridge.demo.payers import load_payers
from saml_bridge.mapping import fields
from saml_bridge.model import errors

ROOT = Path(errors.__file__).parents[1]
WEB, DEMO = ROOT / "web", ROOT / "demo"
BELOW = Path("translations", "es", "LC_MESSAGES", "messages.po")
CATALOGUE, DEMO_CATALOGUE = WEB / BELOW, DEMO / BELOW
BOTH = pytest.mark.parametrize("catalogue_file", [CATALOGUE, DEMO_CATALOGUE], ids=["payers' pages", "demo"])
DAY = date(2026, 1, 15)
METHODS = [("templates/**.html", "jinja2.ext:babel_extract"), ("**.py", "python")]


def _all_errors(root: type[errors.BridgeError]) -> set[type[errors.BridgeError]]:
    return {root}.union(*(_all_errors(one) for one in root.__subclasses__()))


def _extract(folder: Path) -> set[str]:
    found = extract_from_dir(str(folder), method_map=METHODS)
    return {message if isinstance(message, str) else message[0] for _, _, message, _, _ in found}


def _texts() -> set[str]:
    texts = _extract(WEB)
    assert {app, fields}, "every module that adds an error is imported"
    return texts | {one.public_message for one in _all_errors(errors.BridgeError)}


def _list_translated(catalogue_file: Path) -> set[str]:
    with catalogue_file.open("rb") as file:
        catalogue = read_po(file, locale="es")
    return {str(message.id) for message in catalogue if message.id and message.string and not message.fuzzy}


def _demo_texts() -> set[str]:
    """Those of the demo portal's pages, and what its data has in words."""
    found = _extract(DEMO)
    for payer in load_payers().values():
        found |= {payer.about} | ({payer.title} if payer.agent else set())
        found |= {str(account["type"]) for account in payer.session["accounts"]}
        for number in payer.account_numbers:
            found |= {charge.name for charge in payer.read_bill(number, today=DAY).charges}
    return found


def test_nothing_is_left_untranslated() -> None:
    assert _texts() == _list_translated(CATALOGUE)


def test_nothing_of_the_demo_portal_is_left_untranslated() -> None:
    assert _demo_texts() == _list_translated(DEMO_CATALOGUE)


@BOTH
def test_translations_keep_the_placeholders(catalogue_file: Path) -> None:
    with catalogue_file.open("rb") as file:
        catalogue = read_po(file, locale="es")
    for message in catalogue:
        if message.id:
            assert not list(message.check(catalogue)), message.id


@BOTH
def test_the_compiled_catalogue_is_current(catalogue_file: Path) -> None:
    with catalogue_file.open("rb") as file:
        texts = {message.id: message.string for message in read_po(file, locale="es") if message.id}
    with catalogue_file.with_suffix(".mo").open("rb") as file:
        compiled = GNUTranslations(file)
    assert {text: compiled.gettext(text) for text in texts} == texts, "run 'make translations'"
