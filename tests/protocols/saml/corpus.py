"""The corpus of real and hostile metadata under tests/corpus.

It has an index, keys, and a clock of its own.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from saml_bridge.protocols.saml.xml.certificates import Certificate, parse_certificate

CORPUS = Path(__file__).parents[2] / "corpus"
CLOCK = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Case:
    """One row of index.tsv.

    `pin` names the only key that may have signed the file, where its verdict needs one.
    """

    path: str
    verdict: str
    why: str
    measured: str

    @property
    def data(self) -> bytes:
        return (CORPUS / self.path).read_bytes()

    @property
    def name(self) -> str:
        return self.path.removeprefix("sp-metadata/").removesuffix(".xml")

    @property
    def pin(self) -> str | None:
        if match := re.search(r"with keys/([a-z0-9-]+) pinned", self.why):
            return match[1]
        if self.name.startswith("good/signed-"):
            return "ec-p256" if "ecdsa" in self.name else "federation-signer"
        return None

    @property
    def usable(self) -> int | None:
        """How many usable service providers an earlier, separate reading of the file counted."""
        match = re.search(r"usable=(\d+)", self.measured)
        return int(match[1]) if match else None


def read_index() -> list[Case]:
    with (CORPUS / "index.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        found = [row for row in rows if row["path"].startswith("sp-metadata/")]
    return [Case(row["path"], row["verdict"], row["why"], row["measured"]) for row in found]


def read_pin(name: str) -> Certificate:
    return parse_certificate(read_der(name))


def read_der(name: str) -> bytes:
    pem = (CORPUS / "keys" / f"{name}.cert.pem").read_bytes()
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def read_case(name: str) -> bytes:
    """The bytes of `good/NAME` or `bad/NAME`, without .xml."""
    return (CORPUS / "sp-metadata" / f"{name}.xml").read_bytes()
