"""One revision as launches read it: frozen, and compiled part by part.

Owns: which parts of a document are compiled, and when. Does not own: how (`mapping.rules`, `mapping.conditions`,
`protocols.index`), and how long a snapshot is the one in force (`registry`, and the fence of the launch's record).
Called by: `flows`, `web`, `own_metadata`, which get it from `registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from threading import RLock
from urllib.parse import urlsplit

from saml_bridge.billers.checks.publication import FindKey, FindPublished
from saml_bridge.keys.biller_keys import list_needed_keys, list_token_keys
from saml_bridge.keys.jws import find_kid
from saml_bridge.keys.signing_key import PublishedKey, SigningKey
from saml_bridge.mapping.callback_uri import CallbackTemplate, compile_callback, describe_refusal, is_allowed, origin_of
from saml_bridge.mapping.conditions import Test, compile_condition
from saml_bridge.mapping.rules import CompiledMapping, compile_mapping
from saml_bridge.model.comparisons import compare
from saml_bridge.model.document import Biller, Link, Partner, SamlSettings
from saml_bridge.model.errors import (
    ConfigInvalid,
    KeyRefused,
    LaunchRefused,
    LinkDisabled,
    LinkHidden,
    LinkUnknown,
    MetadataRefused,
    PartnerUnusable,
)
from saml_bridge.model.fixes import find_fix
from saml_bridge.model.values import (
    Attribute,
    Finding,
    JsonObject,
    PortalSession,
    Severity,
)
from saml_bridge.protocols.index import PROTOCOLS
from saml_bridge.protocols.interface import (
    NO_OVERRIDES,
    Overrides,
    PartnerContext,
    Receiver,
)
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata
from saml_bridge.protocols.saml.receiver import SamlReceiver
from saml_bridge.protocols.saml.response import CompiledSamlPartner


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """The keys, addresses and secrets of this service, against which every biller's document is read.

    `find_key` gives a key of the key ring by its name or raises KeyRefused. `find_published` gives the public part of
    one whose private key may be locked. `has_secret` tells whether a biller (slug) has a secret of a name.
    `allow_http` allows http URLs.
    """

    find_key: FindKey
    find_published: FindPublished
    base_url: str
    pairwise_secret: bytes
    has_secret: Callable[[str, str], bool]
    allow_http: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A link with everything that a launch through it needs, compiled.

    `is_visible` is None when the link is always shown, `callback` when the link has no callback URI.
    """

    link: Link
    partner: Partner
    mapping: CompiledMapping
    receiver: Receiver
    is_visible: Test | None
    callback: CallbackTemplate | None

    @property
    def response(self) -> CompiledSamlPartner:
        """The maker of responses for a SAML partner.

        Raises TypeError for another, which is the caller's mistake.
        """
        if not isinstance(self.receiver, SamlReceiver):
            raise TypeError(f"{self.partner.slug} speaks {self.partner.protocol}, not SAML")
        return self.receiver.response

    def evaluate(
        self, session: PortalSession, account: JsonObject | None, *, callback: str | None
    ) -> tuple[str | None, tuple[Attribute, ...]]:
        """The callback URI and the attributes of a launch for this account.

        `callback` is one that the request names, which then must be allowed. Raises LinkHidden, LaunchRefused
        (callback-not-allowed), and what the mapping raises.
        """
        if self.is_visible is not None and not self.is_visible(session, account):
            raise LinkHidden("visible_when does not hold for this account")
        if not callback:  # a portal's template with an empty value names none either
            callback = None if self.callback is None else self.callback.build(session, account)
        elif not is_allowed(callback, self.link.callback_allow):
            why = describe_refusal(callback, self.link.callback_allow)
            detail = f"the callback of the address is not below one of the link's callback_allow: {why}"
            raise LaunchRefused(detail, code="callback-not-allowed")
        return callback, self.mapping.evaluate(session, account)

    def find_origins(self, location: str, callback: str | None) -> tuple[str, ...]:
        """The origins that the browser may go to from `location` on.

        Those are the partner's, and the callback's if that is on the web.
        """
        is_web = callback is not None and urlsplit(callback).scheme in ("http", "https")
        return find_origins(location, self.partner.origins, origin_of(callback) if is_web and callback else None)


class Snapshot:
    """One biller's revision.

    Safe to share between threads: each part is compiled by the first that asks for it.
    """

    __slots__ = (
        "_entities",
        "_lock",
        "_read_metadata",
        "_receivers",
        "_routes",
        "_service",
        "biller",
        "issuer",
        "revision",
    )

    def __init__(
        self,
        *,
        biller: Biller,
        revision: int,
        issuer: str,
        service: ServiceContext,
        read_metadata: Callable[[SamlSettings], SpMetadata],
    ) -> None:
        self.biller = biller
        self.revision = revision
        self.issuer = issuer
        self._service = service
        self._read_metadata = read_metadata
        self._routes: dict[tuple[str, Overrides], Route] = {}
        self._receivers: dict[tuple[str, Overrides], Receiver] = {}
        self._entities: dict[str, tuple[Partner, SpMetadata]] | None = None
        self._lock = RLock()

    @property
    def key(self) -> SigningKey:
        """The current key, which signs for this biller where no partner asks for another.

        Raises KeyRefused.
        """
        return self._service.find_key(self.biller.idp.keys.current)

    def find_published_keys(self) -> tuple[PublishedKey, ...]:
        """Every key that our metadata holds: current, next, previous.

        Their certificates are enough. Raises KeyRefused if one cannot be read.
        """
        return tuple(self._service.find_published(name) for name in self.biller.idp.keys.published)

    def find_token_keys(self) -> tuple[PublishedKey, ...]:
        """Every key that the biller's JWKS publishes.

        Those are the keys of `tokens.keys`, and the ones that its partners name.

        Their certificates are enough. A key with two names is listed once. A key that no partner needs may be missing.
        Raises KeyRefused if another cannot be read.
        """
        needed = list_needed_keys(self.biller)
        found: dict[str, PublishedKey] = {}
        for name in list_token_keys(self.biller):
            try:
                key = self._service.find_published(name)
                found.setdefault(find_kid(key), key)
            except KeyRefused:
                if name in needed:
                    raise
        return tuple(found.values())

    def find_key(self, partner: Partner, *, rehearsal: bool = False) -> SigningKey:
        """The key that signs for this SAML partner; in a rehearsal the biller's next one.

        Raises KeyRefused, and PartnerUnusable (no-next-key) when the next key is asked for and is missing.
        """
        return self.find_context(partner, Overrides(rehearsal=rehearsal)).find_saml_key()

    def find_issuer(self, partner: Partner) -> str:
        """The entity ID that this partner knows the biller by."""
        return (partner.saml.our_entity_id if partner.speaks_saml else None) or self.issuer

    def find_context(self, partner: Partner, overrides: Overrides = NO_OVERRIDES) -> PartnerContext:
        """Everything that a partner of this biller is compiled from."""
        return PartnerContext(
            biller=self.biller,
            partner=partner,
            base_url=self._service.base_url,
            saml_issuer=self.find_issuer(partner),
            find_key=self._service.find_key,
            read_metadata=self._read_metadata,
            has_secret=lambda name: self._service.has_secret(self.biller.slug, name),
            pairwise_secret=self._service.pairwise_secret,
            overrides=overrides,
        )

    def find_receiver(self, partner: Partner, overrides: Overrides = NO_OVERRIDES) -> Receiver:
        """The partner, compiled; links to one partner share it. Raises as the protocol's `compile` does."""
        place = partner.slug, overrides
        with self._lock:
            if place not in self._receivers:
                self._receivers[place] = PROTOCOLS[partner.protocol].compile(self.find_context(partner, overrides))
            return self._receivers[place]

    def find_route(self, link: str, overrides: Overrides = NO_OVERRIDES) -> Route:
        """The link, its partner and its mapping, compiled for a launch.

        Raises LinkUnknown, LinkDisabled; PartnerUnusable with findings when something of it cannot be compiled.
        """
        route = self._routes.get((link, overrides))
        if route is None:
            with self._lock:
                route = self._routes.get((link, overrides)) or self._compile(link, overrides)
                self._routes[link, overrides] = route
        return route

    def find_partner_by_entity_id(self, entity_id: str) -> tuple[Partner, SpMetadata] | None:
        """The partner of this biller whose metadata has exactly this entity ID, letter by letter."""
        with self._lock:
            if self._entities is None:
                self._entities = dict(self._list_entities())
            return self._entities.get(entity_id)

    def describe_unknown_issuer(self, issuer: str) -> str:
        """The words of a refusal of an Issuer that is no partner's.

        They name the entity ID that is most like it.
        """
        known = sorted(self._entities or ())
        alike = [one for one in known if _fold(one) == _fold(issuer)]
        return f"the message's Issuer is no SAML partner of {self.biller.slug}: {compare(issuer, *(alike or known))}"

    def find_partner(self, slug: str) -> tuple[Partner, SpMetadata] | None:
        """The SAML partner of this biller with this slug, if its metadata can be read."""
        partner = self.biller.find_partner(slug)
        try:
            return None if partner is None or not partner.speaks_saml else (partner, self._read_metadata(partner.saml))
        except MetadataRefused:
            return None

    def _list_entities(self) -> Iterator[tuple[str, tuple[Partner, SpMetadata]]]:
        for partner in self.biller.saml_partners:
            try:
                metadata = self._read_metadata(partner.saml)
            except MetadataRefused:
                continue  # this partner can be neither answered nor sent to; the others can
            yield metadata.entity_id, (partner, metadata)

    def _compile(self, slug: str, overrides: Overrides) -> Route:
        link = self.biller.find_link(slug)
        if link is None:
            raise LinkUnknown(f"{self.biller.slug} has no such link")
        if not link.enabled:
            raise LinkDisabled(f"the link {slug} of {self.biller.slug} is disabled")
        partner, mapping = self.biller.find_partner(link.partner), self.biller.find_mapping(link.mapping)
        if partner is None or mapping is None:
            raise PartnerUnusable(f"the link {slug} of {self.biller.slug} names a partner or mapping that is not there")
        try:
            return Route(
                link=link,
                partner=partner,
                mapping=compile_mapping(mapping),
                receiver=self.find_receiver(partner, overrides),
                is_visible=compile_condition(link.visible_when) if link.visible_when else None,
                callback=compile_callback(link.callback_uri) if link.callback_uri is not None else None,
            )
        except (ConfigInvalid, KeyRefused, MetadataRefused) as error:
            detail = f"the link {slug} of {self.biller.slug} cannot be used: {error.detail}"
            findings = error.findings or [Finding(error.code, Severity.ERROR, error.detail, find_fix(error.code))]
            raise PartnerUnusable(detail, findings=findings) from error


def _fold(entity_id: str) -> str:
    """What is left of a name when case, white space around it, its scheme and a slash at the end do not matter."""
    return entity_id.strip().casefold().removeprefix("https://").removeprefix("http://").rstrip("/")


@lru_cache(maxsize=4096)
def find_origins(action: str, declared: tuple[str, ...], callback: str | None = None) -> tuple[str, ...]:
    """The origins that the browser may go to.

    Those are of the form's target, of the partner's declaration and of the callback.
    """
    origins = [origin_of(action), *declared, *([] if callback is None else [callback])]
    return tuple(dict.fromkeys(origins))
