"""How far a logout has come: one small state machine, as values.

Owns: the states of each partner in a logout, which event leads where, what the whole comes to, and the form in which it
is kept between two requests. Does not own: what causes an event (`sign_out.py`), and where it is kept (`exchanges.py`).

Each partner goes through these states; an event that the table does not have changes nothing.

| state | event | becomes |
| --- | --- | --- |
| waiting | asked: the request went out | asked |
| waiting | handed_on: its server failed, with a code, and the browser can go there, too | waiting |
| waiting | failed: it could not go out, with a code | failed |
| asked | asked: the page was loaded anew, and the same request goes out once more | asked |
| asked | answered: the partner has ended the session | done |
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


class Step(StrEnum):
    """The state of one partner."""

    WAITING = "waiting"
    ASKED = "asked"
    DONE = "done"
    FAILED = "failed"


class Portal(StrEnum):
    """What became of telling the portal. NONE: it asked itself, or has no callback."""

    NONE = "none"
    TOLD = "told"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Leg:
    """One request to one partner: it names the sessions to end there, which are the `rows` of our memory.

    `code` says why it failed, `server_code` why its server did, where the browser was next. `silent`: nothing answers
    what the browser takes there. `name_id` names a payer: it must not be logged.
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

    @property
    def is_final(self) -> bool:
        return self.step in (Step.DONE, Step.FAILED)


@dataclass(frozen=True, slots=True)
class Asker:
    """The partner's request that began the logout, as far as its answer needs it.

    `return_to` is where a relying party wants the browser back, with `relay_state` as its state; SAML's place is in the
    metadata.
    """

    partner: str
    request_id: str
    binding: str
    relay_state: str | None
    return_to: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """A logout as a whole. `payer` is the audit trail's pseudonym; `asker` is None when the portal asked."""

    trace_id: str
    payer: str | None
    asker: Asker | None
    legs: tuple[Leg, ...]
    portal: Portal = Portal.NONE
    ended: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether no partner is left to ask or to wait for."""
        return all(leg.is_final for leg in self.legs)

    @property
    def is_complete(self) -> bool:
        """Whether every session that is known of was ended."""
        return self.portal is not Portal.FAILED and all(leg.step is Step.DONE for leg in self.legs)

    @property
    def has_failures(self) -> bool:
        """Whether somebody who could have confirmed the end of a session did not."""
        return self.portal is Portal.FAILED or any(
            leg.step is not Step.DONE and leg.code != UNCONFIRMED for leg in self.legs
        )

    def find_leg(self, request_id: str) -> Leg | None:
        """The partner that was sent this request."""
        return next((leg for leg in self.legs if leg.request_id == request_id), None)

    def asked(self, request_id: str) -> Progress:
        """After the request went out."""
        return self._change(request_id, Step.ASKED, "", from_=(Step.WAITING,))

    def answered(self, request_id: str) -> Progress:
        """After the partner said that it has ended the session."""
        return self._change(request_id, Step.DONE, "", from_=(Step.ASKED,))

    def handed_on(self, request_id: str, code: str) -> Progress:
        """After the partner's server failed, where the browser can go there, too."""
        return self._change(request_id, Step.WAITING, "", from_=(Step.WAITING,), server_code=code)

    def failed(self, request_id: str, code: str) -> Progress:
        """After it turned out that this partner will not."""
        return self._change(request_id, Step.FAILED, code, from_=(Step.WAITING, Step.ASKED))

    def end(self) -> Progress:
        """After the last moment: what is still open has failed."""
        closed = self
        for leg in self.legs:
            asked = UNCONFIRMED if leg.silent else NO_ANSWER
            closed = closed.failed(leg.request_id, NOT_ASKED if leg.step is Step.WAITING else asked)
        return replace(closed, ended=True)

    def _change(
        self, request_id: str, step: Step, code: str, *, from_: tuple[Step, ...], server_code: str | None = None
    ) -> Progress:
        if self.ended:
            return self
        legs = tuple(
            replace(leg, step=step, code=code, server_code=leg.server_code if server_code is None else server_code)
            if leg.request_id == request_id and leg.step in from_
            else leg
            for leg in self.legs
        )
        return replace(self, legs=legs)

    def describe(self) -> str:
        """Who was reached and who not, for the audit trail: slugs and codes alone."""
        words = [f"portal: {self.portal}"] if self.portal is not Portal.NONE else []
        return ", ".join((*words, *map(_describe_leg, self.legs)))

    def to_json(self) -> Any:
        """A JSON value that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Progress:
        """What `to_json` made."""
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
        asker = value["asker"] and Asker(**value["asker"])
        return cls(**{**value, "legs": legs, "asker": asker, "portal": Portal(value["portal"])})


def _describe_leg(leg: Leg) -> str:
    codes = ", ".join(filter(None, (leg.server_code, leg.code)))
    return f"{leg.partner}: {leg.step} ({codes})" if codes else f"{leg.partner}: {leg.step}"
