"""What the demo takes of its surroundings, and what it tells the person who starts it."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from saml_bridge.app.installation import initialise
from saml_bridge.app.settings import Settings
from saml_bridge.demo.start import _choose_settings, _welcome

BRIDGE_URL = "http://localhost:8000"


def test_nothing_of_a_real_service_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A demo biller never stands in its database, and its keys sign nothing of the demo's."""
    for one in fields(Settings):
        monkeypatch.setenv(f"SAML_BRIDGE_{one.name.upper()}", "theirs")
    chosen = _choose_settings(BRIDGE_URL, tmp_path / "kept")
    assert "theirs" not in chosen.values()
    list(initialise(chosen))
    settings = Settings.from_env(chosen)
    kept = (settings.instance_dir, settings.certs_dir, Path(settings.database_url.removeprefix("sqlite:///")))
    assert all(path.is_relative_to(tmp_path / "kept") and path.exists() for path in kept)


def test_it_tells_what_commands_need_to_work_on_it(tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "kept here"
    _welcome(said.append, BRIDGE_URL, "http://127.0.0.1:8001", folder)
    [line] = [line for line in said if "export" in line]
    told = dict(one.split("=", 1) for one in shlex.split(line)[1:])
    assert told["SAML_BRIDGE_ALLOW_HTTP_ACS"] == "1"
    assert told["SAML_BRIDGE_INSTANCE_DIR"] == str(folder)
    assert told.items() <= _choose_settings(BRIDGE_URL, folder).items()
