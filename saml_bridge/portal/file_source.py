"""The session source of the command line: a session document in a file."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.errors import SessionAbsent, SourceUnavailable
from saml_bridge.model.strict_json import JsonRefused, parse_json
from saml_bridge.model.values import Credentials, PortalSession
from saml_bridge.portal.session_source import DEFAULT_LEEWAY, read_session

MAX_FILE_BYTES: Final = 1024 * 1024


class FileSource:
    """A session document in a file, for the command line.

    A user who may read the file is taken to be its payer.
    """

    name = "file"

    def __init__(self, path: Path, *, leeway: timedelta = DEFAULT_LEEWAY) -> None:
        self._path = path
        self._leeway = leeway

    def find_session(self, credentials: Credentials, *, now: datetime) -> PortalSession:  # noqa: ARG002 (the file says who)
        """Reads the file each time; without it nobody is signed in.

        Every error's `detail` begins with the file's name.
        """
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
