"""The shared parts of the tests of partners' messages.

They are the partners of the corpus' world, signed requests, and all checks at once. Requests are signed by xmlsec and
by `cryptography` alone, so that nothing of what is tested makes its own input. As a program (`python -m
tests.protocols.saml.messages`) it judges every file of the corpus, with a line of JSON for each.
"""

from __future__ import annotations

import base64
import csv
import json
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import quote

import xmlsec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from lxml import etree

from saml_bridge.model.errors import BridgeError, RequestRefused
from saml_bridge.protocols.saml.authn_request import AuthnRequest, choose_requested_acs, parse_authn_request
from saml_bridge.protocols.saml.bindings import (
    POST_BINDING,
    MessageName,
    ReceivedMessage,
    receive_post,
    receive_redirect,
)
from saml_bridge.protocols.saml.message import carries_signature, check_message, verify_message
from saml_bridge.protocols.saml.metadata.judge import check_metadata
from saml_bridge.protocols.saml.metadata.service_provider import Endpoint, SpMetadata
from saml_bridge.protocols.saml.xml.certificates import parse_certificate
from saml_bridge.protocols.saml.xml.parse import list_schema_errors
from saml_bridge.protocols.saml.xml.verify import read_own_certificates
from tests.protocols.saml.corpus import CLOCK, CORPUS, read_case

REQUESTS = CORPUS / "authn-requests"
SSO = "https://idp.example.com/saml/sso"
SP1 = "https://sp.example.com/saml/metadata"
SP2 = "https://sp2.example.com/saml/metadata"
ACS = "https://sp.example.com/saml/acs"
ALTERNATIVE_ACS = "https://sp.example.com/saml/acs-alt"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
DS = "http://www.w3.org/2000/09/xmldsig#"
MORE = "http://www.w3.org/2001/04/xmldsig-more#"
EXC = "http://www.w3.org/2001/10/xml-exc-c14n#"
SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"


@cache
def partners() -> Mapping[str, SpMetadata]:
    """The two partners of the world, by their entity IDs.

    The first signs its requests, the second need not.
    """
    files = ("good/world-sp1-signed-requests", "good/world-sp2-unsigned-requests")
    found = [check_metadata(read_case(name), now=CLOCK).find_provider() for name in files]
    return {one.entity_id: one for one in found}


def post(xml: bytes, name: MessageName = "SAMLRequest", **more: str) -> ReceivedMessage:
    return receive_post([(name, base64.b64encode(xml).decode()), *more.items()])


def judge(received: ReceivedMessage, *, now: datetime = CLOCK, endpoint: str = SSO) -> tuple[AuthnRequest, Endpoint]:
    """All that a request goes through before it is acted on, in order.

    Raises what the checks raise.
    """
    request = parse_authn_request(received)
    metadata = partners().get(request.issuer)
    if metadata is None:
        raise RequestRefused("unknown", code="issuer-unknown")
    verify_message(request, metadata, required=False)
    check_message(request, now=now, endpoint=endpoint, signed=carries_signature(request))
    return request, choose_requested_acs(request, metadata)


def judge_real(received: ReceivedMessage) -> tuple[AuthnRequest, Endpoint]:
    """A file of another project in its own context.

    Issuer, ACS and certificate are registered; the clock is its own.
    """
    request = parse_authn_request(received)
    keys = tuple(parse_certificate(der) for der in read_own_certificates(request.root))
    acs = (Endpoint(POST_BINDING, request.acs_url or "https://sp.example.org/acs", 0, True),)
    metadata = SpMetadata(entity_id=request.issuer, acs=acs, certificates=keys)
    verify_message(request, metadata, required=False)
    endpoint, now = request.destination or SSO, request.issued_at + timedelta(seconds=30)
    check_message(request, now=now, endpoint=endpoint, signed=carries_signature(request))
    return request, choose_requested_acs(request, metadata)


def find_refusal(work: Callable[[], object]) -> BridgeError | None:
    """The error of ours that `work` ended with, if any; others pass."""
    try:
        work()
    except BridgeError as refused:
        return refused
    return None


def refusal_code(work: Callable[[], object]) -> str:
    """The code that `work` was refused with; empty when it was not."""
    refused = find_refusal(work)
    return "" if refused is None else refused.code


def read_request(name: str) -> bytes:
    """The bytes of `good/NAME` or `bad/NAME`, without .xml."""
    return (REQUESTS / f"{name}.xml").read_bytes()


def read_vectors(kind: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((REQUESTS / kind / "redirect-vectors.json").read_text())["vectors"]
    return found


def read_vector(kind: str, name: str) -> bytes:
    return next(one["query"] for one in read_vectors(kind) if one["name"] == name).encode()


def make_request(
    inside: str = "", *, issuer: str = SP1, attributes: str = "", signature: str = "", **changes: str | None
) -> bytes:
    """A request of the first partner. Keywords change or (None) remove attributes of the root."""
    named: dict[str, str | None] = {
        "ID": "_a1",
        "Version": "2.0",
        "IssueInstant": "2026-01-15T11:59:30Z",
        "Destination": SSO,
        **changes,
    }
    written = " ".join(f'{name}="{value}"' for name, value in named.items() if value is not None)
    return (
        f'<samlp:AuthnRequest xmlns:samlp="{SAMLP}" xmlns:saml="{SAML}" {written} {attributes}>'
        f"<saml:Issuer>{issuer}</saml:Issuer>{signature}{inside}</samlp:AuthnRequest>"
    ).encode()


def make_signature(*, method: str = "rsa-sha256", uri: str = "#_a1", prefixes: str | None = None) -> str:
    listed = "" if prefixes is None else f'<ec:InclusiveNamespaces xmlns:ec="{EXC}" PrefixList="{prefixes}"/>'
    return (
        f'<ds:Signature xmlns:ds="{DS}"><ds:SignedInfo><ds:CanonicalizationMethod Algorithm="{EXC}">{listed}'
        f'</ds:CanonicalizationMethod><ds:SignatureMethod Algorithm="{MORE}{method}"/><ds:Reference URI="{uri}">'
        f'<ds:Transforms><ds:Transform Algorithm="{DS}enveloped-signature"/><ds:Transform Algorithm="{EXC}">{listed}'
        f'</ds:Transform></ds:Transforms><ds:DigestMethod Algorithm="{SHA256}"/><ds:DigestValue/></ds:Reference>'
        "</ds:SignedInfo><ds:SignatureValue/></ds:Signature>"
    )


def sign(xml: bytes, *, key: str = "sp-signing", name: str = "ID") -> bytes:
    """Fills in the signature of a document.

    xmlsec makes it with a key of the corpus.
    """
    root = etree.fromstring(xml)
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_file(str(CORPUS / "keys" / f"{key}.key.pem"), xmlsec.constants.KeyDataFormatPem)
    context.register_id(root, name)
    context.sign(next(root.iter(f"{{{DS}}}Signature")))
    signed: bytes = etree.tostring(root.getroottree())
    return signed


def make_signed(inside: str = "", **changes: Any) -> bytes:
    return sign(make_request(inside, signature=make_signature(), **changes))


def load_private_key(name: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    found = load_pem_private_key((CORPUS / "keys" / f"{name}.key.pem").read_bytes(), None)
    assert isinstance(found, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return found


def make_query(
    xml: bytes,
    *,
    relay_state: str | None = None,
    key: str | None = "sp-signing",
    algorithm: str = f"{MORE}rsa-sha256",
    encode: Callable[[str], str] = lambda value: quote(value, safe=""),
    finish: Callable[[bytes], bytes] = lambda value: value,
) -> bytes:
    """A query of the redirect binding, signed unless `key` is None.

    `finish` changes the signature's value.
    """
    deflater = zlib.compressobj(wbits=-15)
    message = base64.b64encode(deflater.compress(xml) + deflater.flush()).decode()
    parts = [f"SAMLRequest={encode(message)}"]
    if relay_state is not None:
        parts.append(f"RelayState={encode(relay_state)}")
    if key is None:
        return "&".join(parts).encode()
    parts.append(f"SigAlg={encode(algorithm)}")
    data, private_key = "&".join(parts).encode(), load_private_key(key)
    chosen: hashes.HashAlgorithm = {"6": hashes.SHA256(), "4": hashes.SHA384(), "2": hashes.SHA512()}[algorithm[-1]]
    if isinstance(private_key, rsa.RSAPrivateKey):
        value = private_key.sign(data, padding.PKCS1v15(), chosen)
    else:
        value = private_key.sign(data, ec.ECDSA(chosen))
    return data + b"&Signature=" + encode(base64.b64encode(finish(value)).decode()).encode()


@dataclass(frozen=True)
class Row:
    """A file of the corpus, with the words of its index.

    It may be one query of a file of queries.
    """

    name: str
    verdict: str
    why: str
    receive: Callable[[], ReceivedMessage]

    @property
    def is_real(self) -> bool:
        return "/real-" in self.name


def read_rows() -> Iterator[Row]:
    with (CORPUS / "index.tsv").open(encoding="utf-8", newline="") as file:
        listed = [row for row in csv.DictReader(file, delimiter="\t") if row["path"].startswith("authn-requests/")]
    for row in listed:
        if row["path"].endswith(".xml"):
            data = (CORPUS / row["path"]).read_bytes()
            name = row["path"].removeprefix("authn-requests/").removesuffix(".xml")
            yield Row(name, row["verdict"], row["why"], lambda data=data: post(data))  # type: ignore[misc]  # as bound now
    for kind in ("good", "bad"):
        for vector in read_vectors(kind):
            query = vector["query"].encode()
            why = f"{vector['measured']} {vector['why']}"
            name = f"{kind}/vector-{vector['name']}"
            yield Row(name, vector["expect"], why, lambda query=query: receive_redirect(query))  # type: ignore[misc]


_opened: list[str] = []


def _listen(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
        _opened.append(f"{event} {arguments[0]}")


def _judge_row(row: Row) -> dict[str, object]:
    """The outcome of one row, and the work it made; an error that is not ours shows by its name."""
    _opened.clear()
    calls: Counter[str] = Counter()
    sys.setprofile(lambda _frame, event, called: calls.update([called.__name__ if event == "c_call" else event]))
    outcome: dict[str, object] = {"code": "", "detail": ""}
    try:
        _, acs = (judge_real if row.is_real else judge)(row.receive())
        outcome["acs"] = acs.location
    except BridgeError as refused:
        outcome |= {"code": refused.code, "detail": refused.diagnosis(), "error": type(refused).__name__}
    except Exception as broken:  # noqa: BLE001  reported as what it is
        outcome |= {"code": "BROKEN", "detail": repr(broken), "error": type(broken).__name__}
    finally:
        sys.setprofile(None)
    work = {"calls": calls.total(), "verified": calls["verify"], "opened": list(_opened)}
    return {"name": row.name, **outcome, **work}


def main() -> None:
    partners()
    assert list_schema_errors(etree.fromstring("<a/>"), "protocol")
    judge(receive_redirect(make_query(make_request(), relay_state="warm")))
    sys.addaudithook(_listen)
    for row in read_rows():
        print(json.dumps(_judge_row(row)), flush=True)


if __name__ == "__main__":
    main()
