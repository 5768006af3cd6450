"""The one seam between a launch and the protocols that partners speak.

Owns: the context that a protocol gets of a launch (`LaunchContext`), the reply that it gives (`BuiltReply`), a partner
that was compiled for launches (`Receiver`), a request that the partner started (`PartnerRequest`), and the services of
the outside that a protocol may use (`Services`). Does not own: any protocol (one module each, listed in `index`), and
the order of a launch (`flows.launch.launch`), which is the caller.

Pure: what reaches outside is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from saml_bridge.keys.signing_key import SigningKey
from saml_bridge.model.document import Biller, Partner, SamlSettings
from saml_bridge.model.errors import BridgeError, PartnerUnusable
from saml_bridge.model.values import Attribute, Finding, FormPost, JsonObject, PortalSession, Redirect, Severity
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata

Reply = FormPost | Redirect

Needs = Literal["sign_in", "choice"]
"""What a payer would have to do: sign in (anew), or choose one of several accounts."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """How one launch differs from its partner's settings, because a request asked for it.

    `acs` is a location that the metadata lists, `transient` asks for a name ID that is good for one session (SAML);
    `rehearsal` has the biller's next key sign.
    """

    acs: str | None = None
    transient: bool = False
    rehearsal: bool = False


NO_OVERRIDES = Overrides()


class PartnerRequest(Protocol):
    """A sign-on request of a partner, verified, as the launch that answers it sees it."""

    @property
    def received_at(self) -> datetime:
        """When it came, aware UTC."""

    @property
    def is_passive(self) -> bool:
        """The payer must not be shown anything."""

    @property
    def force_authn(self) -> bool:
        """The payer must sign in again."""

    @property
    def sent_to_sign_in(self) -> bool:
        """The payer was sent to the portal's sign-in for this request already."""

    @property
    def overrides(self) -> Overrides:
        """How the launch that answers it differs from the partner's settings."""

    def to_json(self) -> str:
        """The request as text, with all that it asks, while it waits."""

    @property
    def session_length(self) -> int:
        """How many characters of that text are a portal session, whose length no partner chooses."""

    def record_sign_in(self, auth_time: datetime | None) -> PartnerRequest:
        """The request of a payer who is sent to the portal's sign-in.

        The payer had signed in last at `auth_time`.
        """

    def find_resume_path(self, biller: str) -> str:
        """The path at which the request is gone on with, after the payer's sign-in."""

    def needs_sign_in(self, session: PortalSession) -> bool:
        """The payer who is signed in must sign in again."""

    def check_session(self, session: PortalSession) -> None:
        """Checks that the portal's sign-in is of the kind that was asked for.

        Raises the errors that `refuse_passive` gives.
        """

    def refuse_passive(self, why: str, needs: Needs) -> BridgeError:
        """The refusal for the partner of a passive request that would need the payer."""

    def refuse_old_sign_in(self) -> BridgeError:
        """The refusal for the partner when the payer did not sign in again."""


@dataclass(frozen=True, slots=True)
class PartnerCall:
    """One call of a partner's server.

    `target` names the partner for the breaker: biller and slug.

    What may hold a payer's value or a credential does not stand in its `repr`.
    """

    target: tuple[str, str]
    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    total_seconds: float


@dataclass(frozen=True, slots=True)
class Hint:
    """A payer on the way to an OpenID Connect partner, until its request comes.

    It says through which link, and as which payer.

    `sent_by_portal` as in `LaunchContext`.
    """

    biller: str
    link: str
    session: PortalSession
    account: str | None
    callback: str | None
    sent_by_portal: bool = False


@dataclass(frozen=True, slots=True)
class BrowserBinding:
    """Something waits here under `token` for the one browser that has the cookie `browser`."""

    token: str
    browser: str


@dataclass(frozen=True, slots=True)
class Services:
    """The services of the outside that a protocol may use, wired once (`app.wiring`).

    Each raises BridgeError.

    `find_secret` gives the partner's secret of this name to use now (biller, name, now); `call` the body of a partner's
    answer of status 2xx; `save_hint` keeps a hint for one browser; `save_grant` keeps what an authorization code stands
    for (JSON) and gives the code (biller, partner, portal session's ID, grant, now).
    """

    find_secret: Callable[[str, str, datetime], str]
    call: Callable[[PartnerCall], bytes]
    save_hint: Callable[[Hint, datetime], BrowserBinding]
    save_grant: Callable[[str, str, str, Mapping[str, Any], datetime], str]


def _refuse_service(*_: Any) -> Any:
    raise PartnerUnusable("this service is not wired here", code="service-missing")


NO_SERVICES = Services(_refuse_service, _refuse_service, _refuse_service, _refuse_service)
"""For where no protocol needs the outside."""


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """A launch as a protocol gets it to make its reply.

    `biller`, `partner` and `link` are slugs. `request` is the partner's, None for a launch that the payer started.
    `revision` is the configuration that decides. `sent_by_portal` says that the portal sent the session with this
    launch, so that nobody can be asked for it again.
    """

    biller: str
    partner: str
    link: str
    session: PortalSession
    account: JsonObject | None
    attributes: tuple[Attribute, ...]
    callback: str | None
    now: datetime
    random_bytes: Callable[[int], bytes]
    services: Services
    request: Any = None
    revision: int = 0
    sent_by_portal: bool = False


@dataclass(frozen=True, slots=True)
class StartedSession:
    """A session that begins at the partner, as a logout will name it there.

    SAML names it by name ID, OpenID Connect by `sub`.
    """

    name_id: str
    name_id_format: str
    session_index: str


@dataclass(frozen=True, slots=True)
class BuiltReply:
    """The reply of one launch.

    `started` is None where no session begins that a logout has to know of. `document` is the signed text, for the
    command line. `binding` says which cookie the browser needs. `response_id` and `assertion_id` name the message in
    the audit trail (`storage.audit.Entry`), as far as the protocol names it.
    """

    reply: Reply
    started: StartedSession | None = None
    document: bytes = b""
    binding: BrowserBinding | None = None
    response_id: str | None = None
    assertion_id: str | None = None


class Receiver(Protocol):
    """A partner, compiled once for many launches. Safe to share between threads."""

    @property
    def key_name(self) -> str | None:
        """The key of the ring that signs, for the audit trail."""

    @property
    def location(self) -> str:
        """Where the browser goes, as far as it is known before."""

    def build(self, ask: LaunchContext) -> BuiltReply:
        """The reply of one launch. Raises BridgeError, and then nothing leaves."""

    def check(
        self,
        *,
        session: PortalSession,
        account: JsonObject | None,
        attributes: Sequence[Attribute],
        callback: str | None,
        now: datetime,
    ) -> None:
        """Checks that `build` would succeed, without signing, saving or calling anything.

        Raises as `build` does.
        """


@dataclass(frozen=True, slots=True)
class PartnerContext:
    """Everything that a partner is compiled from and checked with, beside its settings.

    `saml_issuer` is the entity ID that the partner knows the biller by. `find_key` gives a key of the ring by its name
    and raises KeyRefused; `read_metadata` a SAML partner's metadata, and raises MetadataRefused; `has_secret` tells
    whether the biller has a secret of a name.
    """

    biller: Biller
    partner: Partner
    base_url: str
    saml_issuer: str
    find_key: Callable[[str], SigningKey]
    read_metadata: Callable[[SamlSettings], SpMetadata]
    has_secret: Callable[[str], bool]
    pairwise_secret: bytes
    allow_http: bool = False
    overrides: Overrides = NO_OVERRIDES

    @property
    def issuer(self) -> str:
        """The biller's issuer of ID tokens (OpenID Connect Discovery 1.0, section 3)."""
        return find_token_issuer(self.base_url, self.biller.slug)

    @property
    def one_way_issuer(self) -> str:
        """The biller's issuer of tokens that a browser carries one way."""
        return find_one_way_issuer(self.base_url, self.biller.slug)

    def find_saml_key(self) -> SigningKey:
        """The key that signs XML for this partner; in a rehearsal the biller's next one.

        Raises KeyRefused, and PartnerUnusable (no-next-key) when the next key is asked for and is not there.
        """
        names = self.biller.idp.keys
        if not self.overrides.rehearsal and self.partner.saml.signing_key == "current":
            return self.find_key(names.current)
        if names.next is None:
            detail = f"{self.biller.slug} has no next key to sign for {self.partner.slug}"
            raise PartnerUnusable(detail, code="no-next-key")
        return self.find_key(names.next)

    def find_token_key(self, name: str | None) -> SigningKey:
        """The key of this name, or the biller's current key for tokens. Raises KeyRefused."""
        return self.find_key(name or self.biller.tokens.keys.current)


def check_secret(context: PartnerContext, name: str | None, where: str) -> Iterator[Finding]:
    """Checks that the biller has the secret that a partner's settings name."""
    if name is not None and not context.has_secret(name):
        message = f"secret: {context.biller.slug} has no secret {name!r}"
        fix = f"Run 'saml-bridge secrets set {context.biller.slug} {name}'."
        yield Finding("secret-missing", Severity.ERROR, message, fix, where)


def find_token_issuer(base_url: str, biller: str) -> str:
    """The issuer of a biller's ID tokens (a slug)."""
    return f"{base_url}/oidc/{biller}"


def find_one_way_issuer(base_url: str, biller: str) -> str:
    """The issuer of a biller's signed links and encrypted tokens.

    A partner's settings may insist on another.

    It lies among the biller's addresses, so that no other biller can have it, and issues no ID tokens.
    """
    return f"{find_token_issuer(base_url, biller)}/links"
