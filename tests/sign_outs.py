"""Partners in a logout: their metadata, messages and servers, and an installation that knows several of them.

Messages are built from text and signed by `cryptography` and python-xmlsec (`tests/requester.py`), not by the code
under test. The servers are real, on 127.0.0.1, each with a behaviour that a test chooses.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from lxml import etree

from saml_bridge.app.wiring import open_bridge
from saml_bridge.flows.logout.sign_out import SignOut
from saml_bridge.model.values import TraceId
from saml_bridge.protocols.saml.bindings import ReceivedMessage, receive_post, receive_redirect, receive_soap
from saml_bridge.storage.audit import Entry
from saml_bridge.storage.database import find_database
from saml_bridge.storage.partner_sessions import PartnerSession
from tests.requester import encode_redirect, sign_message
from tests.world import BASE_URL, BILLER, KEYS, World, make_settings

SLO = f"{BASE_URL}/saml/{BILLER}/slo"
REDIRECT = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
SOAP = "urn:oasis:names:tc:SAML:2.0:bindings:SOAP"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
STATUS = "urn:oasis:names:tc:SAML:2.0:status:"
SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/"
TRACE = TraceId("TEST-TRAC-E234")


def entity_of(slug: str) -> str:
    return f"https://{slug}.example.com/saml/metadata"


def make_metadata(slug: str, *services: tuple[str, str] | tuple[str, str, str], key: str = "sp-signing") -> bytes:
    """A service provider with these single logout services: binding, location and perhaps a response location."""
    lines = (KEYS / f"{key}.cert.pem").read_text().splitlines()
    certificate = "".join(line for line in lines if not line.startswith("-----"))
    offered = "".join(
        f'<md:SingleLogoutService Binding="{one[0]}" Location="{one[1]}"'
        + (f' ResponseLocation="{one[2]}"/>' if len(one) > 2 else "/>")
        for one in services
    )
    return f"""<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{entity_of(slug)}">
<md:SPSSODescriptor protocolSupportEnumeration="{SAMLP}">
<md:KeyDescriptor><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data>
<ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>{offered}
<md:AssertionConsumerService Binding="{POST}" Location="https://{slug}.example.com/saml/acs" index="0"/>
</md:SPSSODescriptor></md:EntityDescriptor>""".encode()


def name_id_of(slug: str) -> str:
    return f"name-at-{slug}"


def make_request(
    slug: str = "aquahawk",
    *,
    name_id: str | None = None,
    indexes: tuple[str, ...] = ("_one",),
    request_id: str | None = None,
    issuer: str | None = None,
    destination: str | None = SLO,
    at: datetime | None = None,
    ends: datetime | None = None,
    name_attributes: str = f'Format="{PERSISTENT}"',
) -> str:
    """A LogoutRequest of a partner as text."""
    where = "" if destination is None else f' Destination="{destination}"'
    until = "" if ends is None else f' NotOnOrAfter="{ends:%Y-%m-%dT%H:%M:%SZ}"'
    sessions = "".join(f"<samlp:SessionIndex>{one}</samlp:SessionIndex>" for one in indexes)
    return (
        f'<samlp:LogoutRequest xmlns:samlp="{SAMLP}" xmlns:saml="{SAML}" ID="{request_id or make_id()}" Version="2.0"'
        f' IssueInstant="{at or datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"{where}{until}>'
        f"<saml:Issuer>{issuer or entity_of(slug)}</saml:Issuer>"
        f"<saml:NameID {name_attributes}>{name_id or name_id_of(slug)}</saml:NameID>{sessions}</samlp:LogoutRequest>"
    )


def make_response(
    slug: str,
    in_response_to: str,
    *,
    status: str = "Success",
    sub_status: str | None = None,
    destination: str | None = SLO,
) -> str:
    """A LogoutResponse of a partner as text."""
    where = "" if destination is None else f' Destination="{destination}"'
    below = "" if sub_status is None else f'<samlp:StatusCode Value="{STATUS}{sub_status}"/>'
    return (
        f'<samlp:LogoutResponse xmlns:samlp="{SAMLP}" xmlns:saml="{SAML}" ID="{make_id()}" Version="2.0"'
        f' IssueInstant="{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"{where} InResponseTo="{in_response_to}">'
        f"<saml:Issuer>{entity_of(slug)}</saml:Issuer><samlp:Status>"
        f'<samlp:StatusCode Value="{STATUS}{status}">{below}</samlp:StatusCode></samlp:Status></samlp:LogoutResponse>'
    )


def make_id() -> str:
    return "_" + secrets.token_hex(16)


def sign_text(xml: str, key: str | None, **methods: Any) -> bytes:
    root = etree.fromstring(xml.encode())
    if key is not None:
        sign_message(root, key, **methods)
    return etree.tostring(root)


def encode_post(
    name: str, xml: str, *, relay_state: str | None = None, key: str | None = "sp-signing", **methods: Any
) -> dict[str, str]:
    """The fields of the POST binding."""
    fields = {name: base64.b64encode(sign_text(xml, key, **methods)).decode()}
    return fields if relay_state is None else {**fields, "RelayState": relay_state}


def encode_soap(xml: str, *, key: str | None = "sp-signing", **methods: Any) -> bytes:
    start = f'<e:Envelope xmlns:e="{ENVELOPE}"><e:Body>'.encode()
    return start + sign_text(xml, key, **methods) + b"</e:Body></e:Envelope>"


def receive(name: str, xml: str, *, binding: str = REDIRECT, **options: Any) -> ReceivedMessage:
    """A partner's message as the bridge's own reading of the bindings gives it."""
    if binding == SOAP:
        return receive_soap(encode_soap(xml, **options))
    if binding == POST:
        return receive_post(encode_post(name, xml, **options).items())
    return receive_redirect(encode_redirect(xml, name=name, **options).encode())


@dataclass(frozen=True)
class Sent:
    """A message of ours as a partner gets it, read by lxml alone."""

    location: str
    root: Any
    fields: dict[str, str]

    @property
    def status(self) -> tuple[str, ...]:
        return tuple(one.get("Value").removeprefix(STATUS) for one in self.root.iter(f"{{{SAMLP}}}StatusCode"))

    @property
    def id(self) -> str:
        return str(self.root.get("ID"))


def read_url(url: str) -> Sent:
    """A message in the query of a URL."""
    parts = urlsplit(url)
    fields = dict(parse_qsl(parts.query, strict_parsing=True))
    name = "SAMLRequest" if "SAMLRequest" in fields else "SAMLResponse"
    xml = zlib.decompress(base64.b64decode(fields[name]), -15)
    return Sent(f"{parts.scheme}://{parts.netloc}{parts.path}", etree.fromstring(xml), fields)


def read_fields(location: str, fields: dict[str, str]) -> Sent:
    """A message in a form."""
    name = "SAMLRequest" if "SAMLRequest" in fields else "SAMLResponse"
    return Sent(location, etree.fromstring(base64.b64decode(fields[name])), fields)


def read_soap(body: bytes) -> Any:
    """The message in an envelope, as a document of its own."""
    [message] = etree.fromstring(body).find(f"{{{ENVELOPE}}}Body")
    return etree.fromstring(etree.tostring(message))


# Servers


@dataclass
class Server:
    """A server of a partner or of the portal. `behave` gets the path and the body and gives status, type and body."""

    behave: Callable[[str, bytes], tuple[int, str, bytes]]
    seen: list[tuple[str, bytes]] = field(default_factory=list)
    url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serve(
    behave: Callable[[str, bytes], tuple[int, str, bytes]], tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    """A server on a free port, until the block ends."""
    server = Server(behave)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.seen.append((self.path, body))
            server.headers.append(dict(self.headers))
            status, content_type, answer = server.behave(self.path, body)
            try:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            except OSError:
                self.close_connection = True  # the bridge hung up at its deadline

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    if tls is not None:
        httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def answering(
    slug: str,
    *,
    key: str | None = "sp-signing",
    in_response_to: str | None = None,
    methods: dict[str, Any] | None = None,
    **status: Any,
) -> Callable[[str, bytes], tuple[int, str, bytes]]:
    """The behaviour of a partner that answers over SOAP."""

    def behave(_: str, body: bytes) -> tuple[int, str, bytes]:
        asked = read_soap(body).get("ID")
        xml = make_response(slug, in_response_to or asked, destination=None, **status)
        return 200, "text/xml", encode_soap(xml, key=key, **(methods or {}))

    return behave


def hanging(seconds: float = 20) -> Callable[[str, bytes], tuple[int, str, bytes]]:
    """The behaviour of a server that does not answer in time."""

    def behave(_: str, __: bytes) -> tuple[int, str, bytes]:
        time.sleep(seconds)
        return 200, "text/xml", b""

    return behave


# An installation


@dataclass
class Town:
    """An installation of which a payer has opened several partners."""

    world: World
    sign_out: SignOut

    def remember(self, slug: str, *, biller: str = BILLER, **changes: Any) -> None:
        """The payer opened this partner."""
        values = {
            "sid": "S-1",
            "payer_id": "P-1001",
            "name_id": name_id_of(slug),
            "name_id_format": PERSISTENT,
            "session_index": "_one",
            "expires_at": datetime.now(UTC) + timedelta(hours=1),
            **changes,
        }
        self.sign_out.sessions.save(biller=biller, partner=slug, **values)

    def list_open(self, *, biller: str = BILLER, sid: str = "S-1") -> list[str]:
        """The partners at which a session is still remembered, in the order in which they were opened."""
        found: tuple[PartnerSession, ...] = self.sign_out.sessions.find_by_session(
            biller=biller, sid=sid, now=datetime.now(UTC)
        )
        return [one.partner for one in found]

    def receive(self, name: str, xml: str, **options: Any) -> Any:
        return self.sign_out.receive(BILLER, lambda: receive(name, xml, **options), trace_id=TRACE)


def build_town(folder: Path, database_url: str, *, callback: str | None = None, **partners: Any) -> Town:
    """An installation with these partners: slug to the single logout services, and perhaps settings of saml."""
    settings = make_settings(folder, database_url, ALLOW_HTTP_ACS="1", FETCH_ALLOW="127.0.0.0/8")
    world = World(folder, settings, open_bridge(settings), make_document(folder, callback, partners))
    world.publish()
    return Town(world, world.bridge.sign_out)


def make_document(folder: Path, callback: str | None, partners: dict[str, Any]) -> dict[str, Any]:
    """The configuration; each partner has a link."""
    biller: dict[str, Any] = {
        "slug": BILLER,
        "name": "Riverton Water",
        "portal": {
            "sign_in_url": "https://pay.example/riverton/sign-in",
            "home_url": "https://pay.example/riverton/",
            **({"logout_callback": callback} if callback else {}),
        },
        "partners": [],
        "mappings": [{"slug": "usage", "rules": [{"attribute": "accountNumber", "from": "account.number"}]}],
        "links": [],
    }
    for slug, wanted in partners.items():
        services, changes = (wanted[0], dict(wanted[1])) if isinstance(wanted, tuple) else (wanted, {})
        (folder / f"{slug}.xml").write_bytes(make_metadata(slug, *services, key=changes.pop("key", "sp-signing")))
        origins = changes.pop("origins", [])
        biller["partners"].append(
            {
                "slug": slug,
                "name": slug.title(),
                "protocol": "saml",
                "origins": origins,
                "saml": {"metadata": f"{slug}.xml", "encrypt": "never", **changes},
            }
        )
        biller["links"].append({"slug": slug, "label": slug, "partner": slug, "mapping": "usage"})
    copied: dict[str, Any] = json.loads(json.dumps({"version": 1, "billers": [biller]}))
    return copied


def close_town(town: Town) -> None:
    find_database(town.world.bridge.app).dispose()


def outline(record: Entry) -> str:
    """Who was reached in a logout and who not, without the reasons that follow."""
    return record.detail.partition("; ")[0]


def read_token_form(body: bytes) -> str:
    """The logout token of the portal's callback."""
    [token] = parse_qs(body.decode("ascii"), strict_parsing=True)["logout_token"]
    return unquote(token)
