"""Making an installation, and saying what is wrong with one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from saml_bridge.app.installation import examine, initialise
from saml_bridge.app.operator import name_operator
from saml_bridge.app.settings import Settings
from saml_bridge.app.wiring import open_bridge
from saml_bridge.keys.ring import KeyRing, create_key
from saml_bridge.model.errors import SettingsInvalid
from saml_bridge.model.values import Finding, Severity
from saml_bridge.storage.database import find_database
from tests.portal.introspector import http_answer
from tests.portal.introspector import serve as serve_introspection
from tests.world import World, make_settings, sp_metadata

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


@pytest.mark.both_databases("doctor")
def test_k10_k11_what_two_billers_share_is_an_error(world: World) -> None:
    """Such as of an installation that was moved, or whose key files were copied, after the publication."""
    other = json.loads(json.dumps(world.biller)) | {"slug": "lakeside-power", "name": "Lakeside Power"}
    other["idp"] = {"entity_id": f"https://moved.example/oidc/{world.biller['slug']}"}
    world.document["billers"].append(other)
    world.publish()
    for part in ("key", "cert"):
        copy = world.folder / "certs" / f"tokens.{part}.pem"
        copy.write_bytes((world.folder / "certs" / f"default.{part}.pem").read_bytes())
        copy.chmod(0o600)
    changes = {"INSTANCE_DIR": str(world.folder), "BASE_URL": "https://moved.example"}
    settings = make_settings(world.folder, world.settings.database_url, **changes)
    bridge = open_bridge(settings)
    told = [one for one in examine(bridge, now=NOW) if one.code in ("issuer-foreign", "key-shared")]
    find_database(bridge.app).dispose()
    found = {one.code: one for one in told}
    assert len(told) == len(set(told)), "each is said once"
    assert found["issuer-foreign"].where == "lakeside-power: idp.entity_id"
    assert found["key-shared"].where.endswith(": tokens.keys.current")
    assert "'tokens' is the key 'default' by another name" in found["key-shared"].message


def examine_with(world: World, **names: str) -> dict[str, Finding]:
    """What `examine` finds, by code, where these names have these addresses and no other has one."""

    def resolve(host: str, _port: int, **_: Any) -> list[tuple[Any, ...]]:
        return [(0, 0, 0, "", (address, 443)) for name, address in names.items() if host == f"{name}.example"]

    return {one.code: one for one in examine(world.bridge, now=datetime.now(UTC), resolve=resolve)}


def test_l10_an_address_inside_is_found_by_its_name_too(world: World) -> None:
    world.biller["portal"]["logout_callback"] = "https://portal.example/ended"
    world.publish()
    assert "fetch-address" not in examine_with(world, portal="8.8.8.8")
    assert "fetch-address" not in examine_with(world)
    found = examine_with(world, portal="10.1.2.3")["fetch-address"]
    assert (found.severity, found.where) == (Severity.WARNING, "riverton-water: portal.logout_callback")
    assert "portal.example has the address 10.1.2.3" in found.message


@pytest.mark.both_databases("doctor")
def test_what_a_publication_would_refuse_by_now_is_found(world: World) -> None:
    """A rule that came with a newer version, for what was published before it."""
    assert not [one for one in examine_with(world).values() if one.refuses]
    unfit = sp_metadata().replace(
        b"</ds:KeyInfo>",
        b'</ds:KeyInfo><md:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#tripledes-cbc"/>',
    )
    world.partner["saml"]["encrypt"] = "never"
    (world.folder / "sp.xml").write_bytes(unfit)
    world.publish()
    columns = "document, sha256, author, published_at, comment"
    older = columns.replace("document", "replace(document, :never, :offered)", 1)
    again = f"INSERT INTO revision (biller, number, {columns}) SELECT biller, 3, {older} FROM revision WHERE number = 2"
    with find_database(world.bridge.app).begin() as connection:
        connection.execute(text(again), {"never": '"encrypt":"never"', "offered": '"encrypt":"when_offered"'})
        connection.execute(text("UPDATE biller SET revision = 3"))
    found = examine_with(world)["encrypt-cipher-unusable"]
    assert (found.severity, found.where) == (Severity.ERROR, "riverton-water: partners[0].saml.encrypt")


def test_m23_the_end_of_a_certificate_is_read_as_the_metadata_is_read_now(world: World) -> None:
    """The index of what was published before may go by a certificate that does not count any more."""
    with find_database(world.bridge.app).begin() as connection:
        near = {"near": datetime.now(UTC) + timedelta(days=3)}
        connection.execute(text("UPDATE partner_index SET certificate_expires_at = :near"), near)
    assert "partner-certificate-expires" not in examine_with(world)


def test_init_locks_the_key_when_there_is_a_passphrase(tmp_path: Path) -> None:
    environ = {"SAML_BRIDGE_INSTANCE_DIR": str(tmp_path / "instance"), "SAML_BRIDGE_CERTS_DIR": str(tmp_path / "certs")}
    list(initialise({**environ, "SAML_BRIDGE_KEY_PASSPHRASE": "a passphrase"}))
    for name in ("default", "tokens"):
        assert b"ENCRYPTED" in (tmp_path / "certs" / f"{name}.key.pem").read_bytes()


def make_folders(tmp_path: Path) -> tuple[Settings, dict[str, str]]:
    """An installation that `initialise` made, and the environment that it was made in."""
    names = {"INSTANCE_DIR": str(tmp_path / "instance"), "CERTS_DIR": str(tmp_path / "certs")}
    environ = {f"SAML_BRIDGE_{name}": value for name, value in names.items()}
    list(initialise(environ))
    return Settings.from_env(environ), environ


def list_modes(settings: Settings) -> list[int]:
    paths = (settings.instance_dir, settings.certs_dir, settings.instance_dir / "saml_bridge.db")
    return [path.stat().st_mode & 0o777 for path in paths]


def test_k1_what_init_makes_is_the_owners_alone(tmp_path: Path) -> None:
    settings, _ = make_folders(tmp_path)
    assert list_modes(settings) == [0o700, 0o700, 0o600]
    assert "mode-open" not in find_problems(settings)


@pytest.mark.parametrize(
    ("folder", "file", "severity", "can"),
    [
        (0o755, 0o644, Severity.WARNING, "read"),
        (0o750, 0o640, Severity.WARNING, "read"),
        (0o777, 0o666, Severity.ERROR, "change"),
        (0o770, 0o660, Severity.ERROR, "change"),
    ],
)
def test_k1_folders_and_a_database_that_others_can_use_are_found_and_mended(
    tmp_path: Path, folder: int, file: int, severity: Severity, can: str
) -> None:
    settings, environ = make_folders(tmp_path)
    database = settings.instance_dir / "saml_bridge.db"
    for path, mode in ((settings.instance_dir, folder), (settings.certs_dir, folder), (database, file)):
        path.chmod(mode)
    bridge = open_bridge(settings)
    found = [one for one in examine(bridge, now=NOW) if one.code == "mode-open"]
    find_database(bridge.app).dispose()
    assert [(one.where, one.severity) for one in found] == [
        (str(path), severity) for path in (settings.instance_dir, settings.certs_dir, database)
    ]
    assert all(f"others on this machine can {can} it" in one.message for one in found)
    assert found[0].fix == f"Run 'chmod 700 {settings.instance_dir}', or 'saml-bridge init'."
    assert found[2].fix == f"Run 'chmod 600 {database}', or 'saml-bridge init'."
    said = list(initialise(environ))
    assert f"mode      {database} is 0600 now, was {file:04o}" in said
    assert list_modes(settings) == [0o700, 0o700, 0o600]
    assert list(initialise(environ)) == ["database  up to date"]


def test_k1_a_folder_with_other_files_than_keys_is_left_and_told(tmp_path: Path) -> None:
    """CERTS_DIR may be a folder of the system's, which other programs read."""
    settings, environ = make_folders(tmp_path)
    (settings.certs_dir / "openssl.cnf").touch()
    settings.certs_dir.chmod(0o755)
    [said, _] = initialise(environ)
    assert "stays 0755" in said
    assert f"chmod 700 {settings.certs_dir}" in said
    assert list_modes(settings)[1] == 0o755


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


# The introspection endpoint


def examine_endpoint(tmp_path: Path, url: str) -> list[Finding]:
    environ = {
        "SAML_BRIDGE_SESSION_SOURCE": "introspection",
        "SAML_BRIDGE_INTROSPECTION_URL": url,
        "SAML_BRIDGE_INTROSPECTION_AUTH": "basic",
        "SAML_BRIDGE_INTROSPECTION_CLIENT_ID": "bridge",
        "SAML_BRIDGE_INTROSPECTION_CLIENT_SECRET": "s3cr3t-client",
        "SAML_BRIDGE_BASE_URL": "http://localhost:8700",
        "SAML_BRIDGE_INSTANCE_DIR": str(tmp_path / "instance"),
        "SAML_BRIDGE_CERTS_DIR": str(tmp_path / "certs"),
        "SAML_BRIDGE_DATABASE_URL": f"sqlite:///{tmp_path / 'bridge.db'}",
    }
    list(initialise(environ))
    bridge = open_bridge(Settings.from_env(environ))
    found = [one for one in examine(bridge, now=datetime.now(UTC)) if one.code.startswith("introspection")]
    find_database(bridge.app).dispose()
    assert all(one.refuses and one.fix for one in found)
    return found


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (http_answer(b'{"active": false}'), None, ""),
        (http_answer(b'{"active": true, "sid": "s"}'), "introspection-not-rfc7662", "takes it for a session"),
        (http_answer(b"{}"), "introspection-not-rfc7662", "does not say active: false"),
        (http_answer(b"[]"), "introspection-not-rfc7662", "does not say active: false"),
        (http_answer(b"{"), "introspection-not-json", "answered with what"),
        (http_answer(b"", status="401 No"), "introspection-not-authorized", "status 401"),
        (http_answer(b"", status="404 No"), "introspection-status", "status 404"),
        (http_answer(b"<html>", Content_Type="text/html"), "introspection-not-json", "not application/json"),
        (b"", "introspection-connection", "hung up without an answer"),
    ],
)
def test_doctor_asks_the_introspection_endpoint(tmp_path: Path, answer: bytes, code: str | None, words: str) -> None:
    with serve_introspection() as server:
        server.answer = lambda connection, _: connection.sendall(answer)
        found = examine_endpoint(tmp_path, server.url)
        assert all(one.form["token"][0].startswith("doctor-") for one in server.questions)
        assert len(server.questions) == (2 if not answer else 1)
    assert [one.code for one in found] == ([] if code is None else [code])
    assert all(words in one.message for one in found)


def test_doctor_says_that_nobody_listens_at_the_introspection_endpoint(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        [found] = examine_endpoint(tmp_path, f"http://127.0.0.1:{nobody.getsockname()[1]}/introspect")
    assert "nobody takes connections there" in found.message
    assert "SAML_BRIDGE_INTROSPECTION_URL" in found.fix
