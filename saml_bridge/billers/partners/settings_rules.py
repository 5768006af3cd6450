"""The rules that the settings of several protocols share.

Owns: settings that another one needs or has no use for, and parameters that stand in a URL once. Does not own: single
values (`billers.file`), rules of one protocol (its own file in this room). Pure. Called by: the protocols of this room.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from saml_bridge.model.findings import get, refuse
from saml_bridge.model.values import Finding, Severity

_SET_SECRET: Final = "Name one, and set its value with 'saml-bridge secrets set'."


def check_presence(
    settings: Any, where: str, why: str, *, needed: Iterable[str] = (), unwanted: Iterable[str] = ()
) -> Iterator[Finding]:
    """Checks that needed settings are given and unwanted ones are not.

    `why` is the setting that decides it, with its value.
    """
    for name in needed:
        if getattr(settings, name) is None:
            fix = _SET_SECRET if name == "secret" else f"Add {name}."
            yield refuse("config-missing", f"{name}: is missing; {why} needs it", fix, f"{where}.{name}")
    for name in unwanted:
        if getattr(settings, name) is not None:
            message = f"{name}: is given, and {why} has no use for it"
            yield refuse("config-value", message, f"Remove {name}.", f"{where}.{name}")


def check_query(uri: str, added: Iterable[str], name: str, where: str) -> Iterator[Finding]:
    """Checks that a URL does not have a parameter that is added to it.

    Readers differ in which of two such parameters they take.
    """
    twice = sorted(list_query(uri).intersection(added))
    if twice:
        message = f"{name}: the query of {uri[:200]!r} has {', '.join(twice)}, which is added to it"
        yield refuse("parameter-twice", message, "Remove it from the URL.", where)


def list_query(uri: str) -> set[str]:
    return {name for name, _ in parse_qsl(urlsplit(uri).query, keep_blank_values=True)}


def check_carrying(settings: Any, where: str, url: str | None) -> Iterator[Finding]:
    """Every parameter that the browser carries stands once, the ones in the URL included."""
    names = [] if settings.carry in ("path", "redirect") else [("token_parameter", settings.token_parameter)]
    if settings.callback_parameter is not None:
        names.append(("callback_parameter", settings.callback_parameter))
    names += [(f"parameters.{name}", name) for name in get(settings, "parameters") or ()]
    there = dict.fromkeys(list_query(url or ""), "the query of the URL") if settings.carry != "post" else {}
    for place, name in names:
        if name in there:
            message = f"{place.partition('.')[0]}: the parameter {name!r} stands in {there[name]} already"
            yield refuse("parameter-twice", message, "Choose another name, or remove one.", f"{where}.{place}")
        there.setdefault(name, place.partition(".")[0])


def check_callback_claim(settings: Any, where: str, own: frozenset[str]) -> Iterator[Finding]:
    claim = settings.callback_claim
    if claim in own:
        message = f"callback_claim: {claim!r} is a claim that says what a token is or is good for"
        yield refuse("config-value", message, "Choose another name.", f"{where}.callback_claim")
    if claim is not None and settings.callback_parameter is not None:
        message = (
            f"callback_parameter: the callback URI is carried twice, protected in the claim {claim!r}"
            f" and unprotected as the parameter {settings.callback_parameter!r}"
        )
        fix = "Set callback_parameter to null, unless the partner reads it."
        yield Finding("callback-twice", Severity.NOTE, message, fix, f"{where}.callback_parameter")
