"""Logouts that relying parties ask for: which requests count, what is ended at once, and what only after a question."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saml_bridge.flows.logout.channel import GoTo
from saml_bridge.flows.logout.end_session import Question, RpInitiatedLogout
from saml_bridge.flows.logout.outcomes import SignedOut, Watch
from saml_bridge.model.document import OidcSettings
from saml_bridge.model.errors import ClientRefused, LogoutRefused, SourceUnavailable
from saml_bridge.model.values import Credentials, PortalSession
from saml_bridge.portal.file_source import FileSource
from saml_bridge.protocols.oidc.logout_request import Judged, build_return_url, judge_end_session, read_end_session
from saml_bridge.storage.audit import Kind
from tests.relying_party import CLIENT_KEYS, encode, sign
from tests.sign_outs import (
    REDIRECT,
    TRACE,
    Town,
    build_town,
    close_town,
    make_response,
    read_token_form,
    read_url,
    serve,
)
from tests.signing_out_parties import (
    EVENT,
    ISSUER,
    add_parties,
    grant_token,
    is_good,
    list_records,
    make_hint,
    read_logout_token,
    remember_party,
)
from tests.world import BASE_URL, BILLER, KEYS

OUT = "https://iedr.example/signed-out"
OTHER = "lakeside-power"
SECRET = b"test-only-secret-" * 3

OpenTown = Callable[..., Town]


def accept(_path: str, _body: bytes) -> tuple[int, str, bytes]:
    return 200, "text/plain", b""


@pytest.fixture
def open_town(tmp_path: Path, database_url: str) -> Iterator[OpenTown]:
    """Makes an installation with `iedr`, who may come back to OUT, and further relying parties."""
    towns: list[Town] = []

    def open_one(callback: str | None = None, iedr: dict[str, Any] | None = None, **parties: dict[str, Any]) -> Town:
        front = [(REDIRECT, "https://aquahawk.example.com/slo")]
        towns.append(build_town(tmp_path, database_url, callback=callback, aquahawk=front))
        add_parties(towns[-1], iedr={"post_logout_redirect_uris": [OUT], **(iedr or {})}, **parties)
        return towns[-1]

    yield open_one
    for town in towns:
        close_town(town)


@pytest.fixture
def town(open_town: OpenTown) -> Town:
    """The payer opened `iedr` alone."""
    made = open_town()
    remember_party(made, "iedr")
    return made


ABSENT = FileSource(KEYS / "no-such-file")
"""Nobody is signed in."""


class Down:
    def find_session(self, credentials: Credentials, *, now: datetime) -> PortalSession:
        raise SourceUnavailable("the portal is down")


def sign_in(town: Town, sid: str = "S-1", **changes: Any) -> FileSource:
    """The session source of a browser that is signed in."""
    path = town.world.folder / f"session-{sid}.json"
    path.write_text(json.dumps(town.world.session(sid=sid, **changes)))
    return FileSource(path)


def ask(town: Town, source: Any = None, *, biller: str = BILLER, **parameters: str) -> Any:
    """A relying party's request, as the browser brings it."""
    encoded = urlencode(parameters).encode()
    return RpInitiatedLogout(town.sign_out, secret=SECRET).receive(
        biller, lambda: read_end_session(encoded), Credentials(), source or ABSENT, trace_id=TRACE
    )


def confirm(town: Town, question: Question, source: Any = None, *, biller: str = BILLER) -> Any:
    return RpInitiatedLogout(town.sign_out, secret=SECRET).confirm(
        biller, question.token, Credentials(), source or ABSENT, trace_id=TRACE
    )


def judge(town: Town, **parameters: str) -> Judged:
    snapshot = town.world.bridge.registry.find_current(BILLER)
    return judge_end_session(
        read_end_session(urlencode(parameters).encode()),
        biller=snapshot.biller,
        issuer=ISSUER,
        keys=snapshot.find_token_keys(),
    )


def refuse_hint(town: Town, hint: str, code: str) -> None:
    """The token ends nothing and opens no way back; the payer is asked, and it is recorded."""
    outcome = ask(town, sign_in(town), id_token_hint=hint, post_logout_redirect_uri=OUT)
    assert isinstance(outcome, Question)
    assert outcome.origins == ()
    assert town.list_open() == ["iedr"]
    assert [one.code for one in list_records(town, Kind.LOGOUT_REFUSED)] == [code]
    end = confirm(town, outcome, sign_in(town))
    assert isinstance(end, SignedOut)
    assert end.onward is None


# With an ID token of ours


@pytest.mark.both_databases("logout")
def test_p17_rp_initiated_2_and_3_a_hint_signs_out_and_the_state_goes_back(town: Town) -> None:
    outcome = ask(town, sign_in(town), id_token_hint=make_hint(town, "iedr"), post_logout_redirect_uri=OUT, state="a&b")
    assert outcome == GoTo(f"{OUT}?state=a%26b")
    assert not town.list_open()
    [record] = list_records(town)
    assert (record.partner, record.code, record.detail, record.trace_id) == ("iedr", "", "", TRACE)
    assert record.payer == town.world.bridge.audit.hide_payer(BILLER, "P-1001")


def test_rp_initiated_2_everybody_else_is_told_and_the_asking_party_is_not(open_town: OpenTown) -> None:
    with serve(accept) as portal, serve(accept) as asking, serve(accept) as other:
        town = open_town(
            f"{portal.url}/ended",
            iedr={"backchannel_logout_uri": f"{asking.url}/out"},
            other={"backchannel_logout_uri": f"{other.url}/out"},
        )
        for slug in ("iedr", "other"):
            remember_party(town, slug)
        town.remember("aquahawk")
        token = grant_token(town, "other")
        outcome = ask(town, id_token_hint=make_hint(town, "iedr"), post_logout_redirect_uri=OUT, state="s")
        assert isinstance(outcome, Watch)
        assert not asking.seen
        assert read_logout_token(town, other.seen[0][1], client_id="other:1")["sid"] == "sid-at-other"
        assert len(portal.seen) == 1
        assert read_token_form(portal.seen[0][1]).count(".") == 2
    assert not is_good(town, token)
    assert town.list_open() == ["aquahawk"]
    asked = town.sign_out.ask_partner(BILLER, outcome.token, 1)
    assert isinstance(asked, GoTo)
    sent = read_url(asked.url)
    town.receive("SAMLResponse", make_response("aquahawk", sent.id))
    assert town.sign_out.finish(BILLER, outcome.token) == GoTo(f"{OUT}?state=s")
    assert town.sign_out.finish(BILLER, outcome.token) == GoTo(f"{OUT}?state=s")
    [record] = list_records(town)
    assert (record.partner, record.code) == ("iedr", "")
    assert record.detail == "portal: told, other: done, aquahawk: done"


def test_l8_failures_are_read_by_the_payer_before_the_way_back(open_town: OpenTown) -> None:
    town = open_town()
    remember_party(town, "iedr")
    town.remember("aquahawk")
    watch = ask(town, id_token_hint=make_hint(town, "iedr"), post_logout_redirect_uri=OUT, state="s")
    end = town.sign_out.finish(BILLER, watch.token)
    assert isinstance(end, SignedOut)
    assert end.onward is not None
    assert (end.onward.url, end.onward.partner_name) == (f"{OUT}?state=s", "Iedr")


def test_frames_that_cannot_answer_do_not_keep_the_payer_here(open_town: OpenTown) -> None:
    town = open_town(other={"frontchannel_logout_uri": "https://other.example/out"})
    for slug in ("iedr", "other"):
        remember_party(town, slug)
    watch = ask(town, id_token_hint=make_hint(town, "iedr"), post_logout_redirect_uri=OUT)
    town.sign_out.ask_partner(BILLER, watch.token, 0)
    assert town.sign_out.finish(BILLER, watch.token) == GoTo(OUT)
    assert [one.code for one in list_records(town)] == ["partial-logout"]


def test_rp_initiated_3_without_a_way_back_the_payer_stays_here(town: Town) -> None:
    outcome = ask(town, sign_in(town), id_token_hint=make_hint(town, "iedr"))
    assert isinstance(outcome, SignedOut)
    assert outcome.progress is not None
    assert not town.list_open()


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/",
        f"{OUT}/",
        f"{OUT}?x=1",
        f"{OUT}#x",
        OUT.upper(),
        "https://iedr.example/%73igned-out",
        "https://iedr.example/cb",
        "javascript:alert(1)",
    ],
)
def test_p17_rp_initiated_3_an_address_that_is_not_registered_leads_nowhere(town: Town, uri: str) -> None:
    outcome = ask(town, sign_in(town), id_token_hint=make_hint(town, "iedr"), post_logout_redirect_uri=uri, state="s")
    assert isinstance(outcome, SignedOut)
    assert outcome.onward is None
    assert not town.list_open()
    [record] = list_records(town, Kind.LOGOUT_REFUSED)
    assert (record.code, record.partner) == ("return-unregistered", "iedr")


def test_p17_another_party_s_address_leads_nowhere(open_town: OpenTown) -> None:
    town = open_town(other={"post_logout_redirect_uris": ["https://other.example/out"]})
    remember_party(town, "iedr")
    hint = make_hint(town, "iedr")
    outcome = ask(town, id_token_hint=hint, post_logout_redirect_uri="https://other.example/out")
    assert isinstance(outcome, SignedOut)


def test_p17_an_address_that_was_taken_back_since_leads_nowhere(open_town: OpenTown) -> None:
    town = open_town()
    remember_party(town, "iedr")
    town.remember("aquahawk")
    watch = ask(town, id_token_hint=make_hint(town, "iedr"), post_logout_redirect_uri=OUT)
    town.world.biller["partners"][-1]["oidc"]["post_logout_redirect_uris"] = ["https://iedr.example/other"]
    town.world.publish()
    end = town.sign_out.finish(BILLER, watch.token)
    assert isinstance(end, SignedOut)
    assert end.onward is None


def test_rp_initiated_4_a_hint_may_be_over_and_may_be_signed_by_any_key_of_ours(open_town: OpenTown) -> None:
    town = open_town(other={"key": "tokens-ec", "id_token_algorithm": "ES256"})
    for key in ("tokens", "tokens-ec"):
        remember_party(town, "iedr")
        hint = make_hint(town, "iedr", key=key, exp=1, iat=0)
        assert ask(town, id_token_hint=hint, post_logout_redirect_uri=OUT) == GoTo(OUT)
        assert not town.list_open()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": f"{BASE_URL}/oidc/{OTHER}"}, "token-issuer"),
        ({"iss": "https://evil.example"}, "token-issuer"),
        ({"aud": "nobody"}, "hint-audience"),
        ({"aud": ["iedr:1", "other"]}, "hint-audience"),
        ({"aud": None}, "hint-audience"),
        ({"sub": None}, "hint-claims"),
        ({"sid": None}, "hint-claims"),
        ({"sid": ["sid-at-iedr"]}, "hint-claims"),
        ({"exp": None}, "hint-claims"),
        ({"auth_time": None}, "hint-claims"),
        ({"events": {EVENT: {}}}, "hint-claims"),
        ({"token_use": None}, "hint-claims"),
        ({"token_use": "access"}, "hint-claims"),
    ],
)
def test_p17_rp_initiated_4_a_token_that_is_no_id_token_of_this_party_ends_nothing(
    town: Town, changes: dict[str, Any], code: str
) -> None:
    refuse_hint(town, make_hint(town, "iedr", **changes), code)


@pytest.mark.parametrize("typ", [None, "one-way+jwt", "logout+jwt", "JOSE"])
def test_k11_p17_a_token_of_another_type_is_no_id_token(town: Town, typ: str | None) -> None:
    """Whatever it says: it is signed by us, with all the claims of an ID token."""
    refuse_hint(town, make_hint(town, "iedr", typ=typ), "token-header")


def test_p17_p26_a_logout_token_is_no_hint(town: Town) -> None:
    refuse_hint(town, make_hint(town, "iedr", typ="logout+jwt"), "token-header")


def read_parts(hint: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token."""
    header, claims, _ = (part + "=" * (-len(part) % 4) for part in hint.split("."))
    return json.loads(base64.urlsafe_b64decode(header)), json.loads(base64.urlsafe_b64decode(claims))


def test_p9_p17_the_algorithm_is_never_the_header_s(town: Town) -> None:
    header, claims = read_parts(make_hint(town, "iedr"))
    public = (town.world.folder / "certs" / "tokens.cert.pem").read_bytes()
    signed = f"{encode({**header, 'alg': 'HS256'})}.{encode(claims)}"
    forged = f"{signed}.{encode(hmac.digest(public, signed.encode(), 'sha256'))}"
    unsigned = f"{encode({**header, 'alg': 'none'})}.{encode(claims)}."
    for hint in (forged, unsigned):
        judged = judge(town, id_token_hint=hint)
        assert judged.fault is not None
        assert judged.fault.code == "token-header"
        assert (judged.partner, judged.sid) == (None, None)


def test_p17_a_key_of_another_ends_nothing(town: Town) -> None:
    header, claims = read_parts(make_hint(town, "iedr"))
    refuse_hint(town, sign(header, claims, CLIENT_KEYS["RS256"]), "token-signature")


@pytest.mark.parametrize("client_id", ["other:1", "nobody"])
def test_rp_initiated_2_the_client_id_must_be_the_hint_s(open_town: OpenTown, client_id: str) -> None:
    town = open_town(other={"post_logout_redirect_uris": ["https://other.example/out"]})
    remember_party(town, "iedr")
    hint = make_hint(town, "iedr")
    outcome = ask(town, sign_in(town), id_token_hint=hint, client_id=client_id, post_logout_redirect_uri=OUT)
    assert isinstance(outcome, Question)
    assert outcome.origins == ()
    assert [one.code for one in list_records(town, Kind.LOGOUT_REFUSED)] == ["client-mismatch"]
    assert town.list_open() == ["iedr"]
    agreed = ask(town, id_token_hint=hint, client_id="iedr:1", post_logout_redirect_uri=OUT)
    assert agreed == GoTo(OUT)


def test_g1_a_hint_of_one_biller_ends_nothing_at_another(town: Town) -> None:
    other = json.loads(json.dumps(town.world.biller))
    town.world.document["billers"].append({**other, "slug": OTHER, "name": "Lakeside Power"})
    town.world.publish()
    remember_party(town, "iedr", biller=OTHER)
    outcome = ask(town, biller=OTHER, id_token_hint=make_hint(town, "iedr"), post_logout_redirect_uri=OUT)
    assert isinstance(outcome, Question)
    assert town.list_open() == town.list_open(biller=OTHER) == ["iedr"]
    with pytest.raises(LogoutRefused):
        confirm(town, outcome)


# Whose session


def test_rp_initiated_2_another_session_in_the_browser_is_asked_about(town: Town) -> None:
    hint = make_hint(town, "iedr")
    outcome = ask(town, sign_in(town, "S-2"), id_token_hint=hint, post_logout_redirect_uri=OUT)
    assert isinstance(outcome, Question)
    assert outcome.origins == ("https://iedr.example",)
    assert town.list_open() == ["iedr"]
    remember_party(town, "iedr", sid="S-2", session_index="another")
    assert confirm(town, outcome, sign_in(town, "S-2")) == GoTo(OUT)
    assert (town.list_open(), town.list_open(sid="S-2")) == (["iedr"], [])


@pytest.mark.parametrize("source", [ABSENT, Down()])
def test_rp_initiated_2_a_browser_that_shows_no_session_proves_nothing_against_the_hint(
    town: Town, source: Any
) -> None:
    assert ask(town, source, id_token_hint=make_hint(town, "iedr"), post_logout_redirect_uri=OUT) == GoTo(OUT)
    assert not town.list_open()


def test_rp_initiated_2_a_session_that_is_over_needs_no_question(town: Town) -> None:
    ask(town, id_token_hint=make_hint(town, "iedr"), post_logout_redirect_uri=OUT)
    again = ask(town, id_token_hint=make_hint(town, "iedr"), post_logout_redirect_uri=OUT, state="s")
    assert again == GoTo(f"{OUT}?state=s")
    assert len(list_records(town)) == 1


def test_rp_initiated_2_the_same_hint_returns_at_once_from_a_browser_that_still_has_the_portals_cookie(
    town: Town,
) -> None:
    """A portal whose sessions are signed tokens has a browser that shows the ended one until its `exp`."""
    source, hint = sign_in(town), make_hint(town, "iedr")
    for _ in range(2):
        assert ask(town, source, id_token_hint=hint, post_logout_redirect_uri=OUT, state="s") == GoTo(f"{OUT}?state=s")
    assert [one.code for one in list_records(town)] == [""]
    question = ask(town, source, client_id="iedr:1", post_logout_redirect_uri=OUT)
    assert isinstance(question, Question)
    assert confirm(town, question, source) == GoTo(OUT)


def test_a_session_that_is_over_and_another_in_the_browser_is_asked_about(town: Town) -> None:
    ask(town, id_token_hint=make_hint(town, "iedr"), post_logout_redirect_uri=OUT)
    assert isinstance(
        ask(town, sign_in(town, "S-2"), id_token_hint=make_hint(town, "iedr"), post_logout_redirect_uri=OUT), Question
    )
    assert isinstance(ask(town, id_token_hint=make_hint(town, "iedr")), Question)


@pytest.mark.parametrize("changes", [{"sub": "sub-of-another"}, {"sid": "sid-at-other"}])
def test_l3_a_hint_names_one_session_of_one_subject(town: Town, changes: dict[str, str]) -> None:
    remember_party(town, "other", session_index="sid-at-other")
    hint = make_hint(town, "iedr", **changes)
    assert isinstance(ask(town, sign_in(town), id_token_hint=hint, post_logout_redirect_uri=OUT), Question)
    assert town.list_open() == ["iedr", "other"]


# Without one


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"client_id": "iedr:1"},
        {"client_id": "iedr:1", "post_logout_redirect_uri": OUT},
        {"client_id": "nobody", "post_logout_redirect_uri": OUT},
        {"post_logout_redirect_uri": OUT},
        {"logout_hint": "P-1001", "client_id": "iedr:1"},
    ],
)
def test_l7_rp_initiated_2_without_a_hint_the_payer_is_asked(town: Town, parameters: dict[str, str]) -> None:
    for source in (sign_in(town), ABSENT, Down()):
        assert isinstance(ask(town, source, **parameters), Question)
    assert town.list_open() == ["iedr"]
    assert not list_records(town)


def test_p17_after_the_question_a_client_that_is_known_gets_the_payer_back(open_town: OpenTown) -> None:
    """Nothing proves that it asked, so it is told like the others."""
    with serve(accept) as server:
        town = open_town(iedr={"backchannel_logout_uri": f"{server.url}/out"})
        remember_party(town, "iedr")
        question = ask(town, client_id="iedr:1", post_logout_redirect_uri=OUT, state="s")
        assert confirm(town, question, sign_in(town)) == GoTo(f"{OUT}?state=s")
        assert read_logout_token(town, server.seen[0][1], client_id="iedr:1")["sid"] == "sid-at-iedr"
    assert not town.list_open()
    [record] = list_records(town)
    assert (record.partner, record.detail) == ("iedr", "iedr: done")


def test_p17_without_a_client_there_is_no_way_back(town: Town) -> None:
    question = ask(town, post_logout_redirect_uri=OUT)
    assert [one.code for one in list_records(town, Kind.LOGOUT_REFUSED)] == ["return-unproved"]
    assert isinstance(confirm(town, question, sign_in(town)), SignedOut)
    assert not town.list_open()


def test_a_yes_of_somebody_who_is_signed_out_goes_back_at_once(town: Town) -> None:
    assert confirm(town, ask(town, client_id="iedr:1", post_logout_redirect_uri=OUT)) == GoTo(OUT)
    alone = confirm(town, ask(town))
    assert isinstance(alone, SignedOut)
    assert alone.progress is None
    assert town.list_open() == ["iedr"]


def test_a_yes_while_the_portal_is_down_ends_nothing(town: Town) -> None:
    with pytest.raises(SourceUnavailable):
        confirm(town, ask(town, client_id="iedr:1"), Down())
    assert town.list_open() == ["iedr"]


def test_l7_a_yes_counts_for_its_question_alone(town: Town) -> None:
    question = ask(town)
    for token in ("", "x", question.token[:-4] + "AAAA", "ä"):
        with pytest.raises(LogoutRefused) as caught:
            confirm(town, replace(question, token=token), sign_in(town))
        assert caught.value.code == "logout-question"
    object.__setattr__(town.sign_out, "clock", lambda: datetime.now(UTC) + timedelta(minutes=16))
    with pytest.raises(LogoutRefused):
        confirm(town, question, sign_in(town))
    assert town.list_open() == ["iedr"]
    assert {one.code for one in list_records(town, Kind.LOGOUT_REFUSED)} == {"logout-question"}


# The parameters


@pytest.mark.parametrize("name", ["id_token_hint", "client_id", "post_logout_redirect_uri", "state"])
def test_p13_a_parameter_that_is_there_twice_is_none(name: str) -> None:
    with pytest.raises(ClientRefused) as caught:
        read_end_session(f"{name}=a&{name}=a".encode())
    assert caught.value.code == "parameter-twice"


@pytest.mark.parametrize("state", ["s\r\nSet-Cookie: x=1", "\x00", "s" * 4097])
def test_p17_a_state_that_cannot_go_back_takes_the_way_back(town: Town, state: str) -> None:
    judged = judge(town, client_id="iedr:1", post_logout_redirect_uri=OUT, state=state)
    assert judged.fault is not None
    assert (judged.fault.code, judged.return_to, judged.state) == ("state-form", None, None)


def test_rp_initiated_3_the_state_is_added_to_what_the_address_has() -> None:
    uris = ("https://iedr.example/out?tenant=1", "https://iedr.example/out?")
    settings = OidcSettings("iedr:1", (), post_logout_redirect_uris=uris)
    assert build_return_url(settings, uris[0], "s") == "https://iedr.example/out?tenant=1&state=s"
    assert build_return_url(settings, uris[1], "s") == "https://iedr.example/out?state=s"
    assert build_return_url(settings, uris[0], None) == uris[0]
    assert build_return_url(settings, "https://iedr.example/out", "s") is None
    assert build_return_url(settings, None, "s") is None


SETTINGS = OidcSettings("iedr:1", ("https://iedr.example/cb",), post_logout_redirect_uris=(OUT,))


@given(
    st.one_of(st.text(), st.sampled_from([OUT, f"{OUT}/", "https://iedr.example/cb"])),
    st.one_of(st.none(), st.text(max_size=20)),
)
def test_p17_nothing_leads_to_what_is_not_registered(uri: str, state: str | None) -> None:
    url = build_return_url(SETTINGS, uri, state)
    assert url is None if uri != OUT else url is not None and url.partition("?")[0] == OUT
