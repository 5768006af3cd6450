"""What every session source must do, whatever it is made of.

To add a source, write a harness of the shape of `Harness` and run every check with it:

    @pytest.fixture
    def harness(...) -> MyHarness: ...

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_source_conforms(check: Check, harness: MyHarness) -> None:
        check(harness)

`present(document)` arranges that the portal would answer with exactly this document, all else being in order (signed by
the right key, meant for us...), and returns the source with the credentials that ask for it. Where one source can serve
several payers it must be the same source each time, so that the check with two payers can find them swapped.
`present_nobody()` is a request of somebody who is not signed in. All times are judged at `NOW`.

A source that makes its documents itself, and so can never be given a malformed one, runs `CHECKS_OF_VALID_SESSIONS`.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pytest
from structlog.testing import capture_logs

from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.errors import BridgeError, SessionAbsent
from saml_bridge.model.values import Credentials, PortalSession
from saml_bridge.portal.session_source import SessionSource

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Presented:
    """A source and the credentials of one request to it."""

    source: SessionSource
    credentials: Credentials

    def find_session(self, now: datetime = NOW) -> PortalSession:
        return self.source.find_session(self.credentials, now=now)


class Harness(Protocol):
    """How to put one source to the test; see the top of this module."""

    def present(self, document: object) -> Presented: ...

    def present_nobody(self) -> Presented: ...


Check = Callable[[Harness], None]


def make_document(**changes: Any) -> Document:
    """A session of one payer with one account, signed in an hour ago, with an hour to go."""
    document: Document = {
        "active": True,
        "sid": "S-81f3",
        "biller": "riverton-water",
        "auth_time": to_seconds(NOW - timedelta(hours=1)),
        "exp": to_seconds(NOW + timedelta(hours=1)),
        "amr": ["pwd"],
        "payer": {"id": "P-1001", "email": "ada@example.net", "given_name": "Ada", "family_name": "Lovelace"},
        "accounts": [
            {
                "number": "000123456",
                "type": "residential",
                "service_address": {"line1": "1 Main St", "city": "Riverton"},
                "service_points": [{"id": "SP-1", "meters": [{"id": "M-1", "kind": "water"}]}],
                "custom": {"ami_id": "A-9"},
            }
        ],
        "selected_account": "000123456",
        "impersonator": None,
    }
    return document | changes


def to_seconds(instant: datetime) -> int:
    return int(instant.timestamp())


def tells_everything_that_the_portal_says(harness: Harness) -> None:
    document = make_document()
    session = harness.present(document).find_session()
    assert session == PortalSession(
        sid="S-81f3",
        biller="riverton-water",
        auth_time=NOW - timedelta(hours=1),
        expires_at=NOW + timedelta(hours=1),
        payer=document["payer"],
        accounts=tuple(document["accounts"]),
        selected_account="000123456",
        impersonator=None,
        amr=("pwd",),
    )


def gives_the_same_answer_twice(harness: Harness) -> None:
    presented = harness.present(make_document())
    assert presented.find_session() == presented.find_session()


def has_a_short_fixed_name(harness: Harness) -> None:
    name = harness.present_nobody().source.name
    assert name
    assert name == name.strip().lower()
    assert name == harness.present(make_document()).source.name


def passes_over_names_that_it_does_not_know(harness: Harness) -> None:
    assert harness.present(make_document(theme="dark", exp_hint=7)).find_session().sid == "S-81f3"


def tells_who_is_impersonating(harness: Harness) -> None:
    assert harness.present(make_document(impersonator="agent-7")).find_session().impersonator == "agent-7"


def keeps_another_billers_session_the_other_billers(harness: Harness) -> None:
    """The source judges no biller: it must tell the session's own, so that the launch can refuse it."""
    assert harness.present(make_document(biller="other-water")).find_session().biller == "other-water"


def tells_several_accounts_and_guesses_no_selected_one(harness: Harness) -> None:
    accounts = [{"number": "1"}, {"number": "01"}]
    session = harness.present(make_document(accounts=accounts, selected_account=None)).find_session()
    assert [account["number"] for account in session.accounts] == ["1", "01"]
    assert session.selected_account is None


def keeps_hostile_text_as_it_is(harness: Harness) -> None:
    """Values are data: whoever writes them into XML, HTML or a log must refuse or escape them, not the source."""
    for text in HOSTILE_TEXTS:
        payer = {"id": text, "email": text, "custom": {"note": text}}
        session = harness.present(make_document(payer=payer, sid=text)).find_session()
        assert session.payer == payer
        assert session.sid == text


def finds_nobody_without_a_credential(harness: Harness) -> None:
    _refuses(harness.present_nobody(), SessionAbsent, "session-absent")


def ends_the_session_at_its_end(harness: Harness) -> None:
    presented = harness.present(make_document(exp=to_seconds(NOW)))
    assert presented.find_session(NOW - timedelta(seconds=1)).expires_at == NOW
    _refuses(presented, SessionAbsent, "session-expired")
    _refuses(presented, SessionAbsent, "session-expired", NOW + timedelta(days=400))


def two_payers_are_never_swapped(harness: Harness) -> None:
    """A thousand questions of two payers, from eight threads at once."""
    payers = {}
    for name in ("P-1001", "P-2002"):
        document = make_document(
            sid=f"S-{name}", payer={"id": name}, accounts=[{"number": name}], selected_account=None
        )
        payers[name] = harness.present(document)
    asked = ["P-1001", "P-2002"] * 500
    with ThreadPoolExecutor(8) as pool:
        sessions = list(pool.map(lambda name: payers[name].find_session(), asked))
    assert [session.payer["id"] for session in sessions] == asked
    assert [session.sid for session in sessions] == [f"S-{name}" for name in asked]
    assert [session.accounts[0]["number"] for session in sessions] == asked


def a_refusal_is_not_kept_for_the_next(harness: Harness) -> None:
    """What went wrong for one payer must not reach another, nor the other way round."""
    good = harness.present(make_document())
    assert good.find_session().sid == "S-81f3"
    _refuses(harness.present_nobody(), SessionAbsent, "session-absent")
    assert good.find_session().sid == "S-81f3"
    _refuses(harness.present(make_document(sid="S-old", exp=to_seconds(NOW))), SessionAbsent, "session-expired")
    assert good.find_session().sid == "S-81f3"


def an_inactive_session_is_no_session(harness: Harness) -> None:
    """Also where nothing else is said, as RFC 7662 section 2.2 recommends."""
    _refuses(harness.present(make_document(active=False)), SessionAbsent, "session-absent")
    _refuses(harness.present({"active": False}), SessionAbsent, "session-absent")


def refuses_documents_of_another_shape(harness: Harness) -> None:
    for name, document in _list_malformed():
        error = _refuses(harness.present(document), SessionMalformed, "session-malformed")
        assert error.detail, name


def refuses_a_sign_in_from_the_future(harness: Harness) -> None:
    near = make_document(auth_time=to_seconds(NOW + timedelta(seconds=20)))
    assert harness.present(near).find_session().sid == "S-81f3"
    far = make_document(auth_time=to_seconds(NOW + timedelta(minutes=5)))
    _refuses(harness.present(far), SessionMalformed, "session-malformed")


def _list_malformed() -> Iterator[tuple[str, object]]:
    yield from (("a list", []), ("text", "session"), ("nothing", None), ("a number", 7), ("an empty object", {}))
    for name in ("sid", "biller", "auth_time", "exp", "payer"):
        document = make_document()
        del document[name]
        yield f"without {name}", document
    for name, value in WRONG_VALUES:
        yield f"{name} is {value!r}", make_document(**{name: value})
    document = make_document()
    del document["payer"]["id"]
    yield "without payer.id", document
    document = make_document()
    document["accounts"].append(copy.deepcopy(document["accounts"][0]))
    yield "the same account twice", document


def _refuses(presented: Presented, expected: type[BridgeError], code: str, now: datetime = NOW) -> BridgeError:
    """The refusal, after a look that neither it nor the log says anything of the document's values."""
    with capture_logs() as logs, pytest.raises(expected) as caught:
        presented.find_session(now)
    assert caught.value.code == code
    said = f"{caught.value!r} {caught.value.detail} {logs!r} {''.join(traceback.format_exception(caught.value))}"
    credentials = (*presented.credentials.cookies.values(), presented.credentials.authorization or "")
    for value in (*SECRET_VALUES, *(one for one in credentials if one)):
        assert value not in said
    return caught.value


SECRET_VALUES = (
    "P-1001",
    "ada@example.net",
    "Lovelace",
    "000123456",
    "1 Main St",
    "M-1",
    "A-9",
    "S-81f3",
    "s3cr3t-value",
)

WRONG_VALUES: tuple[tuple[str, object], ...] = (
    ("active", "s3cr3t-value"),
    ("active", None),
    ("active", 0),
    ("sid", ""),
    ("sid", 81),
    ("biller", ["s3cr3t-value"]),
    ("auth_time", "s3cr3t-value"),
    ("auth_time", True),
    ("exp", "s3cr3t-value"),
    ("exp", None),
    ("exp", 10**30),
    ("amr", "s3cr3t-value"),
    ("payer", ["s3cr3t-value"]),
    ("payer", {"id": "P-1001", "email": {"s3cr3t-value": 1}}),
    ("payer", {"id": ""}),
    ("accounts", "s3cr3t-value"),
    ("accounts", [{"type": "s3cr3t-value"}]),
    ("accounts", [{"number": 123456}]),
    ("accounts", [{"number": "000123456", "service_points": {"id": "s3cr3t-value"}}]),
    ("selected_account", "s3cr3t-value"),
    ("impersonator", ["s3cr3t-value"]),
)

HOSTILE_TEXTS = (
    "<script>alert(1)</script>",
    "' OR 1=1 --",
    "{{7*7}} ${7*7} %s %(x)s",
    "line\r\nSet-Cookie: a=b",
    "nul\x00 escape\x1b[31m",
    "bidi\u202e\u2066 separator\u2028 nel\x85",
    "noncharacter \uffff, emoji \U0001f600, combining e\u0301",
    " spaces around ",
    "../../etc/passwd",
    "x" * 2000,
)

CHECKS_OF_VALID_SESSIONS: tuple[Check, ...] = (
    tells_everything_that_the_portal_says,
    gives_the_same_answer_twice,
    has_a_short_fixed_name,
    passes_over_names_that_it_does_not_know,
    tells_who_is_impersonating,
    keeps_another_billers_session_the_other_billers,
    tells_several_accounts_and_guesses_no_selected_one,
    keeps_hostile_text_as_it_is,
    finds_nobody_without_a_credential,
    ends_the_session_at_its_end,
    two_payers_are_never_swapped,
    a_refusal_is_not_kept_for_the_next,
)

CHECKS: tuple[Check, ...] = (
    *CHECKS_OF_VALID_SESSIONS,
    an_inactive_session_is_no_session,
    refuses_documents_of_another_shape,
    refuses_a_sign_in_from_the_future,
)
