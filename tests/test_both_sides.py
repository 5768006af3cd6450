"""A refusal by comparison states both sides: what came and what was expected, whole, and nothing of the payer."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.flows.launch.launch import check_biller, find_account
from saml_bridge.flows.logout.saml_channel import SamlChannel
from saml_bridge.mapping.callback_uri import describe_refusal, is_allowed
from saml_bridge.mapping.fields import build_example, parse_session
from saml_bridge.model.errors import BridgeError, ClientRefused
from saml_bridge.protocols.oidc.parameters import FORM, check_form
from saml_bridge.protocols.saml.bindings import DetachedSignature
from saml_bridge.protocols.saml.message import NameIdValue
from saml_bridge.protocols.saml.metadata.aggregate import pick_entity
from saml_bridge.protocols.saml.metadata.judge import check_metadata
from saml_bridge.protocols.saml.xml.parse import METADATA_LIMITS, parse_xml
from saml_bridge.protocols.saml.xml.verify import METADATA_PROFILE, verify_enveloped, verify_octets
from saml_bridge.storage.portal_keys import PortalKey
from tests.protocols.saml.corpus import CLOCK, read_case, read_pin

SP = "https://sp.example.com/saml/metadata"
LONG = "https://sp.example.com/" + "long/" * 100
PREFIX = "https://riverton.partner.example/usage"
KEY = PortalKey("k1", "prod", ("riverton", "harbor"), ("links",), 60, datetime(2026, 1, 1, tzinfo=UTC))
SIGNERS = tuple(read_pin(name).fingerprint_sha256 for name in ("attacker", "federation-signer"))


def judge_signature() -> None:
    root = parse_xml(read_case("bad/signed-by-attacker"), limits=METADATA_LIMITS)
    verify_enveloped(root, [read_pin("federation-signer")], profile=METADATA_PROFILE)


def judge_query() -> None:
    method = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
    verify_octets(DetachedSignature(method, b"x" * 256, (b"SAMLRequest=x",)), [read_pin("sp-signing")])


def judge_biller() -> None:
    session = parse_session(build_example("riverton-water", now=1_790_000_000))
    check_biller(session, cast("Snapshot", SimpleNamespace(biller=SimpleNamespace(slug="harbor"))))


CASES: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "form": (lambda: check_form(b"", content_type=LONG), (LONG, FORM)),
    "portal key, biller": (lambda: KEY.check_scope(LONG, "links"), ("riverton, harbor", "not for this biller")),
    "portal key, call": (lambda: KEY.check_scope("riverton", "tickets"), ("tickets", "links")),
    "session's biller": (judge_biller, ("riverton-water", "harbor")),
    "entity": (
        lambda: check_metadata(read_case("good/keys-no-use"), now=CLOCK, entity_id=LONG).find_provider(),
        (LONG, SP),
    ),
    "entity of an aggregate": (lambda: pick_entity(io.BytesIO(read_case("good/keys-no-use")), LONG), (LONG, SP)),
    "signer": (
        judge_signature,
        (read_pin("attacker").fingerprint_sha256, read_pin("federation-signer").fingerprint_sha256),
    ),
    "signer of a query": (judge_query, ("the query", read_pin("sp-signing").fingerprint_sha256)),
}


@pytest.mark.parametrize("name", CASES)
def test_both_sides_stand_in_the_detail(name: str) -> None:
    refuse, sides = CASES[name]
    with pytest.raises(BridgeError) as refused:
        refuse()
    for side in sides:
        assert side in refused.value.detail


def test_a_caller_from_outside_is_not_told_what_came() -> None:
    with pytest.raises(ClientRefused) as refused:
        check_form(b"", content_type='text/\\"x')
    assert "\\" not in refused.value.description


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (f"{PREFIX}-admin/4711?account=4711#4711", f"received '{PREFIX}-admin', expected '{PREFIX}'; they differ"),
        ("https://evil.example/usage/4711", f"received 'https://evil.example', expected '{PREFIX}'"),
        ("https://4711@riverton.partner.example/usage", "with a user name, expected one below"),
        (f"{PREFIX}/../4711", "with a path that browsers read in two ways, expected one below"),
        ("javascript:4711", f"received 15 characters that are no http or https URL, expected one below '{PREFIX}'"),
    ],
)
def test_a_callback_is_told_as_far_as_it_was_compared(uri: str, words: str) -> None:
    assert not is_allowed(uri, (PREFIX,))
    told = describe_refusal(uri, (PREFIX,))
    assert words in told
    assert "4711" not in told, "what follows may be of the payer"
    assert "none" in describe_refusal(uri, ())


def test_an_account_is_never_told() -> None:
    with pytest.raises(BridgeError) as refused:
        find_account(parse_session(build_example("riverton-water", now=1_790_000_000)), "4711-0815")
    assert "4711" not in refused.value.detail
    assert "the session has " in refused.value.detail


@pytest.mark.parametrize(
    ("qualifiers", "words"),
    [
        ((None, None), ""),
        (("urn:us", "urn:sp"), ""),
        (("urn:other", None), "NameQualifier: received 'urn:other', expected 'urn:us'"),
        ((None, "urn:spy"), "SPNameQualifier: received 'urn:spy', expected 'urn:sp'"),
    ],
)
def test_a_name_in_anothers_name_says_whose(qualifiers: tuple[str | None, str | None], words: str) -> None:
    nobody: Any = None
    metadata: Any = SimpleNamespace(entity_id="urn:sp")
    channel = SamlChannel(nobody, metadata, "urn:us", nobody, "rsa-sha256")
    told = channel.find_foreign_name(NameIdValue("4711", None, *qualifiers))
    assert told.startswith(words)
    assert bool(told) == bool(words)
    assert "4711" not in told
