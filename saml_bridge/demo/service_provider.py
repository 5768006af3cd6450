"""One demo partner's SAML service provider, built on pysaml2's client.

Owns: its keys, its metadata, and the answer to 'may this response sign somebody in?'. Does not own: pages and sessions
(`partners.py`), and nothing of the bridge: pysaml2 decides, with `crypto.py` for the cryptography. On top of pysaml2's
checks it refuses what pysaml2 leaves to its caller: a response seen before, one without Destination, audience or end.
"""

from __future__ import annotations

import base64
import binascii
import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from saml2 import BINDING_HTTP_POST
from saml2.client import Saml2Client
from saml2.config import SPConfig
from saml2.metadata import create_metadata_string
from saml2.sigver import SignatureError

from saml_bridge.demo.crypto import ASSERTION, ENCRYPTED_ASSERTION, RESPONSE, InProcessCrypto, parse_message

PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
EMAIL = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
NAME_FORMATS = {
    "urn:oasis:names:tc:SAML:2.0:attrname-format:uri": "uri",
    "urn:oasis:names:tc:SAML:2.0:attrname-format:basic": "basic",
}
MOST_REMEMBERED = 10_000


class ResponseRefused(Exception):
    """The partner does not sign anybody in. `reason` is the technical reason, for the curious viewer of the demo."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Wants:
    """What a service provider asks of a response, and so of its own metadata."""

    name_id_format: str
    assertion_signed: bool = True
    response_signed: bool = True
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class ReceivedAttribute:
    name: str
    values: tuple[str, ...]
    name_format: str
    friendly_name: str


@dataclass(frozen=True, slots=True)
class Received:
    """An accepted response. `signed` names the elements that carried a signature, which held."""

    issuer: str
    name_id: str
    name_id_format: str
    attributes: tuple[ReceivedAttribute, ...]
    signed: tuple[str, ...]
    encrypted: bool
    assertion_id: str
    session_index: str

    def first(self, *names: str) -> str | None:
        """The first value of the first of these attributes that is there."""
        found = {one.name: one.values[0] for one in self.attributes if one.values}
        return next((found[name] for name in names if name in found), None)

    def every(self, name: str) -> tuple[str, ...]:
        return next((one.values for one in self.attributes if one.name == name), ())


def make_key_pair(directory: Path, name: str) -> tuple[Path, Path]:
    """The key and certificate files of this name, made at first use; only the owner may read the key."""
    key_file, certificate_file = directory / f"{name}.key.pem", directory / f"{name}.cert.pem"
    if key_file.exists() and certificate_file.exists():
        return key_file, certificate_file
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"demo {name}")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with open(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem)
    return key_file, certificate_file


@dataclass(slots=True)
class ServiceProvider:
    """The service provider of one partner portal.

    Our identity providers' metadata are the files `idp-*.xml` of `state_dir`; they are read when the first response
    comes and again when one of them changes, so that neither side has to start first. Safe between threads.
    """

    slug: str
    display_name: str
    base_url: str
    state_dir: Path
    wants: Wants
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _client: Any = field(default=None, repr=False)
    _trusted: tuple[tuple[Path, int], ...] = ()
    _seen: dict[str, datetime] = field(default_factory=dict, repr=False)

    @property
    def entity_id(self) -> str:
        return f"{self.base_url}/{self.slug}/saml/metadata"

    @property
    def acs_url(self) -> str:
        return f"{self.base_url}/{self.slug}/saml/acs"

    def build_metadata(self) -> bytes:
        """This service provider's metadata, made by pysaml2; makes the keys at first use."""
        metadata: bytes = create_metadata_string(None, config=self._build_config(()))
        return metadata

    def accept(self, saml_response: str) -> Received:
        """Check a posted SAMLResponse and take in what it says. Raises ResponseRefused."""
        document = _decode(saml_response)
        encrypted = _check_envelope(document, must_be_encrypted=self.wants.encrypted)
        with self._lock:
            client = self._get_client()
            client.sec.crypto.reason = ""
            try:
                response = client.parse_authn_request_response(saml_response, BINDING_HTTP_POST)
            except Exception as error:  # noqa: BLE001 (pysaml2 raises bare Exception too; whatever it is, nobody gets in)
                _release_frames(error)
                raise ResponseRefused(_describe(error, client.sec.crypto.reason)) from None
            if response is None or response.response is None:
                raise ResponseRefused("the message is not a response that pysaml2 can read")
            if response.response.destination not in (None, self.acs_url):
                raise ResponseRefused("the response is meant for another address")
            if response.assertion is None:
                raise ResponseRefused(
                    f"the assertion cannot be read: {client.sec.crypto.reason or 'pysaml2 found none'}"
                )
            self._check_further(response)
            return _read(response, encrypted=encrypted)

    def _check_further(self, response: Any) -> None:
        """What pysaml2 leaves open. Raises ResponseRefused."""
        message, assertion = response.response, response.assertion
        if message.in_response_to is not None:
            raise ResponseRefused("the response answers a request, and this portal made none")
        if message.destination != self.acs_url:
            raise ResponseRefused("the response does not say that it is meant for this address")
        conditions = assertion.conditions
        if conditions is None or not conditions.audience_restriction or not conditions.not_on_or_after:
            raise ResponseRefused("the assertion does not say whom it is for and until when")
        if assertion.issuer is None or assertion.issuer.text != response.issuer():
            raise ResponseRefused("response and assertion name different issuers")
        if not all(map(self._confirms, assertion.subject.subject_confirmation)):
            raise ResponseRefused(
                "the assertion's subject confirmation is not a bearer's, for this address and without request"
            )
        self._remember(assertion.id, until=datetime.fromisoformat(conditions.not_on_or_after))

    def _confirms(self, confirmation: Any) -> bool:
        """SAML profiles section 4.1.4.3, for a response that no request asked for; pysaml2 has checked the times."""
        data = confirmation.subject_confirmation_data
        return (
            confirmation.method == BEARER
            and data is not None
            and data.recipient == self.acs_url
            and data.in_response_to is None
            and data.not_on_or_after is not None
        )

    def _remember(self, assertion_id: str, *, until: datetime) -> None:
        now = self.clock()
        self._seen = {one: end for one, end in self._seen.items() if end > now - timedelta(minutes=5)}
        if assertion_id in self._seen:
            raise ResponseRefused("this assertion has been used before")
        if len(self._seen) >= MOST_REMEMBERED:
            raise ResponseRefused("too many sign-ins at once; please try again in a few minutes")
        self._seen[assertion_id] = until

    def _get_client(self) -> Any:
        files = tuple((path, path.stat().st_mtime_ns) for path in sorted(self.state_dir.glob("idp-*.xml")))
        if not files:
            raise ResponseRefused("no identity provider's metadata has been registered here yet")
        if files != self._trusted:
            self._client = Saml2Client(config=self._build_config(tuple(path for path, _ in files)))
            self._client.sec.crypto = InProcessCrypto()
            self._trusted = files
        return self._client

    def _build_config(self, idp_files: tuple[Path, ...]) -> Any:
        key_file, certificate_file = make_key_pair(self.state_dir / "keys", f"{self.slug}-signing")
        config: dict[str, Any] = {
            "entityid": self.entity_id,
            "name": self.display_name,
            # names no program: the client's backend is replaced, and nothing else uses one
            "crypto_backend": "XMLSecurity",
            "key_file": str(key_file),
            "cert_file": str(certificate_file),
            "only_use_keys_in_metadata": True,
            "allow_unknown_attributes": True,
            "accepted_time_diff": 0,
            "organization": {
                "name": [(f"{self.display_name} (demo stand-in)", "en")],
                "display_name": [(f"{self.display_name} (demo stand-in)", "en")],
                "url": [(f"{self.base_url}/{self.slug}/", "en")],
            },
            "service": {"sp": self._build_sp_settings()},
        }
        if idp_files:
            config["metadata"] = {"local": [str(path) for path in idp_files]}
        if self.wants.encrypted:
            key_file, certificate_file = make_key_pair(self.state_dir / "keys", f"{self.slug}-encryption")
            config["encryption_keypairs"] = [{"key_file": str(key_file), "cert_file": str(certificate_file)}]
        return SPConfig().load(config)

    def _build_sp_settings(self) -> dict[str, Any]:
        return {
            "endpoints": {"assertion_consumer_service": [(self.acs_url, BINDING_HTTP_POST)]},
            "name_id_format": [self.wants.name_id_format],
            "allow_unsolicited": True,
            "authn_requests_signed": False,
            "logout_requests_signed": True,
            "want_assertions_signed": self.wants.assertion_signed,
            "want_response_signed": self.wants.response_signed,
            "want_assertions_or_response_signed": True,
            "ui_info": {"display_name": [{"lang": "en", "text": f"{self.display_name} (demo stand-in)"}]},
        }


def _decode(saml_response: str) -> bytes:
    """The XML of a SAMLResponse field; unlike pysaml2 it does not pass over foreign characters."""
    if not saml_response:
        raise ResponseRefused("no SAMLResponse was posted")
    try:
        return base64.b64decode("".join(saml_response.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ResponseRefused("the SAMLResponse is not base64") from error


def _check_envelope(document: bytes, *, must_be_encrypted: bool) -> bool:
    """Whether the response's one assertion is encrypted. Raises ResponseRefused for none, several, or a plain one."""
    try:
        root = parse_message(document)
    except SignatureError as error:
        raise ResponseRefused(str(error)) from error
    assertions = [one.tag for one in root.iter(ASSERTION, ENCRYPTED_ASSERTION)]
    if root.tag != RESPONSE or len(assertions) != 1:
        raise ResponseRefused("the message is not a response with exactly one assertion")
    if must_be_encrypted and assertions != [ENCRYPTED_ASSERTION]:
        raise ResponseRefused("the assertion is not encrypted")
    return assertions == [ENCRYPTED_ASSERTION]


def _release_frames(error: BaseException) -> None:
    """Let go of what pysaml2's frames hold: certificates in temporary files, which close when nobody holds them."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__context__


def _describe(error: Exception, reason: str) -> str:
    first = error.args[0] if error.args else ""
    said = first.get("message", "") if isinstance(first, dict) else str(first)
    parts = [type(error).__name__, said, reason if isinstance(error, SignatureError) else ""]
    return ": ".join(part for part in parts if part)[:300]


def _read(response: Any, *, encrypted: bool) -> Received:
    message, assertion = response.response, response.assertion
    signed = [name for name, one in (("Response", message), ("Assertion", assertion)) if one.signature]
    statements = assertion.authn_statement
    return Received(
        issuer=response.issuer(),
        name_id=response.name_id.text if response.name_id is not None else "",
        name_id_format=(response.name_id.format or "") if response.name_id is not None else "",
        attributes=tuple(
            ReceivedAttribute(
                name=one.name,
                values=tuple(value.text or "" for value in one.attribute_value),
                name_format=NAME_FORMATS.get(one.name_format, "unspecified"),
                friendly_name=one.friendly_name or "",
            )
            for statement in assertion.attribute_statement
            for one in statement.attribute
        ),
        signed=tuple(signed),
        encrypted=encrypted,
        assertion_id=assertion.id,
        session_index=(statements[0].session_index or "") if statements else "",
    )
