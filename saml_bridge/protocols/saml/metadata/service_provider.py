"""One service provider, as its metadata describes it, as frozen values.

Owns: the values that the rest of the project reads partners from, and the choice among the assertion consumer services.

Does not own: reading and judging metadata (`judge`, which makes these values).

Specification: SAML 2.0 Metadata (saml-metadata-2.0-os).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from saml_bridge.model.errors import MetadataRefused
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.saml.xml.certificates import Certificate


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place of the partner.

    `index` and `is_default` are None when the metadata does not say.
    """

    binding: str
    location: str
    index: int | None = None
    is_default: bool | None = None
    response_location: str | None = None

    @property
    def places(self) -> tuple[str, ...]:
        """The location, and that of answers where they go elsewhere."""
        return tuple(one for one in (self.location, self.response_location) if one)


@dataclass(frozen=True, slots=True)
class RequestedAttribute:
    """An attribute that the partner would like to get.

    It is a hint for the writer of the mapping; it never releases anything. `by_default` says that it stands in the
    AttributeConsumingService that counts when a request names none.
    """

    name: str
    name_format: str | None = None
    friendly_name: str | None = None
    required: bool = False
    by_default: bool = True


@dataclass(frozen=True, slots=True)
class LocalText:
    """A text or URL in one language.

    `language` is that of `xml:lang` (empty when the metadata does not say).
    """

    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Logo:
    """A picture's https URL; never fetched by us. Width and height in pixels."""

    url: str
    width: int | None = None
    height: int | None = None
    language: str = ""


@dataclass(frozen=True, slots=True)
class Organization:
    """The partner's organization, as its metadata names it."""

    names: tuple[LocalText, ...] = ()
    display_names: tuple[LocalText, ...] = ()
    urls: tuple[LocalText, ...] = ()


@dataclass(frozen=True, slots=True)
class Contact:
    """A contact person of the partner.

    `kind` is the metadata's contactType: technical, support, administrative, billing or other.
    """

    kind: str
    company: str | None = None
    given_name: str | None = None
    surname: str | None = None
    emails: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpMetadata:
    """One service provider, as its metadata describes it, after everything unusable was left out.

    `acs` are the SAML 2.0 HTTP-POST assertion consumer services that may be posted to, in document order and never
    empty; `other_acs` those of other bindings or protocols. `valid_until` is the earliest of the validUntil of the
    aggregate, the entity and the role (aware UTC), `cache_duration` the shortest of theirs, `created_at` the latest
    time of publication that they name (mdrpi). `encryption_methods` are the algorithm URIs that the partner lists for
    its encryption keys. Texts for display carry no invisible controls.
    """

    entity_id: str
    acs: tuple[Endpoint, ...]
    other_acs: tuple[Endpoint, ...] = ()
    slo: tuple[Endpoint, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    name_id_formats: tuple[str, ...] = ()
    want_assertions_signed: bool = False
    authn_requests_signed: bool = False
    requested_attributes: tuple[RequestedAttribute, ...] = ()
    valid_until: datetime | None = None
    created_at: datetime | None = None
    cache_duration: timedelta | None = None
    display_names: tuple[LocalText, ...] = ()
    descriptions: tuple[LocalText, ...] = ()
    logos: tuple[Logo, ...] = ()
    information_urls: tuple[LocalText, ...] = ()
    organization: Organization | None = None
    contacts: tuple[Contact, ...] = ()
    encryption_methods: tuple[str, ...] = ()

    @property
    def signing_certificates(self) -> tuple[Certificate, ...]:
        """The certificates that may verify what the partner signs.

        Their use is signing or unspecified, and their key of a kind that we verify with.
        """
        return tuple(one for one in self.certificates if one.may_verify)

    @property
    def encryption_certificates(self) -> tuple[Certificate, ...]:
        """The certificates that may be encrypted to.

        Their use is encryption or unspecified, and their key RSA of 2048 bits or more.
        """
        return tuple(one for one in self.certificates if one.may_encrypt)


def is_http(location: str) -> bool:
    """Tells if anybody on the way can read what is sent to a location."""
    return location[:5].lower() == "http:"


def choose_acs(metadata: SpMetadata, configured: int | str | None) -> Endpoint:
    """The assertion consumer service that an unsolicited response goes to.

    `configured` is an index or a location. Without one it is the metadata's default, that is isDefault, else the first
    without isDefault=false, else the first (saml-metadata-2.0-os, 2.2.3). It is always one that the metadata has.

    Raises MetadataRefused, which names the configured one and those that exist.
    """
    if configured is not None:
        return _find_configured_acs(metadata, configured)
    marked = next((one for one in metadata.acs if one.is_default), None)
    unmarked = next((one for one in metadata.acs if one.is_default is None), None)
    return marked or unmarked or metadata.acs[0]


def _find_configured_acs(metadata: SpMetadata, configured: int | str) -> Endpoint:
    for one in metadata.acs:
        if (one.index if isinstance(configured, int) else one.location) == configured:
            return one
    chosen = f"index {configured}" if isinstance(configured, int) else configured
    offered = ", ".join(f"{'no index' if one.index is None else one.index}: {one.location}" for one in metadata.acs)
    message = f"The metadata has no HTTP-POST assertion consumer service {chosen}; it has {offered}."
    fix = "Set acs to one of those, or leave it out to take the metadata's default."
    finding = Finding("acs-not-in-metadata", Severity.ERROR, message, fix, metadata.entity_id)
    raise MetadataRefused(message, code="acs-not-in-metadata", findings=(finding,))
