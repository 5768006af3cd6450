"""Sign-on requests: read, told apart by partner, answered at a known place.

No forged one gets past.
"""

from __future__ import annotations

import copy
import itertools
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from saml_bridge.model.errors import MetadataRefused, RequestRefused, SignatureRefused
from saml_bridge.protocols.auth_contexts import RequestedContext
from saml_bridge.protocols.saml.authn_request import (
    AuthnRequest,
    NameIdPolicy,
    choose_requested_acs,
    parse_authn_request,
)
from saml_bridge.protocols.saml.bindings import (
    POST_BINDING,
    REDIRECT_BINDING,
    build_soap,
    receive_redirect,
    receive_soap,
)
from saml_bridge.protocols.saml.message import (
    MessageHead,
    NameIdValue,
    carries_signature,
    check_message,
    parse_message,
    read_head,
    verify_message,
)
from saml_bridge.protocols.saml.metadata.judge import check_metadata
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata
from tests.protocols.saml.corpus import CLOCK, read_case, read_pin
from tests.protocols.saml.messages import (
    ACS,
    ALTERNATIVE_ACS,
    DS,
    EXC,
    MORE,
    SAML,
    SAMLP,
    SP1,
    SP2,
    SSO,
    find_refusal,
    judge,
    make_query,
    make_request,
    make_signature,
    make_signed,
    partners,
    post,
    read_request,
    read_vector,
    read_vectors,
    refusal_code,
    sign,
)
from tests.work import MOST_CALLS, counting_work

PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
CLASSES = "urn:oasis:names:tc:SAML:2.0:ac:classes:"
PPT = f"{CLASSES}PasswordProtectedTransport"
SMARTCARD = f"{CLASSES}Smartcard"


def parse(xml: bytes) -> AuthnRequest:
    return parse_authn_request(post(xml))


def code_of(xml: bytes, **more: Any) -> str:
    """The code that a request is refused with on its whole way.

    It is empty when the request is accepted.
    """
    with counting_work() as work:
        code = refusal_code(lambda: judge(post(xml), **more))
    assert work.calls < MOST_CALLS
    return code


def codes(*names: str) -> set[str]:
    return {code_of(read_request(f"bad/{name}")) for name in names}


def vector_code(name: str) -> str:
    return refusal_code(lambda: judge(receive_redirect(read_vector("bad", name))))


# What is read


def test_everything_that_a_request_says_is_read() -> None:
    inside = (
        f'<saml:Subject><saml:NameID Format="{PERSISTENT}" NameQualifier="nq" SPNameQualifier="sq">P-1</saml:NameID>'
        f'</saml:Subject><samlp:NameIDPolicy Format="{PERSISTENT}" SPNameQualifier="{SP1}" AllowCreate="1"/>'
        '<samlp:RequestedAuthnContext Comparison="minimum">'
        f"<saml:AuthnContextClassRef>{PPT}</saml:AuthnContextClassRef>"
        f"<saml:AuthnContextClassRef>{SMARTCARD}</saml:AuthnContextClassRef></samlp:RequestedAuthnContext>"
    )
    more = f'AssertionConsumerServiceURL="{ACS}" ProtocolBinding="{POST_BINDING}" ForceAuthn=" true " IsPassive="1"'
    received = post(make_request(inside, attributes=more), RelayState="token")
    request = parse_authn_request(received)
    assert request == AuthnRequest(
        head=MessageHead("_a1", SP1, SSO, datetime(2026, 1, 15, 11, 59, 30, tzinfo=UTC)),
        issuer=SP1,
        acs_url=ACS,
        acs_index=None,
        protocol_binding=POST_BINDING,
        name_id_policy=NameIdPolicy(PERSISTENT, SP1, True),
        force_authn=True,
        is_passive=True,
        requested_context=RequestedContext("minimum", (PPT, SMARTCARD), ()),
        subject=NameIdValue("P-1", PERSISTENT, "nq", "sq"),
        has_encrypted_subject=False,
        received=received,
        root=request.root,
    )
    assert (request.id, request.destination) == ("_a1", SSO)
    assert request.issued_at == request.head.issued_at
    assert "P-1" not in repr(request.subject)


def test_what_a_request_leaves_out() -> None:
    request = parse(make_request(Destination=None))
    assert request.destination is None
    assert (request.acs_url, request.acs_index, request.protocol_binding) == (None, None, None)
    assert (request.name_id_policy, request.requested_context, request.subject) == (None, None, None)
    assert (request.force_authn, request.is_passive, request.has_encrypted_subject) == (False, False, False)
    assert parse(make_request("<samlp:NameIDPolicy/>")).name_id_policy == NameIdPolicy(None, None, False)
    context = f"<samlp:RequestedAuthnContext><saml:AuthnContextDeclRef>{PPT}</saml:AuthnContextDeclRef>"
    requested = parse(make_request(context + "</samlp:RequestedAuthnContext>")).requested_context
    assert requested == RequestedContext("exact", (), (PPT,))
    assert parse(make_request(attributes='AssertionConsumerServiceIndex=" +007 "')).acs_index == 7
    for digits, index in (("0" * 20_000 + "12", 12), ("0" * 20_000, 0), ("-0", 0)):
        assert parse(make_request(attributes=f'AssertionConsumerServiceIndex="{digits}"')).acs_index == index


def test_consent_extensions_and_scoping_say_nothing() -> None:
    inside = (
        '<samlp:Extensions><x:y xmlns:x="urn:x"/></samlp:Extensions>'
        '<samlp:Scoping ProxyCount="0"><samlp:IDPList><samlp:IDPEntry ProviderID="urn:other"/></samlp:IDPList>'
        "</samlp:Scoping>"
    )
    attributes = 'Consent="urn:oasis:names:tc:SAML:2.0:consent:obtained" ProviderName="&lt;script&gt;"'
    plain, adorned = parse(make_request()), parse(make_request(inside, attributes=attributes))
    assert replace(adorned, received=plain.received, root=plain.root) == plain


def test_an_encrypted_subject_is_told_of() -> None:
    xenc = "http://www.w3.org/2001/04/xmlenc#"
    data = (
        f'<xenc:EncryptedData xmlns:xenc="{xenc}"><xenc:CipherData><xenc:CipherValue>AAAA</xenc:CipherValue>'
        "</xenc:CipherData></xenc:EncryptedData>"
    )
    request = parse(make_request(f"<saml:Subject><saml:EncryptedID>{data}</saml:EncryptedID></saml:Subject>"))
    assert request.has_encrypted_subject
    assert request.subject is None


@pytest.mark.parametrize(
    "inside",
    [
        '<saml:BaseID xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="saml:NameIDType">x</saml:BaseID>',
        '<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"/>',
        '<saml:NameID>x</saml:NameID><saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"/>',
        "<saml:NameID/>",
        f"<saml:NameID>{'x' * 1025}</saml:NameID>",
    ],
)
def test_subjects_that_are_refused(inside: str) -> None:
    code = refusal_code(lambda: parse(make_request(f"<saml:Subject>{inside}</saml:Subject>")))
    assert code in ("request-subject", "request-schema")


def test_the_head_is_read_of_any_message() -> None:
    logout = make_request(NotOnOrAfter="2026-01-15T12:05:00Z").replace(b"AuthnRequest", b"LogoutRequest")
    logout = logout.replace(b"</saml:Issuer>", b"</saml:Issuer><saml:NameID>x</saml:NameID>")
    root = parse_message(post(logout), kinds={"LogoutRequest"})
    assert read_head(root) == MessageHead("_a1", SP1, SSO, datetime(2026, 1, 15, 11, 59, 30, tzinfo=UTC))
    answer = (
        f'<samlp:LogoutResponse xmlns:samlp="{SAMLP}" ID="_b1" Version="2.0" IssueInstant="2026-01-15T12:00:00Z">'
        f'<samlp:Status><samlp:StatusCode Value="urn:x"/></samlp:Status></samlp:LogoutResponse>'
    ).encode()
    head = read_head(parse_message(post(answer, "SAMLResponse"), kinds={"LogoutResponse"}))
    assert head == MessageHead("_b1", None, None, CLOCK)
    assert refusal_code(lambda: parse_message(post(answer), kinds={"LogoutResponse"})) == "request-kind"


# X: XML that comes in


@pytest.mark.parametrize("name", ["xxe-file", "xxe-http-parameter-entity", "dtd-internal-entity-in-acs", "dtd-bare"])
def test_x1_x2_x3_x5_document_types_are_refused(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        port = server.getsockname()[1]
        data = read_request(f"bad/{name}").replace(b"127.0.0.1:9/", f"127.0.0.1:{port}/".encode())
        refused = find_refusal(lambda: judge(post(data)))
        assert refused is not None
        assert refused.code == "xml-doctype"
        assert "root:" not in refused.diagnosis()
        with pytest.raises(TimeoutError):
            server.accept()


def test_x4_entity_bombs_are_refused() -> None:
    assert codes("entity-billion-laughs") == {"xml-doctype"}


def test_x6_a_document_type_hidden_by_an_encoding_is_refused() -> None:
    assert codes("dtd-in-utf7") == {"xml-encoding"}


def test_x7_xinclude_is_refused() -> None:
    assert codes("xinclude") == {"xml-xinclude"}


def test_x9_deep_nesting_is_refused() -> None:
    assert codes("depth-500") == {"xml-depth"}
    for depth in (33, 255, 257, 5000):
        nested = "<a>" * depth + "</a>" * depth
        assert code_of(make_request(f"<samlp:Extensions>{nested}</samlp:Extensions>")) == "xml-depth"


def test_x10_floods_of_attributes_cost_nothing() -> None:
    for count, code in ((33, "xml-attributes"), (5000, "xml-attributes"), (100_000, "request-large")):
        flood = " ".join(f'a{number}=""' for number in range(count))
        inside = f'<samlp:Extensions><x:y xmlns:x="urn:x" {flood}/></samlp:Extensions>'
        assert code_of(make_request(inside, signature=make_signature())) == code
    names = " ".join(f'xmlns:a{number}="urn:{number}"' for number in range(2000))
    assert code_of(make_request(attributes=names)) == "xml-attributes"


def test_x11_a_message_is_bounded() -> None:
    assert codes("size-over-64k", "id-overlong") == {"request-large"}


def test_x15_characters_that_xml_cannot_have_are_refused() -> None:
    assert codes("null-byte", "encoding-invalid-utf8") == {"xml-encoding"}
    for reference in ("&#0;", "&#1;", "&#x1b;", "&#xFFFE;", "&#xD800;"):
        assert code_of(make_request(issuer=SP1 + reference)) == "xml-malformed"
    assert code_of(make_request(issuer=SP1 + "\x1b")) == "xml-malformed"


@pytest.mark.parametrize("name", ["issuer-comment", "issuer-comment-inside-name", "nameid-comment"])
def test_x17_a_split_value_is_refused(name: str) -> None:
    assert codes(name) == {"xml-value-not-text"}


@pytest.mark.parametrize("inserted", ["<!---->", "<!--x-->"])
def test_x17_a_comment_in_any_value_is_refused_or_changes_nothing(inserted: str) -> None:
    """It is left out of the canonical form, so a signature survives it."""
    context = f"<saml:AuthnContextClassRef>{PPT}</saml:AuthnContextClassRef>"
    subject = "<saml:Subject><saml:NameID>P-1</saml:NameID></saml:Subject>"
    signed = make_signed(f"{subject}<samlp:RequestedAuthnContext>{context}</samlp:RequestedAuthnContext>").decode()
    for value in (SP1, "P-1", PPT):
        for place in range(len(value) + 1):
            changed = signed.replace(f">{value}<", f">{value[:place]}{inserted}{value[place:]}<", 1)
            assert changed != signed
            assert code_of(changed.encode()) == "xml-value-not-text"
    harmless = signed.replace("<samlp:RequestedAuthnContext>", f"<samlp:RequestedAuthnContext>{inserted}")
    assert judge(post(harmless.encode()))[0].requested_context == RequestedContext("exact", (PPT,), ())


def test_x18_s17_a_canonicalization_that_fails_is_a_refusal() -> None:
    signed = make_signed('<samlp:Extensions><x:y xmlns:x="urn:x"/></samlp:Extensions>')
    assert code_of(signed) == ""
    assert code_of(signed.replace(b'xmlns:x="urn:x"', b'xmlns:x="relative"')) == "signature-invalid"
    assert code_of(signed.replace(b'xmlns:x="urn:x"', b'xmlns:x="http://["')) == "xml-malformed"


def test_x19_one_id_twice_is_refused() -> None:
    assert codes("xsw3-duplicate-id", "real-opensaml-duplicate-ids") == {"xml-duplicate-id"}
    assert code_of(make_request('<samlp:Extensions><x:y xmlns:x="urn:x" Id="_a1"/></samlp:Extensions>')) == (
        "xml-duplicate-id"
    )


def test_x20_a_schema_that_the_message_names_is_not_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        place = f"http://127.0.0.1:{server.getsockname()[1]}/x.xsd"
        hints = (
            'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
            f'xsi:schemaLocation="{SAMLP} {place}" xsi:noNamespaceSchemaLocation="{place}"'
        )
        assert code_of(make_request(attributes=hints)) in ("signature-missing", "request-schema")
        with pytest.raises(TimeoutError):
            server.accept()


# S: signatures


def test_s1_a_signature_is_demanded_by_the_metadata_or_by_us() -> None:
    assert vector_code("signature-removed") == "signature-missing"
    assert code_of(make_request()) == "signature-missing"
    unsigned = post(make_request(issuer=SP2))
    assert not carries_signature(judge(unsigned)[0])
    for received in (unsigned, receive_redirect(make_query(make_request(issuer=SP2), key=None))):
        request = parse_authn_request(received)
        assert refusal_code(lambda request=request: verify_message(request, partners()[SP2], required=True)) == (  # type: ignore[misc]
            "signature-missing"
        )


def test_s1_a_signature_that_nobody_asked_for_must_verify_too() -> None:
    good = sign(make_request(issuer=SP2, signature=make_signature(method="ecdsa-sha256")), key="ec-p256")
    assert code_of(good) == ""
    assert code_of(good.replace(b"2026-01-15T11:59:30Z", b"2026-01-15T11:59:31Z")) == "signature-invalid"
    query = make_query(make_request(issuer=SP2), key="ec-p256", algorithm=f"{MORE}ecdsa-sha256")
    assert judge(receive_redirect(query))[0].issuer == SP2
    by_another = make_query(make_request(issuer=SP2), key="sp-signing")
    assert refusal_code(lambda: judge(receive_redirect(by_another))) == "signature-key-unusable"


def test_s2_the_key_in_the_message_does_not_count() -> None:
    assert codes("sig-keyinfo-victim-cert-signed-by-attacker") == {"signature-invalid"}
    assert code_of(make_signed().replace(b"x", b"x")) == ""
    assert code_of(sign(make_request(signature=make_signature()), key="attacker")) == "signature-invalid"
    assert code_of(read_request("good/signed-foreign-keyinfo-ignored")) == ""


@pytest.mark.parametrize("name", ["sig-retrievalmethod-file", "sig-retrievalmethod-http"])
def test_s3_no_key_is_fetched(name: str) -> None:
    assert codes(name) == {"signature-invalid"}


def test_s4_each_partners_own_keys_count() -> None:
    """The key must be the issuer's.

    Another partner's key counts neither where it is of another type nor of the same.
    """
    assert codes("sig-by-other-registered-sp") == {"signature-key-unusable"}
    own = partners()[SP1]
    other = replace(own, certificates=(read_pin("sp-signing-next"),))
    for key, its, anothers in (("sp-signing", own, other), ("sp-signing-next", other, own)):
        signed = parse(sign(make_request(signature=make_signature()), key=key))
        verify_message(signed, its, required=True)
        with pytest.raises(SignatureRefused) as refused:
            verify_message(signed, anothers, required=True)
        assert refused.value.code == "signature-invalid"
    both = replace(partners()[SP2], certificates=own.certificates)
    request = parse(make_signed())
    assert refusal_code(lambda: verify_message(request, both, required=True)) == "signature-issuer"


def test_s5_a_key_for_encryption_signs_nothing() -> None:
    assert codes("sig-by-encryption-key") == {"signature-invalid"}
    query = make_query(make_request(), key="sp-encryption")
    assert refusal_code(lambda: judge(receive_redirect(query))) == "signature-invalid"


def test_s6_s7_s8_s9_only_listed_algorithms() -> None:
    names = ("sig-rsa-sha1", "sig-hmac-cert-der", "sig-hmac-cert-pem", "sig-hmac-truncated-1bit")
    assert codes(*names) == {"signature-algorithm"}
    assert {vector_code(name) for name in ("sha1", "md5", "hmac-public-key", "sigalg-unknown")} == {
        "signature-algorithm"
    }
    for method in (f"{MORE}rsa-md5", f"{DS}rsa-sha1", f"{DS}dsa-sha1", "urn:x", ""):
        changed = make_signed().replace(f"{MORE}rsa-sha256".encode(), method.encode())
        assert code_of(changed) in ("signature-algorithm", "request-schema")


def test_s10_s11_no_other_transform_is_run() -> None:
    assert codes("sig-transform-xslt", "sig-transform-base64") == {"signature-algorithm"}
    assert codes("sig-transform-xpath-false") == {"signature-structure"}


def test_s12_a_reference_names_the_root_and_nothing_is_opened() -> None:
    names = ("file", "file-etc", "http", "other-id", "xpointer", "empty-uri")
    assert codes(*(f"sig-reference-{name}" for name in names)) == {"signature-structure"}


def test_s13_one_reference_and_two_transforms() -> None:
    assert codes("sig-two-references", "sig-transforms-many") == {"signature-structure"}


def test_s15_s16_the_signature_holds_nothing_else() -> None:
    assert codes("sig-two-signedinfo") == {"request-schema"}
    signed = make_signed().decode()
    for name in ("DigestValue", "SignatureValue", "SignedInfo", "Reference", "Signature", "Transforms"):
        assert code_of(signed.replace(f"<ds:{name}>", f"<ds:{name}><!--x-->").encode()) == (
            "signature-structure" if f"<ds:{name}>" in signed else ""
        )
    with_object = signed.replace("</ds:Signature>", "<ds:Object>x</ds:Object></ds:Signature>")
    assert code_of(with_object.encode()) == "signature-structure"


def test_s18_what_was_changed_after_signing_is_refused() -> None:
    names = ("sig-tampered-acs-registered", "sig-bit-flip", "sig-attribute-added")
    assert codes(*names) == {"signature-invalid"}
    assert codes("sig-empty-value") == {"signature-structure"}
    assert {vector_code(name) for name in ("relaystate-changed", "relaystate-dropped", "relaystate-added")} == {
        "signature-invalid"
    }


@pytest.mark.parametrize(
    "algorithm", ["http://www.w3.org/TR/2001/REC-xml-c14n-20010315", f"{EXC}WithComments", "urn:x"]
)
def test_s19_one_canonicalization(algorithm: str) -> None:
    for count in (1, -1):
        assert code_of(make_signed().replace(EXC.encode() + b'"', algorithm.encode() + b'"', count)) == (
            "signature-algorithm"
        )


def test_s20_the_query_is_what_is_signed() -> None:
    names = ("sigalg-swapped", "attacker-key")
    assert {vector_code(name) for name in names} == {"signature-invalid"}
    assert vector_code("sigalg-without-signature") == "request-half-signed"
    pair, rest = make_query(make_request(), relay_state="a").split(b"&RelayState=a", 1)
    reordered = b"RelayState=a&" + rest.lstrip(b"&") + b"&" + pair
    assert judge(receive_redirect(reordered))[0].received.relay_state == "a"


def test_s21_an_xml_signature_in_a_query_does_not_count() -> None:
    assert vector_code("embedded-signature-only") == "signature-missing"
    signed = make_signed()
    assert refusal_code(lambda: judge(receive_redirect(make_query(signed, key=None)))) == "signature-missing"
    refused = find_refusal(lambda: judge(receive_redirect(make_query(signed, key=None))))
    assert refused is not None
    assert "SigAlg and Signature" in refused.detail
    unneeded = sign(make_request(issuer=SP2, signature=make_signature(method="ecdsa-sha256")), key="ec-p256")
    for message in (unneeded, unneeded.replace(b"11:59:30Z", b"11:59:31Z")):
        assert not carries_signature(judge(receive_redirect(make_query(message, key=None)))[0])
    broken = signed.replace(b"11:59:30Z", b"11:59:31Z")
    assert carries_signature(judge(receive_redirect(make_query(broken)))[0])


def test_s23_each_current_key_verifies_and_a_removed_one_stops() -> None:
    rolled = check_metadata(read_case("good/keys-rollover-two-signing"), now=CLOCK).find_provider()
    for key in ("sp-signing", "sp-signing-next"):
        request = parse(sign(make_request(issuer=rolled.entity_id, signature=make_signature()), key=key))
        verify_message(request, rolled, required=True)
        left = tuple(one for one in rolled.certificates if one.fingerprint_sha256 != read_pin(key).fingerprint_sha256)
        assert len(left) == len(rolled.certificates) - 1
        removed = replace(rolled, certificates=left)
        assert refusal_code(
            lambda request=request, removed=removed: verify_message(request, removed, required=True)
        ) == (  # type: ignore[misc]
            "signature-invalid"
        )


@pytest.mark.parametrize("prefixes", ["", "saml", "#default", "#default samlp saml ds xs", "unknown"])
def test_prefix_lists_of_real_requesters_verify(prefixes: str) -> None:
    unused = 'xmlns="urn:default" xmlns:xs="http://www.w3.org/2001/XMLSchema"'
    signed = sign(make_request(attributes=unused, signature=make_signature(prefixes=prefixes)))
    assert code_of(signed) == ""
    for prefix, name in {"#default": b"urn:default", "xs": b"http://www.w3.org/2001/XMLSchema"}.items():
        changed = signed.replace(b'"%b"' % name, b'"%bX"' % name)
        assert code_of(changed) == ("signature-invalid" if prefix in prefixes.split() else "")


def test_a_prefix_list_verifies_in_another_thread_than_the_one_that_parsed() -> None:
    signature = make_signature(prefixes="#default samlp")
    request = parse(sign(make_request(attributes='xmlns="urn:default"', signature=signature)))
    with ThreadPoolExecutor() as pool:
        pool.submit(verify_message, request, partners()[SP1], required=True).result()


def test_a_request_over_soap_keeps_its_signature() -> None:
    assert judge(receive_soap(build_soap(make_signed())))[0].received.binding.endswith(":SOAP")


# S14: wrapping

PLACES = (
    "samlp:Extensions",
    "samlp:Extensions/x:outer",
    "saml:Issuer",
    "saml:Subject",
    "saml:Subject/saml:SubjectConfirmation/saml:SubjectConfirmationData",
    "samlp:NameIDPolicy",
    "samlp:RequestedAuthnContext",
    "samlp:Scoping",
    "ds:Signature/ds:Object",
    "ds:Signature/ds:KeyInfo",
    "ds:Signature/ds:SignedInfo",
    ".",
)
PREFIXES = {"saml": SAML, "samlp": SAMLP, "ds": DS, "x": "urn:x"}


def wrap(place: str, *, first: bool, signature: str, evil_id: str | None, acs: str) -> Iterator[bytes]:
    """Forged requests around a validly signed one.

    The signed one stands at `place`, as itself and as root of the document.
    """
    original = etree.fromstring(make_signed(AssertionConsumerServiceURL=ACS))
    forged = etree.fromstring(make_request(ID=evil_id, AssertionConsumerServiceURL=acs))
    own = original.find(f"{{{DS}}}Signature")
    assert own is not None
    if signature == "moved":
        forged.insert(1, own)
    elif signature == "copied":
        forged.insert(1, copy.deepcopy(own))
    inside = forged
    for step in () if place == "." else place.split("/"):
        prefix, _, name = step.partition(":")
        tag = f"{{{PREFIXES[prefix]}}}{name}"
        found = inside.find(tag)
        inside = etree.SubElement(inside, tag) if found is None else found
    inside.insert(0 if first else len(inside), original)
    yield etree.tostring(forged)
    inside.remove(original)
    outer = copy.deepcopy(original)
    holder = etree.SubElement(outer, f"{{{SAMLP}}}Extensions")
    holder.append(forged)
    yield etree.tostring(outer)


WRAPPINGS = list(
    itertools.product(
        PLACES, (True, False), ("kept", "moved", "copied"), ("_a1", "_evil", None), (ACS, ALTERNATIVE_ACS)
    )
)


def test_s14_the_original_of_the_wrappings_is_accepted() -> None:
    assert code_of(make_signed(AssertionConsumerServiceURL=ACS)) == ""


@pytest.mark.parametrize("place", PLACES)
def test_s14_no_wrapping_is_accepted(place: str) -> None:
    count = 0
    for _, first, signature, evil_id, acs in (one for one in WRAPPINGS if one[0] == place):
        for forged in wrap(place, first=first, signature=signature, evil_id=evil_id, acs=acs):
            code = code_of(forged)
            assert code.startswith(("signature-", "request-schema", "xml-duplicate-id", "xml-value-not-text")), (
                place,
                first,
                signature,
                evil_id,
                code,
            )
            count += 1
    assert count == 72


@pytest.mark.parametrize("place", ["samlp:Extensions", "samlp:Extensions/x:outer"])
def test_s14_wrappings_that_the_schema_allows_fall_to_the_signatures_rules_alone(place: str) -> None:
    """Without them the schema would have hidden that nothing else stops the forgery."""
    forged = (
        data
        for _, first, signature, evil_id, acs in WRAPPINGS
        for data in wrap(place, first=first, signature=signature, evil_id=evil_id, acs=acs)
    )
    seen = {code_of(_hide_in_foreign(data)) for data in forged}
    assert "signature-structure" in seen
    assert "" not in seen


def _hide_in_foreign(data: bytes) -> bytes:
    """The extension's content within an element of another namespace, as the schema demands it."""
    return data.replace(b"<samlp:Extensions>", b'<samlp:Extensions><y:y xmlns:y="urn:y">', 1).replace(
        b"</samlp:Extensions>", b"</y:y></samlp:Extensions>", 1
    )


@pytest.mark.parametrize("root", [f"{{{SAMLP}}}AuthnRequest", f"{{{SAMLP}}}Response", "{urn:x}wrap"])
def test_s14_two_roots_side_by_side(root: str) -> None:
    for turned in (False, True):
        outer = etree.Element(root, ID="_outer", Version="2.0", IssueInstant="2026-01-15T11:59:30Z")
        pair = [etree.fromstring(make_signed()), etree.fromstring(make_request(ID="_evil"))]
        outer.extend(reversed(pair) if turned else pair)
        assert code_of(etree.tostring(outer)) in ("request-kind", "request-schema")
    assert code_of(make_signed() + make_request(ID="_evil")) == "xml-malformed"


def test_s14_a_signature_stands_at_one_place_alone() -> None:
    inside = (
        "<samlp:Extensions><x:y xmlns:x='urn:x'><x:z/></x:y></samlp:Extensions><saml:Subject><saml:NameID>P-1"
        "</saml:NameID></saml:Subject><samlp:NameIDPolicy/>"
    )
    original = etree.fromstring(make_signed(inside))
    accepted = 0
    elements = [one for one in original.iter("*") if not str(one.tag).startswith(f"{{{DS}}}")]
    for number, place in ((number, place) for number, one in enumerate(elements) for place in range(len(one) + 1)):
        moved = copy.deepcopy(original)
        target = [one for one in moved.iter("*") if not str(one.tag).startswith(f"{{{DS}}}")][number]
        signature = moved.find(f"{{{DS}}}Signature")
        assert signature is not None
        moved.remove(signature)
        target.insert(place, signature)
        same = etree.tostring(moved) == etree.tostring(original)
        accepted += same
        assert (code_of(etree.tostring(moved)) == "") is same
    assert accepted == 1


# S18: every byte


def canonical(xml: bytes) -> bytes:
    """The signed octets: the root without its signature.

    They are written by the twin of xmlsec's own canonicalization.
    """
    root = etree.fromstring(xml)
    etree.strip_elements(root, f"{{{DS}}}Signature", with_tail=False)
    form: bytes = etree.tostring(root, method="c14n", exclusive=True, with_comments=False)
    return form


SIGNED = ("signed-rsa-sha256", "signed-no-keyinfo", "signed-whitespace-pretty", "signed-scoping")


@pytest.mark.parametrize("name", SIGNED)
def test_s18_no_flipped_byte_is_accepted(name: str) -> None:
    original = read_request(f"good/{name}")
    expected = canonical(original)
    refused = 0
    for place in range(len(original)):
        mutant = bytearray(original)
        mutant[place] ^= 1 << (place % 7)
        data = bytes(mutant)
        if refusal_code(lambda data=data: judge(post(data))):  # type: ignore[misc]  # as bound now
            refused += 1
        else:
            assert canonical(data) == expected, place
    assert refused > len(original) * (0.9 if name == "signed-no-keyinfo" else 0.4)


@pytest.mark.parametrize("name", ["signed-relaystate", "relaystate-empty", "lowercase-hex"])
def test_s18_s20_no_flipped_byte_of_a_query_is_accepted(name: str) -> None:
    query = next(one["query"] for one in read_vectors("good") if one["name"] == name).encode()
    original = receive_redirect(query)
    for place in range(len(query)):
        mutant = bytearray(query)
        mutant[place] ^= 1 << (place % 7)
        data = bytes(mutant)
        if not refusal_code(lambda data=data: judge(receive_redirect(data))):  # type: ignore[misc]  # as bound now
            received = receive_redirect(data)
            assert (received.xml, received.relay_state) == (original.xml, original.relay_state)
            assert received.signature is not None
            assert original.signature is not None
            assert received.signature.octets == original.signature.octets


# A: what is asked for


@pytest.mark.parametrize(
    "url",
    [
        "https://attacker.example/acs",
        "http://sp.example.com/saml/acs",
        "https://sp.example.com/saml/ACS",
        "https://sp.example.com/saml/acs/",
        "https://sp.example.com/saml/acs?x=1",
        "https://sp.example.com:443/saml/acs",
        "https://sp.example.com./saml/acs",
        "https://SP.example.com/saml/acs",
        "https://sp.example.com@attacker.example/saml/acs",
        "https://sp.example.com/saml/%61cs",
        " https://sp.example.com/saml/acs",
        "https://sp.example.com/saml/acs\u200b",
        "https://sp2.example.com/saml/acs",
        "https://sp.example.com/saml/artifact",
        "javascript:alert(1)",
        "data:text/html,x",
        "",
    ],
)
def test_a1_only_a_registered_place_gets_a_response(url: str) -> None:
    refused = find_refusal(lambda: judge(post(make_signed(AssertionConsumerServiceURL=url))))
    assert refused is not None
    assert refused.code in ("acs-not-in-metadata", "request-schema")
    if refused.code == "acs-not-in-metadata":
        assert "0: https://sp.example.com/saml/acs, 1: https://sp.example.com/saml/acs-alt" in refused.detail
        assert refused.detail.isprintable()


def test_a1_what_is_registered_is_found() -> None:
    for url in (ACS, ALTERNATIVE_ACS):
        assert judge(post(make_signed(AssertionConsumerServiceURL=url)))[1].location == url


@pytest.mark.parametrize("index", ["2", "3", "99", "65535", "-1", "65536", "4294967296", "x", ""])
def test_a2_an_index_that_is_not_there_gets_no_default(index: str) -> None:
    assert code_of(make_signed(AssertionConsumerServiceIndex=index)) in ("acs-not-in-metadata", "request-schema")
    assert codes("acs-index-99", "acs-index-artifact") == {"acs-not-in-metadata"}


def test_a2_an_index_finds_its_place() -> None:
    _, acs = judge(post(make_signed(AssertionConsumerServiceIndex="1")))
    assert (acs.index, acs.location) == (1, ALTERNATIVE_ACS)


def test_a3_an_index_stands_alone() -> None:
    for more in ({"AssertionConsumerServiceURL": ACS}, {"ProtocolBinding": POST_BINDING}):
        assert code_of(make_signed(AssertionConsumerServiceIndex="0", **more)) == "acs-ambiguous"
    assert codes("acs-index-and-url") == {"acs-ambiguous"}


def choose(metadata: SpMetadata, configured: int | str | None = None) -> str:
    return choose_requested_acs(parse(make_request()), metadata, configured=configured).location


def test_a4_without_a_wish_the_metadatas_default_or_the_configured_one() -> None:
    gaps = check_metadata(read_case("good/acs-index-gaps-order"), now=CLOCK).find_provider()
    assert choose(gaps) == next(one.location for one in gaps.acs if one.index == 3)
    sp1 = partners()[SP1]
    assert choose(sp1) == ACS
    assert choose(sp1, 1) == choose(sp1, ALTERNATIVE_ACS) == ALTERNATIVE_ACS
    request = parse(make_request(AssertionConsumerServiceIndex="0"))
    assert choose_requested_acs(request, sp1, configured=1).location == ACS
    with pytest.raises(MetadataRefused):
        choose(sp1, 7)


@pytest.mark.parametrize(
    "binding", [REDIRECT_BINDING, "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Artifact", "urn:x", "", POST_BINDING + " "]
)
def test_a5_a_response_goes_by_form_alone(binding: str) -> None:
    assert code_of(make_signed(ProtocolBinding=binding)) == "acs-binding"
    assert code_of(make_signed(ProtocolBinding=POST_BINDING, AssertionConsumerServiceURL=ACS)) == ""


@pytest.mark.parametrize(
    "destination",
    [
        None,
        "",
        "http://idp.example.com/saml/sso",
        "https://idp.example.com/saml/sso/",
        "https://idp.example.com/saml/sso?x",
        "https://idp.example.com/saml/slo",
        "https://idp.example.com/saml/sso.attacker.example",
        "https://IDP.example.com/saml/sso",
        "https://idp.example.com:443/saml/sso",
        " https://idp.example.com/saml/sso",
    ],
)
def test_a6_the_destination_is_ours_to_the_letter(destination: str | None) -> None:
    refused = find_refusal(lambda: judge(post(make_signed(Destination=destination))))
    assert refused is not None
    assert refused.code == "request-destination"
    assert SSO in refused.detail
    unsigned = code_of(make_request(issuer=SP2, Destination=destination))
    assert unsigned == ("" if destination is None else "request-destination")


@pytest.mark.parametrize(
    ("seconds", "code"),
    [(-421, "request-expired"), (-420, ""), (-419, ""), (0, ""), (120, ""), (121, "request-from-future")],
)
def test_a8_a_request_is_good_for_a_window(seconds: int, code: str) -> None:
    issued = (CLOCK + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    assert code_of(make_signed(IssueInstant=issued)) == code
    if code:
        refused = find_refusal(lambda: judge(post(make_signed(IssueInstant=issued))))
        assert refused is not None
        assert "2026-01-15T12:00:00+00:00" in refused.detail


def test_a8_the_window_is_the_callers() -> None:
    request = parse(make_request())
    later = request.issued_at + timedelta(seconds=61)

    def check(**window: timedelta) -> str:
        return refusal_code(lambda: check_message(request, now=later, endpoint=SSO, signed=False, **window))

    assert check(skew=timedelta(0), max_age=timedelta(seconds=61)) == ""
    assert check(skew=timedelta(0), max_age=timedelta(seconds=60)) == "request-expired"


@pytest.mark.parametrize(
    "instant",
    [
        "2026-01-15",
        "2026-01-15 12:00:00Z",
        "2026-W03-4T12:00:00Z",
        "20260115T120000Z",
        "2026-01-15T12:00Z",
        "2026-01-15T12:00:00+25:00",
        "2026-02-30T12:00:00Z",
        "99999-01-15T12:00:00Z",
        "-0001-01-15T12:00:00Z",
        "0000-01-15T12:00:00Z",
        "now",
        "",
    ],
)
def test_a8_an_instant_that_is_none_is_refused(instant: str) -> None:
    assert code_of(make_signed(IssueInstant=instant)) in ("request-schema", "request-instant")


@pytest.mark.parametrize(
    "instant", ["2026-01-15T11:59:30.1234567Z", "2026-01-15T12:59:30+01:00", "2026-01-15T11:59:30"]
)
def test_a8_instants_of_other_writers_are_read(instant: str) -> None:
    assert parse(make_request(IssueInstant=instant)).issued_at.replace(microsecond=0) == CLOCK - timedelta(seconds=30)


def test_a9_version_root_and_namespace() -> None:
    assert codes("version-3.0") == {"request-version"}
    assert {code_of(make_signed(Version=one)) for one in ("1.1", "2", "2.0 ", "", None)} == {"request-version"}
    assert codes("root-logoutrequest", "root-response", "namespace-none") == {"request-kind"}
    assert code_of(make_request().replace(SAMLP.encode(), b"urn:oasis:names:tc:SAML:1.0:protocol")) == "request-kind"
    assert refusal_code(lambda: parse_authn_request(post(make_request(), "SAMLResponse"))) == "request-kind"


@pytest.mark.parametrize(
    "name", [None, "", "1abc", "a b", " _a1", "_a1 ", "a:b", "_a&quot;&gt;&lt;x", "-a", "_" + "a" * 256]
)
def test_a10_an_id_is_a_short_name(name: str | None) -> None:
    code = refusal_code(lambda: parse(make_request(ID=name)))
    assert code in ("request-schema", "request-id")


def test_a10_the_longest_id_and_a_foreign_one() -> None:
    for name in ("_" + "a" * 255, "é-1.x"):
        assert parse(make_request(ID=name)).id == name
    assert codes("id-missing", "id-not-ncname", "id-with-markup") == {"request-schema"}


@pytest.mark.parametrize("issuer", ["", " ", "x" * 1025])
def test_an_issuer_is_a_name_of_somebody(issuer: str) -> None:
    assert code_of(make_request(issuer=issuer)) in ("request-issuer", "issuer-unknown")


def test_an_issuer_is_taken_as_it_stands() -> None:
    for written in (f" {SP1}", f"{SP1}\n", SP1.upper(), SP1 + "/", SP1.replace("s", "ｓ", 1)):
        assert parse(make_request(issuer=written)).issuer == written
        assert code_of(make_request(issuer=written)) == "issuer-unknown"
    other = make_request().replace(b"<saml:Issuer>", b'<saml:Issuer Format="urn:x">')
    assert refusal_code(lambda: parse(other)) == "request-issuer"
    entity = b'<saml:Issuer Format="urn:oasis:names:tc:SAML:2.0:nameid-format:entity">'
    assert parse(make_request().replace(b"<saml:Issuer>", entity)).issuer == SP1
    assert refusal_code(lambda: parse(make_request().replace(f"<saml:Issuer>{SP1}</saml:Issuer>".encode(), b""))) == (
        "request-issuer"
    )


LONG = "https://sp.example.com/" + "long/" * 100


@pytest.mark.parametrize(
    ("request_", "sides"),
    [
        (make_signed(Destination=LONG), (SSO, LONG)),
        (make_signed(Destination=None), (SSO, "received nothing")),
        (make_signed(AssertionConsumerServiceURL=LONG), (ACS, LONG)),
        (make_signed(AssertionConsumerServiceIndex="99"), ("0: " + ACS, "index 99")),
        (make_signed(ProtocolBinding=LONG), (POST_BINDING, LONG)),
        (make_request(Version="3.0"), ("2.0", "3.0")),
        (make_request().replace(b"<saml:Issuer>", f'<saml:Issuer Format="{LONG}">'.encode()), ("format:entity", LONG)),
        (make_request().replace(SAMLP.encode(), LONG.encode()), (SAMLP, LONG)),
    ],
)
def test_a_refusal_by_comparison_states_both_sides_whole(request_: bytes, sides: tuple[str, str]) -> None:
    refused = find_refusal(lambda: judge(post(request_)))
    assert refused is not None
    assert all(one in refused.detail for one in sides), refused.detail


# Anything that comes

MARKUP = st.sampled_from(
    [
        *("<saml:Issuer>", "</saml:Issuer>", SP1, "<saml:Subject>", "</saml:Subject>", "<saml:NameID>1</saml:NameID>"),
        *("<samlp:Extensions>", "</samlp:Extensions>", "<samlp:NameIDPolicy/>", "<samlp:RequestedAuthnContext>"),
        *("</samlp:RequestedAuthnContext>", make_signature(), "<!--x-->", "<?x?>", "&amp;", "&x;", "<x/>"),
        *("\0", "\r", "é", "]]>", "<![CDATA["),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(MARKUP, max_size=8), st.text(max_size=30), st.sampled_from(["inside", "issuer", "ID", "IssueInstant"]))
def test_whatever_stands_in_a_request_is_read_or_refused(pieces: list[str], text: str, place: str) -> None:
    filling = "".join(pieces) + text
    changes: dict[str, Any] = {place: filling}
    data = make_request(**changes).decode("utf-8", "surrogatepass").encode("utf-8", "surrogatepass")
    _judge_within(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_is_cut_doubled_or_put_in_a_signed_request_is_refused_or_harmless(data: st.DataObject) -> None:
    original = read_request("good/signed-no-keyinfo")
    start, length = data.draw(st.integers(0, len(original))), data.draw(st.integers(0, 40))
    filling = data.draw(st.one_of(st.binary(max_size=8), st.just(original[start : start + length])))
    mutant = original[:start] + filling + original[start + data.draw(st.sampled_from([0, length])) :]
    if not _judge_within(mutant):
        assert canonical(mutant) == canonical(original)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    assert refusal_code(lambda: post(data)) or _judge_within(data)


def _judge_within(data: bytes) -> str:
    """The code that `data` is refused with; within the time that a message may cost."""
    with counting_work() as work:
        refused = find_refusal(lambda: judge(post(data)))
    assert work.calls < MOST_CALLS
    if refused is None:
        return ""
    assert isinstance(refused, RequestRefused | SignatureRefused) or refused.code.startswith("xml-")
    assert refused.diagnosis().isprintable()
    return refused.code
