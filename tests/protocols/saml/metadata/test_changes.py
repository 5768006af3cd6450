"""The sentences about changes of a partner's metadata.

They say which a person must see, and nothing that differs goes unmentioned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from saml_bridge.model.document import SamlSettings
from saml_bridge.model.errors import MetadataRefused
from saml_bridge.protocols.saml.metadata.changes import MetadataChanges, compare_documents, compare_metadata
from saml_bridge.protocols.saml.metadata.service_provider import (
    Contact,
    Endpoint,
    LocalText,
    Logo,
    Organization,
    RequestedAttribute,
    SpMetadata,
)
from saml_bridge.protocols.saml.xml.certificates import Certificate, EncryptionMethod, KeyUse, parse_certificate
from tests.protocols.saml.corpus import read_case, read_der
from tests.world import sp_metadata

POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
REDIRECT = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
ACS, OTHER_HOST = "https://sp.example.com/acs", "https://evil.example/acs"


def key(name: str, use: KeyUse | None = None) -> Certificate:
    return parse_certificate(read_der(name), use=use)


SIGNING, NEXT, ENCRYPTION = key("sp-signing", "signing"), key("sp-signing-next", "signing"), key("sp-encryption")
ATTACKER = key("attacker", "signing")

FULL = SpMetadata(
    entity_id="https://sp.example.com/metadata",
    acs=(Endpoint(POST, ACS, 0, True), Endpoint(POST, "https://sp.example.com/acs2", 1, False)),
    other_acs=(Endpoint("urn:oasis:names:tc:SAML:2.0:bindings:PAOS", "https://sp.example.com/paos", 2),),
    slo=(
        Endpoint(REDIRECT, "https://sp.example.com/slo", response_location="https://sp.example.com/slo-answer"),
        Endpoint(POST, "https://sp.example.com/slo"),
    ),
    certificates=(SIGNING, key("sp-encryption", "encryption")),
    name_id_formats=("urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",),
    want_assertions_signed=True,
    authn_requests_signed=True,
    requested_attributes=(RequestedAttribute("mail", "urn:x", "Mail", True),),
    valid_until=NOW + timedelta(days=14),
    created_at=NOW,
    cache_duration=timedelta(hours=6),
    display_names=(LocalText("en", "AquaHawk"),),
    descriptions=(LocalText("en", "Water"),),
    logos=(Logo("https://sp.example.com/logo.png", 80, 60, "en"),),
    information_urls=(LocalText("en", "https://sp.example.com/about"),),
    organization=Organization(
        (LocalText("en", "aquahawk"),), (LocalText("en", "AquaHawk"),), (LocalText("en", "https://sp.example.com/"),)
    ),
    contacts=(Contact("technical", "AquaHawk", "Ada", "Lovelace", ("help@example.com",), ("+15550100",)),),
    encryption_methods=("http://www.w3.org/2009/xmlenc11#aes256-gcm",),
)


def compare(new: SpMetadata, old: SpMetadata = FULL, **more: Any) -> MetadataChanges:
    return compare_metadata(old, new, **{"signed_before": False, "signed_now": False, **more})


def renew(name: str) -> Certificate:
    """Another certificate of the same key."""
    pem = (Path(__file__).parents[3] / "corpus" / "keys" / f"{name}.key.pem").read_bytes()
    private: Any = load_pem_private_key(pem, None)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "renewed")])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(private.public_key())
    builder = builder.serial_number(7).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=900))
    der = builder.sign(private, hashes.SHA256()).public_bytes(Encoding.DER)
    return parse_certificate(der, use="signing")


def test_the_same_metadata_says_nothing() -> None:
    assert compare(FULL) == MetadataChanges(())
    assert not compare(FULL).is_risky


SAFE: list[tuple[dict[str, Any], str]] = [
    (
        {"certificates": (*FULL.certificates, NEXT)},
        f"signing key sha256 {NEXT.fingerprint_sha256[:16]}… added (expires ",
    ),
    ({"valid_until": NOW + timedelta(days=28)}, "validUntil changes from 2026-01-29 12:00:00 UTC to 2026-02-12 12:00"),
    ({"created_at": NOW + timedelta(days=1)}, "the time of its publication changes"),
    ({"cache_duration": None}, "cacheDuration changes from 21,600 seconds to none"),
    ({"contacts": ()}, "contact technical Ada Lovelace AquaHawk help@example.com +15550100 removed"),
    ({"display_names": (LocalText("en", "Hawk"),)}, "display name 'Hawk' (en) added"),
    ({"organization": None}, "organisation name 'aquahawk' (en) removed"),
    ({"logos": ()}, "logo https://sp.example.com/logo.png (80 by 60) (en) removed"),
    (
        {"acs": (*FULL.acs, Endpoint(POST, "https://SP.example.com:443/acs3", 2))},
        "assertion consumer service https://SP",
    ),
    ({"acs": FULL.acs[:1]}, "assertion consumer service https://sp.example.com/acs2 (HTTP-POST) removed"),
    ({"slo": FULL.slo[1:]}, "logout service https://sp.example.com/slo (HTTP-Redirect) removed"),
    ({"name_id_formats": (*FULL.name_id_formats, "urn:email")}, "name ID format urn:email added"),
    ({"encryption_methods": (*FULL.encryption_methods, "urn:x")}, "encryption method urn:x added"),
    ({"requested_attributes": ()}, "wish for attribute mail (Mail, urn:x, required) removed"),
    ({"other_acs": ()}, "unused assertion consumer service https://sp.example.com/paos (PAOS) removed"),
]


@pytest.mark.parametrize(("changes", "expected"), SAFE)
def test_safe_changes_are_told_and_need_nobody(changes: dict[str, Any], expected: str) -> None:
    found = compare(replace(FULL, **changes))
    assert any(line.startswith(expected) for line in found.words), found.words
    assert not found.is_risky


RISKY: list[tuple[dict[str, Any], str]] = [
    ({"acs": (Endpoint(POST, OTHER_HOST, 0, True),)}, f"responses would go to {OTHER_HOST} instead of {ACS}"),
    ({"acs": (Endpoint(POST, f"{ACS}/other-tenant", 0, True),)}, "responses would go to https://sp.example.com/acs/o"),
    # a request may choose any of them, so a new host is one even when responses go elsewhere by default
    (
        {"acs": (*FULL.acs, Endpoint(POST, OTHER_HOST, 7))},
        "https://evil.example is a new host for assertion consumer",
    ),
    (
        {"acs": (*FULL.acs, Endpoint(POST, "https://sp.example.com:8443/acs", 7))},
        "https://sp.example.com:8443 is a new host",
    ),
    ({"acs": (*FULL.acs, Endpoint(POST, "http://sp.example.com/acs", 7))}, "http://sp.example.com/acs is an http addr"),
    ({"entity_id": "https://evil.example"}, "the entity ID changes from https://sp.example.com/metadata to https://e"),
    ({"certificates": (ATTACKER, FULL.certificates[1])}, "all signing keys are replaced, and none of those until now"),
    ({"certificates": FULL.certificates[1:]}, "every signing key goes away"),
    ({"certificates": (SIGNING,)}, "encryption key sha256 "),
    (
        {"certificates": (*FULL.certificates[:1], key("attacker", "encryption"), FULL.certificates[1])},
        "assertions would",
    ),
    ({"authn_requests_signed": False}, "the partner does not say any more that it signs its requests"),
    ({"want_assertions_signed": False}, "the partner does not want assertions to be signed any more"),
    (
        {"slo": (Endpoint(POST, "https://evil.example/slo"), *FULL.slo)},
        "https://evil.example is a new host for logout services",
    ),
    (
        {"slo": (replace(FULL.slo[0], response_location="https://evil.example/x"), FULL.slo[1])},
        "https://evil.example is a new host for logout",
    ),
    ({"slo": ()}, "the partner offers no logout service any more"),
    ({"slo": (*FULL.slo, Endpoint(POST, "http://sp.example.com/slo"))}, "http://sp.example.com/slo is an http address"),
    ({"other_acs": (Endpoint("urn:x", "http://sp.example.com/x"),)}, "http://sp.example.com/x is an http address now"),
    ({"encryption_methods": ()}, "encryption method http://www.w3.org/2009/xmlenc11#aes256-gcm removed"),
]


@pytest.mark.parametrize(("changes", "expected"), RISKY)
def test_m10_risky_changes_are_told_first(changes: dict[str, Any], expected: str) -> None:
    found = compare(replace(FULL, **changes))
    assert any(line.startswith(expected) for line in found.risky), found.words
    assert found.words[0].startswith("RISKY: ")
    assert found.is_risky


def test_m22_an_older_document_is_risky() -> None:
    older = replace(FULL, valid_until=NOW + timedelta(days=7))
    [line] = compare(older).risky
    assert "this is an older document" in line
    [line] = compare(replace(FULL, created_at=NOW - timedelta(seconds=1))).risky
    assert "older" in line


@pytest.mark.parametrize(("hours", "is_risky"), [(-1, True), (47, True), (48, False), (24 * 365, False)])
def test_a_first_end_that_is_near_is_risky(hours: int, is_risky: bool) -> None:
    def ending(end: datetime) -> bytes:
        return sp_metadata(extra=f' validUntil="{end:%Y-%m-%dT%H:%M:%SZ}"')

    def compare_with_new(old: bytes) -> MetadataChanges:
        settings, new = SamlSettings(metadata="sp.xml"), ending(NOW + timedelta(hours=hours))
        return compare_documents(old, new, before=settings, after=settings, now=NOW)

    assert compare_with_new(sp_metadata()).is_risky is is_risky
    assert compare_with_new(ending(NOW + timedelta(minutes=30))).is_risky is (hours < 0)


@pytest.mark.parametrize("name", ["valid_until", "created_at"])
def test_m22_a_signed_document_without_its_times_may_be_an_older_one(name: str) -> None:
    undated = replace(FULL, **{name: None})
    assert not compare(undated).is_risky
    [line] = compare(undated, signed_before=True, signed_now=True).risky
    assert "may be an older one" in line


def test_a_lost_signature_is_risky_and_a_new_one_is_not() -> None:
    assert compare(FULL, signed_before=True).risky == ("the metadata was signed, and is not signed any more",)
    assert compare(FULL, signed_now=True).words == ("the metadata is signed now",)
    assert compare(FULL, signed_before=True, signed_now=True).lines == ()


def test_the_settings_choose_where_responses_go() -> None:
    without = replace(FULL, acs=FULL.acs[:1])
    assert not compare(without).is_risky
    assert compare(without, acs=1).risky == (
        "the assertion consumer service that the settings choose, index 1, goes away",
    )
    assert "goes away" in compare(without, acs="https://sp.example.com/acs2").risky[0]
    swapped = replace(FULL, acs=(replace(FULL.acs[0], index=1), replace(FULL.acs[1], index=0)))
    assert not compare(swapped).is_risky
    assert compare(swapped, acs=1).risky == (f"responses would go to {ACS} instead of https://sp.example.com/acs2",)


def test_keys_are_keys_whatever_certificate_they_come_in() -> None:
    found = compare(replace(FULL, certificates=(renew("sp-signing"), FULL.certificates[1])))
    assert not found.is_risky
    [line] = found.words
    assert "is the same key in another certificate (expires 2028-07-03 instead of " in line


def test_a_rollover_is_safe_step_by_step_and_risky_at_once() -> None:
    both = replace(FULL, certificates=(SIGNING, NEXT, FULL.certificates[1]))
    after = replace(FULL, certificates=(NEXT, FULL.certificates[1]))
    assert not compare(both).is_risky
    assert not compare(after, both).is_risky
    assert compare(after).is_risky


def test_a_key_for_both_uses_is_told_once() -> None:
    old = replace(FULL, certificates=())
    assert [line.partition(" sha256")[0] for line in compare(replace(old, certificates=(ENCRYPTION,)), old).words] == [
        "signing key and encryption key"
    ]


def test_a_key_that_loses_its_use_for_encryption_is_risky() -> None:
    old = replace(FULL, certificates=(ENCRYPTION,))
    new = replace(FULL, certificates=(key("sp-encryption", "signing"),))
    [line] = compare(new, old).risky
    assert line.startswith("encryption key sha256 ")
    assert line.endswith(" removed")


def listing(*names: str, digest: str | None = None) -> SpMetadata:
    """FULL, whose key for encryption lists these methods."""
    methods = tuple(EncryptionMethod(f"http://www.w3.org/2009/xmlenc11#{one}", digest) for one in names)
    encryption = replace(FULL.certificates[1], encryption_methods=methods)
    return replace(FULL, certificates=(SIGNING, encryption), encryption_methods=tuple(one.algorithm for one in methods))


def test_m14_a_list_that_talks_encryption_down_is_risky() -> None:
    """A first list can weaken as much as a shorter one.

    The list decides where nobody set an algorithm.
    """
    cbc = EncryptionMethod("http://www.w3.org/2001/04/xmlenc#aes128-cbc")
    weaker = replace(
        listing(),
        certificates=(SIGNING, replace(FULL.certificates[1], encryption_methods=(cbc,))),
        encryption_methods=(cbc.algorithm,),
    )
    found = compare(weaker, listing())
    assert "assertions would be encrypted with aes128-cbc instead of aes128-gcm" in found.risky
    better = compare(listing("aes256-gcm", "aes128-gcm"), listing("aes256-gcm"))
    assert "assertions would be encrypted with aes128-gcm instead of aes256-gcm" in better.words
    assert not better.is_risky


def test_methods_that_move_between_keys_are_told() -> None:
    before, after = listing("rsa-oaep"), listing("rsa-oaep", digest="http://www.w3.org/2001/04/xmlenc#sha256")
    found = compare(after, before)
    assert any("change from rsa-oaep to rsa-oaep (with sha256)" in one for one in found.risky)
    assert "their keys would be encrypted with rsa-oaep (with sha256) instead of rsa-oaep (with sha1)" in found.words
    plain = replace(before, certificates=FULL.certificates)
    assert any("change from rsa-oaep to none" in one for one in compare(plain, before).risky)


def test_keys_that_cannot_be_used_are_mentioned() -> None:
    found = compare(replace(FULL, certificates=(*FULL.certificates, key("dsa2048", "signing"))))
    assert found.words[0].startswith("unusable key sha256 ")
    assert not found.is_risky


OTHER: dict[type, Any] = {str: "another", int: 123, type(None): "set", tuple: ()}
SPECIAL: dict[str, list[Any]] = {
    "certificates": [
        (),
        FULL.certificates[::-1],
        (SIGNING,),
        (*FULL.certificates, NEXT),
        (SIGNING, SIGNING, ENCRYPTION),
    ],
    "is_default": [None, False, True],
    "response_location": [None, "https://sp.example.com/elsewhere"],
    "index": [None, 9],
    "organization": [None, Organization(), replace(FULL.organization, names=())],
}


def variants(value: Any, name: str = "") -> Iterator[Any]:
    """Copies that differ from a value in exactly one thing, for everything that it has."""
    if name in SPECIAL:
        yield from (one for one in SPECIAL[name] if one != value)
    elif isinstance(value, tuple) and value:
        yield value[1:]
        yield (*value, value[0])
        for changed in variants(value[0]):
            yield (changed, *value[1:])
    elif is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            for changed in variants(getattr(value, one.name), one.name):
                yield replace(value, **{one.name: changed})
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, datetime | timedelta):
        yield value + timedelta(days=1)
        yield value - timedelta(days=1)
        if name:
            yield None
    else:
        yield OTHER[type(value)]


def test_no_difference_goes_unmentioned() -> None:
    every = list(variants(FULL))
    assert len(every) >= 60
    for changed in every:
        assert changed != FULL
        for found in (compare(changed), compare(FULL, changed)):
            assert found.lines, f"nothing is said about {changed}"
            assert all(line.isprintable() and len(line) < 1000 for line in found.words)


def test_every_field_has_words_of_its_own() -> None:
    for one in fields(SpMetadata):
        changed = next(variants(getattr(FULL, one.name), one.name))
        assert not any(line.endswith(" differs") for line in compare(replace(FULL, **{one.name: changed})).words)


def test_documents_are_read_as_they_would_be_in_force() -> None:
    settings = SamlSettings()

    def documents(old: bytes, new: bytes, **more: Any) -> MetadataChanges:
        return compare_documents(old, new, **{"before": settings, "after": settings, "now": NOW, **more})

    assert documents(sp_metadata(), sp_metadata().replace(b"\n", b"\n\n")).lines == ()
    assert documents(sp_metadata(), sp_metadata(acs=OTHER_HOST)).is_risky
    plain = sp_metadata().replace(
        b"</md:SPSSODescriptor>",
        f'<md:AssertionConsumerService Binding="{POST}" Location="http://sp.example.com/x" index="1"/>'
        "</md:SPSSODescriptor>".encode(),
    )
    expected = "http://sp.example.com/x is an http address now, which anybody on the way can read"
    assert documents(sp_metadata(), plain).risky == (expected,)
    assert expected in documents(sp_metadata(), plain, allow_http=True).risky
    assert documents(plain, sp_metadata()).risky == ()
    with pytest.raises(MetadataRefused):
        documents(sp_metadata(), b"<html>")
    assert documents(b"<html>", sp_metadata()).risky[0].startswith("the metadata in force cannot be read any more")
    expired = sp_metadata(extra=' validUntil="2020-01-01T00:00:00Z"')
    assert documents(expired, sp_metadata()).words == ("validUntil changes from 2020-01-01 00:00:00 UTC to none",)


def test_m16_a_signature_is_seen_in_the_file_or_known_from_its_pinned_signer() -> None:
    signed = read_case("good/signed-rsa-sha256")
    unsigned = signed[: signed.index(b"<ds:Signature")] + signed[signed.index(b"</ds:Signature>") + 15 :]

    def risky(old: bytes, new: bytes, before: SamlSettings, after: SamlSettings) -> tuple[str, ...]:
        return compare_documents(old, new, before=before, after=after, now=NOW).risky

    plain, pinned = SamlSettings(), SamlSettings(metadata_signer="MII")
    lost = ("the metadata was signed, and is not signed any more",)
    assert risky(signed, unsigned, plain, plain) == lost
    assert risky(unsigned, unsigned, pinned, plain) == lost
    assert risky(signed, unsigned, plain, pinned) == ()


def test_the_time_of_publication_is_read_from_the_document() -> None:
    def published(instant: str) -> bytes:
        return sp_metadata().replace(
            b"<md:SPSSODescriptor",
            f'<md:Extensions><mdrpi:PublicationInfo xmlns:mdrpi="urn:oasis:names:tc:SAML:metadata:rpi" '
            f'publisher="https://example.com" creationInstant="{instant}"/></md:Extensions>'
            "<md:SPSSODescriptor".encode(),
            1,
        )

    settings = SamlSettings()
    newer, older = published("2026-01-02T00:00:00Z"), published("2026-01-01T00:00:00Z")
    assert not compare_documents(older, newer, before=settings, after=settings, now=NOW).is_risky
    assert compare_documents(newer, older, before=settings, after=settings, now=NOW).is_risky
