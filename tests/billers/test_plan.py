"""What a change of configuration is called, and that no difference goes unmentioned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from saml_bridge.billers.changes import Change, plan
from saml_bridge.billers.mapping_changes import describe_condition
from saml_bridge.mapping.transforms import TRANSFORMS
from saml_bridge.model.document import (
    Biller,
    Condition,
    Idp,
    IdpContact,
    IdpLogo,
    KeyNames,
    NameIdSettings,
    Partner,
    Protocol,
    Rule,
    SubjectSettings,
    TransformCall,
)
from tests.configurations import (
    PARTNERS,
    load_partner,
    make_biller,
    make_metadata,
    make_partner,
    with_link,
    with_partner,
    with_saml,
)


@pytest.fixture
def biller(keys_dir: Path) -> Biller:
    return make_biller(make_metadata(keys_dir))


def words(old: Biller | None, new: Biller) -> list[str]:
    return [str(change) for change in plan(old, new)]


def with_rule(biller: Biller, position: int, **changes: object) -> Biller:
    rules = list(biller.mappings[0].rules)
    rules[position] = replace(rules[position], **changes)  # type: ignore[arg-type]
    return replace(biller, mappings=(replace(biller.mappings[0], rules=tuple(rules)),))


def with_transforms(biller: Biller, *transforms: TransformCall) -> Biller:
    return with_rule(biller, 0, transforms=transforms)


def test_nothing_changes_nothing(biller: Biller) -> None:
    assert plan(biller, biller) == ()


def test_a_new_biller_is_told_part_by_part(biller: Biller) -> None:
    assert words(None, biller) == [
        "riverton-water: biller added: Riverton Water",
        "partner aquahawk of riverton-water: added: AquaHawk",
        "mapping usage of riverton-water: added: sends accountNumber, fullName, meters, utility",
        "link usage of riverton-water: added: 'View my water usage', to partner aquahawk with mapping usage",
    ]


def test_a_callback_uri(biller: Biller) -> None:
    (what,) = words(biller, with_link(biller, callback_uri="https://riverton.aquahawk.example/daily"))
    assert what == (
        "link usage of riverton-water: callback URI changes from https://riverton.aquahawk.example/usage"
        " to https://riverton.aquahawk.example/daily"
    )


def test_a_transform_that_goes(biller: Biller) -> None:
    assert words(biller, with_transforms(biller)) == [
        "mapping usage of riverton-water: accountNumber no longer strips leading zeros"
    ]


STRIP = TransformCall("strip_leading_zeros")


@pytest.mark.parametrize(
    ("transforms", "expected"),
    [
        ([STRIP, TransformCall("upper")], ["is now in capital letters"]),
        ([TransformCall("pad_left", {"width": 10}), STRIP], ["is now padded on the left with '0' to 10 characters"]),
        (
            [TransformCall("digits_only")],
            ["no longer strips leading zeros", "now keeps digits only"],
        ),
    ],
)
def test_transforms_that_come(biller: Biller, transforms: list[TransformCall], expected: list[str]) -> None:
    found = [change.what for change in plan(biller, with_transforms(biller, *transforms))]
    assert found == [f"accountNumber {one}" for one in expected]


def test_transforms_in_another_order(biller: Biller) -> None:
    old = with_transforms(biller, STRIP, TransformCall("upper"))
    (change,) = plan(old, with_transforms(biller, TransformCall("upper"), STRIP))
    assert change.what == "accountNumber applies its transforms in another order: upper, strip_leading_zeros"


def test_a_transform_with_other_parameters(biller: Biller) -> None:
    old = with_transforms(biller, TransformCall("pad_left", {"width": 8}))
    (change,) = plan(old, with_transforms(biller, TransformCall("pad_left", {"width": 10})))
    assert change.what == (
        "accountNumber is now padded on the left with '0' to 10 characters"
        " (before: is padded on the left with '0' to 8 characters)"
    )


def test_a_table_is_not_read_out(biller: Biller) -> None:
    old = with_transforms(biller, TransformCall("lookup", {"table": {"a": "b"}}))
    (change,) = plan(old, with_transforms(biller, TransformCall("lookup", {"table": {"a": "c"}})))
    assert change.what == "accountNumber is now looked up in a table of 1, with other parameters"


def test_a_salt_is_never_shown(biller: Biller) -> None:
    old = with_transforms(biller, TransformCall("hash_sha256", {"salt": "the first salt, 16+"}))
    new = with_transforms(biller, TransformCall("hash_sha256", {"salt": "the second salt, 16+"}))
    text = " ".join(words(old, new) + words(None, new) + words(biller, new) + words(new, biller))
    assert "hashed" in text
    assert "16+" not in text


PARAMETERS: dict[str, dict[str, Any]] = {
    "pad_left": {"width": 10},
    "prefix": {"text": "A-"},
    "suffix": {"text": "-Z"},
    "substring": {"start": 2, "length": 4},
    "replace": {"old": "-", "new": ""},
    "regex_extract": {"pattern": "[0-9]+", "group": 1},
    "lookup": {"table": {"a": "b"}, "default": "c"},
    "date_format": {"from": "%Y-%m-%d", "to": "%d.%m.%Y"},
    "hash_sha256": {"salt": "a salt of sixteen"},
    "join": {},
    "default": {"value": "none"},
}


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_every_transform_has_words_of_its_own(biller: Biller, name: str) -> None:
    new = with_transforms(biller, STRIP, TransformCall(name, PARAMETERS.get(name, {})))
    (change,) = plan(with_transforms(biller, STRIP), new)
    assert change.what.startswith(("accountNumber now ", "accountNumber is now "))
    assert "applies" not in change.what
    assert "None" not in change.what


NUMBER, TEMPLATE = "the field account.number", "the template '{payer.given_name} {payer.family_name}'"
METERS = "the field id of each of account.service_points.meters"
RESIDENTIAL = Condition(field="account.type", equals="residential")


@pytest.mark.parametrize(
    ("position", "changes", "expected"),
    [
        (0, {"required": False}, "accountNumber is no longer required"),
        (1, {"required": True}, "fullName is now required"),
        (0, {"from_": "payer.id"}, f"accountNumber is made from the field payer.id instead of {NUMBER}"),
        (1, {"template": None, "constant": "x"}, f"fullName is made from the constant 'x' instead of {TEMPLATE}"),
        (2, {"each": "accounts"}, f"meters is made from the field id of each of accounts instead of {METERS}"),
        (3, {"constant": "x"}, "utility is made from the constant 'x' instead of the constant 'riverton'"),
        (0, {"when": RESIDENTIAL}, "accountNumber is now sent only when account.type is 'residential'"),
        (0, {"name_format": "uri"}, "accountNumber changes its name format from unspecified to uri"),
        (1, {"friendly_name": None}, "fullName changes its friendly name from Full name to none"),
    ],
)
def test_rules(biller: Biller, position: int, changes: dict[str, Any], expected: str) -> None:
    assert words(biller, with_rule(biller, position, **changes)) == [f"mapping usage of riverton-water: {expected}"]


def test_rules_that_come_go_and_move(biller: Biller) -> None:
    rules = biller.mappings[0].rules
    new = replace(biller.mappings[0], rules=(rules[2], rules[0], Rule("email", from_="payer.email", required=True)))
    assert [change.what for change in plan(biller, replace(biller, mappings=(new,)))] == [
        "fullName is no longer sent",
        "utility is no longer sent",
        "email is now sent: the field payer.email, required",
        "the order of attributes changes to meters, accountNumber, email",
    ]


def test_two_rules_of_one_attribute_are_told_apart(biller: Biller) -> None:
    second = replace(biller.mappings[0].rules[3], constant="other")
    twice = replace(biller, mappings=(replace(biller.mappings[0], rules=(*biller.mappings[0].rules, second)),))
    assert [one.what for one in plan(biller, twice)] == ["utility (2) is now sent: the constant 'other'"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"enabled": False}, "disabled"),
        ({"opens": "same_tab"}, "opens in the same tab"),
        ({"allow_impersonation": True}, "now works while an agent acts for the payer"),
        ({"visible_when": None}, "now visible to every payer"),
        ({"icon": None}, "icon changes from droplet to none"),
        ({"label": "My usage"}, "label changes from View my water usage to My usage"),
        ({"labels": {"es": "Mi consumo"}}, "label in es changes from none to Mi consumo"),
        ({"callback_allow": ()}, "allowed callback https://riverton.aquahawk.example/ removed"),
    ],
)
def test_links(biller: Biller, changes: dict[str, Any], expected: str) -> None:
    assert words(biller, with_link(biller, **changes)) == [f"link usage of riverton-water: {expected}"]


def test_parts_that_come_go_and_move(biller: Biller) -> None:
    second = replace(biller.links[0], slug="outages", enabled=False)
    two = replace(biller, links=(*biller.links, second))
    assert words(biller, two) == [
        "link outages of riverton-water: added: 'View my water usage', to partner aquahawk with mapping usage, disabled"
    ]
    assert words(two, biller) == ["link outages of riverton-water: removed"]
    assert words(two, replace(two, links=two.links[::-1])) == [
        "riverton-water: the order of links changes to outages, usage"
    ]


def test_metadata_is_told_by_where_responses_go(biller: Biller) -> None:
    new = with_saml(biller, metadata="sha256:" + "0" * 64)
    places = {
        biller.partners[0].saml.metadata: "https://a.example/acs",
        new.partners[0].saml.metadata: "https://b.example/acs",
    }

    def find_acs(partner: Partner) -> str | None:
        return places.get(partner.saml.metadata)

    (change,) = plan(biller, new, find_acs=find_acs)
    assert change.what.startswith("metadata changes from sha256:")
    assert change.what.endswith("; responses go to https://b.example/acs instead of https://a.example/acs")
    places[new.partners[0].saml.metadata] = "https://a.example/acs"
    assert plan(biller, new, find_acs=find_acs)[0].what.endswith("; responses go to the same address")
    assert "responses" not in plan(biller, new)[0].what
    assert "responses go to https://a.example/acs" in str(plan(None, biller, find_acs=find_acs)[1])


def test_settings_of_a_partner_and_of_the_biller(biller: Biller) -> None:
    new = with_saml(biller, sign="assertion", encrypt="always")
    new = with_partner(new, origins=("https://sso.aquahawk.example",))
    new = replace(new, name="Riverton", idp=Idp("urn:riverton", KeyNames("default", "newer")))
    assert words(biller, new) == [
        "riverton-water: name changes from Riverton Water to Riverton",
        "identity provider of riverton-water: entity ID changes from none to urn:riverton",
        "identity provider of riverton-water: next key changes from none to newer",
        "partner aquahawk of riverton-water: origin https://sso.aquahawk.example added",
        "partner aquahawk of riverton-water: signed part changes from both to assertion",
        "partner aquahawk of riverton-water: encryption changes from when_offered to always",
    ]


NAME_IDS_CHANGE = "every payer's name ID can change by this: the partner then takes payers whom it knows for new ones"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {"from_": "account.number"}, ["name ID field changes from payer.id to account.number", NAME_IDS_CHANGE]),
        (
            {},
            {"format": "email", "from_": "payer.email", "transforms": (TransformCall("lower"),)},
            [
                "name ID format changes from persistent to email",
                "name ID field changes from payer.id to payer.email",
                "name ID is now in small letters",
                NAME_IDS_CHANGE,
            ],
        ),
        (
            {"transforms": (TransformCall("lower"),)},
            {"from_": None, "template": "{payer.id}@a.example"},
            [
                "name ID field changes from payer.id to none",
                "name ID template changes from none to {payer.id}@a.example",
                "name ID is no longer in small letters",
                NAME_IDS_CHANGE,
            ],
        ),
        (
            {"format": "transient"},
            {"format": "email"},
            ["name ID format changes from transient to email"],
        ),
        ({}, {"format": "transient"}, ["name ID format changes from persistent to transient", NAME_IDS_CHANGE]),
    ],
)
def test_a_change_of_name_ids_says_that_payers_become_new_ones(
    biller: Biller, old: dict[str, Any], new: dict[str, Any], expected: list[str]
) -> None:
    before, after = (with_saml(biller, name_id=NameIdSettings(**one)) for one in (old, new))
    assert [change.what for change in plan(before, after)] == expected


@pytest.mark.parametrize("protocol", ["oidc", "jwt", "encrypted_token"])
def test_a_change_of_subjects_says_that_payers_become_new_ones(protocol: str) -> None:
    old = load_partner(make_partner(protocol))
    subject = SubjectSettings("public", "payer.email", transforms=(TransformCall("lower"),))
    new = with_partner(old, settings=replace(old.partners[0].settings, subject=subject))
    assert [change.what for change in plan(old, new)] == [
        "subject type changes from pairwise to public",
        "subject field changes from payer.id to payer.email",
        "subject is now in small letters",
        NAME_IDS_CHANGE.replace("name ID", "subject"),
    ]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Condition(field="account.type", in_=("a", "b")), "account.type is one of 'a', 'b'"),
        (Condition(field="payer.email", exists=True), "payer.email has a value"),
        (Condition(field="payer.email", exists=False), "payer.email has no value"),
        (
            Condition(all=(Condition(field="a", equals="1"), Condition(not_=Condition(field="b", equals="2")))),
            "(a is '1') and (not (b is '2'))",
        ),
        (Condition(any=(Condition(field="a", equals="1"),)), "a is '1'"),
    ],
)
def test_conditions_in_words(condition: Condition, expected: str) -> None:
    assert describe_condition(condition) == expected


def test_long_values_and_line_breaks_stay_on_one_short_line(biller: Biller) -> None:
    new = with_rule(biller, 3, constant="line\nbreak " + "x" * 5000)
    (change,) = plan(biller, new)
    assert change.what.isprintable()
    assert len(change.what) < 300


OTHER: dict[type, Any] = {
    str: "another",
    int: 123,
    bool: True,
    type(None): "set",
    tuple: ("https://another.example/",),
    dict: {"es": "otro"},
}
SPECIAL = {
    "value_type": "integer",
    "visible_when": Condition(field="payer.email", exists=True),
    "when": Condition(field="payer.email", exists=True),
    "origins": ("https://a.example",),
    "transforms": (TransformCall("upper"),),
    "carriage_return": "refuse",
    "logo": IdpLogo("https://pay.example/logo.png", 160, 60),
    "contacts": (IdpContact("technical", "sso@example.net"),),
}


def variants(value: Any, name: str = "") -> Iterator[Any]:
    """Copies of a document that differ from it in exactly one value, for every value that it has."""
    if is_dataclass(value) and not isinstance(value, type) and name not in SPECIAL:
        for one in fields(value):
            for changed in variants(getattr(value, one.name), one.name):
                yield replace(value, **{one.name: changed})
    elif isinstance(value, tuple) and value and is_dataclass(value[0]) and name not in SPECIAL:
        yield value[1:]
        for at, item in enumerate(value if isinstance(value[0], Partner) else value[:1]):
            for changed in variants(item):
                yield (*value[:at], changed, *value[at + 1 :])
    elif name in SPECIAL:
        yield SPECIAL[name]
    elif isinstance(value, bool):
        yield not value
    else:
        yield OTHER[type(value)]


def test_no_difference_goes_unmentioned(biller: Biller) -> None:
    others = [load_partner(make_partner(protocol)).partners[0] for protocol in PARTNERS]
    biller = replace(biller, partners=(*biller.partners, *others))
    assert {one.protocol for one in biller.partners} == set(get_args(Protocol))
    every = [one for one in variants(biller) if one.slug == biller.slug]
    assert len(every) >= 150
    for changed in every:
        assert changed != biller
        assert plan(biller, changed), f"nothing is said about {changed}"


ADDED = {
    "oidc": "signs on by OpenID Connect, redirect URIs https://iedr.example/callback, https://iedr.example/other",
    "jwt": "payers go to https://help.example/jwt with a signed link (RS256)",
    "encrypted_token": "payers go to https://shop.example/login with an encrypted token (jwe, dir)",
    "backchannel_token": (
        "a token is asked for at https://itron.example/LoginSSO, and payers go to https://itron.example/portal with it"
    ),
}


@pytest.mark.parametrize("protocol", PARTNERS)
def test_a_partner_that_comes_is_told_with_what_its_protocol_will_do(biller: Biller, protocol: str) -> None:
    partner = load_partner(make_partner(protocol)).partners[0]
    expected = ADDED[protocol]
    two = replace(biller, partners=(*biller.partners, partner))
    name = f"partner {partner.slug} of riverton-water"
    assert words(biller, two) == [f"{name}: added: {partner.name}, {expected}"]


@pytest.mark.parametrize("protocol", PARTNERS)
def test_another_protocol_is_told_with_what_it_will_do(biller: Biller, protocol: str) -> None:
    partner = load_partner(make_partner(protocol)).partners[0]
    expected = ADDED[protocol]
    new = with_partner(biller, protocol=protocol, settings=partner.settings)
    assert [change.what for change in plan(biller, new)] == [
        f"protocol changes from saml to {protocol}",
        f"now {expected}",
    ]
    back = [change.what for change in plan(new, biller, find_acs=lambda _: "https://a.example/acs")]
    assert back == [f"protocol changes from {protocol} to saml", "now responses go to https://a.example/acs"]


def test_an_address_that_is_asked_for(biller: Biller) -> None:
    settings = "{url: 'https://a.example/sso', username: a, secret: b, url_at: /url, carry: redirect}"
    partner = {**make_partner("backchannel_token", settings), "origins": ["https://b.example"]}
    [_, told, *_] = words(None, load_partner(partner))
    assert told.endswith("an address is asked for at https://a.example/sso, and payers go there")


@pytest.mark.parametrize(
    ("protocol", "changes", "expected"),
    [
        ("oidc", {"client_auth": "none"}, "client authentication changes from client_secret_basic to none"),
        ("oidc", {"require_nonce": True}, "demand for a nonce changes from false to true"),
        ("oidc", {"jwks": "x" * 9999}, "public keys change from none to sha256:bc4319530206"),
        (
            "oidc",
            {"redirect_uris": ("https://iedr.example/callback",)},
            "redirect URI https://iedr.example/other removed",
        ),
        ("oidc", {"scopes": ()}, "scope usage removed"),
        ("jwt", {"subject": None}, "the subject is no longer sent"),
        ("jwt", {"parameters": {}}, "parameter tenant changes from riverton to none"),
        (
            "encrypted_token",
            {"encryption_key": "x"},
            "public key that tokens are encrypted to changes from none to sha256:2d711642b726",
        ),
        ("backchannel_token", {"headers": {"X-Utility": "o"}}, "header X-Utility changes from riverton to o"),
        ("backchannel_token", {"secret": "other"}, "secret's name changes from itron-service to other"),
    ],
)
def test_settings_of_other_protocols(protocol: str, changes: dict[str, Any], expected: str) -> None:
    old = load_partner(make_partner(protocol))
    new = with_partner(old, settings=replace(old.partners[0].settings, **changes))
    assert [change.what for change in plan(old, new)] == [expected]


def test_a_header_that_may_hold_a_secret_is_not_shown() -> None:
    old = load_partner(make_partner("backchannel_token"))
    changes: list[dict[str, Any]] = [{"headers": one} for one in ({}, {"X-Api-Key": "first"}, {"X-Api-Key": "second"})]
    none, first, second = (with_partner(old, settings=replace(old.partners[0].settings, **one)) for one in changes)
    told = [plan(before, after)[0].what for before, after in ((none, first), (first, second), (second, none))]
    assert told == ["header X-Api-Key added", "header X-Api-Key changes", "header X-Api-Key removed"]


def test_the_keys_of_tokens_are_told(biller: Biller) -> None:
    new = replace(biller, tokens=replace(biller.tokens, keys=replace(biller.tokens.keys, next="tokens-2027")))
    assert words(biller, new) == ["tokens of riverton-water: next key changes from none to tokens-2027"]


def test_types_and_lists_of_rules(biller: Biller) -> None:
    [typed] = words(biller, with_rule(biller, 0, value_type="integer"))
    assert typed.endswith(": accountNumber is now a whole number instead of text")
    [refused] = words(biller, with_rule(biller, 0, carriage_return="refuse"))
    assert refused.endswith(": accountNumber is now refused with a carriage return in it")
    [folded] = words(with_rule(biller, 0, carriage_return="refuse"), biller)
    assert folded.endswith(": accountNumber is now sent with a space for each carriage return")
    [listed] = words(biller, with_rule(biller, 2, as_list=True))
    assert listed.endswith(": meters is now always a list")
    rule = Rule("gas", from_="account.custom.gas", value_type="boolean", as_list=True)
    new = replace(biller.mappings[0], rules=(*biller.mappings[0].rules, rule))
    [added] = words(biller, replace(biller, mappings=(new,)))
    assert added.endswith(": gas is now sent: the field account.custom.gas, as true or false, always as a list")


def test_a_change_knows_its_place(biller: Biller) -> None:
    assert plan(biller, with_link(biller, enabled=False)) == (Change("riverton-water", "link usage", "disabled"),)
