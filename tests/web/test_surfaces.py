"""What holds at every address of the service, whoever calls it: the addresses are read from the application itself."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from lxml import html
from sqlalchemy import select, text
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

import saml_bridge.storage.pending_sign_ons
from saml_bridge.storage.audit import Search
from saml_bridge.storage.database import Base, find_database
from tests.requester import encode_post, encode_redirect, make_request
from tests.sign_outs import encode_soap
from tests.sign_outs import make_request as make_logout_request
from tests.web.conftest import Browser
from tests.world import BASE_URL, BILLER, SP_ACS, make_portal_key, sp_metadata

MARKER = "caller-text-7f3a"
INSIDE = re.compile(
    r"Traceback|/usr/|/work/|site-packages|saml_bridge[/.]|werkzeug|flask|sqlalchemy|lxml|python/?\d|File \"|line \d+",
    re.IGNORECASE,
)
"""What tells a stranger how the service is built: paths, modules, versions, places in the code."""
VALUES = {"biller": BILLER, "link": "usage", "partner": "aquahawk", "filename": "page.css", "version": "1"}


def list_rules(browser: Browser) -> list[Rule]:
    found = [one for one in browser.client.application.url_map.iter_rules() if not one.rule.startswith("/demo")]
    assert len(found) > 25
    return found


def list_paths(browser: Browser) -> list[tuple[str, set[str]]]:
    """A path of each address, with values that exist where it takes some, and the methods that it takes."""
    fill = lambda rule: re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", lambda one: VALUES.get(one[1], "x" * 43), rule)  # noqa: E731
    return [(fill(one.rule), set(one.methods or ())) for one in list_rules(browser)]


def call_everywhere(browser: Browser) -> Iterator[tuple[str, TestResponse]]:
    """Call each address in each way, right and wrong, with and without a session."""
    hostile = quote(f"<{MARKER}>'\"\\\0\n{{}}")
    for path, methods in list_paths(browser):
        for method in ("GET", "POST", "PUT"):
            for query in ("", f"?SAMLRequest={hostile}&resume={hostile}&callback={hostile}&account={hostile}"):
                answer = browser.client.open(path + query, method=method, base_url=BASE_URL)
                yield f"{method} {path}{query}", answer
        if "POST" in methods:
            for body, kind in ((b"\xff{", "application/json"), (b"a=%ff&a", "application/x-www-form-urlencoded")):
                answer = browser.client.post(path, data=body, content_type=kind, base_url=BASE_URL)
                yield f"POST {path} {kind}", answer


@pytest.fixture
def database_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """SQLite alone: nothing here is about the database."""
    shutil.copyfile(migrated_sqlite, tmp_path / "test.db")
    return f"sqlite:///{tmp_path / 'test.db'}"


def test_b8_b17_c10_no_answer_opens_a_way_in_or_tells_how_the_service_is_built(browser: Browser) -> None:
    """The answers of a stranger and of a payer who is signed in; a response stands in no address."""
    answers = list(call_everywhere(browser))
    browser.sign_in()
    answers += call_everywhere(browser)
    assert {answer.status_code for _, answer in answers} >= {200, 303, 400, 401, 403, 404, 405}
    assert any('name="SAMLResponse"' in answer.text for _, answer in answers)
    for call, answer in answers:
        assert answer.status_code < 500 or answer.status_code in (502, 503), call
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin", call
        assert not {"Server", "X-Powered-By"}.intersection(answer.headers.keys()), call
        for name in ("Location", "Refresh", "Link", "Content-Location", "Set-Cookie"):
            value = answer.headers.get(name, "")
            assert "SAMLResponse" not in value, call
            assert "PHNhbWxw" not in value, call
        if "javascript" not in answer.headers.get("Content-Type", ""):
            assert not INSIDE.search(answer.text), (call, INSIDE.search(answer.text))


def test_b8_neither_a_response_nor_its_refusal_is_logged(browser: Browser, capfd: pytest.CaptureFixture[str]) -> None:
    browser.sign_in()
    capfd.readouterr()
    answers = [
        browser.get(),
        browser.get(f"/saml/{BILLER}/sso?{encode_redirect(make_request())}"),
        browser.get(f"/saml/{BILLER}/sso?{encode_redirect(make_request(attributes=chr(39).join(('', ''))))}"),
    ]
    response = re.search('name="SAMLResponse" value="([^"]+)"', answers[0].text)
    assert response is not None
    logged = "".join(capfd.readouterr())
    assert logged.count("trace_id") >= len(answers)
    for secret in ("SAMLResponse", "SAMLRequest", response[1][:24], "PHNhbWxw"):
        assert secret not in logged


def test_c10_what_is_too_large_or_not_spoken_here_gets_a_plain_answer(browser: Browser) -> None:
    """The limits are the framework's own; their pages are not."""
    sent = [
        browser.client.post(f"/saml/{BILLER}/sso", data=b"x" * 7_000_000, base_url=BASE_URL),
        browser.client.post(f"/saml/{BILLER}/sso", data=b"x", content_type="application/zip", base_url=BASE_URL),
        browser.client.open(f"/saml/{BILLER}/sso", method="TRACE", base_url=BASE_URL),
        browser.client.get("/no/such/address", base_url=BASE_URL),
        browser.client.get(f"/launch/{BILLER}/%ff%00", base_url=BASE_URL),
    ]
    for answer in sent:
        assert 400 <= answer.status_code < 500
        assert not INSIDE.search(answer.text)


def test_c11_a_stranger_reads_no_numbers_and_no_names_of_billers(browser: Browser) -> None:
    browser.sign_in()
    browser.get()
    for path in ("/healthz", "/readyz", "/metrics", "/"):
        answer = browser.get(path)
        assert (path, answer.status_code) in {("/healthz", 200), ("/readyz", 200), ("/metrics", 404), ("/", 404)}
        for name in (BILLER, "Riverton", "aquahawk", "AquaHawk", "usage", "sqlite", "postgres"):
            assert name not in answer.text
    told = browser.get("/metrics", Authorization="Bearer " + "metrics-token-" * 3)
    assert "saml_bridge" in told.text
    assert BILLER not in told.text


def test_k8_nothing_that_a_caller_writes_is_signed(browser: Browser) -> None:
    """Whatever XML is posted, in whichever field, no answer holds any of it."""
    browser.sign_in()
    extension = f"<samlp:Extensions><x xmlns='urn:x'>{MARKER}</x></samlp:Extensions>"
    request = make_request(children=extension, attributes=f'ProviderName="{MARKER}"')
    logout = make_logout_request("aquahawk").replace("<saml:NameID", f"{extension}<saml:NameID")
    answers = [browser.get(f"/saml/{BILLER}/sso?{encode_redirect(request)}")]
    for path, methods in list_paths(browser):
        if "POST" not in methods:
            continue
        for body in (f"<Response>{MARKER}</Response>", request, logout, sp_metadata().decode()):
            coded = base64.b64encode(body.encode()).decode()
            names = ("SAMLRequest", "SAMLResponse", "metadata", "xml", "session", "token", "request", "id_token_hint")
            answers.append(browser.client.post(path, data=dict.fromkeys(names, coded), base_url=BASE_URL))
            answers.append(browser.client.post(path, data=body, content_type="text/xml", base_url=BASE_URL))
        answers.append(browser.client.post(path, data=encode_post(request), base_url=BASE_URL))
        answers.append(browser.client.post(path, data=encode_soap(logout), content_type="text/xml", base_url=BASE_URL))
    assert any("SAMLResponse" in answer.text for answer in answers)
    for answer in answers:
        assert MARKER not in answer.text
        for coded in re.findall(r'value="([A-Za-z0-9+/=]{40,})"', answer.text):
            assert MARKER.encode() not in base64.b64decode(coded)


def test_g2_another_billers_link_and_partner_are_not_there(browser: Browser) -> None:
    """Neither page says whether the other biller has it, and no form leads to that biller's partner."""
    other = json.loads(json.dumps(browser.world.biller))
    other.update(slug="lakeside", name="Lakeside")
    other["links"][0].update(slug="lakes-own", label="Lakeside's own")
    other["partners"][0].update(slug="lakes-partner", name="Lakes Partner")
    other["links"][0]["partner"] = "lakes-partner"
    browser.world.document["billers"].append(other)
    browser.world.publish()
    browser.sign_in()
    for template in ("/launch/{}/{}", "/rehearsal/{}/{}"):
        pages = [browser.get(template.format(BILLER, link)) for link in ("lakes-own", "lakes-partner", "nobodys")]
        assert [page.status_code for page in pages] == [404, 404, 404]
        assert len({read_words(page) for page in pages}) == 1
        assert "Lake" not in "".join(page.text for page in pages)
    answer = browser.get("/launch/lakeside/lakes-own")
    assert answer.status_code != 200, "a session of Riverton's is nobody's at Lakeside"
    assert SP_ACS not in answer.text


def read_words(answer: TestResponse) -> str:
    """A page's words but for its trace ID."""
    return re.sub(r"[0-9A-Z]{4}(-[0-9A-Z]{4}){2}", "", html.fromstring(answer.text).text_content())


def test_g9_what_only_shows_whether_a_launch_would_work_makes_nothing_that_a_partner_takes(
    world_with_key: tuple[Browser, str],
) -> None:
    browser, key = world_with_key
    body = {"session": browser.world.session()}
    answer = browser.client.post(
        f"/api/v1/portal/{BILLER}/links", json=body, base_url=BASE_URL, headers={"Authorization": f"Bearer {key}"}
    )
    assert answer.status_code == 200
    assert [one["link"] for one in answer.get_json()["links"]] == ["usage"]
    assert "SAMLResponse" not in answer.text
    assert not browser.world.bridge.audit.search(Search(kind="payer:launch"))


@pytest.fixture
def world_with_key(browser: Browser) -> tuple[Browser, str]:
    return browser, make_portal_key(browser.world.bridge)


def test_c12_a_link_that_is_off_looks_like_one_that_never_was(browser: Browser) -> None:
    pages = [browser.get(f"/launch/{BILLER}/none")]
    browser.world.link["enabled"] = False
    browser.world.publish()
    pages.append(browser.get())
    browser.sign_in()
    pages.append(browser.get())
    assert {page.status_code for page in pages} == {404}
    assert len({read_words(page) for page in pages}) == 1


def test_x8_c10_the_files_of_the_pages_are_the_only_files(browser: Browser) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/", "/static/../../setup.cfg", "/app.py"):
        assert browser.get(path).status_code in (400, 404)


def count_rows(browser: Browser) -> dict[str, int]:
    with find_database(browser.client.application).begin() as connection:
        names = [table.name for table in Base.metadata.sorted_tables if table.name != "audit"]
        return {name: connection.execute(text(f'SELECT count(*) FROM "{name}"')).scalar_one() for name in names}


def test_c6_c8_c9_what_strangers_leave_behind_is_capped_for_each_partner_and_ends(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but waiting requests and the identifiers of messages is kept; a flood at one partner is that one's."""
    monkeypatch.setattr(saml_bridge.storage.pending_sign_ons, "MOST_PENDING", 2)
    other = json.loads(json.dumps(browser.world.biller))
    other.update(slug="lakeside", name="Lakeside")
    browser.world.document["billers"].append(other)
    browser.world.publish()
    before, began = count_rows(browser), datetime.now(UTC)
    list(call_everywhere(browser))
    for _ in range(5):
        browser.get(f"/saml/{BILLER}/sso?{encode_redirect(make_request())}")
        browser.get(f"/saml/{BILLER}/slo?{encode_redirect(make_logout_request('aquahawk'))}")
        browser.client.post(f"/logout/{BILLER}", base_url=BASE_URL, headers={"Sec-Fetch-Site": "same-origin"})
    elsewhere = make_request(destination=f"{BASE_URL}/saml/lakeside/sso")
    assert browser.get(f"/saml/lakeside/sso?{encode_redirect(elsewhere)}").status_code == 303
    grown = {name: count - before[name] for name, count in count_rows(browser).items() if count != before[name]}
    assert grown == {"pending_sign_on": 2 + 1, "seen_message": 5 + 1}
    with find_database(browser.client.application).begin() as connection:
        for table in grown:
            ends = connection.execute(select(Base.metadata.tables[table].c.expires_at)).scalars().all()
            assert all(began < end < began + timedelta(minutes=15) for end in ends)


def count_statements(browser: Browser, path: str) -> tuple[int, str]:
    """How often the database was asked for one page, and the page's words."""
    calls: Counter[str] = Counter()
    sys.setprofile(lambda _frame, event, called: calls.update([called.__name__] if event == "c_call" else []))
    try:
        answer = browser.get(path)
    finally:
        sys.setprofile(None)
    assert (answer.status_code, calls["execute"] > 0) == (400, True)
    return calls["execute"], read_words(answer)


def test_c12_a_stranger_cannot_try_which_partners_there_are(browser: Browser) -> None:
    """An unknown issuer, a partner without its signature and one with a false signature cost and look the same."""
    own, unknown = make_request(), make_request(issuer="https://nobody.example.com/saml")
    (browser.world.folder / "sp.xml").write_bytes(sp_metadata(role=' AuthnRequestsSigned="true"'))
    browser.world.publish()
    asked = [
        encode_redirect(unknown, key=None),
        encode_redirect(unknown, key="attacker"),
        encode_redirect(own, key=None),
        encode_redirect(own, key="attacker"),
    ]
    count_statements(browser, f"/saml/{BILLER}/sso?{asked[0]}")  # the first one reads the configuration
    assert len({count_statements(browser, f"/saml/{BILLER}/sso?{query}") for query in asked}) == 1
