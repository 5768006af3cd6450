"""What to do about each code that a record can have."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from saml_bridge.model.errors import BridgeError, LaunchRefused, NotRecorded
from saml_bridge.model.fixes import SEARCH_LOG, find_fix, list_codes, split_reason
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.oidc.authorization_request import LONGEST

ROOT = Path(__file__).parents[2] / "saml_bridge"
GENERAL = {
    *("internal", "not-found", "catalog-refused", "service-missing", "launch-refused", "logout-refused"),
    "demo-failed",
}
"""Codes of no case of its own: a fault, a class that others are made of."""


MESSAGES = [
    *(ROOT / "protocols" / "oidc").glob("*.py"),
    *(ROOT / "protocols" / "saml" / name for name in ("authn_request.py", "logout_messages.py", "bindings.py")),
    *(ROOT / "flows" / name for name in ("sign_on/oidc.py", "tokens/token_endpoint.py", "launch/posted_session.py")),
]
"""Where messages of others are read, and refused by a call that takes the code first."""


def list_raised_codes() -> set[str]:
    """The codes that the service refuses with, as far as they are written out where that happens."""
    found = set()
    for path in ROOT.rglob("*.py"):
        if path.relative_to(ROOT).parts[0] in ("cli", "demo") or path.parent.name == "catalog":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
                continue
            for keyword in node.exc.keywords:
                if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                    found.add(keyword.value.value)
    return {code for code in found if isinstance(code, str)}


def test_every_code_of_a_record_has_a_fix() -> None:
    codes = list_raised_codes() | {code for code in list_codes() if "-" in code}
    assert len(codes) > 100
    assert sorted(code for code in codes if find_fix(code) == SEARCH_LOG and code not in GENERAL) == []


def list_codes_of_messages() -> set[str]:
    found = {f"{name.replace('_', '-')}-long" for name in LONGEST}
    for path in MESSAGES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("_refuse", "refuse", "Fault"):
                found.add(node.args[0].value)
    return {code for code in found if isinstance(code, str) and " " not in code}


def test_every_code_of_a_message_has_a_fix() -> None:
    codes = list_codes_of_messages()
    assert len(codes) > 50
    assert sorted(code for code in codes if find_fix(code) == SEARCH_LOG) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("key-absent", "Bring the files of this key back"),
        ("key-unreadable", "Do not make a new key"),
        ("key-refused", "Do not make a new key"),
        ("source-unavailable", "saml-bridge doctor"),
        ("introspection-connection", "SAML_BRIDGE_INTROSPECTION_URL"),
        ("introspection-connection", "SAML_BRIDGE_SESSION_SOURCES"),
        ("key-refused", "chmod 600"),
        ("not-recorded", "database"),
        ("post-foreign", "portal.origins"),
        ("post-not-taken", "jwt"),
        ("post-replayed", "docs/session-sources.md"),
        ("request-of-some-new-kind", "partner's developers"),
        ("redirect-uri-long", "partner's developers"),
        ("client-id-long", "partner's developers"),
        ("registration-given", "partner's developers"),
        ("client-secret-encoding", "form-encode"),
        ("hint-claims", "token_use"),
        ("source-not-set", "SAML_BRIDGE_SESSION_SOURCE"),
        ("no-authn-context", "requested_authn_context: ignore"),
        ("invalid-name-id-policy", "name_id_policy: ignore"),
        ("unknown-principal", "sign out"),
        ("nothing-known", SEARCH_LOG),
        ("", SEARCH_LOG),
    ],
)
def test_a_fix_fits_its_code_or_its_family(code: str, words: str) -> None:
    assert words in find_fix(code)


def make_finding(code: str, message: str, fix: str = "") -> Finding:
    return Finding(code, Severity.ERROR, message, fix)


def test_reason_and_fixes_are_told_apart_as_the_record_has_them() -> None:
    findings = [make_finding("a-one", "It is broken.", "Mend it."), make_finding("b-two", "So is this.", "Mend [b].")]
    detail = LaunchRefused("cannot go on:", findings=findings).diagnosis()
    assert split_reason("x-y", detail) == (
        "cannot go on: [a-one] It is broken. [b-two] So is this.",
        ("Mend it.", "Mend [b]."),
    )


def test_a_message_is_said_once_and_so_is_a_fix() -> None:
    findings = [make_finding("mapping-required", name, "Fill it in.") for name in ("no a", "no b")]
    detail = LaunchRefused("mapping 'usage': no a; no b", findings=findings).diagnosis()
    assert detail == "mapping 'usage': no a; no b Fix: Fill it in."
    assert split_reason("mapping-required", detail) == ("mapping 'usage': no a; no b", ("Fill it in.",))


def test_a_finding_without_a_fix_gets_the_one_of_its_code() -> None:
    error = BridgeError(findings=[make_finding("introspection-connection", "Nobody there.")], code="source-unavailable")
    reason, [fix] = split_reason(error.code, error.diagnosis())
    assert reason == "[introspection-connection] Nobody there."
    assert fix == find_fix("introspection-connection")
    assert split_reason("not-recorded", NotRecorded("gone").diagnosis()) == ("gone", (find_fix("not-recorded"),))
