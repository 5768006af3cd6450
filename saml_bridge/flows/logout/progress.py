"""How far a logout has come: one small state machine, as values.

Owns: the states of each partner in a logout, which event leads where, what the whole comes to, and the form in which it
is kept between two requests. Does not own: what causes an event (`server_calls`, `browser_steps`), and where it is kept
(`kept_logouts`). Called by every module of this room.

Each partner goes through these states; an event that the table does not have changes nothing.

| state | event | becomes |
| --- | --- | --- |
| waiting | sent: the request went out | asked |
| waiting | handed_on: its server failed, with a code, and the browser can go there, too | waiting, with a new ID |
| waiting | failed: it could not go out, with a code | failed |
| asked | sent: the page was loaded again, and the same request goes out once more | asked |
| asked | confirmed: the partner has ended the session | done |
| asked | failed: it answered otherwise, or cannot be reached, with a code | failed |
| waiting | ended: nobody waits any longer | failed, not-asked |
| asked | ended: nobody waits any longer | failed, no-answer; unconfirmed where no answer was to come |

done and failed are final. A partner that cannot answer is never done: that its page was opened does not say that a
session ended there. A logout that has ended changes no more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

NO_ANSWER = "no-answer"
UNCONFIRMED = "unconfirmed"
NOT_ASKED = "not-asked"
PARTNER_REFUSED = "partner-refused"
PARTNER_PARTIAL = "partner-partial"
ANSWER_REFUSED = "answer-refused"
NEEDS_BROWSER = "needs-browser"
NO_LOGOUT = "no-logout"
ANSWER_UNSIGNED = "answer-unsigned"
"""No failure: the answer counts, since TLS or the partner's setting vouches for it."""


class Step(StrEnum):
    """The state of one partner."""

    WAITING = "waiting"
    ASKED = "asked"
    DONE = "done"
    FAILED = "failed"


class Portal(StrEnum):
    """The state of the call to the portal.

    NONE: the portal asked itself, or has no callback.
    """

    NONE = "none"
    TOLD = "told"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class NotifyOutcome:
    """The outcome of notifying one partner, or the portal.

    `code` is empty for success. `reason` is the whole reason, or a note on a success: for the log and the audit trail
    alone.
    """

    code: str = ""
    reason: str = ""


NOTIFIED = NotifyOutcome()


@dataclass(frozen=True, slots=True)
class Leg:
    """One request to one partner, which names the sessions to end there.

    `rows` are the IDs of those sessions in our memory. `code` says why it failed, `server_code` why its server did,
    where the browser was next; `reason` and `server_reason` are as in `NotifyOutcome`. `silent`: nothing answers the
    browser's request there. `name_id` names a payer: it must not be logged.
    """

    partner: str
    name: str
    request_id: str
    name_id: str = field(repr=False)
    name_id_format: str
    session_indexes: tuple[str, ...]
    rows: tuple[int, ...]
    step: Step = Step.WAITING
    code: str = ""
    server_code: str = ""
    silent: bool = False
    reason: str = ""
    server_reason: str = ""

    @property
    def is_final(self) -> bool:
        return self.step in (Step.DONE, Step.FAILED)


@dataclass(frozen=True, slots=True)
class PartnerRequest:
    """The partner's request that began the logout, as far as its answer needs it.

    `partner` is its slug, `request_id` the message's ID, `binding` the way that the answer goes. `return_to` is where a
    relying party wants the browser back, with `relay_state` as its state; SAML's place is in the metadata.
    """

    partner: str
    request_id: str
    binding: str
    relay_state: str | None
    return_to: str | None = None


@dataclass(frozen=True, slots=True)
class StillOpen:
    """A partner, by slug and name, whose session nobody can end from outside."""

    partner: str
    name: str


@dataclass(frozen=True, slots=True)
class Progress:
    """A logout as a whole.

    `payer` is the audit trail's pseudonym. `partner_request` is missing when the portal asked.
    `portal_reason` says why the portal could not be told. `still_open` are partners without a way of signing out, which
    make no logout partial.
    """

    trace_id: str
    payer: str | None
    partner_request: PartnerRequest | None
    legs: tuple[Leg, ...]
    portal: Portal = Portal.NONE
    ended: bool = False
    portal_reason: str = ""
    still_open: tuple[StillOpen, ...] = ()

    @property
    def is_settled(self) -> bool:
        """Tells if every leg has come to its end."""
        return all(leg.is_final for leg in self.legs)

    @property
    def is_complete(self) -> bool:
        """Tells if every session that is known of was ended."""
        return self.portal is not Portal.FAILED and all(leg.step is Step.DONE for leg in self.legs)

    @property
    def has_failures(self) -> bool:
        """Tells if a confirmation is missing that could have come."""
        return self.portal is Portal.FAILED or any(
            leg.step is not Step.DONE and leg.code != UNCONFIRMED for leg in self.legs
        )

    def find_leg(self, request_id: str) -> Leg | None:
        """The partner that was sent this request."""
        return next((leg for leg in self.legs if leg.request_id == request_id), None)

    def sent(self, request_id: str) -> Progress:
        """After the request went out."""
        return self._change(request_id, (Step.WAITING,), step=Step.ASKED)

    def confirmed(self, request_id: str, note: str = "") -> Progress:
        """After the partner said that it has ended the session."""
        return self._change(request_id, (Step.ASKED,), step=Step.DONE, code="", reason=note)

    def answered(self, request_id: str, outcome: NotifyOutcome) -> Progress:
        """After the partner's answer: confirmed, or failed with the outcome's code."""
        return self.failed(request_id, outcome) if outcome.code else self.confirmed(request_id, outcome.reason)

    def handed_on(self, request_id: str, outcome: NotifyOutcome, *, next_id: str) -> Progress:
        """After the partner's server failed, where the browser can go there, too.

        The browser takes a request of an ID of its own: a partner that has seen one takes it for a replay.
        """
        why = {"server_code": outcome.code, "server_reason": outcome.reason}
        return self._change(request_id, (Step.WAITING,), request_id=next_id, **why)

    def failed(self, request_id: str, outcome: NotifyOutcome) -> Progress:
        """After it turned out that this partner will not."""
        why = {"code": outcome.code, "reason": outcome.reason}
        return self._change(request_id, (Step.WAITING, Step.ASKED), step=Step.FAILED, **why)

    def end(self) -> Progress:
        """After the last moment: what is still open has failed."""
        closed = self
        for leg in self.legs:
            unanswered = UNCONFIRMED if leg.silent else NO_ANSWER
            code = NOT_ASKED if leg.step is Step.WAITING else unanswered
            closed = closed.failed(leg.request_id, NotifyOutcome(code))
        return replace(closed, ended=True)

    def _change(self, request_id: str, from_: tuple[Step, ...], /, **changes: Any) -> Progress:
        if self.ended:
            return self
        legs = tuple(
            replace(leg, **changes) if leg.request_id == request_id and leg.step in from_ else leg for leg in self.legs
        )
        return replace(self, legs=legs)

    def describe(self) -> str:
        """The partners that were reached or missed, then the reasons, for the audit trail.

        Nothing of the payer stands in it.
        """
        words = [f"portal: {self.portal}"] if self.portal is not Portal.NONE else []
        still_open = (f"{one.partner}: open" for one in self.still_open)
        outline = ", ".join((*words, *map(_describe_leg, self.legs), *still_open))
        reasons = [("portal", self.portal_reason)]
        reasons += [(leg.partner, one) for leg in self.legs for one in (leg.server_reason, leg.reason)]
        told = dict.fromkeys(f"{who}: {why}" for who, why in reasons if why)
        return "; ".join((outline, *told))

    def to_json(self) -> Any:
        """A JSON value that `from_json` reads.

        Its names stay as they are: a logout that another version began goes on after an update.
        """
        state = asdict(self)
        state["asker"] = state.pop("partner_request")
        return state

    @classmethod
    def from_json(cls, value: Any) -> Progress:
        """The progress that `to_json` made a value of. Raises TypeError, KeyError, ValueError for another."""
        legs = tuple(
            Leg(
                **{
                    **leg,
                    "session_indexes": tuple(leg["session_indexes"]),
                    "rows": tuple(leg["rows"]),
                    "step": Step(leg["step"]),
                }
            )
            for leg in value["legs"]
        )
        asker = value["asker"]
        changed = {
            "legs": legs,
            "partner_request": None if asker is None else PartnerRequest(**asker),
            "portal": Portal(value["portal"]),
            "still_open": tuple(StillOpen(**one) for one in value.get("still_open", ())),
        }
        return cls(**{name: one for name, one in value.items() if name != "asker"} | changed)


def _describe_leg(leg: Leg) -> str:
    codes = ", ".join(filter(None, (leg.server_code, leg.code)))
    return f"{leg.partner}: {leg.step} ({codes})" if codes else f"{leg.partner}: {leg.step}"
