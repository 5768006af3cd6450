"""The configuration of a partner that speaks SAML 2.0.

Owns: the schema, the rules over several settings, the words of a change. Does not own: metadata files
(`billers.file.resolve`), the settings that metadata allows (`billers.checks.publication`), messages (`protocols.saml`).
Called through: `index`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, get_args

from saml_bridge.billers.file.fields import (
    MAX_URL,
    Choice,
    EntityId,
    Flag,
    Prefix,
    Slug,
    Text,
    Url,
    WholeNumber,
    refuse_absolute_path,
)
from saml_bridge.billers.file.strict_schema import Part, StrictSchema
from saml_bridge.billers.partners.entry import ConfigurationEntry, FindAcs, KnownMetadata
from saml_bridge.billers.partners.identifier import IdentifierSchema, compare_identifiers
from saml_bridge.billers.wording import compare_values
from saml_bridge.mapping.callback_uri import parse_callback, shorten_callback
from saml_bridge.mapping.characters import find_unseen, is_blank
from saml_bridge.model.document import (
    EncryptionAlgorithm,
    EncryptWhen,
    NameIdFormat,
    NameIdSettings,
    Partner,
    SamlSettings,
    SignatureAlgorithm,
    SignWhat,
    Wish,
)
from saml_bridge.model.findings import check_unique, find_settings, get, list_items, refuse, warn
from saml_bridge.model.values import Finding
from saml_bridge.protocols.saml.bindings import SHORT_RELAY_STATE_BYTES

MAX_CERTIFICATE: Final = 16_384
RELAY_STATE_IDENTIFIER: Final = "identifier:"

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_SAML_LABELS: Final = {
    "metadata_url": "address of the metadata",
    "mdq_url": "address for metadata queries",
    "entity_id": "entity ID in the metadata",
    "our_entity_id": "entity ID that the partner knows us by",
    "acs": "assertion consumer service",
    "sign": "signed part",
    "signature_algorithm": "signature algorithm",
    "encrypt": "encryption",
    "relay_state": "RelayState",
    "lifetime_seconds": "lifetime in seconds",
    "skew_seconds": "clock skew in seconds",
    "expired_metadata": "handling of expired metadata",
    "default_link": "link for sign-ons that the partner starts",
    "require_signed_requests": "demand for signed requests",
    "name_id_policy": "treatment of the name ID format that requests ask for",
    "requested_authn_context": "treatment of the authentication context that requests ask for",
    "allow_unsigned_logout": "acceptance of unsigned logout requests",
    "signing_key": "signing key",
}
_NAME_ID_LABELS: Final = {"format": "name ID format", "from_": "name ID field", "template": "name ID template"}


class MetadataReference(Text):
    """A stored metadata file by its hash, or a path in a configuration file."""

    allowed = "text: the path of a metadata file beside this one, or sha256: and 64 hexadecimal digits"

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not text:  # fetched metadata; `_check_metadata_sources` demands an address
            return text
        refuse_absolute_path(text)
        is_path = len(text) <= MAX_URL and text.isprintable() and "\\" not in text
        if not (_SHA256.fullmatch(text) or (is_path and not text.lower().startswith("sha256:"))):
            self.refuse(value)
        return text


class SignerReference(Text):
    """The certificate that must have signed fetched metadata.

    It stands in base64 or PEM; in a file, the path of a PEM file may stand for it.
    """

    allowed = "text: the path of a PEM certificate beside this file, or the certificate itself in base64"

    def read(self, value: Any) -> str:
        text = super().read(value)
        refuse_absolute_path(text)
        if not 0 < len(text) <= MAX_CERTIFICATE or "PRIVATE KEY" in text or "\\" in text:
            self.refuse(value)
        return text


class AcsReference(Url):
    """The index or location of an assertion consumer service."""

    allowed = "an index (a whole number), a location (a URL) or null"

    def read(self, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535:
            return value
        return super().read(value)


class RelayState(Text):
    """The content of RelayState: the link's callback URI, nothing, or a fixed text."""

    allowed = f"callback_uri, none or {RELAY_STATE_IDENTIFIER}TEXT"

    def read(self, value: Any) -> str:
        text = super().read(value)
        identifier = text.removeprefix(RELAY_STATE_IDENTIFIER)
        if text in ("callback_uri", "none"):
            return text
        if identifier == text or is_blank(identifier) or find_unseen(identifier):
            self.refuse(value)
        return text


class NameIdSchema(IdentifierSchema):
    makes = NameIdSettings

    class Meta(IdentifierSchema.Meta):
        fields = ("format", "from_", "template", "transforms")

    format = Choice(get_args(NameIdFormat))


class SamlSchema(StrictSchema):
    makes = SamlSettings

    metadata = MetadataReference()
    metadata_url = Url(allow_none=True)
    mdq_url = Prefix(allow_none=True)
    metadata_signer = SignerReference(allow_none=True)
    entity_id = EntityId(allow_none=True)
    our_entity_id = EntityId(allow_none=True)
    acs = AcsReference(allow_none=True)
    name_id = Part(NameIdSchema)
    sign = Choice(get_args(SignWhat))
    signature_algorithm = Choice(get_args(SignatureAlgorithm))
    encrypt = Choice(get_args(EncryptWhen))
    encryption_algorithm = Choice(get_args(EncryptionAlgorithm), allow_none=True)
    relay_state = RelayState()
    lifetime_seconds = WholeNumber(30, 300)
    skew_seconds = WholeNumber(0, 300)
    expired_metadata = Choice(("warn", "refuse"), allow_none=True)
    default_link = Slug(allow_none=True)
    require_signed_requests = Flag()
    name_id_policy = Choice(get_args(Wish))
    requested_authn_context = Choice(get_args(Wish))
    allow_unsigned_logout = Flag()
    signing_key = Choice(("current", "next"))


def check_biller(biller: Any, where: str) -> Iterator[Finding]:
    """The rules over a biller's SAML partners, as far as they could be read."""
    yield from _check_entity_ids(biller, where)
    yield from _check_metadata_sources(biller, where)
    yield from _check_relay_states(biller, where)


def _check_entity_ids(biller: Any, where: str) -> Iterator[Finding]:
    """Two partners with one entity ID would be one service provider under two sets of rules."""
    chosen = ((position, find_settings(partner, "saml")) for position, partner in list_items(biller, "partners"))
    for finding in check_unique(chosen, "entity_id", where=f"{where}partners"):
        place = finding.where.replace("].entity_id", "].saml.entity_id")
        yield Finding("partner-not-unique", finding.severity, finding.message, "Use one partner for both.", place)


def _check_metadata_sources(biller: Any, where: str) -> Iterator[Finding]:
    """Metadata comes from a file or from one address, and a metadata query names the entity that it asks for."""
    for position, partner in list_items(biller, "partners"):
        saml = find_settings(partner, "saml")
        if saml is None:
            continue
        place = f"{where}partners[{position}].saml"
        url, query = get(saml, "metadata_url"), get(saml, "mdq_url")
        if url and query:
            message = "metadata_url and mdq_url are both given, and one of them must be the source"
            yield refuse("config-value", message, "Remove one.", f"{place}.mdq_url")
        if not (url or query or get(saml, "metadata")):
            message = "metadata: is missing; expected a file, or metadata_url, or mdq_url with entity_id"
            fix = "Name the partner's metadata file, or the address that it is fetched from."
            yield refuse("config-missing", message, fix, f"{place}.metadata")
        if query and not get(saml, "entity_id"):
            message = "entity_id: is missing; expected the entity ID that the metadata query asks for"
            yield refuse("config-missing", message, "Add entity_id.", f"{place}.entity_id")
        if get(saml, "metadata_signer") and not (url or query):
            message = "metadata_signer: is given, and nothing is fetched that it could have signed"
            fix = "Add metadata_url, or remove metadata_signer."
            yield refuse("config-value", message, fix, f"{place}.metadata_signer")
        if get(saml, "signing_key") == "next" and not get(get(get(biller, "idp"), "keys"), "next"):
            message = "signing_key: is next, and idp.keys names no next key"
            fix = "Set it to current, or name the next key."
            yield refuse("config-reference", message, fix, f"{place}.signing_key")


def _check_relay_states(biller: Any, where: str) -> Iterator[Finding]:
    settings = {}
    for position, partner in list_items(biller, "partners"):
        setting = get(find_settings(partner, "saml"), "relay_state")
        settings[get(partner, "slug")] = setting
        if setting is not None:
            identifier = setting.removeprefix(RELAY_STATE_IDENTIFIER) if ":" in setting else ""
            yield from _check_length(identifier, f"{where}partners[{position}].saml.relay_state")
    for position, link in list_items(biller, "links"):
        callback, setting = get(link, "callback_uri"), settings.get(get(link, "partner"))
        place = f"{where}links[{position}].callback_uri"
        if callback is not None and setting == "callback_uri":
            yield from _check_length(shorten_callback(callback), place, at_least=bool(parse_callback(callback).paths))
        elif callback is not None and setting is not None:
            message = f"callback_uri is not sent, since the partner's relay_state is {setting!r}"
            fix = "Set the partner's relay_state to callback_uri, or remove the callback URI."
            yield warn("callback-unused", message, fix, place)


def _check_length(relay_state: str, where: str, *, at_least: bool = False) -> Iterator[Finding]:
    size = len(relay_state.encode())
    if size > SHORT_RELAY_STATE_BYTES:
        known = f"{'at least ' if at_least else ''}{size} bytes"
        message = f"RelayState would have {known}; SAML allows {SHORT_RELAY_STATE_BYTES}, and some partners refuse more"
        yield warn("relay-state-long", message, "Use a shorter URL or identifier.", where)


def _describe(partner: Partner, known: KnownMetadata) -> str:
    location = known.find_acs(partner)
    return f"responses go to {location}" if location else ""


def _compare_saml(old: Partner, new: Partner, known: KnownMetadata) -> Iterator[str]:
    yield from _compare_metadata(old, new, known.find_acs)
    yield from (f"metadata: {line}" for line in known.describe(old, new))
    if old.saml.metadata_signer != new.saml.metadata_signer:
        yield f"the pinned signer of its metadata is {'another' if new.saml.metadata_signer else 'no longer there'}"
    yield from compare_values(old.saml, new.saml, _SAML_LABELS)
    before, after = (one.saml.encryption_algorithm or "the best that the partner lists" for one in (old, new))
    if before != after:
        yield f"encryption algorithm changes from {before} to {after}"
    yield from compare_identifiers("name ID", old.saml.name_id, new.saml.name_id, _NAME_ID_LABELS)


def _compare_metadata(old: Partner, new: Partner, find_acs: FindAcs) -> Iterator[str]:
    before, after = find_acs(old), find_acs(new)
    moved = f"responses go to {after} instead of {before}" if before and after and before != after else ""
    if old.saml.metadata != new.saml.metadata:
        shown = f"metadata changes from {_short(old.saml)} to {_short(new.saml)}"
        unmoved = "; responses go to the same address" if before and before == after else ""
        yield shown + (f"; {moved}" if moved else unmoved)
    elif moved:
        yield moved


def _short(settings: SamlSettings) -> str:
    return settings.metadata[:19]


ENTRY: Final = ConfigurationEntry(
    protocol="saml",
    settings=SamlSettings,
    schema=SamlSchema,
    describe=_describe,
    compare=_compare_saml,
    check_biller=check_biller,
    urls=("metadata_url", "mdq_url"),
    issuer="our_entity_id",
)
