"""Making an installation, and saying what is wrong with one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from saml_bridge.app import open_bridge
from saml_bridge.db import find_database
from saml_bridge.errors import SettingsInvalid
from saml_bridge.installation import examine, initialise, name_operator
from saml_bridge.settings import Settings
from saml_bridge.values import Finding
from tests.world import make_settings

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
JWT = {"SESSION_SOURCE": "jwt", "SESSION_ISSUER": "https://pay.example", "SESSION_AUDIENCE": "saml-bridge"}


def find_problems(settings: Settings) -> dict[str, Finding]:
    """What `examine` finds, by code."""
    bridge = open_bridge(settings)
    found = {finding.code: finding for finding in examine(bridge, now=NOW)}
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
