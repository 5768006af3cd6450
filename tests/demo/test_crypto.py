"""The signature check below pysaml2, given what pysaml2 or the envelope check would refuse earlier."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from saml2.saml import NAMEID_FORMAT_PERSISTENT, NameID
from saml2.sigver import SignatureError, import_rsa_key_from_file
from saml2.xmldsig import DIGEST_SHA256, SIG_RSA_SHA1, SIG_RSA_SHA256

from saml_bridge.demo.crypto import ASSERTION, DS, RESPONSE, SAML, SAMLP, InProcessCrypto, RedirectCrypto
from saml_bridge.demo.service_provider import ServiceProvider, make_key_pair
from tests.demo.issuer import Issuer

ASSERTION_NAME, RESPONSE_NAME = f"{SAML}:Assertion", f"{SAMLP}:Response"


@pytest.fixture
def signed(providers: dict[str, ServiceProvider], issuer: Issuer) -> Any:
    """A response whose assertion is signed."""
    root = issuer.build(providers["aquahawk"])
    issuer.sign(root.find(ASSERTION))
    return etree.fromstring(etree.tostring(root))  # lxml does not find the nodes that xmlsec added


def verify(root: Any, keys_dir: Path, *, name: str = ASSERTION_NAME, node_id: str | None = None) -> bool:
    assertion = root.find(f".//{ASSERTION}")
    certificate = str(keys_dir / "idp-rsa.cert.pem")
    return InProcessCrypto().validate_signature(
        etree.tostring(root, encoding="unicode"), certificate, "pem", name, node_id or assertion.get("ID")
    )


def test_a_good_signature_verifies(signed: Any, keys_dir: Path) -> None:
    assert verify(signed, keys_dir) is True


def _repeat_the_id(root: Any) -> None:
    etree.SubElement(root, f"{{{SAMLP}}}Extensions").set("ID", root.find(ASSERTION).get("ID"))


def _move_into_extensions(root: Any) -> None:
    etree.SubElement(root, f"{{{SAMLP}}}Extensions").append(root.find(ASSERTION))


def _wrap(root: Any) -> None:
    """The signed assertion inside a forged one that takes over its signature."""
    original = root.find(ASSERTION)
    forged = copy.deepcopy(original)
    forged.set("ID", "_forged")
    root.replace(original, forged)
    etree.SubElement(forged.find(f"{{{DS}}}Signature"), f"{{{DS}}}Object").append(original)


def _refer_elsewhere(root: Any) -> None:
    root.find(f".//{{{DS}}}Reference").set("URI", f"#{root.get('ID')}")


def _refer_to_all(root: Any) -> None:
    root.find(f".//{{{DS}}}Reference").set("URI", "")


def _refer_to_a_file(root: Any) -> None:
    root.find(f".//{{{DS}}}Reference").set("URI", "file:///dev/zero")


def _refer_twice(root: Any) -> None:
    reference = root.find(f".//{{{DS}}}Reference")
    reference.addnext(copy.deepcopy(reference))


def _sign_twice(root: Any) -> None:
    signature = root.find(f".//{{{DS}}}Signature")
    signature.addnext(copy.deepcopy(signature))


def _carry_an_object(root: Any) -> None:
    etree.SubElement(root.find(f".//{{{DS}}}Signature"), f"{{{DS}}}Object")


def _drop_a_transform(root: Any) -> None:
    transforms = root.find(f".//{{{DS}}}Transforms")
    transforms.remove(transforms[1])


def _transform_with_xpath(root: Any) -> None:
    root.find(f".//{{{DS}}}Transforms")[1].set("Algorithm", "http://www.w3.org/TR/1999/REC-xpath-19991116")


def _use_an_hmac(root: Any) -> None:
    method = root.find(f".//{{{DS}}}SignatureMethod")
    method.set("Algorithm", "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256")


def _unsign(root: Any) -> None:
    assertion = root.find(ASSERTION)
    assertion.remove(assertion.find(f"{{{DS}}}Signature"))


@pytest.mark.parametrize(
    "change",
    [
        _repeat_the_id,
        _move_into_extensions,
        _wrap,
        _refer_elsewhere,
        _refer_to_all,
        _refer_to_a_file,
        _refer_twice,
        _sign_twice,
        _carry_an_object,
        _drop_a_transform,
        _transform_with_xpath,
        _use_an_hmac,
        _unsign,
    ],
)
def test_anything_but_one_plain_signature_over_the_element_that_is_read_is_refused(
    change: Callable[[Any], None], signed: Any, keys_dir: Path
) -> None:
    change(signed)
    with pytest.raises(SignatureError):
        verify(signed, keys_dir)


def test_the_signature_of_the_assertion_is_not_the_responses(signed: Any, keys_dir: Path) -> None:
    with pytest.raises(SignatureError):
        verify(signed, keys_dir, name=RESPONSE_NAME)
    with pytest.raises(SignatureError):
        verify(signed, keys_dir, name=RESPONSE_NAME, node_id=signed.get("ID"))
    assert signed.tag == RESPONSE


def test_another_certificate_does_not_verify(signed: Any, keys_dir: Path) -> None:
    crypto = InProcessCrypto()
    text = etree.tostring(signed, encoding="unicode")
    node_id = signed.find(ASSERTION).get("ID")
    with pytest.raises(SignatureError):
        crypto.validate_signature(text, str(keys_dir / "attacker.cert.pem"), "pem", ASSERTION_NAME, node_id)
    assert crypto.reason == "the signature does not match the content and the key"


def prepare_request(provider: ServiceProvider) -> tuple[str, str]:
    """A LogoutRequest with an empty signature, as pysaml2 prepares it, and its ID."""
    with provider.using_client() as client:
        name_id = NameID(text="pairwise-1", format=NAMEID_FORMAT_PERSISTENT)
        made = client.create_logout_request("https://idp.example.com/slo", "https://idp.example.com/", name_id=name_id)
        request_id, request = made
        client.sign(request, sign_prepare=True, sign_alg=SIG_RSA_SHA256, digest_alg=DIGEST_SHA256)
        return str(request), str(request_id)


def test_what_it_signs_it_verifies(providers: dict[str, ServiceProvider]) -> None:
    provider, crypto = providers["eyeonwater"], InProcessCrypto()
    text, request_id = prepare_request(provider)
    key_file, certificate_file = make_key_pair(provider.state_dir / "keys", "eyeonwater-signing")
    name = f"{SAMLP}:LogoutRequest"
    signed = crypto.sign_statement(text, name, str(key_file), request_id)
    assert crypto.validate_signature(signed, str(certificate_file), "pem", name, request_id)
    changed = signed.replace("pairwise-1", "pairwise-2")
    with pytest.raises(SignatureError):
        crypto.validate_signature(changed, str(certificate_file), "pem", name, request_id)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("xmldsig-more#rsa-sha256", "xmldsig-more#rsa-md5"),
        ("2001/04/xmlenc#sha256", "2000/09/xmldsig#sha1"),
        ('URI="#', 'URI="#other'),
    ],
    ids=["method", "digest", "reference"],
)
def test_it_signs_nothing_that_it_would_refuse(old: str, new: str, providers: dict[str, ServiceProvider]) -> None:
    provider = providers["eyeonwater"]
    text, request_id = prepare_request(provider)
    assert old in text
    key_file, _ = make_key_pair(provider.state_dir / "keys", "eyeonwater-signing")
    with pytest.raises(SignatureError):
        InProcessCrypto().sign_statement(text.replace(old, new), f"{SAMLP}:LogoutRequest", str(key_file), request_id)


def test_each_portal_signs_queries_with_its_own_key(providers: dict[str, ServiceProvider]) -> None:
    """Also when another one comes in between: pysaml2's own signers are shared by the whole process."""
    keys = [
        import_rsa_key_from_file(str(one.state_dir / "keys" / f"{slug}-signing.key.pem"))
        for slug, one in (("aquahawk", providers["aquahawk"]), ("my360", providers["my360"]))
    ]
    first, second = (RedirectCrypto(key).get_signer(SIG_RSA_SHA256) for key in keys)
    for signer, key, other in ((first, keys[0], keys[1]), (second, keys[1], keys[0])):
        signature = signer.sign(b"query")
        assert signer.verify(b"query", signature, key.public_key())
        assert not signer.verify(b"query", signature, other.public_key())


@pytest.mark.parametrize("algorithm", [SIG_RSA_SHA1, "", "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"])
def test_queries_are_signed_with_listed_algorithms_only(algorithm: str) -> None:
    with pytest.raises(SignatureError):
        RedirectCrypto(None).get_signer(algorithm)
