"""The file source: what it says to whoever typed the file's name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.errors import SessionAbsent, SourceUnavailable
from saml_bridge.model.values import Credentials
from saml_bridge.portal.file_source import MAX_FILE_BYTES, FileSource
from tests.portal.conformance import NOW, make_document, to_seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ada.json"


def find_malformed(path: Path) -> str:
    with pytest.raises(SessionMalformed) as caught:
        FileSource(path).find_session(Credentials(), now=NOW)
    assert caught.value.detail.startswith(f"{path}: ")
    return caught.value.detail.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"sid": "A",\n "biller" "b"}', "is not JSON: line 2, column 11: Expecting ':' delimiter"),
        (b"", "is not JSON: line 1, column 1: Expecting value"),
        (b'{"sid": "A", "sid": "B"}', "an object has the same name twice (sid)"),
        (b'{"ada@example.net": 1, "ada@example.net": 2}', "an object has the same name twice"),
        (b'{"exp": NaN}', "holds NaN or Infinity"),
        (b'{"sid": "\xff"}', "holds text that is not Unicode"),
        (b'{"sid": "\\udc00"}', "holds text that is not Unicode"),
        (b"[" * 100_000, "holds a number too long or objects too deep to read"),
        (b"9" * 5000, "holds a number too long or objects too deep to read"),
        (b"[]", "the session is not a JSON object"),
        (b'{"sid": "A"}', "payer: expected an object, found nothing"),
        (b" " * (MAX_FILE_BYTES + 1), f"is larger than {MAX_FILE_BYTES} bytes"),
    ],
)
def test_the_detail_names_the_file_and_the_problem(content: bytes, problem: str, path: Path) -> None:
    path.write_bytes(content)
    assert find_malformed(path) == problem


def test_an_expired_session_names_the_file(path: Path) -> None:
    path.write_text(json.dumps(make_document(exp=to_seconds(NOW) - 1)))
    with pytest.raises(SessionAbsent) as caught:
        FileSource(path).find_session(Credentials(), now=NOW)
    assert (caught.value.code, caught.value.detail) == ("session-expired", f"{path}: exp: the session has ended")


def test_an_absent_file_is_named(path: Path) -> None:
    with pytest.raises(SessionAbsent) as caught:
        FileSource(path).find_session(Credentials(), now=NOW)
    assert (caught.value.code, caught.value.detail) == ("session-absent", f"{path}: there is no such file")


def test_a_directory_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        FileSource(tmp_path).find_session(Credentials(), now=NOW)
    assert caught.value.detail == f"{tmp_path}: cannot be read (Is a directory)"


def test_a_byte_order_mark_is_passed_over(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(make_document()).encode())
    assert FileSource(path).find_session(Credentials(), now=NOW).sid == "S-81f3"


def test_the_file_is_read_anew_each_time(path: Path) -> None:
    source = FileSource(path)
    for sid in ("S-1", "S-2"):
        path.write_text(json.dumps(make_document(sid=sid)))
        assert source.find_session(Credentials(), now=NOW).sid == sid


def test_credentials_change_nothing(path: Path) -> None:
    path.write_text(json.dumps(make_document()))
    credentials = Credentials(cookies={"portal_session": "x"}, authorization="Bearer y")
    assert FileSource(path).find_session(credentials, now=NOW).sid == "S-81f3"
