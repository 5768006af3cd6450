"""Settings of partners that speak OpenID Connect or carry tokens: what their values must be together."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from saml_bridge.billers.file.load import load_file
from saml_bridge.model.errors import ConfigInvalid
from saml_bridge.model.values import Finding, Severity
from tests.configurations import PARTNERS, make_partner, write_partners

Found = dict[str, Finding]


def check(text: str, **options: bool) -> Found:
    """Everything that is said of a file, by its place without the biller and the line."""
    try:
        findings: Any = load_file(text, **options).findings
    except ConfigInvalid as refused:
        findings = refused.findings
    return {re.sub(r"^billers\[0\]\.| \(line \d+\)$", "", one.where): one for one in findings}


def change(protocol: str, changes: dict[str, Any], **partner: Any) -> dict[str, Any]:
    """The partner of this protocol with other settings; None takes a setting away."""
    settings = {**yaml.safe_load(PARTNERS[protocol]), **changes}
    settings = {name: value for name, value in settings.items() if value is not None}
    return {**make_partner(protocol, json.dumps(settings)), **partner}


def say(protocol: str, changes: dict[str, Any], **partner: Any) -> Found:
    """What is said of the partner with these changes, by the places below its settings."""
    found = check(write_partners(change(protocol, changes, **partner)))
    return {place.removeprefix(f"partners[0].{protocol}."): one for place, one in found.items()}


@pytest.mark.parametrize("protocol", PARTNERS)
def test_nothing_is_said_of_settings_that_are_in_order(protocol: str) -> None:
    assert say(protocol, {}) == {}


JWKS: dict[str, Any] = {"keys": []}
ORIGINS = ["https://app.itron.example"]


@pytest.mark.parametrize(
    ("protocol", "changes", "expected"),
    [
        # client authentication
        ("oidc", {"secret": None}, {"secret": "config-missing"}),
        ("oidc", {"secret": None, "client_auth": "client_secret_post"}, {"secret": "config-missing"}),
        ("oidc", {"jwks": JWKS}, {"jwks": "config-value"}),
        ("oidc", {"jwks_uri": "https://iedr.example/jwks"}, {"jwks_uri": "config-value"}),
        ("oidc", {"client_auth": "none"}, {"secret": "config-value"}),
        ("oidc", {"client_auth": "none", "secret": None}, {}),
        ("oidc", {"client_auth": "none", "secret": None, "jwks": JWKS}, {"jwks": "config-value"}),
        ("oidc", {"client_auth": "private_key_jwt", "secret": None}, {"jwks": "config-value"}),
        ("oidc", {"client_auth": "private_key_jwt", "secret": None, "jwks": JWKS}, {}),
        ("oidc", {"client_auth": "private_key_jwt", "jwks": JWKS}, {"secret": "config-value"}),
        (
            "oidc",
            {"client_auth": "private_key_jwt", "secret": None, "jwks": JWKS, "jwks_uri": "https://iedr.example/jwks"},
            {"jwks": "config-value"},
        ),
        # redirect URIs
        ("oidc", {"redirect_uris": []}, {"redirect_uris": "config-missing"}),
        ("oidc", {"redirect_uris": ["https://iedr.example/a"] * 2}, {"redirect_uris[1]": "config-not-unique"}),
        ("oidc", {"redirect_uris": ["https://iedr.example/*"]}, {"redirect_uris[0]": "config-value"}),
        ("oidc", {"redirect_uris": ["https://iedr.example/cb?state=1"]}, {"redirect_uris[0]": "parameter-twice"}),
        ("oidc", {"redirect_uris": ["https://iedr.example/cb?tenant=1"]}, {}),
        (
            "oidc",
            {"post_logout_redirect_uris": ["https://a.example/?state="]},
            {"post_logout_redirect_uris": "parameter-twice"},
        ),
        ("oidc", {"initiate_login_uri": "https://iedr.example/?iss=1"}, {"initiate_login_uri": "parameter-twice"}),
        ("oidc", {"userinfo_algorithm": "ES256"}, {"userinfo_algorithm": "config-value"}),
        ("oidc", {"userinfo_algorithm": "ES256", "id_token_algorithm": "ES256"}, {}),
        # subjects
        (
            "oidc",
            {"redirect_uris": ["https://iedr.example/a", "https://a.example/a"]},
            {"sector_identifier": "config-missing"},
        ),
        (
            "oidc",
            {"redirect_uris": ["https://iedr.example/a", "https://a.example/a"], "sector_identifier": "iedr.example"},
            {},
        ),
        (
            "oidc",
            {"redirect_uris": ["https://iedr.example/a", "https://a.example/a"], "subject": {"type": "public"}},
            {},
        ),
        (
            "oidc",
            {"subject": {"type": "public"}, "sector_identifier": "iedr.example"},
            {"sector_identifier": "config-unused"},
        ),
        # sign-out and starting
        ("oidc", {"frontchannel_logout_uri": "https://a.example/"}, {"frontchannel_logout_uri": "config-value"}),
        (
            "oidc",
            {"frontchannel_logout_uri": "https://iedr.example:8443/"},
            {"frontchannel_logout_uri": "config-value"},
        ),
        ("oidc", {"frontchannel_logout_uri": "https://iedr.example:443/"}, {}),
        (
            "oidc",
            {"frontchannel_logout_uri": "https://iedr.example/?sid=1"},
            {"frontchannel_logout_uri": "parameter-twice"},
        ),
        ("oidc", {"initiate_login_uri": None}, {"initiate_login_uri": "initiate-login-missing"}),
        ("oidc", {"default_link": "usge"}, {"default_link": "config-reference"}),
        ("oidc", {"default_link": "usage"}, {}),
        # scopes
        ("oidc", {"scopes": [{"name": "openid", "claims": []}]}, {"scopes[0].name": "config-value"}),
        ("oidc", {"scopes": [{"name": "email", "claims": ["meters"]}]}, {"scopes[0].name": "config-value"}),
        ("oidc", {"scopes": [{"name": "offline_access", "claims": []}]}, {"scopes[0].name": "config-value"}),
        ("oidc", {"scopes": [{"name": "a", "claims": []}] * 2}, {"scopes[1].name": "config-not-unique"}),
        ("oidc", {"scopes": [{"name": "a", "claims": ["meter"]}]}, {"scopes[0].claims[0]": "scope-claim-unmade"}),
        # signed links
        ("jwt", {"algorithm": "HS256"}, {"secret": "config-missing"}),
        ("jwt", {"algorithm": "HS256", "secret": "help"}, {}),
        ("jwt", {"algorithm": "HS256", "secret": "help", "key": "signer"}, {"key": "config-value"}),
        ("jwt", {"secret": "help"}, {"secret": "config-value"}),
        ("jwt", {"algorithm": "ES256", "key": "signer"}, {}),
        ("jwt", {"callback_parameter": "jwt"}, {"callback_parameter": "parameter-twice"}),
        ("jwt", {"parameters": {"jwt": "x"}}, {"parameters.jwt": "parameter-twice"}),
        ("jwt", {"parameters": {"return_to": "x"}}, {"parameters.return_to": "parameter-twice"}),
        ("jwt", {"carry": "query", "url": "https://help.example/?jwt=1"}, {"token_parameter": "parameter-twice"}),
        ("jwt", {"url": "https://help.example/?jwt=1"}, {}),
        ("jwt", {"callback_claim": "exp"}, {"callback_claim": "config-value", "callback_parameter": "callback-twice"}),
        ("jwt", {"callback_claim": "target"}, {"callback_parameter": "callback-twice"}),
        # encrypted tokens
        ("encrypted_token", {"secret": None}, {"secret": "config-missing"}),
        ("encrypted_token", {"key": "signer"}, {"key": "config-value"}),
        ("encrypted_token", {"encryption_key": "partner.pem"}, {"encryption_key": "config-value"}),
        ("encrypted_token", {"key_management": "RSA-OAEP-256", "secret": None}, {"encryption_key": "config-missing"}),
        ("encrypted_token", {"key_management": "RSA-OAEP-256", "encryption_key": "a.pem"}, {"secret": "config-value"}),
        ("encrypted_token", {"key_management": "RSA-OAEP-256", "encryption_key": "a.pem", "secret": None}, {}),
        ("encrypted_token", {"format": "multipass"}, {"format": "multipass-weaker"}),
        (
            "encrypted_token",
            {"format": "multipass", "secret": None},
            {"format": "multipass-weaker", "secret": "config-missing"},
        ),
        ("encrypted_token", {"format": "multipass", "key": "a"}, {"format": "multipass-weaker", "key": "config-value"}),
        (
            "encrypted_token",
            {"format": "multipass", "audience": "a"},
            {"format": "multipass-weaker", "audience": "config-value"},
        ),
        ("encrypted_token", {"callback_claim": "created_at"}, {}),
        (
            "encrypted_token",
            {"format": "multipass", "callback_claim": "created_at"},
            {"format": "multipass-weaker", "callback_claim": "config-value"},
        ),
        ("encrypted_token", {"carry": "path"}, {}),
        ("encrypted_token", {"carry": "path", "parameters": {"token": "x"}}, {}),
        ("encrypted_token", {"carry": "path", "url": "https://shop.example/?a=b"}, {"url": "config-value"}),
        # back-channel tokens
        ("backchannel_token", {"token_at": None}, {"token_at": "config-value"}),
        ("backchannel_token", {"url_at": "/url"}, {"token_at": "config-value"}),
        ("backchannel_token", {"landing_url": None}, {"landing_url": "config-missing"}),
        ("backchannel_token", {"carry": "redirect"}, {"carry": "config-value"}),
        ("backchannel_token", {"secret": None}, {"secret": "config-missing"}),
        ("backchannel_token", {"username": None}, {"username": "config-missing"}),
        ("backchannel_token", {"username": "a:b"}, {"username": "config-value"}),
        ("backchannel_token", {"auth_header": "X-Key"}, {"auth_header": "config-value"}),
        ("backchannel_token", {"auth": "bearer"}, {"username": "config-value"}),
        ("backchannel_token", {"auth": "bearer", "username": None}, {}),
        ("backchannel_token", {"auth": "header", "username": None}, {"auth_header": "config-missing"}),
        ("backchannel_token", {"auth": "header", "username": None, "auth_header": "X-Key"}, {}),
        ("backchannel_token", {"auth": "header", "username": None, "auth_header": "Authorization"}, {}),
        (
            "backchannel_token",
            {"auth": "header", "username": None, "auth_header": "Cookie"},
            {"auth_header": "header-own"},
        ),
        ("backchannel_token", {"auth": "none"}, {"username": "config-value", "secret": "config-value"}),
        ("backchannel_token", {"auth": "none", "username": None, "secret": None}, {}),
        ("backchannel_token", {"headers": {"Authorization": "x"}}, {"headers.Authorization": "header-own"}),
        ("backchannel_token", {"headers": {"content-type": "x"}}, {"headers.content-type": "header-own"}),
        ("backchannel_token", {"headers": {"HOST": "x"}}, {"headers.HOST": "header-own"}),
        ("backchannel_token", {"headers": {"Content-Length": "1"}}, {"headers.Content-Length": "header-own"}),
        ("backchannel_token", {"headers": {"Cookie": "x"}}, {"headers.Cookie": "header-own"}),
        ("backchannel_token", {"headers": {"X-A": "x", "x-a": "y"}}, {"headers.x-a": "config-not-unique"}),
        ("backchannel_token", {"headers": {"X-A": "\u00e4"}}, {"headers.X-A": "config-value"}),
        ("backchannel_token", {"headers": {"X-A": "a\r\nHost: evil.example"}}, {"headers.X-A": "config-value"}),
        ("backchannel_token", {"headers": {"X-Api-Key": "x"}}, {"headers.X-Api-Key": "header-secret"}),
        ("backchannel_token", {"headers": {"ApiKey": "x"}}, {"headers.ApiKey": "header-secret"}),
        ("backchannel_token", {"headers": {"X-Auth-Token": "x"}}, {"headers.X-Auth-Token": "header-secret"}),
        ("backchannel_token", {"headers": {"X-Turkey": "x"}}, {}),
        ("backchannel_token", {"method": "GET"}, {"method": "get-carries-values"}),
        ("backchannel_token", {"callback_parameter": "token"}, {"callback_parameter": "parameter-twice"}),
    ],
)
def test_values_that_do_not_fit_together(protocol: str, changes: dict[str, Any], expected: dict[str, str]) -> None:
    assert {place: one.code for place, one in say(protocol, changes).items()} == expected


@pytest.mark.parametrize(
    ("changes", "partner", "expected"),
    [
        ({"carry": "redirect"}, {"origins": ORIGINS}, {}),
        ({"carry": "redirect"}, {}, {"partners[0].origins": "config-missing"}),
        (
            {"carry": "redirect", "callback_in_body": None},
            {"origins": ORIGINS},
            {"links[0].callback_uri": "callback-unused"},
        ),
        (
            {"carry": "redirect", "callback_parameter": "a"},
            {"origins": ORIGINS},
            {"callback_parameter": "config-value"},
        ),
        ({}, {"origins": ORIGINS}, {"carry": "config-value"}),
        (
            {"carry": "redirect", "landing_url": "https://itron.example/"},
            {"origins": ORIGINS},
            {"landing_url": "config-value"},
        ),
    ],
)
def test_an_address_in_the_answer_is_redirected_to(
    changes: dict[str, Any], partner: dict[str, Any], expected: dict[str, str]
) -> None:
    settings = {"token_at": None, "landing_url": None, "url_at": "/url", **changes}
    assert {place: one.code for place, one in say("backchannel_token", settings, **partner).items()} == expected


def test_every_finding_of_these_rules_says_what_to_do() -> None:
    settings: dict[str, Any] = {
        "client_auth": "private_key_jwt",
        "initiate_login_uri": None,
        "redirect_uris": [],
        "default_link": "x",
    }
    for finding in say("oidc", settings).values():
        assert finding.fix
        assert finding.message.partition(":")[0] in finding.where


def test_severities_of_advice() -> None:
    assert say("encrypted_token", {"format": "multipass"})["format"].severity is Severity.WARNING
    assert "Use jwe" in say("encrypted_token", {"format": "multipass"})["format"].fix
    assert say("jwt", {"callback_claim": "target"})["callback_parameter"].severity is Severity.NOTE
    note = say("backchannel_token", {"method": "GET"})["method"]
    assert note.severity is Severity.NOTE
    assert "body: json" in note.message
    assert "body: json" not in say("backchannel_token", {"method": "GET", "body": "form"})["method"].message
    secret = say("backchannel_token", {"headers": {"X-Api-Key": "hush"}})["headers.X-Api-Key"]
    assert secret.severity is Severity.WARNING
    assert "secrets set" in secret.fix
    assert "hush" not in secret.message + secret.fix


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "org.example.app://callback",
        "/callback",
        "//iedr.example/callback",
        "https://iedr.example/callback#top",
        "https://iedr.example@evil.example/callback",
        "https://*.iedr.example/callback",
        "https://iedr.example\\@evil.example/",
        "http://iedr.example/callback",
        "https://iedr.example/call back",
        "https://iedr.ex\u00e4mple/callback",
    ],
)
@pytest.mark.parametrize("name", ["redirect_uris", "post_logout_redirect_uris", "initiate_login_uri"])
def test_p3_no_address_of_a_relying_party_is_a_script_or_read_in_two_ways(name: str, uri: str) -> None:
    several = name.endswith("s")
    found = say("oidc", {name: [uri] if several else uri})
    assert found[f"{name}[0]" if several else name].code in ("config-url", "config-url-http")


@pytest.mark.parametrize("uri", ["http://127.0.0.1:8080/cb", "http://localhost/cb", "http://[::1]/cb"])
def test_a_relying_party_on_this_machine_may_use_http(uri: str) -> None:
    origin = uri.removesuffix("cb")
    changes = {
        "redirect_uris": [uri],
        "initiate_login_uri": f"{origin}login",
        "frontchannel_logout_uri": f"{origin}out",
    }
    assert say("oidc", {"redirect_uris": [uri], **changes}) == {}


URLS: dict[str, dict[str, Any]] = {
    "oidc": {
        "client_auth": "private_key_jwt",
        "secret": None,
        "jwks_uri": "http://a.example/",
        "redirect_uris": ["http://a.example/"],
        "post_logout_redirect_uris": ["http://a.example/"],
        "initiate_login_uri": "http://a.example/",
        "frontchannel_logout_uri": "http://a.example/",
        "backchannel_logout_uri": "http://a.example/",
    },
    "jwt": {"url": "http://a.example/"},
    "encrypted_token": {"url": "http://a.example/"},
    "backchannel_token": {
        "url": "http://a.example/",
        "landing_url": "http://a.example/",
    },
}


@pytest.mark.parametrize("protocol", URLS)
def test_http_is_found_in_the_settings_of_every_protocol(protocol: str) -> None:
    text = write_partners(change(protocol, URLS[protocol]))
    found = check(text)
    assert {one.code for one in found.values()} == {"config-url-http"}
    places = {re.sub(r"\[\d\]$", "", place.removeprefix(f"partners[0].{protocol}.")) for place in found}
    values = [(name, value) for name, value in URLS[protocol].items() if "http:" in str(value)]
    assert places == {name for name, _ in values}
    assert check(text, allow_http=True) == {}


@pytest.mark.parametrize("management", ["RSA1_5", "RSA-OAEP", "A128KW", "ECDH-ES"])
def test_p29_tokens_are_encrypted_by_nothing_weaker(management: str) -> None:
    found = say("encrypted_token", {"key_management": management})
    assert found["key_management"].message.startswith("key_management: expected one of RSA-OAEP-256, dir")
    assert say("jwt", {"algorithm": "none"})["algorithm"].code == "config-value"
    assert say("oidc", {"id_token_algorithm": "HS256"})["id_token_algorithm"].code == "config-value"


def test_a_client_id_is_one_partner_of_a_biller() -> None:
    first, second = change("oidc", {}), change("oidc", {"secret": "other"}, slug="other")
    second["oidc"]["sector_identifier"] = "other.example"
    found = check(write_partners(first, second))
    assert {place: one.code for place, one in found.items()} == {"partners[1].oidc.client_id": "partner-not-unique"}


def test_partners_do_not_share_a_secret() -> None:
    first, second = change("oidc", {}), change("jwt", {"algorithm": "HS256", "secret": "iedr-client"})
    [(place, finding)] = check(write_partners(first, second)).items()
    assert (place, finding.code, finding.severity) == ("partners[1].jwt.secret", "secret-shared", Severity.WARNING)


def test_several_links_without_a_default_one_are_told() -> None:
    data = json.loads(write_partners(change("oidc", {})))
    links = data["billers"][0]["links"]
    links.append({**links[0], "slug": "outages"})
    [(place, finding)] = check(json.dumps(data)).items()
    assert (place, finding.code) == ("partners[0].oidc.default_link", "default-link-missing")
    assert "usage, outages" in finding.message
    links[1]["enabled"] = False
    assert check(json.dumps(data)) == {}


def test_a_partner_whose_links_are_all_disabled_needs_no_address_to_start_at() -> None:
    data = json.loads(write_partners(change("oidc", {"initiate_login_uri": None})))
    data["billers"][0]["links"][0]["enabled"] = False
    assert check(json.dumps(data)) == {}


@pytest.mark.parametrize(
    ("protocol", "changes", "told"),
    [
        ("jwt", {"callback_parameter": "jump"}, False),
        ("jwt", {"callback_claim": "target"}, False),
        ("encrypted_token", {}, False),
        ("backchannel_token", {}, False),
        ("backchannel_token", {"callback_in_body": None}, True),
        ("backchannel_token", {"callback_in_body": None, "callback_parameter": "returnUrl"}, False),
        ("oidc", {}, False),
    ],
)
def test_a_callback_uri_that_goes_nowhere_is_told(protocol: str, changes: dict[str, Any], told: bool) -> None:
    def is_told(callback: str | None) -> bool:
        found = check(write_partners(change(protocol, changes), callback=callback))
        return "callback-unused" in {one.code for one in found.values()}

    assert is_told("https://partner.example/usage") is told
    assert not is_told(None)


def test_a_callback_that_both_ways_of_a_token_leave_out_is_told() -> None:
    partner = make_partner("jwt")
    partner["jwt"]["callback_parameter"] = None
    [(place, finding)] = check(write_partners(partner)).items()
    assert (place, finding.code) == ("links[0].callback_uri", "callback-unused")
    assert "callback_parameter and no callback_claim" in finding.message


@pytest.mark.parametrize("use", ["current", "next", "previous"])
def test_k6_a_name_of_a_key_stands_for_xml_or_for_tokens(use: str) -> None:
    data = json.loads(write_partners(change("jwt", {"key": "default"})))
    data["billers"][0] |= {"idp": {"keys": {"next": "newer"}}, "tokens": {"keys": {use: "newer"}}}
    found = check(json.dumps(data))
    assert {place: one.code for place, one in found.items()} == {
        f"tokens.keys.{use}": "key-shared",
        "partners[0].jwt.key": "key-shared",
    }


def test_a_value_that_cannot_be_read_hides_no_other_and_brings_no_second_finding() -> None:
    settings = {"client_auth": "private_key_jwtt", "secret": None, "redirect_uris": ["https://a.example/"] * 2}
    found = say("oidc", settings)
    assert {place: one.code for place, one in found.items()} == {
        "client_auth": "config-value",
        "redirect_uris[1]": "config-not-unique",
    }


def make_client(slug: str, **oidc: Any) -> dict[str, Any]:
    """A public client; its redirect URI is on a host of its own by default."""
    settings = {"client_id": slug, "redirect_uris": [f"https://{slug}.example/cb"], "client_auth": "none", **oidc}
    return {"slug": slug, "name": slug, "protocol": "oidc", "oidc": settings}


HOST = {"redirect_uris": ["https://rp.example/cb", "https://RP.example:8443/other"]}
TEMPLATE = {"template": "A-{payer.id}", "transforms": [{"pad_left": 10}]}


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        ({"sector_identifier": "rp.example"}, {"sector_identifier": "rp.example"}, "sector_identifier"),
        (HOST, HOST, "subject"),
        (HOST, {"sector_identifier": "rp.example"}, "sector_identifier"),
        ({"sector_identifier": "rp.example"}, HOST, "subject"),
        ({}, {}, None),
        ({"sector_identifier": "one.example"}, {"sector_identifier": "rp.example"}, None),
        (HOST, {**HOST, "sector_identifier": "own.example"}, None),
        (HOST, {**HOST, "subject": {"type": "public", "from": "payer.id"}}, None),
        (HOST, {**HOST, "subject": {"type": "pairwise", "from": "account.number"}}, None),
        (HOST, {**HOST, "subject": {"from": "payer.id", "transforms": ["upper"]}}, None),
        ({**HOST, "subject": {"template": "A-{payer.id}"}}, {**HOST, "subject": {"template": "B-{payer.id}"}}, None),
        ({**HOST, "subject": TEMPLATE}, {**HOST, "subject": TEMPLATE}, "subject"),
    ],
)
def test_p18_partners_who_would_get_the_same_subject_are_told(
    first: dict[str, Any], second: dict[str, Any], where: str | None
) -> None:
    found = check(write_partners(make_client("one", **first), make_client("two", **second)))
    told = {place: one for place, one in found.items() if one.code == "sector-shared"}
    if where is None:
        assert told == {}
        return
    [(place, finding)] = told.items()
    assert (place, finding.severity) == (f"partners[1].oidc.{where}", Severity.WARNING)
    assert "two and one get the same pairwise sub for a payer, of the sector 'rp.example'" in finding.message
    assert "sector_identifier" in finding.fix
