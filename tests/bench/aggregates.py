"""Picking one entity out of a federation's aggregate: its CPU and memory, beside lxml's iterparse and pysaml2.

`python -m tests.bench.aggregates` prints the figures. Every measurement has a process of its own, so that none finds
memory or a warm cache that another has left behind.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import xmlsec
from lxml import etree

from saml_bridge.protocols.saml.metadata.aggregate import pick_entity
from tests.protocols.saml.corpus import CORPUS, read_pin

SIGNER = "federation-signer"
MOST_TIMES_ITERPARSE = 1.5
MOST_GROWTH_BYTES = 20 * 1024 * 1024
_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" \
xmlns:mdui="urn:oasis:names:tc:SAML:metadata:ui" xmlns:mdattr="urn:oasis:names:tc:SAML:metadata:attribute" \
xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" xmlns:mdrpi="urn:oasis:names:tc:SAML:metadata:rpi" \
ID="_aggregate" Name="https://federation.example/" validUntil="2036-01-01T00:00:00Z" cacheDuration="PT6H">
"""
_SIGNATURE = """<ds:Signature><ds:SignedInfo>\
<ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>\
<ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"/><ds:Reference URI="#_aggregate">\
<ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>\
<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/></ds:Transforms>\
<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/><ds:DigestValue/></ds:Reference></ds:SignedInfo>\
<ds:SignatureValue/></ds:Signature>
"""
_ENTITY = """  <md:EntityDescriptor entityID="{entity_id}">
    <md:Extensions>
      <mdrpi:RegistrationInfo registrationAuthority="https://federation.example" \
registrationInstant="2020-01-01T00:00:00Z">
        <mdrpi:RegistrationPolicy xml:lang="en">https://federation.example/policy</mdrpi:RegistrationPolicy>
      </mdrpi:RegistrationInfo>
      <mdattr:EntityAttributes>
        <saml:Attribute Name="http://macedir.org/entity-category" \
NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:uri">
          <saml:AttributeValue>http://refeds.org/category/research-and-scholarship</saml:AttributeValue>
          <saml:AttributeValue>http://www.geant.net/uri/dataprotection-code-of-conduct/v1</saml:AttributeValue>
        </saml:Attribute>
      </mdattr:EntityAttributes>
    </md:Extensions>
    <md:SPSSODescriptor AuthnRequestsSigned="true" protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">
      <md:Extensions>
        <mdui:UIInfo>
          <mdui:DisplayName xml:lang="en">Service {number}</mdui:DisplayName>
          <mdui:DisplayName xml:lang="de">Dienst für Nummer {number}</mdui:DisplayName>
          <mdui:Description xml:lang="en">A service of member {number}, for everybody there.</mdui:Description>
          <mdui:InformationURL xml:lang="en">https://sp{number}.example.com/about</mdui:InformationURL>
          <mdui:PrivacyStatementURL xml:lang="en">https://sp{number}.example.com/privacy</mdui:PrivacyStatementURL>
          <mdui:Logo height="60" width="80">https://sp{number}.example.com/logo.png</mdui:Logo>
        </mdui:UIInfo>
      </md:Extensions>
{keys}      <md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" \
Location="https://sp{number}.example.com/Shibboleth.sso/SLO/Redirect"/>
      <md:NameIDFormat>urn:oasis:names:tc:SAML:2.0:nameid-format:transient</md:NameIDFormat>
      <md:NameIDFormat>urn:oasis:names:tc:SAML:2.0:nameid-format:persistent</md:NameIDFormat>
      <md:AssertionConsumerService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" \
Location="https://sp{number}.example.com/Shibboleth.sso/SAML2/POST" index="1" isDefault="true"/>
      <md:AssertionConsumerService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Artifact" \
Location="https://sp{number}.example.com/Shibboleth.sso/SAML2/Artifact" index="2"/>
      <md:AttributeConsumingService index="1">
        <md:ServiceName xml:lang="en">Service {number}</md:ServiceName>
        <md:RequestedAttribute FriendlyName="mail" Name="urn:oid:0.9.2342.19200300.100.1.3" \
NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:uri" isRequired="true"/>
        <md:RequestedAttribute FriendlyName="displayName" Name="urn:oid:2.16.840.1.113730.3.1.241" \
NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:uri"/>
      </md:AttributeConsumingService>
    </md:SPSSODescriptor>
    <md:Organization>
      <md:OrganizationName xml:lang="en">Member {number}</md:OrganizationName>
      <md:OrganizationDisplayName xml:lang="en">Member {number}</md:OrganizationDisplayName>
      <md:OrganizationURL xml:lang="en">https://member{number}.example.com/</md:OrganizationURL>
    </md:Organization>
    <md:ContactPerson contactType="technical">
      <md:GivenName>Service Desk</md:GivenName>
      <md:EmailAddress>mailto:desk@member{number}.example.com</md:EmailAddress>
    </md:ContactPerson>
  </md:EntityDescriptor>
"""
_USES = ("signing", "signing", "encryption")
_KEY = """      <md:KeyDescriptor use="{use}"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>
{lines}
      </ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>
"""


def name_entity(number: int) -> str:
    """The entity ID of the entity with this number."""
    return f"https://sp{number}.example.com/shibboleth"


def write_aggregate(path: Path, count: int, *, signed: bool) -> None:
    """Write a federation of `count` service providers, about 6.9 kB each, signed by the test world's federation key."""
    certificate = b64encode(read_pin("sp-signing").der).decode()
    chance = random.Random(count)
    with path.open("w", encoding="utf-8") as file:
        file.write(_HEAD + (_SIGNATURE if signed else ""))
        for number in range(count):
            keys = "".join(_KEY.format(use=use, lines=_vary(certificate, chance)) for use in _USES)
            file.write(_ENTITY.format(entity_id=name_entity(number), number=number, keys=keys))
        file.write("</md:EntitiesDescriptor>\n")
    if signed:
        _sign(path)


def _vary(certificate: str, chance: random.Random) -> str:
    """The same certificate with another end, in lines of 64."""
    end = b64encode(chance.randbytes(240)).decode()
    text = certificate[: -len(end)] + end
    return "\n".join(text[at : at + 64] for at in range(0, len(text), 64))


def _sign(path: Path) -> None:
    tree = etree.parse(str(path), etree.XMLParser(huge_tree=True))
    root = tree.getroot()
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_file(str(CORPUS / "keys" / f"{SIGNER}.key.pem"), xmlsec.constants.KeyDataFormatPem)
    context.register_id(root, "ID")
    context.sign(root.find("{http://www.w3.org/2000/09/xmldsig#}Signature"))
    tree.write(str(path), encoding="UTF-8", xml_declaration=True)


def _pick(path: Path, count: int) -> None:
    with path.open("rb") as file:
        pick_entity(file, name_entity(count // 2))


def _pick_signed(path: Path, count: int) -> None:
    with path.open("rb") as file:
        pick_entity(file, name_entity(count // 2), pinned=[read_pin(SIGNER)])


def _iterparse(path: Path, count: int) -> None:
    with path.open("rb") as file:
        for _ in etree.iterparse(file):
            pass


def _pysaml2(path: Path, count: int) -> None:
    from saml2.attribute_converter import ac_factory
    from saml2.config import SPConfig
    from saml2.mdstore import MetadataStore

    config = SPConfig().load({"entityid": "https://idp.example.com", "xmlsec_binary": "/usr/bin/xmlsec1"})
    store = MetadataStore(ac_factory(), config)
    store.imp([{"class": "saml2.mdstore.MetaDataFile", "metadata": [(str(path),)]}])
    if not store.assertion_consumer_service(name_entity(count // 2)):
        raise RuntimeError("pysaml2 did not read the file")


def _nothing(path: Path, count: int) -> None:
    """What a process needs without reading anything."""


WORKS: dict[str, Callable[[Path, int], None]] = {
    "pick": _pick,
    "pick-signed": _pick_signed,
    "iterparse": _iterparse,
    "pysaml2": _pysaml2,
    "nothing": _nothing,
}


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a piece of work, and the most memory that its process had."""

    cpu_seconds: float
    peak_bytes: int


def measure(work: str, path: Path, count: int) -> Cost:
    """Do one of WORKS in a fresh process."""
    command = [sys.executable, "-m", "tests.bench.aggregates", work, str(path), str(count)]
    done = subprocess.run(command, check=True, capture_output=True)
    return Cost(**json.loads(done.stdout))


def _work_alone(work: str, path: Path, count: int) -> None:
    started = time.process_time()
    WORKS[work](path, count)
    spent = time.process_time() - started
    print(json.dumps({"cpu_seconds": spent, "peak_bytes": _read_peak()}))


def _read_peak() -> int:
    """The most memory that this process had; getrusage's figure would include what its parent had at the fork."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


@dataclass(frozen=True)
class Figures:
    """Costs of each work by the number of entities."""

    costs: dict[str, dict[int, Cost]]

    def times_iterparse(self, work: str, count: int) -> float:
        return self.costs[work][count].cpu_seconds / self.costs["iterparse"][count].cpu_seconds

    def growth(self, work: str) -> int:
        """How much more memory the largest aggregate takes than the smallest."""
        peaks = self.costs[work]
        return peaks[max(peaks)].peak_bytes - peaks[min(peaks)].peak_bytes


def measure_aggregates(
    folder: Path, *, counts: tuple[int, ...] = (1000, 5000, 10_000), rounds: int = 3, most_for_pysaml2: int = 5000
) -> Figures:
    """Measure every work on aggregates of each size; of several rounds the fastest counts, taken in turns."""
    costs: dict[str, dict[int, Cost]] = {}
    for count in counts:
        plain, signed = folder / f"{count}.xml", folder / f"{count}-signed.xml"
        write_aggregate(plain, count, signed=False)
        write_aggregate(signed, count, signed=True)
        for number in range(rounds):
            for work in ("iterparse", "pick", "pick-signed", "pysaml2"):
                if work == "pysaml2" and (number or count > most_for_pysaml2):
                    continue
                cost = measure(work, signed if work == "pick-signed" else plain, count)
                best = costs.setdefault(work, {}).get(count, cost)
                costs[work][count] = min(best, cost, key=lambda one: one.cpu_seconds)
        plain.unlink()
        signed.unlink()
    return Figures(costs)


def report_aggregates(figures: Figures) -> None:
    """Print the table, and whether the targets are met."""
    for work, by_count in figures.costs.items():
        for count, cost in by_count.items():
            times, peak = figures.times_iterparse(work, count), cost.peak_bytes / 1024 / 1024
            print(
                f"{work:12} {count:6} entities {cost.cpu_seconds:8.3f} s CPU {times:6.2f} x iterparse {peak:7.1f} MiB"
            )
    for work in ("pick", "pick-signed"):
        worst = max(figures.times_iterparse(work, count) for count in figures.costs[work])
        growth = figures.growth(work)
        print(f"{work}: {worst:.2f} x iterparse, {growth / 1024 / 1024:.1f} MiB more for the largest than the smallest")
    met = max(figures.times_iterparse("pick", count) for count in figures.costs["pick"]) <= MOST_TIMES_ITERPARSE
    print(f"target {MOST_TIMES_ITERPARSE} x iterparse: {'met' if met else 'MISSED'}")
    grown = max(figures.growth(work) for work in ("pick", "pick-signed"))
    print(f"target 20 MiB of growth: {'met' if grown < MOST_GROWTH_BYTES else 'MISSED'}")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        _work_alone(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        with tempfile.TemporaryDirectory(prefix="saml-bridge-aggregates-") as name:
            report_aggregates(measure_aggregates(Path(name)))
