"""The marshmallow fields of single values in a configuration: text, URLs, numbers, lists of words.

Owns: the type and shape of one value, and the words of its error. Does not own: keys of mappings (`strict_schema`),
the settings of one protocol (`billers.partners`), rules about several values (`billers.checks`).
Called by: every schema of `billers.file`, `billers.partners` and `billers.catalog`.

Every error is a `Problem` in marshmallow's tree of messages, so that all errors are reported together with their paths.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from marshmallow import ValidationError, fields

from saml_bridge.mapping.callback_uri import parse_callback
from saml_bridge.mapping.characters import find_unseen, is_blank
from saml_bridge.mapping.transforms import describe, dump_transform, parse_transform
from saml_bridge.model.nearest import find_nearest

MAX_NAME: Final = 200
MAX_URL: Final = 2048
MAX_ENTITY_ID: Final = 1024
MAX_KEYS: Final = 65_536

_SLUG = re.compile(r"[a-z0-9-]{1,64}")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_PLAIN = re.compile(r"[!-~]+")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]", re.IGNORECASE)
_NOT_IN_URLS = re.compile(r"[\"'<>\\^`{|}]")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Z]{2})?")
_HEADER = re.compile(r"[A-Za-z0-9_.~-]{1,64}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One error of one value, before its place is known."""

    code: str
    message: str
    fix: str = ""


def raise_problem(code: str, message: str, fix: str = "") -> NoReturn:
    raise ValidationError([Problem(code, message, fix)])


def show(value: object) -> str:
    """A value as a finding quotes it: short, and on one line."""
    if isinstance(value, str) and value:
        return repr(value if len(value) <= 60 else f"{value[:57]}...")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the number {value}"
    if isinstance(value, bool):
        return str(value).lower()
    return "a mapping" if isinstance(value, Mapping) else describe(value)


class Value(fields.Field[Any]):
    """Base of the fields below: every error says the allowed values."""

    allowed: str = "a value"

    def make_error(self, key: str, **_: Any) -> ValidationError:
        if key == "required":
            return ValidationError([Problem("config-missing", f"is missing; expected {self.allowed}")])
        return ValidationError([Problem("config-type", f"expected {self.allowed}, found nothing")])

    def refuse(self, value: object, code: str = "config-value", fix: str = "") -> NoReturn:
        """Raise for a value that is not what is allowed."""
        hint = "Put it in quotes." if isinstance(value, bool | int | float) and self.allowed.startswith("text") else fix
        raise_problem(code, f"expected {self.allowed}, found {show(value)}", hint)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:  # noqa: ARG002 marshmallow's
        return value

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:  # noqa: ARG002 marshmallow's
        return self.read(value)

    def read(self, value: Any) -> Any:
        """The value, checked. Raises ValidationError."""
        raise NotImplementedError


class Text(Value):
    """Any text; what may stand in it is judged where it is used."""

    allowed = "text"

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            self.refuse(value, "config-type")
        return value


class Label(Text):
    """Text that people read: one line, nothing invisible."""

    allowed = f"text of 1 to {MAX_NAME} characters on one line"

    def read(self, value: Any) -> str:
        text = super().read(value)
        if is_blank(text) or len(text) > MAX_NAME:
            self.refuse(value)
        if unseen := find_unseen(text):
            raise_problem("config-text", f"{unseen}, which cannot be seen", "Remove it.")
        if text != text.strip():
            raise_problem("config-text", "has white space at an end", "Remove it.")
        return text


class Matching(Text):
    """Text of one pattern."""

    def __init__(self, pattern: re.Pattern[str], allowed: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pattern, self.allowed = pattern, allowed

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not self.pattern.fullmatch(text):
            self.refuse(value)
        return text


class Slug(Matching):
    """A name that stands in addresses."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(_SLUG, "text of 1 to 64 lower-case letters, digits and hyphens", **kwargs)


class SecretName(Slug):
    """The name under which a secret is kept.

    An error never repeats the value, since somebody may have put the secret itself here.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.allowed = "text of 1 to 64 lower-case letters, digits and hyphens: the name of a secret, not the secret"

    def refuse(self, value: object, code: str = "config-value", fix: str = "") -> NoReturn:  # noqa: ARG002 not told
        how = (
            "Keep the secret by 'saml-bridge secrets set BILLER NAME' and write NAME here; replace one that stood here."
        )
        raise_problem(code, f"expected {self.allowed}", how)


class Choice(Text):
    """One of a few words."""

    def __init__(self, words: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words = tuple(words)
        self.allowed = f"one of {', '.join(self.words)}" if len(self.words) > 1 else self.words[0]

    def read(self, value: Any) -> str:
        if value not in self.words:
            nearest = find_nearest(str(value), self.words)
            self.refuse(value, fix=f"Did you mean {nearest}?" if nearest else "")
        return str(value)


class WholeNumber(Value):
    """A whole number in a range; true and false are refused."""

    def __init__(self, least: int, most: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.least, self.most = least, most
        self.allowed = f"a whole number from {least} to {most}" if least < most else f"the number {least}"

    def read(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse(value, "config-type")
        if not self.least <= value <= self.most:
            self.refuse(value)
        return value


class Flag(Value):
    """A switch."""

    allowed = "true or false"

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            self.refuse(value, "config-type", "Write true or false, without quotes.")
        return value


class Url(Text):
    """An http or https URL that every browser reads in the same way.

    `billers.checks.document` decides where http is allowed.
    """

    allowed = "an https URL"

    def read(self, value: Any) -> str:
        text = super().read(value)
        if complaint := self.complain(text):
            self.refuse(value, "config-url", f"{complaint[0].upper()}{complaint[1:]}.")
        return text

    def complain(self, text: str) -> str | None:
        """The error of a URL, as a part of a sentence, or None."""
        if not text or len(text) > MAX_URL:
            return f"it must have 1 to {MAX_URL} characters"
        if not _PLAIN.fullmatch(text) or _NOT_IN_URLS.search(text):
            return "spaces, quotes, brackets, and letters outside ASCII are written with % and two digits"
        try:
            parts, port = urlsplit(text), urlsplit(text).port
        except ValueError:
            return "its host or port cannot be read"
        if parts.scheme not in ("https", "http"):
            return "it must begin with https://"
        if "@" in parts.netloc:
            return "a name or password must not stand in it"
        host = parts.netloc.rsplit(":", 1)[0] if port is not None else parts.netloc
        if not _HOST.fullmatch(host) or port == 0:
            return "its host or port cannot be read"
        return None


class CallbackUri(Url):
    """A URL with fields of the session in braces after its origin."""

    allowed = "an https URL, with fields in braces after its origin"

    def complain(self, text: str) -> str | None:
        if len(text) > MAX_URL:
            return super().complain(text)
        try:
            template = parse_callback(text)
        except ValueError as error:
            return str(error)
        return super().complain(template.fill(["0"] * len(template.paths)))


class Prefix(Url):
    """The start of URLs: an origin and a path."""

    allowed = "an https URL without query and fragment"

    def complain(self, text: str) -> str | None:
        if "?" in text or "#" in text:
            return "a query or fragment is not compared, so it must not stand here"
        return super().complain(text)


class ReturnUrl(Url):
    """A URL that parameters are added to."""

    allowed = "an https URL without fragment"

    def complain(self, text: str) -> str | None:
        return "nothing can be added after a fragment" if "#" in text else super().complain(text)


class Origin(Url):
    """Scheme, host and port."""

    allowed = "an origin such as https://sso.example.com"

    def complain(self, text: str) -> str | None:
        complaint = super().complain(text)
        if complaint is None and urlsplit(text)[2:] != ("", "", ""):
            return "nothing may follow the host and port, not even a slash"
        return complaint


class Texts(Value):
    """Names and their fixed texts."""

    allowed = "a mapping from names to texts"
    counted = "entries"
    most: Final = 50

    def read(self, value: Any) -> dict[str, str]:
        if not isinstance(value, Mapping):
            self.refuse(value, "config-type")
        if len(value) > self.most:
            raise_problem("config-size", f"expected at most {self.most} {self.counted}, found {len(value)}")
        errors: dict[Any, Any] = {}
        for name, text in value.items():
            try:
                self.check(name, text)
            except ValidationError as error:
                errors[str(name)] = error.messages
        if errors:
            raise ValidationError(errors)
        return dict(value)

    def check(self, name: Any, text: Any) -> None:
        """One name and its text. Raises ValidationError."""
        if not isinstance(name, str) or not _HEADER.fullmatch(name):
            raise_problem("config-value", f"expected a name of letters, digits and -_.~, found {show(name)}")
        if not isinstance(text, str) or len(text) > MAX_URL or find_unseen(text):
            raise_problem("config-value", f"expected text on one line, found {show(text)}")

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:  # noqa: ARG002 marshmallow's
        return dict(value)


class Labels(Texts):
    """A label in further languages, by language tag.

    RFC 5646: language, and a region where it matters.
    """

    allowed = "a mapping from languages such as es or fr-CA to texts"
    counted = "languages"

    def check(self, name: Any, text: Any) -> None:
        if not isinstance(name, str) or not _LANGUAGE.fullmatch(name):
            raise_problem("config-value", f"expected a language such as es or fr-CA, found {show(name)}")
        Label().read(text)


class EntityId(Matching):
    """A name that federations know an entity by (saml-core-2.0-os, 8.3.6)."""

    def __init__(self, **kwargs: Any) -> None:
        pattern = re.compile(rf"[!-~]{{1,{MAX_ENTITY_ID}}}")
        super().__init__(pattern, f"text of 1 to {MAX_ENTITY_ID} characters without spaces, such as a URL", **kwargs)


def refuse_absolute_path(text: str) -> None:
    """Refuses a path from the root, or from a drive.

    Such a path would mean another file on another machine. Raises ValidationError.
    """
    if text.startswith("/") or _DRIVE.match(text):
        name = re.split(r"[/\\]", text.rstrip("/\\"))[-1][:60]
        fix = f"Write {name!r} for a file beside this one, or '../{name}' for one in the folder above."
        message = f"expected a path relative to this file, such as one beside this one, found the absolute {show(text)}"
        raise_problem("config-path", message, fix)


class Parameter(Matching):
    """The name of a parameter in a query or form."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(re.compile(r"[A-Za-z0-9_.~-]{1,64}"), "text: the name of a parameter", **kwargs)


class KeyText(Text):
    """Public keys, or the path of their file.

    JSON Web Keys stand as text or as the mapping that they are; PEM stands as text.
    """

    allowed = (
        f"text of up to {MAX_KEYS} characters: public keys, as JSON Web Keys or PEM,"
        " or the path of such a file beside this one"
    )

    def read(self, value: Any) -> str:
        text = super().read(json.dumps(value, separators=(",", ":")) if isinstance(value, Mapping) else value)
        if "PRIVATE KEY" in text:
            fix = "Give the public key alone; a private key that was sent around is no longer safe to use."
            raise_problem("config-value", "expected public keys, found a private one", fix)
        refuse_absolute_path(text)
        if not 0 < len(text) <= MAX_KEYS:
            self.refuse(value)
        return text


class TransformField(Value):
    """A transform as it is written; its name and parameters are judged with the mapping."""

    allowed = "the name of a transform, or one name with its parameters"

    def read(self, value: Any) -> Any:
        try:
            return parse_transform(value)
        except ValueError as error:
            raise_problem("transform-shape", str(error))

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:  # noqa: ARG002 marshmallow's
        return dump_transform(value)
