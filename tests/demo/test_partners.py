"""The demo partner portals' pages, by requests; `test_service_provider.py` has what is accepted and refused."""

from __future__ import annotations

import ast
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

import saml_bridge.demo
from saml_bridge.demo.headers import CONTENT_SECURITY_POLICY
from saml_bridge.demo.partner_portals import SAML_PORTALS
from saml_bridge.demo.partners import create_partners_app
from saml_bridge.demo.service_provider import ServiceProvider
from saml_bridge.demo.usage import ELECTRICITY, WATER, draw_chart, read_usage
from tests.demo.conftest import BASE_URL
from tests.demo.issuer import Issuer

Providers = dict[str, ServiceProvider]
ACCOUNTS = {"aquahawk": "123456", "eyeonwater": "000123456", "my360": "000123456", "sensus": "7700412"}


def post(browser: FlaskClient, slug: str, field: str, relay_state: str | None = None) -> Any:
    form = {"SAMLResponse": field} | ({} if relay_state is None else {"RelayState": relay_state})
    return browser.post(f"/{slug}/saml/acs", data=form, base_url=BASE_URL)


def sign_in(browser: FlaskClient, slug: str, providers: Providers, issuer: Issuer, **changes: Any) -> None:
    answer = post(browser, slug, issuer.respond(providers[slug], **changes))
    assert (answer.status_code, answer.location) == (303, f"/{slug}/usage")


def is_signed_in(browser: FlaskClient, slug: str) -> bool:
    answer = browser.get(f"/{slug}/usage", base_url=BASE_URL)
    assert (answer.status_code, answer.location) in ((200, None), (303, f"/{slug}/?next=/{slug}/usage"))
    return answer.status_code == 200


def read(browser: FlaskClient, path: str) -> str:
    return browser.get(path, base_url=BASE_URL).get_data(as_text=True)


@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_a_good_response_signs_in_on_the_right_account(
    slug: str, browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    sign_in(browser, slug, providers, issuer)
    page = read(browser, f"/{slug}/usage")
    assert f'id="account-number">{ACCOUNTS[slug]}<' in page
    assert re.search(r"Signed in as</span> <strong>(Ada Marsh|Priya)<", page)
    assert f"not {SAML_PORTALS[slug].name}’s product" in page
    assert page.count('<rect class="bar') == 2 * 30


def test_the_drawer_says_how_the_message_was_protected(
    browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    expected = {
        "aquahawk": ("Response signed", "Assertion signed", "Assertion not encrypted"),
        "eyeonwater": ("Response not signed", "Assertion signed", "Assertion not encrypted"),
        "my360": ("Response signed", "Assertion not signed by itself", "Assertion encrypted"),
    }
    for slug, texts in expected.items():
        sign_in(browser, slug, providers, issuer)
        page = read(browser, f"/{slug}/usage")
        for text in texts:
            assert text in page


def test_sensus_shows_each_meter_of_the_response(browser: FlaskClient, providers: Providers, issuer: Issuer) -> None:
    sign_in(browser, "sensus", providers, issuer)
    assert "Daily use of meter LE-1, last 30 days, in kWh" in read(browser, "/sensus/usage")
    assert "Daily use of meter LE-2, last 14 days, in gal" in read(browser, "/sensus/usage?meter=LE-2&days=14")
    assert "Daily use of meter LE-1, last 30 days" in read(browser, "/sensus/usage?meter=LE-9&days=9999")


@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_without_a_session_nothing_is_shown(slug: str, browser: FlaskClient) -> None:
    assert not is_signed_in(browser, slug)
    answer = browser.get(f"/{slug}/", base_url=BASE_URL)
    assert answer.status_code == 200
    assert "You are not signed in" in answer.get_data(as_text=True)
    assert "chart" not in answer.get_data(as_text=True)


def test_the_cookie_is_for_this_portal_alone(browser: FlaskClient, providers: Providers, issuer: Issuer) -> None:
    answer = post(browser, "aquahawk", issuer.respond(providers["aquahawk"]))
    header = answer.headers["Set-Cookie"]
    for part in ("aquahawk_session=", "HttpOnly", "SameSite=Lax", "Path=/aquahawk/", "Max-Age=3600"):
        assert part in header
    value = header.partition("=")[2].partition(";")[0]
    browser.set_cookie("sensus_session", value, domain="127.0.0.1", path="/sensus/")
    assert not is_signed_in(browser, "sensus")
    browser.set_cookie("aquahawk_session", value[:-2], domain="127.0.0.1", path="/aquahawk/")
    assert not is_signed_in(browser, "aquahawk")


def test_a_session_ends(instance_dir: Path, issuer: Issuer) -> None:
    now = datetime.now(UTC)
    app = create_partners_app(base_url=BASE_URL, state_dir=instance_dir / "demo", clock=lambda: now)
    browser = app.test_client()
    provider = ServiceProvider("aquahawk", "AquaHawk", BASE_URL, instance_dir / "demo", SAML_PORTALS["aquahawk"].wants)
    post(browser, "aquahawk", issuer.respond(provider))
    assert is_signed_in(browser, "aquahawk")
    now += timedelta(hours=1)
    assert not is_signed_in(browser, "aquahawk")


def test_signing_out_ends_the_session_on_the_server_too(
    browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    sign_in(browser, "aquahawk", providers, issuer)
    cookie = browser.get_cookie("aquahawk_session", domain="127.0.0.1", path="/aquahawk/")
    assert cookie is not None
    browser.post("/aquahawk/sign-out", base_url=BASE_URL)
    browser.set_cookie("aquahawk_session", cookie.value, domain="127.0.0.1", path="/aquahawk/")
    assert not is_signed_in(browser, "aquahawk")


@pytest.mark.parametrize(
    ("relay_state", "location"),
    [
        (f"{BASE_URL}/aquahawk/usage?days=14", "/aquahawk/usage?days=14"),
        (f"{BASE_URL}/aquahawk/usage", "/aquahawk/usage"),
        (f"{BASE_URL}/sensus/usage", "/aquahawk/usage"),
        (f"{BASE_URL}/aquahawk/sign-out", "/aquahawk/usage"),
        (f"{BASE_URL}@evil.example/aquahawk/usage", "/aquahawk/usage"),
        ("https://evil.example/aquahawk/usage", "/aquahawk/usage"),
        ("//evil.example/aquahawk/usage", "/aquahawk/usage"),
        ("/aquahawk/usage\\@evil.example", "/aquahawk/usage"),
        ("javascript:alert(1)", "/aquahawk/usage"),
        ("http://[", "/aquahawk/usage"),
        ("tenant-7", "/aquahawk/usage"),
        ("", "/aquahawk/usage"),
    ],
)
def test_relay_state_is_followed_within_the_portal_only(
    relay_state: str, location: str, browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    assert post(browser, "aquahawk", issuer.respond(providers["aquahawk"]), relay_state).location == location


def test_a_refusal_is_told_in_plain_words_and_signs_nobody_in(
    browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    field = issuer.respond(providers["aquahawk"], sign=())
    answer = post(browser, "aquahawk", field)
    page = answer.get_data(as_text=True)
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers
    assert "This did not work" in page
    assert "SignatureError: Signature missing for response" in page


def test_the_same_response_does_not_sign_in_twice(browser: FlaskClient, providers: Providers, issuer: Issuer) -> None:
    field = issuer.respond(providers["aquahawk"])
    assert post(browser, "aquahawk", field).status_code == 303
    assert post(browser, "aquahawk", field).status_code == 403


@pytest.mark.parametrize(
    ("slug", "changes"),
    [
        ("aquahawk", {"attributes": {"fullName": ("Ada",)}}),
        ("aquahawk", {"replace": {"nameid-format:persistent": "nameid-format:transient"}}),
        ("sensus", {"attributes": {"account": ("1",)}}),
    ],
    ids=["no account", "other name ID", "no meters"],
)
def test_a_portal_refuses_without_what_it_needs(
    slug: str, changes: Any, browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    assert post(browser, slug, issuer.respond(providers[slug], **changes)).status_code == 403


def test_what_a_response_says_is_text_and_not_markup(
    browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    hostile = "&lt;script&gt;alert(1)&lt;/script&gt;"
    sign_in(browser, "aquahawk", providers, issuer, attributes={"accountNumber": (hostile,), "fullName": (hostile,)})
    page = read(browser, "/aquahawk/usage")
    assert hostile in page
    assert "<script" not in page


def test_a_large_body_is_refused(browser: FlaskClient) -> None:
    assert post(browser, "aquahawk", "A" * 600_000).status_code == 413


def test_metadata_is_served_as_such(browser: FlaskClient, providers: Providers) -> None:
    answer = browser.get("/my360/saml/metadata", base_url=BASE_URL)
    assert answer.mimetype == "application/samlmetadata+xml"
    assert answer.data == providers["my360"].build_metadata()


@pytest.mark.parametrize(
    "path", ["/", "/aquahawk/usage", "/aquahawk/saml/slo", "/static/demo.css", "/aquahawk/saml/metadata", "/nothing"]
)
def test_every_answer_has_the_headers(path: str, browser: FlaskClient) -> None:
    headers = browser.get(path, base_url=BASE_URL, buffered=True).headers
    assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"


def test_the_offer_to_sign_in_may_lead_to_the_utility_alone(browser: FlaskClient) -> None:
    headers = browser.get("/aquahawk/", base_url=BASE_URL).headers
    policy = CONTENT_SECURITY_POLICY.replace("form-action 'self'", "form-action 'self' http://localhost:8000")
    assert headers["Content-Security-Policy"] == policy
    assert headers["X-Frame-Options"] == "DENY"


def test_unknown_portals_are_not_found(app: Flask) -> None:
    assert app.test_client().get("/other/usage").status_code == 404


def test_the_partner_side_imports_nothing_of_the_bridge() -> None:
    """Else the demo would be our own code checking itself. How any JSON is read strictly checks nothing of ours."""
    folder = Path(saml_bridge.demo.__file__).parent
    names = ("partners", "service_provider", "sign_out", "memory", "crypto", "usage", "headers", "run")
    for name in (*names, "relying_party", "session_tokens"):
        nodes = list(ast.walk(ast.parse((folder / f"{name}.py").read_text())))
        imported = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        imported += [one.name for node in nodes if isinstance(node, ast.Import) for one in node.names]
        own = [one for one in imported if one.startswith("saml_bridge") and one != "saml_bridge.model.strict_json"]
        assert all(one.startswith("saml_bridge.demo.") for one in own), name


def test_usage_is_the_meters_own_and_always_the_same() -> None:
    until = date(2026, 1, 15)
    usage = read_usage("M-1", commodity=WATER, until=until, days=30)
    assert usage == read_usage("M-1", commodity=WATER, until=until, days=30)
    assert usage.days != read_usage("M-2", commodity=WATER, until=until, days=30).days
    assert usage.days[-1].on == date(2026, 1, 14)
    assert usage.days[1:] == read_usage("M-1", commodity=WATER, until=until + timedelta(days=1), days=30).days[:-1]
    assert usage.total == sum(day.amount for day in usage.days)


@pytest.mark.parametrize("days", [14, 30, 90])
@pytest.mark.parametrize("commodity", [WATER, ELECTRICITY], ids=["water", "electricity"])
def test_the_chart_stays_within_its_frame(days: int, commodity: Any) -> None:
    for number in range(20):
        usage = read_usage(f"M-{number}", commodity=commodity, until=date(2026, 7, 1), days=days)
        chart = draw_chart(usage, width=340, height=230, most_labels=4)
        assert len(chart.bars) == days
        assert len(chart.columns) <= 4
        for bar in chart.bars:
            assert bar.x >= chart.left
            assert bar.x + bar.width <= chart.width
            assert bar.y >= 0
            assert bar.y + bar.height == pytest.approx(chart.bottom, abs=0.02)
        assert sum(bar.is_highest for bar in chart.bars) == 1
