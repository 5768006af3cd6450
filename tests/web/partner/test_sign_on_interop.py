"""Sign-on that starts at service providers which are not ours, the whole circle over HTTP, and sign-out after it.

The two are python3-saml in strict mode and pysaml2's client with the real xmlsec1 program. Each is registered here by
the metadata that it makes of itself, and knows of us nothing but the metadata that we serve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from lxml import html
from onelogin.saml2.auth import OneLogin_Saml2_Auth
from onelogin.saml2.idp_metadata_parser import OneLogin_Saml2_IdPMetadataParser
from onelogin.saml2.settings import OneLogin_Saml2_Settings
from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT
from saml2.client import Saml2Client
from saml2.config import SPConfig
from saml2.metadata import create_metadata_string
from saml2.saml import NameID
from saml2.xmldsig import DIGEST_SHA256, SIG_RSA_SHA256
from werkzeug.test import TestResponse

from tests.web.conftest import Browser
from tests.world import BASE_URL, BILLER, KEYS, SP_ACS, SP_ENTITY_ID

SLO = "https://sp.example.com/saml/slo"
DEEP = "https://sp.example.com/usage?days=14"
KEY, CERTIFICATE = str(KEYS / "sp-signing.key.pem"), str(KEYS / "sp-signing.cert.pem")


class Refused(Exception):
    """The service provider does not take a message; its own words."""


@dataclass(frozen=True)
class Asked:
    """A request as the browser brings it: to a URL, with these fields of a form if there are any."""

    id: str
    url: str
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Read:
    """What a service provider got out of a response."""

    name_id: str
    name_id_format: str
    qualifiers: tuple[str | None, str | None]
    session_index: str
    attributes: dict[str, list[str]]


class ServiceProvider(Protocol):
    """`take` and the two of sign-out raise Refused."""

    def __init__(self, *, signs: bool) -> None: ...
    def describe(self) -> bytes: ...
    def meet(self, idp_metadata: bytes) -> None: ...
    def ask(self, binding: str, *, force: bool = False, passive: bool = False) -> Asked: ...
    def take(self, fields: dict[str, str], request_id: str) -> Read: ...
    def ask_sign_out(self, read: Read) -> Asked: ...
    def take_sign_out_answer(self, query: dict[str, str], request_id: str) -> None: ...
    def answer_sign_out(self, query: dict[str, str]) -> str: ...


class Python3Saml:
    """Its requests go by Redirect alone."""

    def __init__(self, *, signs: bool) -> None:
        self._settings: dict[str, Any] = {
            "strict": True,
            "sp": {
                "entityId": SP_ENTITY_ID,
                "assertionConsumerService": {"url": SP_ACS, "binding": BINDING_HTTP_POST},
                "singleLogoutService": {"url": SLO, "binding": BINDING_HTTP_REDIRECT},
                "x509cert": (KEYS / "sp-signing.cert.pem").read_text(),
                "privateKey": (KEYS / "sp-signing.key.pem").read_text(),
            },
            "security": {
                "authnRequestsSigned": signs,
                "logoutRequestSigned": True,
                "logoutResponseSigned": True,
                "wantMessagesSigned": True,
                "wantAssertionsSigned": True,
                "wantNameId": True,
                "rejectDeprecatedAlgorithm": True,
                "signatureAlgorithm": SIG_RSA_SHA256,
                "digestAlgorithm": DIGEST_SHA256,
            },
        }

    def describe(self) -> bytes:
        settings = OneLogin_Saml2_Settings(self._settings, sp_validation_only=True)
        metadata = settings.get_sp_metadata()
        return metadata if isinstance(metadata, bytes) else metadata.encode()

    def meet(self, idp_metadata: bytes) -> None:
        self._settings |= {"idp": OneLogin_Saml2_IdPMetadataParser.parse(idp_metadata)["idp"]}

    def ask(self, binding: str, *, force: bool = False, passive: bool = False) -> Asked:
        assert binding == BINDING_HTTP_REDIRECT
        auth = self._start({})
        url = auth.login(return_to=DEEP, force_authn=force, is_passive=passive)
        return Asked(auth.get_last_request_id(), url)

    def take(self, fields: dict[str, str], request_id: str) -> Read:
        auth = self._start({"post_data": fields, "script_name": urlsplit(SP_ACS).path})
        auth.process_response(request_id=request_id)
        self._check(auth)
        return Read(
            auth.get_nameid(),
            auth.get_nameid_format(),
            (auth.get_nameid_nq(), auth.get_nameid_spnq()),
            auth.get_session_index(),
            auth.get_attributes(),
        )

    def ask_sign_out(self, read: Read) -> Asked:
        auth = self._start({})
        url = auth.logout(
            name_id=read.name_id,
            session_index=read.session_index,
            nq=read.qualifiers[0],
            spnq=read.qualifiers[1],
            name_id_format=read.name_id_format,
        )
        return Asked(auth.get_last_request_id(), url)

    def take_sign_out_answer(self, query: dict[str, str], request_id: str) -> None:
        auth = self._start({"get_data": query, "script_name": urlsplit(SLO).path})
        auth.process_slo(keep_local_session=True, request_id=request_id)
        self._check(auth)

    def answer_sign_out(self, query: dict[str, str]) -> str:
        auth = self._start({"get_data": query, "script_name": urlsplit(SLO).path})
        url: str = auth.process_slo(keep_local_session=True)
        self._check(auth)
        return url

    def _start(self, request: dict[str, Any]) -> OneLogin_Saml2_Auth:
        base = {"https": "on", "http_host": "sp.example.com", "script_name": "/", "get_data": {}, "post_data": {}}
        return OneLogin_Saml2_Auth({**base, **request}, old_settings=self._settings)

    @staticmethod
    def _check(auth: OneLogin_Saml2_Auth) -> None:
        if auth.get_errors():
            raise Refused(f"{auth.get_errors()} {auth.get_last_error_reason()}")


class PySaml2:
    """Its client, with its own backend."""

    _client: Saml2Client

    def __init__(self, *, signs: bool) -> None:
        self._config: dict[str, Any] = {
            "entityid": SP_ENTITY_ID,
            "key_file": KEY,
            "cert_file": CERTIFICATE,
            "xmlsec_binary": "/usr/bin/xmlsec1",
            "only_use_keys_in_metadata": True,
            "service": {
                "sp": {
                    "endpoints": {
                        "assertion_consumer_service": [(SP_ACS, BINDING_HTTP_POST)],
                        "single_logout_service": [(SLO, BINDING_HTTP_REDIRECT)],
                    },
                    "allow_unsolicited": False,
                    "authn_requests_signed": signs,
                    "logout_requests_signed": True,
                    "logout_responses_signed": True,
                    "want_assertions_signed": True,
                    "want_response_signed": True,
                    "signing_algorithm": SIG_RSA_SHA256,
                    "digest_algorithm": DIGEST_SHA256,
                }
            },
        }
        self._signs = signs

    def describe(self) -> bytes:
        metadata: bytes = create_metadata_string(None, config=SPConfig().load(self._config))
        return metadata

    def meet(self, idp_metadata: bytes) -> None:
        self._client = Saml2Client(SPConfig().load({**self._config, "metadata": {"inline": [idp_metadata.decode()]}}))

    def ask(self, binding: str, *, force: bool = False, passive: bool = False) -> Asked:
        options = {name: "true" for name, wanted in (("force_authn", force), ("is_passive", passive)) if wanted}
        request_id, sent = self._client.prepare_for_authenticate(
            relay_state=DEEP, binding=binding, sign=self._signs, sigalg=SIG_RSA_SHA256, **options
        )
        if binding == BINDING_HTTP_REDIRECT:
            return Asked(request_id, dict(sent["headers"])["Location"])
        [form] = html.fromstring(sent["data"]).forms
        return Asked(request_id, form.action, {name: value for name, value in form.fields.items() if name})

    def take(self, fields: dict[str, str], request_id: str) -> Read:
        outstanding = {request_id: "/"}
        response = self._try(
            lambda: self._client.parse_authn_request_response(fields["SAMLResponse"], BINDING_HTTP_POST, outstanding)
        )
        if response is None:
            raise Refused("no response")
        [statement] = response.assertion.attribute_statement
        return Read(
            response.name_id.text,
            response.name_id.format,
            (response.name_id.name_qualifier, response.name_id.sp_name_qualifier),
            response.assertion.authn_statement[0].session_index,
            {one.name: [value.text for value in one.attribute_value] for one in statement.attribute},
        )

    def ask_sign_out(self, read: Read) -> Asked:
        binding, url = self._client.pick_binding(
            "single_logout_service", [BINDING_HTTP_REDIRECT], "idpsso", entity_id=self._find_idp()
        )
        name_id = NameID(
            text=read.name_id,
            format=read.name_id_format,
            name_qualifier=read.qualifiers[0],
            sp_name_qualifier=read.qualifiers[1],
        )
        request_id, request = self._client.create_logout_request(
            url, self._find_idp(), name_id=name_id, session_indexes=[read.session_index], sign=False
        )
        sent = self._client.apply_binding(binding, str(request), url, sign=True, sigalg=SIG_RSA_SHA256)
        return Asked(request_id, dict(sent["headers"])["Location"])

    def take_sign_out_answer(self, query: dict[str, str], request_id: str) -> None:
        answer = self._try(
            lambda: self._client.parse_logout_request_response(query["SAMLResponse"], BINDING_HTTP_REDIRECT)
        )
        if answer is None or answer.in_response_to != request_id:
            raise Refused("no answer to this request")

    def answer_sign_out(self, query: dict[str, str]) -> str:
        request = self._try(
            lambda: self._client.parse_logout_request(
                query["SAMLRequest"],
                BINDING_HTTP_REDIRECT,
                relay_state=query.get("RelayState"),
                sigalg=query["SigAlg"],
                signature=query["Signature"],
            )
        ).message
        response = self._client.create_logout_response(request, [BINDING_HTTP_REDIRECT], sign=False)
        sent = self._client.apply_binding(
            BINDING_HTTP_REDIRECT,
            str(response),
            self._client.response_args(request, [BINDING_HTTP_REDIRECT])["destination"],
            query.get("RelayState", ""),
            response=True,
            sign=True,
            sigalg=SIG_RSA_SHA256,
        )
        return str(dict(sent["headers"])["Location"])

    def _find_idp(self) -> str:
        [entity_id] = self._client.metadata.with_descriptor("idpsso")
        return str(entity_id)

    @staticmethod
    def _try(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            raise Refused(repr(error)) from error


KINDS: dict[str, type[ServiceProvider]] = {"python3-saml": Python3Saml, "pysaml2": PySaml2}
SENDING = pytest.mark.parametrize(
    ("kind", "binding"),
    [
        ("python3-saml", BINDING_HTTP_REDIRECT),
        ("pysaml2", BINDING_HTTP_REDIRECT),
        ("pysaml2", BINDING_HTTP_POST),
    ],
    ids=["python3-saml by redirect", "pysaml2 by redirect", "pysaml2 by post"],
)


def register(browser: Browser, kind: str, *, signs: bool = True, **settings: Any) -> ServiceProvider:
    """Exchange metadata: theirs as they make it, ours as we serve it."""
    provider = KINDS[kind](signs=signs)
    (browser.world.folder / "sp.xml").write_bytes(provider.describe())
    browser.world.partner["saml"].update(settings)
    browser.world.publish()
    provider.meet(browser.get(f"/saml/{BILLER}/metadata").data)
    return provider


def bring(browser: Browser, asked: Asked) -> TestResponse:
    """The browser brings a message to us from another site, and goes on by itself where we send it back to us."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    path = asked.url.removeprefix(BASE_URL)
    assert path.startswith(f"/saml/{BILLER}/")
    if asked.fields:
        answer = browser.client.post(path, data=asked.fields, base_url=BASE_URL, headers=headers)
        assert answer.status_code == 303, answer.text
        path = answer.headers["Location"].removeprefix(BASE_URL)
    return browser.client.get(path, base_url=BASE_URL, headers=headers)


def read_form(answer: TestResponse) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    [form] = html.fromstring(answer.text).forms
    assert form.action == SP_ACS
    return {name: value for name, value in form.fields.items() if name}


def read_query(answer: TestResponse) -> dict[str, str]:
    """The message that a redirect to the service provider's sign-out address carries."""
    assert answer.status_code == 303, answer.text
    url = answer.headers["Location"]
    assert url.startswith(f"{SLO}?")
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


@pytest.mark.both_databases("saml sign-on")
@pytest.mark.parametrize("signs", [True, False], ids=["signed", "unsigned"])
@SENDING
def test_the_response_is_taken_as_the_answer_to_the_request(
    browser: Browser, kind: str, binding: str, signs: bool
) -> None:
    provider = register(browser, kind, signs=signs)
    browser.sign_in()
    asked = provider.ask(binding)
    fields = read_form(bring(browser, asked))
    assert fields["RelayState"] == DEEP
    read = provider.take(fields, asked.id)
    assert read.attributes["accountNumber"] == ["123456"]
    assert read.name_id
    assert read.session_index


@SENDING
def test_the_response_counts_for_that_request_alone(browser: Browser, kind: str, binding: str) -> None:
    provider = register(browser, kind)
    browser.sign_in()
    first, second = provider.ask(binding), provider.ask(binding)
    fields = read_form(bring(browser, first))
    with pytest.raises(Refused):
        provider.take(fields, second.id)
    assert provider.take(fields, first.id).name_id


@SENDING
def test_a_payer_who_is_not_signed_in_comes_back_to_the_very_request(browser: Browser, kind: str, binding: str) -> None:
    provider = register(browser, kind)
    asked = provider.ask(binding)
    answer = bring(browser, asked)
    assert answer.status_code == 303
    [back] = parse_qs(urlsplit(answer.headers["Location"]).query)["next"]
    browser.sign_in()
    fields = read_form(browser.get(back.removeprefix(BASE_URL), Sec_Fetch_Site="cross-site"))
    assert provider.take(fields, asked.id).attributes["accountNumber"] == ["123456"]
    assert fields["RelayState"] == DEEP


@SENDING
def test_a_passive_request_without_a_session_is_answered_and_understood(
    browser: Browser, kind: str, binding: str
) -> None:
    provider = register(browser, kind)
    asked = provider.ask(binding, passive=True)
    fields = read_form(bring(browser, asked))
    with pytest.raises(Refused, match="NoPassive"):
        provider.take(fields, asked.id)


@SENDING
def test_a_forced_sign_in_is_waited_for(browser: Browser, kind: str, binding: str) -> None:
    provider = register(browser, kind)
    browser.sign_in(auth_time=1_700_000_000)
    asked = provider.ask(binding, force=True)
    answer = bring(browser, asked)
    assert answer.status_code == 303
    query = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert query["prompt"] == ["login"]
    browser.sign_in()
    fields = read_form(browser.get(query["next"][0].removeprefix(BASE_URL), Sec_Fetch_Site="cross-site"))
    assert provider.take(fields, asked.id).name_id


@pytest.mark.parametrize("name_id_format", ["persistent", "email", "transient", "unspecified"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_it_began_it_can_end(browser: Browser, kind: str, name_id_format: str) -> None:
    """Sign-on and sign-out as one: the name ID, its qualifiers and the index go back as they came."""
    source = "payer.email" if name_id_format == "email" else "payer.id"
    requested = {"name_id": {"format": name_id_format, "from": source}}
    provider = register(browser, kind, **requested)
    browser.sign_in()
    asked = provider.ask(BINDING_HTTP_REDIRECT)
    read = provider.take(read_form(bring(browser, asked)), asked.id)
    ending = provider.ask_sign_out(read)
    provider.take_sign_out_answer(read_query(bring(browser, ending)), ending.id)
    again = provider.ask_sign_out(read)
    with pytest.raises(Refused):
        provider.take_sign_out_answer(read_query(bring(browser, again)), again.id)


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_began_the_portal_can_end(browser: Browser, kind: str) -> None:
    provider = register(browser, kind)
    browser.sign_in()
    asked = provider.ask(BINDING_HTTP_REDIRECT)
    provider.take(read_form(bring(browser, asked)), asked.id)
    begun = browser.get(f"/logout/{BILLER}", Sec_Fetch_Site="same-site", Sec_Fetch_Dest="document")
    page = begun.headers["Location"].removeprefix(BASE_URL)
    query = read_query(browser.get(f"{page}/ask/0", Sec_Fetch_Dest="iframe"))
    answer = provider.answer_sign_out(query).removeprefix(BASE_URL)
    assert browser.get(answer, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="iframe").status_code == 200
    done = browser.get(f"{page}/end", Sec_Fetch_Dest="document").text
    assert "AquaHawk" in done
    assert "not everywhere" not in done
