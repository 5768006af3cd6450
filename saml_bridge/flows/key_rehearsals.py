"""Rehearsals of a key: a real launch to one partner, signed with the next key.

Owns: inviting to a rehearsal, its launch, its verdict. Does not own: the steps of a rollover (`key_rollover`), the rows
(`storage.rehearsals`), the launch itself (`flows.launch`).
Called by: `saml-bridge keys rehearse`, the rehearsal page, `key_rollover`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from urllib.parse import urlsplit

from saml_bridge.billers.registry import Registry
from saml_bridge.flows.launch.launch import Launched, Launcher, LaunchRequest, Outcome
from saml_bridge.keys.signing_key import SigningKey
from saml_bridge.model.document import Biller, Link, Partner
from saml_bridge.model.errors import BridgeError
from saml_bridge.model.nearest import suggest
from saml_bridge.model.values import Finding, Severity, TraceId
from saml_bridge.portal.session_source import SessionSource
from saml_bridge.protocols.interface import Overrides
from saml_bridge.storage.audit import Entry, Kind
from saml_bridge.storage.rehearsals import UNJUDGED, Rehearsal, Rehearsals, RehearsalUnknown, Step, Verdict

INVITATION_LASTS = timedelta(minutes=60)


class RolloverRefused(BridgeError):
    """A step that cannot be taken now; the findings say what stands against it."""

    code = "rollover-refused"
    http_status = 409


@dataclass(frozen=True, slots=True)
class Staged:
    """A rehearsal with what it is about, as it is in force.

    `partner_host` is where the browser will go.
    """

    rehearsal: Rehearsal
    biller: Biller
    partner: Partner
    link: Link
    partner_host: str


@dataclass(frozen=True, slots=True)
class KeyRehearsals:
    """Rehearses next keys; wired once. Time and randomness are the launcher's."""

    registry: Registry
    launcher: Launcher
    rehearsals: Rehearsals
    find_key: Callable[[str], SigningKey]

    def invite(
        self, slug: str, partner: str, *, link: str | None = None, actor: str, trace_id: TraceId
    ) -> tuple[str, Rehearsal]:
        """Make a rehearsal.

        Gives the token that its address ends with, and what it is about.

        Raises BillerUnknown, RolloverRefused, KeyRefused, and PartnerUnusable when the next key cannot sign for the
        partner.
        """
        snapshot = self.registry.find_current(slug)
        key = self._find_next(snapshot.biller)
        [found] = choose_partners(snapshot.biller, [partner])
        chosen = choose_link(snapshot.biller, found, link)
        snapshot.find_route(chosen.slug, Overrides(rehearsal=True))
        rehearsal = self._make(slug, partner, chosen.slug, key, "invited", actor)
        return self._keep(rehearsal, Kind.KEY_INVITED, trace_id), rehearsal

    def find(self, token: str) -> Staged:
        """The rehearsal of this token.

        Raises RehearsalUnknown: also when the key is not the next one any more.
        """
        rehearsal = self.rehearsals.find(token, now=self.launcher.clock())
        snapshot = self.registry.find_current(rehearsal.biller)
        biller = snapshot.biller
        partner, link = biller.find_partner(rehearsal.partner), biller.find_link(rehearsal.link)
        if partner is None or link is None or link.partner != partner.slug or not self._is_next(biller, rehearsal):
            raise RehearsalUnknown("the rehearsed key, the partner or the link is not what it was at the invitation")
        acs = snapshot.find_route(link.slug, Overrides(rehearsal=True)).response.acs
        return Staged(rehearsal, biller, partner, link, urlsplit(acs.location).hostname or "")

    def launch(self, token: str, request: LaunchRequest, source: SessionSource) -> Outcome:
        """A real launch through the rehearsal's link, signed with the next key.

        The payer is the one who is signed in at the portal.

        `request` is taken but for its biller and link. Raises RehearsalUnknown, also for one that is judged, and
        otherwise as `Launcher.launch`.
        """
        rehearsal = self.find(token).rehearsal
        if rehearsal.is_judged:
            raise RehearsalUnknown("the rehearsal is judged already")
        ask = replace(request, link=rehearsal.link, rehearsal=True)
        ask = replace(ask, visit=replace(request.visit, biller=rehearsal.biller))
        outcome = self.launcher.launch(ask, source)
        if isinstance(outcome, Launched):
            entry = self._describe(rehearsal, Kind.KEY_REHEARSED, ask.trace_id, revision=outcome.revision)
            same = outcome.route.response.key.fingerprint_sha256 == rehearsal.fingerprint
            if not same or not self.rehearsals.advance(token, after=UNJUDGED, step="sent", entry=entry):
                raise RehearsalUnknown("the rehearsal ended while the launch was made")
        return outcome

    def judge(self, token: str, verdict: Verdict, *, trace_id: TraceId) -> None:
        """Say how a rehearsal went, once. Raises RehearsalUnknown, and RolloverRefused before anything was sent."""
        rehearsal = self.find(token).rehearsal
        entry = self._describe(rehearsal, Kind.KEY_JUDGED, trace_id, detail=verdict)
        if not self.rehearsals.advance(token, after=("sent",), step=verdict, entry=entry):
            if self.rehearsals.find(token, now=entry.at).is_judged:
                raise RehearsalUnknown("the rehearsal is judged already")
            raise refuse("rehearsal-not-sent", "nothing was sent to the partner yet")

    def judge_by_hand(self, slug: str, partner: str, verdict: Verdict, *, actor: str, trace_id: TraceId) -> Rehearsal:
        """Record what was seen in another way. Raises BillerUnknown, RolloverRefused, KeyRefused."""
        biller, _ = self.registry.load_in_force(slug)
        [found] = choose_partners(biller, [partner])
        rehearsal = self._make(slug, found.slug, "", self._find_next(biller), verdict, actor)
        self._keep(rehearsal, Kind.KEY_JUDGED, trace_id, detail=f"{verdict}, by hand")
        return rehearsal

    def _find_next(self, biller: Biller) -> SigningKey:
        if biller.idp.keys.next is None:
            fix = "Publish one with 'saml-bridge keys publish-next'."
            raise refuse("no-next-key", f"{biller.slug} has no next key to rehearse", fix)
        return self.find_key(biller.idp.keys.next)

    def _is_next(self, biller: Biller, rehearsal: Rehearsal) -> bool:
        name = biller.idp.keys.next
        return name is not None and self.find_key(name).fingerprint_sha256 == rehearsal.fingerprint

    def _make(self, biller: str, partner: str, link: str, key: SigningKey, step: Step, actor: str) -> Rehearsal:
        now = self.launcher.clock()
        return Rehearsal(
            biller=biller,
            partner=partner,
            link=link,
            key=key.name,
            fingerprint=key.fingerprint_sha256,
            step=step,
            actor=actor,
            changed_at=now,
            expires_at=now + INVITATION_LASTS if step == "invited" else now,
        )

    def _keep(self, rehearsal: Rehearsal, kind: Kind, trace_id: TraceId, detail: str = "") -> str:
        token = base64.urlsafe_b64encode(self.launcher.random_bytes(32)).rstrip(b"=").decode("ascii")
        self.rehearsals.add(rehearsal, token=token, entry=self._describe(rehearsal, kind, trace_id, detail=detail))
        return token

    def _describe(
        self, rehearsal: Rehearsal, kind: Kind, trace_id: TraceId, *, revision: int | None = None, detail: str = ""
    ) -> Entry:
        certificate = f"certificate {rehearsal.fingerprint}"
        return Entry(
            kind=kind,
            at=self.launcher.clock(),
            trace_id=trace_id,
            biller=rehearsal.biller,
            link=rehearsal.link or None,
            partner=rehearsal.partner,
            revision=revision,
            key=rehearsal.key,
            detail=f"{detail}; {certificate}" if detail else certificate,
            actor=rehearsal.actor,
        )


def choose_partners(biller: Biller, slugs: Sequence[str]) -> tuple[Partner, ...]:
    """The partners of these slugs, or all when none is named.

    Raises RolloverRefused for one that is not there.
    """
    known = {partner.slug: partner for partner in biller.saml_partners}
    unknown = [slug for slug in slugs if slug not in known]
    if unknown:
        fix = f"There are: {', '.join(known)}." if known else ""
        named = ", ".join(map(repr, unknown)) + suggest(unknown[0], known)
        raise refuse("partner-unknown", f"{biller.slug} has no partner {named}", fix)
    return tuple(known[slug] for slug in dict.fromkeys(slugs)) if slugs else biller.saml_partners


def choose_link(biller: Biller, partner: Partner, slug: str | None) -> Link:
    """The link of this slug, or the first that is enabled. Raises RolloverRefused."""
    usable = {link.slug: link for link in biller.links if link.partner == partner.slug and link.enabled}
    if slug is None and usable:
        return next(iter(usable.values()))
    if slug in usable:
        return usable[slug]
    what = f"no enabled link {slug!r}" if slug else "no enabled link"
    fix = f"There are: {', '.join(usable)}." if usable else "Record the outcome with --outcome, or enable a link."
    nearest = suggest(slug or "", usable)
    raise refuse("link-unknown", f"{biller.slug} has {what} to {partner.slug}{nearest}", fix)


def make_finding(code: str, message: str, fix: str = "", *, where: str = "") -> Finding:
    return Finding(code, Severity.ERROR, message, fix, where)


def refuse(code: str, message: str, fix: str = "") -> RolloverRefused:
    return RolloverRefused(message, code=code, findings=(make_finding(code, message, fix),))
