"""The SAML `<Response>`: a partner compiled once, a response built from it at each launch.

Owns: what stands in a response and its assertion (SAML 2.0 Core 2 and 3, Profiles 4.1), the name ID, and what can be
said beforehand about a partner's settings. Does not own: attributes (`mapping.py`), signatures and encryption
(`sign.py`, `encrypt.py`), partner metadata (`metadata.py`), the checks of a launch and its record (`launch.py`).
Called by: the registry when it compiles or publishes a configuration, the launch.

A response has one assertion with one bearer confirmation. Without `in_response_to` it is unsolicited, and InResponseTo
stands nowhere. The unchanging parts are made of pysaml2's schema classes and kept as two lxml trees; a launch copies,
stamps, signs, encrypts and serialises them, and nothing is touched after it was signed. The assertion is a tree of its
own until then, so that it declares each namespace that it uses and can be taken out of the response whole.
"""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from lxml import etree
from saml2 import SamlBase, saml, samlp
from saml2.saml import (
    NAMEID_FORMAT_EMAILADDRESS,
    NAMEID_FORMAT_PERSISTENT,
    NAMEID_FORMAT_TRANSIENT,
    NAMEID_FORMAT_UNSPECIFIED,
    SCM_BEARER,
)

from saml_bridge.document import NameIdFormat, SamlSettings
from saml_bridge.errors import LaunchRefused, MetadataRefused, PartnerUnusable, ValueRefused
from saml_bridge.fields import FieldReader, FieldUnknown, compile_path, is_multi_valued
from saml_bridge.pairwise import compile_pairwise
from saml_bridge.saml.encrypt import RSA_1_5, RSA_OAEP_MGF1P, Recipient, find_cipher_uri, prepare_recipient
from saml_bridge.saml.metadata import Endpoint, SpMetadata, choose_acs
from saml_bridge.saml.sign import EnvelopedSigner, SigningKey, find_key_kind, prepare_signer
from saml_bridge.values import Attribute, Finding, JsonObject, PortalSession, Severity

MOST_LIFETIME_SECONDS = 300
MOST_NAME_ID_CHARACTERS = 256
MOST_VALUES = 200
MOST_VALUE_CHARACTERS = 4096
LEAST_SECRET_BYTES = 16

NAME_ID_FORMATS: dict[NameIdFormat, str] = {
    "persistent": NAMEID_FORMAT_PERSISTENT,
    "email": NAMEID_FORMAT_EMAILADDRESS,
    "transient": NAMEID_FORMAT_TRANSIENT,
    "unspecified": NAMEID_FORMAT_UNSPECIFIED,
}

_CLASSES = "urn:oasis:names:tc:SAML:2.0:ac:classes:"
UNSPECIFIED_CONTEXT = f"{_CLASSES}unspecified"
AUTHN_CONTEXTS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"pwd"}), f"{_CLASSES}PasswordProtectedTransport"),
    (frozenset({"sc"}), f"{_CLASSES}Smartcard"),
    (frozenset({"mfa", "sms"}), f"{_CLASSES}MobileTwoFactorUnregistered"),
)
"""From methods that the portal names (RFC 8176) to the class that is stated: the first row whose methods were all used.

A password with a further factor stays PasswordProtectedTransport: it is true, SAML 2.0 has no class for 'and a second
factor', and partners that ask for a class ask for this one. What no row covers is stated as unspecified, never guessed.
"""

_SAML = saml.NAMESPACE
_ATTRIBUTE_STATEMENT = f"{{{_SAML}}}AttributeStatement"
_ATTRIBUTE = f"{{{_SAML}}}Attribute"
_ATTRIBUTE_VALUE = f"{{{_SAML}}}AttributeValue"
_XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_ASSERTION_NAMESPACES = {
    "saml": _SAML,
    "xs": "http://www.w3.org/2001/XMLSchema",
    "xsi": "http://www.w3.org/2001/XMLSchema-instance",
}
_PREFIXES = {"saml": _SAML, "samlp": samlp.NAMESPACE}


@dataclass(frozen=True, slots=True)
class Stamp:
    """What makes one response differ from every other: the instant (aware UTC, whole seconds) and four identifiers."""

    now: datetime
    response_id: str
    assertion_id: str
    session_index: str
    transient_id: str


def stamp_from(now: datetime, random_bytes: Callable[[int], bytes]) -> Stamp:
    """A stamp with identifiers of 160 random bits each (SAML 2.0 Core 1.3.4). Raises ValueError for a naive `now`."""
    if now.tzinfo is None:
        raise ValueError("the time has no time zone")
    digits = random_bytes(80).hex()
    return Stamp(
        now.astimezone(UTC).replace(microsecond=0), *("_" + digits[start : start + 40] for start in range(0, 160, 40))
    )


_NO_STAMP: Final = Stamp(datetime(2000, 1, 1, tzinfo=UTC), "_", "_", "_", "_")


@dataclass(frozen=True, slots=True)
class BuiltResponse:
    """`xml` is the UTF-8 document as it goes out; `name_id_format` the full URN."""

    xml: bytes
    response_id: str
    assertion_id: str
    session_index: str
    name_id: str
    name_id_format: str


@dataclass(frozen=True, slots=True)
class CompiledPartner:
    """A partner ready for launches. Made by `compile_partner`; safe to share between threads."""

    acs: Endpoint
    metadata: SpMetadata
    key: SigningKey
    settings: SamlSettings
    issuer: str
    name_id_format: str
    find_name_id: Callable[[Stamp, PortalSession, JsonObject | None], str] = field(repr=False, compare=False)
    response: etree._Element = field(repr=False, compare=False)
    assertion: etree._Element = field(repr=False, compare=False)
    assertion_signer: EnvelopedSigner | None = field(repr=False, compare=False)
    response_signer: EnvelopedSigner | None = field(repr=False, compare=False)
    recipient: Recipient | None = field(repr=False, compare=False)

    def build_response(
        self,
        *,
        stamp: Stamp,
        session: PortalSession,
        account: JsonObject | None,
        attributes: Sequence[Attribute],
        in_response_to: str | None = None,
    ) -> BuiltResponse:
        """Copy, stamp, sign, encrypt, sign, serialise.

        Raises LaunchRefused (name-id-missing, name-id-ambiguous), ValueRefused (value-refused) for a value that cannot
        be carried, and SignatureFault. Without attributes the assertion has no attribute statement: the schema knows
        no empty one, and nothing is released that no rule asks for.
        """
        name_id, issued = self.find_name_id(stamp, session, account), format_instant(stamp.now)
        assertion = copy.deepcopy(self.assertion)
        assertion.set("ID", stamp.assertion_id)
        assertion.set("IssueInstant", issued)
        self._stamp_assertion(assertion, stamp, name_id, session, in_response_to)
        _append_attributes(assertion, attributes)
        if self.assertion_signer is not None:
            self.assertion_signer.sign(assertion)
        response = copy.deepcopy(self.response)
        response.set("ID", stamp.response_id)
        response.set("IssueInstant", issued)
        if in_response_to is not None:
            response.set("InResponseTo", in_response_to)
        response.append(assertion if self.recipient is None else self.recipient.encrypt(assertion))
        if self.response_signer is not None:
            self.response_signer.sign(response)
        return BuiltResponse(
            xml=etree.tostring(response, encoding="UTF-8"),
            response_id=stamp.response_id,
            assertion_id=stamp.assertion_id,
            session_index=stamp.session_index,
            name_id=name_id,
            name_id_format=self.name_id_format,
        )

    def check_values(
        self, *, session: PortalSession, account: JsonObject | None, attributes: Sequence[Attribute]
    ) -> None:
        """Whether a response can carry these values; raises what `build_response` would, and signs nothing."""
        _set_text(etree.Element(_ATTRIBUTE_VALUE), self.find_name_id(_NO_STAMP, session, account), "NameID")
        _append_attributes(etree.Element(_ATTRIBUTE_STATEMENT), attributes)

    def _stamp_assertion(
        self,
        assertion: etree._Element,
        stamp: Stamp,
        name_id: str,
        session: PortalSession,
        in_response_to: str | None,
    ) -> None:
        now, ends = stamp.now, format_instant(stamp.now + timedelta(seconds=self.settings.lifetime_seconds))
        _, subject, conditions, authn_statement = assertion
        subject_name, confirmation = subject
        _set_text(subject_name, name_id, "NameID")
        confirmation[0].set("NotOnOrAfter", ends)
        if in_response_to is not None:
            confirmation[0].set("InResponseTo", in_response_to)
        conditions.set("NotBefore", format_instant(now - timedelta(seconds=self.settings.skew_seconds)))
        conditions.set("NotOnOrAfter", ends)
        authn_statement.set("AuthnInstant", format_instant(session.auth_time))
        authn_statement.set("SessionIndex", stamp.session_index)
        if session.expires_at > now:
            authn_statement.set("SessionNotOnOrAfter", format_instant(session.expires_at))
        authn_statement[0][0].text = find_authn_context(session.amr)


def compile_partner(
    *,
    settings: SamlSettings,
    metadata: SpMetadata,
    biller: str,
    partner: str,
    issuer: str,
    key: SigningKey,
    pairwise_secret: bytes,
) -> CompiledPartner:
    """Build everything about responses to one partner that no launch changes.

    `biller` and `partner` are slugs, `issuer` is our entity ID. Raises PartnerUnusable with the findings of
    `check_partner` that refuse.
    """
    findings = check_partner(
        settings=settings, metadata=metadata, issuer=issuer, key=key, pairwise_secret=pairwise_secret
    )
    refusals = tuple(finding for finding in findings if finding.refuses)
    if refusals:
        codes = ", ".join(finding.code for finding in refusals)
        raise PartnerUnusable(f"partner {partner} of {biller}: {codes}", findings=refusals)
    signer = prepare_signer(key, settings.signature_algorithm)
    acs = choose_acs(metadata, settings.acs)
    return CompiledPartner(
        acs=acs,
        metadata=metadata,
        key=key,
        settings=settings,
        issuer=issuer,
        name_id_format=NAME_ID_FORMATS[settings.name_id.format],
        find_name_id=_compile_name_id(settings, biller=biller, partner=partner, secret=pairwise_secret),
        response=_build_response_skeleton(issuer=issuer, acs=acs),
        assertion=_build_assertion_skeleton(settings, issuer=issuer, acs=acs, audience=metadata.entity_id),
        assertion_signer=None if settings.sign == "response" else signer,
        response_signer=None if settings.sign == "assertion" else signer,
        recipient=_choose_recipient(settings, metadata),
    )


def _choose_recipient(settings: SamlSettings, metadata: SpMetadata) -> Recipient | None:
    """The partner's key to encrypt to, one that is for encryption alone first; None to send in the clear."""
    if settings.encrypt == "never" or not metadata.encryption_certificates:
        return None
    certificate = min(metadata.encryption_certificates, key=lambda one: one.use is None)
    return prepare_recipient(certificate, settings.encryption_algorithm)


def _build_response_skeleton(*, issuer: str, acs: Endpoint) -> etree._Element:
    status = samlp.Status(status_code=samlp.StatusCode(value=samlp.STATUS_SUCCESS))
    response = _to_tree(samlp.Response(version="2.0", destination=acs.location, status=status))
    response.insert(0, _to_tree(saml.Issuer(text=issuer)))
    return response


def _build_assertion_skeleton(settings: SamlSettings, *, issuer: str, acs: Endpoint, audience: str) -> etree._Element:
    name_id = saml.NameID(format=NAME_ID_FORMATS[settings.name_id.format])
    if settings.name_id.format == "persistent":
        name_id.name_qualifier, name_id.sp_name_qualifier = issuer, audience
    confirmation = saml.SubjectConfirmation(
        method=SCM_BEARER, subject_confirmation_data=saml.SubjectConfirmationData(recipient=acs.location)
    )
    restriction = saml.AudienceRestriction(audience=[saml.Audience(text=audience)])
    context = saml.AuthnContext(authn_context_class_ref=saml.AuthnContextClassRef())
    assertion = saml.Assertion(
        version="2.0",
        issuer=saml.Issuer(text=issuer),
        subject=saml.Subject(name_id=name_id, subject_confirmation=[confirmation]),
        conditions=saml.Conditions(audience_restriction=[restriction]),
        authn_statement=[saml.AuthnStatement(authn_context=context)],
    )
    tree = _to_tree(assertion)
    etree.cleanup_namespaces(tree, top_nsmap=_ASSERTION_NAMESPACES, keep_ns_prefixes=list(_ASSERTION_NAMESPACES))
    return tree


def _to_tree(item: SamlBase) -> etree._Element:
    return etree.fromstring(item.to_string(_PREFIXES))


def _append_attributes(assertion: etree._Element, attributes: Sequence[Attribute]) -> None:
    """Every value as xs:string, the text as it is."""
    if not attributes:
        return
    shape = tuple((one.name, one.name_format, one.friendly_name, len(one.values)) for one in attributes)
    statement = copy.deepcopy(_build_statement(shape))
    places = statement.iter(_ATTRIBUTE_VALUE)
    for attribute in attributes:
        _check_size(attribute)
        for value in attribute.values:
            _set_text(next(places), value, attribute.name)
    assertion.append(statement)


@lru_cache(maxsize=1024)
def _build_statement(shape: tuple[tuple[str, str, str | None, int], ...]) -> etree._Element:
    """An attribute statement whose values are still empty: launches through one mapping mostly have one shape."""
    statement = etree.Element(_ATTRIBUTE_STATEMENT, nsmap=_ASSERTION_NAMESPACES)
    for name, name_format, friendly_name, count in shape:
        element = etree.SubElement(statement, _ATTRIBUTE)
        _set_names(element, name, name_format, friendly_name)
        for _ in range(min(count, MOST_VALUES)):
            etree.SubElement(element, _ATTRIBUTE_VALUE).set(_XSI_TYPE, "xs:string")
    return statement


def _set_names(element: etree._Element, name: str, name_format: str, friendly_name: str | None) -> None:
    try:
        element.set("Name", name)
        element.set("NameFormat", name_format)
        if friendly_name is not None:
            element.set("FriendlyName", friendly_name)
    except ValueError:
        raise _refuse_value(ascii(name), "has a name that XML 1.0 cannot carry") from None


def _check_size(attribute: Attribute) -> None:
    if len(attribute.values) > MOST_VALUES:
        raise _refuse_value(attribute.name, f"has {len(attribute.values)} values; at most {MOST_VALUES} are sent")
    if max(map(len, attribute.values)) > MOST_VALUE_CHARACTERS:
        raise _refuse_value(attribute.name, f"has a value of more than {MOST_VALUE_CHARACTERS} characters")


def _set_text(element: etree._Element, text: str, name: str) -> None:
    try:
        element.text = text
    except ValueError:  # control characters, and as its subclass UnicodeEncodeError lone surrogates
        raise _refuse_value(name, "has a character that XML 1.0 cannot carry") from None


def _refuse_value(name: str, reason: str) -> ValueRefused:
    message = f"{name} {reason}."
    return ValueRefused(message, findings=(Finding(ValueRefused.code, Severity.ERROR, message, where=name),))


def find_authn_context(methods: Sequence[str]) -> str:
    """The authentication context class that the methods named by the portal bear out (`AUTHN_CONTEXTS`)."""
    used = frozenset(methods)
    return next((uri for needed, uri in AUTHN_CONTEXTS if needed <= used), UNSPECIFIED_CONTEXT)


@lru_cache(maxsize=256)  # launches of one second, and of one session, share their instants
def format_instant(instant: datetime) -> str:
    """An aware time in UTC to the second, `YYYY-MM-DDTHH:MM:SSZ` (SAML 2.0 Core 1.3.3)."""
    return instant.astimezone(UTC).isoformat()[:19] + "Z"


# Name IDs (SAML 2.0 Core 8.3)

_PAIRWISE_DOMAIN = b"saml_bridge pairwise name ID, version 1"
_EMAIL = re.compile(r"[^@]{1,64}@[^@]{1,255}")
_REFUSED_IN_NAME_ID = frozenset("<>&")
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cn", "Cs", "Zl", "Zp", "Zs"})


def _compile_name_id(
    settings: SamlSettings, *, biller: str, partner: str, secret: bytes
) -> Callable[[Stamp, PortalSession, JsonObject | None], str]:
    if settings.name_id.format == "transient":
        return lambda stamp, _session, _account: stamp.transient_id
    read = compile_path(settings.name_id.from_)
    finish: Callable[[str], str] = _check_name_id
    if settings.name_id.format == "email":
        finish = _check_email
    elif settings.name_id.format == "persistent":
        finish = _compile_pairwise(biller=biller, partner=partner, secret=secret)
    return lambda _stamp, session, account: finish(_read_one(read, session, account))


def _compile_pairwise(*, biller: str, partner: str, secret: bytes) -> Callable[[str], str]:
    """An opaque, stable identifier that differs between billers and partners: 64 hexadecimal digits."""
    find = compile_pairwise(_PAIRWISE_DOMAIN, biller=biller, sector=partner, secret=secret)

    def derive(source: str) -> str:
        try:
            return find(source).hex()
        except UnicodeEncodeError:
            raise _refuse_value("NameID", "has a source that is not valid Unicode") from None

    return derive


def _read_one(read: FieldReader, session: PortalSession, account: JsonObject | None) -> str:
    values = read(session, account)
    if len(values) > 1:
        raise LaunchRefused(f"the NameID's field has {len(values)} values", code="name-id-ambiguous")
    if not values or not values[0]:
        raise LaunchRefused("the NameID's field is empty or absent", code="name-id-missing")
    return values[0]


def _check_name_id(value: str) -> str:
    """Refuse what two readers could read differently; anything else goes out unchanged, case and form kept."""
    if len(value) > MOST_NAME_ID_CHARACTERS:
        raise _refuse_value("NameID", f"has more than {MOST_NAME_ID_CHARACTERS} characters")
    if any(char in _REFUSED_IN_NAME_ID or unicodedata.category(char) in _REFUSED_CATEGORIES for char in value):
        raise _refuse_value("NameID", "has markup, white space, a control character or an invisible one")
    return value


def _check_email(value: str) -> str:
    if not _EMAIL.fullmatch(_check_name_id(value)):
        raise _refuse_value("NameID", "is no e-mail address")
    return value


# What can be said beforehand


def check_partner(
    *, settings: SamlSettings, metadata: SpMetadata, issuer: str, key: SigningKey, pairwise_secret: bytes
) -> tuple[Finding, ...]:
    """Everything that a publication should know about responses to this partner; errors make it unusable.

    `where` is a path below the partner (`saml.encrypt`), or the partner's entity ID.
    """
    return (
        *_check_identity(settings, metadata, issuer),
        *_check_signing(settings, metadata, key),
        *_check_encryption(settings, metadata),
        *_check_name_id_settings(settings, metadata, pairwise_secret),
        *_check_times(settings),
    )


def _check_identity(settings: SamlSettings, metadata: SpMetadata, issuer: str) -> Iterator[Finding]:
    if metadata.entity_id == issuer:
        message = "The partner's entity ID is our own."
        fix = "Register the partner's metadata, not the biller's."
        yield Finding("partner-is-us", Severity.ERROR, message, fix, metadata.entity_id)
    try:
        choose_acs(metadata, settings.acs)
    except MetadataRefused as refused:
        yield from refused.findings


def _check_signing(settings: SamlSettings, metadata: SpMetadata, key: SigningKey) -> Iterator[Finding]:
    algorithm = settings.signature_algorithm
    if find_key_kind(algorithm) != key.kind:
        yield Finding(
            "signature-algorithm-key",
            Severity.ERROR,
            f"The key {key.name} is an {key.kind.upper()} key, and {algorithm} needs another kind.",
            f"Choose one of {'rsa' if key.kind == 'rsa' else 'ecdsa'}-sha256, -sha384, -sha512, or another key.",
            "saml.signature_algorithm",
        )
    elif key.kind == "ec" and not _is_shibboleth(metadata):
        yield Finding(
            "signature-ecdsa-partner",
            Severity.WARNING,
            "ECDSA signatures are known to be read by Shibboleth, python3-saml and pysaml2; others mostly refuse them.",
            "Use an RSA key unless the partner says that it reads ECDSA.",
            "saml.signature_algorithm",
        )
    if settings.sign == "response" and metadata.want_assertions_signed:
        yield Finding(
            "sign-assertion-wanted",
            Severity.WARNING,
            "The partner's metadata wants signed assertions (WantAssertionsSigned), and only the response is signed.",
            "Set sign to both.",
            "saml.sign",
        )


def _is_shibboleth(metadata: SpMetadata) -> bool:
    return any("/Shibboleth.sso/" in endpoint.location for endpoint in metadata.acs)


def _check_encryption(settings: SamlSettings, metadata: SpMetadata) -> Iterator[Finding]:
    if settings.encrypt == "never":
        return
    offered = [one for one in metadata.certificates if one.use != "signing"]
    if settings.encrypt == "always" and not metadata.encryption_certificates:
        yield Finding(
            "encrypt-no-key",
            Severity.ERROR,
            "Assertions are to be encrypted always, and the metadata has no key to encrypt to (RSA, 2048 bits).",
            "Ask the partner for metadata with an encryption key, or set encrypt to when_offered.",
            "saml.encrypt",
        )
    elif offered and not metadata.encryption_certificates:
        yield Finding(
            "encrypt-key-unfit",
            Severity.WARNING,
            "The partner offers an encryption key that is not RSA of 2048 bits or more: assertions go unencrypted.",
            "Ask the partner for metadata with a stronger encryption key.",
            "saml.encrypt",
        )
    yield from _check_encryption_methods(settings, metadata)


def _check_encryption_methods(settings: SamlSettings, metadata: SpMetadata) -> Iterator[Finding]:
    algorithm = settings.encryption_algorithm
    transports = {uri for uri in metadata.encryption_methods if "#rsa-" in uri}
    ciphers = {uri for uri in metadata.encryption_methods if "#rsa-" not in uri}
    if transports == {RSA_1_5}:
        yield Finding(
            "encrypt-rsa-1-5-only",
            Severity.ERROR,
            "The partner's metadata lists RSA 1.5 as the only key transport, which is never used: it can be broken.",
            "Ask the partner to allow rsa-oaep-mgf1p, or set encrypt to never.",
            "saml.encrypt",
        )
    elif transports and RSA_OAEP_MGF1P not in transports:
        yield _warn_unlisted("rsa-oaep-mgf1p", "Ask the partner whether it reads rsa-oaep-mgf1p; most do.")
    if ciphers and find_cipher_uri(algorithm) not in ciphers:
        names = ", ".join(sorted(uri.rpartition("#")[2] for uri in ciphers))
        yield _warn_unlisted(algorithm, f"It lists {names}; set encryption_algorithm to one of them if it is known.")
    if algorithm.endswith("-cbc"):
        yield Finding(
            "encrypt-cbc",
            Severity.WARNING,
            f"{algorithm} does not protect the encrypted assertion against change.",
            "Use aes128-gcm unless the partner cannot read it.",
            "saml.encryption_algorithm",
        )


def _warn_unlisted(name: str, fix: str) -> Finding:
    message = f"The partner's metadata lists encryption methods without {name}, which is what would be used."
    return Finding("encrypt-method-unlisted", Severity.WARNING, message, fix, "saml.encryption_algorithm")


def _check_name_id_settings(settings: SamlSettings, metadata: SpMetadata, secret: bytes) -> Iterator[Finding]:
    chosen, listed = NAME_ID_FORMATS[settings.name_id.format], metadata.name_id_formats
    if listed and chosen not in listed and NAMEID_FORMAT_UNSPECIFIED not in listed:
        names = ", ".join(uri.rpartition(":")[2] for uri in listed)
        yield Finding(
            "name-id-format-unlisted",
            Severity.WARNING,
            f"The name ID format is {settings.name_id.format}; the partner's metadata lists {names}.",
            "Choose a format that the partner lists, or ask it.",
            "saml.name_id.format",
        )
    if settings.name_id.format == "persistent" and len(secret) < LEAST_SECRET_BYTES:
        yield Finding(
            "pairwise-secret-short",
            Severity.ERROR,
            f"The secret behind persistent name IDs has {len(secret)} bytes; {LEAST_SECRET_BYTES} are the least.",
            "Give the service a longer random secret.",
            "saml.name_id.format",
        )
    if settings.name_id.format != "transient":
        yield from _check_name_id_source(settings.name_id.from_)


def _check_name_id_source(path: str) -> Iterator[Finding]:
    try:
        compile_path(path)
    except FieldUnknown as unknown:
        said = str(unknown)
        message, fix = f"{said[:1].upper()}{said[1:]}.".replace("?.", "?"), "Name a field of the portal session."
        yield Finding("name-id-field-unknown", Severity.ERROR, message, fix, "saml.name_id.from")
        return
    if is_multi_valued(path):
        message = f"The name ID is taken from {path}, which can have many values."
        fix = "Name a field with one value, such as payer.id or account.number."
        yield Finding("name-id-field-many", Severity.ERROR, message, fix, "saml.name_id.from")


def _check_times(settings: SamlSettings) -> Iterator[Finding]:
    if not 1 <= settings.lifetime_seconds <= MOST_LIFETIME_SECONDS:
        message = f"The lifetime is {settings.lifetime_seconds} seconds; 1 to {MOST_LIFETIME_SECONDS} are accepted."
        fix = f"Set lifetime_seconds to at most {MOST_LIFETIME_SECONDS}."
        yield Finding("lifetime-out-of-range", Severity.ERROR, message, fix, "saml.lifetime_seconds")
    if settings.skew_seconds < 0:
        message = f"The skew is {settings.skew_seconds} seconds; it cannot be negative."
        yield Finding("skew-negative", Severity.ERROR, message, "Set skew_seconds to 60.", "saml.skew_seconds")
