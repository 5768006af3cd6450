"""The signature check below pysaml2, given what pysaml2 or the envelope check would refuse earlier."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from saml2.sigver import SignatureError

from saml_bridge.demo.crypto import ASSERTION, DS, RESPONSE, SAML, SAMLP, InProcessCrypto
from saml_bridge.demo.service_provider import ServiceProvider
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
