"""Preparing the demo and serving its partner portals."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest
import requests

from saml_bridge.demo.run import PartnersServer, prepare, register_idp, share_secrets
from tests.demo.issuer import Issuer

URLS = {"bridge_url": "http://localhost:8000", "partners_url": "http://127.0.0.1:8001"}


def test_preparing_again_changes_nothing(tmp_path: Path) -> None:
    configuration = prepare(tmp_path, **URLS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.name for path in before} >= {"billers.yaml", "aquahawk.xml", "my360-encryption.key.pem"}
    assert prepare(tmp_path, **URLS) == configuration
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_other_addresses_keep_the_keys(tmp_path: Path) -> None:
    configuration = prepare(tmp_path, **URLS)
    keys = {path: path.read_bytes() for path in (tmp_path / "demo" / "keys").iterdir()}
    prepare(tmp_path, bridge_url="http://localhost:9000", partners_url="http://127.0.0.1:9001")
    assert {path: path.read_bytes() for path in (tmp_path / "demo" / "keys").iterdir()} == keys
    assert "http://127.0.0.1:9001/aquahawk/usage" in configuration.read_text()
    assert b'Location="http://127.0.0.1:9001/' in (tmp_path / "demo" / "metadata" / "aquahawk.xml").read_bytes()


def test_keys_and_their_folder_are_the_owners_alone(tmp_path: Path) -> None:
    prepare(tmp_path, **URLS)
    folder = tmp_path / "demo" / "keys"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.key.pem")} == {0o600}


def test_the_portals_are_served_and_stopped(tmp_path: Path, issuer: Issuer) -> None:
    port = _find_port()
    prepare(tmp_path, bridge_url="http://localhost:8000", partners_url=f"http://127.0.0.1:{port}")
    register_idp(tmp_path, partner="aquahawk", biller="riverton-water", metadata=issuer.metadata())
    with PartnersServer(tmp_path, host="127.0.0.1", port=port) as server:
        assert server.base_url == f"http://127.0.0.1:{port}"
        assert requests.get(f"{server.base_url}/", timeout=5).status_code == 200
        metadata = requests.get(f"{server.base_url}/sensus/saml/metadata", timeout=5).content
        assert metadata == (tmp_path / "demo" / "metadata" / "sensus.xml").read_bytes()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{server.base_url}/", timeout=5)


def test_a_taken_port_is_said_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        PartnersServer(tmp_path, host="127.0.0.1", port=taken.getsockname()[1])


def test_secrets_are_shared_anew_at_each_start_and_are_the_owners_alone(tmp_path: Path) -> None:
    kept: list[tuple[str, str]] = []
    for _ in range(2):
        share_secrets(tmp_path, bridge_url="http://localhost:8000", keep=lambda *one: kept.append(one))
    assert [name for name, _ in kept] == ["iedr-client", "itron-service"] * 2
    assert len({value for _, value in kept}) == 4
    file = tmp_path / "demo" / "accounts" / "itron.json"
    assert json.loads(file.read_text()) == {
        "username": "riverton-water",
        "password": kept[3][1],
        "utility": "http://localhost:8000/ (riverton-water)",
    }
    for path in (file, tmp_path / "demo" / "oidc" / "iedr.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not list((tmp_path / "demo").rglob("*.new"))


def _find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
