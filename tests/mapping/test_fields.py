"""Field paths, their nearest names, and how a portal session is read."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saml_bridge.mapping.fields import (
    FIELDS,
    FieldUnknown,
    SessionMalformed,
    compile_item_path,
    compile_items,
    compile_path,
    is_multi_valued,
    list_paths,
    parse_session,
)

SECRET = "s3cret-Value"


def make_document(**changes: Any) -> dict[str, Any]:
    document = {
        "active": True,
        "sid": "S-81f3",
        "biller": "riverton-water",
        "auth_time": 1790000000,
        "exp": 1790003600,
        "amr": ["pwd"],
        "payer": {
            "id": "P-1001",
            "email": "ada@example.net",
            "given_name": "Ada",
            "family_name": "Lovelace",
            "phone": "+15550100",
            "custom": {"roles": ["owner", "tenant"], "score": 7, "rate": 1.5, "vip": True, "gone": None},
        },
        "accounts": [
            {
                "number": "000123456",
                "type": "residential",
                "service_address": {"line1": "1 Main St", "city": "Riverton"},
                "service_points": [
                    {"id": "SP-1", "meters": [{"id": "M-1", "kind": "water"}, {"id": "M-2", "custom": {"size": 2}}]},
                    {"id": "SP-2", "meters": [{"id": "M-3"}]},
                    {"id": "SP-3"},
                ],
                "custom": {"ami_id": "A-9"},
            },
            {"number": "7", "type": "commercial"},
        ],
        "selected_account": "000123456",
        "impersonator": None,
    }
    return copy.deepcopy(document | changes)


def read(path: str, **changes: Any) -> tuple[str, ...]:
    session = parse_session(make_document(**changes))
    return compile_path(path)(session, session.accounts[0] if session.accounts else None)


@pytest.mark.parametrize(
    "path, expected",
    [
        ("sid", ("S-81f3",)),
        ("biller", ("riverton-water",)),
        ("selected_account", ("000123456",)),
        ("impersonator", ()),
        ("payer.id", ("P-1001",)),
        ("payer.custom.roles", ("owner", "tenant")),
        ("payer.custom.score", ("7",)),
        ("payer.custom.rate", ("1.5",)),
        ("payer.custom.vip", ("true",)),
        ("payer.custom.gone", ()),
        ("payer.custom.absent", ()),
        ("account.number", ("000123456",)),
        ("account.status", ()),
        ("account.service_address.city", ("Riverton",)),
        ("account.service_address.line2", ()),
        ("account.custom.ami_id", ("A-9",)),
        ("account.service_points.id", ("SP-1", "SP-2", "SP-3")),
        ("account.service_points.meters.id", ("M-1", "M-2", "M-3")),
        ("account.service_points.meters.kind", ("water",)),
        ("account.service_points.meters.custom.size", ("2",)),
        ("account.service_points.custom.x", ()),
        ("accounts.number", ("000123456", "7")),
        ("accounts.type", ("residential", "commercial")),
        ("accounts.service_address.city", ("Riverton",)),
        ("accounts.service_points.meters.id", ("M-1", "M-2", "M-3")),
    ],
)
def test_a_path_reads_its_values_in_order(path: str, expected: tuple[str, ...]) -> None:
    assert read(path) == expected


@pytest.mark.parametrize(
    "path", ["account.number", "account.service_address.city", "account.service_points.id", "account.custom.a"]
)
def test_without_an_account_its_fields_have_no_value(path: str) -> None:
    assert compile_path(path)(parse_session(make_document()), None) == ()


@pytest.mark.parametrize("path", ["payer.custom.x", "account.service_address.city", "account.custom.a"])
def test_an_absent_object_on_the_way_has_no_value(path: str) -> None:
    assert read(path, payer={"id": "P"}, accounts=[{"number": "1"}], selected_account=None) == ()


def test_every_listed_field_can_be_read() -> None:
    session = parse_session(make_document())
    for one in FIELDS:
        path = one.path.replace("[]", "").replace("*", "anything")
        assert isinstance(compile_path(path)(session, session.accounts[0]), tuple)
        assert is_multi_valued(path) == ("[]" in one.path)


@pytest.mark.parametrize(
    "path, nearest",
    [
        ("account.numbr", "account.number"),
        ("acount.number", "account.number"),
        ("Account.Number", "account.number"),
        ("number", "account.number"),
        ("payer.emial", "payer.email"),
        ("payer.firstname.given_name", "payer.given_name"),
        ("account.address.city", "account.service_address.city"),
        ("account.service_points.meters.idd", "account.service_points.meters.id"),
        ("account.custm.ami_id", "account.custom.ami_id"),
        ("payer.custon.loyalty", "payer.custom.loyalty"),
        ("payer.custom.", "payer.custom.NAME"),
        ("account", "account.number"),
        ("accounts", "accounts.number"),
        ("payer", "payer.id"),
        ("payer.custom", "payer.custom.NAME"),
        ("account.service_address", "account.service_address.line1"),
        ("account.service_points.meters", "account.service_points.meters.id"),
        ("zzzzqqqq", None),
    ],
)
def test_a_path_that_does_not_exist_names_the_nearest(path: str, nearest: str | None) -> None:
    with pytest.raises(FieldUnknown) as caught:
        compile_path(path)
    assert (caught.value.path, caught.value.nearest) == (path, nearest)
    assert repr(path) in str(caught.value)
    assert nearest is None or repr(nearest) in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        *("", ".", "payer.", ".payer", "account..number", "payer.id.x", "payer.custom.a.b", " payer.id"),
        *("accounts[0].number", "accounts[].number", "payer.custom.*.x", "payer.__class__", "__class__"),
        *("find_account", "auth_time", "expires_at", "amr"),
    ],
)
def test_nothing_but_the_listed_fields_can_be_reached(path: str) -> None:
    with pytest.raises(FieldUnknown):
        compile_path(path)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_field_or_unknown(path: str) -> None:
    session = parse_session(make_document())
    try:
        values = compile_path(path)(session, session.accounts[0])
    except FieldUnknown:
        return
    assert all(isinstance(value, str) for value in values)


def test_a_long_path_is_refused_without_a_long_search() -> None:
    with pytest.raises(FieldUnknown):
        compile_path("payer." + "x" * 100_000)


def test_lists_of_objects_are_named() -> None:
    assert list_paths() == (
        "account.service_points",
        "account.service_points.meters",
        "accounts",
        "accounts.service_points",
        "accounts.service_points.meters",
    )


@pytest.mark.parametrize(
    "path, count", [("accounts", 2), ("account.service_points", 3), ("accounts.service_points", 3)]
)
def test_items_of_a_list(path: str, count: int) -> None:
    session = parse_session(make_document())
    assert len(compile_items(path)(session, session.accounts[0])) == count


@pytest.mark.parametrize("path", list_paths())
def test_items_are_none_without_accounts(path: str) -> None:
    session = parse_session(make_document(accounts=[], selected_account=None))
    assert compile_items(path)(session, None) == ()


@pytest.mark.parametrize(
    "path, nearest",
    [
        ("account.service_point", "account.service_points"),
        ("account.service_points.meter", "account.service_points.meters"),
        ("account", "accounts"),
        ("payer.custom.roles", None),
        ("", None),
    ],
)
def test_what_is_no_list_of_objects_is_refused(path: str, nearest: str | None) -> None:
    with pytest.raises(FieldUnknown) as caught:
        compile_items(path)
    assert nearest is None or caught.value.nearest == nearest


@pytest.mark.parametrize(
    "items, path, expected",
    [
        ("accounts", "number", [("000123456",), ("7",)]),
        ("accounts", "service_address.city", [("Riverton",), ()]),
        ("accounts", "service_points.meters.id", [("M-1", "M-2", "M-3"), ()]),
        ("account.service_points", "id", [("SP-1",), ("SP-2",), ("SP-3",)]),
        ("account.service_points", "meters.id", [("M-1", "M-2"), ("M-3",), ()]),
        ("account.service_points.meters", "custom.size", [(), ("2",), ()]),
    ],
)
def test_a_path_inside_an_item(items: str, path: str, expected: list[tuple[str, ...]]) -> None:
    session = parse_session(make_document())
    found = compile_items(items)(session, session.accounts[0])
    reader = compile_item_path(items, path)
    assert [reader(item) for item in found] == expected


@pytest.mark.parametrize(
    "items, path, nearest",
    [
        ("accounts", "numbr", "number"),
        ("account.service_points.meters", "idd", "id"),
        ("accounts", "service_address", "service_address.line1"),
        ("accounts", "custm.a", "custom.a"),
        ("nothing", "id", None),
    ],
)
def test_a_path_that_an_item_has_not(items: str, path: str, nearest: str | None) -> None:
    with pytest.raises(FieldUnknown) as caught:
        compile_item_path(items, path)
    assert nearest is None or caught.value.nearest == nearest


def test_a_path_inside_an_item_can_have_several_values() -> None:
    assert is_multi_valued("meters.id", items="account.service_points")
    assert not is_multi_valued("id", items="account.service_points")


def test_a_session_is_read() -> None:
    session = parse_session(make_document())
    assert session.sid == "S-81f3"
    assert session.auth_time == datetime.fromtimestamp(1790000000, tz=UTC)
    assert session.expires_at == datetime.fromtimestamp(1790003600, tz=UTC)
    assert session.amr == ("pwd",)
    assert session.impersonator is None
    assert session.find_account("7") is session.accounts[1]
    assert session.find_account("07") is None


def test_the_smallest_session_is_read() -> None:
    smallest = {"sid": "S", "biller": "b", "auth_time": 1.9, "exp": 2, "payer": {"id": "P"}}
    session = parse_session(smallest)
    assert (session.accounts, session.selected_account, session.amr) == ((), None, ())
    assert session.auth_time == datetime.fromtimestamp(1, tz=UTC)


def test_null_is_the_same_as_absent() -> None:
    nulls = dict.fromkeys(("accounts", "selected_account", "impersonator", "amr"))
    session = parse_session(make_document(**nulls))
    assert (session.accounts, session.selected_account, session.impersonator, session.amr) == ((), None, None, ())


@pytest.mark.parametrize(
    "impersonator, expected",
    [
        ("agent-7", "agent-7"),
        ({"id": "agent-7"}, "agent-7"),
        ({"id": None}, "an agent"),
        ({"id": ""}, "an agent"),
        ({}, "an agent"),
    ],
)
def test_an_impersonator_is_never_overlooked(impersonator: object, expected: str) -> None:
    assert parse_session(make_document(impersonator=impersonator)).impersonator == expected


def test_unknown_names_are_passed_over() -> None:
    assert parse_session(make_document(iss="x", payer={"id": "P", "shoe_size": {"eu": [1]}})).payer["id"] == "P"


def _with_account(**changes: Any) -> dict[str, Any]:
    return {"accounts": [{"number": "1"}, {"number": "2"} | changes], "selected_account": None}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"sid": None}, "sid: expected text that is not empty, found nothing"),
        ({"sid": ""}, "sid: expected text that is not empty, found empty text"),
        ({"sid": "\t"}, "sid: expected text that is not empty, found white space alone"),
        ({"sid": 7}, "sid: expected text that is not empty, found a number"),
        ({"biller": [SECRET]}, "biller: expected text that is not empty, found a list"),
        ({"auth_time": SECRET}, "auth_time: expected seconds since 1970 as a number, found text"),
        ({"auth_time": True}, "auth_time: expected seconds since 1970 as a number, found true or false"),
        ({"exp": float("nan")}, "exp: is not a time"),
        ({"exp": float("inf")}, "exp: is not a time"),
        ({"exp": 10**40}, "exp: is not a time"),
        ({"amr": SECRET}, "amr: expected a list of texts, found text"),
        ({"amr": ["pwd", 7]}, "amr[1]: expected text, found a number"),
        ({"impersonator": True}, "impersonator: expected text that is not empty, found true or false"),
        ({"impersonator": ""}, "impersonator: expected text that is not empty, found empty text"),
        ({"selected_account": SECRET}, "selected_account: is not one of accounts"),
        ({"payer": None}, "payer: expected an object, found nothing"),
        ({"payer": [SECRET]}, "payer: expected an object, found a list"),
        ({"payer": {}}, "payer.id: is missing"),
        ({"payer": {"id": ""}}, "payer.id: is empty"),
        ({"payer": {"id": " "}}, "payer.id: is white space alone"),
        ({"payer": {"id": "\u00a0\u200b"}}, "payer.id: is white space alone"),
        ({"payer": {"id": 1001}}, "payer.id: expected text, found a number"),
        ({"payer": {"id": "P", "email": {"x": SECRET}}}, "payer.email: expected text, found an object"),
        ({"payer": {"id": "P", "custom": SECRET}}, "payer.custom: expected an object, found text"),
        ({"accounts": {"number": SECRET}}, "accounts: expected a list, found an object"),
        ({"accounts": SECRET}, "accounts: expected a list, found text"),
        (_with_account(number=None), "accounts[1].number: is missing"),
        (_with_account(number=""), "accounts[1].number: is empty"),
        (_with_account(number="\u3000"), "accounts[1].number: is white space alone"),
        (_with_account(number=2), "accounts[1].number: expected text, found a number"),
        (_with_account(number="1"), "accounts: the same account number stands twice"),
        (_with_account(service_address=SECRET), "accounts[1].service_address: expected an object, found text"),
        (
            _with_account(service_points=[{}, {"meters": [{"id": 3}]}]),
            "accounts[1].service_points[1].meters[0].id: expected text, found a number",
        ),
        (_with_account(service_points=[SECRET]), "accounts[1].service_points[0]: expected an object, found text"),
        ({"accounts": [SECRET]}, "accounts[0]: expected an object, found text"),
    ],
)
def test_a_malformed_session_names_the_place_and_not_the_value(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SessionMalformed) as caught:
        parse_session(make_document(**changes))
    assert caught.value.detail == said
    assert SECRET not in str(caught.value) + repr(caught.value.findings)


@pytest.mark.parametrize("value", [{"x": SECRET}, [[SECRET]], [{"x": 1}], float("nan"), [1, float("inf")]])
def test_custom_values_are_plain(value: object) -> None:
    with pytest.raises(SessionMalformed) as caught:
        parse_session(make_document(payer={"id": "P", "custom": {"tariff_1": value}}))
    assert caught.value.detail == "payer.custom.tariff_1: expected text, number, true, false or a list of them"


@pytest.mark.parametrize("name", ["ada@example.net", "a\nb", "x" * 65, "\ud800", ""])
def test_a_strange_custom_name_is_not_repeated(name: str) -> None:
    with pytest.raises(SessionMalformed) as caught:
        parse_session(make_document(payer={"id": "P", "custom": {name: {}}}))
    assert caught.value.detail.startswith("a name in payer.custom: ")


@pytest.mark.parametrize("document", [None, [], "text", 7])
def test_what_is_no_object_is_no_session(document: object) -> None:
    with pytest.raises(SessionMalformed, match="the session is not a JSON object"):
        parse_session(document)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*make_document(), "other"]), JSON, max_size=4), JSON, JSON)
def test_any_json_is_a_session_or_malformed(changes: dict[str, Any], custom: Any, point: Any) -> None:
    document = make_document()
    document["payer"]["custom"] = custom
    document["accounts"][0]["service_points"] = point
    try:
        session = parse_session(document | changes)
    except SessionMalformed:
        return
    for one in FIELDS:
        compile_path(one.path.replace("[]", "").replace("*", "a"))(session, next(iter(session.accounts), None))


def test_field_descriptions_are_unique_and_present() -> None:
    assert len({one.path for one in FIELDS}) == len(FIELDS)
    assert all(one.description for one in FIELDS)
