"""One demo partner's SAML service provider, built on pysaml2's client.

Owns: its keys, its metadata, its requests for sign-on, and the answer to 'may this response sign somebody in?'. Does
not own: pages and sessions (`partners`), which requests are open (`memory`), signing out (`sign_out`), and
nothing of the bridge: pysaml2 decides, with `crypto` for the cryptography. On top of pysaml2's checks it refuses
what pysaml2 leaves to its caller: a response seen before, one without Destination, audience or end, one to a request
that is not open.
"""

from __future__ import annotations

import base64
import binascii
import os
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT, BINDING_SOAP
from saml2.client import Saml2Client
from saml2.config import SPConfig
from saml2.metadata import create_metadata_string
from saml2.response import StatusError
from saml2.sigver import SignatureError, import_rsa_key_from_file

from saml_bridge.demo.crypto import (
    ASSERTION,
    DS,
    ENCRYPTED_ASSERTION,
    RESPONSE,
    SAMLP,
    InProcessCrypto,
    RedirectCrypto,
    parse_message,
)

PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
EMAIL = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
NAME_FORMATS = {
    "urn:oasis:names:tc:SAML:2.0:attrname-format:uri": "uri",
    "urn:oasis:names:tc:SAML:2.0:attrname-format:basic": "basic",
}
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"
LONGEST_RELAY_STATE = 80
"""Bytes; SAML bindings, section 3.4.3."""

MOST_REMEMBERED = 10_000


class ResponseRefused(Exception):
    """A refusal of the partner, which signs nobody in.

    `reason` is the technical reason, for the curious viewer of the demo.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotGranted(Exception):
    """A utility's answer with a signed status instead of an assertion.

    The codes are SAML's URIs.
    """

    def __init__(self, *, status: str, sub_status: str, in_response_to: str) -> None:
        super().__init__(sub_status or status)
        self.status = status
        self.sub_status = sub_status
        self.in_response_to = in_response_to


@dataclass(frozen=True, slots=True)
class Wants:
    """The wishes and offers of a service provider, and so its own metadata.

    `logout` are the bindings of its single logout service.
    """

    name_id_format: str
    assertion_signed: bool = True
    response_signed: bool = True
    encrypted: bool = False
    signs_requests: bool = False
    logout: tuple[str, ...] = (BINDING_HTTP_REDIRECT,)


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """A utility that signs payers in here: entity ID, name, and address for requests."""

    entity_id: str
    name: str
    sso_url: str


@dataclass(frozen=True, slots=True)
class ReceivedAttribute:
    name: str
    values: tuple[str, ...]
    name_format: str
    friendly_name: str


@dataclass(frozen=True, slots=True)
class Received:
    """An accepted response. `signed` names the elements that carried a signature, which held.

    `in_response_to` is the request that it answers, None for an unsolicited one. The qualifiers are the name ID's.
    """

    issuer: str
    name_id: str
    name_id_format: str
    attributes: tuple[ReceivedAttribute, ...]
    signed: tuple[str, ...]
    encrypted: bool
    assertion_id: str
    session_index: str
    name_qualifier: str | None = None
    sp_name_qualifier: str | None = None
    in_response_to: str | None = None

    def first(self, *names: str) -> str | None:
        """The first value of the first of these attributes that is there."""
        found = {one.name: one.values[0] for one in self.attributes if one.values}
        return next((found[name] for name in names if name in found), None)

    def every(self, name: str) -> tuple[str, ...]:
        return next((one.values for one in self.attributes if one.name == name), ())


def make_key_pair(directory: Path, name: str) -> tuple[Path, Path]:
    """The key and certificate files of this name, made at first use.

    Only the owner may read the key.
    """
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

    Our identity providers' metadata are the files `idp/SLUG/*.xml` of `state_dir`; they are read at first need and
    again when one of them changes, so that neither side has to start first. Safe between threads.
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

    @property
    def slo_url(self) -> str:
        """Where the browser brings sign-out messages."""
        return f"{self.base_url}/{self.slug}/saml/slo"

    @property
    def soap_url(self) -> str:
        """Where servers bring sign-out messages."""
        return f"{self.slo_url}/soap"

    def list_identity_providers(self) -> list[IdentityProvider]:
        """The utilities that this portal has registered, by name.

        The list is empty as long as there is no metadata.
        """
        try:
            with self.using_client() as client:
                return sorted(_list_providers(client.metadata), key=lambda one: one.name)
        except ResponseRefused:
            return []

    def ask(self, idp: str, *, page: str, force: bool = False, passive: bool = False) -> tuple[str, str]:
        """A sign-on request to a registered utility: its ID, and where the browser takes it.

        `page` is the address to land on, sent as RelayState unless that is too long for one. Raises ResponseRefused.
        """
        options = {name: "true" for name, wanted in (("force_authn", force), ("is_passive", passive)) if wanted}
        with self.using_client() as client:
            request_id, message = client.prepare_for_authenticate(
                entityid=idp,
                relay_state=page if len(page.encode()) <= LONGEST_RELAY_STATE else "",
                binding=BINDING_HTTP_REDIRECT,
                nameid_format=self.wants.name_id_format,
                sign=self.wants.signs_requests,
                sigalg=RSA_SHA256,
                **options,
            )
        return str(request_id), find_location(message)

    def accept(self, saml_response: str, *, asked: Mapping[str, str] | None = None) -> Received:
        """Check a posted SAMLResponse and take in what it says. Raises ResponseRefused, NotGranted.

        `asked` are the open requests: their ID, and the entity ID of the utility that was asked.
        """
        document, asked = _decode(saml_response), asked or {}
        root = _parse_response(document)
        if root.find(ASSERTION) is None and root.find(ENCRYPTED_ASSERTION) is None:
            raise self._read_status(saml_response, root, asked)
        encrypted = _check_envelope(root, must_be_encrypted=self.wants.encrypted)
        with self.using_client() as client:
            response = client.parse_authn_request_response(saml_response, BINDING_HTTP_POST, dict(asked))
            if response is None or response.response is None:
                raise ResponseRefused("the message is not a response that pysaml2 can read")
            if response.response.destination not in (None, self.acs_url):
                raise ResponseRefused("the response is meant for another address")
            if response.assertion is None:
                raise ResponseRefused(
                    f"the assertion cannot be read: {client.sec.crypto.reason or 'pysaml2 found none'}"
                )
            self._check_further(response, asked)
            return _read(response, encrypted=encrypted)

    @contextmanager
    def using_client(self) -> Iterator[Any]:
        """pysaml2's client, for one thread at a time, knowing the metadata that is registered now.

        Raises ResponseRefused without any, and in place of each error of pysaml2.
        """
        with self._lock:
            client = self._get_client()
            client.sec.crypto.reason = ""
            try:
                yield client
            except (ResponseRefused, NotGranted):
                raise
            except Exception as error:  # noqa: BLE001 (pysaml2 raises bare Exception too; each is a refusal)
                _release_frames(error)
                raise ResponseRefused(_describe(error, client.sec.crypto.reason)) from None

    def _read_status(self, saml_response: str, root: Any, asked: Mapping[str, str]) -> NotGranted:
        """The status that a response without assertion brings. Raises ResponseRefused when it cannot be believed."""
        if root.find(f"{{{DS}}}Signature") is None:
            raise ResponseRefused("the response has no assertion and no signature")
        if root.get("InResponseTo") not in asked or root.get("Destination") != self.acs_url:
            raise ResponseRefused("the response has no assertion and answers no request of this portal")
        with self.using_client() as client:
            try:
                client.parse_authn_request_response(saml_response, BINDING_HTTP_POST, dict(asked))
            except StatusError as error:  # pysaml2 has verified the signature, the address and the time before
                _release_frames(error)
            else:
                raise ResponseRefused("the response says success and has no assertion")
        codes = [one.get("Value", "") for one in root.iterfind(f".//{{{SAMLP}}}StatusCode")]
        return NotGranted(
            status=codes[0], sub_status=codes[1] if len(codes) > 1 else "", in_response_to=root.get("InResponseTo")
        )

    def _check_further(self, response: Any, asked: Mapping[str, str]) -> None:
        """What pysaml2 leaves open. Raises ResponseRefused."""
        message, assertion = response.response, response.assertion
        if message.in_response_to is not None and asked.get(message.in_response_to) != response.issuer():
            raise ResponseRefused("the response answers a request that is not open at this portal")
        if message.destination != self.acs_url:
            raise ResponseRefused("the response does not say that it is meant for this address")
        conditions = assertion.conditions
        if conditions is None or not conditions.audience_restriction or not conditions.not_on_or_after:
            raise ResponseRefused("the assertion does not say whom it is for and until when")
        if assertion.issuer is None or assertion.issuer.text != response.issuer():
            raise ResponseRefused("response and assertion name different issuers")
        if not all(self._confirms(one, message.in_response_to) for one in assertion.subject.subject_confirmation):
            raise ResponseRefused(
                "the assertion's subject confirmation is not a bearer's, for this address and this very request"
            )
        self._remember(assertion.id, until=datetime.fromisoformat(conditions.not_on_or_after))

    def _confirms(self, confirmation: Any, request_id: str | None) -> bool:
        """SAML profiles section 4.1.4.3, with or without a request; pysaml2 has checked the times."""
        data = confirmation.subject_confirmation_data
        return (
            confirmation.method == BEARER
            and data is not None
            and data.recipient == self.acs_url
            and data.in_response_to == request_id
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
        files = tuple(
            (path, path.stat().st_mtime_ns) for path in sorted((self.state_dir / "idp" / self.slug).glob("*.xml"))
        )
        if not files:
            raise ResponseRefused("no identity provider's metadata has been registered here yet")
        if files != self._trusted:
            self._client = Saml2Client(config=self._build_config(tuple(path for path, _ in files)))
            self._client.sec.crypto = InProcessCrypto()
            self._client.sec.sec_backend = RedirectCrypto(import_rsa_key_from_file(self._client.config.key_file))
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
        loaded = SPConfig().load(config)
        # the name misleads: of any entity, whether it takes unsigned requests, so also those to sign out
        loaded.setattr("idp", "want_authn_requests_signed", True)
        return loaded

    def _build_sp_settings(self) -> dict[str, Any]:
        logout = [(self.soap_url if one == BINDING_SOAP else self.slo_url, one) for one in self.wants.logout]
        return {
            "endpoints": {
                "assertion_consumer_service": [(self.acs_url, BINDING_HTTP_POST)],
                "single_logout_service": logout,
            },
            "name_id_format": [self.wants.name_id_format],
            "allow_unsolicited": True,
            "authn_requests_signed": self.wants.signs_requests,
            "logout_requests_signed": True,
            "logout_responses_signed": True,
            "signing_algorithm": RSA_SHA256,
            "digest_algorithm": SHA256,
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


def _parse_response(document: bytes) -> Any:
    """The root of a Response. Raises ResponseRefused."""
    try:
        root = parse_message(document)
    except SignatureError as error:
        raise ResponseRefused(str(error)) from error
    if root.tag != RESPONSE:
        raise ResponseRefused("the message is not a response")
    return root


def _check_envelope(root: Any, *, must_be_encrypted: bool) -> bool:
    """Whether the response's one assertion is encrypted. Raises ResponseRefused for several, or a plain one."""
    assertions = [one.tag for one in root.iter(ASSERTION, ENCRYPTED_ASSERTION)]
    if len(assertions) != 1:
        raise ResponseRefused("the message is not a response with exactly one assertion")
    if must_be_encrypted and assertions != [ENCRYPTED_ASSERTION]:
        raise ResponseRefused("the assertion is not encrypted")
    return assertions == [ENCRYPTED_ASSERTION]


def find_location(message: Mapping[str, Any]) -> str:
    """The address of a message that pysaml2 has made for the Redirect binding."""
    return str(dict(message["headers"])["Location"])


def _list_providers(metadata: Any) -> Iterator[IdentityProvider]:
    for entity_id in metadata.with_descriptor("idpsso"):
        services = metadata.single_sign_on_service(entity_id, BINDING_HTTP_REDIRECT)
        if services:
            shown = next(iter(metadata.mdui_uiinfo_display_name(entity_id, "en")), None)
            name = shown or metadata.name(entity_id) or urlsplit(entity_id).hostname
            yield IdentityProvider(entity_id, str(name), services[0]["location"])


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
        name_qualifier=response.name_id.name_qualifier if response.name_id is not None else None,
        sp_name_qualifier=response.name_id.sp_name_qualifier if response.name_id is not None else None,
        in_response_to=message.in_response_to,
    )
