"""Conditions: what holds, and what is refused at publication."""

from __future__ import annotations

import pytest

from saml_bridge.mapping.conditions import MAX_DEPTH, check_condition, compile_condition
from saml_bridge.mapping.fields import parse_session
from saml_bridge.model.document import Condition
from saml_bridge.model.errors import ConfigInvalid

SESSION = parse_session(
    {
        "sid": "S",
        "biller": "riverton-water",
        "auth_time": 1,
        "exp": 2,
        "payer": {
            "id": "P",
            "email": "",
            "custom": {"roles": ["owner", "tenant"], "vip": True, "blank": ["", ""], "spaces": [" ", "\u00a0"]},
        },
        "accounts": [
            {"number": "1", "type": "residential", "service_points": [{"id": "a"}, {"id": "b"}]},
            {"number": "2", "type": "commercial"},
        ],
    }
)

RESIDENTIAL = Condition(field="account.type", equals="residential")
OWNER = Condition(field="payer.custom.roles", equals="owner")
NEVER = Condition(field="payer.id", equals="Q")


@pytest.mark.parametrize(
    "condition, holds",
    [
        (RESIDENTIAL, True),
        (Condition(field="account.type", equals="Residential"), False),
        (Condition(field="account.type", in_=("commercial", "residential")), True),
        (Condition(field="account.type", in_=("commercial",)), False),
        (Condition(field="account.status", equals="active"), False),
        (Condition(field="account.status", in_=("",)), False),
        (Condition(field="account.type", exists=True), True),
        (Condition(field="account.type", exists=False), False),
        (Condition(field="account.status", exists=True), False),
        (Condition(field="account.status", exists=False), True),
        (Condition(field="payer.email", exists=True), False),
        (Condition(field="payer.custom.spaces", exists=True), False),
        (Condition(field="payer.email", equals=""), True),
        (Condition(field="payer.custom.blank", exists=True), False),
        (OWNER, True),
        (Condition(field="payer.custom.roles", in_=("tenant", "x")), True),
        (Condition(field="payer.custom.roles", equals="agent"), False),
        (Condition(field="payer.custom.vip", equals="true"), True),
        (Condition(field="account.service_points.id", equals="b"), True),
        (Condition(field="accounts.type", equals="commercial"), True),
        (Condition(all=(RESIDENTIAL, OWNER)), True),
        (Condition(all=(RESIDENTIAL, NEVER)), False),
        (Condition(any=(NEVER, OWNER)), True),
        (Condition(any=(NEVER, NEVER)), False),
        (Condition(not_=NEVER), True),
        (Condition(not_=OWNER), False),
        (Condition(all=(Condition(any=(NEVER, OWNER)), Condition(not_=Condition(all=(NEVER,))))), True),
    ],
)
def test_a_condition_holds_or_not(condition: Condition, holds: bool) -> None:
    assert check_condition(condition, where="when") == ()
    assert compile_condition(condition)(SESSION, SESSION.accounts[0]) is holds


@pytest.mark.parametrize(
    "condition, holds", [(RESIDENTIAL, False), (Condition(field="account.type", exists=False), True), (OWNER, True)]
)
def test_without_an_account_its_fields_are_absent(condition: Condition, holds: bool) -> None:
    assert compile_condition(condition)(SESSION, None) is holds


def nest(depth: int) -> Condition:
    return NEVER if depth == 1 else Condition(not_=nest(depth - 1))


@pytest.mark.parametrize(
    "condition, found",
    [
        (Condition(), [("condition-shape", "when")]),
        (Condition(field="account.type"), [("condition-shape", "when")]),
        (Condition(field="account.type", equals="a", exists=True), [("condition-shape", "when")]),
        (Condition(field="account.type", equals="a", all=(OWNER,)), [("condition-shape", "when")]),
        (Condition(equals="a"), [("condition-shape", "when"), ("condition-shape", "when")]),
        (Condition(any=(OWNER,), exists=True), [("condition-shape", "when")]),
        (Condition(field="account.tipe", equals="a"), [("field-unknown", "when.field")]),
        (Condition(field="account.type", in_=()), [("condition-size", "when.in")]),
        (Condition(field="account.type", in_=("a",) * 101), [("condition-size", "when.in")]),
        (Condition(all=()), [("condition-size", "when.all")]),
        (Condition(any=(OWNER,) * 101), [("condition-size", "when.any")]),
        (nest(MAX_DEPTH + 1), [("condition-too-deep", "when" + ".not" * MAX_DEPTH)]),
        (
            Condition(all=(Condition(not_=Condition(field="x", exists=True)), Condition(any=(Condition(field="y"),)))),
            [
                ("field-unknown", "when.all[0].not.field"),
                ("field-unknown", "when.all[1].any[0].field"),
                ("condition-shape", "when.all[1].any[0]"),
            ],
        ),
    ],
)
def test_every_problem_is_found_at_publication(condition: Condition, found: list[tuple[str, str]]) -> None:
    findings = check_condition(condition, where="when")
    assert [(finding.code, finding.where) for finding in findings] == found
    assert all(finding.refuses for finding in findings)
    with pytest.raises(ConfigInvalid):
        compile_condition(condition)


def test_the_deepest_condition_is_accepted() -> None:
    assert check_condition(nest(MAX_DEPTH), where="when") == ()


def test_an_unknown_field_names_the_nearest() -> None:
    (finding,) = check_condition(Condition(field="account.tipe", equals="a"), where="when")
    assert "did you mean 'account.type'?" in finding.message
