"""The authorization request: read, judged in the right order, and answered only where that is registered."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saml_bridge.mapping.fields import build_example, parse_session
from saml_bridge.model.comparisons import show
from saml_bridge.model.document import Biller, OidcSettings, Partner, Portal
from saml_bridge.model.errors import AuthorizationRefused, RequestRefused
from saml_bridge.model.values import FormPost, Redirect
from saml_bridge.protocols.interface import Hint
from saml_bridge.protocols.oidc.authorization_request import (
    LONGEST,
    AuthorizationRequest,
    RequestedClaims,
    add_query,
    check_still_registered,
    collect,
    find_client,
    find_place,
    parse_request,
    read_request,
)
from saml_bridge.protocols.oidc.pending_request import PendingOidcRequest

CALLBACK = "https://rp.example/cb"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
SETTINGS = OidcSettings(client_id="rp", redirect_uris=(CALLBACK, "https://rp.example/other?fixed=1"), secret="rp")
PUBLIC = OidcSettings(
    client_id="app",
    redirect_uris=("http://127.0.0.1/cb", "http://[::1]:4000/cb?x=1", "com.example.app:/cb"),
    client_auth="none",
)
BILLER = Biller(
    slug="riverton-water",
    name="Riverton Water",
    portal=Portal("https://pay.example/sign-in", "https://pay.example/"),
    partners=(Partner("rp", "RP", "oidc", SETTINGS), Partner("app", "App", "oidc", PUBLIC)),
)
WHOLE = {
    "response_type": "code",
    "client_id": "rp",
    "redirect_uri": CALLBACK,
    "scope": "openid email",
    "state": "af0ifjsldkj",
    "nonce": "n-0S6_WzA2Mj",
}


def judge(
    changes: dict[str, str | None] | None = None, *, settings: OidcSettings = SETTINGS, more: str = ""
) -> AuthorizationRequest:
    """The whole request with some parameters changed (None leaves one out) and `more` behind it."""
    asked = {name: value for name, value in {**WHOLE, **(changes or {})}.items() if value is not None}
    parameters = read_request((urlencode(asked) + more).encode())
    return parse_request(parameters, settings, find_place(parameters, settings))


TEXTS = {
    "nonce": "x",
    "state": "x",
    "scope": "x",
    "prompt": "x",
    "login_hint": "x",
    "id_token_hint": "x",
    "claims": "x",
}
"""Parameters of any text, each with a letter to make a long value of."""


def refused(changes: dict[str, str | None] | None = None, **more: Any) -> AuthorizationRefused:
    with pytest.raises(AuthorizationRefused) as caught:
        judge(changes, **more)
    return caught.value


# What is asked


def test_core_3_1_2_1_a_whole_request_is_read() -> None:
    asked = judge({"max_age": "600", "prompt": "login", "login_hint": "ada", "display": "touch", "ui_locales": "es en"})
    assert asked.place.redirect_uri == CALLBACK
    assert (asked.place.state, asked.nonce, asked.scope) == (WHOLE["state"], WHOLE["nonce"], ("openid", "email"))
    assert (asked.max_age, asked.prompt, asked.login_hint, asked.code_challenge) == (600, ("login",), "ada", None)


def test_rfc6749_3_1_a_parameter_without_a_value_is_as_if_it_were_left_out() -> None:
    assert judge({"nonce": "", "prompt": "", "max_age": "", "request": ""}).nonce is None


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "id_token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_type": "none"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"response_mode": "query.jwt"}, "invalid_request"),
    ],
)
def test_p22_only_codes_and_never_in_a_fragment(changes: dict[str, str | None], error: str) -> None:
    assert refused(changes).error == error


@pytest.mark.parametrize("scope", [None, "email", "profile email", 'openid "x"', "openid é", "openid\temail"])
def test_rfc6749_3_3_the_scope_has_openid_and_words(scope: str | None) -> None:
    assert refused({"scope": scope}).error == "invalid_scope"


def test_core_3_1_2_1_unknown_scopes_are_no_error() -> None:
    assert judge({"scope": "openid offline_access unheard-of"}).scope == ("openid", "offline_access", "unheard-of")


def test_p8_a_client_that_must_send_a_nonce_does() -> None:
    assert judge({"nonce": None}).nonce is None
    strict = replace(SETTINGS, require_nonce=True)
    assert refused({"nonce": None}, settings=strict).error == "invalid_request"
    assert judge(settings=strict).nonce == WHOLE["nonce"]


@pytest.mark.parametrize(
    ("challenge", "method"),
    [
        (CHALLENGE, "plain"),
        (CHALLENGE, None),
        (CHALLENGE, "s256"),
        (CHALLENGE, "S512"),
        (CHALLENGE[:-1], "S256"),
        (CHALLENGE + "A", "S256"),
        (CHALLENGE[:-1] + "=", "S256"),
        (CHALLENGE[:-1] + "+", "S256"),
        (CHALLENGE[:-1] + ".", "S256"),
        (None, "S256"),
    ],
)
def test_p6_rfc7636_4_3_only_s256_with_a_challenge_of_its_form(challenge: str | None, method: str | None) -> None:
    assert refused({"code_challenge": challenge, "code_challenge_method": method}).error == "invalid_request"


def test_p6_rfc7636_4_4_1_a_public_client_needs_a_challenge_and_others_may_have_one() -> None:
    public = {"client_id": "app", "redirect_uri": "com.example.app:/cb"}
    assert refused(public, settings=PUBLIC).error == "invalid_request"
    given = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}
    assert judge(public | given, settings=PUBLIC).code_challenge == CHALLENGE
    assert judge(given).code_challenge == CHALLENGE


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ("none login", "invalid_request"),
        ("login none", "invalid_request"),
        ("create", "invalid_request"),
        ("Login", "invalid_request"),
        ("consent", "consent_required"),
        ("login consent", "consent_required"),
    ],
)
def test_core_3_1_2_1_prompts_that_cannot_be_met(prompt: str, error: str) -> None:
    assert refused({"prompt": prompt}).error == error


@pytest.mark.parametrize("max_age", ["-1", "1.5", "x", "1e3", "99999999999", "٣"])
def test_core_3_1_2_1_max_age_is_a_number_of_seconds(max_age: str) -> None:
    assert refused({"max_age": max_age}).error == "invalid_request"


@pytest.mark.parametrize(
    ("parameter", "error"),
    [
        ("request=eyJhbGciOiJub25lIn0.e30.", "request_not_supported"),
        ("request_uri=http://127.0.0.1/request", "request_uri_not_supported"),
        ("request_uri=https://rp.example/request.jwt", "request_uri_not_supported"),
        ("registration={}", "registration_not_supported"),
    ],
)
def test_p12_request_objects_are_not_supported_and_never_fetched(parameter: str, error: str) -> None:
    """The module is pure (tests/test_layers.py): nothing in it could fetch."""
    assert refused(more=f"&{parameter}").error == error


# The claims parameter


def test_core_5_5_claims_name_what_is_wanted_where() -> None:
    asked = {
        "userinfo": {"email": None, "address": {"essential": True}, "https://x.example/a": {"value": 1}},
        "id_token": {"auth_time": {"essential": True}, "acr": {"essential": True, "values": ["a", "b"]}, "email": None},
        "other": {"ignored": True},
    }
    claims = judge({"claims": json.dumps(asked)}).claims
    assert claims.userinfo == ("email", "address", "https://x.example/a")
    assert claims.id_token == ("auth_time", "acr", "email")
    assert claims.acr == ("a", "b")
    assert claims.subject is None


@pytest.mark.parametrize("acr", [{"values": ["a"]}, {"essential": False, "value": "a"}, None, {"essential": True}])
def test_core_5_5_1_1_an_acr_that_is_not_essential_or_names_none_must_not_be_met(acr: Any) -> None:
    assert judge({"claims": json.dumps({"id_token": {"acr": acr}}), "acr_values": "z"}).claims.acr == ()


def test_core_3_1_2_1_a_subject_that_claims_name_is_the_only_one() -> None:
    assert judge({"claims": '{"id_token": {"sub": {"value": "248289761001"}}}'}).claims.subject == "248289761001"
    both = '{"id_token": {"sub": {"value": "1"}}, "userinfo": {"sub": {"value": "2"}}}'
    assert refused({"claims": both}).error == "invalid_request"


@pytest.mark.parametrize(
    "claims",
    [
        "[]",
        "null",
        "x",
        "{",
        '"text"',
        '{"userinfo": []}',
        '{"userinfo": {"email": true}}',
        '{"id_token": {"sub": {"value": {"a": 1}}}}',
        '{"id_token": {"sub": {"value": 7}}}',
        '{"id_token": {"acr": {"essential": true, "values": "a"}}}',
        '{"id_token": {"acr": {"essential": true, "values": [1]}}}',
        '{"userinfo": {"a": null, "a": null}}',
        '{"userinfo": {"a": {"b": [[[[1]]]]}}}',
        "[" * 7000,
        '{"a":' * 1500,
        json.dumps({"userinfo": {f"c{number}": None for number in range(201)}}),
        json.dumps({"userinfo": {"a" * 9000: None}}),
    ],
    ids=lambda text: text[:30],
)
def test_p13_core_5_5_claims_of_another_form_or_size_are_refused(claims: str) -> None:
    assert refused({"claims": claims}).error == "invalid_request"


# Who asks, and where the answer goes


@pytest.mark.parametrize(
    "uri",
    [
        None,
        "",
        "https://rp.example/cb/",
        "https://rp.example/cb/../x",
        "https://rp.example/c%62",
        "https://rp.example/cb%2e",
        "https://rp.example/CB",
        "https://RP.example/cb",
        "HTTPS://rp.example/cb",
        "https://rp.example:443/cb",
        "https://rp.example/cb?x",
        "https://rp.example/cb?",
        "https://rp.example/cb#",
        "https://rp.example/cb#x",
        "https://rp@evil.example/cb",
        "https://rp.example@evil.example/cb",
        "https://rpXexample/cb",
        "https://rp.example.evil.example/cb",
        "https://evil.example/https://rp.example/cb",
        "http://rp.example/cb",
        "//rp.example/cb",
        "/cb",
        " https://rp.example/cb",
        "https://rp.example/cb\n",
        "https://rp.example/cb ",
        "https://rp.example\\@evil.example/cb",
        "https://rp.example/other",
        "javascript:alert(1)//https://rp.example/cb",
        "data:text/html,x",
        "http://127.0.0.1:5000/cb",
    ],
)
def test_p1_p3_rfc9700_2_1_a_redirect_uri_that_differs_in_one_character_is_refused(uri: str | None) -> None:
    with pytest.raises(RequestRefused) as caught:
        judge({"redirect_uri": uri})
    assert caught.value.code == "redirect-uri-unregistered"
    assert "evil" not in caught.value.public_message
    if uri:
        assert f"received {show(uri)}, expected 'https://rp.example/" in caught.value.detail
    else:
        assert caught.value.detail == "redirect_uri: is missing"


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("http://127.0.0.1/cb", True),
        ("http://127.0.0.1:5000/cb", True),
        ("http://[::1]:61000/cb?x=1", True),
        ("http://[::1]/cb?x=1", True),
        ("http://127.0.0.1:5000/cb2", False),
        ("http://127.0.0.1:5000/cb?x=1", False),
        ("http://127.0.0.1:5000/cb#x", False),
        ("http://127.0.0.1:0/cb", False),
        ("http://127.0.0.1:65536/cb", False),
        ("http://127.0.0.1:/cb", False),
        ("http://127.0.0.1:5000:5001/cb", False),
        ("http://127.0.0.1:5000@evil.example/cb", False),
        ("http://127.0.0.1.evil.example:5000/cb", False),
        ("http://127.0.0.2:5000/cb", False),
        ("http://localhost:5000/cb", False),
        ("https://127.0.0.1:5000/cb", False),
        ("http://[::1]:4000/cb", False),
        ("http://127.0.0.1:٥٠/cb", False),
    ],
)
def test_p1_rfc8252_7_3_only_the_port_of_an_app_on_loopback_is_free(uri: str, allowed: bool) -> None:
    parameters = collect({"client_id": "app", "redirect_uri": uri}.items())
    if allowed:
        assert find_place(parameters, PUBLIC).redirect_uri == uri
    else:
        with pytest.raises(RequestRefused):
            find_place(parameters, PUBLIC)
    if uri != "http://127.0.0.1/cb":  # a client that has a secret is no app on the payer's machine
        with pytest.raises(RequestRefused):
            find_place(parameters, replace(PUBLIC, client_auth="client_secret_basic"))


@pytest.mark.parametrize("client_id", [None, "", "RP", "rp ", "unknown", "aquahawk"])
def test_p2_an_unknown_client_is_told_nothing(client_id: str | None) -> None:
    with pytest.raises(RequestRefused) as caught:
        find_client(collect([] if client_id is None else [("client_id", client_id)]), BILLER)
    assert caught.value.code == "client-unknown"


def test_rfc6749_4_1_2_1_a_partner_is_found_by_its_client_id_alone() -> None:
    partner, settings = find_client(collect([("client_id", "app")]), BILLER)
    assert (partner.slug, settings) == ("app", PUBLIC)


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_p13_rfc6749_3_1_a_parameter_that_is_there_twice_is_refused(name: str) -> None:
    more = f"&{urlencode({name: WHOLE[name]})}"
    parameters = read_request((urlencode(WHOLE) + more).encode())
    if name == "client_id":
        with pytest.raises(RequestRefused, match="client_id"):
            find_client(parameters, BILLER)
    elif name == "redirect_uri":
        with pytest.raises(RequestRefused, match="redirect_uri"):
            find_place(parameters, SETTINGS)
    else:
        assert refused(more=more).error == "invalid_request"
        assert find_place(parameters, SETTINGS).state == (None if name == "state" else WHOLE["state"])


def test_p13_also_an_unknown_parameter_and_one_without_a_value() -> None:
    assert refused(more="&x=1&x=2").code == "parameter-twice"
    assert refused(more="&state=").code == "parameter-twice"


@pytest.mark.parametrize(
    "query", [b"state=%ff", b"state=%", b"state=%4", b"state=\xc3\xa9", b"&".join([b"a=1"] * 65), b"a=" + b"x" * 65536]
)
def test_p13_what_is_no_percent_encoded_utf8_is_not_read(query: bytes) -> None:
    with pytest.raises(RequestRefused):
        read_request(query)


@pytest.mark.parametrize("state", ["x" * 4097, "a\x00b", "a\r\nb"])
def test_a_state_that_no_form_takes_is_refused_and_not_echoed(state: str) -> None:
    parameters = collect({**WHOLE, "state": state}.items())
    place = find_place(parameters, SETTINGS)
    assert place.state is None
    with pytest.raises(AuthorizationRefused):
        parse_request(parameters, SETTINGS, place)


def test_a_redirect_uri_that_was_taken_away_is_not_answered_at() -> None:
    asked = judge()
    check_still_registered(asked, SETTINGS)
    for changed in (replace(SETTINGS, redirect_uris=("https://rp.example/new",)), replace(SETTINGS, client_id="rp2")):
        with pytest.raises(RequestRefused):
            check_still_registered(asked, changed)


# The answer


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://rp.example/cb", "https://rp.example/cb?code=a+b"),
        ("https://rp.example/cb?", "https://rp.example/cb?code=a+b"),
        ("https://rp.example/cb?x=1", "https://rp.example/cb?x=1&code=a+b"),
        ("https://rp.example/cb?x=%2e", "https://rp.example/cb?x=%2e&code=a+b"),
        ("com.example.app:/cb", "com.example.app:/cb?code=a+b"),
    ],
)
def test_rfc6749_3_1_2_the_query_of_a_redirect_uri_stays(url: str, expected: str) -> None:
    assert add_query(url, [("code", "a b")]) == expected


def test_p7_rfc9207_2_the_answer_names_its_issuer() -> None:
    reply = judge({"state": "a&b=c#d"}).place.build_reply("https://op.example/oidc/x", {"code": "c"})
    assert isinstance(reply, Redirect)
    assert dict(parse_qsl(urlsplit(reply.url).query)) == {
        "code": "c",
        "state": "a&b=c#d",
        "iss": "https://op.example/oidc/x",
    }


def test_form_post_mode_2_the_answer_is_a_form() -> None:
    reply = judge({"response_mode": "form_post"}).place.build_reply("https://op.example", {"code": "c"})
    assert reply == FormPost(CALLBACK, (("code", "c"), ("state", "af0ifjsldkj"), ("iss", "https://op.example")))


# Waiting


def test_a_request_that_waits_comes_back_as_it_was() -> None:
    session = parse_session(build_example("riverton-water", now=1_768_478_000))
    asked = PendingOidcRequest(
        judge({"claims": '{"id_token": {"acr": {"essential": true, "value": "a"}}}', "prompt": "login"}),
        datetime.now(UTC),
        subject="s",
        hint=Hint("riverton-water", "usage", session, "000123456", "https://rp.example/usage", True),
        sent_to_sign_in=True,
        auth_time_before=datetime.now(UTC),
    )
    assert PendingOidcRequest.from_json(asked.to_json()) == asked
    bare = PendingOidcRequest(replace(asked.request, claims=RequestedClaims(), prompt=()), asked.received_at)
    assert PendingOidcRequest.from_json(bare.to_json()) == bare


def test_c13_what_waits_tells_how_much_of_it_is_the_payers_session_and_keeps_no_id_token() -> None:
    example = build_example("riverton-water", now=1_768_478_000)
    many = {**example, "accounts": [{**example["accounts"][0], "number": str(number)} for number in range(200)]}
    many["selected_account"] = None
    hint = Hint("riverton-water", "usage", parse_session(many), None, None, True)
    request = replace(judge(), id_token_hint="eyJ" * 1_000)
    asked = PendingOidcRequest(request, datetime.now(UTC), subject="s", hint=hint)
    bare = replace(asked, hint=None)
    assert asked.session_length > 40_000
    assert len(asked.to_json()) - asked.session_length <= len(bare.to_json())
    assert bare.session_length == 0
    assert PendingOidcRequest.from_json(bare.to_json()) == replace(bare, request=replace(request, id_token_hint=None))


# Whatever comes


NAMES = st.sampled_from(
    [*WHOLE, "prompt", "max_age", "claims", "response_mode", "code_challenge", "code_challenge_method", "request_uri"]
)
VALUES = st.one_of(
    st.sampled_from([*WHOLE.values(), "none", "form_post", "S256", CHALLENGE, "https://evil.example/cb", "{}", "app"]),
    st.text(max_size=30).filter(lambda text: text.isprintable()),
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=14))
def test_p1_p2_whatever_is_asked_goes_to_a_registered_address_or_nowhere(pairs: list[tuple[str, str]]) -> None:
    """Authorized or refused, the answer's place is one of the client's, and everything else is a page of ours."""
    try:
        parameters = read_request(urlencode(pairs).encode())
        _, found = find_client(parameters, BILLER)
        place = find_place(parameters, found)
    except RequestRefused:
        return
    assert place.redirect_uri in found.redirect_uris
    assert [value for name, value in pairs if name == "redirect_uri"] == [place.redirect_uri]
    try:
        asked = parse_request(parameters, found, place)
    except AuthorizationRefused as error:
        reply = place.build_reply("https://op.example", {"error": error.error})
    else:
        assert "openid" in asked.scope
        assert asked.code_challenge is not None or found.client_auth != "none"
        reply = place.build_reply("https://op.example", {"code": "c"})
    target = reply.action if isinstance(reply, FormPost) else reply.url
    assert any(target == one or target.startswith((f"{one}?", f"{one}&")) for one in found.redirect_uris)


@given(st.binary(max_size=300))
def test_p13_any_bytes_are_read_or_refused(query: bytes) -> None:
    try:
        parameters = read_request(query)
    except RequestRefused:
        return
    assert all(parameters.values.values())


@pytest.mark.parametrize(("name", "longest"), [(name, longest) for name, longest in LONGEST.items() if name in TEXTS])
def test_c13_a_value_that_is_too_long_is_refused_by_name_length_and_limit(name: str, longest: int) -> None:
    error = refused({name: TEXTS[name] * (longest + 1)})
    assert (error.error, error.code) == ("invalid_request", f"{name.replace('_', '-')}-long")
    unit = "bytes" if name == "claims" else "characters"
    assert error.description == f"{name}: has {longest + 1:,} {unit}, and {longest:,} are the most"
    if name in ("nonce", "state", "login_hint", "id_token_hint"):
        judge({name: TEXTS[name] * longest})


def test_c13_what_is_passed_over_is_of_any_length() -> None:
    assert judge({"ui_locales": "en " * 10_000, "display": "x" * 5_000}).scope == judge().scope


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"client_id": "RP"},
            "client_id: is no client of this biller: received 'RP', expected 'rp', the closest of 2",
        ),
        ({"client_id": None}, "client_id: is missing"),
    ],
)
def test_the_record_of_a_client_that_is_unknown_states_both_sides(changes: dict[str, str | None], words: str) -> None:
    asked = {name: value for name, value in {**WHOLE, **changes}.items() if value is not None}
    with pytest.raises(RequestRefused) as caught:
        find_client(read_request(urlencode(asked).encode()), BILLER)
    assert (caught.value.code, caught.value.detail) == ("client-unknown", words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"response_type": "token\x1b"}, r"response_type: received 'token\u001b', expected 'code'"),
        ({"response_mode": "fragment"}, "response_mode: received 'fragment', expected '"),
        ({"scope": "email"}, "scope: received 'email', expected openid among its words"),
        ({"code_challenge": CHALLENGE, "code_challenge_method": "plain"}, "received 'plain', expected 'S256'"),
        ({"code_challenge": "short", "code_challenge_method": "S256"}, "received 'short'"),
        ({"prompt": "create"}, "prompt: received 'create', expected none or login"),
        ({"max_age": "-1"}, "max_age: received '-1', expected a number of seconds"),
    ],
)
def test_the_record_of_a_refusal_states_what_was_received_and_what_was_expected(
    changes: dict[str, str | None], words: str
) -> None:
    error = refused(changes)
    assert words in error.detail
    assert "received" not in (error.description or ""), "the browser carries no more than before"
