"""One installation with a biller for each case of the field, and what is seen of a case in it.

A case is a JSON file beside `index.tsv` whose texts have blanks (`@ID@`, `@SIGN_CERT@`); the lab fills them in.
"""

from __future__ import annotations

import base64
import csv
import json
import re
import secrets
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus, urlencode, urlsplit

from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import RSAKey
from lxml import etree, html
from werkzeug.test import TestResponse

from saml_bridge.app.wiring import Bridge, create_service
from saml_bridge.billers.publishing import apply_plan, plan_file
from saml_bridge.cli.main import cli
from saml_bridge.model.values import TraceId
from saml_bridge.storage.audit import Search
from saml_bridge.storage.database import find_database
from tests.relying_party import copy_keys
from tests.requester import sign_message
from tests.web.conftest import AUDIENCE, ISSUER
from tests.world import BASE_URL, KEYS, make_jwt_settings

HERE = Path(__file__).parent
SECRET = "z/tZ9V w%41+H1:pLk/uB4ud=é" + "x" * 12
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-"
NAMES = {
    "samlp": "urn:oasis:names:tc:SAML:2.0:protocol",
    "saml": "urn:oasis:names:tc:SAML:2.0:assertion",
    "xenc": "http://www.w3.org/2001/04/xmlenc#",
}
RELYING_PARTIES = "rps"
"""The biller of all cases of OpenID Connect."""

PLAIN_METADATA = f"""<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata"
 entityID="https://@SLUG@.sp.example.com/saml"><md:SPSSODescriptor protocolSupportEnumeration="{NAMES["samlp"]}">
<md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data>
<ds:X509Certificate>@SIGN_CERT@</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>@SLO_SERVICES@
<md:AssertionConsumerService Binding="{BINDING}POST" Location="https://@SLUG@.sp.example.com/acs" index="0"/>
</md:SPSSODescriptor></md:EntityDescriptor>"""


@dataclass(frozen=True)
class Case:
    """A row of the index. `expect` is what must be seen, in ways parted by ` || `."""

    id: str
    file: str
    kind: str
    what: str
    expect: str
    source: str

    @property
    def slug(self) -> str:
        return self.id.lower()

    @cached_property
    def told(self) -> dict[str, Any]:
        """What the case's file says; a case of metadata is nothing but its file."""
        return {} if self.kind == "metadata" else json.loads((HERE / self.file).read_text(encoding="utf-8"))

    def agrees(self, seen: str) -> bool:
        return any(_agrees(way, seen) for way in self.expect.split(" || "))


def _agrees(way: str, seen: str) -> bool:
    if way.startswith("re:"):
        return re.search(way[3:], seen, re.DOTALL | re.IGNORECASE) is not None
    if way.startswith("not:"):
        return re.search(way[4:], seen, re.DOTALL | re.IGNORECASE) is None
    return seen == way or seen.startswith((f"{way}:", f"{way} "))


def read_cases() -> list[Case]:
    with (HERE / "index.tsv").open(encoding="utf-8", newline="") as file:
        return [Case(**row) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


@dataclass(frozen=True)
class Lab:
    """The installation, once everything is published."""

    folder: Path
    bridge: Bridge
    portal_key: RSAKey

    def see(self, case: Case) -> str:
        """What comes of a case, in one line."""
        runs = {
            "metadata": self._check_metadata,
            "request": self._request,
            "mapping": self._launch,
            "sign-out": self._sign_out,
            "oidc": self._authorize,
        }
        return runs[case.kind](case)

    def open_browser(self, biller: str, changes: dict[str, Any] | None = None) -> FlaskClient:
        """A browser whose payer is signed in."""
        now = int(time.time())
        session: dict[str, Any] = {
            "active": True,
            "sid": f"S-{secrets.token_hex(4)}",
            "biller": biller,
            "amr": ["pwd"],
            "auth_time": now - 60,
            "exp": now + 3600,
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": now,
            "payer": {"id": "P-1001", "email": "ada@example.net", "given_name": "Ada", "family_name": "Lovelace"},
            "accounts": [{"number": "000123456", "type": "residential", "status": "active"}],
            "selected_account": "000123456",
        }
        for name, value in (changes or {}).items():
            session[name] = {**session[name], **value} if isinstance(value, dict) else value
        browser = self.bridge.app.test_client()
        token = jwt.encode({"alg": "RS256", "kid": "portal"}, session, self.portal_key)
        browser.set_cookie("portal_session", token, domain="sso.example.com")
        return browser

    def go(self, browser: FlaskClient, path: str, **options: Any) -> TestResponse:
        """What stands at the end of the redirects within the service."""
        answer = browser.open(path, base_url=BASE_URL, **options)
        while answer.status_code in (302, 303) and (found := answer.headers["Location"]).startswith((BASE_URL, "/")):
            answer = browser.get(found.removeprefix(BASE_URL), base_url=BASE_URL)
        return answer

    def judge(self, answer: TestResponse) -> str:
        """`Success`, `Requester/…`, `redirect URL`, or `page STATUS CODE: DETAIL` with the words of the record."""
        if (response := read_response(answer)) is not None:
            status = read_status(etree.fromstring(response))
            return status if status == "Success" else f"{status} | {self._last()}"
        location = answer.headers.get("Location", "")
        if "SAMLResponse=" in location:
            (message,) = parse_qs(urlsplit(location).query)["SAMLResponse"]
            root = etree.fromstring(zlib.decompress(base64.b64decode(message), -15))
            return f"{read_status(root)} at {location.partition('?')[0]}"
        if location:
            return f"redirect {location}"
        words = " ".join(html.fromstring(answer.text).text_content().split())
        return f"page {answer.status_code} {'' if answer.status_code == 200 else self._last()} | {words}"

    def _last(self) -> str:
        refused = next(one.entry for one in self.bridge.audit.search(Search(limit=5)) if one.entry.code)
        return f"{refused.code}: {refused.detail}"

    def _check_metadata(self, case: Case) -> str:
        path = self.folder / f"check-{case.id}.xml"
        path.write_text(fill((HERE / case.file).read_text(encoding="utf-8"), SLUG=case.slug), encoding="utf-8")
        told = CliRunner().invoke(cli, ["metadata", "check", str(path)])
        return f"{'refused' if 'REFUSED' in told.output else 'accepted'}: {' '.join(told.output.split())}"

    def _request(self, case: Case) -> str:
        told, wire = case.told, case.told.get("wire", {})
        sso = f"{BASE_URL}/saml/{case.slug}/sso"
        xml = fill(
            f"{told.get('before', '')}<samlp:AuthnRequest xmlns:samlp='{NAMES['samlp']}' xmlns:saml='{NAMES['saml']}'"
            f' ID="@ID@" Version="2.0" IssueInstant="{told.get("issued", "@NOW@")}" Destination="{sso}"'
            f" {told.get('attributes', '')}><saml:Issuer>{told.get('issuer', '@ENTITY@')}</saml:Issuer>"
            f"{told.get('children', '')}</samlp:AuthnRequest>",
            SLUG=case.slug,
        ).encode()
        if told.get("embed_signature"):
            root = etree.fromstring(xml)
            sign_message(root, "sp-signing")
            xml = etree.tostring(root)
        browser = self.open_browser(case.slug, told.get("session"))
        path = sso.removeprefix(BASE_URL)
        if told.get("binding") == "post":
            packed = deflate(xml) if wire.get("deflate") else xml
            form = {"SAMLRequest": base64.b64encode(packed).decode()}
            return self.judge(self.go(browser, path, method="POST", data=form))
        query = encode_query(xml, wire)
        answer = self.go(browser, f"{path}?{query}")
        if told.get("reload"):
            answer = self.go(browser, f"{path}?{query}")
        return self.judge(answer)

    def _launch(self, case: Case) -> str:
        answer = self.go(self.open_browser(case.slug, case.told.get("session")), f"/launch/{case.slug}/go")
        response = read_response(answer)
        if response is None:
            return self.judge(answer)
        root = etree.fromstring(response)
        look = case.told.get("see")
        if look == "raw":
            return response.decode()
        if look == "page":
            script = re.search(r"<script>(.*?)</script>", answer.text, re.DOTALL)
            return json.dumps({"script": script and script[1]})
        if look == "algorithms":
            methods = root.iterfind(".//xenc:EncryptionMethod", NAMES)
            return " ".join(one.get("Algorithm", "").rpartition("#")[2] for one in methods)
        found = root.iterfind(".//saml:Attribute", NAMES)
        values = {one.get("Name"): [value.text for value in one] for one in found}
        name_id = root.findtext(".//saml:NameID", None, NAMES) if case.told.get("name_id") else None
        return json.dumps({"name_id": name_id, "attributes": values}, ensure_ascii=False)

    def _sign_out(self, case: Case) -> str:
        browser = self.open_browser(case.slug)
        response = read_response(self.go(browser, f"/launch/{case.slug}/go"))
        assert response is not None
        root = etree.fromstring(response)
        name, statement = root.find(".//saml:NameID", NAMES), root.find(".//saml:AuthnStatement", NAMES)
        assert name is not None
        assert statement is not None
        xml = fill(
            case.told["xml"],
            SLUG=case.slug,
            NAME_ID=name.text or "",
            FORMAT=name.get("Format", ""),
            INDEX=statement.get("SessionIndex", ""),
        ).encode()
        query = encode_query(xml, {"sign": True, **case.told.get("wire", {})})
        return self.judge(self.go(browser, f"/saml/{case.slug}/slo?{query}"))

    def _authorize(self, case: Case) -> str:
        told, client = case.told, f"{case.slug}-rp"
        redirect = told.get("redirect_uri", "https://rp.example.com/cb")
        asked = {"client_id": client, "redirect_uri": redirect, "response_type": "code", "scope": "openid"}
        query = urlencode({**asked, "state": "st", **told.get("ask", {})})
        answer = self.go(self.open_browser(RELYING_PARTIES), f"/oidc/{RELYING_PARTIES}/authorize?{query}")
        if told.get("flow") != "token":
            return self.judge(answer)
        (code,) = parse_qs(urlsplit(answer.headers["Location"]).query)["code"]
        secret = SECRET if told.get("raw_secret") else quote_plus(SECRET, safe="")
        given = {name: value.replace("@SECRET@", SECRET) for name, value in told.get("form", {}).items()}
        answer = self.bridge.app.test_client().post(
            f"/oidc/{RELYING_PARTIES}/token",
            base_url=BASE_URL,
            data={"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, **given},
            headers={"Authorization": f"Basic {base64.b64encode(f'{client}:{secret}'.encode()).decode()}"},
        )
        said = answer.get_json()
        return f"token {answer.status_code} {said.get('error', '')} {said.get('error_description', '')}".strip()


@contextmanager
def open_lab(folder: Path, database_url: str) -> Iterator[Lab]:
    """The installation with all cases published."""
    settings, key = make_jwt_settings(folder, database_url, issuer=ISSUER, audience=AUDIENCE)
    copy_keys(folder / "certs")
    bridge = create_service(settings)
    cases, now = read_cases(), datetime.now(UTC)
    billers = [make_biller(one, folder) for one in cases if one.kind not in ("metadata", "oidc")]
    billers.append(make_relying_parties([one for one in cases if one.kind == "oidc"]))
    bridge.partner_secrets.add(RELYING_PARTIES, "rp", SECRET, now=now)
    path = folder / "billers.yaml"
    path.write_text(json.dumps({"version": 1, "billers": billers}))
    planned = plan_file(bridge.publisher, path, now=now)
    apply_plan(bridge.publisher, planned, author="test", comment="", now=now, trace_id=TraceId("publish"))
    yield Lab(folder, bridge, key)
    find_database(bridge.app).dispose()


def make_biller(case: Case, folder: Path) -> dict[str, Any]:
    told = case.told
    metadata = (HERE / told["metadata"]).read_text(encoding="utf-8") if "metadata" in told else PLAIN_METADATA
    metadata = metadata.replace("@SLO_SERVICES@", told.get("slo", ""))
    (folder / f"{case.slug}.xml").write_text(fill(metadata, SLUG=case.slug))
    saml = {"metadata": f"{case.slug}.xml", "encrypt": "never", **told.get("saml", {})}
    partner = {"slug": "sp", "name": "SP", "protocol": "saml", "saml": saml}
    rules = told.get("rules") or [{"attribute": "accountNumber", "from": "account.number"}]
    return wrap_biller(case.slug, [partner], [{"slug": "go", "partner": "sp"}], rules)


def make_relying_parties(cases: list[Case]) -> dict[str, Any]:
    partners = [
        {
            "slug": one.slug,
            "name": one.slug,
            "protocol": "oidc",
            "oidc": {
                "client_id": f"{one.slug}-rp",
                "redirect_uris": ["https://rp.example.com/cb"],
                "secret": "rp",
                "subject": {"type": "public", "from": "payer.id"},
                **one.told.get("oidc", {}),
            },
        }
        for one in cases
    ]
    links = [{"slug": one.slug, "partner": one.slug} for one in cases]
    return wrap_biller(RELYING_PARTIES, partners, links, [{"attribute": "email", "from": "payer.email"}])


def wrap_biller(
    slug: str, partners: list[dict[str, Any]], links: list[dict[str, Any]], rules: list[Any]
) -> dict[str, Any]:
    return {
        "slug": slug,
        "name": slug,
        "portal": {"sign_in_url": "https://pay.example/in", "home_url": "https://pay.example/"},
        "partners": partners,
        "mappings": [{"slug": "m", "rules": rules}],
        "links": [{"label": "Go", "mapping": "m", **one} for one in links],
    }


def fill(text: str, **values: str) -> str:
    """The text with its blanks filled in; a name that is no blank stays."""
    now = datetime.now(UTC)
    own, ca = load_key("sp-signing"), load_key("attacker")
    authority = make_certificate(ca, "Example Issuing CA")
    leaf = make_certificate(own, "leaf.example.com", issuer=authority.subject, issuer_key=ca)
    sign, slug = make_certificate(own, "sp.example.com"), values.get("SLUG", "")
    blanks = {
        "SIGN_CERT": to_base64(sign),
        "SIGN_CERT_64": re.sub("(.{64})", r"\1\n", to_base64(sign)),
        "SIGN_CERT_PEM": to_pem(sign),
        "LEAF_CERT": to_base64(leaf),
        "CA_CERT": to_base64(authority),
        "CHAIN_PEM": to_pem(leaf) + to_pem(authority),
        "IN_5M": f"{now + timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}",
        "NOW": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "NOW_FRACTION": f"{now:%Y-%m-%dT%H:%M:%S.%f}7Z",
        "ID": f"_{secrets.token_hex(16)}",
        "ENTITY": f"https://{slug}.sp.example.com/saml",
        "SLO": f"{BASE_URL}/saml/{slug}/slo",
        **values,
    }
    return re.sub(r"@([A-Z0-9_]+)@", lambda found: blanks.get(found[1], found[0]), text)


def load_key(name: str) -> rsa.RSAPrivateKey:
    key = load_pem_private_key((KEYS / f"{name}.key.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def make_certificate(
    key: rsa.RSAPrivateKey, name: str, *, issuer: x509.Name | None = None, issuer_key: rsa.RSAPrivateKey | None = None
) -> x509.Certificate:
    now, subject = datetime.now(UTC), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or subject).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=30))
    made = made.not_valid_after(now + timedelta(days=700))
    if name.endswith("CA"):
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return made.sign(issuer_key or key, hashes.SHA256())


def to_base64(certificate: x509.Certificate) -> str:
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()


def to_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def encode_query(xml: bytes, wire: dict[str, Any]) -> str:
    """The query of the Redirect binding, in the writing that the case's software uses."""

    def escape(value: str) -> str:
        made = quote(value, safe="")
        return re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), made) if wire.get("lower") else made

    pairs = [("SAMLRequest", base64.b64encode(deflate(xml)).decode())]
    if "relay" in wire:
        pairs.append(("RelayState", wire["relay"]))
    if wire.get("sign"):
        pairs.append(("SigAlg", RSA_SHA256))
        signed = "&".join(f"{name}={escape(value)}" for name, value in pairs)
        key = load_key("attacker" if wire.get("key") == "other" else "sp-signing")
        pairs.append(
            ("Signature", base64.b64encode(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())).decode())
        )
    return "&".join(f"{name}={escape(value)}" for name, value in pairs)


def read_response(answer: TestResponse) -> bytes | None:
    """The SAMLResponse that a page posts, if it posts one."""
    found = re.search(r'name="SAMLResponse" value="([^"]+)"', answer.text)
    return None if found is None else base64.b64decode(found[1])


def read_status(root: etree._Element) -> str:
    return "/".join(one.get("Value", "").rpartition(":")[2] for one in root.iterfind(".//samlp:StatusCode", NAMES))
