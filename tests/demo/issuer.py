"""An identity provider for the demo partners' tests: literal XML, signed and encrypted with python-xmlsec.

It can make every mistake that a partner must refuse, which a real identity provider cannot.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import xmlsec
from lxml import etree

from saml_bridge.demo.partners import PORTALS
from saml_bridge.demo.service_provider import PERSISTENT, ServiceProvider

ISSUER = "http://localhost:8000/saml/riverton-water/metadata"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
BOTH = ("Assertion", "Response")
CONSTANTS = xmlsec.constants

ATTRIBUTES: dict[str, dict[str, tuple[str, ...]]] = {
    "aquahawk": {"accountNumber": ("123456",), "fullName": ("Ada Marsh",)},
    "eyeonwater": {
        "urn:oid:0.9.2342.19200300.100.1.3": ("ada.marsh@example.net",),
        "urn:oid:2.5.4.42": ("Ada",),
        "urn:oid:2.5.4.4": ("Marsh",),
        "urn:oid:1.3.6.1.4.1.32473.10.1": ("000123456",),
    },
    "my360": {"AccountId": ("000123456",), "DisplayName": ("Ada Marsh",)},
    "sensus": {
        "account": ("7700412",),
        "meters": ("LE-1", "LE-2"),
        "kinds": ("electricity", "water"),
        "name": ("Priya",),
    },
}


@dataclass(frozen=True)
class Issuer:
    """`sign` and `encrypt` as a partner's setting would say."""

    keys_dir: Path
    key_name: str = "idp-rsa"
    entity_id: str = ISSUER

    def metadata(self) -> bytes:
        certificate = "".join((self.keys_dir / f"{self.key_name}.cert.pem").read_text().split("\n")[1:-2])
        return f"""<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{self.entity_id}">
          <md:IDPSSODescriptor protocolSupportEnumeration="{SAMLP}">
            <md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data>
              <ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>
            <md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
              Location="http://localhost:8000/saml/riverton-water/sso"/>
          </md:IDPSSODescriptor></md:EntityDescriptor>""".encode()

    def build(
        self,
        provider: ServiceProvider,
        *,
        now: datetime | None = None,
        attributes: Mapping[str, Sequence[str]] | None = None,
        replace: Mapping[str, str] | None = None,
    ) -> Any:
        """An unsigned Response element; `replace` changes its text before anything is signed."""
        now = now or datetime.now(UTC)
        wants = PORTALS[provider.slug].wants
        values = {
            "acs": provider.acs_url,
            "audience": provider.entity_id,
            "issuer": self.entity_id,
            "now": _stamp(now),
            "before": _stamp(now - timedelta(seconds=60)),
            "after": _stamp(now + timedelta(seconds=300)),
            "format": wants.name_id_format,
            "name_id": "pairwise-1" if wants.name_id_format == PERSISTENT else "ada.marsh@example.net",
            "response": f"_r{secrets.token_hex(16)}",
            "assertion": f"_a{secrets.token_hex(16)}",
            "attributes": "".join(
                f'<saml:Attribute Name="{name}">{"".join(map(_VALUE.format, found))}</saml:Attribute>'
                for name, found in (ATTRIBUTES[provider.slug] if attributes is None else attributes).items()
            ),
        }
        text = re.sub(r">\s+<", "><", " ".join(_RESPONSE.split())).format(**values)
        for old, new in (replace or {}).items():
            assert old in text
            text = text.replace(old, new)
        return etree.fromstring(text)

    def sign(
        self, element: Any, *, method: Any = CONSTANTS.TransformRsaSha256, digest: Any = CONSTANTS.TransformSha256
    ) -> None:
        signature = xmlsec.template.create(element, CONSTANTS.TransformExclC14N, method, ns="ds")
        element.insert(1, signature)
        reference = xmlsec.template.add_reference(signature, digest, uri=f"#{element.get('ID')}")
        xmlsec.template.add_transform(reference, CONSTANTS.TransformEnveloped)
        xmlsec.template.add_transform(reference, CONSTANTS.TransformExclC14N)
        context = xmlsec.SignatureContext()
        key_file = str(self.keys_dir / f"{self.key_name}.key.pem")
        context.key = xmlsec.Key.from_file(key_file, CONSTANTS.KeyDataFormatPem)
        context.register_id(element, "ID")
        context.sign(signature)

    def respond(
        self,
        provider: ServiceProvider,
        *,
        sign: Sequence[str] | None = None,
        encrypt: bool | None = None,
        cipher: Any = CONSTANTS.TransformAes256Gcm,
        **changes: Any,
    ) -> str:
        """A SAMLResponse field; signed and encrypted as the partner wants it, unless said otherwise."""
        wants = provider.wants
        if sign is None:
            sign = [
                *(["Assertion"] if wants.assertion_signed else []),
                *(["Response"] if wants.response_signed else []),
            ]
        root = self.build(provider, **changes)
        if "Assertion" in sign:
            self.sign(root.find(f"{{{SAML}}}Assertion"))
        if wants.encrypted if encrypt is None else encrypt:
            encrypt_assertion(root, provider.state_dir / "keys" / f"{provider.slug}-encryption.cert.pem", cipher)
        if "Response" in sign:
            self.sign(root)
        return encode(root)


def encrypt_assertion(root: Any, certificate: Path, cipher: Any) -> None:
    assertion = root.find(f"{{{SAML}}}Assertion")
    plain = etree.tostring(assertion, method="c14n", exclusive=True)  # names its own namespaces
    template = xmlsec.template.encrypted_data_create(
        root, cipher, type="http://www.w3.org/2001/04/xmlenc#Element", ns="xenc"
    )
    xmlsec.template.encrypted_data_ensure_cipher_value(template)
    info = xmlsec.template.encrypted_data_ensure_key_info(template, ns="ds")
    key = xmlsec.template.add_encrypted_key(info, CONSTANTS.TransformRsaOaep)
    xmlsec.template.encrypted_data_ensure_cipher_value(key)
    manager = xmlsec.KeysManager()
    manager.add_key(xmlsec.Key.from_file(str(certificate), CONSTANTS.KeyDataFormatCertPem))
    context = xmlsec.EncryptionContext(manager)
    bits = 128 if cipher in (CONSTANTS.TransformAes128Gcm, CONSTANTS.TransformAes128Cbc) else 256
    context.key = xmlsec.Key.generate(CONSTANTS.KeyDataAes, bits, CONSTANTS.KeyDataTypeSession)
    wrapper = etree.Element(f"{{{SAML}}}EncryptedAssertion")
    wrapper.append(context.encrypt_binary(template, plain))
    root.replace(assertion, wrapper)


def encode(root: Any) -> str:
    return base64.b64encode(etree.tostring(root)).decode()


def decode(field: str) -> Any:
    return etree.fromstring(base64.b64decode(field))


def _stamp(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


_VALUE = "<saml:AttributeValue>{}</saml:AttributeValue>"
_RESPONSE = f"""<samlp:Response xmlns:samlp="{SAMLP}" xmlns:saml="{SAML}" ID="{{response}}"
    Version="2.0" IssueInstant="{{now}}" Destination="{{acs}}">
  <saml:Issuer>{{issuer}}</saml:Issuer>
  <samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status>
  <saml:Assertion ID="{{assertion}}" Version="2.0" IssueInstant="{{now}}">
    <saml:Issuer>{{issuer}}</saml:Issuer>
    <saml:Subject>
      <saml:NameID Format="{{format}}">{{name_id}}</saml:NameID>
      <saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">
        <saml:SubjectConfirmationData NotOnOrAfter="{{after}}" Recipient="{{acs}}"/>
      </saml:SubjectConfirmation>
    </saml:Subject>
    <saml:Conditions NotBefore="{{before}}" NotOnOrAfter="{{after}}">
      <saml:AudienceRestriction><saml:Audience>{{audience}}</saml:Audience></saml:AudienceRestriction>
    </saml:Conditions>
    <saml:AuthnStatement AuthnInstant="{{now}}" SessionIndex="s-1">
      <saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password</saml:AuthnContextClassRef></saml:AuthnContext>
    </saml:AuthnStatement>
    <saml:AttributeStatement>{{attributes}}</saml:AttributeStatement>
  </saml:Assertion>
</samlp:Response>"""
