"""Which authentication contexts a sign-in bears out, and which of them a request takes."""

from __future__ import annotations

import itertools

import pytest

from saml_bridge.protocols.auth_contexts import (
    MOBILE_TWO_FACTOR,
    PASSWORD,
    PROTECTED_PASSWORD,
    REFEDS_MFA,
    SMARTCARD,
    STATED,
    UNSPECIFIED,
    Comparison,
    RequestedContext,
    choose_context,
    describe_proof,
    describe_wish,
    find_context,
    list_contexts,
)

METHODS = ("pwd", "pin", "otp", "sms", "hwk", "sc", "fpt", "face", "user", "mfa", "kba", "unheard-of")
COMPARISONS: tuple[Comparison, ...] = ("exact", "minimum", "maximum", "better")


@pytest.mark.parametrize(
    ("methods", "proven"),
    [
        ("", (UNSPECIFIED,)),
        ("pwd", (PROTECTED_PASSWORD,)),
        ("pwd user", (PROTECTED_PASSWORD,)),
        ("pwd pin", (PROTECTED_PASSWORD,)),
        ("pwd otp", (PROTECTED_PASSWORD, REFEDS_MFA)),
        ("mfa otp pwd", (PROTECTED_PASSWORD, REFEDS_MFA)),
        ("pwd sms", (PROTECTED_PASSWORD, MOBILE_TWO_FACTOR, REFEDS_MFA)),
        ("sms mfa", (MOBILE_TWO_FACTOR, REFEDS_MFA)),
        ("mfa", (REFEDS_MFA,)),
        ("hwk user", (UNSPECIFIED,)),
        ("hwk pin", (REFEDS_MFA,)),
        ("hwk user fpt", (REFEDS_MFA,)),
        ("hwk face", (REFEDS_MFA,)),
        ("face fpt", (UNSPECIFIED,)),
        ("otp sms hwk", (UNSPECIFIED,)),
        ("sc", (SMARTCARD,)),
        ("sc pin", (SMARTCARD, REFEDS_MFA)),
        ("sms", (UNSPECIFIED,)),
        ("otp", (UNSPECIFIED,)),
        ("face", (UNSPECIFIED,)),
        ("pin user", (UNSPECIFIED,)),
        ("kba unheard-of", (UNSPECIFIED,)),
        ("PWD", (UNSPECIFIED,)),
    ],
)
def test_o16_no_authentication_context_is_invented(methods: str, proven: tuple[str, ...]) -> None:
    assert list_contexts(methods.split()) == proven
    assert find_context(methods.split()) == proven[0]
    assert describe_proof(methods.split()) == ", ".join(proven)


def wish(comparison: Comparison, *classes: str) -> RequestedContext:
    return RequestedContext(comparison, classes, ())


@pytest.mark.parametrize(
    ("methods", "requested", "stated"),
    [
        ("pwd", wish("exact", PROTECTED_PASSWORD), PROTECTED_PASSWORD),
        ("pwd", wish("exact", SMARTCARD, PROTECTED_PASSWORD), PROTECTED_PASSWORD),
        ("pwd", wish("exact", PASSWORD), None),
        ("pwd", wish("exact", SMARTCARD), None),
        ("pwd", wish("exact", PROTECTED_PASSWORD.upper()), None),
        ("pwd", wish("exact", UNSPECIFIED), PROTECTED_PASSWORD),
        ("", wish("exact", PROTECTED_PASSWORD), None),
        ("", wish("exact", UNSPECIFIED), UNSPECIFIED),
        ("hwk user", wish("exact", PROTECTED_PASSWORD), None),
        ("pwd otp", wish("exact", PROTECTED_PASSWORD), PROTECTED_PASSWORD),
        ("pwd otp", wish("exact", REFEDS_MFA), REFEDS_MFA),
        ("pwd otp", wish("exact", REFEDS_MFA, PROTECTED_PASSWORD), REFEDS_MFA),
        ("pwd otp", wish("exact", PROTECTED_PASSWORD, REFEDS_MFA), PROTECTED_PASSWORD),
        ("pwd otp", wish("exact", UNSPECIFIED, REFEDS_MFA), PROTECTED_PASSWORD),
        ("pwd otp", wish("exact", MOBILE_TWO_FACTOR), None),
        ("pwd", wish("exact", REFEDS_MFA), None),
        ("pwd", wish("minimum", PASSWORD), PROTECTED_PASSWORD),
        ("pwd", wish("minimum", PROTECTED_PASSWORD), PROTECTED_PASSWORD),
        ("pwd", wish("minimum", SMARTCARD), None),
        ("pwd", wish("minimum", REFEDS_MFA), None),
        ("pwd", wish("minimum", SMARTCARD, PASSWORD), PROTECTED_PASSWORD),
        ("", wish("minimum", PASSWORD), None),
        ("hwk user", wish("minimum", PROTECTED_PASSWORD), None),
        ("hwk fpt", wish("minimum", PROTECTED_PASSWORD), REFEDS_MFA),
        ("pwd otp", wish("minimum", REFEDS_MFA), REFEDS_MFA),
        ("pwd otp", wish("minimum", MOBILE_TWO_FACTOR), REFEDS_MFA),
        ("pwd sms", wish("minimum", MOBILE_TWO_FACTOR), MOBILE_TWO_FACTOR),
        ("pwd otp", wish("minimum", PASSWORD), PROTECTED_PASSWORD),
        ("sc", wish("minimum", PASSWORD), SMARTCARD),
        ("sc", wish("minimum", REFEDS_MFA), None),
        ("sc", wish("minimum", MOBILE_TWO_FACTOR), None),
        ("sc pin", wish("minimum", MOBILE_TWO_FACTOR), REFEDS_MFA),
        ("pwd", wish("minimum", "urn:x"), None),
        ("pwd", wish("minimum", "urn:x", PASSWORD), PROTECTED_PASSWORD),
        ("pwd", wish("maximum", SMARTCARD), PROTECTED_PASSWORD),
        ("pwd", wish("maximum", PROTECTED_PASSWORD), PROTECTED_PASSWORD),
        ("pwd", wish("maximum", PASSWORD), None),
        ("pwd", wish("maximum", PASSWORD, MOBILE_TWO_FACTOR), PROTECTED_PASSWORD),
        ("pwd otp", wish("maximum", PROTECTED_PASSWORD), PROTECTED_PASSWORD),
        ("pwd otp", wish("maximum", REFEDS_MFA), REFEDS_MFA),
        ("pwd", wish("maximum", "urn:x"), None),
        ("pwd", wish("better", PASSWORD), PROTECTED_PASSWORD),
        ("pwd", wish("better", PROTECTED_PASSWORD), None),
        ("pwd otp", wish("better", PROTECTED_PASSWORD), REFEDS_MFA),
        ("pwd sms", wish("better", PROTECTED_PASSWORD), MOBILE_TWO_FACTOR),
        ("pwd sms", wish("better", REFEDS_MFA), None),
        ("pwd sms", wish("better", SMARTCARD), None),
        ("pwd", wish("better", PASSWORD, SMARTCARD), None),
        ("pwd", wish("better", PASSWORD, "urn:x"), None),
        ("sc", wish("better", PASSWORD, PROTECTED_PASSWORD), SMARTCARD),
        ("sc", wish("better", MOBILE_TWO_FACTOR), None),
        ("pwd", RequestedContext("exact", (), (PROTECTED_PASSWORD,)), None),
        ("pwd", RequestedContext("minimum", (), (PROTECTED_PASSWORD,)), None),
        ("pwd", RequestedContext("maximum", (), (PROTECTED_PASSWORD,)), None),
        ("pwd", RequestedContext("better", (), (PROTECTED_PASSWORD,)), None),
    ],
)
def test_a14_only_what_was_proven_is_enough(methods: str, requested: RequestedContext, stated: str | None) -> None:
    assert choose_context(methods.split(), requested) == stated


def test_a14_no_wish_gets_a_class_that_the_session_does_not_bear_out() -> None:
    asked = [*STATED, PASSWORD, UNSPECIFIED, "urn:x"]
    wishes = [wish(how, *named) for how in COMPARISONS for named in itertools.permutations(asked, 2)]
    for methods in itertools.combinations(METHODS, 3):
        proven = list_contexts(methods)
        assert all(choose_context(methods, one) in (None, *proven) for one in wishes)


def test_a14_a_further_method_never_loses_what_was_enough() -> None:
    for methods in itertools.combinations(METHODS, 2):
        for one in STATED:
            if choose_context(methods, wish("minimum", one)):
                assert all(choose_context([*methods, more], wish("minimum", one)) for more in METHODS)


def test_a_wish_is_told_whole_and_printable() -> None:
    long = "urn:example:" + "a" * 500
    assert describe_wish(wish("exact", long, PASSWORD)) == f"exactly '{long}', or '{PASSWORD}'"
    assert describe_wish(wish("better", PASSWORD, SMARTCARD)) == f"better than '{PASSWORD}', and '{SMARTCARD}'"
    assert describe_wish(wish("minimum", "a\nb")) == r"at least 'a\u000ab'"
    assert describe_wish(RequestedContext("maximum", (), ("urn:d",))) == "at most the declaration 'urn:d'"
