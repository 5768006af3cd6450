"""An identity provider for the demo partners' tests: literal XML, signed and encrypted with python-xmlsec.

It can make every mistake that a partner must refuse, which a real identity provider cannot.
"""

from __future__ import annotations

import base64
import re
import secrets
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import xmlsec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from lxml import etree

from saml_bridge.demo.partner_portals import SAML_PORTALS
from saml_bridge.demo.service_provider import PERSISTENT, ServiceProvider

ISSUER = "http://localhost:8000/saml/riverton-water/metadata"
SSO = "http://localhost:8000/saml/riverton-water/sso"
SLO = "http://localhost:8000/saml/riverton-water/slo"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
STATUS = "urn:oasis:names:tc:SAML:2.0:status:"
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
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
    offers_logout: bool = True

    def metadata(self) -> bytes:
        certificate = "".join((self.keys_dir / f"{self.key_name}.cert.pem").read_text().split("\n")[1:-2])
        services = "".join(
            f'<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:{one}" Location="{SLO}"/>'
            for one in (("HTTP-Redirect", "HTTP-POST") if self.offers_logout else ())
        )
        return f"""<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{self.entity_id}">
          <md:IDPSSODescriptor protocolSupportEnumeration="{SAMLP}">
            <md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data>
              <ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>
            {services}
            <md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
              Location="{SSO}"/>
          </md:IDPSSODescriptor>
          <md:Organization><md:OrganizationName xml:lang="en">riverton</md:OrganizationName>
            <md:OrganizationDisplayName xml:lang="en">Riverton Water</md:OrganizationDisplayName>
            <md:OrganizationURL xml:lang="en">http://localhost:8000/</md:OrganizationURL></md:Organization>
          </md:EntityDescriptor>""".encode()

    def build(
        self,
        provider: ServiceProvider,
        *,
        now: datetime | None = None,
        attributes: Mapping[str, Sequence[str]] | None = None,
        replace: Mapping[str, str] | None = None,
        in_response_to: str | None = None,
    ) -> Any:
        """An unsigned Response element; `replace` changes its text before anything is signed."""
        now = now or datetime.now(UTC)
        wants = SAML_PORTALS[provider.slug].wants
        values = {
            "acs": provider.acs_url,
            "answers": "" if in_response_to is None else f'InResponseTo="{in_response_to}"',
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

    def decline(
        self, provider: ServiceProvider, in_response_to: str, sub_status: str, *, sign: bool = True, **changes: str
    ) -> str:
        """A SAMLResponse field with a status in place of an assertion; `changes` are of the root's attributes."""
        root = etree.fromstring(
            f'<samlp:Response xmlns:samlp="{SAMLP}" xmlns:saml="{SAML}" ID="_r{secrets.token_hex(16)}" Version="2.0"'
            f' IssueInstant="{_stamp(datetime.now(UTC))}" Destination="{provider.acs_url}"'
            f' InResponseTo="{in_response_to}"><saml:Issuer>{self.entity_id}</saml:Issuer><samlp:Status>'
            f'<samlp:StatusCode Value="{STATUS}Responder"><samlp:StatusCode Value="{STATUS}{sub_status}"/>'
            "</samlp:StatusCode></samlp:Status></samlp:Response>"
        )
        for name, value in changes.items():
            root.set(name, value)
        if sign:
            self.sign(root)
        return encode(root)

    def ask_sign_out(
        self,
        destination: str,
        *,
        name_id: str = "pairwise-1",
        name_id_format: str = PERSISTENT,
        indexes: Sequence[str] = ("s-1",),
        children: str = "",
        **changes: str,
    ) -> Any:
        """An unsigned LogoutRequest element; `changes` are of its attributes."""
        listed = "".join(f"<samlp:SessionIndex>{one}</samlp:SessionIndex>" for one in indexes)
        root = etree.fromstring(
            f'<samlp:LogoutRequest xmlns:samlp="{SAMLP}" xmlns:saml="{SAML}" ID="_q{secrets.token_hex(16)}"'
            f' Version="2.0" IssueInstant="{_stamp(datetime.now(UTC))}" Destination="{destination}">'
            f'<saml:Issuer>{self.entity_id}</saml:Issuer>{children}<saml:NameID Format="{name_id_format}">{name_id}'
            f"</saml:NameID>{listed}</samlp:LogoutRequest>"
        )
        for name, value in changes.items():
            root.set(name, value)
        return root

    def answer_sign_out(self, destination: str, in_response_to: str, codes: Sequence[str], **changes: str) -> Any:
        """An unsigned LogoutResponse element with a status code and those below it."""
        status = ""
        for code in reversed(codes):
            status = f'<samlp:StatusCode Value="{STATUS}{code}">{status}</samlp:StatusCode>'
        root = etree.fromstring(
            f'<samlp:LogoutResponse xmlns:samlp="{SAMLP}" xmlns:saml="{SAML}" ID="_p{secrets.token_hex(16)}"'
            f' Version="2.0" IssueInstant="{_stamp(datetime.now(UTC))}" Destination="{destination}"'
            f' InResponseTo="{in_response_to}"><saml:Issuer>{self.entity_id}</saml:Issuer>'
            f"<samlp:Status>{status}</samlp:Status></samlp:LogoutResponse>"
        )
        for name, value in changes.items():
            root.set(name, value)
        return root

    def pack(self, name: str, root: Any, *, relay_state: str | None = None, algorithm: str = RSA_SHA256) -> str:
        """The query of the Redirect binding, signed."""
        deflater = zlib.compressobj(wbits=-15)
        packed = deflater.compress(etree.tostring(root)) + deflater.flush()
        fields = {name: base64.b64encode(packed).decode()}
        if relay_state is not None:
            fields["RelayState"] = relay_state
        query = urlencode({**fields, "SigAlg": algorithm})
        key = load_pem_private_key((self.keys_dir / f"{self.key_name}.key.pem").read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        digest = hashes.SHA1() if algorithm.endswith("rsa-sha1") else hashes.SHA256()
        signature = key.sign(query.encode(), padding.PKCS1v15(), digest)
        return f"{query}&{urlencode({'Signature': base64.b64encode(signature).decode()})}"


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
    Version="2.0" IssueInstant="{{now}}" {{answers}} Destination="{{acs}}">
  <saml:Issuer>{{issuer}}</saml:Issuer>
  <samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status>
  <saml:Assertion ID="{{assertion}}" Version="2.0" IssueInstant="{{now}}">
    <saml:Issuer>{{issuer}}</saml:Issuer>
    <saml:Subject>
      <saml:NameID Format="{{format}}">{{name_id}}</saml:NameID>
      <saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">
        <saml:SubjectConfirmationData {{answers}} NotOnOrAfter="{{after}}" Recipient="{{acs}}"/>
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
