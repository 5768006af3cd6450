"""Making an installation, and saying what is wrong with one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from saml_bridge.app import open_bridge
from saml_bridge.db import find_database
from saml_bridge.errors import SettingsInvalid
from saml_bridge.installation import examine, initialise, name_operator
from saml_bridge.keys import KeyRing, create_key
from saml_bridge.settings import Settings
from saml_bridge.values import Finding, Severity
from tests.world import World, make_settings

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
JWT = {"SESSION_SOURCE": "jwt", "SESSION_ISSUER": "https://pay.example", "SESSION_AUDIENCE": "saml-bridge"}


def find_problems(settings: Settings, *, now: datetime = NOW) -> dict[str, Finding]:
    """What `examine` finds, by code."""
    bridge = open_bridge(settings)
    found = {finding.code: finding for finding in examine(bridge, now=now)}
    find_database(bridge.app).dispose()
    return found


def test_an_instance_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingsInvalid) as caught:
            list(initialise({"SAML_BRIDGE_INSTANCE_DIR": str(folder)}))
        (finding,) = caught.value.findings
        assert finding.where == "SAML_BRIDGE_INSTANCE_DIR"
        assert str(folder) in finding.message
        assert finding.fix


def test_a_certificates_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "certs").touch()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SAML_BRIDGE_")}
    command = [sys.executable, "-m", "saml_bridge.cli", "init"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == f"saml-bridge: {tmp_path / 'certs'}: File exists\n"


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "winter")
    assert name_operator() == "winter"
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert name_operator() == "uid-54321"


def test_no_session_source_is_warned_of(tmp_path: Path, database_url: str) -> None:
    found = find_problems(make_settings(tmp_path, database_url))
    assert not found["session-source-absent"].refuses
    assert found["session-source-absent"].fix


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", json.dumps({"keys": {}}), json.dumps({"keys": []})])
def test_keys_of_the_portal_that_cannot_be_read_are_an_error(
    tmp_path: Path, database_url: str, content: str | None
) -> None:
    path = tmp_path / "jwks.json"
    if content is not None:
        path.write_text(content)
    found = find_problems(make_settings(tmp_path, database_url, SESSION_JWKS=str(path), **JWT))
    assert found["session-jwks"].refuses
    assert found["session-jwks"].message.startswith(str(path))


def test_an_address_of_keys_is_judged_and_not_fetched(tmp_path: Path, database_url: str) -> None:
    def problems(location: str) -> dict[str, Any]:
        return find_problems(make_settings(tmp_path, database_url, SESSION_JWKS=location, **JWT))

    assert problems("http://pay.example/jwks.json")["setting-invalid"].where == "SAML_BRIDGE_SESSION_JWKS"
    assert problems("https://pay.example/jwks.json") == {}


@pytest.mark.parametrize(
    ("left", "severity", "words"),
    [
        (timedelta(days=61), None, ""),
        (timedelta(days=60), Severity.NOTE, "in 60 days"),
        (timedelta(days=31), Severity.NOTE, "in 31 days"),
        (timedelta(days=30), Severity.WARNING, "in 30 days"),
        (timedelta(days=8), Severity.WARNING, "in 8 days"),
        (
            timedelta(days=7),
            Severity.WARNING,
            "Urgent: the certificate of key 'default' expires on 2036-01-15, in 7 days",
        ),
        (timedelta(days=1), Severity.WARNING, "in 1 day."),
        (timedelta(hours=3), Severity.WARNING, "today"),
    ],
)
def test_k5_the_end_of_a_certificate_is_told_60_30_and_7_days_ahead(
    tmp_path: Path, database_url: str, left: timedelta, severity: Severity | None, words: str
) -> None:
    made = datetime(2026, 1, 17, 12, tzinfo=UTC)
    settings = make_settings(tmp_path, database_url, SESSION_JWKS="https://pay.example/jwks.json", **JWT)
    for path in settings.certs_dir.iterdir():
        path.unlink()
    create_key(settings.certs_dir, "default", kind="ec-p256", now=made)
    found = find_problems(settings, now=made + timedelta(days=3650) - left)
    if severity is None:
        assert found == {}
        return
    assert set(found) == {"key-certificate-expires"}
    finding = found["key-certificate-expires"]
    assert finding.severity is severity
    assert words in finding.message
    assert "docs/keys.md" in finding.fix


def test_k5_an_expired_certificate_is_told_and_the_key_stays_usable(tmp_path: Path, database_url: str) -> None:
    settings = make_settings(tmp_path, database_url, SESSION_JWKS="https://pay.example/jwks.json", **JWT)
    found = find_problems(settings, now=datetime(2101, 1, 1, tzinfo=UTC))
    assert not found["key-certificate-expired"].refuses
    assert KeyRing(settings.certs_dir).find("default").kind == "rsa"


def test_a_key_that_a_biller_names_and_that_is_gone_is_an_error(world: World) -> None:
    keys = world.bridge.keys
    keys.create("winter", kind="ec-p256", now=NOW)
    world.biller["idp"] = {"keys": {"current": "default", "next": "winter"}}
    world.publish()
    for path in keys.folder.glob("winter.*"):
        path.unlink()
    found = {one.code: one for one in examine(world.bridge, now=NOW)}
    assert found["key-absent"].refuses
    assert found["key-absent"].where == "riverton-water"
    assert "'winter'" in found["key-absent"].message


def test_init_locks_the_key_when_there_is_a_passphrase(tmp_path: Path) -> None:
    environ = {"SAML_BRIDGE_INSTANCE_DIR": str(tmp_path / "instance"), "SAML_BRIDGE_CERTS_DIR": str(tmp_path / "certs")}
    list(initialise({**environ, "SAML_BRIDGE_KEY_PASSPHRASE": "a passphrase"}))
    for name in ("default", "tokens"):
        assert b"ENCRYPTED" in (tmp_path / "certs" / f"{name}.key.pem").read_bytes()


def test_a_database_that_does_not_answer_leaves_the_other_findings(tmp_path: Path) -> None:
    found = find_problems(make_settings(tmp_path, "postgresql://nobody@127.0.0.1:1/none"))
    assert set(found) == {"session-source-absent", "database-unavailable"}
    assert found["database-unavailable"].refuses
    assert found["database-unavailable"].fix


def test_a_file_that_is_no_database_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("not a database, but long enough to be looked at by SQLite " * 40)
    found = find_problems(make_settings(tmp_path, f"sqlite:///{tmp_path / 'x.db'}"))
    assert "file is not a database" in found["database-unavailable"].message


@pytest.mark.parametrize("url", ["postgresql://u@127.0.0.1:port/x", "postgresql+psycopg://u@db:80x/x"])
def test_an_address_of_a_database_that_cannot_be_read_is_a_finding(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        open_bridge(make_settings(tmp_path, url))
    assert [finding.where for finding in caught.value.findings] == ["SAML_BRIDGE_DATABASE_URL"]
