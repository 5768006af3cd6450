"""The content of a response: golden files, the schema, and values never issued."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import hmac
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import xmlsec
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from saml_bridge.keys.signing_key import SignatureFault
from saml_bridge.mapping.characters import is_blank
from saml_bridge.mapping.rules import compile_mapping
from saml_bridge.model.document import AttributeMapping, Rule, TransformCall
from saml_bridge.model.errors import LaunchRefused, PartnerUnusable, ValueRefused
from saml_bridge.model.values import Attribute, Severity
from saml_bridge.protocols.saml.metadata.service_provider import Endpoint
from saml_bridge.protocols.saml.response import (
    BuiltResponse,
    ResponseStamp,
    check_saml_partner,
    format_instant,
    make_stamp,
)
from saml_bridge.protocols.saml.xml.certificates import Certificate, EncryptionMethod
from saml_bridge.protocols.saml.xml.encrypt import RSA_1_5, RSA_OAEP, RSA_OAEP_MGF1P, find_cipher_uri
from saml_bridge.protocols.saml.xml.parse import list_schema_errors
from tests.protocols.saml.issuing import (
    ACS,
    ATTRIBUTES,
    BASIC,
    ISSUER,
    KEYS,
    NAMES,
    NOW,
    SECRET,
    SP_ENTITY_ID,
    STAMP,
    build,
    check_golden,
    find_all,
    load_certificate,
    load_key,
    make_metadata,
    make_partner,
    make_session,
    make_settings,
)
from tests.protocols.saml.xml.test_encrypt import decrypt

CIPHERS = ("aes128-gcm", "aes256-gcm", "aes128-cbc", "aes256-cbc")
CLASSES = "urn:oasis:names:tc:SAML:2.0:ac:classes:"
NAME_IDS = {
    "persistent": {"format": "persistent", "from_": "payer.id"},
    "email": {"format": "email", "from_": "payer.email"},
    "transient": {"format": "transient", "from_": "payer.id"},
    "unspecified": {"format": "unspecified", "from_": "account.number"},
}


def name_id(format_: str, from_: str = "payer.email") -> Any:
    return dataclasses.replace(make_settings().name_id, format=format_, from_=from_)


def name_id_of(value: object, format_: str = "unspecified") -> str:
    """The NameID of a payer whose source field has `value`, read back from the response."""
    session = make_session(payer={"id": "P-1001", "email": value})
    xml = build(make_partner(name_id=name_id(format_)), session=session).xml
    return str(find_all(xml, "string(//saml:NameID)")[0])


def one_value(value: str) -> tuple[Attribute, ...]:
    return (Attribute("secret", (value,), BASIC),)


def carry(value: str, **partner: Any) -> bytes:
    """The response for a payer with this value in a mapped field."""
    session = make_session(payer={"id": "P-1001", "email": value, "custom": {}})
    mapping = compile_mapping(AttributeMapping("usage", (Rule("secret", from_="payer.email"),)))
    return build(make_partner(**partner), session=session, attributes=mapping.evaluate(session, None)).xml


def read_values(xml: bytes, key: str = "idp-rsa") -> dict[str, list[str]]:
    """Attributes as a careful reader sees them: lxml alone, and only when the signatures verify."""
    root = etree.fromstring(xml)
    for signature in root.iterfind(".//ds:Signature", NAMES):
        context = xmlsec.SignatureContext()
        context.key = xmlsec.Key.from_file(str(KEYS / f"{key}.cert.pem"), xmlsec.KeyFormat.CERT_PEM)
        context.register_id(signature.getparent(), "ID")
        context.verify(signature)
    found: dict[str, list[str]] = {}
    for attribute in root.iterfind(".//saml:Attribute", NAMES):
        assert attribute.get("Name") not in found
        found[str(attribute.get("Name"))] = [value.text or "" for value in attribute]
    return found


def codes(**facts: Any) -> dict[str, Severity]:
    """The findings of `check_saml_partner`, by code."""
    given_facts = {
        "settings": make_settings(),
        "metadata": make_metadata(),
        "issuer": ISSUER,
        "key": load_key("idp-rsa"),
    }
    findings = check_saml_partner(**{**given_facts, "pairwise_secret": SECRET, **facts})
    assert all(finding.message and finding.fix and finding.where for finding in findings)
    return {finding.code: finding.severity for finding in findings}


# Golden files: RSA signatures are reproducible, so with fixed clock, identifiers and key the whole document is


@pytest.mark.parametrize("sign", ["both", "assertion", "response"])
def test_golden_sign(sign: str) -> None:
    xml = build(make_partner(sign=sign)).xml
    check_golden(f"sign-{sign}", xml)
    assert len(read_values(xml)) == len(ATTRIBUTES)


@pytest.mark.parametrize("format_", NAME_IDS)
def test_golden_name_id(format_: str) -> None:
    partner = make_partner(name_id=name_id(format_=format_, from_=NAME_IDS[format_]["from_"]))
    check_golden(f"name-id-{format_}", build(partner).xml)


@pytest.mark.parametrize(
    ("key", "algorithm"), [("idp-rsa", "rsa-sha384"), ("idp-rsa", "rsa-sha512"), ("idp-rsa3072", "rsa-sha256")]
)
def test_golden_algorithm(key: str, algorithm: str) -> None:
    xml = build(make_partner(key=key, signature_algorithm=algorithm)).xml
    check_golden(f"algorithm-{key}-{algorithm}", xml)
    assert len(read_values(xml, key)) == len(ATTRIBUTES)


def test_golden_in_response_to() -> None:
    check_golden("in-response-to", build(in_response_to="_request-1").xml)


def test_golden_no_attributes() -> None:
    check_golden("no-attributes", build(attributes=()).xml)


# The schema


@pytest.mark.parametrize("in_response_to", [None, "_request-1"], ids=["unsolicited", "answer"])
@pytest.mark.parametrize("attributes", [ATTRIBUTES, (), one_value("")], ids=["some", "none", "empty value"])
@pytest.mark.parametrize("format_", NAME_IDS)
@pytest.mark.parametrize("encrypt", ["never", "always"])
@pytest.mark.parametrize("sign", ["both", "assertion", "response"])
def test_every_response_is_valid(
    sign: str, encrypt: str, format_: str, attributes: tuple[Attribute, ...], in_response_to: str | None
) -> None:
    partner = make_partner(sign=sign, encrypt=encrypt, name_id=name_id(format_))
    xml = build(partner, attributes=attributes, in_response_to=in_response_to).xml
    root = etree.fromstring(xml)
    assert list_schema_errors(root, "protocol") == ()
    if encrypt == "always":
        assertion = decrypt(root.find("saml:EncryptedAssertion", NAMES))
        assert list_schema_errors(etree.fromstring(etree.tostring(assertion)), "assertion") == ()


# Contents


def test_what_came_out_is_told() -> None:
    built = build()
    assert (built.response_id, built.assertion_id) == (STAMP.response_id, STAMP.assertion_id)
    assert built.session_index == STAMP.session_index
    assert built.name_id == find_all(built.xml, "string(//saml:NameID)")[0]
    assert built.name_id_format == find_all(built.xml, "string(//saml:NameID/@Format)")[0]


def test_the_response_names_who_where_and_when() -> None:
    xml = build().xml
    assert find_all(xml, "/samlp:Response/saml:Issuer/text() | //saml:Assertion/saml:Issuer/text()") == [ISSUER] * 2
    assert find_all(xml, "string(/samlp:Response/@Destination)") == [ACS]
    assert find_all(xml, "//saml:SubjectConfirmationData/@Recipient") == [ACS]
    assert find_all(xml, "//saml:Audience/text()") == [SP_ENTITY_ID]
    assert find_all(xml, "//@IssueInstant") == ["2026-01-15T12:00:00Z"] * 2
    assert find_all(xml, "//samlp:StatusCode/@Value") == ["urn:oasis:names:tc:SAML:2.0:status:Success"]


def test_one_assertion_one_bearer_confirmation_one_statement_each() -> None:
    xml = build().xml
    for tag in ("Assertion", "Subject", "NameID", "SubjectConfirmation", "Conditions", "AudienceRestriction"):
        assert len(find_all(xml, f"//saml:{tag}")) == 1
    assert len(find_all(xml, "//saml:AuthnStatement")) == len(find_all(xml, "//saml:AttributeStatement")) == 1
    assert find_all(xml, "//saml:SubjectConfirmation/@Method") == ["urn:oasis:names:tc:SAML:2.0:cm:bearer"]


def test_signatures_stand_right_after_the_issuers() -> None:
    xml = build().xml
    for parent in ("samlp:Response", "saml:Assertion"):
        assert find_all(xml, f"local-name(//{parent}/*[1])") == ["Issuer"]
        assert find_all(xml, f"local-name(//{parent}/*[2])") == ["Signature"]
    certificate = load_key("idp-rsa").certificate
    assert find_all(xml, "//ds:KeyInfo/ds:X509Data/ds:X509Certificate/text()") == [certificate] * 2


@pytest.mark.parametrize(
    ("sign", "signed"), [("both", ["Response", "Assertion"]), ("assertion", ["Assertion"]), ("response", ["Response"])]
)
def test_what_is_signed_is_what_the_settings_say(sign: str, signed: list[str]) -> None:
    parents = find_all(build(make_partner(sign=sign)).xml, "//ds:Signature/parent::*")
    assert [etree.QName(parent).localname for parent in parents] == signed


def test_attributes_go_out_typed_named_and_in_order() -> None:
    xml = build().xml
    names = ["accountNumber", "urn:oid:0.9.2342.19200300.100.1.3", "meters", "fullName"]
    assert find_all(xml, "//saml:Attribute/@Name") == names
    assert find_all(xml, "//saml:Attribute/@FriendlyName") == ["mail", "Full name"]
    assert find_all(xml, "//saml:Attribute[2]/@NameFormat") == ["urn:oasis:names:tc:SAML:2.0:attrname-format:uri"]
    types = find_all(xml, "//saml:AttributeValue/@*[local-name() = 'type']")
    assert types == ["xs:string"] * 5
    assert read_values(xml)["meters"] == ["M-1", "M-2"]


def test_without_attributes_there_is_no_statement_of_them() -> None:
    assert find_all(build(attributes=()).xml, "//saml:AttributeStatement") == []


def test_the_configured_acs_is_used() -> None:
    binding = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
    metadata = make_metadata(acs=(Endpoint(binding, ACS, 0, True), Endpoint(binding, "https://sp.example.com/2", 1)))
    partner = make_partner(metadata=metadata, acs=1)
    assert partner.acs.location == "https://sp.example.com/2"
    assert find_all(build(partner).xml, "//@Recipient | //@Destination") == ["https://sp.example.com/2"] * 2


def test_the_assertion_can_be_taken_out_of_the_response_whole() -> None:
    """The assertion survives being cut out as text, as some partners do.

    It declares each namespace that it uses and its signature holds.
    """
    xml = build().xml
    start, end = xml.index(b"<saml:Assertion"), xml.index(b"</saml:Assertion>") + len(b"</saml:Assertion>")
    alone = xml[start:end]
    assert list_schema_errors(etree.fromstring(alone), "assertion") == ()
    assert read_values(alone) == read_values(xml)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_an_encrypted_assertion_is_the_one_that_was_signed(cipher: str) -> None:
    xml = build(make_partner(encrypt="always", encryption_algorithm=cipher)).xml
    assert find_all(xml, "//saml:Assertion") == []
    assertion = decrypt(etree.fromstring(xml).find("saml:EncryptedAssertion", NAMES))
    plain = etree.fromstring(build().xml).find("saml:Assertion", NAMES)
    assert etree.tostring(assertion, method="c14n", exclusive=True) == etree.tostring(
        plain, method="c14n", exclusive=True
    )


@pytest.mark.parametrize(
    ("encrypt", "certificates", "encrypted"),
    [
        ("never", (load_certificate("sp-encryption"),), False),
        ("when_offered", (load_certificate("sp-encryption"),), True),
        ("when_offered", (load_certificate("sp-encryption", None),), True),
        ("when_offered", (load_certificate("sp-signing", "signing"),), False),
        ("when_offered", (), False),
        ("always", (load_certificate("sp-encryption"),), True),
    ],
)
def test_when_an_assertion_is_encrypted(encrypt: str, certificates: Any, encrypted: bool) -> None:
    xml = build(make_partner(encrypt=encrypt, metadata=make_metadata(certificates=certificates))).xml
    assert (b"EncryptedAssertion" in xml) is encrypted
    assert (b"AttributeStatement" in xml) is not encrypted


def test_a_key_for_encryption_alone_is_preferred() -> None:
    certificates = (load_certificate("sp-signing", None), load_certificate("sp-encryption"))
    xml = build(make_partner(encrypt="always", metadata=make_metadata(certificates=certificates))).xml
    assert decrypt(etree.fromstring(xml).find("saml:EncryptedAssertion", NAMES)).get("ID") == STAMP.assertion_id


def test_threads_may_share_a_partner() -> None:
    partner, expected = make_partner(), build().xml
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: build(partner).xml, range(200))) == {expected}


def test_a_compiled_partner_is_not_changed_by_its_launches() -> None:
    partner = make_partner()
    build(partner, in_response_to="_request-1", session=make_session(payer={"id": "another", "email": "x"}))
    assert build(partner).xml == build().xml


def test_a_compiled_partner_shows_no_secret() -> None:
    shown = repr(make_partner())
    assert repr(SECRET)[2:-1] not in shown
    assert "private" not in shown


# The name ID


def test_a_persistent_name_id_names_both_sides() -> None:
    xml = build(make_partner(name_id=name_id("persistent", "payer.id"))).xml
    assert find_all(xml, "//saml:NameID/@NameQualifier") == [ISSUER]
    assert find_all(xml, "//saml:NameID/@SPNameQualifier") == [SP_ENTITY_ID]
    assert re.fullmatch("[0-9a-f]{64}", find_all(xml, "string(//saml:NameID)")[0])


@pytest.mark.parametrize("format_", ["email", "transient", "unspecified"])
def test_other_name_ids_have_no_qualifiers(format_: str) -> None:
    xml = build(make_partner(name_id=name_id(format_))).xml
    assert find_all(xml, "//saml:NameID/@NameQualifier | //saml:NameID/@SPNameQualifier") == []


def test_a_transient_name_id_is_that_of_the_stamp() -> None:
    partner = make_partner(name_id=name_id("transient"))
    assert build(partner, session=make_session(payer={"id": "P-1001"})).name_id == STAMP.transient_id


def test_a_persistent_name_id_stays_as_it_was_ever_computed() -> None:
    """The name ID is recomputed here by hand.

    A change would lock every payer out of what the partner keeps for them.
    """

    def frame(part: bytes) -> bytes:
        return len(part).to_bytes(4, "big") + part

    parts = (b"saml_bridge pairwise name ID, version 1", b"riverton-water", b"aquahawk", b"P-1001")
    expected = hmac.new(SECRET, b"".join(frame(part) for part in parts), hashlib.sha256).hexdigest()
    assert build().name_id == expected


@pytest.mark.parametrize("format_", ["email", "unspecified"])
def test_a_name_id_takes_transforms(format_: str) -> None:
    settings = dataclasses.replace(name_id(format_), transforms=(TransformCall("strip"), TransformCall("lower")))
    session = make_session(payer={"id": "P-1001", "email": "Ada@Example.NET\r\n"})
    assert build(make_partner(name_id=settings), session=session).name_id == "ada@example.net"


def test_a_name_id_from_a_template() -> None:
    settings = dataclasses.replace(name_id("email"), from_=None, template="{payer.id}@riverton.example")
    assert build(make_partner(name_id=settings)).name_id == "P-1001@riverton.example"


def test_a_persistent_name_id_is_hashed_after_its_transforms() -> None:
    plain, lower = (
        name_id("persistent"),
        dataclasses.replace(name_id("persistent"), transforms=(TransformCall("lower"),)),
    )
    one, other = (make_session(payer={"id": "P", "email": value}) for value in ("Ada@E.net", "ada@e.net"))
    assert (
        build(make_partner(name_id=lower), session=one).name_id
        == build(make_partner(name_id=plain), session=other).name_id
    )
    assert (
        build(make_partner(name_id=plain), session=one).name_id
        != build(make_partner(name_id=plain), session=other).name_id
    )


@pytest.mark.parametrize("value", [None, "", " ", "\u00a0", "\u200b"])
@pytest.mark.parametrize("format_", ["persistent", "email", "unspecified"])
def test_a_payer_without_the_source_field_is_refused(format_: str, value: str | None) -> None:
    with pytest.raises(LaunchRefused) as refused:
        name_id_of(value, format_)
    assert refused.value.code == "name-id-missing"


def test_no_value_is_picked_from_several() -> None:
    session = make_session(payer={"id": "P-1", "custom": {"ids": ["a", "b"]}})
    with pytest.raises(LaunchRefused) as refused:
        build(make_partner(name_id=name_id("unspecified", "payer.custom.ids")), session=session)
    assert refused.value.code == "name-id-ambiguous"


def test_a_name_id_of_the_account_needs_one() -> None:
    partner = make_partner(name_id=name_id("unspecified", "account.number"))
    assert build(partner).name_id == "000123456"
    with pytest.raises(LaunchRefused):
        build(partner, account=None)


@pytest.mark.parametrize(
    "value", ["ada", "@example.net", "ada@", "a@b@c", "ada@exa mple.net", "Ada <ada@example.net>", "a" * 65 + "@b"]
)
def test_an_email_name_id_looks_like_an_address(value: str) -> None:
    with pytest.raises(ValueRefused):
        name_id_of(value, "email")


def test_a_name_id_has_a_bounded_length() -> None:
    assert name_id_of("x" * 256) == "x" * 256
    with pytest.raises(ValueRefused):
        name_id_of("x" * 257)


# What is issued, threat by threat


@pytest.mark.parametrize(
    "value", ['</saml:AttributeValue><saml:Attribute Name="role">', "]]>", "&x;", "<!--", "<?pi?>", "&amp;lt;", "\"'"]
)
def test_o1_markup_in_a_value_is_text(value: str) -> None:
    assert read_values(carry(value)) == {"secret": [value]}


@pytest.mark.parametrize("format_", ["persistent", "email", "unspecified"])
def test_o2_a_broken_name_id_source_is_refused(format_: str) -> None:
    with pytest.raises(ValueRefused) as refused:
        name_id_of("ada\ud800@example.net", format_)
    assert "NameID" in refused.value.detail


@pytest.mark.parametrize("format_", ["email", "unspecified"])
@pytest.mark.parametrize(
    "char", ["<", ">", " ", "\t", "\n", "\r", "\x00", "\x7f", "\x85", "\u00a0", "\u3000", "\u2028"]
)
def test_o3_markup_and_white_space_in_a_name_id_are_refused(format_: str, char: str) -> None:
    with pytest.raises(ValueRefused) as refused:
        name_id_of(f"ada{char}x@example.net", format_)
    assert "ada" not in refused.value.detail


def test_o3_a_comment_in_a_name_id_is_refused_and_in_an_attribute_is_text() -> None:
    value = "admin@example.com<!---->.evil.example"
    with pytest.raises(ValueRefused):
        name_id_of(value)
    assert read_values(carry(value)) == {"secret": [value]}


@pytest.mark.parametrize("format_", ["email", "unspecified"])
@pytest.mark.parametrize("value", ["o'neil&sons@example.net", "&lt;@example.net", "a&b;#$%*+/=?^_`{|}~@example.net"])
def test_o3_an_ampersand_is_a_letter_of_an_address(format_: str, value: str) -> None:
    assert name_id_of(value, format_) == value


def test_o4_no_folding_of_names() -> None:
    pairs = [("ﬁ@example.net", "fi@example.net"), ("Ada@example.net", "ada@example.net"), ("é@e.net", "e\u0301@e.net")]
    for one, other in pairs:
        assert name_id_of(one, "email") == one
        assert name_id_of(other, "email") == other
        assert name_id_of(one, "persistent") != name_id_of(other, "persistent")


@pytest.mark.parametrize(
    "char",
    [
        *("\u202e", "\u202a", "\u2066", "\u2069", "\u200e", "\u061c", "\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad"),
        *("\u034f", "\u115f", "\u3164", "\ufe0f", "\U000e0101", "\ue000"),
    ],
)
def test_o5_invisible_characters_never_in_a_name_id(char: str) -> None:
    with pytest.raises(ValueRefused):
        name_id_of(f"ada{char}@example.net")
    assert read_values(carry(f"a{char}b")) == {"secret": [f"a{char}b"]}


def test_o6_audience_and_recipient_are_the_partners_own() -> None:
    binding = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
    other = make_metadata(
        entity_id="https://other.example.com/", acs=(Endpoint(binding, "https://other.example.com/a"),)
    )
    xml = build(make_partner(metadata=other)).xml
    assert find_all(xml, "//saml:Audience/text()") == ["https://other.example.com/"]
    assert find_all(xml, "//@Recipient | //@Destination") == ["https://other.example.com/a"] * 2
    assert SP_ENTITY_ID.encode() not in xml


def test_o7_an_assertion_is_short_lived() -> None:
    xml = build(make_partner(lifetime_seconds=300, skew_seconds=60)).xml
    assert find_all(xml, "//saml:Conditions/@NotBefore") == ["2026-01-15T11:59:00Z"]
    assert find_all(xml, "//@NotOnOrAfter") == ["2026-01-15T12:05:00Z"] * 2
    assert find_all(xml, "//saml:SubjectConfirmationData/@NotBefore") == []
    assert find_all(xml, "//@SessionNotOnOrAfter") == ["2026-01-15T12:40:00Z"]


@pytest.mark.parametrize("seconds", [86400, 301, 0, -1])
def test_o7_a_long_lifetime_is_refused(seconds: int) -> None:
    assert codes(settings=make_settings(lifetime_seconds=seconds)) == {"lifetime-out-of-range": Severity.ERROR}
    with pytest.raises(PartnerUnusable):
        make_partner(lifetime_seconds=seconds)


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(seconds=-1), timedelta(days=-1)])
def test_o7_a_portal_session_that_has_ended_bounds_nothing(ahead: timedelta) -> None:
    """A SessionNotOnOrAfter in the past ends the sign-in at most partners.

    Whether to launch is decided elsewhere.
    """
    assert find_all(build(session=make_session(expires_at=NOW + ahead)).xml, "//@SessionNotOnOrAfter") == []


@pytest.mark.parametrize(
    ("now", "before", "after"),
    [
        (datetime(2026, 12, 31, 23, 59, 59, 999999, UTC), "2026-12-31T23:58:59Z", "2027-01-01T00:04:59Z"),
        (datetime(2028, 2, 28, 23, 58, tzinfo=UTC), "2028-02-28T23:57:00Z", "2028-02-29T00:03:00Z"),
        (
            datetime(2026, 3, 8, 1, 59, tzinfo=timezone(timedelta(hours=-5))),
            "2026-03-08T06:58:00Z",
            "2026-03-08T07:04:00Z",
        ),
        (
            datetime(2026, 11, 1, 1, 30, tzinfo=timezone(timedelta(hours=-4))),
            "2026-11-01T05:29:00Z",
            "2026-11-01T05:35:00Z",
        ),
    ],
    ids=["year end", "leap day", "clocks go forward", "clocks go back"],
)
def test_o8_times_are_utc_to_the_second(now: datetime, before: str, after: str) -> None:
    xml = build(stamp=make_stamp(now, os.urandom)).xml
    assert find_all(xml, "//@NotBefore") == [before]
    assert find_all(xml, "//@NotOnOrAfter") == [after, after]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one) for one in find_all(xml, "//@IssueInstant"))


def test_o8_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        make_stamp(datetime(2026, 1, 15, 12, 0), os.urandom)  # noqa: DTZ001  that is the point


def test_o8_instants() -> None:
    assert format_instant(datetime(2026, 1, 15, 7, 0, 0, 999, timezone(timedelta(hours=-5)))) == "2026-01-15T12:00:00Z"


def test_o9_identifiers_are_unguessable_and_never_the_same() -> None:
    stamps = [make_stamp(NOW, os.urandom) for _ in range(25_000)]
    ids = [
        one for each in stamps for one in (each.response_id, each.assertion_id, each.session_index, each.transient_id)
    ]
    assert len(set(ids)) == 100_000
    assert all(re.fullmatch("_[0-9a-f]{40}", one) for one in ids[:1000])


def test_o9_identifiers_are_the_random_bytes_given() -> None:
    stamp = make_stamp(NOW, lambda count: bytes(range(count)))
    assert stamp.response_id == "_" + bytes(range(20)).hex()
    assert stamp.transient_id == "_" + bytes(range(60, 80)).hex()
    assert stamp == ResponseStamp(NOW, stamp.response_id, stamp.assertion_id, stamp.session_index, stamp.transient_id)


def test_o9_two_launches_differ_in_each_identifier() -> None:
    one, other = (build(stamp=make_stamp(NOW, os.urandom)) for _ in range(2))
    for name in ("response_id", "assertion_id", "session_index"):
        assert getattr(one, name) != getattr(other, name)
    ids = find_all(one.xml, "//@ID | //@SessionIndex")
    assert ids == [one.response_id, one.assertion_id, one.session_index]


def test_o10_an_unsolicited_response_answers_nothing() -> None:
    assert b"InResponseTo" not in build().xml


def test_o10_an_answer_names_its_request_twice() -> None:
    xml = build(in_response_to="_request-1").xml
    assert find_all(xml, "/samlp:Response/@InResponseTo") == ["_request-1"]
    assert find_all(xml, "//saml:SubjectConfirmationData/@InResponseTo") == ["_request-1"]


@pytest.mark.parametrize("sign", ["both", "assertion"])
def test_o11_a_partner_cannot_ask_for_an_unsigned_assertion(sign: str) -> None:
    partner = make_partner(sign=sign, metadata=make_metadata(want_assertions_signed=False))
    assert len(find_all(build(partner).xml, "//saml:Assertion/ds:Signature")) == 1


def test_o12_a_broken_signature_never_leaves() -> None:
    broken = dataclasses.replace(load_key("idp-rsa"), private_key=load_key("attacker").private_key)
    partner = make_partner()
    assert partner.response_signer is not None
    signer = dataclasses.replace(partner.response_signer, key=broken)
    with pytest.raises(SignatureFault):
        build(dataclasses.replace(partner, response_signer=signer))


def test_o13_sha1_signs_nothing() -> None:
    uris = find_all(build().xml, "//ds:Signature//@Algorithm")
    assert len(uris) == 10
    assert not [uri for uri in uris if "sha1" in uri]


def test_o14_persistent_name_ids_cannot_be_linked() -> None:
    def issue(**names: Any) -> BuiltResponse:
        return build(make_partner(**names))

    ids = {
        issue().name_id,
        issue(partner="eyeonwater").name_id,
        issue(biller="other-water").name_id,
        issue(biller="riverton-watera", partner="quahawk").name_id,
        issue(biller="riverton-wate", partner="raquahawk").name_id,
    }
    assert len(ids) == 5
    assert issue().name_id == issue(key="idp-rsa-next").name_id == issue(sign="assertion").name_id


def test_o15_a_new_payer_with_an_old_address_is_another() -> None:
    partner = make_partner(name_id=name_id("persistent", "payer.id"))
    built = [
        build(partner, session=make_session(payer={"id": one, "email": "ada@example.net"})).name_id
        for one in ("P-1", "P-2")
    ]
    assert built[0] != built[1]


def test_o16_how_and_when_the_payer_signed_in_comes_from_the_portal() -> None:
    xml = build(session=make_session(auth_time=NOW - timedelta(days=2), amr=("pwd",))).xml
    assert find_all(xml, "//saml:AuthnStatement/@AuthnInstant") == ["2026-01-13T12:00:00Z"]
    assert find_all(xml, "//saml:AuthnContextClassRef/text()") == [f"{CLASSES}PasswordProtectedTransport"]
    xml = build(session=make_session(amr=())).xml
    assert find_all(xml, "//saml:AuthnContextClassRef/text()") == [f"{CLASSES}unspecified"]


def test_o17_only_the_attributes_given_leave() -> None:
    session = make_session(payer={"id": "P-1001", "email": "ada@example.net", "given_name": "Unmapped"})
    xml = build(session=session, attributes=one_value("mapped")).xml
    assert read_values(xml) == {"secret": ["mapped"]}
    assert b"Unmapped" not in xml
    assert b"P-1001" not in xml
    assert b"ada@" not in xml


def test_o17_the_number_and_length_of_values_are_bounded() -> None:
    assert len(read_values(build(attributes=(Attribute("many", ("v",) * 200, BASIC),)).xml)["many"]) == 200
    for values in (("v",) * 201, ("v", "v" * 4097)):
        with pytest.raises(ValueRefused) as refused:
            build(attributes=(Attribute("many", values, BASIC),))
        assert "many" in refused.value.detail


# Any text at all

xml_text = st.text(
    st.characters(
        exclude_categories=["Cs"],
        exclude_characters=[
            *(chr(code) for code in range(0x20) if chr(code) not in "\t\n\r"),
            "\ufffe",
            "\uffff",
        ],
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(xml_text, min_size=1, max_size=4), names=st.lists(xml_text.filter(bool), max_size=3, unique=True)
)
def test_any_text_comes_back_unchanged(values: list[str], names: list[str]) -> None:
    attributes = tuple(Attribute(f"n{name}", tuple(values), BASIC, name) for name in names)
    built = build(attributes=attributes)
    assert read_values(built.xml) == {f"n{name}": values for name in names}
    assert find_all(built.xml, "//saml:Attribute/@FriendlyName") == names
    assert b"\r" not in built.xml


@settings(max_examples=150, deadline=None)
@given(value=st.text(max_size=30))
def test_any_text_is_carried_or_refused(value: str) -> None:
    """Any text of a portal is unchanged or refused.

    There is nothing in between and nothing else is raised.
    """
    try:
        found = read_values(carry(value))
    except ValueRefused:
        assert re.search("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", value)
    else:
        sent = re.sub(r"[ \t\n\r]*\r[ \t\n\r]*", " ", value)
        assert found == ({} if is_blank(value) else {"secret": [sent]})


@settings(max_examples=150, deadline=None)
@given(value=st.text(min_size=1, max_size=30))
def test_any_name_id_is_carried_or_refused(value: str) -> None:
    if is_blank(value):
        with pytest.raises(LaunchRefused) as refused:
            name_id_of(value)
        assert refused.value.code == "name-id-missing"
        return
    try:
        found = name_id_of(value)
    except ValueRefused:
        return
    assert found == value
    assert not re.search(r"[\s<>\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", value)


def test_no_carriage_return_leaves_in_any_writing() -> None:
    """A carriage return breaks the signature, escaped or not.

    It does so for a reader that normalizes line ends before it verifies.
    """
    xml = carry("123 Maple Ln\r\nApt 300\rRear")
    assert not re.search(rb"\r|&#(?:13|x0*d);", xml, re.IGNORECASE)
    assert read_values(xml) == {"secret": ["123 Maple Ln Apt 300 Rear"]}
    assert b"\r" not in carry("a\r\nb", encrypt="always")


# What is said beforehand


def test_a_usual_partner_gives_no_findings() -> None:
    assert codes() == {}


@pytest.mark.parametrize(
    ("key", "algorithm"), [("idp-p256", "rsa-sha256"), ("idp-rsa", "ecdsa-sha256"), ("idp-rsa", "ecdsa-sha512")]
)
def test_an_algorithm_that_does_not_fit_the_key_is_refused(key: str, algorithm: str) -> None:
    found = codes(key=load_key(key), settings=make_settings(signature_algorithm=algorithm))
    assert found == {"signature-algorithm-key": Severity.ERROR}
    with pytest.raises(PartnerUnusable) as refused:
        make_partner(key=key, signature_algorithm=algorithm)
    assert [finding.code for finding in refused.value.findings] == ["signature-algorithm-key"]


def test_ecdsa_is_warned_of_but_at_shibboleth() -> None:
    binding = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
    ecdsa: Any = {"key": load_key("idp-p256"), "settings": make_settings(signature_algorithm="ecdsa-sha256")}
    shibboleth = make_metadata(acs=(Endpoint(binding, "https://sp.example.com/Shibboleth.sso/SAML2/POST", 1),))
    assert codes(**ecdsa) == {"signature-ecdsa-partner": Severity.WARNING}
    assert codes(**ecdsa, metadata=shibboleth) == {}


@pytest.mark.parametrize(
    "certificates", [(), (load_certificate("sp-signing", "signing"),), (load_certificate("idp-p256", None),)]
)
def test_m14_encryption_without_a_usable_key_is_refused(certificates: Any) -> None:
    metadata = make_metadata(certificates=certificates)
    found = codes(metadata=metadata, settings=make_settings(encrypt="always"))
    assert found == {"encrypt-no-key": Severity.ERROR}
    with pytest.raises(PartnerUnusable):
        make_partner(metadata=metadata, encrypt="always")


@pytest.mark.parametrize("encrypt", ["when_offered", "always"])
def test_m14_a_partner_of_rsa_1_5_alone_is_refused(encrypt: str) -> None:
    metadata = make_metadata(encryption_methods=(RSA_1_5, find_cipher_uri("aes128-gcm")))
    assert codes(metadata=metadata, settings=make_settings(encrypt=encrypt)) == {"encrypt-rsa-1-5-only": Severity.ERROR}
    with pytest.raises(PartnerUnusable) as refused:
        make_partner(metadata=metadata, encrypt=encrypt)
    assert refused.value.http_status == 503
    assert codes(metadata=metadata) == {}


def test_m14_rsa_1_5_is_never_used() -> None:
    metadata = make_metadata(encryption_methods=(RSA_1_5, RSA_OAEP_MGF1P))
    xml = build(make_partner(metadata=metadata, encrypt="always")).xml
    assert find_all(xml, "//xenc:EncryptedKey/xenc:EncryptionMethod/@Algorithm") == [RSA_OAEP_MGF1P]


@pytest.mark.parametrize("use", ["encryption", None])
def test_m14_an_offered_key_that_is_unfit_is_refused_unless_nothing_is_to_be_encrypted(use: Any) -> None:
    metadata = make_metadata(certificates=(load_certificate("idp-p256", use),))
    offered = make_settings(encrypt="when_offered")
    assert codes(metadata=metadata, settings=offered) == {"encrypt-key-unfit": Severity.ERROR}
    [finding] = check_saml_partner(
        metadata=metadata, settings=offered, issuer=ISSUER, key=load_key("idp-rsa"), pairwise_secret=SECRET
    )
    assert "set encrypt to never" in finding.fix
    with pytest.raises(PartnerUnusable):
        make_partner(metadata=metadata, encrypt="when_offered")
    assert codes(metadata=metadata) == {}
    assert b"EncryptedAssertion" not in build(make_partner(metadata=metadata, encrypt="never")).xml


def test_m14_an_unfit_key_beside_a_fit_one_does_no_harm() -> None:
    certificates = (load_certificate("idp-p256", "encryption"), load_certificate("sp-encryption", None))
    metadata = make_metadata(certificates=certificates)
    assert codes(metadata=metadata, settings=make_settings(encrypt="when_offered")) == {}
    assert b"EncryptedAssertion" in build(make_partner(metadata=metadata, encrypt="when_offered")).xml


def listing(*methods: EncryptionMethod | str, use: Any = "encryption", name: str = "sp-encryption") -> Certificate:
    """A key of the partner's with what stands beside it."""
    listed = tuple(EncryptionMethod(one) if isinstance(one, str) else one for one in methods)
    return replace(load_certificate(name, use), encryption_methods=listed)


def encrypted_with(*certificates: Certificate, **settings: Any) -> list[str]:
    """The algorithms of an assertion for such a partner.

    They are those of content and of the key, digest, mask.
    """
    metadata = make_metadata(certificates=certificates)
    xml = build(make_partner(metadata=metadata, **{"encrypt": "when_offered", **settings})).xml
    decrypt(etree.fromstring(xml).find("saml:EncryptedAssertion", NAMES))
    found = etree.fromstring(xml).xpath("//xenc:EncryptionMethod | //xenc:EncryptionMethod/*", namespaces=NAMES)
    return [one.get("Algorithm").rpartition("#")[2] for one in found]


TRIPLE_DES = "http://www.w3.org/2001/04/xmlenc#tripledes-cbc"
SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"
MASK_SHA256 = "http://www.w3.org/2009/xmlenc11#mgf1sha256"
DEFAULT_KEY = ["rsa-oaep-mgf1p", "sha1"]


@pytest.mark.parametrize(
    ("ciphers", "used"),
    [
        ((), "aes128-gcm"),
        (("aes256-gcm",), "aes256-gcm"),
        (("aes256-gcm", "aes128-gcm"), "aes128-gcm"),
        (("aes128-cbc", "aes256-gcm"), "aes256-gcm"),
        (("aes256-cbc",), "aes256-cbc"),
        (("aes256-cbc", "aes128-cbc"), "aes128-cbc"),
    ],
)
def test_encryption_follows_the_partners_list(ciphers: tuple[Any, ...], used: str) -> None:
    """The best of the list that is allowed, by the order of our defaults.

    A method that is not allowed is passed over.
    """
    listed = [TRIPLE_DES, *map(find_cipher_uri, ciphers)] if ciphers else []
    assert encrypted_with(listing(*listed)) == [used, *DEFAULT_KEY]
    assert encrypted_with(listing(*listed, RSA_OAEP_MGF1P, RSA_1_5)) == [used, *DEFAULT_KEY]


@pytest.mark.parametrize(
    ("transports", "used"),
    [
        ((EncryptionMethod(RSA_OAEP_MGF1P),), DEFAULT_KEY),
        ((EncryptionMethod(RSA_OAEP),), ["rsa-oaep", "sha1"]),
        ((EncryptionMethod(RSA_OAEP, SHA256),), ["rsa-oaep", "sha256"]),
        ((EncryptionMethod(RSA_OAEP, SHA256, MASK_SHA256),), ["rsa-oaep", "sha256", "mgf1sha256"]),
        ((EncryptionMethod(RSA_OAEP_MGF1P, SHA256),), ["rsa-oaep-mgf1p", "sha256"]),
        ((EncryptionMethod(RSA_OAEP, SHA256), EncryptionMethod(RSA_OAEP_MGF1P)), DEFAULT_KEY),
        ((EncryptionMethod(RSA_OAEP, "urn:x#md5"), EncryptionMethod(RSA_OAEP, SHA256)), ["rsa-oaep", "sha256"]),
        ((EncryptionMethod(RSA_1_5), EncryptionMethod(RSA_OAEP)), ["rsa-oaep", "sha1"]),
    ],
)
def test_key_transport_follows_the_partners_list(transports: tuple[EncryptionMethod, ...], used: list[str]) -> None:
    assert encrypted_with(listing(*transports)) == ["aes128-gcm", *used]


def test_the_list_of_the_key_that_is_used_counts() -> None:
    one = listing(find_cipher_uri("aes256-gcm"))
    both = listing(find_cipher_uri("aes256-cbc"), use=None)
    assert encrypted_with(both, one)[0] == "aes256-gcm"
    assert encrypted_with(listing(find_cipher_uri("aes256-cbc"), use="signing", name="sp-signing"), listing()) == [
        "aes128-gcm",
        *DEFAULT_KEY,
    ]
    weak = listing(RSA_1_5, name="sp-signing")
    assert encrypted_with(weak, both)[0] == "aes256-cbc"


def test_what_the_settings_say_is_used_and_told_where_the_partner_does_not_list_it() -> None:
    certificate = listing(find_cipher_uri("aes256-gcm"), RSA_OAEP_MGF1P)
    assert encrypted_with(certificate, encryption_algorithm="aes128-gcm")[0] == "aes128-gcm"
    metadata = make_metadata(certificates=(certificate,))
    assert codes(metadata=metadata, settings=make_settings(encrypt="always", encryption_algorithm="aes128-gcm")) == {
        "encrypt-method-unlisted": Severity.WARNING
    }
    assert codes(metadata=metadata, settings=make_settings(encrypt="always", encryption_algorithm="aes256-gcm")) == {}
    assert codes(metadata=metadata, settings=make_settings(encrypt="always")) == {}


@pytest.mark.parametrize("encrypt", ["when_offered", "always"])
@pytest.mark.parametrize(
    ("methods", "code"),
    [
        ((TRIPLE_DES,), "encrypt-cipher-unusable"),
        (("http://www.w3.org/2009/xmlenc11#aes192-gcm",), "encrypt-cipher-unusable"),
        ((RSA_1_5,), "encrypt-rsa-1-5-only"),
        ((EncryptionMethod(RSA_OAEP, "urn:x#md5"),), "encrypt-transport-unusable"),
        ((EncryptionMethod(RSA_OAEP, SHA256, "urn:x#mask"), RSA_1_5), "encrypt-transport-unusable"),
    ],
)
def test_m14_a_list_of_nothing_that_is_allowed_is_refused(encrypt: str, methods: Any, code: str) -> None:
    metadata = make_metadata(certificates=(listing(*methods),))
    assert codes(metadata=metadata, settings=make_settings(encrypt=encrypt)) == {code: Severity.ERROR}
    with pytest.raises(PartnerUnusable):
        make_partner(metadata=metadata, encrypt=encrypt)
    assert codes(metadata=metadata) == {}


def test_what_is_no_cipher_and_no_key_transport_says_nothing() -> None:
    others = ("http://www.w3.org/2001/04/xmlenc#kw-aes128", SHA256, "http://www.w3.org/2009/xmlenc11#ECDH-ES", "urn:x")
    assert encrypted_with(listing(*others)) == ["aes128-gcm", *DEFAULT_KEY]


@pytest.mark.parametrize("algorithm", [None, "aes256-cbc"])
def test_unauthenticated_ciphers_are_told(algorithm: Any) -> None:
    metadata = make_metadata(encryption_methods=(RSA_OAEP_MGF1P, find_cipher_uri("aes256-cbc")))
    settings = make_settings(encrypt="always", encryption_algorithm=algorithm)
    assert codes(metadata=metadata, settings=settings) == {"encrypt-cbc": Severity.WARNING}


def test_an_unlisted_name_id_format_is_told() -> None:
    transient, unspecified = "2.0:nameid-format:transient", "1.1:nameid-format:unspecified"
    listed = make_metadata(name_id_formats=(f"urn:oasis:names:tc:SAML:{transient}",))
    assert codes(metadata=listed) == {"name-id-format-unlisted": Severity.WARNING}
    assert codes(metadata=listed, settings=make_settings(name_id=name_id("transient"))) == {}
    assert codes(metadata=make_metadata(name_id_formats=(f"urn:oasis:names:tc:SAML:{unspecified}",))) == {}
    assert codes(metadata=listed, settings=make_settings(name_id_policy="ignore")) == {}
    facts = {"settings": make_settings(), "metadata": listed, "issuer": ISSUER, "key": load_key("idp-rsa")}
    [finding] = check_saml_partner(**facts, pairwise_secret=SECRET)
    assert f"urn:oasis:names:tc:SAML:{transient}" in finding.message
    assert "name_id_policy to ignore" in finding.fix


def test_a_listed_name_id_format_under_a_name_that_it_never_had_is_read_as_meant() -> None:
    misspelt = make_metadata(name_id_formats=("urn:oasis:names:tc:SAML:2.0:nameid-format:emailAddress",))
    assert codes(metadata=misspelt, settings=make_settings(name_id=name_id("email", "payer.email"))) == {}
    assert codes(metadata=misspelt) == {"name-id-format-unlisted": Severity.WARNING}


def test_an_unsigned_assertion_that_the_partner_wants_signed_is_told() -> None:
    metadata = make_metadata(want_assertions_signed=True)
    assert codes(metadata=metadata, settings=make_settings(sign="response")) == {
        "sign-assertion-wanted": Severity.WARNING
    }
    assert codes(metadata=metadata) == {}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("payer.emial", "name-id-field-unknown"),
        ("payer", "name-id-field-unknown"),
        ("accounts.number", "name-id-field-many"),
    ],
)
def test_a_name_id_source_that_cannot_work_is_refused(path: str, code: str) -> None:
    assert codes(settings=make_settings(name_id=name_id("unspecified", path))) == {code: Severity.ERROR}
    with pytest.raises(PartnerUnusable):
        make_partner(name_id=name_id("unspecified", path))


def test_an_unknown_field_is_named_as_it_is_written() -> None:
    facts = {"metadata": make_metadata(), "issuer": ISSUER, "key": load_key("idp-rsa"), "pairwise_secret": SECRET}
    (finding,) = check_saml_partner(settings=make_settings(name_id=name_id("unspecified", "payer.Email")), **facts)
    assert finding.message == "There is no field 'payer.Email'; did you mean 'payer.email'?"


def test_what_else_makes_a_partner_unusable() -> None:
    assert codes(pairwise_secret=b"short") == {"pairwise-secret-short": Severity.ERROR}
    assert codes(issuer=SP_ENTITY_ID) == {"partner-is-us": Severity.ERROR}
    assert codes(settings=make_settings(skew_seconds=-1)) == {"skew-negative": Severity.ERROR}
    assert codes(settings=make_settings(acs=7)) == {"acs-not-in-metadata": Severity.ERROR}


def test_every_refusal_is_named_at_once() -> None:
    with pytest.raises(PartnerUnusable) as refused:
        make_partner(acs=7, lifetime_seconds=0, signature_algorithm="ecdsa-sha256")
    assert len(refused.value.findings) == 3
    assert copy.copy(refused.value.detail).count(",") == 2
