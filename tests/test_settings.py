from pathlib import Path

import pytest

from saml_bridge.errors import SettingsInvalid
from saml_bridge.settings import Settings, check_environment

SECRET = "s" * 40


def read(**variables: str) -> Settings:
    return Settings.from_env({f"SAML_BRIDGE_{name}": value for name, value in variables.items()})


def test_defaults_need_only_a_secret() -> None:
    settings = read(SECRET_KEY=SECRET)
    assert settings.base_url == "http://localhost:8700"
    assert settings.database_url == f"sqlite:///{Path.cwd() / 'instance' / 'saml_bridge.db'}"
    assert settings.pairwise_secret == SECRET


def test_the_secret_may_come_from_the_instance_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text(SECRET + "\n")
    assert read(INSTANCE_DIR=str(tmp_path)).secret_key == SECRET


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        read(
            SECRET_KEY="short",
            BASE_URL="http://pay.example",
            DATABASE_URL="mysql://x",
            SESSION_SOURCE="guess",
            SESSION_LEEWAY_SECONDS="-1",
            ALLOW_HTTP_ACS="maybe",
        )
    named = {finding.where for finding in caught.value.findings}
    expected = {"SECRET_KEY", "BASE_URL", "DATABASE_URL", "SESSION_SOURCE", "SESSION_LEEWAY_SECONDS", "ALLOW_HTTP_ACS"}
    assert named == {f"SAML_BRIDGE_{name}" for name in expected}
    assert all(finding.fix for finding in caught.value.findings)


def test_the_jwt_source_says_what_it_lacks() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        read(SECRET_KEY=SECRET, SESSION_SOURCE="jwt", SESSION_ISSUER="https://pay.example")
    named = [finding.where for finding in caught.value.findings]
    assert named == ["SAML_BRIDGE_SESSION_JWKS", "SAML_BRIDGE_SESSION_AUDIENCE"]


def test_no_secret_is_shown() -> None:
    assert SECRET not in repr(read(SECRET_KEY=SECRET, METRICS_TOKEN="m" * 40))
    with pytest.raises(SettingsInvalid) as caught:
        read(SECRET_KEY="hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_misspelt_variable_is_warned_of() -> None:
    findings = check_environment({"SAML_BRIDGE_BASEURL": "x", "SAML_BRIDGE_BASE_URL": "y", "PATH": "z"})
    assert [(finding.where, finding.refuses) for finding in findings] == [("SAML_BRIDGE_BASEURL", False)]
