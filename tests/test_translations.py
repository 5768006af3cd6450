"""Every text that a payer may read is there in Spanish, and the compiled catalogue is that of the source."""

from __future__ import annotations

from gettext import GNUTranslations
from pathlib import Path

from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from saml_bridge import app, errors, fields

WEB = Path(errors.__file__).parent / "web"
CATALOGUE = WEB / "translations" / "es" / "LC_MESSAGES" / "messages.po"
METHODS = [("templates/**.html", "jinja2.ext:babel_extract"), ("**.py", "python")]


def _all_errors(root: type[errors.BridgeError]) -> set[type[errors.BridgeError]]:
    return {root}.union(*(_all_errors(one) for one in root.__subclasses__()))


def _texts() -> set[str]:
    found = extract_from_dir(str(WEB), method_map=METHODS)
    texts = {message if isinstance(message, str) else message[0] for _, _, message, _, _ in found}
    assert {app, fields}, "every module that adds an error is imported"
    return texts | {one.public_message for one in _all_errors(errors.BridgeError)}


def test_nothing_is_left_untranslated() -> None:
    with CATALOGUE.open("rb") as file:
        catalogue = read_po(file, locale="es")
    translated = {message.id for message in catalogue if message.id and message.string and not message.fuzzy}
    assert _texts() == translated


def test_translations_keep_the_placeholders() -> None:
    with CATALOGUE.open("rb") as file:
        catalogue = read_po(file, locale="es")
    for message in catalogue:
        if message.id:
            assert not list(message.check(catalogue)), message.id


def test_the_compiled_catalogue_is_current() -> None:
    with CATALOGUE.open("rb") as file:
        texts = {message.id: message.string for message in read_po(file, locale="es") if message.id}
    with CATALOGUE.with_suffix(".mo").open("rb") as file:
        compiled = GNUTranslations(file)
    assert {text: compiled.gettext(text) for text in texts} == texts, "run 'make translations'"
