"""A mapping's attributes as claims: JSON for every protocol that carries no XML.

Owns: nested names and arrays, the types of values, and who the payer is to a partner (`sub`). Does not own: which
attributes there are (`mapping.rules`), and which of them a protocol releases. Called by the protocols. Pure.

A name with dots makes nested objects (`address.postal_code`, as OpenID Connect Core 5.1.1 has it); a name that is a URI
is taken whole. Several values make an array; one value does where the rule says `list: true`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from saml_bridge.mapping.characters import CharacterRefused, check_identifier
from saml_bridge.mapping.identifiers import SUBJECT, FindIdentifier, check_identifier_settings, compile_identifier
from saml_bridge.model.document import AttributeMapping, Rule, SubjectSettings
from saml_bridge.model.errors import LaunchRefused, ValueRefused
from saml_bridge.model.values import Attribute, Finding, Severity
from saml_bridge.protocols.interface import PartnerContext
from saml_bridge.protocols.pairwise import compile_pairwise

MOST_LEVELS: Final = 5
LARGEST_INTEGER: Final = 2**53 - 1
"""What every reader of JSON keeps exactly (RFC 8259, section 6)."""

LONGEST_SUBJECT: Final = 255
"""ASCII characters of a `sub` (OpenID Connect Core 2)."""

JWT_CLAIMS: Final = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti"})
"""The names that a JWT has of its own (RFC 7519, 4.1)."""

TOKEN_USE: Final = "token_use"
"""The claim that tells an ID token of ours from every other token of ours; its value is `ID_TOKEN_USE`."""

ID_TOKEN_USE: Final = "id"

RESERVED_CLAIMS: Final = JWT_CLAIMS.union(
    ("auth_time", "nonce", "acr", "amr", "azp", "sid", "at_hash", "c_hash", "s_hash", TOKEN_USE),
    ("cnf", "events", "act", "may_act", "scope", "client_id", "sub_id", "sub_jwk", "_claim_names", "_claim_sources"),
    ("toe", "txn", "vot", "vtm"),
)
"""The names by which a JWT says whose it is, what it is for and how its payer signed in. No rule sets one.

They are those of ID tokens (OpenID Connect Core 1.0, 2, 3.3.2.11, 5.6.2 and 7.4; Back-Channel Logout 1.0, 2.4), of
access tokens and delegation (RFC 9068, RFC 8693, RFC 7800), and of events and their subjects (RFC 8417, RFC 9493,
RFC 8485).
"""

_UNSAFE_STEPS: Final = frozenset({"__proto__", "constructor", "prototype"})
"""What a reader in JavaScript that copies values one by one takes for more than a name."""

FindSubject = FindIdentifier

_DOMAIN: Final = b"saml_bridge oidc-sub 1"
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,15})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,15})?")
_BOOLEANS: Final = {"true": True, "false": False}


def build_claims(attributes: Sequence[Attribute]) -> dict[str, Any]:
    """The claims of one launch.

    Raises ValueRefused for a value that is not of its rule's type, without the value.
    """
    claims: dict[str, Any] = {}
    for attribute in attributes:
        convert = _CONVERT[attribute.value_type]
        values = [convert(attribute.name, text) for text in attribute.values]
        *above, last = split_name(attribute.name)
        place = claims
        for name in above:
            place = place.setdefault(name, {})
        place[last] = values if attribute.as_list or len(values) > 1 else values[0]
    return claims


@lru_cache(maxsize=4096)
def split_name(name: str) -> tuple[str, ...]:
    """The path of a claim: `address.postal_code` has two steps, `https://portal.example/email` has one."""
    return (name,) if ":" in name else tuple(name.split("."))


def _read_integer(name: str, text: str) -> int:
    if not _INTEGER.fullmatch(text) or abs(int(text)) > LARGEST_INTEGER:
        raise _refuse_type(name, "a whole number")
    return int(text)


def _read_number(name: str, text: str) -> int | float:
    if not _NUMBER.fullmatch(text) or abs(float(text)) > LARGEST_INTEGER:
        raise _refuse_type(name, "a number")
    return float(text) if "." in text else int(text)


def _read_boolean(name: str, text: str) -> bool:
    if text not in _BOOLEANS:
        raise _refuse_type(name, "true or false")
    return _BOOLEANS[text]


def _refuse_type(name: str, expected: str) -> ValueRefused:
    return ValueRefused(f"the attribute {name!r} must be {expected}, and the payer's value is not", code="value-type")


_CONVERT: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "text": lambda _, text: text,
    "integer": _read_integer,
    "number": _read_number,
    "boolean": _read_boolean,
}


def check_claims(mapping: AttributeMapping, *, reserved: Collection[str], where: str) -> Iterator[Finding]:
    """Checks that a mapping's attributes can stand together as claims.

    `reserved` are names that the protocol sets itself.

    `where` is the mapping's path in the document.
    """
    paths: dict[tuple[str, ...], str] = {}
    for position, rule in enumerate(mapping.rules):
        place, path = f"{where}.rules[{position}].attribute", split_name(rule.attribute)
        if not all(path) or len(path) > MOST_LEVELS:
            message = (
                f"attribute: expected names with dots between them, at most {MOST_LEVELS}, found {rule.attribute!r}"
            )
            yield _refuse("claim-name", message, "Write it as in address.postal_code.", place)
            continue
        if (taken := _fold(path[0])) in {_fold(one) for one in reserved}:
            message = f"attribute: {path[0]!r} is set by the protocol itself, so no rule can set it"
            if taken in RESERVED_CLAIMS - JWT_CLAIMS:
                message = f"attribute: {path[0]!r} says of a token what it is good for, so no rule can set it"
            if path[0] not in reserved:
                message += f"; some readers take it for {taken!r}"
            fix = f"Choose another name, such as portal_{taken.lstrip('_')}."
            yield _refuse("claim-reserved", message, fix, place)
        if any(step in _UNSAFE_STEPS for step in path):
            message = f"attribute: {rule.attribute!r} has a part that changes objects themselves in some readers"
            yield _refuse("claim-name", message, "Choose another name.", place)
        yield from _check_constant(rule, place)
        for other, name in paths.items():
            if other != path and other[: len(path)] == path[: len(other)]:
                message = f"attribute: {rule.attribute!r} and {name!r} would be a value and an object of one name"
                yield _refuse("claim-clash", message, "Rename one of them.", place)
        paths.setdefault(path, rule.attribute)


def _fold(name: str) -> str:
    """What is the same for all names that a reader may take for one: Go's `encoding/json` passes over case."""
    return name.strip().casefold()


def _check_constant(rule: Rule, where: str) -> Iterator[Finding]:
    """A constant that is not of its rule's type would refuse every launch; what transforms make of it is not known."""
    if rule.constant is None or rule.transforms:
        return
    try:
        _CONVERT[rule.value_type](rule.attribute, rule.constant)
    except ValueRefused:
        message = f"attribute: the constant of {rule.attribute!r} is not of the type {rule.value_type}"
        yield _refuse("claim-type", message, "Correct the constant, or the type.", where)


def check_mappings(context: PartnerContext, *, reserved: Collection[str]) -> Iterator[Finding]:
    """The claims of the mappings that links to this partner use, once each.

    The place names the mapping.
    """
    slugs = dict.fromkeys(link.mapping for link in context.biller.links if link.partner == context.partner.slug)
    for slug in slugs:
        mapping = context.biller.find_mapping(slug)
        if mapping is not None:
            yield from check_claims(mapping, reserved=reserved, where=f"mappings[{slug}]")


def _refuse(code: str, message: str, fix: str, where: str) -> Finding:
    return Finding(code, Severity.ERROR, message, fix, where)


def compile_subject(settings: SubjectSettings, *, biller: str, sector: str, secret: bytes) -> FindSubject:
    """The payer's subject for one partner (OpenID Connect Core 8).

    `public` is the text itself. `pairwise` is HMAC-SHA256 of it with biller (a slug) and `sector` (the host, or the
    partner), in base64url: the same each time, another in another sector, and never a SAML name ID. The function raises
    LaunchRefused (subject-missing, subject-transform, subject-unfit). Raises FieldUnknown.
    """
    read = compile_identifier(settings, SUBJECT)
    finish = _check_public if settings.type == "public" else _compile_pairwise(biller, sector, secret)
    return lambda session, account: finish(read(session, account))


def _check_public(value: str) -> str:
    try:
        _check_ascii(value)
    except CharacterRefused as refused:
        raise LaunchRefused(f"the subject has {refused}, which no subject may have", code="subject-unfit") from None
    if len(value) > LONGEST_SUBJECT:
        raise LaunchRefused(f"the subject has more than {LONGEST_SUBJECT} characters", code="subject-unfit")
    return value


def _check_ascii(text: str) -> None:
    check_identifier(text)
    if not text.isascii():
        raise CharacterRefused("a character outside ASCII")


def _compile_pairwise(biller: str, sector: str, secret: bytes) -> Callable[[str], str]:
    find = compile_pairwise(_DOMAIN, biller=biller, sector=sector, secret=secret)

    def derive(value: str) -> str:
        try:
            return base64.urlsafe_b64encode(find(value)).decode("ascii").rstrip("=")
        except UnicodeEncodeError:
            detail = "the subject comes from a value that is not valid Unicode"
            raise LaunchRefused(detail, code="subject-unfit") from None

    return derive


def check_subject(settings: SubjectSettings, *, where: str) -> Iterator[Finding]:
    """Where the subject comes from; `where` is its path below the partner."""
    fits = _check_ascii if settings.type == "public" else None
    yield from check_identifier_settings(settings, SUBJECT, where=where, fits=fits)
