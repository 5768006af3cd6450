from pathlib import Path

import pytest
from flask import Flask

from saml_bridge.app.settings import Settings, check_environment
from saml_bridge.keys.ring import write_private
from saml_bridge.model.errors import SettingsInvalid
from saml_bridge.model.values import Severity
from saml_bridge.storage.database import init_database, upgrade_database

SECRET = "a-test-secret-" * 3


def read(**variables: str) -> Settings:
    return Settings.from_env({f"SAML_BRIDGE_{name}": value for name, value in variables.items()})


def test_defaults_need_only_a_secret() -> None:
    settings = read(SECRET_KEY=SECRET)
    assert settings.base_url == "http://localhost:8700"
    assert settings.database_url == f"sqlite:///{Path.cwd() / 'instance' / 'saml_bridge.db'}"
    assert settings.pairwise_secret == SECRET
    assert settings.partner_secrets_key == SECRET


def test_the_secrets_of_partners_may_be_sealed_with_a_key_of_their_own() -> None:
    own = "another-secret-" * 3
    settings = read(SECRET_KEY=SECRET, PARTNER_SECRETS_KEY=own)
    assert (settings.partner_secrets_key, settings.pairwise_secret) == (own, SECRET)
    assert own not in repr(settings)
    assert "at least 32" in refuse(SECRET_KEY=SECRET, PARTNER_SECRETS_KEY="short")


def test_the_secret_may_come_from_the_instance_folder(tmp_path: Path) -> None:
    write_private(tmp_path / "secret.key", SECRET.encode() + b"\n")
    assert read(INSTANCE_DIR=str(tmp_path)).secret_key == SECRET


def refuse(**variables: str) -> str:
    """The one finding's variable, message and fix."""
    with pytest.raises(SettingsInvalid) as caught:
        read(**variables)
    (finding,) = caught.value.findings
    assert finding.fix
    return f"{finding.message} {finding.fix}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BASE_URL", "http://["),
        ("BASE_URL", "https://sso.example.com:port"),
        ("BASE_URL", "https://user@sso.example.com"),
        ("BASE_URL", "https://sso.example.com\n"),
        ("BASE_URL", "https://sso.example.com/?x=1"),
        ("SNAPSHOT_CACHE", "9" * 5000),
        ("SNAPSHOT_CACHE", "0"),
        ("SESSION_LEEWAY_SECONDS", "\u0663"),
        ("CERTS_DIR", "~no-such-user/certs"),
        ("INSTANCE_DIR", "~no-such-user"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("DATABASE_URL", "sqlite:///"),
        ("DATABASE_URL", "sqlite:////tmp/x.db?timeout=abc"),
    ],
)
def test_whatever_a_variable_holds_is_a_finding_with_a_fix(name: str, value: str) -> None:
    said = refuse(SECRET_KEY=SECRET, **{name: value})
    assert said.startswith(f"SAML_BRIDGE_{name} ")
    assert len(said) < 300


@pytest.mark.parametrize("path", ["/bridge", "/bridge/", "//bridge"])
def test_a_base_url_has_no_path(path: str) -> None:
    assert "Set https://sso.example.com," in refuse(SECRET_KEY=SECRET, BASE_URL=f"https://sso.example.com{path}")


def test_the_slash_at_the_end_of_the_base_url_is_dropped() -> None:
    assert read(SECRET_KEY=SECRET, BASE_URL="https://sso.example.com:8443/").base_url == "https://sso.example.com:8443"


def test_the_demo_is_for_this_machine_alone() -> None:
    for host in ("localhost", "127.0.0.1:8700", "[::1]:8700"):
        assert read(SECRET_KEY=SECRET, SESSION_SOURCE="demo", BASE_URL=f"http://{host}").session_source == "demo"
    said = refuse(SECRET_KEY=SECRET, SESSION_SOURCE="demo", BASE_URL="https://sso.example.com")
    assert said.startswith("SAML_BRIDGE_SESSION_SOURCE")


def test_a_relative_database_file_is_relative_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read(SECRET_KEY=SECRET, DATABASE_URL="sqlite:///relative.db")
    assert settings.database_url == f"sqlite:///{tmp_path / 'relative.db'}"
    app = Flask(__name__)
    database = init_database(app, settings.database_url)
    upgrade_database(app)
    database.dispose()
    assert (tmp_path / "relative.db").exists()


def test_the_folder_of_the_database_file_must_be_there(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert f"mkdir -p {absent}" in refuse(SECRET_KEY=SECRET, DATABASE_URL=f"sqlite:///{absent}/x.db")
    read(SECRET_KEY=SECRET, DATABASE_URL=f"sqlite:///{absent}/x.db", INSTANCE_DIR=str(absent))  # made by the service


def test_a_secret_file_that_does_not_do_says_why(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    assert "no secret file" in refuse(INSTANCE_DIR=str(tmp_path))
    path.mkdir()
    said = refuse(INSTANCE_DIR=str(tmp_path))
    assert f"{path} cannot be read: Is a directory" in said
    assert "init" not in said
    path.rmdir()
    write_private(path, b"hunter2\n")
    said = refuse(INSTANCE_DIR=str(tmp_path))
    assert f"{path} has 7 characters, at least 32 are needed" in said
    assert "hunter2" not in said
    path.write_bytes(b"\xff" * 40)
    assert f"{path} is not plain text" in refuse(INSTANCE_DIR=str(tmp_path))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_k1_a_secret_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret.key"
    write_private(path, SECRET.encode())
    path.chmod(mode)
    assert f"Run 'chmod 600 {path}'." in refuse(INSTANCE_DIR=str(tmp_path))


@pytest.mark.parametrize("guessable", ["s" * 40, "ab" * 20, "0123" * 8])
@pytest.mark.parametrize("name", ["SECRET_KEY", "PAIRWISE_SECRET", "PARTNER_SECRETS_KEY", "METRICS_TOKEN"])
def test_k4_a_secret_of_a_few_characters_over_and_over_is_refused(name: str, guessable: str) -> None:
    said = refuse(**{"SECRET_KEY": SECRET, name: guessable})
    assert said.startswith(f"SAML_BRIDGE_{name} is a few characters over and over")
    assert guessable not in said
    assert "over and over" in refuse(**{"SECRET_KEY": SECRET, name: guessable, "BASE_URL": "https://sso.example.com"})


def test_k4_a_guessable_secret_warns_where_only_this_machine_is_served() -> None:
    """As a test has it: BASE_URL is set to http, which no other address may have."""
    given = {"SAML_BRIDGE_SECRET_KEY": "s" * 40, "SAML_BRIDGE_BASE_URL": "http://127.0.0.1:8700"}
    assert Settings.from_env(given).secret_key == "s" * 40
    (warned,) = check_environment(given)
    assert (warned.severity, warned.where) == (Severity.WARNING, "SAML_BRIDGE_SECRET_KEY")
    assert "over and over" in warned.message


def test_k4_so_is_one_in_the_secret_file(tmp_path: Path) -> None:
    write_private(tmp_path / "secret.key", b"s" * 40)
    assert "a few characters over and over" in refuse(INSTANCE_DIR=str(tmp_path))


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
    assert SECRET not in repr(read(SECRET_KEY=SECRET, METRICS_TOKEN="metrics-token-" * 3))
    with pytest.raises(SettingsInvalid) as caught:
        read(SECRET_KEY="hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_misspelt_variable_is_warned_of() -> None:
    findings = check_environment({"SAML_BRIDGE_BASEURL": "x", "SAML_BRIDGE_BASE_URL": "y", "PATH": "z"})
    assert [(finding.where, finding.refuses) for finding in findings] == [("SAML_BRIDGE_BASEURL", False)]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BASEURL", "BASE_URL"),
        ("SESSION_JWK", "SESSION_JWKS"),
        ("ALLOW_HTTP", "ALLOW_HTTP_ACS"),
        ("base_url", "BASE_URL"),
        ("METRIC_TOKEN", "METRICS_TOKEN"),
    ],
)
def test_a_misspelt_variable_is_answered_with_the_one_that_was_meant(name: str, meant: str) -> None:
    [finding] = check_environment({f"SAML_BRIDGE_{name}": "x"})
    assert f"did you mean SAML_BRIDGE_{meant}?" in finding.message


def test_a_variable_like_none_gets_the_list() -> None:
    [finding] = check_environment({"SAML_BRIDGE_XYZZY": "x"})
    assert "did you mean" not in finding.message
    assert "SAML_BRIDGE_BASE_URL" in finding.fix


def test_problems_of_one_variable_and_of_several_and_misspelt_ones_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        read(
            INSTANCE_DIR=str(tmp_path),
            BASE_URL="http://pay.example",
            SESSION_SOURCE="jwt",
            SESSION_JWKS_URL="https://pay.example/jwks.json",
            SESSION_SOURCES="sources.yaml",
            INTROSPECTION_AUTH="guess",
        )
    assert [(one.where.removeprefix("SAML_BRIDGE_"), one.refuses) for one in caught.value.findings] == [
        ("BASE_URL", True),
        ("INTROSPECTION_AUTH", True),
        ("SECRET_KEY", True),
        ("SESSION_JWKS", True),
        ("SESSION_ISSUER", True),
        ("SESSION_AUDIENCE", True),
        ("SESSION_SOURCES", True),
        ("SESSION_JWKS_URL", False),
    ]


def test_what_could_not_be_read_is_not_said_to_be_missing_too() -> None:
    given = {"SESSION_SOURCE": "introspection", "INTROSPECTION_URL": "https://pay.example/"}
    assert "'guess'" in refuse(SECRET_KEY=SECRET, INTROSPECTION_AUTH="guess", **given)
    assert "no such home" in refuse(INSTANCE_DIR="~no-such-user")


def test_the_introspection_source_says_what_it_lacks() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        read(SECRET_KEY=SECRET, SESSION_SOURCE="introspection")
    names = ["SAML_BRIDGE_INTROSPECTION_URL", "SAML_BRIDGE_INTROSPECTION_AUTH"]
    assert [finding.where for finding in caught.value.findings] == names


@pytest.mark.parametrize(
    ("auth", "needs"), [("basic", ["CLIENT_ID", "CLIENT_SECRET"]), ("bearer", ["TOKEN"]), ("mtls", ["CLIENT_CERT"])]
)
def test_each_way_to_authenticate_says_what_it_lacks(auth: str, needs: list[str]) -> None:
    given = {"SESSION_SOURCE": "introspection", "INTROSPECTION_URL": "https://pay.example/", "INTROSPECTION_AUTH": auth}
    with pytest.raises(SettingsInvalid) as caught:
        read(SECRET_KEY=SECRET, **given)
    assert [finding.where for finding in caught.value.findings] == [f"SAML_BRIDGE_INTROSPECTION_{one}" for one in needs]
    assert read(SECRET_KEY=SECRET, **given, **{f"INTROSPECTION_{one}": "x" for one in needs})


def test_one_source_for_all_and_a_file_of_sources_are_not_both_taken() -> None:
    given = {"SESSION_SOURCE": "demo", "SESSION_SOURCES": "sources.yaml"}
    with pytest.raises(SettingsInvalid) as caught:
        read(SECRET_KEY=SECRET, **given)
    assert [finding.where for finding in caught.value.findings] == ["SAML_BRIDGE_SESSION_SOURCES"]


@pytest.mark.parametrize("seconds", ["6", "-1", "1.5", "60"])
def test_b13_no_setting_has_a_session_believed_for_more_than_five_seconds(seconds: str) -> None:
    assert "whole number from 0 to 5" in refuse(SECRET_KEY=SECRET, INTROSPECTION_CACHE_SECONDS=seconds)


def test_secrets_of_the_introspection_client_are_not_shown() -> None:
    settings = read(SECRET_KEY=SECRET, INTROSPECTION_CLIENT_SECRET="s3cr3t-one", INTROSPECTION_TOKEN="s3cr3t-two")
    assert "s3cr3t" not in repr(settings)
