"""The file that names session sources for billers: what it makes, and everything that is wrong with it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from saml_bridge.model.errors import SettingsInvalid, SourceUnavailable
from saml_bridge.model.values import Credentials
from saml_bridge.portal.introspection_source import IntrospectionSource
from saml_bridge.portal.jwt_source import JwtSource
from saml_bridge.portal.source_by_biller import SourceBook
from saml_bridge.portal.sources_file import SourcesFile, load_sources
from tests.portal.conformance import NOW

GOOD = """
version: 1
sources:
  main: {kind: jwt, jwks: portal-jwks.json, issuer: "https://pay.example", audience: saml-bridge, leeway_seconds: 5}
  lakeside:
    kind: introspection
    url: https://pay.lakeside.example/introspect
    auth: basic
    client_id: bridge
    client_secret: env:LAKE_SECRET
    cookie: lake_session
    cache_seconds: 2
default: main
billers:
  lakeside-power: lakeside
"""
ENVIRON = {"LAKE_SECRET": "s3cr3t-value"}


def write(folder: Path, content: str, mode: int = 0o644) -> Path:
    path = folder / "sources.yaml"
    path.write_text(content)
    path.chmod(mode)
    return path


def load(folder: Path, content: str, mode: int = 0o644) -> SourcesFile:
    return load_sources(write(folder, content, mode), ENVIRON)


def refuse(folder: Path, content: str, mode: int = 0o644) -> list[str]:
    """The messages of the refusal, none with a secret in it."""
    with pytest.raises(SettingsInvalid) as caught:
        load(folder, content, mode)
    messages = [one.message for one in caught.value.findings]
    assert messages
    assert "s3cr3t" not in f"{caught.value!r} {caught.value.findings!r}"
    return messages


def test_each_biller_gets_the_source_that_the_file_names(tmp_path: Path) -> None:
    file = load(tmp_path, GOOD)
    main, lakeside = file.sources["main"], file.sources["lakeside"]
    assert main.jwks == str(tmp_path / "portal-jwks.json")  # type: ignore[union-attr]  # of a jwt source
    assert main.leeway_seconds == 5
    assert lakeside.endpoint.client_secret == "s3cr3t-value"  # type: ignore[union-attr]  # of an introspection source
    assert (lakeside.cookie, main.cookie) == ("lake_session", "portal_session")
    assert file.default == "main"
    assert file.billers == {"lakeside-power": "lakeside"}
    assert "s3cr3t-value" not in repr(file)


def test_secrets_in_the_file_are_its_owners_alone(tmp_path: Path) -> None:
    content = GOOD.replace("env:LAKE_SECRET", "s3cr3t-in-clear")
    assert load(tmp_path, content, 0o600)
    [message] = refuse(tmp_path, content, 0o640)
    assert "others can read" in message


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    [message] = refuse(tmp_path, GOOD.replace("env:LAKE_SECRET", "env:NOT_THERE"))
    assert "NOT_THERE, which is not set" in message


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    content = """
version: 2
extra: 1
sources:
  main: {kind: jwt, issuer: "https://pay.example", audiense: x, cookie: [a]}
  other: {kind: introspection, url: "https://a.example", auth: basic, client_id: a, read_seconds: 90}
  third: {kind: introspection, auth: digest}
  fourth: {kind: magic}
  Fifth!: {kind: jwt}
  sixth: 7
default: nobody
billers: {lakeside-power: main, riverton-water: seventh, "Bad Slug": other}
"""
    said = "\n".join(refuse(tmp_path, content))
    for expected in (
        "version must be 1",
        "extra is not known",
        "sources.main.audiense is not known",
        "sources.main.jwks is missing",
        "sources.main.audience is missing",
        "sources.main.cookie must be text",
        "sources.other.client_secret is missing, and auth: basic needs it",
        "sources.other.read_seconds must be a whole number from 1 to 30",
        "sources.third.url is missing",
        "sources.third.auth must be one of: basic, bearer, mtls",
        "sources.fourth.kind must be one of: jwt, introspection",
        "sources.Fifth!",
        "sources.sixth must be a mapping",
        "default names no source of this file",
        "billers.riverton-water names no source of this file",
        "billers.Bad Slug has a name",
    ):
        assert expected in said, expected


@pytest.mark.parametrize("content", ["", "[]", "text", "{", "sources: &a {}\nbillers: *a", "version: 1\nversion: 1"])
def test_what_is_no_such_file_is_refused(content: str, tmp_path: Path) -> None:
    refuse(tmp_path, content)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load_sources(tmp_path / "absent.yaml", {})
    assert "absent.yaml" in caught.value.findings[0].message


def test_a_biller_without_a_source_is_told_to_try_again() -> None:
    with pytest.raises(SourceUnavailable) as caught:
        SourceBook(None).find("riverton-water").find_session(Credentials(), now=NOW)
    assert [one.code for one in caught.value.findings] == ["source-not-set"]


def test_the_book_opens_every_source(tmp_path: Path) -> None:
    from saml_bridge.app.session_sources import open_sources
    from tests.world import make_settings

    settings = make_settings(tmp_path, "sqlite:////tmp/unused.db", SESSION_SOURCES=str(write(tmp_path, GOOD)))
    book = open_sources(settings, environ=ENVIRON)
    assert isinstance(book.find("lakeside-power"), IntrospectionSource)
    assert isinstance(book.find("riverton-water"), JwtSource)
    assert book.list_problems() == ()
    bad = GOOD.replace("https://pay.lakeside", "http://pay.lakeside").replace("portal-jwks.json", "http://pay.example/")
    write(tmp_path, bad)
    with pytest.raises(SettingsInvalid) as caught:
        open_sources(settings, environ=ENVIRON)
    assert [one.where for one in caught.value.findings] == ["sources.main.jwks", "sources.lakeside.url"]
