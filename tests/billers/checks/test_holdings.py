"""What each biller has for itself alone: names and keys, compared over a whole installation."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest

from saml_bridge.billers.checks.holdings import Installation, list_holdings
from saml_bridge.billers.file.load import peek_json, to_json
from saml_bridge.keys.signing_key import PublishedKey, load_published_key
from saml_bridge.model.document import (
    Biller,
    EncryptedTokenSettings,
    Idp,
    KeyNames,
    OidcSettings,
    Partner,
    SignedLinkSettings,
    TokenKeys,
    Tokens,
)
from saml_bridge.model.errors import KeyRefused
from saml_bridge.model.values import Finding
from tests.configurations import make_biller as make_saml_biller
from tests.configurations import make_metadata
from tests.world import KEYS

BASE_URL = "https://bridge.example"
MINE, OTHER = "riverton-water", "lakeside-power"
FILES = {"default": "idp-rsa", "tokens": "idp-p256", "newer": "idp-rsa-next", "copied": "idp-rsa-next"}

NAMED = {
    "entity_id": "idp.entity_id",
    "our_entity_id": "partners[0].saml.our_entity_id",
    "jwt": "partners[1].jwt.issuer",
    "encrypted_token": "partners[1].encrypted_token.issuer",
}
"""Every setting that names an issuer, and its place."""


@lru_cache
def find_published(name: str) -> PublishedKey:
    if name not in FILES:
        raise KeyRefused(f"there is no {name}")
    return load_published_key(name, (KEYS / f"{FILES[name]}.cert.pem").read_bytes())


@lru_cache
def make_biller(slug: str) -> Biller:
    return make_saml_biller(make_metadata(KEYS), slug=slug)


def name_by(setting: str, slug: str, name: str) -> Biller:
    """A biller with this name in one of those settings."""
    biller = make_biller(slug)
    if setting == "entity_id":
        return replace(biller, idp=Idp(entity_id=name))
    if setting == "our_entity_id":
        (partner,) = biller.partners
        return replace(biller, partners=(replace(partner, settings=replace(partner.saml, our_entity_id=name)),))
    kind = SignedLinkSettings if setting == "jwt" else EncryptedTokenSettings
    settings = kind("https://shop.example/in", issuer=name)
    return replace(biller, partners=(*biller.partners, Partner("shop", "Shop", setting, settings)))  # type: ignore[arg-type]


def check(biller: Biller, *others: Biller, stored: bool = False) -> list[Finding]:
    """What is found of the first biller among all; `stored` has the others as the database has them."""
    mine = list_holdings(biller, BASE_URL)
    theirs = [list_holdings(peek_json(to_json(one)) if stored else one, BASE_URL) for one in others]
    installation = Installation([mine, *theirs], base_url=BASE_URL, find_published=find_published)
    return list(installation.check(mine))


@pytest.mark.parametrize("setting", NAMED)
@pytest.mark.parametrize(
    "name",
    [
        f"{BASE_URL}/oidc/{OTHER}",
        f"{BASE_URL}/oidc/{OTHER}/",
        f"{BASE_URL}/oidc/{OTHER}/links",
        f"{BASE_URL}/oidc/{OTHER}?a#b",
        f"{BASE_URL}/saml/{OTHER}/metadata",
        f"{BASE_URL}/saml/{OTHER}/metadata/aquahawk",
        f"HTTPS://BRIDGE.example:443//oidc/{OTHER}",
        f"{BASE_URL}/oidc/{MINE}/../{OTHER}",
        f"{BASE_URL}/%6Fidc%2F{OTHER}",
        f"{BASE_URL}./oidc/{OTHER}",
        f"https:\\\\bridge.example\\oidc\\{OTHER}",
        f"https://user:word@bridge.example/oidc/{OTHER}",
        f"{BASE_URL}/oidc/{MINE}2",
    ],
)
def test_k11_an_address_of_another_biller_is_no_name_of_this_one(setting: str, name: str) -> None:
    (found,) = check(name_by(setting, MINE, name))
    assert (found.code, found.where, found.refuses) == ("issuer-foreign", NAMED[setting], True)
    assert repr(name) in found.message
    assert f"/{MINE}/" in found.fix


@pytest.mark.parametrize("setting", NAMED)
@pytest.mark.parametrize("end", ["", "/", "/."])
def test_k11_nothing_but_id_tokens_is_issued_by_the_issuer_of_id_tokens(setting: str, end: str) -> None:
    (found,) = check(name_by(setting, MINE, f"{BASE_URL}/oidc/{MINE}{end}"))
    assert (found.code, found.where, found.refuses) == ("issuer-of-id-tokens", NAMED[setting], True)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("other", NAMED)
@pytest.mark.parametrize("mine", NAMED)
def test_k11_no_two_billers_go_by_one_name(mine: str, other: str, stored: bool) -> None:
    name = "https://pay.example/idp"
    found = check(name_by(mine, MINE, name), name_by(other, OTHER, name), stored=stored)
    if mine == other == "our_entity_id":
        assert found == [], "two partners may insist on the same name for two billers"
    else:
        assert [(one.code, one.where, one.refuses) for one in found] == [("issuer-taken", NAMED[mine], True)]
        assert repr(name) in found[0].message


def test_names_of_its_own_are_a_billers_to_use_twice() -> None:
    assert check(make_biller(MINE), make_biller(OTHER)) == []
    links = name_by("jwt", MINE, f"{BASE_URL}/saml/{MINE}/metadata")
    assert check(links, make_biller(OTHER)) == []
    sealed = name_by("encrypted_token", MINE, "our-links").partners[1]
    both = name_by("jwt", MINE, "our-links")
    assert check(replace(both, partners=(*both.partners, sealed)), make_biller(OTHER)) == []
    assert check(name_by("jwt", MINE, f"{BASE_URL}/oidc/{MINE}/links"), make_biller(OTHER)) == []


USES = {
    "idp.keys.next": lambda one, key: replace(one, idp=Idp(keys=KeyNames(next=key))),
    "idp.keys.previous": lambda one, key: replace(one, idp=Idp(keys=KeyNames(previous=key))),
    "tokens.keys.next": lambda one, key: replace(one, tokens=Tokens(TokenKeys(next=key))),
    "tokens.keys.previous": lambda one, key: replace(one, tokens=Tokens(TokenKeys(previous=key))),
    "partners[1].oidc.key": lambda one, key: add(one, "oidc", OidcSettings("c", ("https://rp.example/cb",), key=key)),
    "partners[1].jwt.key": lambda one, key: add(one, "jwt", SignedLinkSettings("https://rp.example/in", key=key)),
    "partners[1].encrypted_token.key": lambda one, key: add(
        one, "encrypted_token", EncryptedTokenSettings("https://rp.example/in", key=key)
    ),
}
"""Every place of a document that names a key."""


def add(biller: Biller, protocol: str, settings: object) -> Biller:
    return replace(biller, partners=(*biller.partners, Partner("rp", "RP", protocol, settings)))  # type: ignore[arg-type]


@pytest.mark.parametrize("other", USES)
@pytest.mark.parametrize("mine", USES)
def test_k10_a_key_signs_xml_or_tokens_over_all_billers_by_whatever_name(mine: str, other: str) -> None:
    for theirs in ("newer", "copied"):
        found = check(USES[mine](make_biller(MINE), "newer"), USES[other](make_biller(OTHER), theirs), stored=True)
        if mine.startswith("idp") == other.startswith("idp"):
            assert found == [], "the same use may be shared"
            continue
        assert [(one.code, one.where, one.refuses) for one in found] == [("key-shared", mine, True)]
        assert "'newer'" in found[0].message
        assert "of another biller" in found[0].message
        assert f"'{theirs}'" in found[0].message


@pytest.mark.parametrize("place", [one for one in USES if not one.startswith("idp")])
def test_k6_one_key_under_two_names_in_one_document(place: str) -> None:
    biller = USES[place](replace(make_biller(MINE), idp=Idp(keys=KeyNames(next="newer"))), "copied")
    (found,) = check(biller, make_biller(OTHER))
    assert (found.code, found.where) == ("key-shared", place)
    assert "'copied' is the key 'newer' by another name" in found.message


def test_k10_a_key_that_cannot_be_read_is_known_by_its_name() -> None:
    mine = USES["idp.keys.next"](make_biller(MINE), "absent")
    assert [one.code for one in check(mine, USES["tokens.keys.next"](make_biller(OTHER), "absent"))] == ["key-shared"]
    assert check(mine, USES["tokens.keys.next"](make_biller(OTHER), "gone")) == []
