"""What the demo partners' service providers accept and refuse; each refusal starts from a response that is accepted."""

from __future__ import annotations

import base64
import copy
import stat
import subprocess
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import xmlsec
from lxml import etree
from saml2 import BINDING_HTTP_POST, saml, sigver
from saml2.config import IdPConfig
from saml2.saml import NAMEID_FORMAT_PERSISTENT, NameID

from saml_bridge.demo.partner_portals import SAML_PORTALS, build_providers
from saml_bridge.demo.service_provider import ResponseRefused, ServiceProvider
from tests.demo.issuer import ATTRIBUTES, BOTH, CONSTANTS, ISSUER, SAML, Issuer, decode, encode, encrypt_assertion

ASSERTION = f"{{{SAML}}}Assertion"
SIGNATURE = "{http://www.w3.org/2000/09/xmldsig#}Signature"


@pytest.fixture
def aquahawk(providers: dict[str, ServiceProvider]) -> ServiceProvider:
    return providers["aquahawk"]


def refusal(provider: ServiceProvider, field: str) -> str:
    with pytest.raises(ResponseRefused) as caught:
        provider.accept(field)
    return caught.value.reason


@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_takes_in_what_a_good_response_says(slug: str, providers: dict[str, ServiceProvider], issuer: Issuer) -> None:
    received = providers[slug].accept(issuer.respond(providers[slug]))
    assert {one.name: one.values for one in received.attributes} == ATTRIBUTES[slug]
    assert received.issuer == ISSUER
    assert received.name_id_format == SAML_PORTALS[slug].wants.name_id_format
    assert received.encrypted is (slug == "my360")
    assert received.signed == {"eyeonwater": ("Assertion",), "my360": ("Response",)}.get(
        slug, ("Response", "Assertion")
    )


def test_no_program_is_started(aquahawk: ServiceProvider, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo works where only `pip install` has been: without the xmlsec1 program."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(sigver, "Popen", refuse)
    monkeypatch.setattr(sigver, "get_xmlsec_binary", refuse)
    again = build_providers(aquahawk.base_url, aquahawk.state_dir)["aquahawk"]
    assert again.accept(issuer.respond(again)).name_id == "pairwise-1"


def test_accepts_what_pysaml2s_own_identity_provider_makes(aquahawk: ServiceProvider, keys_dir: Path) -> None:
    """The other end's software, with its default backend: the xmlsec1 program."""
    with warnings.catch_warnings():  # pysaml2's module names a cipher mode that has moved, and does not use it here
        warnings.simplefilter("ignore")
        from saml2.server import Server
    server = Server(config=_configure_pysaml2_idp(aquahawk, keys_dir))
    response = server.create_authn_response(
        {"sn": ["Marsh"]},
        in_response_to=None,
        destination=aquahawk.acs_url,
        sp_entity_id=aquahawk.entity_id,
        name_id=NameID(format=NAMEID_FORMAT_PERSISTENT, text="pairwise-9"),
        authn={"class_ref": saml.AUTHN_PASSWORD},
        sign_response=True,
        sign_assertion=True,
        sign_alg="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
        digest_alg="http://www.w3.org/2001/04/xmlenc#sha256",
    )
    received = aquahawk.accept(base64.b64encode(str(response).encode()).decode())
    assert received.name_id == "pairwise-9"
    assert received.signed == ("Response", "Assertion")
    assert received.first("urn:oid:2.5.4.4") == "Marsh"


def _configure_pysaml2_idp(provider: ServiceProvider, keys_dir: Path) -> Any:
    config: Any = IdPConfig()
    return config.load(
        {
            "entityid": ISSUER,
            "xmlsec_binary": "/usr/bin/xmlsec1",
            "key_file": str(keys_dir / "idp-rsa.key.pem"),
            "cert_file": str(keys_dir / "idp-rsa.cert.pem"),
            "metadata": {"inline": [provider.build_metadata().decode()]},
            "service": {
                "idp": {
                    "endpoints": {"single_sign_on_service": [("http://localhost:8000/sso", BINDING_HTTP_POST)]},
                    "policy": {"default": {"lifetime": {"minutes": 5}, "attribute_restrictions": None}},
                }
            },
        }
    )


@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_refuses_a_response_the_second_time(slug: str, providers: dict[str, ServiceProvider], issuer: Issuer) -> None:
    field = issuer.respond(providers[slug])
    providers[slug].accept(field)
    assert "used before" in refusal(providers[slug], field)


def _change_attribute(root: Any) -> None:
    root.find(f".//{{{SAML}}}AttributeValue").text = "999999"


def _change_destination(root: Any) -> None:
    root.set("Destination", root.get("Destination") + "/")


def _break_signature(root: Any) -> None:
    value = root.find(f".//{SIGNATURE}/{{*}}SignatureValue")
    value.text = base64.b64encode(bytes(256)).decode()


def _remove_response_signature(root: Any) -> None:
    root.remove(root.find(SIGNATURE))


def _remove_assertion_signature(root: Any) -> None:
    assertion = root.find(ASSERTION)
    assertion.remove(assertion.find(SIGNATURE))


def _add_comment_to_name(root: Any) -> None:
    name = root.find(f".//{{{SAML}}}NameID")
    name.text, comment = "pairwise", etree.Comment("x")
    comment.tail = "-1"
    name.append(comment)


def _add_second_assertion(root: Any) -> None:
    forged = copy.deepcopy(root.find(ASSERTION))
    forged.set("ID", "_forged")
    root.append(forged)


@pytest.mark.parametrize(
    "change",
    [
        _change_attribute,
        _change_destination,
        _break_signature,
        _remove_response_signature,
        _remove_assertion_signature,
        _add_comment_to_name,
        _add_second_assertion,
    ],
)
def test_refuses_a_response_changed_after_signing(
    change: Callable[[Any], None], aquahawk: ServiceProvider, issuer: Issuer
) -> None:
    root = decode(issuer.respond(aquahawk))
    change(root)
    assert refusal(aquahawk, encode(root))


@pytest.mark.parametrize("slug", ["eyeonwater", "aquahawk"])
def test_refuses_a_signed_assertion_wrapped_into_a_forged_one(
    slug: str, providers: dict[str, ServiceProvider], issuer: Issuer
) -> None:
    """Signature wrapping: the signature still verifies, over an element that is not the one read."""
    provider = providers[slug]
    root = decode(issuer.respond(provider))
    original = root.find(ASSERTION)
    forged = copy.deepcopy(original)
    forged.set("ID", "_forged")
    forged.find(f".//{{{SAML}}}AttributeValue").text = "999999"
    signature = forged.find(SIGNATURE)
    root.replace(original, forged)
    etree.SubElement(signature, "{http://www.w3.org/2000/09/xmldsig#}Object").append(original)
    assert "exactly one assertion" in refusal(provider, encode(root))


def test_refuses_another_key(aquahawk: ServiceProvider, keys_dir: Path) -> None:
    assert "SignatureError" in refusal(aquahawk, Issuer(keys_dir, key_name="attacker").respond(aquahawk))


def test_refuses_an_issuer_that_is_not_registered(aquahawk: ServiceProvider, keys_dir: Path) -> None:
    assert refusal(aquahawk, Issuer(keys_dir, entity_id="http://evil.example/metadata").respond(aquahawk))


@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_refuses_an_unsigned_response(slug: str, providers: dict[str, ServiceProvider], issuer: Issuer) -> None:
    assert "SignatureError" in refusal(providers[slug], issuer.respond(providers[slug], sign=()))


@pytest.mark.parametrize(
    "replaced",
    [
        ("/aquahawk/saml/metadata</saml:Audience>", "/sensus/saml/metadata</saml:Audience>"),
        ('Recipient="http://127.0.0.1:8001/aquahawk/', 'Recipient="http://127.0.0.1:8001/sensus/'),
        ('Destination="http://127.0.0.1:8001/aquahawk/', 'Destination="http://127.0.0.1:8001/sensus/'),
        (' Destination="http://127.0.0.1:8001/aquahawk/saml/acs"', ""),
        (" Destination=", ' InResponseTo="_x" Destination='),
        ("status:Success", "status:Responder"),
        ("cm:bearer", "cm:holder-of-key"),
        ("AudienceRestriction", "OneTimeUse"),
    ],
    ids=["audience", "recipient", "destination", "no destination", "in-response-to", "status", "method", "no audience"],
)
def test_refuses_what_is_not_meant_for_it(replaced: tuple[str, str], aquahawk: ServiceProvider, issuer: Issuer) -> None:
    old, new = replaced
    changes = {old: new}
    if new == "OneTimeUse":
        changes = {
            "<saml:AudienceRestriction><saml:Audience>http://127.0.0.1:8001/aquahawk/saml/metadata</saml:Audience>"
            "</saml:AudienceRestriction>": ""
        }
    assert refusal(aquahawk, issuer.respond(aquahawk, replace=changes))


@pytest.mark.parametrize("away", [timedelta(minutes=-20), timedelta(minutes=20)], ids=["expired", "not yet valid"])
def test_refuses_outside_its_time(away: timedelta, aquahawk: ServiceProvider, issuer: Issuer) -> None:
    assert refusal(aquahawk, issuer.respond(aquahawk, now=datetime.now(UTC) + away))


@pytest.mark.parametrize(
    "algorithms",
    [
        {"method": xmlsec.constants.TransformRsaSha1},
        {"digest": xmlsec.constants.TransformSha1},
    ],
    ids=["rsa-sha1", "sha1"],
)
def test_refuses_sha_1(algorithms: dict[str, Any], aquahawk: ServiceProvider, issuer: Issuer) -> None:
    root = issuer.build(aquahawk)
    issuer.sign(root.find(ASSERTION), **algorithms)
    issuer.sign(root)
    assert "SignatureError" in refusal(aquahawk, encode(root))


@pytest.mark.parametrize(
    "method", [xmlsec.constants.TransformRsaSha384, xmlsec.constants.TransformRsaSha512], ids=["384", "512"]
)
def test_accepts_longer_digests(method: Any, aquahawk: ServiceProvider, issuer: Issuer) -> None:
    root = issuer.build(aquahawk)
    issuer.sign(root.find(ASSERTION), method=method)
    issuer.sign(root, method=method)
    assert aquahawk.accept(encode(root)).name_id == "pairwise-1"


def test_wants_the_assertion_encrypted(providers: dict[str, ServiceProvider], issuer: Issuer) -> None:
    my360 = providers["my360"]
    assert refusal(my360, issuer.respond(my360, encrypt=False)) == "the assertion is not encrypted"


def test_checks_the_signature_inside_an_encrypted_assertion(
    providers: dict[str, ServiceProvider], issuer: Issuer, keys_dir: Path
) -> None:
    my360 = providers["my360"]
    assert my360.accept(issuer.respond(my360, sign=BOTH)).signed == BOTH[::-1]
    root = issuer.build(my360)
    Issuer(keys_dir, key_name="attacker").sign(root.find(ASSERTION))
    encrypt_assertion(root, my360.state_dir / "keys" / "my360-encryption.cert.pem", CONSTANTS.TransformAes256Gcm)
    issuer.sign(root)
    assert refusal(my360, encode(root))


def test_refuses_an_assertion_encrypted_with_cbc(providers: dict[str, ServiceProvider], issuer: Issuer) -> None:
    my360 = providers["my360"]
    assert refusal(my360, issuer.respond(my360, cipher=xmlsec.constants.TransformAes256Cbc))


def test_refuses_an_assertion_encrypted_to_another(
    providers: dict[str, ServiceProvider], issuer: Issuer, keys_dir: Path
) -> None:
    my360 = providers["my360"]
    root = issuer.build(my360)
    encrypt_assertion(root, keys_dir / "sp-encryption.cert.pem", CONSTANTS.TransformAes256Gcm)
    issuer.sign(root)
    assert refusal(my360, encode(root))


@pytest.mark.parametrize(
    "field",
    [
        "",
        "not base64!",
        base64.b64encode(b"<").decode(),
        base64.b64encode(b"<a/>").decode(),
        base64.b64encode(b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>').decode(),
        base64.b64encode(b'<?xml version="1.0" encoding="UTF-7"?><a/>').decode(),
        base64.b64encode(b"<a>" + b"x" * 300_000 + b"</a>").decode(),
    ],
    ids=["nothing", "text", "broken", "other root", "document type", "utf-7", "too large"],
)
def test_refuses_what_is_no_response(field: str, aquahawk: ServiceProvider) -> None:
    assert refusal(aquahawk, field)


def test_reads_new_metadata_of_the_identity_provider(
    tmp_path: Path, aquahawk: ServiceProvider, issuer: Issuer, keys_dir: Path
) -> None:
    """A key rollover reaches the partner without a restart; without any metadata nobody gets in."""
    provider = build_providers(aquahawk.base_url, tmp_path)["aquahawk"]
    assert "registered" in refusal(provider, issuer.respond(provider))
    registered = tmp_path / "idp" / "aquahawk" / "riverton-water.xml"
    registered.parent.mkdir(parents=True)
    registered.write_bytes(issuer.metadata())
    provider.accept(issuer.respond(provider))
    rolled = Issuer(keys_dir, key_name="idp-rsa-next")
    refusal(provider, rolled.respond(provider))
    registered.unlink()
    registered.with_name("next.xml").write_bytes(rolled.metadata())
    provider.accept(rolled.respond(provider))
    refusal(provider, issuer.respond(provider))


def test_keys_are_for_the_owner_alone_and_stay(tmp_path: Path, aquahawk: ServiceProvider) -> None:
    provider = build_providers(aquahawk.base_url, tmp_path)["my360"]
    first = provider.build_metadata()
    for key_file in (tmp_path / "keys").glob("*.key.pem"):
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert len(list((tmp_path / "keys").glob("*.key.pem"))) == 2
    assert build_providers(aquahawk.base_url, tmp_path)["my360"].build_metadata() == first


def test_only_the_portal_that_wants_encryption_offers_a_key_for_it(providers: dict[str, ServiceProvider]) -> None:
    offering = [slug for slug, provider in providers.items() if b'use="encryption"' in provider.build_metadata()]
    assert offering == ["my360"]
