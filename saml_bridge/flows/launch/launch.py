"""The launch: one payer goes to one partner through one link.

Owns: the order of the checks, and that nothing leaves before it is recorded under the configuration in force. Does not
own: pages and redirects (`web.payer.launch`), who the payer is (`portal`), what a partner is told (`mapping.rules`,
and the receiver of the partner's protocol: `protocols.interface`).
Called by: the launch page and `saml-bridge launch`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from saml_bridge.billers.registry import Registry
from saml_bridge.billers.snapshot import Route, Snapshot
from saml_bridge.flows.launch.visit import IN_BACKGROUND, NOT_A_PAGE, Visit
from saml_bridge.mapping.callback_uri import origin_of
from saml_bridge.model.comparisons import compare
from saml_bridge.model.document import Biller, Link, Portal
from saml_bridge.model.errors import (
    AccountRefused,
    BridgeError,
    Fault,
    ImpersonationRefused,
    LaunchRefused,
    NotRecorded,
    PartnerUnusable,
    SessionAbsent,
    SessionEnded,
    SignInFailed,
    explain_fault,
)
from saml_bridge.model.values import Credentials, FormPost, JsonObject, PortalSession, TraceId
from saml_bridge.portal.session_source import SessionSource
from saml_bridge.protocols.interface import (
    NO_OVERRIDES,
    NO_SERVICES,
    BrowserBinding,
    LaunchContext,
    Needs,
    PartnerCall,
    PartnerRequest,
    Reply,
    Services,
    StartedSession,
)
from saml_bridge.storage.audit import AuditTrail, Entry, Kind, pseudonym
from saml_bridge.storage.ended_sessions import NO_SESSION, EndedSessions, Marks
from saml_bridge.storage.partner_sessions import PartnerSessions

_ATTEMPTS = 3
RETURNED = "returned"
CHOSEN = "chosen"
HELD = "held"
RESUME = "resume"
"""The query parameter with the token of a partner's request that waits."""
LINK = "link"
"""The link that a request which waits is for: so that a payer who comes back too late is offered the way there."""
SIGN_IN_ANEW = {"prompt": "login"}
"""What tells the portal's sign-in to ask again for a password (the word is OpenID Connect's)."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """A launch that a visit asks for.

    `account` and `callback` are what it is for, if anything says so. `partner_request` is the request of a partner that
    it answers; `token` is that under which the request waits for the payer, or under which a portal session waits for
    this launch. `rehearsal` has the biller's next key sign.
    """

    visit: Visit
    link: str
    account: str | None = None
    callback: str | None = None
    partner_request: PartnerRequest | None = None
    token: str | None = None
    rehearsal: bool = False

    @property
    def biller(self) -> str:
        return self.visit.biller

    @property
    def trace_id(self) -> TraceId:
        return self.visit.trace_id

    def find_path(self, *, choose: str | None = None, returned: bool = False) -> str:
        """Path and query at which this very launch is asked for again.

        `choose` is the account that is picked there.
        """
        answers, chosen = self.partner_request, self.visit.chosen
        query = {
            RESUME: self.token if answers else None,
            LINK: self.link if answers else None,
            "account": choose or (self.account if answers is None or chosen else None),
            "callback": self.callback,
            HELD: None if answers else self.token,
            CHOSEN: "1" if choose or chosen else None,
            RETURNED: "1" if returned else None,
        }
        given = {name: value for name, value in query.items() if value is not None}
        path = answers.find_resume_path(self.biller) if answers else f"/launch/{self.biller}/{self.link}"
        return path + (f"?{urlencode(given)}" if given else "")


@dataclass(frozen=True, slots=True)
class Launched:
    """The reply may leave: it is recorded.

    `remember` is the token of an account that the payer chose, or None.

    `binding` is what the browser needs a cookie for, if anything.
    """

    biller: Biller
    route: Route
    reply: Reply
    origins: tuple[str, ...]
    revision: int
    remember: str | None = None
    document: bytes = b""
    binding: BrowserBinding | None = None


@dataclass(frozen=True, slots=True)
class SignIn:
    """The payer goes to the portal's sign-in at `url` and comes back to this launch.

    Mostly nobody is signed in. A payer who is, and must sign in again, did so last at `auth_time`.
    """

    url: str
    auth_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class ChooseAccount:
    """The payer has several accounts and none is selected."""

    biller: Biller
    route: Route
    accounts: tuple[JsonObject, ...]


@dataclass(frozen=True, slots=True)
class Confirm:
    """Another site started this launch: the payer says with one click that it is wanted."""

    biller: Biller
    route: Route


Outcome = Launched | SignIn | ChooseAccount | Confirm


@dataclass(frozen=True, slots=True)
class Launcher:
    """Makes launches; wired once.

    `clock` gives aware UTC times, `random_bytes` unpredictable ones.
    """

    registry: Registry
    audit: AuditTrail
    ended_sessions: EndedSessions
    partner_sessions: PartnerSessions
    base_url: str
    secret: bytes
    clock: Callable[[], datetime]
    random_bytes: Callable[[int], bytes]
    services: Services = NO_SERVICES

    def launch(self, request: LaunchRequest, source: SessionSource) -> Outcome:
        """Take one launch to its outcome.

        A launch and a refusal are recorded, each under the revision that decided it, and other outcomes are compared
        with it: when another came into force in the meantime, everything is decided again. So it is when a sign-out has
        ended the session that the source tells of, and then nobody is signed in. Raises a BridgeError for a refusal;
        NotRecorded when the record could not be committed, and then nothing leaves.
        """
        services = replace(self.services, call=_CallOnce(self.services.call))
        for _ in range(_ATTEMPTS):
            attempt = _Attempt(self, request, source, services, self.clock())
            try:
                snapshot = self.registry.find_snapshot(request.biller)
            except BridgeError as error:
                self.audit.record(attempt.refusal(error))
                raise
            try:
                end = attempt.find_end(snapshot)
                holds = self._holds(attempt, end, snapshot)
            except SessionEnded as ended:
                source = _Nobody(source.name, ended)
                continue
            if not holds:
                continue
            if isinstance(end, BridgeError):
                raise end
            return end
        raise NotRecorded(f"the configuration changed {_ATTEMPTS} times during one launch")

    def check_not_ended(self, session: PortalSession) -> None:
        """Refuse a session that a sign-out has ended, where no launch follows.

        Raises SessionEnded.
        """
        self.check_marks(self.ended_sessions.mark(session))

    def check_marks(self, marks: Marks) -> None:
        """Refuse the session that has these marks, if a sign-out has ended it.

        Raises SessionEnded.
        """
        if marks is not NO_SESSION and self.ended_sessions.has_marked(marks, now=self.clock()):
            raise SessionEnded("a sign-out has ended this session; the portal's next sign-in needs a sid of its own")

    def _holds(self, attempt: _Attempt, end: Outcome | BridgeError, snapshot: Snapshot) -> bool:
        """Whether an end is of the configuration in force; launches and refusals are recorded. Raises SessionEnded."""
        if isinstance(end, Fault):
            return self._is_fault_of(attempt, end, snapshot)
        if isinstance(end, BridgeError):
            return self._is_recorded(attempt, attempt.refusal(end), snapshot)
        if isinstance(end, Launched):
            return self._is_recorded(attempt, attempt.issue(), snapshot)
        if not isinstance(end, SignIn):
            self.check_marks(attempt.marks)
        return self.registry.find_current(snapshot.biller.slug).revision == snapshot.revision

    def _is_fault_of(self, attempt: _Attempt, fault: Fault, snapshot: Snapshot) -> bool:
        """As `_is_recorded`; that a record fails, too, takes nothing from the fault: the caller tells of it."""
        try:
            fault.is_recorded = self._is_recorded(attempt, attempt.refusal(fault), snapshot)
        except NotRecorded:
            return True
        return fault.is_recorded

    def _is_recorded(self, attempt: _Attempt, entry: Entry, snapshot: Snapshot) -> bool:
        """Record under the snapshot's revision; when that is no longer in force, forget it and say so.

        Raises SessionEnded, and nothing is recorded.
        """
        if self.audit.record_launch(entry, fence=(snapshot.biller.slug, snapshot.revision), session=attempt.marks):
            return True
        self.check_marks(attempt.marks)
        self.registry.forget(snapshot.biller.slug)
        return False


@dataclass(frozen=True, slots=True)
class _Nobody:
    """The session source of a launch whose session turned out to have ended."""

    name: str
    ended: SessionEnded

    def find_session(self, _credentials: Credentials, *, now: datetime) -> PortalSession:  # noqa: ARG002 as the protocol
        raise self.ended


class _CallOnce:
    """The calls of one launch, and what became of each. For one thread.

    A launch is decided again when the configuration changes meanwhile. The very same call of a partner is then answered
    as it was, since asking may have changed something there; a call that differs is made.
    """

    def __init__(self, call: Callable[[PartnerCall], bytes]) -> None:
        self._call = call
        self._made: list[tuple[PartnerCall, bytes | PartnerUnusable]] = []

    def __call__(self, call: PartnerCall) -> bytes:
        answer = next((answer for made, answer in self._made if made == call), None)
        if answer is None:
            answer = self._ask(call)
            self._made.append((call, answer))
        if isinstance(answer, PartnerUnusable):
            raise answer
        return answer

    def _ask(self, call: PartnerCall) -> bytes | PartnerUnusable:
        try:
            return self._call(call)
        except PartnerUnusable as refusal:
            return refusal


class _Attempt:
    """One evaluation of a launch under one snapshot; gathers what its record will say."""

    def __init__(
        self, launcher: Launcher, request: LaunchRequest, source: SessionSource, services: Services, now: datetime
    ) -> None:
        self._launcher = launcher
        self._request = request
        self._source = source
        self._services = services
        self._now = now
        self._known: dict[str, Any] = {}
        self.marks = NO_SESSION

    def refusal(self, error: BridgeError) -> Entry:
        kind = Kind.LAUNCH_REFUSED if self._request.partner_request is None else Kind.SIGN_ON_REFUSED
        return self._record(kind, code=error.code, detail=error.diagnosis())

    def issue(self) -> Entry:
        kind = Kind.LAUNCH_ISSUED if self._request.partner_request is None else Kind.SIGN_ON_ISSUED
        return self._record(kind, code="", detail="")

    def _record(self, kind: Kind, *, code: str, detail: str) -> Entry:
        ask = self._request
        return Entry(
            kind=kind,
            at=self._now,
            trace_id=ask.trace_id,
            biller=ask.biller,
            link=ask.link,
            code=code,
            detail=detail,
            **self._known,
        )

    def find_end(self, snapshot: Snapshot) -> Outcome | BridgeError:
        """The outcome, or the refusal, or the fault. Raises NotRecorded, SessionEnded."""
        try:
            return self._decide(snapshot)
        except (NotRecorded, SessionEnded):
            raise
        except Exception as raised:  # noqa: BLE001 a fault ends as a refusal does
            return explain_fault(raised)

    def _decide(self, snapshot: Snapshot) -> Outcome:
        request = self._request
        self._known["revision"] = snapshot.revision
        if request.visit.is_background:
            raise LaunchRefused(IN_BACKGROUND, code=NOT_A_PAGE)
        partner_request = request.partner_request
        overrides = partner_request.overrides if partner_request else NO_OVERRIDES
        if request.rehearsal:
            overrides = replace(overrides, rehearsal=True)
        route = snapshot.find_route(request.link, overrides)
        self._known.update(partner=route.partner.slug, key=route.receiver.key_name)
        try:
            session = self._source.find_session(request.visit.credentials, now=self._now)
        except SessionAbsent as error:
            return self._sign_in(snapshot, error)
        traces = self._launcher.audit.trace_session(request.biller, session)
        self.marks = traces.marks
        self._known.update(payer=traces.payer, session=traces.session, actor=traces.actor)
        check_session(session, snapshot, route.link)
        if partner_request is not None:
            if partner_request.needs_sign_in(session):
                return self._sign_in(snapshot, session.auth_time)
            partner_request.check_session(session)
        if request.visit.is_cross_site:
            return Confirm(snapshot.biller, route)
        account = self._find_account(session)
        if account is None and len(session.accounts) > 1:
            self._check_may_ask("the payer has several accounts, and none is selected", "choice")
            return ChooseAccount(snapshot.biller, route, session.accounts)
        return self._build(snapshot, route, session, account)

    def _sign_in(self, snapshot: Snapshot, why: SessionAbsent | datetime) -> SignIn:
        """Send the payer to the portal's sign-in, once: nobody is signed in, or the sign-in must be a new one."""
        request, portal = self._request, snapshot.biller.portal
        self._check_may_ask("nobody is signed in, or the payer would have to sign in anew", "sign_in")
        back = f"{self._launcher.base_url}{request.find_path(returned=True)}"
        if isinstance(why, SessionAbsent):
            if request.visit.returned:
                raise SignInFailed(f"after the portal's sign-in: {why.code}: {why.detail}") from why
            must_ask = request.partner_request is not None and request.partner_request.force_authn
            forced = must_ask or isinstance(why, SessionEnded)  # the portal may know the payer still
            return SignIn(make_sign_in_url(portal, back, **(SIGN_IN_ANEW if forced else {})))
        if request.visit.returned and request.partner_request is not None:
            raise request.partner_request.refuse_old_sign_in()
        return SignIn(make_sign_in_url(portal, back, **SIGN_IN_ANEW), why)

    def _check_may_ask(self, why: str, needs: Needs) -> None:
        """A passive request must not show the payer anything (SAML Core 3.4.1; OpenID Connect Core 3.1.2.1)."""
        if self._request.partner_request is not None and self._request.partner_request.is_passive:
            raise self._request.partner_request.refuse_passive(why, needs)

    def _build(self, snapshot: Snapshot, route: Route, session: PortalSession, account: JsonObject | None) -> Launched:
        if account is not None:
            self._known["account"] = self._launcher.audit.hide_account(session.biller, account["number"])
        callback, attributes = route.evaluate(session, account, callback=self._request.callback)
        launcher = self._launcher
        ask = LaunchContext(
            biller=session.biller,
            partner=route.partner.slug,
            link=route.link.slug,
            session=session,
            account=account,
            attributes=attributes,
            callback=callback,
            now=self._now,
            random_bytes=launcher.random_bytes,
            services=replace(self._services, call=self._call),
            request=self._request.partner_request,
            revision=snapshot.revision,
            sent_by_portal=self._request.visit.sent_by_portal,
        )
        built = route.receiver.build(ask)
        self._known.update(response_id=built.response_id, assertion_id=built.assertion_id)
        if built.started is not None:
            self._remember_session(route, session, built.started)
        return Launched(
            biller=snapshot.biller,
            route=route,
            reply=built.reply,
            origins=route.find_origins(find_location(built.reply), callback),
            revision=snapshot.revision,
            remember=self._remember(session, account),
            document=built.document,
            binding=built.binding,
        )

    def _call(self, call: PartnerCall) -> bytes:
        """A call of a partner's server, which comes before the record: it, too, tells nothing of an ended session."""
        self._launcher.check_marks(self.marks)
        return self._services.call(call)

    def _remember_session(self, route: Route, session: PortalSession, started: StartedSession) -> None:
        """What a logout will need, kept before the reply can leave; for partners that can be logged out at."""
        self._launcher.partner_sessions.save(
            biller=session.biller,
            partner=route.partner.slug,
            sid=session.sid,
            payer_id=session.payer["id"],
            name_id=started.name_id,
            name_id_format=started.name_id_format,
            session_index=started.session_index,
            expires_at=session.expires_at,
        )

    def _find_account(self, session: PortalSession) -> JsonObject | None:
        """The account asked for, selected in the portal or chosen before, or the only one; never a guess."""
        account = find_account(session, self._request.account)
        if account is not None or self._request.visit.remembered is None:
            return account
        tokens = {self._token(session, account): account for account in session.accounts}
        return tokens.get(self._request.visit.remembered)

    def _remember(self, session: PortalSession, account: JsonObject | None) -> str | None:
        return self._token(session, account) if self._request.visit.chosen and account is not None else None

    def _token(self, session: PortalSession, account: JsonObject) -> str:
        """Stands for an account within one portal session; says nothing about its number."""
        value = f"{session.sid}\0{account['number']}"
        return pseudonym(self._launcher.secret, biller=session.biller, kind="remembered-account", value=value)


def check_launch(
    snapshot: Snapshot,
    link: str,
    session: PortalSession,
    *,
    account: JsonObject | None,
    now: datetime,
    callback: str | None = None,
) -> None:
    """Checks that a launch would be answered, without signing or recording anything.

    `account` is the one that it would be for. Raises what the launch would: a BridgeError.
    """
    route = snapshot.find_route(link)
    check_session(session, snapshot, route.link)
    found, attributes = route.evaluate(session, account, callback=callback)
    route.receiver.check(session=session, account=account, attributes=attributes, callback=found, now=now)


def find_account(session: PortalSession, account_number: str | None) -> JsonObject | None:
    """The account asked for, the one selected in the portal, or the only one.

    None where several are left.

    Raises AccountRefused for one that the session does not have.
    """
    if account_number is not None:
        account = session.find_account(account_number)
        if account is None:
            had = f"the session has {len(session.accounts):,}"
            raise AccountRefused(f"the address asks for an account that the session does not have; {had}")
        return account
    if session.selected_account is not None:
        return session.find_account(session.selected_account)
    return session.accounts[0] if len(session.accounts) == 1 else None


def check_session(session: PortalSession, snapshot: Snapshot, link: Link) -> None:
    """Checks that the session is this biller's and may use this link.

    Raises LaunchRefused, ImpersonationRefused.
    """
    check_biller(session, snapshot)
    if session.impersonator is not None and not link.allow_impersonation:
        raise ImpersonationRefused("an agent acts for the payer, and the link does not say allow_impersonation: true")


def check_biller(session: PortalSession, snapshot: Snapshot) -> None:
    """Checks that the session is this biller's.

    Raises LaunchRefused (`session-of-other-biller`).
    """
    if session.biller != snapshot.biller.slug:
        sides = compare(session.biller, snapshot.biller.slug)
        raise LaunchRefused(f"the session is another biller's: {sides}", code="session-of-other-biller")


def make_sign_in_url(portal: Portal, back: str, **more: str) -> str:
    """The address of the portal's sign-in that leads back to `back`, one of ours."""
    separator = "&" if urlsplit(portal.sign_in_url).query else "?"
    return f"{portal.sign_in_url}{separator}{urlencode({portal.return_parameter: back, **more})}"


def find_location(reply: Reply) -> str:
    """The address that a reply takes the browser to.

    Of a URL, which may carry a token, it is the origin alone.
    """
    return reply.action if isinstance(reply, FormPost) else origin_of(reply.url)
