"""The differences between two metadata of a partner, each marked safe or risky.

Owns: the comparison, its sentences, and which differences a person must see before they come into force.

Does not own: reading metadata (`judge`), and what happens to a risky change (`billers.publishing`,
`billers.partner_metadata.refresh`, which call this). Pure.

The question behind each mark is what somebody could do who controls the partner's file or its address, but not the
partner: receive payers' data, read what is encrypted, speak for the partner, or cut it off. What cannot do any of that
is safe; what is not known to be safe is risky.

Specification: SAML 2.0 Metadata (saml-metadata-2.0-os).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from saml_bridge.model.comparisons import quote_value
from saml_bridge.model.document import SamlSettings
from saml_bridge.model.errors import MetadataRefused, XmlRefused
from saml_bridge.protocols.saml.metadata.encryption_choice import ChosenEncryption, choose_encryption, show_methods
from saml_bridge.protocols.saml.metadata.judge import check_metadata
from saml_bridge.protocols.saml.metadata.service_provider import (
    Contact,
    Endpoint,
    LocalText,
    Logo,
    Organization,
    RequestedAttribute,
    SpMetadata,
    choose_acs,
    is_http,
)
from saml_bridge.protocols.saml.xml.certificates import Certificate, EncryptionMethod
from saml_bridge.protocols.saml.xml.parse import METADATA_LIMITS, parse_xml
from saml_bridge.protocols.saml.xml.verify import is_signed

LONGEST_VALUE: Final = 300
SHORTEST_FIRST_TERM: Final = timedelta(days=2)
"""Twice as long as it usually takes until metadata is fetched again."""

_ORDINARY_USES: Final = {"signing": "signing key", "encryption": "encryption key"}


@dataclass(frozen=True, slots=True)
class MetadataChange:
    """One difference, as a sentence on one line.

    `is_risky` says that a person must see it before it comes into force.
    """

    what: str
    is_risky: bool = False

    def __str__(self) -> str:
        return f"RISKY: {self.what}" if self.is_risky else self.what


@dataclass(frozen=True, slots=True)
class MetadataChanges:
    """All differences between two metadata of one partner, the risky first.

    Without any, the two say the same.
    """

    lines: tuple[MetadataChange, ...] = ()

    @property
    def is_risky(self) -> bool:
        return any(one.is_risky for one in self.lines)

    @property
    def risky(self) -> tuple[str, ...]:
        """The sentences of the risky ones."""
        return tuple(one.what for one in self.lines if one.is_risky)

    @property
    def words(self) -> tuple[str, ...]:
        """All sentences; a risky one begins with RISKY."""
        return tuple(map(str, self.lines))


def compare_documents(
    old: bytes,
    new: bytes,
    *,
    before: SamlSettings,
    after: SamlSettings,
    now: datetime,
    allow_http: bool = False,
) -> MetadataChanges:
    """The differences between two metadata files of a partner.

    Each is read as its settings say. Expired ones are compared, too. Metadata in force that can no longer be read
    compares as one risky line.

    Raises MetadataRefused for a new file that cannot be read.
    """
    read = _Reader(now, allow_http)
    fresh = read.read(new, after)
    try:
        known = read.read(old, before)
    except MetadataRefused as refused:
        what = f"the metadata in force cannot be read any more ({refused.detail}), so nothing can be compared"
        return MetadataChanges((MetadataChange(what, True),))
    changes = compare_metadata(
        known,
        fresh,
        signed_before=before.metadata_signer is not None or _carries_signature(old),
        signed_now=after.metadata_signer is not None or _carries_signature(new),
        acs=after.acs,
    )
    said = {one.what for one in changes.lines}
    plain = read.list_insecure(new, after) - read.list_insecure(old, before)
    more = (
        MetadataChange(f"{place} is an http address now, which anybody on the way can read", True) for place in plain
    )
    told = sorted((one for one in more if one.what not in said), key=str)
    return _order((*changes.lines, *told, *_judge_sudden_end(known, fresh, now)))


def compare_metadata(
    old: SpMetadata,
    new: SpMetadata,
    *,
    signed_before: bool,
    signed_now: bool,
    acs: int | str | None = None,
) -> MetadataChanges:
    """The differences between the metadata in force and a newer one.

    Nothing that differs goes unmentioned. `acs` is the assertion consumer service that the partner's settings choose
    (an index, a location or None).
    """
    lines = list(_compare_signature(signed_before=signed_before, signed_now=signed_now))
    lines += _compare_target(old, new, acs)
    lines += _judge_undated(old, new) if signed_now else ()
    lines += _judge_ciphers(old, new)
    for one in fields(SpMetadata):
        before, now = getattr(old, one.name), getattr(new, one.name)
        if before != now:
            found = list(_COMPARERS[one.name](old, new)) if one.name in _COMPARERS else []
            lines += found or [MetadataChange(f"{one.name.replace('_', ' ')} differs", True)]
    return _order(lines)


def _order(lines: Iterable[MetadataChange]) -> MetadataChanges:
    return MetadataChanges(tuple(sorted(dict.fromkeys(lines), key=lambda one: not one.is_risky)))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads files as they are read where they come into force, except that what has expired is read, too."""

    now: datetime
    allow_http: bool

    def read(self, content: bytes, settings: SamlSettings) -> SpMetadata:
        return self._parse(content, settings, allow_http=self.allow_http)

    def list_insecure(self, content: bytes, settings: SamlSettings) -> set[str]:
        """The http addresses that a file names for responses and logout.

        Those that would be left out are among them.
        """
        try:
            read = self._parse(content, settings, allow_http=True)
        except MetadataRefused:
            return set()
        places = (place for one in (*read.acs, *read.other_acs, *read.slo) for place in one.places)
        return {_show(place) for place in places if is_http(place)}

    def _parse(self, content: bytes, settings: SamlSettings, *, allow_http: bool) -> SpMetadata:
        return check_metadata(
            content, now=self.now, entity_id=settings.entity_id, allow_http=allow_http, check_validity=False
        ).find_provider()


def _carries_signature(content: bytes) -> bool:
    """Tells if there is a signature at all; one that does not fit the file was refused where it was read."""
    try:
        return is_signed(parse_xml(content, limits=METADATA_LIMITS))
    except XmlRefused:
        return False


def _compare_signature(*, signed_before: bool, signed_now: bool) -> Iterator[MetadataChange]:
    if signed_before and not signed_now:
        yield MetadataChange("the metadata was signed, and is not signed any more", True)
    elif signed_now and not signed_before:
        yield MetadataChange("the metadata is signed now")


# Where things go


def _compare_target(old: SpMetadata, new: SpMetadata, acs: int | str | None) -> Iterator[MetadataChange]:
    """The place of a response that no request asked for."""
    before, now = _find_target(old, acs), _find_target(new, acs)
    if now is None:
        chosen = f"index {acs}" if isinstance(acs, int) else _show(str(acs))
        yield MetadataChange(f"the assertion consumer service that the settings choose, {chosen}, goes away", True)
    elif before is not None and before != now:
        yield MetadataChange(f"responses would go to {_show(now)} instead of {_show(before)}", True)


def _find_target(metadata: SpMetadata, acs: int | str | None) -> str | None:
    try:
        return choose_acs(metadata, acs).location
    except MetadataRefused:
        return None


def _compare_acs(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:
    known = {_origin(one.location) for one in old.acs}
    yield from _compare_endpoints("assertion consumer service", old.acs, new.acs, known=known)


def _compare_other_acs(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:
    """Of other bindings: nothing is ever sent there."""
    yield from _compare_endpoints("unused assertion consumer service", old.other_acs, new.other_acs, known=None)


def _compare_slo(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:
    """A logout request names the payer; without such a service the payer stays signed in at the partner."""
    source = old.slo or old.acs
    known = {_origin(place) for one in source for place in one.places}
    yield from _compare_endpoints("logout service", old.slo, new.slo, known=known)
    if old.slo and not new.slo:
        yield MetadataChange("the partner offers no logout service any more, so signing out would not reach it", True)


def _compare_endpoints(
    kind: str, old: tuple[Endpoint, ...], new: tuple[Endpoint, ...], *, known: set[str] | None
) -> Iterator[MetadataChange]:
    """`known` are the origins where such an endpoint is nothing new; None: any origin is as good."""
    gone, come = [one for one in old if one not in new], [one for one in new if one not in old]
    for one in come:
        same = next((other for other in gone if (other.binding, other.location) == (one.binding, one.location)), None)
        if same is None:
            yield MetadataChange(f"{kind} {_name_endpoint(one)} added", False)
        else:
            gone.remove(same)
            yield from _compare_endpoint(kind, same, one)
        yield from _judge_places(kind, same, one, known)
    yield from (MetadataChange(f"{kind} {_name_endpoint(one)} removed") for one in gone)
    if not come and not gone and old != new:
        yield MetadataChange(f"the order or number of entries changes: {kind}s are {_list_endpoints(new)}")


def _judge_places(kind: str, old: Endpoint | None, new: Endpoint, known: set[str] | None) -> Iterator[MetadataChange]:
    before = () if old is None else old.places
    for place in (one for one in new.places if one not in before):
        if is_http(place):
            yield MetadataChange(f"{_show(place)} is an http address now, which anybody on the way can read", True)
        if known is not None and _origin(place) not in known:
            hosts = ", ".join(sorted(known)) or "none"
            yield MetadataChange(f"{_origin(place)} is a new host for {kind}s (until now: {hosts})", True)


def _compare_endpoint(kind: str, old: Endpoint, new: Endpoint) -> Iterator[MetadataChange]:
    for name, label in (("index", "index"), ("is_default", "isDefault"), ("response_location", "answer address")):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            what = f"{kind} {_name_endpoint(new)} changes its {label} from {_say(before)} to {_say(now)}"
            yield MetadataChange(what)


def _list_endpoints(endpoints: Iterable[Endpoint]) -> str:
    return quote_value(", ".join(map(_name_endpoint, endpoints)), longest=LONGEST_VALUE)


def _name_endpoint(endpoint: Endpoint) -> str:
    return f"{_show(endpoint.location)} ({_show(endpoint.binding.rpartition(':')[2]) or 'no binding'})"


def _origin(location: str) -> str:
    """Scheme, host and port, as they are compared."""
    parts = urlsplit(location)
    scheme = parts.scheme.lower()
    default = {"https": 443, "http": 80}.get(scheme)
    port = "" if parts.port in (None, default) else f":{parts.port}"
    return f"{scheme}://{(parts.hostname or '').lower()}{port}"


# Keys


def _compare_keys(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:
    before, now = _Keys(old), _Keys(new)
    yield from _judge_replaced(before, now)
    for key in dict.fromkeys((*before.uses, *now.uses)):
        had, has = before.uses.get(key, frozenset()), now.uses.get(key, frozenset())
        if has - had:
            yield MetadataChange(f"{_name_key(has - had, now.certificates[key])} added ({now.tell_end(key)})")
        if had - has:
            is_risky = "encryption" in had - has
            yield MetadataChange(f"{_name_key(had - has, before.certificates[key])} removed", is_risky)
        if had == has and before.list_fingerprints(key) != now.list_fingerprints(key):
            what = f"{_name_key(has, now.certificates[key])} is the same key in another certificate"
            yield MetadataChange(f"{what} ({now.tell_end(key)} instead of {before.tell_end(key)})")
    yield from _judge_recipient(before, now)
    yield from _compare_key_methods(before, now)
    if old.certificates != new.certificates and sorted(map(repr, old.certificates)) == sorted(
        map(repr, new.certificates)
    ):
        yield MetadataChange("the order of the keys changes")


def _judge_replaced(before: _Keys, now: _Keys) -> Iterator[MetadataChange]:
    """New keys alone prove no relation to the signer until now."""
    old, new = before.list_for("signing"), now.list_for("signing")
    if old and not new:
        yield MetadataChange("every signing key goes away, so no request or logout of the partner can be trusted", True)
    elif old and not set(old) & set(new):
        yield MetadataChange("all signing keys are replaced, and none of those until now stays", True)


def _judge_recipient(before: _Keys, now: _Keys) -> Iterator[MetadataChange]:
    """The key that assertions are encrypted to, where the one until now is still there."""
    old, new = before.recipient, now.recipient
    if old is not None and new is not None and old != new and "encryption" in now.uses.get(old, ()):
        names = (keys.certificates[key].fingerprint_sha256[:16] for keys, key in ((now, new), (before, old)))
        yield MetadataChange("assertions would be encrypted to the key sha256 {}… instead of {}…".format(*names), True)


def _compare_key_methods(before: _Keys, now: _Keys) -> Iterator[MetadataChange]:
    """Methods that come, go, move between keys, or change in what they are listed with."""
    for key in (one for one in now.uses if one in before.uses):
        had, has = before.list_methods(key), now.list_methods(key)
        if had != has:
            what = f"the encryption methods of {_name_key(now.uses[key], now.certificates[key])} change"
            shown = f"{_show(show_methods(had)) or 'none'} to {_show(show_methods(has)) or 'none'}"
            yield MetadataChange(f"{what} from {shown}", not set(had) <= set(has))


class _Keys:
    """The keys of a partner with their uses. A key stays the same in any certificate that it comes in."""

    def __init__(self, metadata: SpMetadata) -> None:
        self.uses: dict[str, frozenset[str]] = {}
        self.certificates: dict[str, Certificate] = {}
        self._all: dict[str, list[Certificate]] = {}
        for one in metadata.certificates:
            key = _identify_key(one)
            usable = {use for use, may in (("signing", one.may_verify), ("encryption", one.may_encrypt)) if may}
            self.uses[key] = self.uses.get(key, frozenset()) | (usable or {"unusable"})
            self.certificates.setdefault(key, one)
            self._all.setdefault(key, []).append(one)
        chosen = choose_encryption(metadata, None)
        self.recipient = None if chosen is None else _identify_key(chosen.certificate)

    def list_for(self, use: Literal["signing", "encryption"]) -> list[str]:
        return [key for key, uses in self.uses.items() if use in uses]

    def list_fingerprints(self, key: str) -> set[tuple[str, str | None]]:
        return {(one.fingerprint_sha256, one.use) for one in self._all[key]}

    def list_methods(self, key: str) -> tuple[EncryptionMethod, ...]:
        return tuple(dict.fromkeys(method for one in self._all[key] for method in one.encryption_methods))

    def tell_end(self, key: str) -> str:
        return f"expires {max(one.not_after for one in self._all[key]).date().isoformat()}"


def _identify_key(certificate: Certificate) -> str:
    """A name for the public key; of a kind that cannot be read, the certificate's."""
    try:
        key = x509.load_der_x509_certificate(certificate.der).public_key()
        return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return certificate.fingerprint_sha256


def _name_key(uses: Iterable[str], certificate: Certificate) -> str:
    kinds = " and ".join(_ORDINARY_USES.get(use, "unusable key") for use in sorted(uses, reverse=True))
    return f"{kinds} sha256 {certificate.fingerprint_sha256[:16]}…"


def _compare_encryption_methods(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:
    """Methods that go away are how encryption is talked down."""
    label = "encryption method"
    yield from _compare_items(label, old.encryption_methods, new.encryption_methods, risky_removal=True)


def _judge_ciphers(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:
    """The algorithms where the settings name none: listing something weaker alone talks them down, too."""
    before, now = choose_encryption(old, None), choose_encryption(new, None)
    if before is None or now is None:
        return  # what cannot be encrypted to any more is refused where it is published
    if before.algorithm != now.algorithm:
        is_weaker = now.algorithm.endswith("-cbc") and not before.algorithm.endswith("-cbc")
        what = f"assertions would be encrypted with {now.algorithm} instead of {before.algorithm}"
        yield MetadataChange(what, is_weaker)
    if before.transport != now.transport:
        what = f"their keys would be encrypted with {_name_transport(now)} instead of {_name_transport(before)}"
        yield MetadataChange(what)


def _name_transport(chosen: ChosenEncryption) -> str:
    form = chosen.transport
    return show_methods([EncryptionMethod(form.uri, form.digest, form.mask)])


# What the partner says of itself


def _compare_entity_id(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:
    what = f"the entity ID changes from {_show(old.entity_id)} to {_show(new.entity_id)}: this is another partner"
    yield MetadataChange(what, True)


def _compare_requests_signed(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:  # noqa: ARG001 as its like
    if new.authn_requests_signed:
        yield MetadataChange("the partner says now that it signs its requests, so unsigned ones would be refused")
    else:
        yield MetadataChange("the partner does not say any more that it signs its requests (AuthnRequestsSigned)", True)


def _compare_assertions_signed(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:  # noqa: ARG001
    if new.want_assertions_signed:
        yield MetadataChange("the partner wants assertions to be signed now")
    else:
        what = "the partner does not want assertions to be signed any more (WantAssertionsSigned)"
        yield MetadataChange(what, True)


def _compare_validity(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:
    before, now = old.valid_until, new.valid_until
    earlier = before is not None and now is not None and now < before
    why = ": this is an older document, or one that is meant to run out" if earlier else ""
    yield MetadataChange(f"validUntil changes from {_say(before)} to {_say(now)}{why}", earlier)


def _judge_undated(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:
    """Of two signed documents the newer one can be told by their times alone, so that losing them matters."""
    for name, label in (("valid_until", "validUntil"), ("created_at", "time of publication")):
        if getattr(old, name) is not None and getattr(new, name) is None:
            yield MetadataChange(f"the signed document has no {label} any more, so it may be an older one", True)


def _compare_creation(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:
    before, now = old.created_at, new.created_at
    earlier = before is not None and now is not None and now < before
    why = ": this is an older document than the one in force" if earlier else ""
    yield MetadataChange(f"the time of its publication changes from {_say(before)} to {_say(now)}{why}", earlier)


def _judge_sudden_end(old: SpMetadata, new: SpMetadata, now: datetime) -> Iterator[MetadataChange]:
    """Fetched metadata that has expired is refused, so a first end that is near is a way to cut a partner off."""
    if old.valid_until is None and new.valid_until is not None and new.valid_until - now < SHORTEST_FIRST_TERM:
        yield MetadataChange(f"the metadata had no end until now, and ends at {_say(new.valid_until)} already", True)


def _compare_cache(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:
    yield MetadataChange(f"cacheDuration changes from {_say(old.cache_duration)} to {_say(new.cache_duration)}")


def _compare_organization(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:
    before, now = old.organization or Organization(), new.organization or Organization()
    for one in fields(Organization):
        label = f"organisation {one.name.replace('_', ' ').removesuffix('s').replace('url', 'address')}"
        yield from _compare_items(label, *(map(_name_text, getattr(each, one.name)) for each in (before, now)))
    if before == now:
        yield MetadataChange(f"the organisation is {'told' if new.organization else 'no longer told'}, without a name")


def _name_text(text: LocalText) -> str:
    return f"'{text.text}'" + (f" ({text.language})" if text.language else "")


def _name_logo(logo: Logo) -> str:
    size = "" if logo.width is None and logo.height is None else f" ({_say(logo.width)} by {_say(logo.height)})"
    return f"{logo.url}{size}" + (f" ({logo.language})" if logo.language else "")


def _name_contact(contact: Contact) -> str:
    parts = (contact.given_name, contact.surname, contact.company, *contact.emails, *contact.phones)
    return f"{contact.kind} {' '.join(one for one in parts if one)}".strip()


def _name_attribute(attribute: RequestedAttribute) -> str:
    service = None if attribute.by_default else "of another service than the default"
    more = (attribute.friendly_name, attribute.name_format, "required" if attribute.required else None, service)
    known = ", ".join(one for one in more if one)
    return f"{attribute.name} ({known})" if known else attribute.name


_Comparer = Callable[[SpMetadata, SpMetadata], Iterator[MetadataChange]]


def _compare_list(name: str, label: str, describe: Callable[[Any], str] = str) -> _Comparer:
    def compare(old: SpMetadata, new: SpMetadata) -> Iterator[MetadataChange]:
        yield from _compare_items(label, *(map(describe, getattr(each, name)) for each in (old, new)))

    return compare


def _compare_items(
    label: str, old: Iterable[str], new: Iterable[str], *, risky_removal: bool = False
) -> Iterator[MetadataChange]:
    before, now = tuple(old), tuple(new)
    yield from (MetadataChange(f"{label} {_show(one)} removed", risky_removal) for one in before if one not in now)
    yield from (MetadataChange(f"{label} {_show(one)} added") for one in now if one not in before)
    if before != now and set(before) == set(now):
        yield MetadataChange(f"the order or number of entries changes: {label}s are {_show(', '.join(now))}")


_COMPARERS: Final[Mapping[str, _Comparer]] = {
    "entity_id": _compare_entity_id,
    "acs": _compare_acs,
    "other_acs": _compare_other_acs,
    "slo": _compare_slo,
    "certificates": _compare_keys,
    "name_id_formats": _compare_list("name_id_formats", "name ID format"),
    "want_assertions_signed": _compare_assertions_signed,
    "authn_requests_signed": _compare_requests_signed,
    "requested_attributes": _compare_list("requested_attributes", "wish for attribute", _name_attribute),
    "valid_until": _compare_validity,
    "created_at": _compare_creation,
    "cache_duration": _compare_cache,
    "display_names": _compare_list("display_names", "display name", _name_text),
    "descriptions": _compare_list("descriptions", "description", _name_text),
    "logos": _compare_list("logos", "logo", _name_logo),
    "information_urls": _compare_list("information_urls", "information address", _name_text),
    "organization": _compare_organization,
    "contacts": _compare_list("contacts", "contact", _name_contact),
    "encryption_methods": _compare_encryption_methods,
}


def _show(value: str) -> str:
    return quote_value(value, longest=LONGEST_VALUE)


def _say(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return f"{int(value.total_seconds()):,} seconds"
    return _show(str(value))
