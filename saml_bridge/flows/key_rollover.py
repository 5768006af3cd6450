"""How one signing key takes over from another without a payer noticing.

Owns: the steps of a rollover and the demands of each, and the board that shows which partners accept a key. Does not
own: key files (`keys.ring`), publishing (`billers.publisher`), rehearsals (`key_rehearsals`).
Called by: `saml-bridge keys`, the rehearsal page.

A rollover goes: `next` is published, so that partners can learn it; it is rehearsed with each partner; partners are
promoted, some first or all at once; `previous` is retired when no partner needs it any more. Each step is a revision of
the biller's document, planned here from the one in force and published as a change of that very one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from saml_bridge.billers.checks.publication import Publication
from saml_bridge.billers.publisher import Published, Publisher
from saml_bridge.flows.key_rehearsals import (
    KeyRehearsals,
    RolloverRefused,
    choose_partners,
    make_finding,
    refuse,
)
from saml_bridge.keys.signing_key import SigningKey, fit_algorithm
from saml_bridge.model.document import Biller, Idp, KeyNames, Partner
from saml_bridge.model.errors import ConfigConflict, KeyRefused
from saml_bridge.model.nearest import suggest
from saml_bridge.model.values import Finding, Severity, TraceId
from saml_bridge.protocols.saml.metadata.identity_provider import CACHE_DURATION
from saml_bridge.protocols.saml.xml.instants import parse_duration
from saml_bridge.storage.rehearsals import Rehearsal

METADATA_KEPT = parse_duration(CACHE_DURATION)
"""How long partners that fetch our metadata may go by what they fetched before a promotion."""

KeyUse = Literal["current", "next", "previous"]


@dataclass(frozen=True, slots=True)
class Change:
    """A step that is planned and not published. `notes` are worth saying before.

    `unverified` are partners, as BILLER/PARTNER, that would from then on get the next key's signature and were not seen
    to accept it. `early` are billers whose promotion is so young that partners may still go by our older metadata.
    """

    publications: tuple[Publication, ...]
    comment: str
    unverified: tuple[str, ...] = ()
    early: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyState:
    """A published key. `key` is None when it cannot be read, and `problem` says why."""

    use: KeyUse
    name: str
    key: SigningKey | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PartnerState:
    """The key that signs for a partner, and its last rehearsal of the next one.

    None: no rehearsal is known.
    """

    partner: str
    name: str
    signs_with: Literal["current", "next"]
    rehearsal: Rehearsal | None


@dataclass(frozen=True, slots=True)
class Board:
    """A biller's keys and partners under the revision in force."""

    biller: str
    name: str
    revision: int
    keys: tuple[KeyState, ...]
    partners: tuple[PartnerState, ...]


@dataclass(frozen=True, slots=True)
class Rollover(KeyRehearsals):
    """Takes the steps of a rollover, and rehearses before them; wired once."""

    publisher: Publisher

    # The steps

    def plan_next(self, name: str, billers: Sequence[str]) -> Change:
        """Publish a key beside the current one of each biller. Raises KeyRefused, BillerUnknown, RolloverRefused."""
        key = self.find_key(name)
        publications: list[Publication] = []
        refusals: list[Finding] = []
        for slug in billers:
            biller, revision = self.registry.load_in_force(slug)
            refusals += self._check_next(biller, key)
            publications.append(_change(biller, revision, replace(biller.idp.keys, next=name)))
        _refuse_any(refusals)
        notes = [f"The certificate of {name!r} has expired."] if key.not_after <= self.launcher.clock() else []
        return Change(tuple(publications), f"keys publish-next {name}", notes=tuple(notes))

    def list_billers_of(self, use: KeyUse, name: str) -> tuple[str, ...]:
        """The billers whose current (next, previous) key is this one.

        Raises RolloverRefused when no biller has it.
        """
        used = {slug: getattr(self.registry.load_document(slug).idp.keys, use) for slug in self.registry.list_billers()}
        found = tuple(slug for slug, key in used.items() if key == name)
        if not found:
            fix = "'saml-bridge keys status' shows the keys of every biller."
            nearest = suggest(name, dict.fromkeys(filter(None, used.values())))
            raise refuse("key-unused", f"no biller has {name!r} as its {use} key{nearest}", fix)
        return found

    def plan_promotion(self, slug: str, partners: Sequence[str] = ()) -> Change:
        """Have the next key sign for these partners, or for all.

        Without any it becomes the current key.

        Raises BillerUnknown, KeyRefused, RolloverRefused.
        """
        biller, revision = self.registry.load_in_force(slug)
        chosen = choose_partners(biller, partners)
        names = biller.idp.keys
        if names.next is None:
            raise refuse("no-next-key", f"{slug} has no next key", "Publish one with 'saml-bridge keys publish-next'.")
        key = self.find_key(names.next)
        moving = [one for one in chosen if one.saml.signing_key == "current"]
        unverified = self._list_unverified(slug, moving, key)
        if partners:
            changed = _sign_with(biller, chosen, "next", key)
            return Change(
                (Publication(changed, revision),), f"keys promote {slug} {' '.join(partners)}", unverified=unverified
            )
        if names.previous is not None:
            raise _refuse_previous(slug, names.previous)
        previous, notes = self._keep_previous(names.current)
        changed = _sign_with(biller, chosen, "current", key)
        publication = _change(changed, revision, KeyNames(names.next, None, previous))
        return Change((publication,), f"keys promote {slug}", unverified=unverified, notes=notes)

    def plan_demotion(self, slug: str, partners: Sequence[str] = ()) -> Change:
        """The way back: for these partners, for the promoted ones, or for all.

        The promoted ones are those of single promotions; all are those of the whole promotion.

        Raises BillerUnknown, KeyRefused, RolloverRefused.
        """
        biller, revision = self.registry.load_in_force(slug)
        chosen, names = choose_partners(biller, partners), biller.idp.keys
        comment = " ".join(("keys demote", slug, *partners))
        moved = [one.slug for one in chosen if one.saml.signing_key == "next"]
        if partners and not moved:
            raise _refuse_demotion(slug, partners, names)
        if moved:
            changed = _sign_with(biller, chosen, "current", self.find_key(names.current))
            return Change((Publication(changed, revision),), comment)
        if names.previous is None:
            raise refuse("nothing-to-demote", f"{slug} has no previous key, and no partner signs with the next one")
        if names.next is not None:
            fix = f"Withdraw it first with 'saml-bridge keys retire {slug} --next'."
            raise refuse("rollover-under-way", f"{slug} has {names.next!r} as its next key already", fix)
        changed = _sign_with(biller, chosen, "current", self.find_key(names.previous))
        return Change((_change(changed, revision, KeyNames(names.previous, names.current)),), comment)

    def plan_retirement(self, slug: str, *, use: Literal["previous", "next"] = "previous") -> Change:
        """Publish a key no more.

        It is the previous one, or a next one that is not to be used after all.

        Raises BillerUnknown, RolloverRefused.
        """
        biller, revision = self.registry.load_in_force(slug)
        names = biller.idp.keys
        if (names.previous if use == "previous" else names.next) is None:
            raise refuse("nothing-to-retire", f"{slug} has no {use} key")
        signing = [one.slug for one in biller.saml_partners if one.saml.signing_key == "next"]
        if use == "next" and signing:
            fix = f"Take them back first with 'saml-bridge keys demote {slug}'."
            raise refuse("key-in-use", f"the next key signs for {', '.join(signing)}", fix)
        kept = replace(names, previous=None) if use == "previous" else replace(names, next=None)
        comment = f"keys retire {slug}" + (" --next" if use == "next" else "")
        early = (slug,) if use == "previous" and self._is_promotion_young(slug, names.previous) else ()
        return Change((_change(biller, revision, kept),), comment, early=early)

    def _is_promotion_young(self, slug: str, previous: str | None) -> bool:
        """Whether the key became the previous one within the time for which our metadata may be kept."""
        promoted_at = None
        for revision in self.registry.list_revisions(slug):
            if self.registry.load_document(slug, revision.number).idp.keys.previous != previous:
                break
            promoted_at = revision.published_at
            if self.launcher.clock() - promoted_at >= METADATA_KEPT:
                break
        return promoted_at is not None and self.launcher.clock() - promoted_at < METADATA_KEPT

    def publish(self, change: Change, *, author: str, trace_id: TraceId) -> Published:
        """Bring a planned step into force, for all its billers or none.

        Raises ConfigConflict when somebody else published in the meantime, and otherwise as `Publisher.publish`.
        """
        try:
            return self.publisher.publish(
                change.publications,
                author=author,
                comment=change.comment,
                now=self.launcher.clock(),
                trace_id=trace_id,
            )
        except ConfigConflict as error:
            fix = "Look at 'saml-bridge keys status' and run the command again if it still makes sense."
            message = f"nothing was changed: {error.detail}"
            finding = Finding(ConfigConflict.code, Severity.ERROR, message, fix)
            raise ConfigConflict(message, findings=(finding,)) from error

    def _check_next(self, biller: Biller, key: SigningKey) -> Iterator[Finding]:
        names, slug = biller.idp.keys, biller.slug
        if names.current == key.name or self._is_same(names.current, key):
            yield make_finding("key-is-current", f"{key.name!r} is the key that signs for {slug} already", where=slug)
        elif names.next not in (None, key.name):
            fix = (
                f"Finish it with 'saml-bridge keys promote {slug}', or withdraw it with "
                f"'saml-bridge keys retire {slug} --next'."
            )
            yield make_finding("rollover-under-way", f"a rollover to {names.next!r} is under way", fix, where=slug)
        elif names.previous is not None:
            yield from _refuse_previous(slug, names.previous).findings

    def _is_same(self, name: str, key: SigningKey) -> bool:
        """Whether a key of another name is the same one; one that cannot be read is no other's twin."""
        try:
            return self.find_key(name).public_key == key.public_key
        except KeyRefused:
            return False

    def _keep_previous(self, name: str) -> tuple[str | None, tuple[str, ...]]:
        """The old key stays published, unless it is lost: then nothing can be, and it must not stop the new one."""
        try:
            self.find_key(name)
        except KeyRefused as refused:
            return None, (f"The old key is not published any more, since it cannot be used: {refused.detail}.",)
        return name, ()

    def _list_unverified(self, slug: str, partners: Sequence[Partner], key: SigningKey) -> tuple[str, ...]:
        last = self.rehearsals.list_last(slug, key.fingerprint_sha256)
        accepted = {partner for partner, rehearsal in last.items() if rehearsal.step == "accepted"}
        return tuple(f"{slug}/{one.slug}" for one in partners if one.slug not in accepted)

    # The board

    def build_board(self, slug: str) -> Board:
        """The keys of a biller, and the partners that accepted the next one.

        Raises BillerUnknown.
        """
        biller, revision = self.registry.load_in_force(slug)
        names = biller.idp.keys
        uses: tuple[tuple[KeyUse, str | None], ...] = (
            ("current", names.current),
            ("next", names.next),
            ("previous", names.previous),
        )
        keys = tuple(self._look_at(use, name) for use, name in uses if name is not None)
        fingerprint = next((one.key.fingerprint_sha256 for one in keys if one.use == "next" and one.key), None)
        last = self.rehearsals.list_last(slug, fingerprint) if fingerprint else {}
        partners = tuple(
            PartnerState(one.slug, one.name, one.saml.signing_key, last.get(one.slug)) for one in biller.saml_partners
        )
        return Board(slug, biller.name, revision, keys, partners)

    def _look_at(self, use: KeyUse, name: str) -> KeyState:
        try:
            return KeyState(use, name, self.find_key(name))
        except KeyRefused as refused:
            return KeyState(use, name, None, refused.detail)


def merge_changes(changes: Sequence[Change]) -> Change:
    """Several steps as one that is published for all their billers or for none."""
    return Change(
        publications=tuple(one for change in changes for one in change.publications),
        comment=changes[0].comment if len(changes) == 1 else " ".join(changes[0].comment.split()[:2]),
        unverified=tuple(one for change in changes for one in change.unverified),
        early=tuple(one for change in changes for one in change.early),
        notes=tuple(dict.fromkeys(one for change in changes for one in change.notes)),
    )


def _change(biller: Biller, revision: int, names: KeyNames) -> Publication:
    idp: Idp = replace(biller.idp, keys=names)
    return Publication(replace(biller, idp=idp), revision)


def _sign_with(biller: Biller, chosen: Sequence[Partner], use: Literal["current", "next"], key: SigningKey) -> Biller:
    """The biller with `key` signing for these partners, by the algorithm of the same hash that fits it."""

    def move(partner: Partner) -> Partner:
        if partner not in chosen:
            return partner
        algorithm = fit_algorithm(partner.saml.signature_algorithm, key.kind)
        return replace(partner, settings=replace(partner.saml, signing_key=use, signature_algorithm=algorithm))

    return replace(biller, partners=tuple(map(move, biller.partners)))


def _refuse_demotion(slug: str, partners: Sequence[str], names: KeyNames) -> RolloverRefused:
    """None of the partners signs with the next key; after a whole promotion there is no way back for one of them."""
    fix = ""
    if names.previous is not None:
        fix = (
            f"{names.current!r} signs for all since the promotion: 'keys demote {slug}' takes it back for all, and "
            f"'keys promote {slug} PARTNERS' lets it sign again for those that accept it."
        )
    return refuse("nothing-to-demote", f"{slug} signs for {', '.join(partners)} with the current key already", fix)


def _refuse_previous(slug: str, name: str) -> RolloverRefused:
    message = f"the rollover from {name!r} is not finished: it is still published"
    fix = f"Run 'saml-bridge keys retire {slug}' when no partner needs it any more."
    finding = make_finding("rollover-under-way", message, fix, where=slug)
    return RolloverRefused(message, code=finding.code, findings=(finding,))


def _refuse_any(findings: Sequence[Finding]) -> None:
    if findings:
        message = "; ".join(f"{one.where}: {one.message}" for one in findings)
        raise RolloverRefused(message, code=findings[0].code, findings=findings)
