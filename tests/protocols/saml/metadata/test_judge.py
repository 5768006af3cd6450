"""Partner metadata: read, or refused in plain words.

There is one test a row of the threats to metadata.
"""

from __future__ import annotations

import base64
import os
import re
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saml_bridge.model.errors import MetadataRefused
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.saml.metadata.judge import MetadataReport, check_metadata
from saml_bridge.protocols.saml.metadata.service_provider import Endpoint, RequestedAttribute, SpMetadata, choose_acs
from saml_bridge.protocols.saml.xml.certificates import CertificateBroken, parse_certificate
from tests.protocols.saml.corpus import CLOCK, CORPUS, read_case, read_der, read_index, read_pin

ENTITY_ID = "https://sp.example.com/saml/metadata"
POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
SAML2 = "urn:oasis:names:tc:SAML:2.0:protocol"
ACS = f'<md:AssertionConsumerService Binding="{POST}" Location="https://sp.example.com/acs" index="0"/>'
MD = 'xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata"'


def make_role(inside: str = ACS, *, attributes: str = "") -> str:
    return f'<md:SPSSODescriptor protocolSupportEnumeration="{SAML2}" {attributes}>{inside}</md:SPSSODescriptor>'


def make_entity(role: str | None = None, *, name: str = ENTITY_ID, attributes: str = "", more: str = "") -> str:
    role = make_role() if role is None else role
    return f'<md:EntityDescriptor {MD} entityID="{name}" {attributes}>{role}{more}</md:EntityDescriptor>'


def make_group(*inside: str, attributes: str = "") -> str:
    return f"<md:EntitiesDescriptor {MD} {attributes}>{''.join(inside)}</md:EntitiesDescriptor>"


def make_key(name: str, *, use: str = "", methods: tuple[str, ...] = ()) -> str:
    body = base64.b64encode(read_der(name)).decode()
    return make_key_of(body, use=use, methods=methods)


def make_key_of(body: str, *, use: str = "", methods: tuple[str, ...] = ()) -> str:
    listed = "".join(f'<md:EncryptionMethod Algorithm="{one}"/>' for one in methods)
    certificate = f"<ds:X509Data><ds:X509Certificate>{body}</ds:X509Certificate></ds:X509Data>"
    info = f'<ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#">{certificate}</ds:KeyInfo>'
    return f"<md:KeyDescriptor{f' use={chr(34)}{use}{chr(34)}' if use else ''}>{info}{listed}</md:KeyDescriptor>"


def make_acs(location: str, *, index: object = 0, binding: str = POST, default: str = "") -> str:
    marked = f' isDefault="{default}"' if default else ""
    return f'<md:AssertionConsumerService Binding="{binding}" Location="{location}" index="{index}"{marked}/>'


def check(text: str | bytes, **options: object) -> MetadataReport:
    data = text.encode() if isinstance(text, str) else text
    return check_metadata(data, now=CLOCK, **options)  # type: ignore[arg-type]


def errors_of(text: str | bytes, **options: object) -> set[str]:
    """The codes that refuse; empty exactly when the file is accepted."""
    report = check(text, **options)
    codes = {one.code for one in report.all_findings if one.refuses}
    assert report.refused is bool(codes)
    return codes


def find(text: str | bytes, code: str, **options: object) -> Finding:
    return next(one for one in check(text, **options).all_findings if one.code == code)


def parse(text: str | bytes, **options: object) -> SpMetadata:
    data = text.encode() if isinstance(text, str) else text
    return check_metadata(data, now=CLOCK, **options).find_provider()  # type: ignore[arg-type]


def codes_of(text: str | bytes, **options: object) -> set[str]:
    return {one.code for one in check(text, **options).all_findings}


# What is read


def test_everything_is_read() -> None:
    metadata = parse(read_case("good/world-sp1-signed-requests"))
    assert metadata.entity_id == ENTITY_ID
    assert [(one.index, one.location, one.is_default) for one in metadata.acs] == [
        (0, "https://sp.example.com/saml/acs", True),
        (1, "https://sp.example.com/saml/acs-alt", None),
    ]
    assert [one.binding.rsplit(":", 1)[-1] for one in metadata.other_acs] == ["HTTP-Artifact"]
    assert metadata.authn_requests_signed
    assert metadata.want_assertions_signed
    assert [one.der for one in metadata.signing_certificates] == [read_der("sp-signing")]
    assert [one.der for one in metadata.encryption_certificates] == [read_der("sp-encryption")]
    assert metadata.slo


def test_a_certificate_tells_its_facts() -> None:
    certificate = parse_certificate(read_der("sp-signing"), use="signing")
    assert (certificate.key_type, certificate.key_bits, certificate.rsa_exponent) == ("rsa", 2048, 65537)
    assert certificate.not_before == datetime(2025, 1, 1, tzinfo=UTC)
    assert certificate.not_after == datetime(2035, 1, 1, tzinfo=UTC)
    assert re.fullmatch("[0-9a-f]{64}", certificate.fingerprint_sha256)
    assert certificate.may_verify
    assert not certificate.may_encrypt
    with pytest.raises(CertificateBroken):
        parse_certificate(read_der("sp-signing")[:-1])


def test_texts_for_people_are_read() -> None:
    more = (
        '<md:Organization><md:OrganizationName xml:lang="en">Example</md:OrganizationName>'
        '<md:OrganizationDisplayName xml:lang="en">Example Co</md:OrganizationDisplayName>'
        '<md:OrganizationURL xml:lang="en">http://www.example.com/</md:OrganizationURL></md:Organization>'
        '<md:ContactPerson contactType="technical"><md:GivenName>Ops</md:GivenName>'
        "<md:EmailAddress>mailto:ops@example.com</md:EmailAddress>"
        "<md:TelephoneNumber>555-0100</md:TelephoneNumber></md:ContactPerson>"
    )
    ui_info = (
        '<md:Extensions><mdui:UIInfo xmlns:mdui="urn:oasis:names:tc:SAML:metadata:ui">'
        '<mdui:DisplayName xml:lang="en"> My\n Portal </mdui:DisplayName>'
        '<mdui:Description xml:lang="en">Usage</mdui:Description>'
        '<mdui:InformationURL xml:lang="en">https://sp.example.com/info</mdui:InformationURL>'
        '<mdui:Logo height="16" width="32" xml:lang="en">https://sp.example.com/logo.png</mdui:Logo>'
        '<mdui:Logo height="x" width="y">http://sp.example.com/logo.png</mdui:Logo>'
        "</mdui:UIInfo></md:Extensions>"
    )
    metadata = parse(make_entity(make_role(ui_info + ACS), more=more))
    assert [(one.language, one.text) for one in metadata.display_names] == [("en", "My Portal")]
    assert [one.text for one in metadata.descriptions] == ["Usage"]
    assert [one.text for one in metadata.information_urls] == ["https://sp.example.com/info"]
    assert [(one.url, one.width, one.height) for one in metadata.logos] == [("https://sp.example.com/logo.png", 32, 16)]
    assert metadata.organization is not None
    assert metadata.organization.display_names[0].text == "Example Co"
    assert [(one.kind, one.given_name, one.emails, one.phones) for one in metadata.contacts] == [
        ("technical", "Ops", ("ops@example.com",), ("555-0100",))
    ]


def test_the_earliest_end_and_the_shortest_time_to_keep_count() -> None:
    role = make_role(attributes='validUntil="2026-06-01T02:00:00+02:00" cacheDuration="PT1H"')
    entity = make_entity(role, attributes='validUntil="2026-07-01T00:00:00.123456789Z"')
    metadata = parse(make_group(entity, attributes='validUntil="2027-01-01T00:00:00Z" cacheDuration="P1D"'))
    assert metadata.valid_until == datetime(2026, 6, 1, tzinfo=UTC)
    assert metadata.cache_duration == timedelta(hours=1)


def test_nested_groups_narrow_validity_too() -> None:
    inner = make_group(make_entity(), attributes='validUntil="2026-06-01T00:00:00Z"')
    assert parse(make_group(inner)).valid_until == datetime(2026, 6, 1, tzinfo=UTC)
    expired = make_group(make_entity(), attributes='validUntil="2025-06-01T00:00:00Z"')
    report = check(make_group(expired, make_entity(name="https://two.example.com/")))
    assert [one.entity_id for one in report.usable] == ["https://two.example.com/"]
    assert [one.code for one in report.entities[0].findings if one.refuses] == ["metadata-expired"]
    assert report.entities[0].findings[0].where == ENTITY_ID


def test_booleans_may_be_digits_and_odd_ones_are_told() -> None:
    metadata = parse(make_entity(make_role(attributes='WantAssertionsSigned="1" AuthnRequestsSigned="0"')))
    assert (metadata.want_assertions_signed, metadata.authn_requests_signed) == (True, False)
    odd = make_entity(make_role(attributes='AuthnRequestsSigned="TRUE" WantAssertionsSigned="yes"'))
    assert (parse(odd).authn_requests_signed, parse(odd).want_assertions_signed) == (True, False)
    assert "boolean-malformed" in codes_of(odd)


# ACS choice


@pytest.mark.parametrize(
    ("defaults", "chosen"),
    [
        (("", "", ""), 0),
        (("", "true", ""), 1),
        (("false", "", ""), 1),
        (("false", "false", "false"), 0),
        (("1", "true", ""), 0),
    ],
)
def test_a4_the_default_acs(defaults: tuple[str, ...], chosen: int) -> None:
    services = [make_acs(f"https://sp.example.com/{n}", index=n, default=one) for n, one in enumerate(defaults)]
    assert choose_acs(parse(make_entity(make_role("".join(services)))), None).index == chosen


def test_a4_the_default_may_stand_anywhere_and_have_any_index() -> None:
    assert choose_acs(parse(read_case("good/acs-index-gaps-order")), None).index == 3


def test_a_configured_acs_is_found_by_index_or_location() -> None:
    metadata = parse(read_case("good/world-sp1-signed-requests"))
    assert choose_acs(metadata, 1).location == "https://sp.example.com/saml/acs-alt"
    assert choose_acs(metadata, "https://sp.example.com/saml/acs-alt").index == 1


@pytest.mark.parametrize("configured", [2, 7, -1, "https://sp.example.com/saml/ACS", "https://evil.example/", ""])
def test_a1_a2_an_acs_that_the_metadata_lacks_is_refused(configured: int | str) -> None:
    metadata = parse(read_case("good/world-sp1-signed-requests"))
    with pytest.raises(MetadataRefused) as caught:
        choose_acs(metadata, configured)
    assert caught.value.code == "acs-not-in-metadata"
    (finding,) = caught.value.findings
    assert str(configured) in finding.message
    assert "https://sp.example.com/saml/acs-alt" in finding.message


def test_an_index_is_not_a_truth_value() -> None:
    metadata = replace(parse(make_entity()), acs=(Endpoint(POST, "https://sp.example.com/acs", index=None),))
    with pytest.raises(MetadataRefused):
        choose_acs(metadata, 0)


# X: intake


def test_x1_an_external_entity_reads_no_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it for reading waits for ever
    for name in ("bad/xxe-file", "bad/xxe-public-id"):
        assert errors_of(read_case(name)) == {"xml-doctype"}
    report = check(f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{pipe}">]>' + make_entity(name="&x;"))
    assert [one.code for one in report.findings] == ["xml-doctype"]
    assert "root:" not in str(check(read_case("bad/xxe-file")))


def test_x2_an_external_entity_opens_no_connection() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.05)
        place = f"127.0.0.1:{listener.getsockname()[1]}".encode()
        for name in ("xxe-http", "xxe-parameter-entity", "xxe-external-dtd", "signed-reference-http"):
            data = read_case(f"bad/{name}")
            assert b"127.0.0.1" in data
            assert check(re.sub(rb"127\.0\.0\.1(:\d+)?", place, data)).refused
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("name", ["xxe-entity-in-attribute", "dtd-bare", "dtd-default-attribute", "dtd-id-attribute"])
def test_x3_x5_any_document_type_is_refused(name: str) -> None:
    assert errors_of(read_case(f"bad/{name}")) == {"xml-doctype"}


def test_x6_a_document_type_hidden_by_its_encoding_is_refused() -> None:
    assert errors_of(read_case("bad/dtd-in-utf7")) == {"xml-encoding"}
    hidden = f'<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a>{make_entity()}'
    assert errors_of(hidden.encode("utf-16")) == {"xml-doctype"}


def test_x7_xinclude_is_refused() -> None:
    assert errors_of(read_case("bad/xinclude-file")) == {"xml-xinclude"}


def test_x8_processing_instructions_are_refused_wherever_they_stand() -> None:
    instruction = '<?xml-stylesheet href="x.xsl"?>'
    for text in (instruction + make_entity(), make_entity() + instruction, make_entity(more=instruction)):
        assert errors_of(text) == {"xml-processing-instruction"}


def test_x9_depth_is_refused() -> None:
    assert errors_of(make_entity(more="<a>" * 70 + "</a>" * 70)) == {"xml-depth"}


def test_x10_x11_floods_are_refused() -> None:
    flood = " ".join(f'a{one}="1"' for one in range(300))
    assert errors_of(make_entity(attributes=flood)) == {"xml-attributes"}
    assert errors_of(make_entity(more=" " * 5_300_000)) == {"xml-too-large"}


def test_x12_compressed_files_are_refused() -> None:
    assert errors_of(read_case("bad/file-gzip")) == {"xml-gzip"}
    assert errors_of(read_case("bad/file-gzip-bomb")) == {"xml-gzip"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_x14_accepted_encodings_give_the_same_values(encoding: str) -> None:
    organization = '<md:Organization><md:OrganizationName xml:lang="sv">Älv</md:OrganizationName></md:Organization>'
    declared = {"utf-8-sig": "utf-8"}.get(encoding, encoding)
    text = f'<?xml version="1.0" encoding="{declared}"?>{make_entity(more=organization)}'
    assert parse(text.encode(encoding)) == parse(make_entity(more=organization))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("file-html-login-page", "HTML page"),
        ("file-html-xhtml", "HTML page"),
        ("file-json", "JSON"),
        ("file-pem", "PEM"),
        ("file-png", "picture"),
        ("file-empty", "empty"),
        ("real-opensaml-not-xml", "plain text"),
    ],
)
def test_x16_what_is_no_metadata_is_named(name: str, words: str) -> None:
    (finding,) = check(read_case(f"bad/{name}")).findings
    assert words in finding.message
    assert finding.fix


@pytest.mark.parametrize("value", ["urn:a<!-- -->urn:b", "<x/>urn:a", "urn:a<!---->"])
def test_x17_a_split_value_is_refused(value: str) -> None:
    assert errors_of(make_entity(make_role(f"<md:NameIDFormat>{value}</md:NameIDFormat>{ACS}"))) == {
        "xml-value-not-text"
    }
    body = base64.b64encode(read_der("sp-signing")).decode()
    split = make_key_of(body[:20] + "<!-- -->" + body[20:])
    assert errors_of(make_entity(make_role(split + ACS))) == {"xml-value-not-text"}


def test_x18_a_relative_namespace_is_no_failure() -> None:
    assert not check(read_case("good/pyff-stockholm-relative-namespace")).refused
    signed = read_case("good/signed-rsa-sha256").replace(
        b"<md:EntityDescriptor", b'<md:EntityDescriptor xmlns:x="y"', 1
    )
    assert signed != read_case("good/signed-rsa-sha256")
    assert errors_of(signed) == {"signature-invalid"}


def test_x19_repeated_ids_are_refused() -> None:
    two = make_group(make_entity(attributes='ID="_1"'), make_entity(name="urn:two", attributes='ID="_1"'))
    assert errors_of(two) == {"xml-duplicate-id"}


def test_x23_a_truncated_file_is_refused() -> None:
    whole = read_case("good/world-sp1-signed-requests")
    for length in (200, 1000, len(whole) - 20):
        assert errors_of(whole[:length]) == {"xml-malformed"}


# M: meaning


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ns-wrong", "namespace urn:oasis:names:tc:SAML:metadata:1.0"),
        ("real-samlify-98-no-namespace", "no namespace"),
        ("real-python3-saml-wrong-root", "EntityDescriptor2"),
        ("real-opensaml-role-as-root", "only a part"),
    ],
)
def test_m1_another_root_is_named(name: str, words: str) -> None:
    assert errors_of(read_case(f"bad/{name}")) == {"metadata-root"}
    assert words in find(read_case(f"bad/{name}"), "metadata-root").message


def test_m1_a_saml_message_is_named() -> None:
    message = '<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"/>'
    assert "SAML message" in find(message, "metadata-root").message


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("role-idp-only", "sp-role-missing", "identity provider"),
        ("real-opensaml-affiliation", "sp-role-missing", "affiliation"),
        ("role-none", "sp-role-missing", "no service provider role"),
        ("role-saml11-only", "sp-role-not-saml2", "SAML 2.0"),
        ("role-no-protocol", "sp-role-not-saml2", "SAML 2.0"),
    ],
)
def test_m2_what_is_no_saml2_service_provider_is_refused(name: str, code: str, words: str) -> None:
    assert errors_of(read_case(f"bad/{name}")) == {code}
    assert words in find(read_case(f"bad/{name}"), code).message


def test_m3_a_role_hidden_in_an_extension_does_not_count() -> None:
    assert errors_of(read_case("bad/role-sp-inside-extensions")) == {"sp-role-missing"}
    hidden_acs = f"<md:Extensions>{ACS}</md:Extensions>"
    assert errors_of(make_entity(make_role(hidden_acs))) == {"acs-missing"}


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("javascript:alert(1)", "scheme"),
        ("JavaScript:alert(1)", "scheme"),
        ("java&#10;script:alert(1)", "characters"),
        ("&#9;javascript:alert(1)", "characters"),
        ("vbscript:x", "scheme"),
        ("data:text/html,x", "scheme"),
        ("ftp://sp.example.com/acs", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("/acs", "relative"),
        ("//sp.example.com/acs", "relative"),
        ("sp.example.com/acs", "relative"),
        ("https:/sp.example.com/acs", "host"),
        ("https:sp.example.com", "host"),
        ("https:///acs", "host"),
        ("https://", "host"),
        ("https://sp.example.com@evil.example/acs", "userinfo"),
        ("https://@sp.example.com/acs", "userinfo"),
        ("https://sp.example.com\\@evil.example/acs", "characters"),
        ("https:\\\\sp.example.com/acs", "characters"),
        ("https://sp.example.com/acs&#10;Set-Cookie: x", "characters"),
        (" https://sp.example.com/acs", "characters"),
        ("https://sp.example.com/a b", "characters"),
        ("https://sp.example.com/acs#x", "fragment"),
        ("https://sp.example.com/acs#", "fragment"),
        ("https://*.example.com/acs", "wildcard"),
        ("https://sp.example.com/*", "wildcard"),
        ("https://sp.example.com:0/acs", "port"),
        ("https://sp.example.com:65536/acs", "port"),
        ("https://sp.example.com:x/acs", "port"),
        ("https://sp.example.com:/acs", "port"),
        ("https://sp%2eexample.com/acs", "host"),
        ("https://[::1/acs", "host"),
        ("https://bücher.example/acs", "characters"),
        ("https://sp.example.com/‮acs", "characters"),
    ],
)
def test_m4_a_location_that_is_no_plain_https_url_is_refused(location: str, code: str) -> None:
    good = make_acs("https://sp.example.com/acs", index=1)
    found = errors_of(make_entity(make_role(make_acs(location) + good)))
    assert f"acs-location-{code}" in found
    slo = f'<md:SingleLogoutService Binding="{POST}" Location="{location}"/>'
    assert f"endpoint-location-{code}" in errors_of(make_entity(make_role(slo + ACS)))


@pytest.mark.parametrize(
    "location",
    [
        "https://sp.example.com",
        "HTTPS://SP.example.com/acs",
        "https://sp.example.com:8443/acs;v=1?a=b&amp;c=%20(d)",
        "https://xn--bcher-kva.example/acs",
        "https://my_host.example/acs",
        "https://[2001:db8::1]:443/acs",
    ],
)
def test_m4_plain_https_urls_are_kept_as_they_stand(location: str) -> None:
    assert parse(make_entity(make_role(make_acs(location)))).acs[0].location == location.replace("&amp;", "&")


SLO = "SingleLogoutService"


@pytest.mark.parametrize("location", ["", "  ", None])
@pytest.mark.parametrize("kind", [SLO, "ArtifactResolutionService", "ManageNameIDService", "AssertionConsumerService"])
def test_m4_an_empty_endpoint_that_a_launch_does_without_is_left_out(kind: str, location: str | None) -> None:
    place = "" if location is None else f'Location="{location}"'
    empty = f'<md:{kind} Binding="urn:oasis:names:tc:SAML:2.0:bindings:SOAP" {place} index="9"/>'
    text = make_entity(make_role(empty + ACS))
    found = find(text, "endpoint-location-missing")
    assert found.severity is Severity.WARNING
    assert kind in found.message
    metadata = parse(text)
    assert (metadata.slo, metadata.other_acs, len(metadata.acs)) == ((), (), 1)


def test_m4_an_empty_place_to_post_to_is_refused_even_beside_another() -> None:
    """It may be the partner's default, and nobody can tell where that was."""
    assert errors_of(make_entity(make_role(ACS + make_acs("", index=1)))) == {"acs-location-missing"}


def test_m4_an_empty_address_for_answers_is_none() -> None:
    logout = f'<md:{SLO} Binding="{POST}" Location="https://sp.example.com/slo" ResponseLocation=""/>'
    text = make_entity(make_role(logout + ACS))
    assert [(one.location, one.response_location) for one in parse(text).slo] == [("https://sp.example.com/slo", None)]
    assert find(text, "endpoint-location-missing").severity is Severity.WARNING


@pytest.mark.parametrize("written", ["&amp;amp;", "&amp;AMP;"])
def test_m4_an_address_that_was_escaped_twice_is_told_and_taken_as_it_stands(written: str) -> None:
    acs = make_acs(f"https://sp.example.com/acs?a=1{written}b=2")
    logout = f'<md:{SLO} Binding="{POST}" Location="https://sp.example.com/slo?a=1{written}b=2"/>'
    for inside in (acs, logout + ACS):
        found = find(make_entity(make_role(inside)), "location-escaped-twice")
        assert (found.severity, "escaped twice" in found.message) == (Severity.WARNING, True)
    assert parse(make_entity(make_role(acs))).acs[0].location == f"https://sp.example.com/acs?a=1&{written[5:]}b=2"
    plain = make_acs("https://sp.example.com/acs?a=1&amp;b=2&amp;ampere=3")
    assert "location-escaped-twice" not in codes_of(make_entity(make_role(plain)))


def test_m4_a_script_anywhere_refuses_the_whole_file() -> None:
    good, artifact = make_entity(), "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Artifact"
    for role in (
        make_role(make_acs("javascript:x", binding=artifact) + ACS),
        make_role(ACS.replace("/>", ' ResponseLocation="javascript:x"/>')),
        make_role(ACS, attributes='errorURL="JAVASCRIPT:x"'),
    ):
        evil = make_entity(role, name="https://evil.example/")
        assert "url-script" in errors_of(make_group(good, evil))
        assert check(make_group(good, evil)).usable == ()
        with pytest.raises(MetadataRefused):
            parse(make_group(good, evil), entity_id=ENTITY_ID)


@pytest.mark.parametrize("name", ["artifact-only", "paos-only", "redirect-only"])
def test_m5_without_a_post_acs_it_is_refused(name: str) -> None:
    assert errors_of(read_case(f"bad/acs-{name}")) == {"acs-post-missing"}
    assert errors_of(make_entity(make_role(""))) == {"acs-missing"}


def test_m6_http_is_refused_but_for_the_deployments_switch() -> None:
    text = make_entity(make_role(make_acs("http://sp.example.com/acs")))
    assert errors_of(text) == {"acs-http"}
    assert parse(text, allow_http=True).acs[0].location == "http://sp.example.com/acs"


def test_m6_http_beside_https_is_left_out_with_a_warning() -> None:
    metadata = parse(read_case("good/acs-http-beside-https-warn"))
    assert [one.location[:6] for one in metadata.acs] == ["https:"]
    assert find(read_case("good/acs-http-beside-https-warn"), "acs-http-left-out").severity is Severity.WARNING
    assert len(parse(read_case("good/acs-http-beside-https-warn"), allow_http=True).acs) == 2


def test_m6_an_http_logout_is_left_out() -> None:
    text = make_entity(make_role(f'<md:SingleLogoutService Binding="{POST}" Location="http://sp.example.com/x"/>{ACS}'))
    assert parse(text).slo == ()
    assert len(parse(text, allow_http=True).slo) == 1


@pytest.mark.parametrize(
    ("until", "code"),
    [
        ("2026-01-15T12:00:00Z", "metadata-expired"),
        ("2026-01-15T11:59:59.999Z", "metadata-expired"),
        ("2026-01-15T13:00:00+02:00", "metadata-expired"),
        ("0001-01-01T00:00:00+14:00", "metadata-expired"),
        ("2030-01-01", "valid-until-malformed"),
        ("2030-01-01 00:00:00Z", "valid-until-malformed"),
        ("2030-W01-1T00:00:00Z", "valid-until-malformed"),
        ("2030-02-30T00:00:00Z", "valid-until-malformed"),
        ("2030-01-01T25:00:00Z", "valid-until-malformed"),
        ("2030-01-01T00:00:00+15:00", "valid-until-malformed"),
        ("٢٠٣٠-01-01T00:00:00Z", "valid-until-malformed"),
        ("", "valid-until-malformed"),
        ("never", "valid-until-malformed"),
    ],
)
def test_m7_expired_or_unreadable_validity_is_refused_at_every_level(until: str, code: str) -> None:
    attribute = f'validUntil="{until}"'
    for text in (
        make_entity(attributes=attribute),
        make_entity(make_role(attributes=attribute)),
        make_group(make_entity(), attributes=attribute),
        make_group(make_group(make_entity(), attributes=attribute)),
    ):
        assert errors_of(text) == {code}


@pytest.mark.parametrize(
    ("until", "read"),
    [
        ("2026-01-15T13:00:00-02:00", datetime(2026, 1, 15, 15, tzinfo=UTC)),
        ("2026-01-15T12:00:00.000001Z", datetime(2026, 1, 15, 12, 0, 0, 1, tzinfo=UTC)),
        ("2026-01-15T24:00:00Z", datetime(2026, 1, 16, tzinfo=UTC)),
        ("2030-01-01T00:00:00", datetime(2030, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59-14:00", datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_m7_validity_is_read_as_utc(until: str, read: datetime) -> None:
    assert parse(make_entity(attributes=f'validUntil="{until}"')).valid_until == read


def test_m7_metadata_that_expired_since_can_still_be_read_for_a_launch() -> None:
    text = make_entity(attributes='validUntil="2026-01-16T00:00:00Z"').encode()
    later = CLOCK + timedelta(days=2)
    with pytest.raises(MetadataRefused) as caught:
        check_metadata(text, now=later).find_provider()
    assert caught.value.code == "metadata-expired"
    assert check_metadata(text, now=later, check_validity=False).find_provider().valid_until == datetime(
        2026, 1, 16, tzinfo=UTC
    )
    report = check_metadata(text, now=later, check_validity=False)
    assert [one.severity for one in report.all_findings if one.code == "metadata-expired"] == [Severity.WARNING]


def test_m7_an_end_within_two_weeks_is_told_with_its_date() -> None:
    finding = find(make_entity(attributes='validUntil="2026-01-17T12:00:00Z"'), "metadata-expires-soon")
    assert finding.severity is Severity.WARNING
    assert "2026-01-17" in finding.message
    assert "metadata-expires-soon" not in codes_of(make_entity(attributes='validUntil="2026-02-17T12:00:00Z"'))


@pytest.mark.parametrize(
    ("duration", "code"),
    [("-P1D", "cache-duration-negative"), ("1 day", "cache-duration-malformed"), ("P", "cache-duration-malformed")],
)
def test_m8_a_cache_duration_that_makes_no_sense_is_refused(duration: str, code: str) -> None:
    assert errors_of(make_entity(attributes=f'cacheDuration="{duration}"')) == {code}


@pytest.mark.parametrize(("duration", "seconds"), [("PT1S", 1), ("PT0S", 0), ("P1Y2M3DT4H5M6.7S", 36_993_906)])
def test_m8_cache_durations_are_read(duration: str, seconds: int) -> None:
    assert parse(make_entity(attributes=f'cacheDuration="{duration}"')).cache_duration == timedelta(seconds=seconds)


def test_m8_an_endless_cache_duration_is_no_failure() -> None:
    assert parse(make_entity(attributes=f'cacheDuration="P{"9" * 40}D"')).cache_duration > timedelta(days=365_000)


def test_m11_an_entity_id_twice_refuses_both() -> None:
    text = make_group(make_entity(), make_group(make_entity()), make_entity(name="https://other.example/"))
    report = check(text)
    assert [one.entity_id for one in report.usable] == ["https://other.example/"]
    with pytest.raises(MetadataRefused) as caught:
        parse(text, entity_id=ENTITY_ID)
    assert caught.value.code in ("entity-id-repeated", "entity-not-chosen")


def test_m12_our_own_entity_id_is_refused() -> None:
    assert errors_of(make_entity(), own_entity_id=ENTITY_ID) == {"entity-id-own"}
    assert errors_of(make_entity(), own_entity_id="https://idp.example.com/") == set()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("key-cert-garbage", "certificate-broken"),
        ("key-cert-truncated", "certificate-broken"),
        ("key-private-key-pasted", "private-key-in-file"),
        ("key-rsa512", "key-too-weak"),
    ],
)
def test_m13_broken_and_weak_keys_are_refused(name: str, code: str) -> None:
    assert errors_of(read_case(f"bad/{name}")) == {code}


def test_m13_a_private_key_is_never_repeated() -> None:
    text = read_case("bad/key-private-key-pasted")
    assert b"MIIE" in text
    assert "MIIE" not in str(check(text))
    wide = text.decode().encode("utf-16")
    assert errors_of(wide.replace("UTF-8".encode("utf-16-le"), "UTF-16".encode("utf-16-le"))) == {"private-key-in-file"}


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("rsa1024", "key-short"),
        ("expired", "certificate-expired"),
        ("not-yet-valid", "certificate-not-yet-valid"),
        ("md5-signed", "certificate-weak-hash"),
        ("dsa2048", "key-type-unusable"),
        ("ed25519", "key-type-unusable"),
    ],
)
def test_m13_odd_keys_are_accepted_with_a_warning(key: str, code: str) -> None:
    text = make_entity(make_role(make_key(key) + ACS))
    assert find(text, code).severity is Severity.WARNING
    certificates = parse(text).certificates
    assert [one.der for one in certificates] == [read_der(key)]


@pytest.mark.parametrize("key", ["expired", "not-yet-valid", "md5-signed"])
def test_m13_one_certificate_makes_one_warning_however_often_it_stands_there(key: str) -> None:
    uses = make_key(key, use="signing") + make_key(key, use="encryption") + make_key(key)
    report = check(make_entity(make_role(uses + ACS)))
    said = [one.code for one in report.all_findings if one.code.startswith("certificate-")]
    assert said
    assert len(said) == len(set(said))


def test_m13_an_address_over_http_names_both_ways_to_take_it_for_a_trial() -> None:
    finding = find(make_entity(make_role(ACS.replace("https:", "http:"))), "acs-http")
    assert "--allow-http" in finding.fix
    assert "SAML_BRIDGE_ALLOW_HTTP_ACS=1" in finding.fix


def test_m13_a_short_key_is_never_encrypted_to_and_an_unlisted_kind_never_verifies() -> None:
    short = parse(make_entity(make_role(make_key("rsa1024") + ACS)))
    assert short.signing_certificates
    assert short.encryption_certificates == ()
    unlisted = parse(make_entity(make_role(make_key("dsa2048") + make_key("ed25519") + ACS)))
    assert unlisted.signing_certificates == ()
    assert unlisted.encryption_certificates == ()
    curve = parse(make_entity(make_role(make_key("ec-p256") + ACS)))
    assert curve.signing_certificates
    assert curve.encryption_certificates == ()


def test_m13_uses_are_kept_apart_and_both_keys_of_a_rollover_are_read() -> None:
    keys = make_key("sp-signing", use="signing") + make_key("sp-signing-next", use="signing")
    metadata = parse(make_entity(make_role(keys + make_key("sp-encryption", use="encryption") + ACS)))
    assert [one.der for one in metadata.signing_certificates] == [read_der("sp-signing"), read_der("sp-signing-next")]
    assert [one.der for one in metadata.encryption_certificates] == [read_der("sp-encryption")]


def test_m13_the_same_key_is_read_once_for_a_use() -> None:
    keys = make_key("sp-signing") * 3 + make_key("sp-signing", use="signing")
    assert [one.use for one in parse(make_entity(make_role(keys + ACS))).certificates] == [None, "signing"]


def test_m13_an_unknown_use_and_a_key_without_certificate_are_passed_over() -> None:
    bare = '<md:KeyDescriptor><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"/></md:KeyDescriptor>'
    text = make_entity(make_role(make_key("sp-signing", use="both") + bare + ACS))
    assert parse(text).certificates == ()
    assert {"key-use-unknown", "key-without-certificate"} <= codes_of(text)


def test_m13_a_weak_exponent_is_refused() -> None:
    der = read_der("sp-signing")
    weak = der.replace(b"\x02\x03\x01\x00\x01", b"\x02\x03\x00\xff\xff")
    assert weak != der
    assert errors_of(make_entity(make_role(make_key_of(base64.b64encode(weak).decode()) + ACS))) == {
        "key-exponent-weak"
    }


def test_m14_encryption_methods_are_read_and_a_downgrade_is_told() -> None:
    xenc = "http://www.w3.org/2001/04/xmlenc#"
    rsa15 = make_entity(make_role(make_key("sp-encryption", methods=(f"{xenc}rsa-1_5", f"{xenc}aes128-cbc")) + ACS))
    assert parse(rsa15).encryption_methods == (f"{xenc}rsa-1_5", f"{xenc}aes128-cbc")
    assert {"encryption-rsa15-only", "encryption-cbc-only"} <= codes_of(rsa15)
    good = read_case("good/keys-enc-methods-gcm-oaep")
    assert len(parse(good).encryption_methods) > 1
    assert not {"encryption-rsa15-only", "encryption-cbc-only"} & codes_of(good)


def test_m15_texts_for_display_keep_markup_as_text_and_lose_what_cannot_be_seen() -> None:
    names = [one.text for one in parse(read_case("good/mdui-xss-displayname-escape")).display_names]
    assert any("<" in one for one in names)
    for one in parse(read_case("good/mdui-bidi-zero-width-neutralise")).display_names:
        assert not set(one.text) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\u200c\u200d\ufeff")
        assert one.text.isprintable()


@pytest.mark.parametrize("name", ["display-infourl-javascript", "display-logo-javascript"])
def test_m15_scripts_among_display_urls_refuse_the_file(name: str) -> None:
    assert errors_of(read_case(f"bad/{name}")) == {"url-script"}


def test_m15_embedded_logos_are_not_kept() -> None:
    metadata = parse(read_case("good/switch-auth0"))
    assert all(one.url.startswith("https://") for one in metadata.logos)
    assert "logo-embedded" in codes_of(read_case("good/switch-auth0"))


@pytest.mark.parametrize(
    "name", [case.name for case in read_index() if case.name.startswith(("bad/signed-", "bad/xsw-"))]
)
def test_m16_with_a_pinned_signer_anything_else_is_refused(name: str) -> None:
    report = check(read_case(name), pinned=[read_pin("federation-signer")])
    assert report.refused
    assert any(one.code.startswith("signature-") and one.refuses for one in report.findings)
    assert report.signature != "pinned"


@pytest.mark.parametrize(
    ("name", "pin"),
    [
        ("signed-rsa-sha256", "federation-signer"),
        ("signed-rsa-sha512", "federation-signer"),
        ("signed-aggregate", "federation-signer"),
        ("signed-ecdsa-sha256", "ec-p256"),
    ],
)
def test_m16_what_the_pinned_signer_signed_is_accepted(name: str, pin: str) -> None:
    report = check(read_case(f"good/{name}"), pinned=[read_pin("sp-signing"), read_pin(pin)])
    assert not report.refused
    assert report.signature == "pinned"
    assert check(read_case(f"good/{name}"), pinned=[]).refused
    assert check(read_case(f"good/{name}"), pinned=[read_pin("attacker")]).refused


def test_m16_without_a_pin_a_file_altered_since_it_was_signed_is_refused() -> None:
    good = read_case("good/signed-rsa-sha256")
    assert check(good).signature == "own"
    altered = good.replace(b"https://sp.example.com/saml/acs", b"https://sp.example.com/saml/acz", 1)
    assert altered != good
    assert errors_of(altered) == {"signature-invalid"}
    assert errors_of(read_case("bad/signed-tampered-acs")) == {"signature-invalid"}


def test_m16_a_signature_that_cannot_be_checked_is_told() -> None:
    without = re.sub(rb"<ds:KeyInfo>.*?</ds:KeyInfo>", b"", read_case("good/signed-rsa-sha256"), flags=re.DOTALL)
    report = check(without)
    assert report.signature == "unchecked"
    assert "signature-unchecked" in {one.code for one in report.findings}
    assert check(read_case("bad/signed-rsa-sha1")).signature == "unchecked"
    assert check(read_case("good/keys-none")).signature == "none"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "entity-id-missing"),
        (" ", "entity-id-characters"),
        ("https://sp.example.com/a b", "entity-id-characters"),
        (" https://sp.example.com/", "entity-id-characters"),
        ("https://sp.example.com/&#10;x", "entity-id-characters"),
        ("https://sp.example.com/\u202ex", "entity-id-characters"),
        ("https://sp.example.com/\u200bx", "entity-id-characters"),
        ("https://sp.example.com/\u00a0x", "entity-id-characters"),
        ("javascript:alert(1)", "entity-id-script"),
        ("x" * 1025, "entity-id-too-long"),
    ],
)
def test_m17_entity_ids_that_are_no_names_are_refused(name: str, code: str) -> None:
    assert errors_of(make_entity(name=name)) == {code}


def test_m17_the_longest_entity_id_and_odd_ones_are_accepted_as_they_stand() -> None:
    assert parse(read_case("good/entityid-1024")).entity_id.startswith("https://")
    for name in ("google.com/a/example.com", "urn:federation:MicrosoftOnline"):
        assert parse(make_entity(name=name)).entity_id == name
    assert "entity-id-not-uri" in codes_of(make_entity(name="google.com/a/example.com"))


def test_m18_more_than_256_acs_are_refused() -> None:
    many = [make_acs(f"https://sp.example.com/{one}", index=one) for one in range(257)]
    assert errors_of(make_entity(make_role("".join(many)))) == {"acs-too-many"}
    assert len(parse(make_entity(make_role("".join(many[1:])))).acs) == 256


@pytest.mark.parametrize("index", ["-1", "70000", "one", "1.0", "", "٣"])
def test_m18_an_index_that_is_none_is_refused(index: str) -> None:
    assert errors_of(make_entity(make_role(make_acs("https://sp.example.com/acs", index=index)))) == {
        "acs-index-malformed"
    }


def test_m18_repeated_and_missing_indexes_are_told() -> None:
    twice = make_acs("https://sp.example.com/1", default="true") + make_acs("https://sp.example.com/2", default="true")
    assert {"acs-index-repeated", "acs-default-repeated"} <= codes_of(make_entity(make_role(twice)))
    without = ACS.replace(' index="0"', "")
    assert parse(make_entity(make_role(without))).acs[0].index is None
    assert "acs-index-missing" in codes_of(make_entity(make_role(without)))


def test_m20_requested_attributes_are_read_as_wishes() -> None:
    wishes = parse(read_case("good/requested-attributes")).requested_attributes
    assert wishes
    assert any(one.required for one in wishes)
    assert all(isinstance(one, RequestedAttribute) and one.name for one in wishes)


# Files of several


def test_an_aggregate_is_judged_entity_by_entity() -> None:
    good, evil = make_entity(), make_entity(make_role(""), name="https://evil.example/")
    idp = f'<md:EntityDescriptor {MD} entityID="https://idp.example.com/"><md:IDPSSODescriptor/></md:EntityDescriptor>'
    report = check(make_group(good, evil, idp))
    assert not report.refused
    assert [(one.entity_id, one.refused) for one in report.entities] == [
        (ENTITY_ID, False),
        ("https://evil.example/", True),
    ]
    assert "entities-passed-over" in codes_of(make_group(good, idp))
    assert errors_of(make_group(evil)) == {"acs-missing"}
    assert errors_of(make_group(idp)) == {"sp-role-missing"}
    assert errors_of(make_group()) == {"sp-role-missing"}


def test_one_of_an_aggregate_is_chosen_by_its_entity_id() -> None:
    text = make_group(make_entity(), make_entity(name="https://two.example.com/"))
    assert parse(text, entity_id="https://two.example.com/").entity_id == "https://two.example.com/"
    with pytest.raises(MetadataRefused) as caught:
        parse(text)
    assert caught.value.code == "entity-not-chosen"
    assert ENTITY_ID in caught.value.detail
    assert "https://two.example.com/" in caught.value.detail
    with pytest.raises(MetadataRefused) as caught:
        parse(text, entity_id="https://three.example.com/")
    assert caught.value.code == "entity-not-found"
    assert ENTITY_ID in caught.value.detail
    with pytest.raises(MetadataRefused):
        parse(make_entity(), entity_id=ENTITY_ID.upper())


def test_an_aggregate_of_one_needs_no_choice() -> None:
    assert parse(make_group(make_entity())).entity_id == ENTITY_ID
    assert parse(read_case("good/python3-saml-testshib-providers")).acs


def test_of_thousands_only_some_are_listed() -> None:
    with pytest.raises(MetadataRefused) as caught:
        parse(make_group(*(make_entity(name=f"urn:{one}") for one in range(50))))
    assert "urn:19" in caught.value.detail
    assert "30 more" in caught.value.detail
    assert "urn:20," not in caught.value.detail


def test_the_entity_that_breaks_the_schema_is_named() -> None:
    odd = make_entity(more="<md:Unknown/>", name="https://odd.example/")
    report = check(make_group(make_entity(), odd))
    assert len(report.usable) == 2
    named = [one.entity_id for one in report.entities if any(each.code == "schema-invalid" for each in one.findings)]
    assert named == ["https://odd.example/"]


def test_a_refusal_carries_every_finding() -> None:
    text = make_entity(make_role(make_acs("/acs") + make_key("rsa512")), attributes='validUntil="2020-01-01T00:00:00Z"')
    with pytest.raises(MetadataRefused) as caught:
        parse(text)
    assert {"acs-location-relative", "key-too-weak", "metadata-expired"} <= {one.code for one in caught.value.findings}
    assert caught.value.detail
    assert caught.value.code in {one.code for one in caught.value.findings if one.refuses}


def test_hostile_values_are_shown_printable_and_short() -> None:
    name = "https://sp.example.com/\u202e&#10;" + "x" * 900
    for finding in check(make_entity(make_role(make_acs("/" + "y" * 5000)), name=name)).all_findings:
        assert finding.where.isprintable()
        assert finding.message.isprintable()
        assert len(finding.where) < 400
        assert len(finding.message) < 400


# Anything at all


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_arbitrary_bytes_make_a_report(data: bytes) -> None:
    assert check_metadata(data, now=CLOCK).refused


SEEDS = [
    (CORPUS / "sp-metadata" / "good" / f"{name}.xml").read_bytes()
    for name in ("world-sp1-signed-requests", "signed-rsa-sha256", "encoding-utf16-bom", "requested-attributes")
]
SNIPPETS = [
    b"<",
    b">",
    b'"',
    b"&",
    b"<!--",
    b"-->",
    b"]]>",
    b"javascript:",
    b"\x00",
    b"\xff",
    b" ",
    b"<?x?>",
    b"#",
    b"/",
    b"9",
]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_good_files_make_a_report(data: st.DataObject) -> None:
    """Any change in a good file gives a report.

    Only a file that parses again is accepted.
    """
    whole = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(whole)))
        length = data.draw(st.integers(0, 12))
        whole[start : start + length] = data.draw(st.sampled_from(SNIPPETS) | st.binary(max_size=4))
    mutant = bytes(whole)
    report = check_metadata(mutant, now=CLOCK)
    try:
        metadata = check_metadata(mutant, now=CLOCK).find_provider()
    except MetadataRefused as refused:
        metadata = None
        found = refused.findings
    else:
        found = report.all_findings
    assert (metadata is None) is report.refused
    assert found == report.all_findings
    if metadata is not None:
        assert all(one.location.lower().startswith("https://") for one in metadata.acs)
