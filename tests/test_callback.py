import pytest

from saml_bridge.callback import is_allowed, origin_of

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
