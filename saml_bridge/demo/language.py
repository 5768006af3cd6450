"""The demo portal's language: that of the payer's browser, as on the bridge's own pages.

Owns: the texts of `translations/` and how a page says a day.
Does not own: which language is chosen (`web.payer.pages`). Called by `portal`.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from babel.dates import format_date
from babel.support import NullTranslations, Translations

from saml_bridge.web.payer.pages import LANGUAGES, choose_language

TRANSLATIONS: Final = Path(__file__).parent / "translations"


def describe_language() -> dict[str, Any]:
    """The names for the portal's templates: `lang`, `_` for a text, `show_day` for a date."""
    lang = choose_language()

    def translate(text: str, **values: object) -> str:
        found = _load(lang).gettext(text)
        return found % values if values else found

    def show_day(day: date) -> str:
        return format_date(day, "medium", locale=lang)

    return {"lang": lang, "_": translate, "show_day": show_day}


@lru_cache(maxsize=len(LANGUAGES))
def _load(lang: str) -> NullTranslations:
    """One of the few languages that `choose_language` gives."""
    return Translations.load(str(TRANSLATIONS), [lang])
