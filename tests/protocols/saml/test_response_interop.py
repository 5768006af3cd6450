"""Service providers that are not ours take each kind of response that we make.

They refuse each that was spoilt. The two are python3-saml and pysaml2's client with the real xmlsec1 program, both at
their strictest. They run on the real clock, so responses are made for now. No kind of key or algorithm is left out for
either: both read RSA and ECDSA, and all four ciphers.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from onelogin.saml2.response import OneLogin_Saml2_Response
from onelogin.saml2.settings import OneLogin_Saml2_Settings
from saml2 import BINDING_HTTP_POST
from saml2.client import Saml2Client
from saml2.config import SPConfig
from saml2.sigver import CryptoBackendXmlSec1

from saml_bridge.model.values import Attribute
from saml_bridge.protocols.saml.metadata.identity_provider import IdpDescription, build_idp_metadata
from saml_bridge.protocols.saml.metadata.service_provider import Endpoint, SpMetadata
from saml_bridge.protocols.saml.response import NAME_ID_FORMATS, make_stamp
from tests.protocols.saml.issuing import (
    ACS,
    BASIC,
    ISSUER,
    KEYS,
    NAMES,
    SP_ENTITY_ID,
    URI,
    build,
    change_element,
    load_key,
    make_metadata,
    make_partner,
    make_session,
    make_settings,
)

SIGNS = ("both", "assertion", "response")
CIPHERS = ("never", "aes128-gcm", "aes256-gcm", "aes128-cbc", "aes256-cbc")
ALGORITHMS = (
    ("idp-rsa", "rsa-sha256"),
    ("idp-rsa", "rsa-sha384"),
    ("idp-rsa", "rsa-sha512"),
    ("idp-rsa3072", "rsa-sha256"),
    ("idp-p256", "ecdsa-sha256"),
    ("idp-p384", "ecdsa-sha384"),
    ("idp-p384", "ecdsa-sha512"),
)
SOURCES = {"persistent": "payer.id", "email": "payer.email", "transient": "payer.id", "unspecified": "account.number"}
ATTRIBUTES = (
    Attribute("accountNumber", ("000123456",), BASIC),
    Attribute("meters", ("M-1", "M-2", "M-3"), BASIC),
    Attribute("https://example.com/fullName", ("Ada Lövelace 👩‍🔬 <&>",), URI, "Full name"),
)
BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"


@dataclass(frozen=True)
class Read:
    """The values that a service provider got out of a response."""

    attributes: dict[str, list[str]]
    name_id: str
    name_id_format: str
    session_index: str


class ServiceProvider(Protocol):
    """A service provider that is not ours.

    It raises errors of its own when it does not take the response.
    """

    def __call__(self, xml: bytes, *, sign: str = "both", encrypted: bool = False, key: str = "idp-rsa") -> Read: ...


@cache
def make_python3_saml(sign: str, encrypted: bool, key: str) -> OneLogin_Saml2_Settings:
    return OneLogin_Saml2_Settings(
        {
            "strict": True,
            "sp": {
                "entityId": SP_ENTITY_ID,
                "assertionConsumerService": {"url": ACS, "binding": BINDING},
                "x509cert": (KEYS / "sp-encryption.cert.pem").read_text(),
                "privateKey": (KEYS / "sp-encryption.key.pem").read_text(),
            },
            "idp": {
                "entityId": ISSUER,
                "singleSignOnService": {"url": "https://bridge.example.com/sso", "binding": BINDING},
                "x509cert": load_key(key).certificate,
            },
            "security": {
                "wantMessagesSigned": sign != "assertion",
                "wantAssertionsSigned": sign != "response",
                "wantAssertionsEncrypted": encrypted,
                "wantNameId": True,
                "rejectDeprecatedAlgorithm": True,
            },
        }
    )


def read_with_python3_saml(xml: bytes, *, sign: str = "both", encrypted: bool = False, key: str = "idp-rsa") -> Read:
    response = OneLogin_Saml2_Response(make_python3_saml(sign, encrypted, key), base64.b64encode(xml).decode())
    request = {
        "https": "on",
        "http_host": "sp.example.com",
        "script_name": "/saml/acs",
        "get_data": {},
        "post_data": {},
    }
    response.is_valid(request, raise_exceptions=True)
    return Read(
        attributes=response.get_attributes(),
        name_id=response.get_nameid(),
        name_id_format=response.get_nameid_format(),
        session_index=response.get_session_index(),
    )


@cache
def make_pysaml2(sign: str, key: str) -> Saml2Client:
    sp: dict[str, Any] = {
        "endpoints": {"assertion_consumer_service": [(ACS, BINDING_HTTP_POST)]},
        "allow_unsolicited": True,
        "want_response_signed": sign != "assertion",
        "want_assertions_signed": sign != "response",
    }
    metadata = build_idp_metadata(
        IdpDescription(
            entity_id=ISSUER,
            sso_url="https://bridge.example.com/sso",
            slo_url="https://bridge.example.com/slo",
            key=load_key(key),
            name="Riverton Water",
            home_url="https://pay.example/",
            valid_until=datetime(2100, 1, 1, tzinfo=UTC),
        )
    )
    files = {"key_file": str(KEYS / "sp-encryption.key.pem"), "cert_file": str(KEYS / "sp-encryption.cert.pem")}
    config = {
        "entityid": SP_ENTITY_ID,
        "service": {"sp": sp},
        "metadata": {"inline": [metadata.decode()]},
        "encryption_keypairs": [files],
        "xmlsec_binary": "/usr/bin/xmlsec1",
        "allow_unknown_attributes": True,
        **files,
    }
    return Saml2Client(SPConfig().load(config))


@pytest.fixture(autouse=True, scope="module")
def _know_the_version_of_xmlsec1() -> Iterator[None]:
    """pysaml2 starts the program several times a response only to ask it for its version."""
    version = CryptoBackendXmlSec1("/usr/bin/xmlsec1").version
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CryptoBackendXmlSec1, "version", version)
        yield


def read_with_pysaml2(xml: bytes, *, sign: str = "both", encrypted: bool = False, key: str = "idp-rsa") -> Read:
    client = make_pysaml2(sign, key)
    encoded = base64.b64encode(xml).decode()
    told = {"remote_addr": "192.0.2.1"}  # without it, pysaml2 does not look at the Recipient
    response = client.parse_authn_request_response(encoded, BINDING_HTTP_POST, conv_info=told)
    if response is None or response.assertion is None:
        raise AssertionError("pysaml2 found no response that it takes")
    (statement,) = response.assertion.authn_statement
    assert response.came_from is None
    return Read(
        attributes=response.ava,
        name_id=response.name_id.text,
        name_id_format=response.name_id.format,
        session_index=statement.session_index,
    )


SERVICE_PROVIDERS = [
    pytest.param(read_with_python3_saml, id="python3-saml"),
    pytest.param(read_with_pysaml2, id="pysaml2"),
]
both_service_providers = pytest.mark.parametrize("read", SERVICE_PROVIDERS)


def issue(
    *,
    ago: timedelta = timedelta(0),
    cipher: str = "never",
    name_id: str = "persistent",
    key: str = "idp-rsa",
    metadata: SpMetadata | None = None,
    attributes: tuple[Attribute, ...] = ATTRIBUTES,
    **changes: Any,
) -> Any:
    """A response as of `ago` before now."""
    now = datetime.now(UTC) - ago
    name_id_settings = dataclasses.replace(make_settings().name_id, format=name_id, from_=SOURCES[name_id])  # type: ignore[arg-type]
    if cipher != "never":
        changes |= {"encrypt": "always", "encryption_algorithm": cipher}
    partner = make_partner(key=key, metadata=metadata, name_id=name_id_settings, **changes)
    session = make_session(auth_time=now - timedelta(minutes=5), expires_at=now + timedelta(hours=1))
    return build(partner, stamp=make_stamp(now, os.urandom), session=session, attributes=attributes)


def list_kinds() -> Iterator[Any]:
    """Every kind of response, for python3-saml with every format of name ID.

    pysaml2 starts a program for each signature and each cipher text, and reads the name ID after that. So it gets each
    kind of signature and encryption once, and the formats in turn.
    """
    formats = list(SOURCES)
    for (signs, sign), (ciphers, cipher), (algorithms, (key, algorithm)) in itertools.product(
        enumerate(SIGNS), enumerate(CIPHERS), enumerate(ALGORITHMS)
    ):
        kind, turn = (sign, cipher, key, algorithm), formats[(signs + ciphers + algorithms) % len(formats)]
        yield pytest.param(*kind, turn, read_with_pysaml2, id="-".join((*kind, turn, "pysaml2")))
        for name_id in formats:
            yield pytest.param(*kind, name_id, read_with_python3_saml, id="-".join((*kind, name_id, "python3-saml")))


@pytest.mark.parametrize(("sign", "cipher", "key", "algorithm", "name_id", "read"), list(list_kinds()))
def test_every_kind_of_response_is_taken(
    sign: str, cipher: str, key: str, algorithm: str, name_id: Any, read: ServiceProvider
) -> None:
    built = issue(sign=sign, cipher=cipher, key=key, signature_algorithm=algorithm, name_id=name_id)
    found = read(built.xml, sign=sign, encrypted=cipher != "never", key=key)
    assert found == Read(
        attributes={one.name: list(one.values) for one in ATTRIBUTES},
        name_id=built.name_id,
        name_id_format=NAME_ID_FORMATS[name_id],
        session_index=built.session_index,
    )


# What was spoilt. Each case is made from a response that is taken as it is, so that only the spoiling can be the cause


def find(root: etree._Element, path: str) -> etree._Element:
    found = root.find(path, NAMES)
    assert found is not None
    return found


def change_attribute(root: etree._Element) -> None:
    find(root, ".//saml:AttributeValue").text = "000999999"


def change_name_id(root: etree._Element) -> None:
    find(root, ".//saml:NameID").text = "somebody-else"


def change_destination(root: etree._Element) -> None:
    root.set("Destination", "https://sp.example.com/other")


def change_cipher_text(root: etree._Element) -> None:
    value = find(root, ".//saml:EncryptedAssertion/xenc:EncryptedData/xenc:CipherData/xenc:CipherValue")
    octets = bytearray(base64.b64decode(value.text or ""))
    octets[len(octets) // 2] ^= 1
    value.text = base64.b64encode(octets).decode()


def strip_signatures(root: etree._Element) -> None:
    for signature in root.findall(".//ds:Signature", NAMES):
        parent = signature.getparent()
        assert parent is not None
        parent.remove(signature)


def strip_response_signature(root: etree._Element) -> None:
    root.remove(find(root, "ds:Signature"))


def add_assertion(root: etree._Element) -> None:
    """Wrapping: an unsigned assertion beside the signed one."""
    forged = copy.deepcopy(find(root, "saml:Assertion"))
    forged.set("ID", "_forged")
    forged.remove(find(forged, "ds:Signature"))
    change_attribute(forged)
    root.insert(1, forged)


SPOILINGS: list[tuple[str, str, str, Callable[[etree._Element], None]]] = [
    ("attribute changed, both signed", "both", "never", change_attribute),
    ("attribute changed, assertion signed", "assertion", "never", change_attribute),
    ("attribute changed, response signed", "response", "never", change_attribute),
    ("name ID changed, both signed", "both", "never", change_name_id),
    ("name ID changed, assertion signed", "assertion", "never", change_name_id),
    ("destination changed", "both", "never", change_destination),
    ("no signature", "both", "never", strip_signatures),
    ("no signature, assertion wanted", "assertion", "never", strip_signatures),
    ("no signature, response wanted", "response", "never", strip_signatures),
    ("no signature outside, encrypted", "both", "aes128-gcm", strip_response_signature),
    ("cipher text changed, both signed", "both", "aes128-gcm", change_cipher_text),
    ("cipher text changed, assertion signed", "assertion", "aes256-gcm", change_cipher_text),
    ("cipher text changed, CBC", "assertion", "aes128-cbc", change_cipher_text),
    ("forged assertion added", "assertion", "never", add_assertion),
]


@both_service_providers
@pytest.mark.parametrize(
    ("sign", "cipher", "spoil"), [case[1:] for case in SPOILINGS], ids=[case[0] for case in SPOILINGS]
)
def test_a_spoilt_response_is_refused(sign: str, cipher: str, spoil: Any, read: ServiceProvider) -> None:
    xml = issue(sign=sign, cipher=cipher).xml
    facts: Any = {"sign": sign, "encrypted": cipher != "never"}
    read(change_element(xml, lambda root: None), **facts)
    with pytest.raises(Exception):  # noqa: B017  each of them raises what it likes
        read(change_element(xml, spoil), **facts)


@both_service_providers
@pytest.mark.parametrize("cipher", ["never", "aes128-gcm"])
@pytest.mark.parametrize("sign", SIGNS)
def test_a_response_signed_by_another_key_is_refused(sign: str, cipher: str, read: ServiceProvider) -> None:
    forged = issue(sign=sign, cipher=cipher, key="attacker").xml
    read(forged, sign=sign, encrypted=cipher != "never", key="attacker")
    with pytest.raises(Exception):  # noqa: B017
        read(forged, sign=sign, encrypted=cipher != "never")


@both_service_providers
@pytest.mark.parametrize("cipher", ["never", "aes128-gcm"])
def test_o6_a_response_for_another_audience_is_refused(cipher: str, read: ServiceProvider) -> None:
    other = make_metadata(entity_id="https://other.example.com/saml/metadata")
    with pytest.raises(Exception):  # noqa: B017
        read(issue(cipher=cipher, metadata=other, name_id="email").xml, encrypted=cipher != "never")


@both_service_providers
def test_o6_a_response_for_another_recipient_is_refused(read: ServiceProvider) -> None:
    """The Recipient alone is wrong.

    Destination is put right after the assertion was signed.
    """
    other = make_metadata(acs=(Endpoint(BINDING, "https://other.example.com/saml/acs"),))
    xml = issue(metadata=other, sign="assertion").xml
    xml = change_element(xml, lambda root: root.set("Destination", ACS))
    with pytest.raises(Exception):  # noqa: B017
        read(xml, sign="assertion")
    read(change_element(issue(sign="assertion").xml, lambda root: root.set("Destination", ACS)), sign="assertion")


@both_service_providers
@pytest.mark.parametrize("cipher", ["never", "aes128-gcm"])
def test_an_expired_response_is_refused(cipher: str, read: ServiceProvider) -> None:
    read(issue(cipher=cipher, ago=timedelta(seconds=120)).xml, encrypted=cipher != "never")
    with pytest.raises(Exception):  # noqa: B017
        read(issue(cipher=cipher, ago=timedelta(hours=1)).xml, encrypted=cipher != "never")


@both_service_providers
def test_a_response_of_the_future_is_refused_and_a_little_skew_is_not(read: ServiceProvider) -> None:
    read(issue(ago=timedelta(seconds=-50)).xml)
    with pytest.raises(Exception):  # noqa: B017
        read(issue(ago=timedelta(hours=-1)).xml)


def test_pysaml2_takes_an_assertion_without_attributes() -> None:
    """python3-saml insists on an attribute statement unless told otherwise; the schema knows no empty one."""
    assert read_with_pysaml2(issue(attributes=()).xml).attributes == {}
    with pytest.raises(Exception, match="AttributeStatement"):
        read_with_python3_saml(issue(attributes=()).xml)


xml_text = st.text(
    st.characters(
        exclude_categories=["Cs"],
        exclude_characters=[*(chr(code) for code in range(0x20) if chr(code) not in "\t\n\r"), "\ufffe", "\uffff"],
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(values=st.lists(xml_text, min_size=1, max_size=3), cipher=st.sampled_from(["never", "aes128-gcm"]))
def test_any_text_is_read_unchanged(values: list[str], cipher: str) -> None:
    """python3-saml strips white space around values and leaves out empty ones; so does the comparison."""
    xml = issue(cipher=cipher, attributes=(Attribute("any", tuple(values), BASIC),)).xml
    stripped = [value.strip() for value in values]
    found = read_with_python3_saml(xml, encrypted=cipher != "never").attributes
    assert found == {"any": [value for value in stripped if value]}
