"""Every template of the catalog, with sample values: published, and launched to a demo partner of its protocol.

Partners and service are on real connections; the demo partners, built on pysaml2 and Authlib, decide whom they sign in.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests
from joserfc import jwt
from lxml import etree, html
from werkzeug.serving import make_server

import saml_bridge.billers.catalog.templates
from saml_bridge.app.settings import Settings
from saml_bridge.app.wiring import Bridge, create_app, open_bridge
from saml_bridge.billers.catalog.apply_template import BILLER_BLANKS, apply_template
from saml_bridge.billers.catalog.templates import Template, find_template
from saml_bridge.billers.own_metadata import IdentityProvider
from saml_bridge.billers.publishing import apply_plan, plan_file
from saml_bridge.demo.run import PartnersServer, register_idp, share_secrets
from saml_bridge.demo.service_provider import EMAIL, PERSISTENT, Received, ServiceProvider, Wants
from saml_bridge.mapping.fields import build_example
from saml_bridge.model.values import Severity, TraceId
from saml_bridge.storage.database import find_database
from tests.browser import find_port
from tests.relying_party import CLIENT_KEYS, JWKS, copy_keys
from tests.world import BILLER, make_settings

TEMPLATES = sorted(one.stem for one in Path(saml_bridge.billers.catalog.templates.__file__).parent.glob("*.yaml"))
SAML = [name for name in TEMPLATES if find_template(name).protocol == "saml"]
FORMATS = {
    "persistent": PERSISTENT,
    "email": EMAIL,
    "unspecified": "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified",
}
PAYER = {
    "account.number": "000123456",
    "account.customer_id": "C-77",
    "account.service_address.postal_code": "12345",
    "account.service_points.id": "SP-1",
    "payer.email": "ada@example.net",
    "payer.given_name": "Ada",
    "payer.family_name": "Lovelace",
    "payer.id": "P-1001",
    "{payer.given_name} {payer.family_name}": "Ada Lovelace",
    "each account.service_points.meters: id": "M-1",
    "each accounts: number": "000123456",
}
"""What the example session has, by what a rule makes its attribute of."""


@dataclass
class Scene:
    """The service with one template in force, the demo partners, and the browser of a payer who is signed in."""

    folder: Path
    base_url: str
    partners_url: str
    browser: requests.Session = field(default_factory=requests.Session)

    def find_sample_values(self, template: Template) -> dict[str, str]:
        """The examples, but the addresses of the demo partners, and how their own answer looks."""
        here = {
            "redirect_uri": f"{self.partners_url}/iedr/callback",
            "initiate_login_uri": f"{self.partners_url}/iedr/login",
            "landing_page": f"{self.partners_url}/iedr/usage",
            "client_id": "iedr",
            "login_sso_url": f"{self.partners_url}/itron/LoginSSO",
            "landing_url": f"{self.partners_url}/itron/enter",
            "token_pointer": "/sessionToken",
            "service_user": BILLER,
        }
        examples = {one.name: one.example for one in (*BILLER_BLANKS, *template.blanks)}
        return {name: here.get(name, example) for name, example in examples.items()}

    def publish(self, bridge: Bridge, template: Template) -> None:
        """Use the template on a new file, and apply that."""
        used = apply_template(None, template, biller=BILLER, values=self.find_sample_values(template))
        assert used.blanks == ()
        (self.folder / "catalog.yaml").write_bytes(used.content)
        now = datetime.now(UTC)
        planned = plan_file(bridge.publisher, self.folder / "catalog.yaml", now=now)
        assert [one for one in planned.findings if one.severity is not Severity.NOTE] == []
        apply_plan(bridge.publisher, planned, author="test", comment="", now=now, trace_id=TraceId("catalog"))

    def launch(self, template: Template) -> requests.Response:
        """Click the link; redirects are followed, to the partner and between it and the service."""
        return self.browser.get(f"{self.base_url}/launch/{BILLER}/{template.slug}", timeout=10)

    def sign_in(self, session: dict[str, Any]) -> None:
        claims = {**session, "iss": "https://pay.example", "aud": "saml-bridge", "iat": int(time.time())}
        token = jwt.encode({"alg": "RS256", "kid": "rsa"}, claims, CLIENT_KEYS["RS256"])
        self.browser.cookies.set("portal_session", token)


def make_provider(scene: Scene, template: Template) -> ServiceProvider:
    """A service provider that insists on what the template promises."""
    settings = template.settings
    wants = Wants(
        FORMATS[settings["name_id"]["format"]],
        assertion_signed=settings.get("sign", "both") != "response",
        response_signed=settings.get("sign", "both") != "assertion",
    )
    state = scene.folder / "instance" / "demo"
    return ServiceProvider(template.slug, template.title, scene.partners_url, state, wants)


@pytest.fixture
def scene(database_url: str, tmp_path: Path, template: Template) -> Iterator[Scene]:
    made = Scene(tmp_path, f"http://127.0.0.1:{find_port()}", f"http://localhost:{find_port()}")
    settings = make_scene_settings(made, database_url)
    bridge = open_bridge(settings)
    try:
        prepare(made, bridge, template)
    finally:
        find_database(bridge.app).dispose()
    made.sign_in(build_example(BILLER, now=int(time.time()) - 10))
    app = create_app(settings)
    server = make_server("127.0.0.1", int(made.base_url.rsplit(":", 1)[1]), app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    port = int(made.partners_url.rsplit(":", 1)[1])
    with PartnersServer(settings.instance_dir, host="localhost", port=port), made.browser:
        yield made
    server.shutdown()
    thread.join()
    server.server_close()
    find_database(app).dispose()


def make_scene_settings(scene: Scene, database_url: str) -> Settings:
    settings = make_settings(
        scene.folder,
        database_url,
        BASE_URL=scene.base_url,
        SESSION_SOURCE="jwt",
        SESSION_JWKS=str(scene.folder / "portal.json"),
        SESSION_ISSUER="https://pay.example",
        SESSION_AUDIENCE="saml-bridge",
        ALLOW_HTTP_ACS="1",
        FETCH_ALLOW="127.0.0.0/8,::1/128",
    )
    copy_keys(scene.folder / "certs")
    (scene.folder / "portal.json").write_text(JWKS)
    return settings


def prepare(scene: Scene, bridge: Bridge, template: Template) -> None:
    """Share secrets and metadata with the partner, and publish the template."""
    kept: dict[str, str] = {}
    share_secrets(bridge.settings.instance_dir, bridge_url=scene.base_url, keep=kept.__setitem__)
    for name, secret in (("iedr", kept["iedr-client"]), ("itron-login-sso", kept["itron-service"])):
        now = datetime.now(UTC)
        bridge.partner_secrets.add(BILLER, name, secret, now=now, starts_at=now)
    if template.protocol != "saml":
        scene.publish(bridge, template)
        return
    path = scene.folder / scene.find_sample_values(template)["metadata"]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(make_provider(scene, template).build_metadata())
    scene.publish(bridge, template)
    ours = IdentityProvider(bridge.registry, base_url=scene.base_url).find_metadata(
        BILLER, now=datetime.now(UTC), partner=template.slug
    )
    register_idp(bridge.settings.instance_dir, partner=template.slug, biller=BILLER, metadata=ours.xml)


@pytest.fixture
def template(request: pytest.FixtureRequest) -> Template:
    return find_template(request.param)


def list_expected(template: Template, values: dict[str, str]) -> dict[str, str]:
    """What the partner must receive, by attribute; every one of them, since the example session has all fields."""
    found = {}
    for rule in template.parts.mapping["rules"]:
        source = rule.get("from") or rule.get("template") or ""
        constant = re.sub(r"\{\{(.*)\}\}", lambda name: values[name[1]], rule.get("constant", ""))
        source = f"each {rule['each']}: {source}" if "each" in rule else source
        found[rule["attribute"]] = constant or PAYER[source]
    return found


def read_form(answer: requests.Response) -> tuple[str, dict[str, str]]:
    """The form that a page posts by itself."""
    assert answer.status_code == 200, answer.text
    [form] = html.fromstring(answer.text).forms
    return urljoin(answer.url, form.action), {name: value or "" for name, value in form.fields.items()}


def check_saml(scene: Scene, template: Template) -> None:
    """Started at the utility: pysaml2 takes the response and finds the attributes."""
    provider, values = make_provider(scene, template), scene.find_sample_values(template)
    action, fields = read_form(scene.launch(template))
    assert action == provider.acs_url
    link = apply_template(None, template, biller=BILLER, values=values).parts.link
    assert fields["RelayState"] == link["callback_uri"]
    check_received(provider.accept(fields["SAMLResponse"]), template, values)


def check_received(received: Received, template: Template, values: dict[str, str]) -> None:
    name_id = template.settings["name_id"]
    assert received.name_id_format == FORMATS[name_id["format"]]
    assert (received.name_id == PAYER[name_id["from"]]) == (name_id["format"] != "persistent")
    got = {one.name: one.values for one in received.attributes}
    assert got == {name: (value,) for name, value in list_expected(template, values).items()}


def check_oidc(scene: Scene, template: Template) -> None:
    """Started at the utility, by the partner's initiate_login_uri, through the whole code flow of Authlib's client."""
    landed = scene.launch(template)
    assert landed.url == f"{scene.partners_url}/iedr/usage", landed.text
    way = [one.url.partition("?")[0] for one in landed.history]
    assert f"{scene.partners_url}/iedr/login" in way
    assert f"{scene.base_url}/oidc/{BILLER}/authorize" in way
    check_page(landed, list_expected(template, scene.find_sample_values(template)))


def check_backchannel(scene: Scene, template: Template) -> None:
    """The partner's server was told of the payer, and takes the token that the browser carries, once."""
    values = scene.find_sample_values(template)
    action, fields = read_form(scene.launch(template))
    assert (action, list(fields)) == (values["landing_url"], [values["token_parameter"]])
    assert not set(PAYER.values()).intersection(fields.values())
    landed = scene.browser.post(action, data=fields, timeout=10)
    check_page(landed, list_expected(template, values))
    assert requests.post(action, data=fields, timeout=10).status_code == 403


def check_page(landed: requests.Response, expected: dict[str, str]) -> None:
    """The demo partner shows what it received."""
    assert landed.status_code == 200, landed.text
    text = html.fromstring(landed.text).text_content()
    assert [f"{name} is not shown" for name, value in expected.items() if value not in text] == []


CHECKS = {"saml": check_saml, "oidc": check_oidc, "backchannel_token": check_backchannel}


@pytest.mark.both_databases("launch")
@pytest.mark.parametrize("template", TEMPLATES, indirect=True)
def test_every_template_is_published_with_sample_values_and_signs_in_at_a_partner(
    scene: Scene, template: Template
) -> None:
    CHECKS[template.protocol](scene, template)


@pytest.mark.parametrize("template", SAML, indirect=True)
def test_a_sign_on_that_the_partner_starts_is_answered_and_its_relay_state_comes_back(
    scene: Scene, template: Template
) -> None:
    provider = make_provider(scene, template)
    [idp] = provider.list_identity_providers()
    request_id, url = provider.ask(idp.entity_id, page="token-4711")
    action, fields = read_form(scene.browser.get(url, timeout=10))
    assert (action, fields["RelayState"]) == (provider.acs_url, "token-4711")
    received = provider.accept(fields["SAMLResponse"], asked={request_id: idp.entity_id})
    assert received.in_response_to == request_id
    check_received(received, template, scene.find_sample_values(template))


def read_response(scene: Scene, template: Template) -> tuple[bytes, dict[str, str]]:
    _, fields = read_form(scene.launch(template))
    return base64.b64decode(fields["SAMLResponse"], validate=True), fields


@pytest.mark.parametrize("template", ["oracle-opower"], indirect=True)
def test_nothing_for_opower_has_a_carriage_return(scene: Scene, template: Template) -> None:
    document, fields = read_response(scene, template)
    for text in (document, json.dumps(fields).encode()):
        assert not re.search(rb"\r|\\r|&#(?:13|x0*d);", text, re.IGNORECASE)


@pytest.mark.parametrize("template", ["watersmart-vertexone"], indirect=True)
def test_an_assertion_for_watersmart_is_good_for_three_minutes(scene: Scene, template: Template) -> None:
    root = etree.fromstring(read_response(scene, template)[0])
    [issued] = root.xpath("//*[local-name()='Assertion']/@IssueInstant")
    for end in root.xpath("//@NotOnOrAfter"):
        assert datetime.fromisoformat(end) - datetime.fromisoformat(issued) <= timedelta(minutes=3)
