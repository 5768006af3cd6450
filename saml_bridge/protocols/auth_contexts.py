"""Authentication contexts: those that a sign-in bears out, and those that are asked for.

Owns: the table from methods that the portal names (`amr`, RFC 8176) to classes, the order of the classes, the choice
among them for a request, and the words for both. Does not own: reading a request (`protocols.saml.authn_request`), and
what is answered when no class fits (`protocols.saml.pending_request`, `protocols.oidc.pending_request`). Pure. Called
by those, the response and discovery: an OpenID Connect `acr` is a class of this table.

A session mostly bears out several classes, and a response states one of them: the first, or the one that a request asks
for. None is ever stated that the portal's methods do not prove.

Specification: SAML 2.0 Core, 3.3.2.2.1; SAML 2.0 Authentication Context, 3.4; REFEDS MFA Profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from saml_bridge.model.comparisons import show

Comparison = Literal["exact", "minimum", "maximum", "better"]

_CLASSES: Final = "urn:oasis:names:tc:SAML:2.0:ac:classes:"
UNSPECIFIED: Final = f"{_CLASSES}unspecified"
PASSWORD: Final = f"{_CLASSES}Password"
PROTECTED_PASSWORD: Final = f"{_CLASSES}PasswordProtectedTransport"
SMARTCARD: Final = f"{_CLASSES}Smartcard"
MOBILE_TWO_FACTOR: Final = f"{_CLASSES}MobileTwoFactorUnregistered"
REFEDS_MFA: Final = "https://refeds.org/profile/mfa"

STATED: Final = (PROTECTED_PASSWORD, SMARTCARD, MOBILE_TWO_FACTOR, REFEDS_MFA)
"""The classes that can be borne out; of several the first here is stated where a request asks for none.

A password with a second factor stays PasswordProtectedTransport then: it is true, and what most partners know.
"""

_FACTORS: Final = (
    frozenset({"pwd", "pin"}),
    frozenset({"otp", "sms", "tel", "hwk", "swk", "sc"}),
    frozenset({"face", "fpt", "iris", "retina", "vbm"}),
)
"""What the payer knows, has and is (RFC 8176). `user` says that somebody was there, which is no factor."""

_UP_TO_PASSWORD: Final = frozenset({UNSPECIFIED, PASSWORD, PROTECTED_PASSWORD})
_AT_MOST: Final[Mapping[str, frozenset[str]]] = {
    UNSPECIFIED: frozenset({UNSPECIFIED}),
    PASSWORD: frozenset({UNSPECIFIED, PASSWORD}),
    PROTECTED_PASSWORD: _UP_TO_PASSWORD,
    SMARTCARD: _UP_TO_PASSWORD | {SMARTCARD},
    MOBILE_TWO_FACTOR: _UP_TO_PASSWORD | {MOBILE_TWO_FACTOR, REFEDS_MFA},
    REFEDS_MFA: _UP_TO_PASSWORD | {MOBILE_TWO_FACTOR, REFEDS_MFA},
}
"""From a class to those that it is at least as strong as. A smartcard alone is one factor, though a good one: it is
neither stronger nor weaker than two. Of a class that is missing here nobody can say whether it is stronger or weaker.
"""


@dataclass(frozen=True, slots=True)
class RequestedContext:
    """The authentication contexts that the partner would take.

    They are named by class or by declaration, never by both (Core 3.3.2.2.1).
    """

    comparison: Comparison
    classes: tuple[str, ...]
    declarations: tuple[str, ...]


def list_contexts(methods: Iterable[str]) -> tuple[str, ...]:
    """The classes that these methods prove, the one first that is stated by default.

    `unspecified` where none is proven.
    """
    used = frozenset(methods)
    has_two = "mfa" in used or sum(not used.isdisjoint(kind) for kind in _FACTORS) > 1
    borne_out = {
        PROTECTED_PASSWORD: "pwd" in used,
        SMARTCARD: "sc" in used,
        MOBILE_TWO_FACTOR: has_two and "sms" in used,
        REFEDS_MFA: has_two,
    }
    return tuple(one for one in STATED if borne_out[one]) or (UNSPECIFIED,)


def find_context(methods: Iterable[str]) -> str:
    """The class that is stated of these methods where a request asks for none."""
    return list_contexts(methods)[0]


def choose_context(methods: Iterable[str], requested: RequestedContext) -> str | None:
    """The class to state to a request (Core 3.3.2.2.1).

    None when these methods prove no class that it takes.

    `exact` compares names, but that `unspecified` asks for nothing and takes all. `minimum` takes a class that is at
    least as strong as one of those named, and one that is named first; `maximum` the strongest that is no stronger than
    one of them; `better` a class that is stronger than all of them. Declarations are never stated, so never met.
    """
    proven = list_contexts(methods)
    wanted = requested.classes
    match requested.comparison:
        case "exact":
            return _choose_named(proven, wanted)
        case "minimum":
            enough = [one for one in proven if any(_is_at_least(one, other) for other in wanted)]
            return _choose_named(enough, wanted) or next(iter(enough), None)
        case "maximum":
            within = [one for one in proven if any(_is_at_least(other, one) for other in wanted)]
            return next((one for one in within if not any(_is_stronger(other, one) for other in within)), None)
        case "better":
            return next((one for one in proven if wanted and all(_is_stronger(one, other) for other in wanted)), None)


def describe_wish(requested: RequestedContext) -> str:
    """A request's wish, whole: `exactly A, or B`."""
    words = {"exact": "exactly ", "minimum": "at least ", "maximum": "at most ", "better": "better than "}
    named = [show(one) for one in requested.classes]
    named += [f"the declaration {show(one)}" for one in requested.declarations]
    return words[requested.comparison] + (", and " if requested.comparison == "better" else ", or ").join(named)


def describe_proof(methods: Iterable[str]) -> str:
    """The classes that these methods prove, whole."""
    return ", ".join(list_contexts(methods))


def _choose_named(proven: Sequence[str], wanted: Iterable[str]) -> str | None:
    """The first that is wanted among those that are proven; `unspecified` is any."""
    fitting = (proven[0] if one == UNSPECIFIED and proven else one for one in wanted)
    return next((one for one in fitting if one in proven), None)


def _is_at_least(one: str, other: str) -> bool:
    return one == other or other in _AT_MOST.get(one, ())


def _is_stronger(one: str, other: str) -> bool:
    return _is_at_least(one, other) and not _is_at_least(other, one)
