"""Every metadata file of the corpus, at its clock.

Each has a verdict, a time that it takes, and values that were read from it.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lxml.etree
import pytest

from saml_bridge.protocols.saml.metadata.judge import MetadataReport, check_metadata
from saml_bridge.protocols.saml.metadata.service_provider import choose_acs
from saml_bridge.protocols.saml.xml.parse import list_schema_errors
from tests.protocols.saml.corpus import CLOCK, CORPUS, Case, read_index, read_pin
from tests.work import counting_work

CASES = read_index()
GOOD = [case for case in CASES if case.verdict == "accept"]
BAD = [case for case in CASES if case.verdict == "reject"]
NS = {"md": "urn:oasis:names:tc:SAML:2.0:metadata", "ds": "http://www.w3.org/2000/09/xmldsig#"}
POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
_opened: list[str] = []
_watching = False


def _listen(event: str, arguments: tuple[object, ...]) -> None:
    if _watching and event in ("open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
        _opened.append(f"{event} {arguments[0]}")


sys.addaudithook(_listen)


@contextmanager
def watch_openings() -> Iterator[list[str]]:
    """Collects every file, address and process that Python opens meanwhile."""
    global _watching
    _opened.clear()
    _watching = True
    try:
        yield _opened
    finally:
        _watching = False


def check(case: Case, data: bytes | None = None) -> MetadataReport:
    pinned = None if case.pin is None else [read_pin(case.pin)]
    return check_metadata(case.data if data is None else data, now=CLOCK, pinned=pinned)


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """Compiles the schema, and loads what `cryptography` imports at its first ECDSA, outside of what is measured."""
    assert list_schema_errors(lxml.etree.fromstring("<a/>"), "metadata")
    assert not check(next(case for case in GOOD if "ecdsa" in case.name)).refused


def test_the_index_names_every_file_with_its_digest() -> None:
    rows = [line.split("\t") for line in (CORPUS / "index.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    digests = {row[0]: row[-1] for row in rows}
    files = {str(path.relative_to(CORPUS)): path for path in CORPUS.rglob("*.*") if path.parent != CORPUS}
    assert digests.keys() == files.keys()
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()} == digests
    assert len(GOOD) > 60
    assert len(BAD) > 120


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdict(case: Case) -> None:
    data = case.data
    with counting_work() as work:
        report = check(case, data)
    assert report.refused is (case.verdict == "reject"), report.all_findings
    assert work.calls < 5 * len(data) + 2000


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_refusal_says_why_in_our_words(case: Case) -> None:
    errors = [finding for finding in check(case).all_findings if finding.refuses]
    assert errors
    for finding in errors:
        text = f"{finding.message} {finding.fix} {finding.where}"
        assert finding.message
        assert finding.fix
        assert finding.message.isprintable()
        assert len(finding.message) < 1500
        assert not any(word in text for word in ("/usr/", "<string>", "lxml", "libxml", "xmlsec", "Traceback"))
        assert "not a real key" not in text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_is_opened(case: Case) -> None:
    pinned = None if case.pin is None else [read_pin(case.pin)]
    data = case.data
    with watch_openings() as opened:
        check_metadata(data, now=CLOCK, pinned=pinned)
        seen = list(opened)
    assert seen == []


def test_the_watch_sees_what_is_opened(tmp_path: Path) -> None:
    with watch_openings() as opened, socket.socket() as one:
        (tmp_path / "seen").write_text("x")
        one.settimeout(0.01)
        assert one.connect_ex(("127.0.0.1", 9)) != 0
        seen = [each.split()[0] for each in opened]
    assert {"open", "socket.connect"} <= set(seen)


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_as_many_are_usable_as_another_reading_counted(case: Case) -> None:
    assert len(check(case).usable) == case.usable


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_values_equal_an_independent_reading(case: Case) -> None:
    """The same facts by plain XPath on a plain parse."""
    root = lxml.etree.fromstring(case.data)
    entities = {
        one.get("entityID"): one for one in root.xpath("//md:EntityDescriptor[md:SPSSODescriptor]", namespaces=NS)
    }
    report = check(case)
    assert [one.entity_id for one in report.entities] == list(entities)
    for metadata in report.usable:
        role = entities[metadata.entity_id].xpath(
            "md:SPSSODescriptor[contains(@protocolSupportEnumeration, 'urn:oasis:names:tc:SAML:2.0:protocol')]",
            namespaces=NS,
        )[0]
        services = role.xpath("md:AssertionConsumerService", namespaces=NS)
        locations = [one.get("Location") for one in services if one.get("Binding") == POST]
        assert [one.location for one in metadata.acs] == [one for one in locations if one.startswith("https://")]
        assert [str(one.index) for one in metadata.acs] == [
            one.get("index") for one in services if one.get("Binding") == POST and "https://" in one.get("Location")
        ]
        assert len(metadata.other_acs) == len(services) - len(locations)
        assert choose_acs(metadata, None) in metadata.acs
        expected = [_der(one) for one in role.xpath("md:KeyDescriptor//ds:X509Certificate/text()", namespaces=NS)]
        assert {one.der for one in metadata.certificates} == set(expected)
        slo = role.xpath("md:SingleLogoutService/@Location", namespaces=NS)
        assert [one.location for one in metadata.slo] == [one for one in slo if one.startswith("https://")]
        formats = [one.strip() for one in role.xpath("md:NameIDFormat/text()", namespaces=NS)]
        assert metadata.name_id_formats == tuple(dict.fromkeys(formats))
        assert metadata.want_assertions_signed is (role.get("WantAssertionsSigned") in ("true", "1"))
        assert metadata.authn_requests_signed is (role.get("AuthnRequestsSigned") in ("true", "1"))


def _der(text: str) -> bytes:
    lines = [line for line in text.split() if not line.startswith(("-", "BEGIN", "END", "CERT"))]
    return base64.b64decode("".join(lines))


def test_good_files_by_encoding_hold_the_same_values() -> None:
    cases = {case.name: case for case in GOOD}
    plain = check(cases["good/world-sp1-signed-requests"]).usable
    for name in ("good/encoding-utf8-bom", "good/encoding-utf16-bom", "good/whitespace-crlf"):
        assert check(cases[name]).usable == plain, name


@pytest.mark.parametrize("name", ["good/aggregate-synthetic-4000", "good/aggregate-switch-aaitest-262sp"])
def test_m19_a_big_aggregate_is_checked_in_less_than_a_call_a_byte(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    data = case.data
    with counting_work() as work:
        report = check_metadata(data, now=CLOCK)
    assert work.calls < len(data)
    assert len(report.usable) == case.usable
