"""The demo partners with an identity provider of the tests' own."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from saml_bridge.demo.partner_portals import SAML_PORTALS, build_providers
from saml_bridge.demo.partners import create_partners_app
from saml_bridge.demo.run import register_idp
from saml_bridge.demo.service_provider import ServiceProvider
from tests.demo.issuer import Issuer

BASE_URL = "http://127.0.0.1:8001"


@pytest.fixture(scope="session")
def issuer(keys_dir: Path) -> Issuer:
    return Issuer(keys_dir)


@pytest.fixture(scope="session")
def instance_dir(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Path:
    """Made once: keys are slow to make. What changes it makes a copy."""
    directory = tmp_path_factory.mktemp("instance")
    for provider in build_providers(BASE_URL, directory / "demo").values():
        provider.build_metadata()
    for slug in SAML_PORTALS:
        register_idp(directory, partner=slug, biller="riverton-water", metadata=issuer.metadata())
    return directory


@pytest.fixture(scope="session")
def providers(instance_dir: Path) -> dict[str, ServiceProvider]:
    return build_providers(BASE_URL, instance_dir / "demo")


@pytest.fixture(scope="session")
def app(instance_dir: Path) -> Flask:
    return create_partners_app(base_url=BASE_URL, state_dir=instance_dir / "demo")


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    """A browser of its own for each test; the portals' memory is shared."""
    return app.test_client()
