"""The callback URI: where a launch lands at the partner.

Owns: the templates of callback URIs, and the comparison of a request's callback with the prefixes that its link allows.
Does not own: the links (`model.document`), the order of a launch (`flows.launch.launch`). Pure.
Called by: `billers.checks.document`, `billers.snapshot` (`compile_callback`) and `flows.launch.launch`.

A template is a URL with fields in braces (`https://partner.example/usage/{account.number|urlencode}`). Its origin is in
the document: no field stands before the path. Every value is percent-encoded whole, so that it stays in its place;
`|urlencode` may say so. `{{` and `}}` are braces, and percent-encoded, too, since no URL has them plain.

URLs are compared as parsed: same origin, and a path prefix that ends at a segment border, so that `/usage` allows
`/usage` and `/usage/daily` and not `/usage-admin`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit

from saml_bridge.mapping.characters import CharacterRefused, is_blank, release
from saml_bridge.mapping.fields import FieldReader, FieldUnknown, compile_path, is_multi_valued
from saml_bridge.mapping.rules import parse_template
from saml_bridge.model.comparisons import compare, find_closest, show
from saml_bridge.model.errors import ConfigInvalid, LaunchRefused
from saml_bridge.model.values import Finding, JsonObject, PortalSession, Severity

_LONGEST = 2048
_PLAIN = re.compile(r"[!-~]+")
_CLIMBING = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:;[^/]*)?(?:/|$)|%2f|%5c|%00|%25", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
_FIXED_ORIGIN = re.compile(r"[a-z]+://[^/?#]+[/?#]", re.IGNORECASE)
_FILTER = "urlencode"


@dataclass(frozen=True, slots=True)
class ParsedCallback:
    """A callback URI, split at its fields.

    It has n + 1 literal texts and the n paths of the fields between them.
    """

    literals: tuple[str, ...]
    paths: tuple[str, ...]

    def fill(self, values: Sequence[str]) -> str:
        """The URL with a value for each path."""
        rest = zip(values, self.literals[1:], strict=True)
        return self.literals[0] + "".join(f"{quote(value, safe='')}{literal}" for value, literal in rest)


def parse_callback(text: str) -> ParsedCallback:
    """Splits a callback URI, which may be a template.

    Raises ValueError with a sentence for a text that is no callback URI.
    """
    literals, inserts = parse_template(text)
    if inserts and not _FIXED_ORIGIN.match(literals[0]):
        raise ValueError("its origin is fixed: a field stands after the host and a slash")
    paths = []
    for insert in inserts:
        path, *filters = insert.split("|")
        if filters not in ([], [_FILTER]):
            raise ValueError(f"after a field in braces only |{_FILTER} may stand")
        paths.append(path)
    encoded = tuple(literal.replace("{", "%7B").replace("}", "%7D") for literal in literals)
    return ParsedCallback(encoded, tuple(paths))


def shorten_callback(text: str) -> str:
    """The shortest URL that a callback URI can become: one character for each field."""
    parsed = parse_callback(text)
    return parsed.fill(["0"] * len(parsed.paths))


def check_callback(text: str, *, where: str) -> Iterator[Finding]:
    """Checks the fields of a callback URI that `parse_callback` reads."""
    for path in dict.fromkeys(parse_callback(text).paths):
        try:
            compile_path(path)
        except FieldUnknown as error:
            yield Finding("field-unknown", Severity.ERROR, str(error), "", where)
            continue
        if is_multi_valued(path):
            message = f"{path!r} can have several values, and a URL takes one"
            yield Finding("template-several-values", Severity.ERROR, message, "Choose a field of the account.", where)


def compile_callback(text: str) -> CallbackTemplate:
    """Compile a callback URI once, for many launches. Raises ConfigInvalid when `check_callback` refuses."""
    findings = tuple(check_callback(text, where="callback_uri"))
    if findings:
        raise ConfigInvalid("the callback URI has errors", findings=findings)
    parsed = parse_callback(text)
    return CallbackTemplate(parsed, tuple(compile_path(path) for path in parsed.paths))


@dataclass(frozen=True, slots=True)
class CallbackTemplate:
    """A callback URI ready for launches; made by `compile_callback` only."""

    _parsed: ParsedCallback
    _readers: tuple[FieldReader, ...]

    def build(self, session: PortalSession, account: JsonObject | None) -> str:
        """The URL for this session and account.

        Raises LaunchRefused (`callback-field`) naming the field that has no value, several, or one that would lead out
        of its place in the path; never the value.
        """
        if not self._readers:
            return self._parsed.literals[0]
        values: list[str] = []
        for path, read in zip(self._parsed.paths, self._readers, strict=True):
            found = read(session, account)
            if len(found) != 1 or is_blank(found[0]):
                raise _refuse_field(path, "has several values" if len(found) > 1 else "has no value", "for this payer")
            try:
                values += release(found, fold=True)
            except CharacterRefused as refused:
                raise _refuse_field(path, f"has {refused}", "which no message can carry") from None
        uri = self._parsed.fill(values)
        if len(uri) > _LONGEST or any(unquote(one) in (".", "..") for one in urlsplit(uri).path.split("/")):
            raise _refuse_field(" and ".join(dict.fromkeys(self._parsed.paths)), "would lead", "to another place")
        return uri


def _refuse_field(path: str, what: str, more: str) -> LaunchRefused:
    message = f"callback_uri: the field {path} {what} {more}"
    fix = f"See that the portal sends {path}, or take it out of the link's callback_uri."
    finding = Finding("callback-field", Severity.ERROR, message, fix, "callback_uri")
    return LaunchRefused(message, code="callback-field", findings=[finding])


def is_allowed(uri: str, prefixes: tuple[str, ...]) -> bool:
    """Tells if `uri` stands below one of `prefixes`.

    A URI that browsers may read in two ways is never allowed.
    """
    if len(uri) > _LONGEST or not _PLAIN.fullmatch(uri) or "\\" in uri:
        return False
    parts = _split(uri)
    if parts is None or parts.username is not None or _CLIMBING.search(parts.path):
        return False
    return any(_is_below(parts, prefix) for prefix in map(_split, prefixes) if prefix is not None)


def describe_refusal(uri: str, prefixes: tuple[str, ...]) -> str:
    """Both sides of what `is_allowed` refuses.

    Of what came no more stands there than was compared: the rest of a path, a query and a user name may tell of the
    payer.
    """
    parts = _split(uri) if len(uri) <= _LONGEST and _PLAIN.fullmatch(uri) and "\\" not in uri else None
    if parts is None:
        return f"received {len(uri):,} characters that are no http or https URL, expected one below {_list(prefixes)}"
    came, path = origin_of(uri), parts.path or "/"
    if parts.username is not None or _CLIMBING.search(path):
        odd = "a path that browsers read in two ways" if parts.username is None else "a user name"
        return f"received {show(came)} with {odd}, expected one below {_list(prefixes)}"
    allowed = urlsplit(find_closest(came + path, prefixes)) if prefixes else None
    if allowed is not None and _origin(parts) == _origin(allowed):
        came += "/".join(path.split("/")[: len((allowed.path or "/").rstrip("/").split("/"))])
    return compare(came, *prefixes)


def origin_of(uri: str) -> str:
    """The origin of a well-formed URL, as a Content-Security-Policy source.

    It is the scheme, host and port.
    """
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _list(prefixes: tuple[str, ...]) -> str:
    return " or ".join(map(show, prefixes)) or "none"


def _split(uri: str) -> SplitResult | None:
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        return None
    return parts


def _is_below(parts: SplitResult, prefix: SplitResult) -> bool:
    if _origin(parts) != _origin(prefix):
        return False
    allowed = prefix.path or "/"
    path = parts.path or "/"
    return path == allowed or path.startswith(allowed if allowed.endswith("/") else f"{allowed}/")


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]
