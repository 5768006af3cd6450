"""The three bindings: a query, a form and an envelope, read, refused and sent."""

from __future__ import annotations

import base64
import json
import tracemalloc
import zlib
from urllib.parse import parse_qsl, quote, unquote_plus, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from saml_bridge.model.errors import RequestRefused, SignatureRefused, XmlRefused
from saml_bridge.protocols.saml.bindings import (
    MOST_ENCODED_BYTES,
    POST_BINDING,
    REDIRECT_BINDING,
    SOAP_BINDING,
    DetachedSignature,
    build_redirect,
    build_soap,
    receive_post,
    receive_redirect,
    receive_soap,
)
from saml_bridge.protocols.saml.xml.certificates import parse_certificate
from saml_bridge.protocols.saml.xml.parse import MESSAGE_LIMITS, parse_xml
from saml_bridge.protocols.saml.xml.verify import MESSAGE_PROFILE, verify_enveloped, verify_octets
from tests.protocols.saml.corpus import read_pin
from tests.protocols.saml.issuing import load_certificate, load_key
from tests.protocols.saml.messages import (
    MORE,
    REQUESTS,
    SAMLP,
    find_refusal,
    judge,
    make_query,
    make_request,
    make_signed,
    partners,
    post,
    read_vector,
    read_vectors,
    refusal_code,
)
from tests.work import counting_work

SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
LOGOUT = f'<p:LogoutRequest xmlns:p="{SAMLP}" ID="_a1"/>'.encode()


def refusal(query: bytes) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        receive_redirect(query)
    return caught.value


def refused_fields(*fields: tuple[str, str]) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        receive_post(fields)
    return caught.value


def deflate(data: bytes, wbits: int = -15) -> bytes:
    deflater = zlib.compressobj(level=9, wbits=wbits)
    return deflater.compress(data) + deflater.flush()


def query_of(data: bytes) -> bytes:
    return b"SAMLRequest=" + quote(base64.b64encode(data).decode(), safe="").encode()


def test_a_redirect_is_read_as_it_was_signed() -> None:
    query = make_query(make_request(), relay_state="a/b c+d&e=ü")
    received = receive_redirect(query)
    assert (received.name, received.binding) == ("SAMLRequest", REDIRECT_BINDING)
    assert received.xml == make_request()
    assert received.relay_state == "a/b c+d&e=ü"
    assert received.signature is not None
    assert received.signature.algorithm == f"{MORE}rsa-sha256"
    assert received.signature.octets == tuple(query.split(b"&")[:3])
    verify_octets(received.signature, [read_pin("sp-signing")])


def test_a_response_and_parameters_of_others_are_read() -> None:
    query = make_query(make_request(), key=None).replace(b"SAMLRequest", b"SAMLResponse")
    received = receive_redirect(b"utm_source=x&samlrequest=y&" + query + b"&&lang=en&lang=de")
    assert received.name == "SAMLResponse"
    assert received.signature is None
    assert received.relay_state is None


def test_line_breaks_within_base64_are_part_of_it() -> None:
    broken = base64.encodebytes(make_request()).decode()
    assert "\n" in broken
    for text in (broken, broken.replace("\n", "\r\n")):
        assert receive_post([("SAMLRequest", text)]).xml == make_request()
    query = b"SAMLRequest=" + quote(base64.encodebytes(deflate(make_request())).decode()).encode()
    assert receive_redirect(query).xml == make_request()


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (b"", "request-message-missing"),
        (b"RelayState=x", "request-message-missing"),
        (b"SAMLRequest=", "request-message-missing"),
        (b"SAMLRequest", "request-message-missing"),
        (b"SAMLRequest=%zz", "request-encoding"),
        (b"SAMLRequest=AA%3", "request-encoding"),
        (b"SAMLRequest=AA%3D", "request-encoding"),
        (b"SAMLRequest=AAA%3D%3D", "request-encoding"),
        (b"SAMLRequest=AA%3D%3DAA%3D%3D", "request-encoding"),
        (b"SAMLRequest=%C3%A9%C3%A9%C3%A9%C3%A9", "request-encoding"),
        (b"SAMLRequest=%ff", "request-encoding"),
        (b"SAMLRequest=\xff", "request-encoding"),
        (b"SAMLRequest=fZHd+sNA", "request-encoding"),
        (b"%53AMLRequest=x", "request-encoding"),
        (b"SAMLRequest=x&Sig%41lg=x", "request-encoding"),
        (b"SAMLRequest=AAAA", "request-inflate"),
        (b"SAMLRequest=x&Signature=", "request-half-signed"),
    ],
)
def test_what_is_refused_has_a_stable_code(query: bytes, code: str) -> None:
    if code == "request-half-signed":
        query = make_query(make_request(), key=None) + b"&Signature="
    assert refusal(query).code == code


def test_s20_a_plus_sign_that_was_not_encoded_is_named() -> None:
    assert "plus sign" in refusal(b"SAMLRequest=fZHd+sNA").detail


def test_x11_sizes_are_bounded_before_anything_is_decoded() -> None:
    assert refusal(b"SAMLRequest=" + b"A" * MOST_ENCODED_BYTES).code == "request-large"
    assert refused_fields(("SAMLRequest", "A" * (MOST_ENCODED_BYTES + 1))).code == "request-large"
    too_much = base64.b64encode(bytes(MESSAGE_LIMITS.max_bytes + 1)).decode()
    assert refused_fields(("SAMLRequest", too_much)).code == "request-large"
    assert len(receive_post([("SAMLRequest", base64.b64encode(bytes(MESSAGE_LIMITS.max_bytes)).decode())]).xml) == 65536
    with pytest.raises(XmlRefused) as caught:
        receive_soap(b" " * (MESSAGE_LIMITS.max_bytes + 1))
    assert caught.value.code == "xml-too-large"


def test_x13_a_bomb_is_never_inflated() -> None:
    bomb = query_of(deflate(bytes(60_000_000)))
    for query in (bomb, read_vector("bad", "deflate-bomb")):
        tracemalloc.start()
        with counting_work() as work:
            assert refusal(query).code == "request-large"
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert work.calls < 500
        assert peak < 2_000_000
    assert len(receive_redirect(query_of(deflate(bytes(MESSAGE_LIMITS.max_bytes)))).xml) == MESSAGE_LIMITS.max_bytes
    assert refusal(query_of(deflate(bytes(MESSAGE_LIMITS.max_bytes + 1)))).code == "request-large"


def test_x13_only_raw_deflate_to_its_very_end_is_read() -> None:
    data = make_request()
    for other in (deflate(data, 15), deflate(data, 31), data, deflate(data)[:-1], deflate(data) + b"\0", b""):
        assert refusal(query_of(other)).code in ("request-inflate", "request-message-missing")
    for name in ("deflate-trailing-data", "deflate-truncated", "zlib-header", "not-deflated"):
        assert refusal(read_vector("bad", name)).code == "request-inflate"


@pytest.mark.parametrize("name", ["SAMLRequest", "RelayState", "SigAlg", "Signature"])
def test_s20_a_parameter_under_any_name_counts_once(name: str) -> None:
    query = make_query(make_request(), relay_state="token")
    twice = next(part for part in query.split(b"&") if part.startswith(name.encode()))
    for written in (name, f"%{ord(name[0]):02x}{name[1:]}", f"{name[:-1]}%{ord(name[-1]):02X}"):
        for more in (written.encode() + b"=" + twice.partition(b"=")[2], written.encode() + b"=evil", written.encode()):
            assert refusal(query + b"&" + more).code == "request-duplicate-parameter"
            assert refusal(more + b"&" + query).code in ("request-duplicate-parameter", "request-encoding")


def test_s20_two_messages_are_never_chosen_from() -> None:
    query = make_query(make_request(), key=None)
    both = query + b"&" + query.replace(b"SAMLRequest", b"SAMLResponse")
    assert refusal(both).code == "request-two-messages"
    assert refused_fields(("SAMLRequest", "AAAA"), ("SAMLResponse", "AAAA")).code == "request-two-messages"
    assert refused_fields(("SAMLRequest", "AAAA"), ("SAMLRequest", "AAAA")).code == "request-duplicate-parameter"
    assert refused_fields(("SAMLRequest", "AAAA"), ("RelayState", ""), ("RelayState", "")).code.endswith("parameter")


@pytest.mark.parametrize("vector", read_vectors("good"), ids=lambda one: one["name"])
def test_s20_the_octets_as_they_came_are_verified(vector: dict[str, str]) -> None:
    request, acs = judge(receive_redirect(vector["query"].encode()))
    assert (request.received.signature is None) is (vector["name"] == "unsigned-sp2")
    assert acs.location in (one.location for one in partners()[request.issuer].acs)
    given_ = dict(parse_qsl(vector["query"], keep_blank_values=True))
    assert request.received.relay_state == given_.get("RelayState")


@pytest.mark.parametrize(
    "encode",
    [
        lambda value: quote(value, safe=""),
        lambda value: quote(value, safe="/:"),
        lambda value: quote(value, safe="/=:#") if "#" not in value else quote(value, safe="/:"),
        lambda value: "".join(f"%{byte:02x}" for byte in value.encode()),
        lambda value: "".join(f"%{byte:02X}" for byte in value.encode()),
        lambda value: quote(value, safe="").replace("%20", "+"),
    ],
    ids=["strict", "slashes", "equals", "all-lower", "all-upper", "plus-for-space"],
)
def test_s20_any_encoding_that_was_signed_verifies(encode: object) -> None:
    query = make_query(make_request(), relay_state="two words/and more", encode=encode)  # type: ignore[arg-type]
    request, _ = judge(receive_redirect(query))
    assert request.received.relay_state == "two words/and more"


def test_s20_another_encoding_than_the_signed_one_does_not_verify() -> None:
    query = make_query(make_request(), relay_state="a/b")
    for changed in (query.replace(b"a%2Fb", b"a%2fb"), query.replace(b"a%2Fb", b"a/b")):
        assert receive_redirect(changed).relay_state == "a/b"
        with pytest.raises(SignatureRefused):
            judge(receive_redirect(changed))


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        ("sp-signing", "rsa-sha256"),
        ("sp-signing", "rsa-sha384"),
        ("sp-signing", "rsa-sha512"),
        ("ec-p256", "ecdsa-sha256"),
        ("ec-p256", "ecdsa-sha384"),
    ],
)
def test_detached_signatures_verify_by_each_listed_algorithm(key: str, algorithm: str) -> None:
    signature = receive_redirect(make_query(make_request(), key=key, algorithm=MORE + algorithm)).signature
    assert signature is not None
    verify_octets(signature, [read_pin("attacker"), read_pin(key)])
    with pytest.raises(SignatureRefused):
        verify_octets(signature, [read_pin("attacker")])


def test_s24_an_ecdsa_value_has_two_forms_and_each_is_read_strictly() -> None:
    signature = receive_redirect(make_query(make_request(), key="ec-p256", algorithm=f"{MORE}ecdsa-sha256")).signature
    assert signature is not None
    der = signature.value
    r, s = der[4 : 4 + der[3]], der[6 + der[3] :]
    raw = b"".join(int.from_bytes(part, "big").to_bytes(32, "big") for part in (r, s))

    def accepts(value: bytes) -> bool:
        signed = DetachedSignature(signature.algorithm, value, signature.octets)
        code = refusal_code(lambda: verify_octets(signed, [read_pin("ec-p256")]))
        assert code in ("", "signature-invalid")
        return code == ""

    assert accepts(der)
    assert accepts(raw)
    long_form = b"\x30\x81" + der[1:]
    padded = b"\x30" + bytes([der[1] + 1]) + b"\x02" + bytes([der[3] + 1]) + b"\0" + der[4:]
    refused = (
        der + b"\0",
        b"\0" + der,
        der[:-1],
        raw + b"\0",
        b"\0" + raw,
        raw[:-1],
        long_form,
        padded,
        b"",
        b"\0" * 64,
    )
    for value in (
        *refused,
        b"\0" * 32 + raw[32:],
        raw[:32] + b"\0" * 32,
        b"\x30\x06\x02\x01\x00\x02\x01\x00",
        b"\xff" * 64,
    ):
        assert not accepts(value)


@pytest.mark.parametrize(
    ("algorithm", "key", "code"),
    [
        ("http://www.w3.org/2000/09/xmldsig#rsa-sha1", "sp-signing", "signature-algorithm"),
        (f"{MORE}rsa-md5", "sp-signing", "signature-algorithm"),
        (f"{MORE}hmac-sha256", "sp-signing", "signature-algorithm"),
        ("http://www.w3.org/2007/05/xmldsig-more#sha256-rsa-MGF1", "sp-signing", "signature-algorithm"),
        ("", "sp-signing", "signature-algorithm"),
        ("urn:x", "sp-signing", "signature-algorithm"),
        (f"{MORE}rsa-sha256 ", "sp-signing", "signature-algorithm"),
        (f"{MORE}RSA-SHA256", "sp-signing", "signature-algorithm"),
        (f"{MORE}rsa-sha256", "ec-p256", "signature-key-unusable"),
        (f"{MORE}ecdsa-sha256", "sp-signing", "signature-key-unusable"),
        (f"{MORE}rsa-sha256", "rsa768", "signature-key-unusable"),
        (f"{MORE}rsa-sha256", "dsa2048", "signature-key-unusable"),
        (f"{MORE}rsa-sha384", "sp-signing", "signature-invalid"),
    ],
)
def test_s6_s7_s9_s24_s25_only_listed_algorithms_and_fitting_keys(algorithm: str, key: str, code: str) -> None:
    signature = receive_redirect(make_query(make_request())).signature
    assert signature is not None
    with pytest.raises(SignatureRefused) as caught:
        verify_octets(DetachedSignature(algorithm, signature.value, signature.octets), [read_pin(key)])
    assert caught.value.code == code


def test_s5_a_key_for_encryption_verifies_no_query() -> None:
    signature = receive_redirect(make_query(make_request())).signature
    assert signature is not None
    der = read_pin("sp-signing").der
    verify_octets(signature, [parse_certificate(der, use="signing")])
    with pytest.raises(SignatureRefused):
        verify_octets(signature, [parse_certificate(der, use="encryption")])


def test_a19_a_form_is_read_as_a_form_and_a_query_as_a_query() -> None:
    """A message of one binding is no message of the other, under any method."""
    assert refusal(query_of(make_request())).code == "request-inflate"
    with pytest.raises(RequestRefused) as caught:
        receive_post([("SAMLRequest", base64.b64encode(deflate(make_request())).decode())])
    assert caught.value.code == "request-deflated"


@pytest.mark.parametrize(("wbits", "name"), [(-15, "raw DEFLATE"), (15, "zlib"), (31, "gzip")])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b" \r\n"])
def test_a_message_that_is_compressed_as_another_binding_has_it_is_told_so(wbits: int, name: str, mark: bytes) -> None:
    packer = zlib.compressobj(wbits=wbits)
    data = packer.compress(mark + make_request()) + packer.flush()
    with pytest.raises(RequestRefused) as caught:
        receive_post([("SAMLRequest", base64.b64encode(data).decode())])
    assert caught.value.code == "request-deflated"
    assert name in caught.value.detail
    if wbits != -15:
        refused = refusal(query_of(data))
        assert (refused.code, name in refused.detail) == ("request-inflate", True)


def test_x13_a_bomb_in_a_form_is_not_inflated() -> None:
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(b"<" + b" " * 40_000_000) + packer.flush()
    tracemalloc.start()
    with pytest.raises(RequestRefused):
        receive_post([("SAMLRequest", base64.b64encode(data).decode())])
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_message_in_a_query_that_is_not_compressed_is_told_so() -> None:
    assert "it is plain XML" in refusal(query_of(make_request())).detail
    assert "it cannot be read so" in refusal(query_of(b"\xff\xff\xff")).detail


def test_a_signature_beside_a_form_is_none() -> None:
    received = receive_post([("SAMLRequest", "AAAA"), ("x", "1"), ("x", "2")])
    assert received.signature is None
    assert received.binding == POST_BINDING
    assert receive_post([("SAMLRequest", "AAAA"), ("SigAlg", "x"), ("Signature", "y")]).signature is None


RELAY_STATES = json.loads((REQUESTS / "good" / "relaystate-values.json").read_text())


@pytest.mark.parametrize("value", RELAY_STATES, ids=lambda one: one["name"])
def test_r1_r4_relay_states_are_short_text_or_refused(value: dict[str, str]) -> None:
    state, expected = value["relay_state"], value["expect"]
    encoded = base64.b64encode(make_request()).decode()

    def by_form() -> str | None:
        return receive_post([("SAMLRequest", encoded), *([] if state is None else [("RelayState", state)])]).relay_state

    def by_query() -> str | None:
        written = None if state is None else state.encode("utf-8", "surrogatepass").decode("latin-1")
        return receive_redirect(
            make_query(
                make_request(), relay_state=written, encode=lambda text: quote(text, safe="", encoding="latin-1")
            )
        ).relay_state

    for receive in (by_form, by_query):
        if expected == "accept":
            assert receive() == state
        else:
            with pytest.raises(RequestRefused) as caught:
                receive()
            assert caught.value.code in ("relay-state-long", "relay-state-characters", "request-encoding")
            assert not state or state[:20] not in caught.value.detail


def test_r1_bytes_are_counted_and_not_characters() -> None:
    def receive(state: str) -> str | None:
        return receive_redirect(make_query(make_request(), relay_state=state)).relay_state

    for most in ("x" * 2048, "ü" * 1024, "😀" * 512):
        assert receive(most) == most
        with pytest.raises(RequestRefused) as caught:
            receive(most + "x")
        assert caught.value.code == "relay-state-long"
    for name, size in (("relaystate-81-bytes", 81), ("relaystate-21-emoji-84-bytes", 84)):
        assert len((receive_redirect(read_vector("bad", name)).relay_state or "").encode()) == size
    assert receive("") == ""


@pytest.mark.parametrize("character", ["\r", "\n", "\0", "\t", "\x1b", "\x7f", "\x85", "\x9f"])
def test_r4_control_characters_are_refused(character: str) -> None:
    for receive in (
        lambda: receive_redirect(make_query(make_request(), relay_state=f"a{character}b")),
        lambda: post(make_request(), RelayState=f"a{character}b"),
        lambda: build_redirect("https://x/", "SAMLRequest", b"", relay_state=character, **SIGNING),  # type: ignore[arg-type]
    ):
        with pytest.raises(RequestRefused) as caught:
            receive()
        assert caught.value.code == "relay-state-characters"


SIGNING = {"key": load_key("idp-rsa"), "algorithm": "rsa-sha256"}


@pytest.mark.parametrize("location", ["https://sp.example.com/slo", "https://sp.example.com/slo?a=1&b=%2F"])
@pytest.mark.parametrize("state", [None, "", "two words/ü&="])
@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        ("idp-rsa", "rsa-sha256"),
        ("idp-rsa", "rsa-sha384"),
        ("idp-rsa3072", "rsa-sha512"),
        ("idp-p256", "ecdsa-sha256"),
        ("idp-p384", "ecdsa-sha384"),
    ],
)
def test_what_is_built_is_read_and_verifies(location: str, state: str | None, key: str, algorithm: str) -> None:
    url = build_redirect(
        location,
        "SAMLResponse",
        make_request(),
        relay_state=state,
        key=load_key(key),
        algorithm=algorithm,  # type: ignore[arg-type]
    )
    assert url.startswith(location)
    assert "#" not in url
    received = receive_redirect(urlsplit(url).query.encode())
    assert (received.name, received.xml, received.relay_state) == ("SAMLResponse", make_request(), state)
    assert received.signature is not None
    verify_octets(received.signature, [load_certificate(key, None)])
    names = [name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)]
    expected = ["SAMLResponse", *(["RelayState"] if state is not None else []), "SigAlg", "Signature"]
    assert names[-len(expected) :] == expected


def test_an_envelope_and_what_is_taken_out_of_it() -> None:
    signed = make_signed()
    received = receive_soap(build_soap(b"<?xml version='1.0' encoding='UTF-8'?>\n" + signed))
    assert (received.name, received.binding, received.relay_state) == ("SAMLRequest", SOAP_BINDING, None)
    root = parse_xml(received.xml, limits=MESSAGE_LIMITS)
    assert verify_enveloped(root, [read_pin("sp-signing")], profile=MESSAGE_PROFILE) is root
    assert root.getparent() is None
    assert judge(received)[0].id == "_a1"
    assert receive_soap(build_soap(signed)).xml == received.xml
    answer = f'<p:LogoutResponse xmlns:p="{SAMLP}"/>'.encode()
    assert receive_soap(build_soap(answer)).name == "SAMLResponse"


def test_namespaces_of_the_envelope_go_with_the_message() -> None:
    """A sender may declare them on the envelope, and list them for the canonicalization."""
    envelope = (
        f'<s:Envelope xmlns:s="{SOAP}" xmlns:p="{SAMLP}" xmlns:used="urn:used" xmlns="urn:default">\n'
        f'<s:Header><x>1</x></s:Header><s:Body>\n <p:LogoutRequest ID="_a1"><used:a b="used:c &#10;&lt;"/> tail&#13;'
        f"</p:LogoutRequest>\n</s:Body></s:Envelope>"
    ).encode()
    inside = etree.fromstring(envelope)[1][0]
    alone = parse_xml(receive_soap(envelope).xml, limits=MESSAGE_LIMITS)
    assert dict(alone.nsmap) == dict(inside.nsmap)
    for exclusive in (True, False):
        canonical = [
            etree.tostring(one, method="c14n", exclusive=exclusive, with_tail=False) for one in (alone, inside)
        ]
        assert canonical[0] == canonical[1]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (LOGOUT, "request-soap"),
        (b"<a/>", "request-soap"),
        (f'<s:Envelope xmlns:s="{SOAP}"/>'.encode(), "request-soap"),
        (f'<s:Envelope xmlns:s="{SOAP}"><s:Body/></s:Envelope>'.encode(), "request-soap"),
        (
            f'<s:Envelope xmlns:s="{SOAP}"><s:Body>'.encode() + LOGOUT * 2 + b"</s:Body></s:Envelope>",
            "xml-duplicate-id",
        ),
        (f'<s:Envelope xmlns:s="{SOAP}"><s:Body><a/><b/></s:Body></s:Envelope>'.encode(), "request-soap"),
        (f'<s:Envelope xmlns:s="{SOAP}"><s:Body><a/></s:Body></s:Envelope>'.encode(), "request-soap"),
        (f'<s:Envelope xmlns:s="{SOAP}"><s:Body/><s:Body/></s:Envelope>'.encode(), "request-soap"),
        (f'<s:Envelope xmlns:s="{SOAP}"><s:Body><x/></s:Body><x/></s:Envelope>'.encode(), "request-soap"),
        (f'<s:Envelope xmlns:s="{SOAP}"><s:Body/><s:Header/></s:Envelope>'.encode(), "request-soap"),
        (f'<s:Envelope xmlns:s="{SOAP}"><s:Body><s:Fault/></s:Body></s:Envelope>'.encode(), "request-soap-fault"),
        (b'<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body/></s:Envelope>', "request-soap"),
        (b"<!DOCTYPE a><a/>", "xml-doctype"),
        (b"", "xml-empty"),
        (b"{}", "xml-not-xml"),
    ],
)
def test_envelopes_that_are_refused(body: bytes, code: str) -> None:
    with pytest.raises((RequestRefused, XmlRefused)) as caught:
        receive_soap(body)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("flag", "fits"), [("", True), ('s:mustUnderstand="0"', True), ('s:mustUnderstand="1"', False)]
)
def test_a_header_that_must_be_understood_is_refused(flag: str, fits: bool) -> None:
    start = f'<s:Envelope xmlns:s="{SOAP}"><s:Header><x:h xmlns:x="urn:x" {flag}/></s:Header><s:Body>'
    body = start.encode() + LOGOUT + b"</s:Body></s:Envelope>"
    if fits:
        assert receive_soap(body).name == "SAMLRequest"
    else:
        with pytest.raises(RequestRefused) as caught:
            receive_soap(body)
        assert caught.value.code == "request-soap"


@given(st.binary(max_size=400))
def test_any_query_and_any_body_is_read_or_refused(data: bytes) -> None:
    for read in (receive_redirect, receive_soap, lambda some: receive_redirect(b"SAMLRequest=" + some)):
        refused = find_refusal(lambda read=read: read(data))  # type: ignore[misc]  # as bound now
        if refused is not None:
            assert refused.code.startswith(("request-", "xml-", "relay-state-"))
            assert refused.diagnosis().isprintable()


@given(st.lists(st.tuples(st.sampled_from(["SAMLRequest", "SAMLResponse", "RelayState", "x"]), st.text()), max_size=4))
def test_any_form_is_read_or_refused(fields: list[tuple[str, str]]) -> None:
    code = refusal_code(lambda: receive_post(fields))
    assert code.startswith(("request-", "relay-state-")) or receive_post(fields).relay_state == dict(fields).get(
        "RelayState"
    )


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20))
def test_any_short_text_comes_back_as_it_was(state: str) -> None:
    url = build_redirect("https://x/", "SAMLRequest", b"<a/>", relay_state=state, **SIGNING)  # type: ignore[arg-type]
    assert receive_redirect(urlsplit(url).query.encode()).relay_state == state
    assert unquote_plus(urlsplit(url).query).count("RelayState=") >= 1
