"""Single logout at the demo partners: a utility's request ends sessions, 'Sign out' asks the utility."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import xmlsec
from flask import Flask
from flask.testing import FlaskClient
from lxml import etree

from saml_bridge.demo.partner_portals import SAML_PORTALS
from saml_bridge.demo.service_provider import EMAIL, ServiceProvider
from tests.demo.conftest import BASE_URL
from tests.demo.issuer import ISSUER, SAML, SAMLP, SLO, Issuer, encode
from tests.demo.test_partners import is_signed_in, sign_in

Providers = dict[str, ServiceProvider]
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
REDIRECTED = ("aquahawk", "my360", "sensus")
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
RSA_SHA1 = "http://www.w3.org/2000/09/xmldsig#rsa-sha1"


def name_of(slug: str) -> dict[str, str]:
    return {"name_id": "ada.marsh@example.net", "name_id_format": EMAIL} if slug == "eyeonwater" else {}


def send(browser: FlaskClient, slug: str, provider: ServiceProvider, issuer: Issuer, **changes: Any) -> Any:
    """A utility's request in the binding that this partner prefers; from a browser that has no cookie for it."""
    elsewhere, changes = browser.application.test_client(), {**name_of(slug), **changes}
    if slug == "sensus":
        root = issuer.ask_sign_out(provider.soap_url, **changes)
        issuer.sign(root)
        return elsewhere.post("/sensus/saml/slo/soap", data=wrap(root), content_type="text/xml", base_url=BASE_URL)
    root = issuer.ask_sign_out(provider.slo_url, **changes)
    if slug == "eyeonwater":
        issuer.sign(root)
        form = {"SAMLRequest": encode(root), "RelayState": "state & more"}
        return elsewhere.post("/eyeonwater/saml/slo", data=form, base_url=BASE_URL)
    query = issuer.pack("SAMLRequest", root, relay_state="state & more")
    return elsewhere.get(f"/{slug}/saml/slo?{query}", base_url=BASE_URL)


def wrap(root: Any) -> bytes:
    envelope = etree.fromstring(f'<s:Envelope xmlns:s="{SOAP}"><s:Body/></s:Envelope>')
    envelope[0].append(root)
    return etree.tostring(envelope)


def read_answer(slug: str, answer: Any) -> tuple[Any, dict[str, str]]:
    """The partner's LogoutResponse and the fields beside it."""
    if slug == "sensus":
        assert answer.status_code == 200
        assert answer.mimetype == "text/xml"
        return etree.fromstring(answer.data).find(f"{{{SOAP}}}Body")[0], {}
    if slug == "eyeonwater":
        assert answer.status_code == 200
        fields = read_form(answer)
        return etree.fromstring(base64.b64decode(fields["SAMLResponse"])), fields
    assert answer.status_code == 302
    url, _, query = answer.location.partition("?")
    assert url == SLO
    fields = {name: values[0] for name, values in parse_qs(query).items()}
    return etree.fromstring(zlib.decompress(base64.b64decode(fields["SAMLResponse"]), -15)), fields


def read_form(answer: Any) -> dict[str, str]:
    found = re.findall(r'name="(\w+)" value="([^"]*)"', answer.get_data(as_text=True))
    return {name: unescape(value) for name, value in found}


def verify(root: Any, slug: str, provider: ServiceProvider) -> None:
    """The partner's own signature, by its certificate."""
    certificate = provider.state_dir / "keys" / f"{slug}-signing.cert.pem"
    again = etree.fromstring(etree.tostring(root))
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_file(str(certificate), xmlsec.constants.KeyDataFormatCertPem)
    context.register_id(again, "ID")
    context.verify(again.find("{*}Signature"))


@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_a_request_ends_the_session_without_its_cookie_and_is_answered_signed(
    slug: str, browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    sign_in(browser, slug, providers, issuer)
    root, fields = read_answer(slug, send(browser, slug, providers[slug], issuer))
    assert root.find(".//{*}StatusCode").get("Value") == SUCCESS
    assert root.findtext("{*}Issuer") == providers[slug].entity_id
    assert root.get("InResponseTo", "").startswith("_q")
    if slug in ("sensus", "eyeonwater"):
        verify(root, slug, providers[slug])
    else:
        assert {"Signature", "SigAlg"} <= set(fields)
    if slug != "sensus":
        assert root.get("Destination") == SLO
        assert fields["RelayState"] == "state & more"
    assert not is_signed_in(browser, slug)


@pytest.mark.parametrize(
    ("indexes", "stays"), [(("s-2", "s-1"), False), ((), False), (("s-2",), True)], ids=["listed", "all", "other"]
)
@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_a_request_ends_the_sessions_that_it_means(
    slug: str, indexes: tuple[str, ...], stays: bool, browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    sign_in(browser, slug, providers, issuer)
    send(browser, slug, providers[slug], issuer, indexes=indexes)
    assert is_signed_in(browser, slug) is stays


def test_another_payers_session_and_another_portals_go_on(
    app: Flask, browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    other = app.test_client()
    sign_in(browser, "aquahawk", providers, issuer)
    sign_in(browser, "my360", providers, issuer)
    sign_in(other, "aquahawk", providers, issuer, replace={"pairwise-1": "pairwise-2"})
    send(browser, "aquahawk", providers["aquahawk"], issuer)
    assert not is_signed_in(browser, "aquahawk")
    assert is_signed_in(browser, "my360")
    assert is_signed_in(other, "aquahawk")
    answer = send(browser, "aquahawk", providers["aquahawk"], issuer)
    root, _ = read_answer("aquahawk", answer)
    assert root.find(".//{*}StatusCode").get("Value") == SUCCESS, "nobody is signed in any more, as was asked for"


def _tell_times(changes: dict[str, str | int]) -> dict[str, str]:
    """Numbers are minutes from the moment at which the test runs, which may be long after it was collected."""
    now = datetime.now(UTC)
    return {
        name: value if isinstance(value, str) else (now + timedelta(minutes=value)).strftime("%Y-%m-%dT%H:%M:%SZ")
        for name, value in changes.items()
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"IssueInstant": -20},
        {"IssueInstant": 20},
        {"IssueInstant": "now"},
        {"NotOnOrAfter": -1},
        {"Destination": f"{BASE_URL}/my360/saml/slo/"},
        {"Version": "1.1"},
    ],
    ids=["old", "future", "no time", "past its end", "destination", "version"],
)
@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_a_request_for_another_time_or_address_is_refused(
    slug: str, changes: dict[str, str | int], browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    sign_in(browser, slug, providers, issuer)
    answer = send(browser, slug, providers[slug], issuer, **_tell_times(changes))
    assert answer.status_code == (500 if slug == "sensus" else 400)
    assert is_signed_in(browser, slug)


@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_a_request_signed_by_another_is_refused(
    slug: str, browser: FlaskClient, providers: Providers, issuer: Issuer, keys_dir: Path
) -> None:
    sign_in(browser, slug, providers, issuer)
    for attacker in (Issuer(keys_dir, key_name="attacker"), Issuer(keys_dir, entity_id="http://evil.example/")):
        assert send(browser, slug, providers[slug], attacker).status_code in (400, 500)
    assert is_signed_in(browser, slug)


def test_unsigned_requests_are_refused(browser: FlaskClient, providers: Providers, issuer: Issuer) -> None:
    for slug in SAML_PORTALS:
        sign_in(browser, slug, providers, issuer)
    asked = {slug: issuer.ask_sign_out(providers[slug].slo_url, **name_of(slug)) for slug in SAML_PORTALS}
    for slug in REDIRECTED:
        query = issuer.pack("SAMLRequest", asked[slug]).partition("&SigAlg=")[0]
        assert browser.get(f"/{slug}/saml/slo?{query}", base_url=BASE_URL).status_code == 400
    form = {"SAMLRequest": encode(asked["eyeonwater"])}
    assert browser.post("/eyeonwater/saml/slo", data=form, base_url=BASE_URL).status_code == 400
    envelope = wrap(issuer.ask_sign_out(providers["sensus"].soap_url))
    assert browser.post("/sensus/saml/slo/soap", data=envelope, base_url=BASE_URL).status_code == 500
    for slug in SAML_PORTALS:
        assert is_signed_in(browser, slug)


def test_a_query_that_was_changed_or_is_signed_with_sha_1_is_refused(
    browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    sign_in(browser, "aquahawk", providers, issuer)
    root = issuer.ask_sign_out(providers["aquahawk"].slo_url)
    query = issuer.pack("SAMLRequest", root, relay_state="one")
    weak = issuer.pack("SAMLRequest", root, algorithm=RSA_SHA1)
    for bad in (query.replace("RelayState=one", "RelayState=two"), query.replace("RelayState=one&", ""), weak):
        assert browser.get(f"/aquahawk/saml/slo?{bad}", base_url=BASE_URL).status_code == 400
    assert is_signed_in(browser, "aquahawk")


def _wrap_signature(root: Any) -> None:
    """A forged request around the signed one: the signature still verifies, over what is not read."""
    forged = etree.fromstring(etree.tostring(root))
    forged.set("ID", "_forged")
    forged.find("{*}NameID").text = "pairwise-2"
    etree.SubElement(forged, f"{{{SAMLP}}}Extensions").append(etree.fromstring(etree.tostring(root)))
    root.clear()
    root.tag = forged.tag
    root.attrib.update(forged.attrib)
    root.extend(list(forged))


def _comment_in_name(root: Any) -> None:
    name = root.find("{*}NameID")
    name.text, comment = "pairwise", etree.Comment("x")
    comment.tail = "-1"
    name.append(comment)


def _change_name(root: Any) -> None:
    root.find("{*}NameID").text = "pairwise-2"


@pytest.mark.parametrize("change", [_wrap_signature, _comment_in_name, _change_name])
def test_a_request_changed_after_signing_is_refused(
    change: Callable[[Any], None], browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    sign_in(browser, "sensus", providers, issuer, replace={"pairwise-1": "pairwise-2"})
    root = issuer.ask_sign_out(providers["sensus"].soap_url)
    issuer.sign(root)
    change(root)
    assert browser.post("/sensus/saml/slo/soap", data=wrap(root), base_url=BASE_URL).status_code == 500
    assert is_signed_in(browser, "sensus")


@pytest.mark.parametrize(
    ("method", "path", "data"),
    [
        ("GET", "/aquahawk/saml/slo", None),
        ("GET", "/aquahawk/saml/slo?SAMLRequest=%21", None),
        ("GET", "/aquahawk/saml/slo?SAMLRequest=AAAA", None),
        ("POST", "/aquahawk/saml/slo", {"SAMLRequest": "PGEvPg=="}),
        ("GET", "/eyeonwater/saml/slo", None),
        ("POST", "/eyeonwater/saml/slo", {"SAMLRequest": "PGEvPg=="}),
        ("POST", "/eyeonwater/saml/slo", {"SAMLResponse": ""}),
        ("POST", "/sensus/saml/slo/soap", b"<a/>"),
        ("POST", "/sensus/saml/slo/soap", b"\xff"),
        ("POST", "/sensus/saml/slo/soap", b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"/>'),
    ],
)
def test_what_is_no_message_is_refused(method: str, path: str, data: Any, browser: FlaskClient) -> None:
    answer = browser.open(path, method=method, data=data, base_url=BASE_URL)
    assert answer.status_code == (500 if path.endswith("soap") else 400)


def test_a_message_that_inflates_without_end_is_refused(browser: FlaskClient, issuer: Issuer) -> None:
    bomb = etree.Element("a")
    bomb.text = "x" * 5_000_000
    answer = browser.get(f"/aquahawk/saml/slo?{issuer.pack('SAMLRequest', bomb)}", base_url=BASE_URL)
    assert answer.status_code == 400
    assert "too large" in answer.get_data(as_text=True)


def test_only_one_portal_takes_messages_of_servers(browser: FlaskClient, providers: Providers) -> None:
    for slug in SAML_PORTALS:
        offered = b"bindings:SOAP" in providers[slug].build_metadata()
        assert offered is (slug == "sensus")
        status = browser.post(f"/{slug}/saml/slo/soap", base_url=BASE_URL).status_code
        assert status == (500 if offered else 404)


def test_the_answering_page_may_be_framed_by_the_utility_alone_and_leads_there(
    browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    answer = send(browser, "eyeonwater", providers["eyeonwater"], issuer)
    policy = answer.headers["Content-Security-Policy"]
    assert "frame-ancestors http://localhost:8000" in policy
    assert "form-action 'self' http://localhost:8000;" in policy
    assert "script-src 'sha256-" in policy
    assert "X-Frame-Options" not in answer.headers


def sign_out(browser: FlaskClient, slug: str) -> tuple[Any, Any, dict[str, str]]:
    """Press 'Sign out': the answer, the LogoutRequest, and the fields beside it."""
    answer = browser.post(f"/{slug}/sign-out", base_url=BASE_URL)
    if slug == "eyeonwater":
        assert answer.status_code == 200
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        fields = read_form(answer)
        return answer, etree.fromstring(base64.b64decode(fields["SAMLRequest"])), fields
    assert answer.status_code == 302
    url, _, query = answer.location.partition("?")
    assert url == SLO
    fields = {name: values[0] for name, values in parse_qs(query).items()}
    return answer, etree.fromstring(zlib.decompress(base64.b64decode(fields["SAMLRequest"]), -15)), fields


def bring(browser: FlaskClient, slug: str, issuer: Issuer, root: Any) -> Any:
    """Bring the utility's answer, signed, in the binding of the request."""
    if slug == "eyeonwater":
        issuer.sign(root)
        form = {"SAMLResponse": encode(root)}
        return browser.application.test_client().post("/eyeonwater/saml/slo", data=form, base_url=BASE_URL)
    return browser.get(f"/{slug}/saml/slo?{issuer.pack('SAMLResponse', root)}", base_url=BASE_URL)


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (["Success"], "signed out here and at your utility.<"),
        (["Success", "PartialLogout"], "Another portal did not confirm"),
        (["Responder", "PartialLogout"], "Another portal did not confirm"),
        (["Requester", "UnknownPrincipal"], "signed out here only"),
        (["Responder", "RequestDenied"], "signed out here only"),
    ],
    ids=["everywhere", "partly", "partly, top level", "nobody there", "denied"],
)
@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_signing_out_asks_the_utility_and_says_what_became_of_it(
    slug: str, codes: list[str], words: str, browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    sign_in(browser, slug, providers, issuer)
    _, asked, fields = sign_out(browser, slug)
    assert not is_signed_in(browser, slug), "here it has ended already"
    assert asked.find(f"{{{SAML}}}NameID").text == name_of(slug).get("name_id", "pairwise-1")
    assert asked.findtext("{*}SessionIndex") == "s-1"
    assert asked.get("Destination") == SLO
    if slug == "eyeonwater":
        verify(asked, slug, providers[slug])
    else:
        assert {"Signature", "SigAlg"} <= set(fields)
    answer = issuer.answer_sign_out(providers[slug].slo_url, asked.get("ID"), codes)
    page = bring(browser, slug, issuer, answer)
    assert page.status_code == 200
    assert words in page.get_data(as_text=True)
    again = issuer.answer_sign_out(providers[slug].slo_url, asked.get("ID"), codes)
    assert bring(browser, slug, issuer, again).status_code == 400, "the request has been answered"


@pytest.mark.parametrize(
    "changes",
    [
        {"InResponseTo": "_unknown"},
        {"Destination": f"{BASE_URL}/sensus/saml/slo/other"},
        {"IssueInstant": -20},
    ],
    ids=["request", "destination", "old"],
)
@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_an_answer_that_is_not_meant_for_the_request_is_refused(
    slug: str, changes: dict[str, str | int], browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    sign_in(browser, slug, providers, issuer)
    _, asked, _ = sign_out(browser, slug)
    answer = issuer.answer_sign_out(providers[slug].slo_url, asked.get("ID"), ["Success"], **_tell_times(changes))
    assert bring(browser, slug, issuer, answer).status_code == 400


@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_an_answer_that_is_not_signed_by_the_utility_is_refused(
    slug: str, browser: FlaskClient, providers: Providers, issuer: Issuer, keys_dir: Path
) -> None:
    sign_in(browser, slug, providers, issuer)
    _, asked, _ = sign_out(browser, slug)
    answer = issuer.answer_sign_out(providers[slug].slo_url, asked.get("ID"), ["Success"])
    if slug == "eyeonwater":
        unsigned = browser.post(f"/{slug}/saml/slo", data={"SAMLResponse": encode(answer)}, base_url=BASE_URL)
    else:
        query = issuer.pack("SAMLResponse", answer).partition("&SigAlg=")[0]
        unsigned = browser.get(f"/{slug}/saml/slo?{query}", base_url=BASE_URL)
    assert unsigned.status_code == 400
    assert bring(browser, slug, Issuer(keys_dir, key_name="attacker"), answer).status_code == 400


def test_signing_out_without_a_session_asks_nobody(browser: FlaskClient) -> None:
    answer = browser.post("/aquahawk/sign-out", base_url=BASE_URL)
    assert answer.status_code == 200
    assert "signed out here only" in answer.get_data(as_text=True)


def test_the_name_id_goes_back_with_its_qualifiers(browser: FlaskClient, providers: Providers, issuer: Issuer) -> None:
    qualified = f'<saml:NameID NameQualifier="{ISSUER}" SPNameQualifier="{providers["aquahawk"].entity_id}" Format'
    sign_in(browser, "aquahawk", providers, issuer, replace={"<saml:NameID Format": qualified})
    _, asked, _ = sign_out(browser, "aquahawk")
    name = asked.find(f"{{{SAML}}}NameID")
    assert (name.get("NameQualifier"), name.get("SPNameQualifier")) == (ISSUER, providers["aquahawk"].entity_id)
