"""Values that cross layers. Standard library only; every layer may import this.

Owns: the portal session, findings, attributes, credentials and the identifiers of one launch.
Does not own: the configuration document (`document`) and the meaning of a field path (`mapping.fields`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

TraceId = NewType("TraceId", str)
"""Names one launch in the payer's error page, the log and the audit trail."""

B64Str = NewType("B64Str", str)
"""Standard base64 without line breaks."""

Sha256Hex = NewType("Sha256Hex", str)
"""64 lower-case hexadecimal digits."""

JsonObject = Mapping[str, Any]


class Severity(StrEnum):
    """The weight of a finding: an error refuses, a warning does not, a note informs."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check has to say.

    `code` is stable and for machines; `message` is a plain sentence with the actual and the expected value;
    `fix` says what to do; `where` is a path in the checked document (`partners[0].saml.acs`) or an entity ID, and
    `about` the slugs of the parts that the path leads through.
    """

    code: str
    severity: Severity
    message: str
    fix: str = ""
    where: str = ""
    about: str = field(default="", compare=False)

    @property
    def refuses(self) -> bool:
        return self.severity is Severity.ERROR


@dataclass(frozen=True, slots=True)
class Credentials:
    """The parts of a request that may say who the payer is.

    `authorization` is the header's whole value.
    """

    cookies: Mapping[str, str] = field(default_factory=dict)
    authorization: str | None = None


@dataclass(frozen=True, slots=True)
class PortalSession:
    """The portal's word about the current payer, checked for shape (`mapping.fields.parse_session`).

    `payer` and each of `accounts` are plain JSON objects of the shape that `mapping.fields.FIELDS` lists; they are read
    through field paths only. `auth_time` and `expires_at` are aware UTC datetimes.
    """

    sid: str
    biller: str
    auth_time: datetime
    expires_at: datetime
    payer: JsonObject
    accounts: tuple[JsonObject, ...]
    selected_account: str | None = None
    impersonator: str | None = None
    amr: tuple[str, ...] = ()

    def find_account(self, number: str) -> JsonObject | None:
        """The session's account of exactly this number; none is guessed."""
        return next((account for account in self.accounts if account["number"] == number), None)


@dataclass(frozen=True, slots=True)
class Attribute:
    """A value sent to a partner. `name_format` is the full URN; `values` is never empty.

    `value_type` (`document.ValueType`) and `as_list` are for protocols that carry JSON (`protocols.claims`).
    """

    name: str
    values: tuple[str, ...]
    name_format: str
    friendly_name: str | None = None
    value_type: str = "text"
    as_list: bool = False


@dataclass(frozen=True, slots=True)
class FormPost:
    """A reply that the browser posts to `action`, a URL of the partner.

    `fields` keep their order.
    """

    action: str
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Redirect:
    """A reply that the browser takes to `url`, a URL of the partner."""

    url: str


def clean(text: str) -> str:
    """The text with control characters, line breaks and changes of direction made visible.

    Nothing of it steers a terminal.
    """
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
