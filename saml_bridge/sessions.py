"""Session sources: each answers "who is this?" from what a request carries.

Owns: the `SessionSource` protocol, the checks that every source shares (`read_session`), and the sources that need no
other module of this project: a JWT that the portal signs, and a file for the command line.
Does not own: the shape of the session document (`fields.py`), and whether the session belongs to a launch's biller, may
see its link, or is an agent's (`launch.py`). Called by the launch and by the command line; wired in `app.py`.

What a source raises, and what it means to the caller:

| error | code | meaning | the payer |
| --- | --- | --- | --- |
| SessionAbsent | session-absent | no credential at all, or the portal says `active: false` | signs in at the portal |
| SessionAbsent | session-expired | it was one, and its time is over (`exp`) | signs in at the portal |
| SessionAbsent | session-invalid | forged, broken, ambiguous, or meant for somebody else | signs in at the portal |
| SessionMalformed | session-malformed | it is the portal's, and it has not the agreed shape | is told to try again |
| SourceUnavailable | source-unavailable | nobody can tell now | is told to try again in a moment |

`detail` says precisely what was wrong, for the log; it never holds a token or a field's value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from saml_bridge.errors import SessionAbsent, SourceUnavailable
from saml_bridge.fields import SessionMalformed, parse_session
from saml_bridge.values import Credentials, PortalSession

DEFAULT_LEEWAY: Final = timedelta(seconds=30)
"""How far the portal's clock may run ahead of ours."""

MAX_FILE_BYTES: Final = 1024 * 1024


class SessionSource(Protocol):
    """Answers who is signed in. One object serves all requests, from several threads at once.

    Every implementation passes `tests/sessions/conformance.py`.
    """

    @property
    def name(self) -> str:
        """A short fixed name for logs and the audit trail, such as `jwt`."""

    def find_session(self, credentials: Credentials, *, now: datetime) -> PortalSession:
        """The current payer's portal session; `now` is an aware UTC time.

        Raises SessionAbsent, SessionMalformed and SourceUnavailable, as the module's table says. Keeps nothing of one
        payer's answer that another payer's call could see.
        """


def read_session(document: object, *, now: datetime, leeway: timedelta = DEFAULT_LEEWAY) -> PortalSession:
    """Read a session document that is already known to come from the portal, and check that it is current.

    A document without `active` is active. Raises SessionAbsent (`session-absent` for `active: false`,
    `session-expired`) and SessionMalformed.
    """
    if isinstance(document, Mapping) and not _read_active(document):
        raise SessionAbsent("the portal says that the session is not active")
    session = parse_session(document)
    check_current(session, now=now, leeway=leeway)
    return session


def check_current(session: PortalSession, *, now: datetime, leeway: timedelta = DEFAULT_LEEWAY) -> None:
    """Refuse a session that is over (SessionAbsent, `session-expired`) or has not begun (SessionMalformed).

    The end has no leeway: partners are told that instant, and a session that ended a moment ago must not start another.
    """
    if session.expires_at <= now:
        raise SessionAbsent("exp: the session has ended", code="session-expired")
    if session.auth_time > now + leeway:
        raise SessionMalformed("auth_time: lies in the future; compare the portal's clock with this one")


def _read_active(document: Mapping[str, Any]) -> bool:
    active = document.get("active", True)
    if not isinstance(active, bool):
        raise SessionMalformed("active: expected true or false")
    return active


class FileSource:
    """A session document in a file, for the command line. Whoever may read the file is taken to be its payer."""

    name = "file"

    def __init__(self, path: Path, *, leeway: timedelta = DEFAULT_LEEWAY) -> None:
        self._path = path
        self._leeway = leeway

    def find_session(self, credentials: Credentials, *, now: datetime) -> PortalSession:  # noqa: ARG002 (the file says who)
        """Read the file anew; without it nobody is signed in. Every error's `detail` begins with the file's name."""
        try:
            return read_session(parse_json(self._read()), now=now, leeway=self._leeway)
        except (SessionMalformed, SessionAbsent) as error:
            raise type(error)(f"{self._path}: {error.detail}", code=error.code) from None
        except JsonRefused as error:
            raise SessionMalformed(f"{self._path}: {error}") from None

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            raise SessionAbsent("there is no such file") from None
        except OSError as error:
            raise SourceUnavailable(f"{self._path}: cannot be read ({error.strerror})") from None
        if len(content) > MAX_FILE_BYTES:
            raise JsonRefused(f"is larger than {MAX_FILE_BYTES} bytes")
        return content.removeprefix(b"\xef\xbb\xbf")


class JsonRefused(ValueError):
    """Bytes that are no JSON, or JSON that two readers could understand differently. Says nothing of the content."""


def parse_json(content: bytes) -> Any:
    """Read JSON strictly: UTF-8, no name twice in an object, no NaN or Infinity, no half surrogate pairs.

    Raises JsonRefused (RFC 8259 section 4 leaves repeated names to the reader; RFC 7519 section 4 lets us refuse them).
    """
    try:
        value = _STRICT_JSON.decode(content.decode("utf-8"))
        if b"\\u" in content:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except JsonRefused:
        raise
    except json.JSONDecodeError as error:
        raise JsonRefused(f"is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeError:
        raise JsonRefused("holds text that is not Unicode") from None
    except (ValueError, RecursionError):
        raise JsonRefused("holds a number too long or objects too deep to read") from None
    return value


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        shown = f" ({twice})" if _PLAIN_NAME.fullmatch(twice) else ""
        raise JsonRefused(f"an object has the same name twice{shown}")
    return found


def _refuse_constant(_text: str) -> NoReturn:
    raise JsonRefused("holds NaN or Infinity")


_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_STRICT_JSON = json.JSONDecoder(object_pairs_hook=_build_object, parse_constant=_refuse_constant)
