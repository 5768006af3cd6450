import pytest

from saml_bridge.mapping.callback_uri import compile_callback, is_allowed, origin_of
from saml_bridge.mapping.fields import build_example, parse_session
from saml_bridge.model.errors import LaunchRefused

ALLOWED = ("https://riverton.partner.example/usage", "https://other.example/")


@pytest.mark.parametrize(
    "uri",
    [
        "https://riverton.partner.example/usage",
        "https://riverton.partner.example/usage/daily?meter=1#today",
        "https://RIVERTON.partner.example:443/usage",
        "https://other.example",
        "https://other.example/anything/at/all",
    ],
)
def test_below_a_prefix(uri: str) -> None:
    assert is_allowed(uri, ALLOWED)


@pytest.mark.parametrize(
    "uri",
    [
        "https://riverton.partner.example/usage-admin",
        "https://riverton.partner.example/",
        "http://riverton.partner.example/usage",
        "https://riverton.partner.example:8443/usage",
        "https://riverton.partner.example.evil.example/usage",
        "https://riverton.partner.example@evil.example/usage",
        "https://user@riverton.partner.example/usage",
        "https://riverton.partner.example/usage/../admin",
        "https://riverton.partner.example/usage/%2e%2e/admin",
        "https://riverton.partner.example/usage/..%2fadmin",
        "https://riverton.partner.example/usage/..;/admin",
        "https://riverton.partner.example/usage/..;a=b/admin",
        "https://riverton.partner.example/usage/%252e%252e/admin",
        "https://riverton.partner.example/usage\\..\\admin",
        "https://riverton.partner.example/usage\r\nX: y",
        "https://riverton.partner.example/usage ",
        "https://riverton.partner.example:99999/usage",
        "https://riverton.partner.example:0/usage",
        "//riverton.partner.example/usage",
        "/usage",
        "javascript:alert(1)",
        "https://evil.example/usage",
        "https://[::1/usage",
        "https://other.example/" + "a" * 3000,
        "",
    ],
)
def test_not_below_any_prefix(uri: str) -> None:
    assert not is_allowed(uri, ALLOWED)


def test_nothing_is_allowed_by_default() -> None:
    assert not is_allowed("https://other.example/", ())


def test_origin() -> None:
    assert origin_of("https://a.example:8443/x?y") == "https://a.example:8443"


def build(template: str, **account: object) -> str:
    document = build_example("riverton-water", now=1_790_000_000)
    document["accounts"][0].update(account)
    session = parse_session(document)
    return compile_callback(template).build(session, session.accounts[0])


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("https://partner.example/usage", "https://partner.example/usage"),
        ("https://partner.example/u/{account.number|urlencode}", "https://partner.example/u/000123456"),
        (
            "https://partner.example/u/{account.number}?e={payer.email}",
            "https://partner.example/u/000123456?e=ada%40example.net",
        ),
        ("https://partner.example/?{{a}}={account.custom.ami_id}", "https://partner.example/?%7Ba%7D=A-9"),
    ],
)
def test_a_template_takes_the_values_of_the_session(template: str, expected: str) -> None:
    assert build(template) == expected


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a/b?c#d&e=f", "a%2Fb%3Fc%23d%26e%3Df"),
        ("@evil.example", "%40evil.example"),
        ("\\\\evil\r\nx", "%5C%5Cevil%20x"),
        ("a\nb", "a%0Ab"),
        ("\u00e9 %2e", "%C3%A9%20%252e"),
    ],
)
def test_r5_a_value_stays_in_its_place(value: str, written: str) -> None:
    assert build("https://partner.example/u/{account.type}/x", type=value) == f"https://partner.example/u/{written}/x"


@pytest.mark.parametrize("value", [None, "", " ", "\u00a0\t", ".", "..", "a\x00b", "\ud800", "x" * 2048])
def test_r5_a_field_that_cannot_stand_in_the_address_refuses_by_its_name(value: str | None) -> None:
    with pytest.raises(LaunchRefused, match=r"field account\.type") as refused:
        build("https://partner.example/u/{account.type}", type=value)
    assert refused.value.code == "callback-field"
    assert refused.value.findings[0].where == "callback_uri"


def test_a_list_that_the_portal_sends_in_place_of_a_text_refuses() -> None:
    with pytest.raises(LaunchRefused, match=r"account\.custom\.ids has several"):
        build("https://partner.example/{account.custom.ids}", custom={"ids": ["1", "2"]})
