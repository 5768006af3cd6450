"""Sign-out with service providers that are not ours, in both directions: pysaml2's client and python3-saml.

pysaml2 speaks all three bindings, signed with the real xmlsec1 program; python3-saml speaks Redirect alone. Both check
what they get, and the bridge what it gets, on the real clock.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from lxml import etree, html
from onelogin.saml2.auth import OneLogin_Saml2_Auth
from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT, BINDING_SOAP
from saml2.client import Saml2Client
from saml2.config import SPConfig
from saml2.saml import NameID
from saml2.sigver import CryptoBackendXmlSec1
from saml2.xmldsig import DIGEST_SHA1, DIGEST_SHA256, SIG_RSA_SHA1, SIG_RSA_SHA256

from saml_bridge.billers.own_metadata import IdentityProvider
from saml_bridge.flows.launch.launch import Launched
from saml_bridge.flows.logout.channel import GoTo, PostTo
from saml_bridge.flows.logout.outcomes import LegRecorded, SignedOut, Soap, Watch
from saml_bridge.flows.logout.progress import Step
from saml_bridge.model.errors import SignatureRefused
from saml_bridge.protocols.saml.bindings import receive_post, receive_redirect, receive_soap
from tests.sign_outs import (
    PERSISTENT,
    POST,
    REDIRECT,
    SLO,
    SOAP,
    TRACE,
    Town,
    build_town,
    close_town,
    entity_of,
    name_id_of,
    read_soap,
    serve,
)
from tests.world import BASE_URL, BILLER, KEYS

FRONT = "https://aquahawk.example.com/slo"
OURS = f"{BASE_URL}/saml/{BILLER}/metadata"
SIGN = {"sign_alg": SIG_RSA_SHA256, "digest_alg": DIGEST_SHA256}
BINDINGS = [BINDING_HTTP_REDIRECT, BINDING_HTTP_POST, BINDING_SOAP]
OpenTown = Callable[..., Town]


@pytest.fixture(autouse=True, scope="module")
def _know_the_version_of_xmlsec1() -> Iterator[None]:
    """pysaml2 starts the program several times a message only to ask it for its version."""
    version = CryptoBackendXmlSec1("/usr/bin/xmlsec1").version
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CryptoBackendXmlSec1, "version", version)
        yield


@pytest.fixture
def open_town(tmp_path: Path, database_url: str) -> Iterator[OpenTown]:
    towns: list[Town] = []

    def open_one(**partners: Any) -> Town:
        towns.append(build_town(tmp_path, database_url, **partners))
        towns[-1].remember("aquahawk")
        return towns[-1]

    yield open_one
    for town in towns:
        close_town(town)


def read_own_metadata(town: Town) -> str:
    provider = IdentityProvider(town.world.bridge.registry, base_url=BASE_URL)
    return provider.find_metadata(BILLER, now=datetime.now(UTC)).xml.decode()


def make_name_id() -> NameID:
    return NameID(
        text=name_id_of("aquahawk"),
        format=PERSISTENT,
        name_qualifier=OURS,
        sp_name_qualifier=entity_of("aquahawk"),
    )


def make_pysaml2(town: Town, *, location: str = FRONT) -> Saml2Client:
    """pysaml2 as Aquahawk, where the payer is signed in."""
    files = {"key_file": str(KEYS / "sp-signing.key.pem"), "cert_file": str(KEYS / "sp-signing.cert.pem")}
    config = {
        "entityid": entity_of("aquahawk"),
        "service": {
            "sp": {
                "endpoints": {
                    "assertion_consumer_service": [("https://aquahawk.example.com/saml/acs", BINDING_HTTP_POST)],
                    "single_logout_service": [(location, binding) for binding in BINDINGS],
                },
                "allow_unsolicited": True,
                "logout_requests_signed": True,
                "logout_responses_signed": True,
            }
        },
        "metadata": {"inline": [read_own_metadata(town)]},
        "xmlsec_binary": "/usr/bin/xmlsec1",
        "allow_unknown_attributes": True,
        **files,
    }
    client = Saml2Client(SPConfig().load(config))
    client.users.add_information_about_person(
        {"name_id": make_name_id(), "issuer": OURS, "not_on_or_after": int(time.time()) + 3600, "ava": {}}
    )
    return client


def bring(town: Town, binding: str, sent: dict[str, Any]) -> Any:
    """A message of pysaml2's in the form that the bridge gets."""
    if binding == BINDING_HTTP_REDIRECT:
        url = urlsplit(dict(sent["headers"])["Location"])
        assert f"{url.scheme}://{url.netloc}{url.path}" == SLO
        return town.sign_out.receive(BILLER, lambda: receive_redirect(url.query.encode()), trace_id=TRACE)
    if binding == BINDING_SOAP:
        body = sent["data"].encode() if isinstance(sent["data"], str) else sent["data"]
        return town.sign_out.receive(BILLER, lambda: receive_soap(body), trace_id=TRACE)
    data = sent["data"]
    [form] = html.fromstring("".join(data) if isinstance(data, list) else data).forms
    assert form.action == SLO
    fields = [(name, value) for name, value in form.fields.items() if name and value is not None]
    return town.sign_out.receive(BILLER, lambda: receive_post(fields), trace_id=TRACE)


def ask(
    town: Town,
    client: Saml2Client,
    binding: str,
    *,
    sign: bool = True,
    name_id: NameID | None = None,
    session_index: str = "_one",
    algorithms: dict[str, str] = SIGN,
) -> tuple[str, Any]:
    """pysaml2's request to sign out, and what the bridge makes of it."""
    request_id, request = client.create_logout_request(
        SLO,
        OURS,
        name_id=name_id or make_name_id(),
        session_indexes=[session_index],
        sign=sign and binding != BINDING_HTTP_REDIRECT,
        **algorithms,
    )
    sent = client.apply_binding(
        binding,
        str(request),
        SLO,
        "relay state",
        sign=sign and binding == BINDING_HTTP_REDIRECT,
        sigalg=algorithms["sign_alg"],
    )
    return request_id, bring(town, binding, sent)


def read_message(outcome: Any) -> tuple[str, dict[str, str]]:
    """Our message and what came beside it, in the form that pysaml2 wants."""
    if isinstance(outcome, Soap):
        return outcome.body.decode(), {}
    if isinstance(outcome, PostTo):
        fields = dict(outcome.reply.fields)
    else:
        assert isinstance(outcome, GoTo), outcome
        fields = dict(parse_qsl(urlsplit(outcome.url).query))
    return fields.get("SAMLResponse") or fields["SAMLRequest"], fields


SERVICES = [(REDIRECT, FRONT), (POST, FRONT)]


@pytest.mark.both_databases("logout")
@pytest.mark.parametrize("binding", BINDINGS)
def test_pysaml2_signs_out_and_takes_our_answer(open_town: OpenTown, binding: str) -> None:
    town = open_town(aquahawk=SERVICES)
    client = make_pysaml2(town)
    request_id, outcome = ask(town, client, binding)
    assert not town.list_open()
    message, fields = read_message(outcome)
    assert fields.get("RelayState") == (None if binding == BINDING_SOAP else "relay state")
    client.state[request_id] = {"entity_id": OURS, "name_id": make_name_id(), "operation": "SLO"}
    response = client.parse_logout_request_response(message, binding)
    assert response.status_ok()
    assert response.in_response_to == request_id
    assert response.issuer() == OURS


@pytest.mark.parametrize("binding", BINDINGS)
def test_l1_pysaml2_unsigned_is_refused_unless_it_may(open_town: OpenTown, binding: str) -> None:
    town = open_town(aquahawk=SERVICES)
    client = make_pysaml2(town)
    with pytest.raises(SignatureRefused):
        ask(town, client, binding, sign=False)
    assert town.list_open() == ["aquahawk"]
    town.world.partner["saml"]["allow_unsigned_logout"] = True
    town.world.publish()
    ask(town, client, binding, sign=False)
    assert not town.list_open()


@pytest.mark.parametrize("binding", BINDINGS)
def test_s6_pysaml2_signs_with_sha1_which_counts_as_unsigned(open_town: OpenTown, binding: str) -> None:
    """Its default, unless it is set otherwise."""
    town = open_town(aquahawk=SERVICES)
    client = make_pysaml2(town)
    sha1 = {"sign_alg": SIG_RSA_SHA1, "digest_alg": DIGEST_SHA1}
    with pytest.raises(SignatureRefused):
        ask(town, client, binding, algorithms=sha1)
    assert town.list_open() == ["aquahawk"]
    town.world.partner["saml"]["allow_unsigned_logout"] = True
    town.world.publish()
    ask(town, client, binding, algorithms=sha1)
    assert not town.list_open()


@pytest.mark.parametrize("binding", [BINDING_HTTP_REDIRECT, BINDING_HTTP_POST])
def test_pysaml2_is_signed_out_by_the_browser(open_town: OpenTown, binding: str) -> None:
    town = open_town(aquahawk=[(binding, FRONT)])
    client = make_pysaml2(town)
    watch = town.sign_out.sign_out_server(BILLER, sid="S-1", trace_id=TRACE)
    assert isinstance(watch, Watch)
    message, fields = read_message(town.sign_out.ask_partner(BILLER, watch.token, 0))
    sent = client.handle_logout_request(
        message,
        make_name_id(),
        binding,
        sign=True,
        relay_state=fields.get("RelayState"),
        sigalg=fields.get("SigAlg"),
        signature=fields.get("Signature"),
        **SIGN,
    )
    recorded = bring(town, binding, sent)
    assert isinstance(recorded, LegRecorded)
    assert recorded.leg.step is Step.DONE
    assert not town.list_open()
    assert not client.users.subjects()


def test_pysaml2_is_signed_out_by_its_server(open_town: OpenTown) -> None:
    client: list[Saml2Client] = []

    def behave(_: str, body: bytes) -> tuple[int, str, bytes]:
        sent = client[0].handle_logout_request(body.decode(), make_name_id(), BINDING_SOAP, sign=True, **SIGN)
        answer = sent["data"]
        return 200, "text/xml", answer.encode() if isinstance(answer, str) else answer

    with serve(behave) as server:
        location = f"{server.url}/soap"
        town = open_town(aquahawk=[(SOAP, location)])
        client.append(make_pysaml2(town, location=location))
        outcome = town.sign_out.sign_out_server(BILLER, sid="S-1", trace_id=TRACE)
    assert isinstance(outcome, SignedOut)
    assert outcome.progress is not None
    assert [(leg.step, leg.code) for leg in outcome.progress.legs] == [(Step.DONE, "")]
    assert read_soap(server.seen[0][1]).tag.endswith("}LogoutRequest")
    assert not client[0].users.subjects()


@pytest.mark.parametrize("name_id_format", ["persistent", "transient", "email"])
def test_pysaml2_signs_out_what_a_launch_has_begun(open_town: OpenTown, name_id_format: str) -> None:
    source = "payer.email" if name_id_format == "email" else "payer.id"
    settings = {"name_id": {"format": name_id_format, "from": source}}
    town = open_town(aquahawk=(SERVICES, settings), neptune=([(REDIRECT, "https://neptune.example.com/slo")], settings))
    client = make_pysaml2(town)
    session = town.world.session(sid="S-launched")
    for link in ("neptune", "aquahawk"):
        launched = town.world.launch(session, link=link)
    assert isinstance(launched, Launched)
    told = {"remote_addr": "192.0.2.1"}
    fields = dict(launched.reply.fields)
    read = client.parse_authn_request_response(fields["SAMLResponse"], BINDING_HTTP_POST, conv_info=told)
    assert read is not None
    assert town.list_open(sid="S-launched") == ["neptune", "aquahawk"]
    [statement] = read.assertion.authn_statement
    _, watch = ask(town, client, BINDING_HTTP_POST, name_id=read.name_id, session_index=statement.session_index)
    assert isinstance(watch, Watch)
    assert town.list_open(sid="S-launched") == ["neptune"]
    assert town.list_open() == ["aquahawk"], "another session of the same payer goes on"
    [leg] = watch.progress.legs
    assert leg.partner == "neptune"


# python3-saml


def make_python3_saml(town: Town, query: dict[str, str] | None = None, *, signed: bool = True) -> OneLogin_Saml2_Auth:
    """python3-saml as Aquahawk, at its SLO address with what the browser brings; at its strictest."""
    root = etree.fromstring(read_own_metadata(town).encode())
    certificate = root.findtext(".//{http://www.w3.org/2000/09/xmldsig#}X509Certificate")
    request = {
        "https": "on",
        "http_host": "aquahawk.example.com",
        "script_name": "/slo",
        "get_data": query or {},
        "post_data": {},
    }
    service = {"url": FRONT, "binding": REDIRECT}
    settings = {
        "strict": True,
        "sp": {
            "entityId": entity_of("aquahawk"),
            "assertionConsumerService": {"url": "https://aquahawk.example.com/saml/acs", "binding": POST},
            "singleLogoutService": service,
            "x509cert": (KEYS / "sp-signing.cert.pem").read_text(),
            "privateKey": (KEYS / "sp-signing.key.pem").read_text(),
        },
        "idp": {
            "entityId": OURS,
            "singleSignOnService": {"url": f"{BASE_URL}/saml/{BILLER}/sso", "binding": REDIRECT},
            "singleLogoutService": {"url": SLO, "binding": REDIRECT},
            "x509cert": certificate,
        },
        "security": {
            "logoutRequestSigned": signed,
            "logoutResponseSigned": signed,
            "wantMessagesSigned": True,
            "signatureAlgorithm": SIG_RSA_SHA256,
            "digestAlgorithm": DIGEST_SHA256,
            "rejectDeprecatedAlgorithm": True,
        },
    }
    return OneLogin_Saml2_Auth(request, settings)


def follow(town: Town, url: str) -> Any:
    query = urlsplit(url).query.encode()
    return town.sign_out.receive(BILLER, lambda: receive_redirect(query), trace_id=TRACE)


def start_python3_saml(town: Town, *, signed: bool = True) -> tuple[OneLogin_Saml2_Auth, str]:
    auth = make_python3_saml(town, signed=signed)
    url = auth.logout(
        return_to="https://aquahawk.example.com/bye",
        name_id=name_id_of("aquahawk"),
        session_index="_one",
        nq=OURS,
        name_id_format=PERSISTENT,
        spnq=entity_of("aquahawk"),
    )
    return auth, url


def test_python3_saml_signs_out_and_takes_our_answer(open_town: OpenTown) -> None:
    town = open_town(aquahawk=[(REDIRECT, FRONT)])
    asking, url = start_python3_saml(town)
    outcome = follow(town, url)
    assert isinstance(outcome, GoTo)
    fields = dict(parse_qsl(urlsplit(outcome.url).query))
    assert fields["RelayState"] == "https://aquahawk.example.com/bye"
    back = make_python3_saml(town, fields)
    back.process_slo(request_id=asking.get_last_request_id(), keep_local_session=True)
    assert (back.get_errors(), back.get_last_error_reason()) == ([], None)
    assert not town.list_open()


def test_l1_python3_saml_unsigned_is_refused_unless_it_may(open_town: OpenTown) -> None:
    town = open_town(aquahawk=[(REDIRECT, FRONT)])
    _, url = start_python3_saml(town, signed=False)
    with pytest.raises(SignatureRefused):
        follow(town, url)
    assert town.list_open() == ["aquahawk"]
    town.world.partner["saml"]["allow_unsigned_logout"] = True
    town.world.publish()
    assert isinstance(follow(town, url), GoTo)


def test_python3_saml_is_signed_out(open_town: OpenTown) -> None:
    town = open_town(aquahawk=[(REDIRECT, FRONT)])
    watch = town.sign_out.sign_out_server(BILLER, sid="S-1", trace_id=TRACE)
    assert isinstance(watch, Watch)
    outcome = town.sign_out.ask_partner(BILLER, watch.token, 0)
    assert isinstance(outcome, GoTo)
    there = make_python3_saml(town, dict(parse_qsl(urlsplit(outcome.url).query)))
    url = there.process_slo(keep_local_session=True)
    assert (there.get_errors(), there.get_last_error_reason()) == ([], None)
    recorded = follow(town, url)
    assert isinstance(recorded, LegRecorded)
    assert recorded.leg.step is Step.DONE
    assert not town.list_open()


def test_l8_python3_saml_is_told_of_a_partial_logout(open_town: OpenTown) -> None:
    town = open_town(aquahawk=[(REDIRECT, FRONT)], neptune=[])
    town.remember("neptune")
    asking, url = start_python3_saml(town)
    outcome = follow(town, url)
    assert isinstance(outcome, GoTo)
    fields = dict(parse_qsl(urlsplit(outcome.url).query))
    back = make_python3_saml(town, fields)
    back.process_slo(request_id=asking.get_last_request_id(), keep_local_session=True)
    assert back.get_errors() == []
    xml = etree.fromstring(back.get_last_response_xml())
    codes = [one.get("Value").rpartition(":")[2] for one in xml.iter("{*}StatusCode")]
    assert codes == ["Success", "PartialLogout"]


def test_a_message_in_base64_with_line_breaks_is_read(open_town: OpenTown) -> None:
    """Some toolkits break base64 into lines, as e-mail has it."""
    town = open_town(aquahawk=SERVICES)
    client = make_pysaml2(town)
    _, request = client.create_logout_request(
        SLO, OURS, name_id=make_name_id(), session_indexes=["_one"], sign=True, **SIGN
    )
    broken = base64.encodebytes(str(request).encode()).decode().replace("\n", "\r\n")
    town.sign_out.receive(BILLER, lambda: receive_post([("SAMLRequest", broken)]), trace_id=TRACE)
    assert not town.list_open()
