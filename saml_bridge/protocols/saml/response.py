"""The SAML `<Response>`: a partner compiled once, a response built at each launch.

Owns: the content of a response and its assertion (SAML 2.0 Core 2 and 3, Profiles 4.1), the name ID, and the findings
about a partner's settings that are known beforehand.

Does not own: attributes, which have no character that XML cannot carry when they come here (`mapping.rules`), the text
that a name ID is made of (`mapping.identifiers`), signatures and encryption (`xml.sign`, `xml.encrypt`), partner
metadata (`metadata.judge`), the checks of a launch and its record (`flows.launch.launch`).

Called by: `receiver`, and `billers.checks.publication` for `check_saml_partner`.

A response has one assertion with one bearer confirmation. Without `in_response_to` it is unsolicited, and InResponseTo
stands nowhere. The unchanging parts are made of pysaml2's schema classes and kept as two lxml trees; a launch copies,
stamps, signs, encrypts and serialises them, and nothing is touched after it was signed. The assertion is a tree of its
own until then, so that it declares each namespace that it uses and can be taken out of the response whole.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
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

from saml_bridge.keys.signing_key import SigningKey, find_key_kind
from saml_bridge.mapping.characters import CharacterRefused, check_identifier
from saml_bridge.mapping.identifiers import NAME_ID, check_identifier_settings, compile_identifier
from saml_bridge.model.document import NameIdFormat, SamlSettings
from saml_bridge.model.errors import LaunchRefused, MetadataRefused, PartnerUnusable, ValueRefused
from saml_bridge.model.values import Attribute, Finding, JsonObject, PortalSession, Severity
from saml_bridge.protocols.auth_contexts import find_context
from saml_bridge.protocols.pairwise import compile_pairwise
from saml_bridge.protocols.saml.metadata.encryption_choice import (
    ListedMethods,
    choose_encryption,
    list_methods,
    show_methods,
)
from saml_bridge.protocols.saml.metadata.service_provider import Endpoint, SpMetadata, choose_acs
from saml_bridge.protocols.saml.xml.encrypt import RSA_1_5, Recipient, find_cipher_uri, prepare_recipient
from saml_bridge.protocols.saml.xml.sign import EnvelopedSigner, prepare_signer

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
_MEANT_FORMATS: Final[Mapping[str, str]] = {
    one.replace("SAML:1.1", "SAML:2.0"): one for one in (NAMEID_FORMAT_EMAILADDRESS, NAMEID_FORMAT_UNSPECIFIED)
}
"""Two formats that SAML 2.0 took over under their old names; software often looks for them under a new one."""

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
class ResponseStamp:
    """The time and the identifiers that make each response differ from every other.

    `now` is aware UTC in whole seconds.
    """

    now: datetime
    response_id: str
    assertion_id: str
    session_index: str
    transient_id: str


def make_stamp(now: datetime, random_bytes: Callable[[int], bytes]) -> ResponseStamp:
    """A stamp with four identifiers of 160 random bits each (SAML 2.0 Core 1.3.4).

    Raises ValueError for a naive `now`.
    """
    if now.tzinfo is None:
        raise ValueError("the time has no time zone")
    digits = random_bytes(80).hex()
    return ResponseStamp(
        now.astimezone(UTC).replace(microsecond=0), *("_" + digits[start : start + 40] for start in range(0, 160, 40))
    )


_NO_STAMP: Final = ResponseStamp(datetime(2000, 1, 1, tzinfo=UTC), "_", "_", "_", "_")


@dataclass(frozen=True, slots=True)
class BuiltResponse:
    """A response as it goes out.

    `xml` is the UTF-8 document; `name_id_format` the full URN.
    """

    xml: bytes
    response_id: str
    assertion_id: str
    session_index: str
    name_id: str
    name_id_format: str


@dataclass(frozen=True, slots=True)
class CompiledSamlPartner:
    """A partner ready for launches. Made by `compile_saml_partner`; safe to share between threads."""

    acs: Endpoint
    metadata: SpMetadata
    key: SigningKey
    settings: SamlSettings
    issuer: str
    name_id_format: str
    find_name_id: Callable[[ResponseStamp, PortalSession, JsonObject | None], str] = field(repr=False, compare=False)
    response: etree._Element = field(repr=False, compare=False)
    assertion: etree._Element = field(repr=False, compare=False)
    assertion_signer: EnvelopedSigner | None = field(repr=False, compare=False)
    response_signer: EnvelopedSigner | None = field(repr=False, compare=False)
    recipient: Recipient | None = field(repr=False, compare=False)

    def build_response(
        self,
        *,
        stamp: ResponseStamp,
        session: PortalSession,
        account: JsonObject | None,
        attributes: Sequence[Attribute],
        in_response_to: str | None = None,
        context: str | None = None,
    ) -> BuiltResponse:
        """The response to one launch: copied, stamped, signed, encrypted, signed, serialised.

        `context` is the authentication context class that a request chose among those that the session bears out.
        Without attributes the assertion has no attribute statement: the schema knows no empty one, and nothing is
        released that no rule asks for.

        Raises LaunchRefused (name-id-missing, name-id-ambiguous, name-id-transform), ValueRefused (value-refused) for a
        value that cannot be carried, and SignatureFault.
        """
        name_id, issued = self.find_name_id(stamp, session, account), format_instant(stamp.now)
        assertion = copy.deepcopy(self.assertion)
        assertion.set("ID", stamp.assertion_id)
        assertion.set("IssueInstant", issued)
        self._stamp_assertion(assertion, stamp, name_id, session, in_response_to, context)
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

    def list_name_ids(self, session: PortalSession) -> Iterator[str]:
        """The names that launches in this session can give the payer.

        There is one without an account and one with each account. Transient ones are left out.
        """
        for account in (None, *session.accounts):
            with suppress(LaunchRefused):
                yield self.find_name_id(_NO_STAMP, session, account)

    def check_values(
        self, *, session: PortalSession, account: JsonObject | None, attributes: Sequence[Attribute]
    ) -> None:
        """Checks that a response can carry these values, and signs nothing.

        Raises what `build_response` would.
        """
        self.find_name_id(_NO_STAMP, session, account)
        for attribute in attributes:
            _check_size(attribute)

    def _stamp_assertion(
        self,
        assertion: etree._Element,
        stamp: ResponseStamp,
        name_id: str,
        session: PortalSession,
        in_response_to: str | None,
        context: str | None,
    ) -> None:
        now, ends = stamp.now, format_instant(stamp.now + timedelta(seconds=self.settings.lifetime_seconds))
        _, subject, conditions, authn_statement = assertion
        subject_name, confirmation = subject
        subject_name.text = name_id
        confirmation[0].set("NotOnOrAfter", ends)
        if in_response_to is not None:
            confirmation[0].set("InResponseTo", in_response_to)
        conditions.set("NotBefore", format_instant(now - timedelta(seconds=self.settings.skew_seconds)))
        conditions.set("NotOnOrAfter", ends)
        authn_statement.set("AuthnInstant", format_instant(session.auth_time))
        authn_statement.set("SessionIndex", stamp.session_index)
        if session.expires_at > now:
            authn_statement.set("SessionNotOnOrAfter", format_instant(session.expires_at))
        authn_statement[0][0].text = context or find_context(session.amr)


def compile_saml_partner(
    *,
    settings: SamlSettings,
    metadata: SpMetadata,
    biller: str,
    partner: str,
    issuer: str,
    key: SigningKey,
    pairwise_secret: bytes,
) -> CompiledSamlPartner:
    """All parts of the responses to one partner that no launch changes.

    `biller` and `partner` are slugs, `issuer` is our entity ID.

    Raises PartnerUnusable with the findings of `check_saml_partner` that refuse.
    """
    findings = check_saml_partner(
        settings=settings, metadata=metadata, issuer=issuer, key=key, pairwise_secret=pairwise_secret
    )
    refusals = tuple(finding for finding in findings if finding.refuses)
    if refusals:
        codes = ", ".join(finding.code for finding in refusals)
        raise PartnerUnusable(f"partner {partner} of {biller}: {codes}", findings=refusals)
    signer = prepare_signer(key, settings.signature_algorithm)
    acs = choose_acs(metadata, settings.acs)
    return CompiledSamlPartner(
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
    """The partner's key to encrypt to; None to send in the clear. Raises PartnerUnusable rather than send so."""
    if settings.encrypt == "never" or not _is_key_offered(metadata):
        return None
    chosen = choose_encryption(metadata, settings.encryption_algorithm)
    if chosen is None:
        raise PartnerUnusable("the partner offers an encryption key, and none of its keys can be encrypted to")
    return prepare_recipient(chosen.certificate, chosen.algorithm, chosen.transport)


def _is_key_offered(metadata: SpMetadata) -> bool:
    """Tells if the partner publishes a key for encryption, or one of any use, fit or not."""
    return any(one.use != "signing" for one in metadata.certificates)


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
            next(places).text = value
    assertion.append(statement)


@lru_cache(maxsize=1024)
def _build_statement(shape: tuple[tuple[str, str, str | None, int], ...]) -> etree._Element:
    """An attribute statement whose values are still empty: launches through one mapping mostly have one shape."""
    statement = etree.Element(_ATTRIBUTE_STATEMENT, nsmap=_ASSERTION_NAMESPACES)
    for name, name_format, friendly_name, count in shape:
        element = etree.SubElement(statement, _ATTRIBUTE)
        element.set("Name", name)
        element.set("NameFormat", name_format)
        if friendly_name is not None:
            element.set("FriendlyName", friendly_name)
        for _ in range(min(count, MOST_VALUES)):
            etree.SubElement(element, _ATTRIBUTE_VALUE).set(_XSI_TYPE, "xs:string")
    return statement


def _check_size(attribute: Attribute) -> None:
    if len(attribute.values) > MOST_VALUES:
        raise _refuse_value(attribute.name, f"has {len(attribute.values)} values; at most {MOST_VALUES} are sent")
    if max(map(len, attribute.values)) > MOST_VALUE_CHARACTERS:
        raise _refuse_value(attribute.name, f"has a value of more than {MOST_VALUE_CHARACTERS} characters")


def _refuse_value(name: str, reason: str) -> ValueRefused:
    message = f"{name} {reason}."
    return ValueRefused(message, findings=(Finding(ValueRefused.code, Severity.ERROR, message, where=name),))


@lru_cache(maxsize=256)  # launches of one second, and of one session, share their instants
def format_instant(instant: datetime) -> str:
    """An aware time in UTC to the second, `YYYY-MM-DDTHH:MM:SSZ` (SAML 2.0 Core 1.3.3)."""
    return instant.astimezone(UTC).isoformat()[:19] + "Z"


# Name IDs (SAML 2.0 Core 8.3)


def read_format(uri: str) -> str:
    """The name ID format that a partner means by this name."""
    return _MEANT_FORMATS.get(uri, uri)


_PAIRWISE_DOMAIN = b"saml_bridge pairwise name ID, version 1"
_EMAIL = re.compile(r"[^@]{1,64}@[^@]{1,255}")


def _compile_name_id(
    settings: SamlSettings, *, biller: str, partner: str, secret: bytes
) -> Callable[[ResponseStamp, PortalSession, JsonObject | None], str]:
    if settings.name_id.format == "transient":
        return lambda stamp, _session, _account: stamp.transient_id
    find = compile_identifier(settings.name_id, NAME_ID)
    finish: Callable[[str], str] = _check_name_id
    if settings.name_id.format == "email":
        finish = _check_email
    elif settings.name_id.format == "persistent":
        finish = _compile_pairwise(biller=biller, partner=partner, secret=secret)
    return lambda _stamp, session, account: finish(find(session, account))


def _compile_pairwise(*, biller: str, partner: str, secret: bytes) -> Callable[[str], str]:
    """An opaque, stable identifier that differs between billers and partners: 64 hexadecimal digits."""
    find = compile_pairwise(_PAIRWISE_DOMAIN, biller=biller, sector=partner, secret=secret)

    def derive(source: str) -> str:
        try:
            return find(source).hex()
        except UnicodeEncodeError:
            raise _refuse_value("NameID", "has a source that is not valid Unicode") from None

    return derive


def _check_name_id(value: str) -> str:
    if len(value) > MOST_NAME_ID_CHARACTERS:
        raise _refuse_value("NameID", f"has more than {MOST_NAME_ID_CHARACTERS} characters")
    try:
        check_identifier(value)
    except CharacterRefused as refused:
        raise _refuse_value("NameID", f"has {refused}, which no name ID may have") from None
    return value


def _check_email(value: str) -> str:
    if not _EMAIL.fullmatch(_check_name_id(value)):
        raise _refuse_value("NameID", "is no e-mail address")
    return value


# What can be said beforehand


def check_saml_partner(
    *, settings: SamlSettings, metadata: SpMetadata, issuer: str, key: SigningKey, pairwise_secret: bytes
) -> tuple[Finding, ...]:
    """The findings about responses to this partner that a publication should know.

    Errors make the partner unusable. `where` is a path below the partner (`saml.encrypt`), or the partner's entity ID.
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
    if metadata.encryption_certificates:
        yield from _check_encryption_methods(settings, metadata)
    elif settings.encrypt == "always":
        yield Finding(
            "encrypt-no-key",
            Severity.ERROR,
            "Assertions are to be encrypted always, and the metadata has no key to encrypt to (RSA, 2048 bits).",
            "Ask the partner for metadata with an encryption key, or set encrypt to when_offered.",
            "saml.encrypt",
        )
    elif _is_key_offered(metadata):
        yield Finding(
            "encrypt-key-unfit",
            Severity.ERROR,
            "The partner offers a key for encryption, or for any use, that is not RSA of 2048 bits or more.",
            f"Ask the partner for metadata with such a key for encryption, or {_SAY_NEVER}.",
            "saml.encrypt",
        )


_SAY_NEVER: Final = "set encrypt to never, so that assertions go to it unencrypted"


def _check_encryption_methods(settings: SamlSettings, metadata: SpMetadata) -> Iterator[Finding]:
    chosen = choose_encryption(metadata, settings.encryption_algorithm)
    if chosen is None:
        yield from _refuse_methods(settings, list_methods(metadata, metadata.encryption_certificates[0]))
        return
    algorithm, listed = chosen.algorithm, list_methods(metadata, chosen.certificate)
    if listed.ciphers and find_cipher_uri(algorithm) not in listed.ciphers:
        yield Finding(
            "encrypt-method-unlisted",
            Severity.WARNING,
            f"encryption_algorithm is {algorithm}, and the partner's metadata lists {show_methods(listed.ciphers)}.",
            "Leave encryption_algorithm out, so that the best of those is used, or ask the partner.",
            "saml.encryption_algorithm",
        )
    if algorithm.endswith("-cbc"):
        yield Finding(
            "encrypt-cbc",
            Severity.WARNING,
            f"{algorithm} does not protect the encrypted assertion against change.",
            "Use aes128-gcm unless the partner cannot read it."
            if settings.encryption_algorithm
            else "Ask the partner to switch on AES-GCM: its metadata lists nothing better that is allowed.",
            "saml.encryption_algorithm",
        )


def _refuse_methods(settings: SamlSettings, listed: ListedMethods) -> Iterator[Finding]:
    """A partner that lists nothing that we allow gets nothing weaker, and nothing in the clear."""
    if listed.transport is None and {one.algorithm for one in listed.transports} == {RSA_1_5}:
        yield Finding(
            "encrypt-rsa-1-5-only",
            Severity.ERROR,
            "The partner's metadata lists RSA 1.5 as the only key transport, which is never used: it can be broken.",
            f"Ask the partner to allow rsa-oaep-mgf1p, or {_SAY_NEVER}.",
            "saml.encrypt",
        )
    elif listed.transport is None:
        yield Finding(
            "encrypt-transport-unusable",
            Severity.ERROR,
            f"The partner's metadata lists for encrypting keys {show_methods(listed.transports)}, which is never used.",
            f"Ask the partner to allow rsa-oaep-mgf1p, or {_SAY_NEVER}.",
            "saml.encrypt",
        )
    if settings.encryption_algorithm is None and listed.cipher is None:
        yield Finding(
            "encrypt-cipher-unusable",
            Severity.ERROR,
            f"The partner's metadata lists for encrypting content {show_methods(listed.ciphers)}, which is never used.",
            f"Ask the partner to allow AES-GCM, set encryption_algorithm to what it reads anyway, or {_SAY_NEVER}.",
            "saml.encrypt",
        )


def _check_name_id_settings(settings: SamlSettings, metadata: SpMetadata, secret: bytes) -> Iterator[Finding]:
    chosen, listed = NAME_ID_FORMATS[settings.name_id.format], [read_format(one) for one in metadata.name_id_formats]
    is_unlisted = listed and chosen not in listed and NAMEID_FORMAT_UNSPECIFIED not in listed
    if is_unlisted and settings.name_id_policy == "honour":
        yield Finding(
            "name-id-format-unlisted",
            Severity.WARNING,
            f"The name ID format is {settings.name_id.format}; the partner's metadata lists {', '.join(listed)}.",
            "Choose a format that the partner lists, or ask it. If it only asks for one of them and takes any, set"
            " name_id_policy to ignore: its requests are refused otherwise.",
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
        fits = None if settings.name_id.format == "persistent" else check_identifier
        yield from check_identifier_settings(settings.name_id, NAME_ID, where="saml.name_id", fits=fits)


def _check_times(settings: SamlSettings) -> Iterator[Finding]:
    if not 1 <= settings.lifetime_seconds <= MOST_LIFETIME_SECONDS:
        message = f"The lifetime is {settings.lifetime_seconds} seconds; 1 to {MOST_LIFETIME_SECONDS} are accepted."
        fix = f"Set lifetime_seconds to at most {MOST_LIFETIME_SECONDS}."
        yield Finding("lifetime-out-of-range", Severity.ERROR, message, fix, "saml.lifetime_seconds")
    if settings.skew_seconds < 0:
        message = f"The skew is {settings.skew_seconds} seconds; it cannot be negative."
        yield Finding("skew-negative", Severity.ERROR, message, "Set skew_seconds to 60.", "saml.skew_seconds")
