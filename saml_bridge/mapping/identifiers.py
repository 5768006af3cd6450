"""The one text that identifies the payer to a partner.

Owns: the source of that text (a field or a template, and transforms) for a name ID or a subject, that there is exactly
one for a payer, and its findings at publication. Does not own: sending it as it is or hashed, which
`protocols.saml.response` and `protocols.claims` do, the callers. Pure.

Two payers must never get one identifier because of a setting: a setting that gives a text to a payer without one, or
picks one of several, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from saml_bridge.mapping.characters import CharacterRefused, is_blank
from saml_bridge.mapping.fields import compile_path, is_multi_valued
from saml_bridge.mapping.rules import (
    Reader,
    SeveralValues,
    Source,
    check_source,
    check_transforms,
    list_sources,
    parse_template,
)
from saml_bridge.mapping.transforms import TRANSFORMS, TransformFailed, compile_transforms
from saml_bridge.model.document import NameIdSettings, SubjectSettings, TransformCall
from saml_bridge.model.errors import LaunchRefused
from saml_bridge.model.values import Finding, JsonObject, PortalSession, Severity

FindIdentifier = Callable[[PortalSession, JsonObject | None], str]
IdentifierSettings = NameIdSettings | SubjectSettings


@dataclass(frozen=True, slots=True)
class Noun:
    """The words of a protocol for the identifier.

    They stand in sentences, at the start of findings' codes, and in codes of refusals.
    """

    words: str
    code: str
    missing: str
    several: str
    transform: str


NAME_ID: Final = Noun(
    "name ID", "name-id", missing="name-id-missing", several="name-id-ambiguous", transform="name-id-transform"
)
SUBJECT: Final = Noun(
    "subject", "subject", missing="subject-missing", several="subject-missing", transform="subject-transform"
)


def compile_identifier(settings: IdentifierSettings, noun: Noun) -> FindIdentifier:
    """The function from a session and an account to the one text.

    It raises LaunchRefused, which names fields and transforms and never a value. Raises FieldUnknown and ConfigInvalid
    for what `check_identifier_settings` refuses.
    """
    [(source, text)] = _list_sources(settings)
    read, transform = source.make(text, compile_path), compile_transforms(settings.transforms)
    named = " and ".join(dict.fromkeys(source.find_paths(text)))

    def find(session: PortalSession, account: JsonObject | None) -> str:
        found = _read_one(read, session, account, noun=noun, named=named)
        try:
            made = transform(found)
        except TransformFailed as error:
            raise _refuse_transform(settings, error, noun) from None
        if not made:
            detail = f"the {noun.words} comes from {named}, and the transforms leave nothing of it for this payer"
            raise LaunchRefused(detail, code=noun.missing)
        return made[0]

    return find


def _read_one(
    read: Reader, session: PortalSession, account: JsonObject | None, *, noun: Noun, named: str
) -> tuple[str, ...]:
    try:
        found = read(session, account)
    except SeveralValues as several:
        detail = f"the {noun.words} comes from {several}, which has several values for this payer"
        raise LaunchRefused(detail, code=noun.several) from None
    if len(found) > 1:
        detail = f"the {noun.words} comes from {named}, which has {len(found)} values for this payer"
        raise LaunchRefused(detail, code=noun.several)
    if not found or is_blank(found[0]):
        detail = f"the {noun.words} comes from {named}, which has no value for this payer"
        raise LaunchRefused(detail, code=noun.missing)
    return found


def _refuse_transform(settings: IdentifierSettings, error: TransformFailed, noun: Noun) -> LaunchRefused:
    name, count = settings.transforms[error.position].name, len(settings.transforms)
    detail = f"the {noun.words}: transform {error.position + 1} of {count}, {name}, failed: {error}"
    return LaunchRefused(detail, code=noun.transform)


# What can be said at publication


def check_identifier_settings(
    settings: IdentifierSettings, noun: Noun, *, where: str, fits: Callable[[str], None] | None
) -> Iterator[Finding]:
    """Every problem of where an identifier comes from; `where` is its path below the partner.

    `fits` raises CharacterRefused for a text that the identifier must not have; None where it leaves hashed.
    """
    findings = [*_check_sources(settings, noun, where), *_check_transforms(settings, noun, where)]
    yield from findings
    if fits is not None and not findings:
        yield from _check_texts(settings, noun, where, fits)


def _check_sources(settings: IdentifierSettings, noun: Noun, where: str) -> Iterator[Finding]:
    sources = _list_sources(settings)
    if len(sources) != 1:
        found = " and ".join(source.name for source, _ in sources) or "none"
        message = f"A {noun.words} has exactly one of from and template, found {found}."
        yield _refuse(f"{noun.code}-source", message, "Remove one." if sources else "Add from.", where)
    for source, text in sources:
        place = f"{where}.{source.name}"
        findings = [_name(finding, noun) for finding in check_source(source, text, where=place)]
        yield from findings or _check_one(source, text, noun, place)


def _check_one(source: Source, text: str, noun: Noun, where: str) -> Iterator[Finding]:
    """Whether a source that can be read gives each payer a text, and one only."""
    if source.name == "from" and is_multi_valued(text):
        message = f"The {noun.words} is taken from {text}, which can have many values."
        fix = "Name a field with one value, such as payer.id or account.number."
        yield _refuse(f"{noun.code}-field-many", message, fix, where)
    elif not source.find_paths(text):
        message = f"The template of the {noun.words} has no field: every payer would be the same one."
        yield _refuse(f"{noun.code}-same", message, "Put a field in, such as {payer.id}.", where)


_FOR_ALL: Final = "gives one text to every payer who has none of their own"


def _check_transforms(settings: IdentifierSettings, noun: Noun, where: str) -> Iterator[Finding]:
    """Those of every mapping, and transforms by which payers would share an identifier."""
    yield from (_name(one, noun) for one in check_transforms(settings.transforms, where=f"{where}.transforms"))
    for position, call in enumerate(settings.transforms):
        known = TRANSFORMS.get(call.name)
        if known is not None and known.make_list is not None:
            why = _FOR_ALL if call.name == "default" else f"is for a list, and a {noun.words} is one text"
        elif call.name == "lookup" and call.parameters.get("default"):
            why = f"has a default, which {_FOR_ALL} in the table"
        else:
            continue
        message = f"The {noun.words} cannot have the transform {call.name}: it {why}."
        fix = "Take its default out." if call.name == "lookup" else "Remove it."
        yield _refuse(f"{noun.code}-transform", message, fix, f"{where}.transforms[{position}]")


_KEEPING: Final = frozenset({"upper", "lower", "strip_leading_zeros", "pad_left", "prefix", "suffix"})
"""Transforms that take no character away which an identifier must not have."""


def _check_texts(
    settings: IdentifierSettings, noun: Noun, where: str, fits: Callable[[str], None]
) -> Iterator[Finding]:
    """Texts of the configuration that stand in every payer's identifier."""
    for place, text in _list_texts(settings):
        try:
            fits(text)
        except CharacterRefused as refused:
            message = f"The {noun.words} would have {refused} for every payer, and none may have it."
            yield _refuse(f"{noun.code}-characters", message, "Remove it.", f"{where}.{place}")


def _list_texts(settings: IdentifierSettings) -> Iterator[tuple[str, str]]:
    """Those that no later transform may take away, each with its place."""
    calls = settings.transforms
    if settings.template is not None and _are_kept(calls):
        yield "template", "".join(parse_template(settings.template)[0])
    for position, call in enumerate(calls):
        if _are_kept(calls[position + 1 :]):
            yield from ((f"transforms[{position}]", text) for text in _list_sent(call))


def _are_kept(calls: tuple[TransformCall, ...]) -> bool:
    return all(call.name in _KEEPING for call in calls)


def _list_sent(call: TransformCall) -> Iterator[str]:
    for parameter in TRANSFORMS[call.name].parameters:
        given: Any = call.parameters.get(parameter.name)
        if parameter.sent and given:
            yield from given.values() if isinstance(given, Mapping) else [given]


def _list_sources(settings: IdentifierSettings) -> list[tuple[Source, str]]:
    return list_sources(from_=settings.from_, template=settings.template)


_CODES: Final = {"field-unknown": "field-unknown", "template-several-values": "field-many", "rule-source": "source"}


def _name(finding: Finding, noun: Noun) -> Finding:
    """A finding of a rule's source or transform as one of the identifier's."""
    code = f"{noun.code}-{_CODES[finding.code]}" if finding.code in _CODES else finding.code
    said = finding.message
    message = f"{said[:1].upper()}{said[1:]}{'' if said.endswith(('?', '.')) else '.'}"
    return replace(finding, code=code, message=message, fix=finding.fix or "Name a field of the portal session.")


def _refuse(code: str, message: str, fix: str, where: str) -> Finding:
    return Finding(code, Severity.ERROR, message, fix, where)
