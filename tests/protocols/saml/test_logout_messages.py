"""Sign-out messages: every file of the corpus by its verdict.

The built ones are read by others.
"""

from __future__ import annotations

import base64
import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from saml2 import samlp

from saml_bridge.model.errors import BridgeError, RequestRefused, SignatureRefused, XmlRefused
from saml_bridge.protocols.saml.bindings import (
    POST_BINDING,
    REDIRECT_BINDING,
    SOAP_BINDING,
    MessageName,
    ReceivedMessage,
)
from saml_bridge.protocols.saml.logout_messages import (
    LONGEST_SESSION_INDEX,
    MOST_SESSION_INDEXES,
    LogoutRequest,
    build_logout_request,
    build_logout_response,
    check_logout_request,
    parse_logout_request,
    parse_logout_response,
    verify_logout,
)
from saml_bridge.protocols.saml.message import NameIdValue
from saml_bridge.protocols.saml.metadata.service_provider import Endpoint, SpMetadata
from saml_bridge.protocols.saml.status import PARTIAL_LOGOUT, REQUESTER, SUCCESS, UNKNOWN_PRINCIPAL
from saml_bridge.protocols.saml.xml.certificates import Certificate, parse_certificate
from saml_bridge.protocols.saml.xml.instants import parse_instant
from saml_bridge.protocols.saml.xml.names import DS
from saml_bridge.protocols.saml.xml.parse import list_schema_errors
from saml_bridge.protocols.saml.xml.sign import prepare_signer
from saml_bridge.protocols.saml.xml.verify import MESSAGE_PROFILE, is_signed, verify_enveloped
from tests.protocols.saml.corpus import CLOCK, CORPUS, read_pin
from tests.protocols.saml.issuing import load_key
from tests.work import MOST_CALLS, counting_work

SLO = "https://idp.example.com/saml/slo"
SP1 = "https://sp.example.com/saml/metadata"
SP2 = "https://sp2.example.com/saml/metadata"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
NAME_ID = NameIdValue("8f2c", PERSISTENT, "https://idp.example.com/", SP1)


@dataclass(frozen=True)
class Row:
    """One row of the corpus' index."""

    path: str
    verdict: str
    why: str

    @property
    def data(self) -> bytes:
        return (CORPUS / self.path).read_bytes()

    @property
    def name(self) -> str:
        return self.path.removeprefix("logout-requests/").removesuffix(".xml")

    @property
    def is_real(self) -> bool:
        return "/real-" in self.path


def read_rows() -> list[Row]:
    with (CORPUS / "index.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [
            Row(row["path"], row["verdict"], row["why"]) for row in rows if row["path"].startswith("logout-requests/")
        ]


ROWS = read_rows()
GOOD = [row for row in ROWS if row.verdict == "accept"]
BAD = [row for row in ROWS if row.verdict == "reject"]


def make_metadata(entity_id: str, *certificates: Certificate) -> SpMetadata:
    return SpMetadata(
        entity_id=entity_id, acs=(Endpoint(POST_BINDING, "https://sp.example.com/acs"),), certificates=certificates
    )


PARTNERS = {
    SP1: make_metadata(SP1, read_pin("sp-signing"), read_pin("sp-encryption")),
    SP2: make_metadata(SP2, read_pin("ec-p256")),
}


def receive(data: bytes, *, name: MessageName = "SAMLRequest", binding: str = POST_BINDING) -> ReceivedMessage:
    return ReceivedMessage(name, binding, data, None, None)


def decrypt_anything(_: etree._Element) -> bytes:
    return f'<saml:NameID xmlns:saml="{SAML}" Format="{PERSISTENT}">decrypted</saml:NameID>'.encode()


def take(row: Row, *, may_be_unsigned: bool = False) -> LogoutRequest:
    """All checks of one file in the context that the corpus gives it.

    A real one may lack a signature.
    """
    request = parse_logout_request(receive(row.data), decrypt=decrypt_anything if row.is_real else None)
    if row.is_real:
        now = request.head.issued_at + timedelta(seconds=30)
        partner = make_metadata(request.issuer, *read_embedded(request.root))
        endpoint = request.head.destination or SLO
        allow_unsigned = may_be_unsigned or not is_signed(request.root)
    else:
        now, endpoint, allow_unsigned = CLOCK, SLO, False
        if request.issuer not in PARTNERS:
            raise RequestRefused("unknown issuer", code="issuer-unknown")
        partner = PARTNERS[request.issuer]
    signed = verify_logout(request, partner, allow_unsigned=allow_unsigned)
    check_logout_request(request, now=now, endpoint=endpoint, signed=signed)
    return request


def read_embedded(root: etree._Element) -> list[Certificate]:
    found = root.findall(f".//{{{DS}}}X509Certificate")
    return [parse_certificate(base64.b64decode("".join((one.text or "").split()))) for one in found]


def test_the_corpus_is_whole() -> None:
    files = {str(path.relative_to(CORPUS)) for path in (CORPUS / "logout-requests").rglob("*") if path.is_file()}
    assert files == {row.path for row in ROWS}
    assert (len(GOOD), len(BAD)) == (16, 33)


EXPECTED = {
    "destination-sso-endpoint": "request-destination",
    "empty": "xml-empty",
    "entity-billion-laughs": "xml-doctype",
    "issueinstant-future": "request-from-future",
    "issueinstant-old": "request-expired",
    "issuer-unknown": "issuer-unknown",
    "nameid-comment-injected-after-signing": "xml-value-not-text",
    "nameid-comment": "xml-value-not-text",
    "notonorafter-passed": "request-expired",
    "real-node-saml-bad-signature": "signature-algorithm",
    "real-node-saml-encrypted-nameid": "request-schema",
    "real-node-saml-good-signature": "signature-algorithm",
    "real-node-saml-session-index": "signature-algorithm",
    "real-python3-saml-no-nameid": "request-schema",
    "real-ruby-saml-invalid": "request-schema",
    "root-logoutresponse": "request-kind",
    "sessionindex-1000": "xml-too-large",
    "sessionindex-comment": "xml-value-not-text",
    "sig-by-attacker-keyinfo": "signature-invalid",
    "sig-hmac-cert-pem": "signature-algorithm",
    "sig-reference-empty-uri": "signature-structure",
    "sig-reference-file": "signature-structure",
    "sig-rsa-md5": "signature-algorithm",
    "sig-rsa-sha1": "signature-algorithm",
    "sig-sessionindex-removed": "signature-invalid",
    "sig-tampered-sessionindex": "signature-invalid",
    "unsigned": "signature-missing",
    "version-1.1": "request-version",
    "xsw2-signature-on-evil-root": "request-schema",
    "xsw3-duplicate-id": "xml-duplicate-id",
    "xsw4-original-in-object": "signature-structure",
    "xsw5-schema-valid-original-wrapped": "signature-structure",
    "xsw6-schema-valid-signature-on-evil-root": "signature-structure",
}


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row.name)
def test_good_requests_are_taken(row: Row) -> None:
    request = take(row)
    ids = etree.fromstring(row.data).xpath("//saml:NameID/text()", namespaces={"saml": SAML})
    assert [request.name_id.value] == (ids or ["decrypted"])
    indexes = etree.fromstring(row.data).xpath("//samlp:SessionIndex/text()", namespaces={"samlp": SAMLP})
    assert list(request.session_indexes) == indexes


@pytest.mark.parametrize("row", BAD, ids=lambda row: row.name)
def test_l1_l2_l3_l4_bad_requests_are_refused_at_once(row: Row) -> None:
    with pytest.raises((RequestRefused, SignatureRefused, XmlRefused)) as caught, counting_work() as work:
        take(row)
    assert work.calls < MOST_CALLS
    assert caught.value.http_status == 400
    assert EXPECTED[row.name.removeprefix("bad/")] == caught.value.code
    assert "/etc" not in caught.value.diagnosis()


@pytest.mark.parametrize("name", ["good-signature", "bad-signature", "session-index"])
def test_s6_a_real_request_that_is_signed_with_sha1_counts_as_unsigned(name: str) -> None:
    row = next(one for one in BAD if one.name == f"bad/real-node-saml-{name}")
    assert take(row, may_be_unsigned=True).name_id.value


# What a request may hold


def make_request(
    *, body: str = "<saml:NameID>ada</saml:NameID>", attributes: str = "", issuer: str = SP1
) -> LogoutRequest:
    xml = f"""<samlp:LogoutRequest xmlns:samlp="{SAMLP}" xmlns:saml="{SAML}" ID="_1" Version="2.0"
        IssueInstant="2026-01-15T12:00:00Z" Destination="{SLO}" {attributes}><saml:Issuer>{issuer}</saml:Issuer>{body}
        </samlp:LogoutRequest>"""
    return parse_logout_request(receive(xml.encode()))


def test_l3_a_name_id_is_taken_as_it_stands() -> None:
    name_id = make_request(body=f'<saml:NameID Format="{PERSISTENT}" SPNameQualifier="q"> Ada </saml:NameID>').name_id
    assert (name_id.value, name_id.format, name_id.sp_name_qualifier) == (" Ada ", PERSISTENT, "q")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("<saml:NameID/>", "request-subject"),
        ("<saml:NameID>a<!-- -->b</saml:NameID>", "xml-value-not-text"),
        ("<saml:NameID>a</saml:NameID><saml:NameID>b</saml:NameID>", "request-schema"),
        (f"<saml:NameID>{'a' * 1025}</saml:NameID>", "request-subject"),
        ("<saml:NameID>a</saml:NameID><samlp:SessionIndex/>", "request-session-index"),
        ("<saml:NameID>a</saml:NameID><samlp:SessionIndex>_<!-- -->1</samlp:SessionIndex>", "xml-value-not-text"),
        (
            f"<saml:NameID>a</saml:NameID><samlp:SessionIndex>{'1' * 257}</samlp:SessionIndex>",
            "request-session-index",
        ),
        ("<saml:NameID>a</saml:NameID>" + "<samlp:SessionIndex>1</samlp:SessionIndex>" * 101, "request-session-index"),
    ],
)
def test_l3_l4_what_names_a_session_unclearly_is_refused(body: str, code: str) -> None:
    with pytest.raises((RequestRefused, XmlRefused)) as caught:
        make_request(body=body)
    assert caught.value.code == code


def test_as_many_sessions_as_are_accepted() -> None:
    one = f"<samlp:SessionIndex>{'1' * LONGEST_SESSION_INDEX}</samlp:SessionIndex>"
    request = make_request(body="<saml:NameID>a</saml:NameID>" + one * MOST_SESSION_INDEXES)
    assert len(request.session_indexes) == MOST_SESSION_INDEXES


def test_an_encrypted_name_id_is_refused_unless_it_can_be_opened() -> None:
    [row] = [row for row in GOOD if row.name == "good/real-ruby-saml-encrypted-nameid"]
    with pytest.raises(RequestRefused) as caught:
        parse_logout_request(receive(row.data))
    assert caught.value.code == "request-subject-encrypted"
    assert "NameID in the clear" in caught.value.detail
    for inner, code in ((b"<NameID>a</NameID>", "request-subject"), (b"<a", "xml-malformed")):
        with pytest.raises((RequestRefused, XmlRefused)) as caught_again:
            parse_logout_request(receive(row.data), decrypt=lambda _, inner=inner: inner)  # type: ignore[misc]
        assert caught_again.value.code == code


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ("2026-01-15T11:58:00Z", "request-expired"),
        ("2026-01-15T11:58:00.001Z", None),
        ("2026-01-15T12:05:00Z", None),
        ("2026-01-15T07:00:00-05:00", None),
        ("0001-01-01T00:00:00+14:00", "request-expired"),
        ("9999-12-31T23:59:59-14:00", None),
    ],
)
def test_l2_not_on_or_after_ends_a_request(ends: str, code: str | None) -> None:
    request = make_request(attributes=f'NotOnOrAfter="{ends}"')
    assert request.not_on_or_after == parse_instant(ends)
    if code is None:
        check_logout_request(request, now=CLOCK, endpoint=SLO, signed=True)
        return
    with pytest.raises(RequestRefused, match="good until") as caught:
        check_logout_request(request, now=CLOCK, endpoint=SLO, signed=True)
    assert caught.value.code == code


@pytest.mark.parametrize("binding", [REDIRECT_BINDING, POST_BINDING, SOAP_BINDING])
def test_l1_unsigned_only_where_the_partner_may(binding: str) -> None:
    xml = etree.tostring(make_request().root)
    request = parse_logout_request(receive(xml, binding=binding))
    with pytest.raises(SignatureRefused) as caught:
        verify_logout(request, PARTNERS[SP1], allow_unsigned=False)
    assert caught.value.code == "signature-missing"
    assert verify_logout(request, PARTNERS[SP1], allow_unsigned=True) is False


def test_l1_a_broken_signature_is_refused_even_where_none_is_needed() -> None:
    [row] = [row for row in BAD if row.name == "bad/sig-tampered-sessionindex"]
    request = parse_logout_request(receive(row.data))
    with pytest.raises(SignatureRefused) as caught:
        verify_logout(request, PARTNERS[SP1], allow_unsigned=True)
    assert caught.value.code == "signature-invalid"


def test_s4_the_key_of_another_partner_signs_nobody_out() -> None:
    [row] = [row for row in GOOD if row.name == "good/signed-rsa-sha256"]
    request = parse_logout_request(receive(row.data))
    assert verify_logout(request, PARTNERS[SP1], allow_unsigned=False) is True
    with pytest.raises(SignatureRefused):
        verify_logout(request, make_metadata(SP1, read_pin("ec-p256")), allow_unsigned=False)
    with pytest.raises(SignatureRefused):
        verify_logout(request, PARTNERS[SP2], allow_unsigned=False)


@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    for parse, name in ((parse_logout_request, "SAMLRequest"), (parse_logout_response, "SAMLResponse")):
        with pytest.raises(BridgeError):
            parse(receive(data, name=name))  # type: ignore[operator]  # two functions of one shape


GOOD_XML = (CORPUS / "logout-requests/good/signed-rsa-sha256.xml").read_bytes()


@given(st.integers(0, len(GOOD_XML) - 1), st.integers(1, 255))
def test_s18_no_changed_byte_is_taken_unless_it_changes_nothing(place: int, change: int) -> None:
    mutant = bytearray(GOOD_XML)
    mutant[place] ^= change
    original = parse_logout_request(receive(GOOD_XML))
    try:
        request = parse_logout_request(receive(bytes(mutant)))
        verify_logout(request, PARTNERS[SP1], allow_unsigned=False)
    except BridgeError:
        return
    assert (request.head, request.name_id, request.session_indexes, request.not_on_or_after) == (
        original.head,
        original.name_id,
        original.session_indexes,
        original.not_on_or_after,
    )


# What is built


SIGNER = prepare_signer(load_key("idp-rsa"), "rsa-sha256")


def build_request(signed: bool = True) -> bytes:
    return build_logout_request(
        request_id="_" + "a" * 40,
        issued_at=CLOCK,
        issuer="https://idp.example.com/",
        destination="https://sp.example.com/slo?a=1&b=2",
        name_id=NAME_ID,
        session_indexes=("_one", "_two"),
        signer=SIGNER if signed else None,
    )


def build_response(sub_status: str | None = None, *, status: str = SUCCESS, signed: bool = True) -> bytes:
    return build_logout_response(
        response_id="_" + "b" * 40,
        issued_at=CLOCK,
        issuer="https://idp.example.com/",
        destination="https://sp.example.com/slo",
        in_response_to="_asked",
        status=status,
        sub_status=sub_status,
        signer=SIGNER if signed else None,
    )


@pytest.mark.parametrize("build", [build_request, build_response])
@pytest.mark.parametrize("signed", [True, False])
def test_what_is_built_is_valid_and_signed_when_it_should_be(build: Callable[..., bytes], signed: bool) -> None:
    root = etree.fromstring(build(signed=signed))
    assert list_schema_errors(root, "protocol") == ()
    signatures = root.findall(f"{{{DS}}}Signature")
    assert len(signatures) == signed
    if signed:
        verify_enveloped(root, [make_certificate("idp-rsa")], profile=MESSAGE_PROFILE)


def make_certificate(name: str) -> Certificate:
    return parse_certificate(base64.b64decode(load_key(name).certificate))


def test_a_built_request_is_read_as_it_was_meant() -> None:
    request = parse_logout_request(receive(build_request()))
    assert request.head.id == "_" + "a" * 40
    assert (request.issuer, request.head.destination) == (
        "https://idp.example.com/",
        "https://sp.example.com/slo?a=1&b=2",
    )
    assert request.head.issued_at == datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
    assert request.not_on_or_after == CLOCK + timedelta(minutes=5)
    assert (request.name_id, request.session_indexes) == (NAME_ID, ("_one", "_two"))
    theirs = samlp.logout_request_from_string(build_request().decode())
    assert theirs.reason == "urn:oasis:names:tc:SAML:2.0:logout:user"
    assert [one.text for one in theirs.session_index] == ["_one", "_two"]
    assert (theirs.name_id.text, theirs.name_id.format) == (NAME_ID.value, PERSISTENT)
    assert (theirs.name_id.name_qualifier, theirs.name_id.sp_name_qualifier) == (
        NAME_ID.name_qualifier,
        NAME_ID.sp_name_qualifier,
    )


@pytest.mark.parametrize(
    ("status", "sub_status", "is_complete"),
    [
        (SUCCESS, None, True),
        (SUCCESS, PARTIAL_LOGOUT, False),
        (REQUESTER, UNKNOWN_PRINCIPAL, False),
        ("urn:oasis:names:tc:SAML:2.0:status:Responder", None, False),
        ("urn:example:success", None, False),
    ],
)
def test_l8_only_plain_success_is_a_complete_logout(status: str, sub_status: str | None, is_complete: bool) -> None:
    response = parse_logout_response(receive(build_response(sub_status, status=status), name="SAMLResponse"))
    assert (response.status, response.sub_status, response.in_response_to) == (status, sub_status, "_asked")
    assert response.is_complete is is_complete


def test_l8_partial_logout_stands_within_success() -> None:
    root = etree.fromstring(build_response(PARTIAL_LOGOUT))
    values = [one.get("Value") for one in root.iter(f"{{{SAMLP}}}StatusCode")]
    assert values == [SUCCESS, PARTIAL_LOGOUT]


def test_l5_an_answer_must_say_what_it_answers() -> None:
    xml = re.sub(rb' InResponseTo="[^"]*"', b"", build_response(signed=False))
    with pytest.raises(RequestRefused) as caught:
        parse_logout_response(receive(xml, name="SAMLResponse"))
    assert caught.value.code == "request-in-response-to"


@pytest.mark.parametrize(
    ("parse", "data", "name"),
    [
        (parse_logout_request, build_response(), "SAMLResponse"),
        (parse_logout_request, build_request(), "SAMLResponse"),
        (parse_logout_response, build_request(), "SAMLRequest"),
        (parse_logout_response, build_response(), "SAMLRequest"),
    ],
)
def test_l5_a_message_of_the_other_kind_is_refused(
    parse: Callable[..., object], data: bytes, name: MessageName
) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(receive(data, name=name))
    assert caught.value.code == "request-kind"
