"""What the demo takes of its surroundings, and what it tells the person who starts it."""

from __future__ import annotations

import shlex

import pytest

from saml_bridge.demo.start import _choose_settings, _welcome

BRIDGE_URL = "http://localhost:8000"


def test_of_a_real_service_only_folders_and_what_opens_the_keys_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CERTS_DIR", "KEY_PASSPHRASE", "DATABASE_URL", "SECRET_KEY", "SESSION_JWKS"):
        monkeypatch.setenv(f"SAML_BRIDGE_{name}", "theirs")
    chosen = _choose_settings(BRIDGE_URL)
    assert {name for name, value in chosen.items() if value == "theirs"} == {
        "SAML_BRIDGE_CERTS_DIR",
        "SAML_BRIDGE_KEY_PASSPHRASE",
    }


def test_it_tells_what_commands_need_to_work_on_it() -> None:
    said: list[str] = []
    _welcome(said.append, BRIDGE_URL, "http://127.0.0.1:8001")
    [line] = [line for line in said if "export" in line]
    told = dict(one.split("=", 1) for one in shlex.split(line)[1:])
    assert told["SAML_BRIDGE_ALLOW_HTTP_ACS"] == "1"
    assert told.items() <= _choose_settings(BRIDGE_URL).items()
