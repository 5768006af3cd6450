"""The closed set of transforms that a mapping's rule may use, with typed parameters.

Owns: `TRANSFORMS`, how a transform is written in the configuration document (`parse_transform`, `dump_transform`), the
check of its parameters at publication and its compilation to a function.
Does not own: rules and the values that they find (`rules`), and the characters that may leave (`characters`).
Called by: `rules`, `identifiers`, `billers.file.fields`.

A transform is data and never code: no template language, no `str.format`, no expression. Values pass as they are,
without Unicode normalisation or trimming, unless a transform says otherwise. A blank text is no value: it is dropped
before the first transform and after each, so that `prefix` or `pad_left` never make a value out of nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import re2

from saml_bridge.mapping.characters import drop_blanks, find_unsendable, is_blank
from saml_bridge.model.document import TransformCall
from saml_bridge.model.errors import ConfigInvalid
from saml_bridge.model.nearest import suggest
from saml_bridge.model.values import Finding, Severity

MAX_TRANSFORMS: Final = 20
"""Transforms that one rule may have."""

MAX_TEXT: Final = 1000
"""Characters of a text parameter."""

MAX_PATTERN: Final = 500
"""Characters of a regular expression."""

MAX_PATTERN_MEMORY: Final = 1 << 20
"""Bytes that RE2 may use for one pattern; a pattern that needs more is refused."""

MAX_TABLE: Final = 1000
"""Entries of a lookup table."""

MAX_GROWN: Final = 4096
"""Characters that `replace` may make of one value."""

MIN_SALT: Final = 16
"""Characters of the salt of `hash_sha256`."""

Texts = Sequence[str]
Parameters = Mapping[str, Any]
EachFunction = Callable[[str], str | None]
ListFunction = Callable[[Texts], Texts]


class TransformFailed(ValueError):
    """A transform cannot make a value of its input.

    The text says why and never holds the value. `position` is that of the transform among several.
    """

    position: int = 0


class Kind(StrEnum):
    """The kinds of a parameter, in the words of findings and documentation."""

    TEXT = "text"
    NUMBER = "a whole number"
    TABLE = "a table from text to text"
    GROUP = "text or a whole number"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a transform.

    The range is of a number, of a text's length or of a table's size. A `default` of None means that there is no
    default. `sent` says that its text, or its table's values, can become part of an attribute.
    """

    name: str
    kind: Kind
    description: str
    required: bool = False
    default: str | int | None = None
    minimum: int | None = None
    maximum: int | None = None
    sent: bool = False

    def complain(self, value: object) -> str | None:
        """The error of a value of this parameter, or None.

        It never repeats the value, which may be a salt.
        """
        if value is None and not self.required and self.default is None:
            return None
        if self.kind is Kind.TABLE and isinstance(value, Mapping):
            wrong = [one for pair in value.items() for one in pair if not isinstance(one, str)]
            if wrong:
                return f"keys and values of the table must be text, found {describe(wrong[0])}{_hint(wrong[0])}"
            return self._complain_of_size(len(value), "entries") or self._complain_of_texts(value.values())
        if isinstance(value, str) and self.kind in (Kind.TEXT, Kind.GROUP):
            return self._complain_of_size(len(value), "characters") or self._complain_of_texts([value])
        if isinstance(value, int) and not isinstance(value, bool) and self.kind in (Kind.NUMBER, Kind.GROUP):
            return self._complain_of_size(value, "")
        hint = _hint(value) if self.kind in (Kind.TEXT, Kind.GROUP) else ""
        return f"expected {self.kind}, found {describe(value)}{hint}"

    def _complain_of_texts(self, texts: Iterable[str]) -> str | None:
        found = next(filter(None, map(find_unsendable, texts)), None) if self.sent else None
        return f"has the character {found}, which no message can carry" if found else None

    def _complain_of_size(self, size: int, unit: str) -> str | None:
        low, high = self.minimum, self.maximum
        if (low is None or size >= low) and (high is None or size <= high):
            return None
        allowed = (
            f"{low} to {high}" if None not in (low, high) else f"at least {low}" if high is None else f"at most {high}"
        )
        return f"expected {allowed} {unit}".rstrip() + f", found {size}"


@dataclass(frozen=True, slots=True)
class Transform:
    """One transform: exactly one of `make_each` and `make_list`.

    `make_each` works on each value, `make_list` on the whole list. Both makers take parameters that are checked and
    filled with defaults, do all work that can be done once, and return the function that each launch calls. `check`
    yields (parameter, complaint) for errors that types alone cannot tell.
    """

    name: str
    description: str
    parameters: tuple[Parameter, ...] = ()
    main_parameter: str | None = None
    make_each: Callable[[Parameters], EachFunction] | None = None
    make_list: Callable[[Parameters], ListFunction] | None = None
    check: Callable[[Parameters], Iterator[tuple[str, str]]] | None = None

    def find_parameter(self, name: str) -> Parameter | None:
        return next((one for one in self.parameters if one.name == name), None)

    def explain(self, name: str) -> str:
        """The description of this parameter, as the fix of a finding."""
        parameter = self.find_parameter(name)
        return f"{name}: {parameter.description}." if parameter else ""


def parse_transform(raw: object) -> TransformCall:
    """Reads a transform as written: `upper`, `{pad_left: 10}` or `{pad_left: {width: 10, fill: "0"}}`.

    Raises ValueError with a sentence for any other form. Names and parameters are for `check_transform` to judge.
    """
    if isinstance(raw, str) and raw:
        return TransformCall(raw)
    if not isinstance(raw, Mapping):
        raise ValueError(f"expected the name of a transform, or one name with its parameters, found {describe(raw)}")
    if len(raw) != 1:
        raise ValueError(f"expected one transform with its parameters, found {len(raw)} names; write one a line")
    ((name, given),) = raw.items()
    if not isinstance(name, str) or not name:
        raise ValueError(f"expected the name of a transform, found {describe(name)}")
    if given is None:
        return TransformCall(name)
    if not isinstance(given, Mapping):
        return TransformCall(name, {_find_main(name) or "value": given})
    if not all(isinstance(one, str) for one in given):
        raise ValueError(f"the names of the parameters of {name} must be text")
    return TransformCall(name, dict(given))


def dump_transform(call: TransformCall) -> object:
    """Write a transform in its one canonical form: the inverse of `parse_transform`."""
    if not call.parameters:
        return call.name
    main = _find_main(call.name)
    if set(call.parameters) == {main}:
        value = call.parameters[main or ""]
        if value is not None and not isinstance(value, Mapping):
            return {call.name: value}
    transform = TRANSFORMS.get(call.name)
    known = [one.name for one in transform.parameters] if transform else []
    order = [name for name in known if name in call.parameters]
    order += sorted(name for name in call.parameters if name not in known)
    return {call.name: {name: call.parameters[name] for name in order}}


def check_transform(call: TransformCall, *, where: str) -> tuple[Finding, ...]:
    """Every problem of one transform: its name, and missing, unknown, mistyped or impossible parameters."""
    transform = TRANSFORMS.get(call.name)
    if transform is None:
        nearest = suggest(call.name, TRANSFORMS)
        return (_refuse("transform-unknown", f"there is no transform {call.name!r}{nearest}", where, _KNOWN),)
    findings = tuple(_check_parameters(transform, call.parameters, where))
    if findings or transform.check is None:
        return findings
    filled = _fill(transform, call.parameters)
    return tuple(
        _refuse("transform-parameter", f"{call.name}: {name}: {complaint}", f"{where}.{name}", transform.explain(name))
        for name, complaint in transform.check(filled)
    )


def compile_transform(call: TransformCall) -> ListFunction:
    """Makes the function of a transform.

    It takes the values found so far, each with text in it, and gives the next. The function raises TransformFailed, and
    gives no blank value. Raises ConfigInvalid when `check_transform` refuses.
    """
    findings = check_transform(call, where=call.name)
    if any(finding.refuses for finding in findings):
        raise ConfigInvalid(f"the transform {call.name!r} has errors", findings=findings)
    transform = TRANSFORMS[call.name]
    filled = _fill(transform, call.parameters)
    if transform.make_list is not None:
        return transform.make_list(filled)
    if transform.make_each is None:
        raise TypeError(f"the transform {call.name} has no maker")
    return _lift(transform.make_each(filled))


def compile_transforms(calls: Sequence[TransformCall]) -> ListFunction:
    """Makes the function of several transforms, one after the other.

    It drops blank texts before the first and after each. The function raises TransformFailed with the position. Raises
    ConfigInvalid when `check_transform` refuses one.
    """
    steps = tuple(enumerate(map(compile_transform, calls)))
    if not steps:
        return drop_blanks

    def transform(values: Texts) -> Texts:
        values, position = drop_blanks(values), 0
        try:
            for position, step in steps:  # noqa: B007 - the handler below says which step failed
                values = step(values)
        except TransformFailed as error:
            error.position = position
            raise
        return values

    return transform


def describe(value: object) -> str:
    """The kind of a value, in the words of a configuration file, without the value."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text" if value else "empty text"
    if isinstance(value, float):
        return "a number with a fraction"
    if isinstance(value, int):
        return "a number"
    if isinstance(value, Mapping):
        return "a table"
    return "nothing" if value is None else "a list" if isinstance(value, list | tuple) else "something else"


def _hint(value: object) -> str:
    return " (put it in quotes)" if isinstance(value, bool | int | float) else ""


def _find_main(name: str) -> str | None:
    transform = TRANSFORMS.get(name)
    return transform.main_parameter if transform else None


def _refuse(code: str, message: str, where: str, fix: str = "") -> Finding:
    return Finding(code, Severity.ERROR, message, fix, where)


def _check_parameters(transform: Transform, given: Parameters, where: str) -> Iterator[Finding]:
    known = [one.name for one in transform.parameters]
    allowed = f"{transform.name} takes {', '.join(known)}." if known else f"{transform.name} takes no parameters."
    for name, value in given.items():
        parameter = transform.find_parameter(name)
        if parameter is None:
            message = f"{transform.name} has no parameter {name!r}{suggest(name, known)}"
            yield _refuse("transform-parameter-unknown", message, f"{where}.{name}", allowed)
        elif (complaint := parameter.complain(value)) is not None:
            message = f"{transform.name}: {name}: {complaint}"
            yield _refuse("transform-parameter", message, f"{where}.{name}", transform.explain(name))
    for parameter in transform.parameters:
        if parameter.required and parameter.name not in given:
            message = f"{transform.name} needs the parameter {parameter.name!r} ({parameter.kind})"
            fix = transform.explain(parameter.name)
            yield _refuse("transform-parameter-missing", message, f"{where}.{parameter.name}", fix)


def _fill(transform: Transform, given: Parameters) -> Parameters:
    return {one.name: given.get(one.name, one.default) for one in transform.parameters}


def _lift(function: EachFunction) -> ListFunction:
    return lambda values: drop_blanks([made for value in values if (made := function(value))])


def _make_strip_leading_zeros(_: Parameters) -> EachFunction:
    return lambda value: value.lstrip("0") or "0"


def _make_pad_left(given: Parameters) -> EachFunction:
    width, fill = given["width"], given["fill"]
    return lambda value: value.rjust(width, fill)


def _make_prefix(given: Parameters) -> EachFunction:
    text = given["text"]
    return lambda value: text + value


def _make_suffix(given: Parameters) -> EachFunction:
    text = given["text"]
    return lambda value: value + text


def _make_substring(given: Parameters) -> EachFunction:
    start, length = given["start"], given["length"]
    return lambda value: value[start:][:length]


def _make_replace(given: Parameters) -> EachFunction:
    old, new = given["old"], given["new"]

    def replace(value: str) -> str:
        # A chain of growing replacements would otherwise take memory without end.
        if len(new) > len(old) and len(value) + value.count(old) * (len(new) - len(old)) > MAX_GROWN:
            raise TransformFailed(f"the result would have more than {MAX_GROWN} characters")
        return value.replace(old, new)

    return replace


_NOT_DIGITS = re.compile("[^0-9]+")


def _make_digits_only(_: Parameters) -> EachFunction:
    drop = _NOT_DIGITS.sub
    return lambda value: drop("", value)


def _compile_pattern(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_PATTERN_MEMORY
    return re2.compile(pattern, options)


def _check_regex_extract(given: Parameters) -> Iterator[tuple[str, str]]:
    try:
        regex = _compile_pattern(given["pattern"])
    except (re2.error, UnicodeEncodeError) as error:
        yield "pattern", f"is no regular expression that RE2 accepts ({_read_reason(error)})"
        return
    group = given["group"]
    if isinstance(group, str) and group not in regex.groupindex:
        names = ", ".join(regex.groupindex) or "none"
        yield "group", f"the pattern has no group of this name; its named groups: {names}"
    if isinstance(group, int) and group > regex.groups:
        yield "group", f"expected 0 to {regex.groups} (the groups of the pattern), found {group}"


def _read_reason(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)


def _make_regex_extract(given: Parameters) -> EachFunction:
    regex = _compile_pattern(given["pattern"])
    group = given["group"] if given["group"] is not None else min(regex.groups, 1)
    search = regex.search

    def extract(value: str) -> str | None:
        try:
            # On bytes re2 needs no mapping of offsets back to characters, which costs more than the search.
            match = search(value.encode("utf-8"))
            found = None if match is None else match.group(group)
            return None if found is None else found.decode("utf-8")
        except UnicodeError:
            raise TransformFailed("the value or what the pattern cuts from it is no valid Unicode text") from None

    return extract


def _make_lookup(given: Parameters) -> EachFunction:
    table: Mapping[str, str] = dict(given["table"])
    default: str | None = given["default"]

    def look_up(value: str) -> str:
        found = table.get(value, default)
        if found is None:
            raise TransformFailed("the value is not in the table, and there is no default")
        return found

    return look_up if default is None else lambda value: table.get(value, default)


_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_WRITERS: Mapping[str, Callable[[datetime], str]] = {
    "Y": lambda at: f"{at.year:04}",
    "y": lambda at: f"{at.year % 100:02}",
    "m": lambda at: f"{at.month:02}",
    "-m": lambda at: str(at.month),
    "d": lambda at: f"{at.day:02}",
    "-d": lambda at: str(at.day),
    "j": lambda at: f"{at.timetuple().tm_yday:03}",
    "B": lambda at: _MONTHS[at.month - 1],
    "b": lambda at: _MONTHS[at.month - 1][:3],
    "H": lambda at: f"{at.hour:02}",
    "I": lambda at: f"{at.hour % 12 or 12:02}",
    "p": lambda at: "AM" if at.hour < 12 else "PM",
    "M": lambda at: f"{at.minute:02}",
    "S": lambda at: f"{at.second:02}",
    "%": lambda _: "%",
}
_SAMPLE = datetime(2026, 11, 23, 14, 35, 56)  # noqa: DTZ001 - a calendar date, read and written without a zone


def _read_directives(pattern: str) -> Iterator[tuple[str, str]]:
    """Yield (literal, directive) pairs; the directive of a last literal, and of a `%` at the end, is empty."""
    rest = pattern
    while rest:
        literal, percent, rest = rest.partition("%")
        taken = 2 if rest.startswith("-") else 1
        yield literal, rest[:taken]
        if percent and not rest:
            yield "", "% at the end"
        rest = rest[taken:]


def _check_date_format(given: Parameters) -> Iterator[tuple[str, str]]:
    for name in ("from", "to"):
        pattern = given[name]
        allowed = [one for one in _WRITERS if name == "to" or not one.startswith("-")]
        found = [one for _, one in _read_directives(pattern or "") if one]
        wrong = [one for one in found if one not in allowed]
        if pattern is not None and set(found) <= {"%"}:
            yield name, "has no directive, so that it would be the same text for every date"
        elif wrong:
            listed = " ".join(f"%{one}" for one in allowed)
            yield name, f"%{wrong[0].removeprefix('% ')} is not allowed; allowed are {listed}"
        elif name == "from" and pattern is not None and not _reads_back(pattern):
            yield name, "cannot be read back: a part stands twice, or hours and AM/PM do not belong together"


def _reads_back(pattern: str) -> bool:
    try:
        datetime.strptime(_compile_date_writer(pattern)(_SAMPLE), pattern)  # noqa: DTZ007
    except (ValueError, re.error):
        return False
    return True


def _compile_date_writer(pattern: str) -> Callable[[datetime], str]:
    pieces = [(literal, _WRITERS[directive] if directive else None) for literal, directive in _read_directives(pattern)]
    return lambda at: "".join([literal + (write(at) if write else "") for literal, write in pieces])


def _make_date_format(given: Parameters) -> EachFunction:
    pattern, write = given["from"], _compile_date_writer(given["to"])

    def reformat(value: str) -> str:
        try:
            at = datetime.fromisoformat(value) if pattern is None else datetime.strptime(value, pattern)  # noqa: DTZ007
        except ValueError:
            expected = "an ISO 8601 date" if pattern is None else "a date of the pattern in `from`"
            raise TransformFailed(f"the value is not {expected}") from None
        return write(at)

    return reformat


def _make_hash_sha256(given: Parameters) -> EachFunction:
    salted = hashlib.sha256(given["salt"].encode("utf-8", "surrogatepass"))

    def digest(value: str) -> str:
        try:
            encoded = value.encode("utf-8")
        except UnicodeEncodeError:
            raise TransformFailed("the value is no valid Unicode text") from None
        hashed = salted.copy()
        hashed.update(encoded)
        return hashed.hexdigest()

    return digest


def _make_join(given: Parameters) -> ListFunction:
    separator = given["separator"]
    return lambda values: (separator.join(values),) if values else ()


def _check_default(given: Parameters) -> Iterator[tuple[str, str]]:
    if is_blank(given["value"]):
        yield "value", "is white space alone, which is no value"


def _make_default(given: Parameters) -> ListFunction:
    fallback = (given["value"],)
    return lambda values: values or fallback


def _text(name: str, description: str, least: int, most: int = MAX_TEXT, *, default: str | None = None) -> Parameter:
    """A text, required unless it has a default, that can become part of an attribute."""
    return Parameter(name, Kind.TEXT, description, default is None, default, least, most, sent=True)


_MISSES = "sent for a value that is not in the table; empty: such a value drops out"
_GROUP = "group to keep, by number or name; default 1, or the whole match if the pattern has no groups"
_ALL = (
    Transform("strip", "removes white space, as Unicode defines it, at both ends", make_each=lambda _: str.strip),
    Transform(
        "upper", "makes all letters capital (Unicode's full mapping: ß becomes SS)", make_each=lambda _: str.upper
    ),
    Transform("lower", "makes all letters small (Unicode's full mapping)", make_each=lambda _: str.lower),
    Transform(
        "strip_leading_zeros",
        "removes zeros at the start; a value of zeros alone becomes one zero",
        make_each=_make_strip_leading_zeros,
    ),
    Transform(
        "pad_left",
        "fills up at the start to a width; a longer value stays as it is",
        (
            Parameter("width", Kind.NUMBER, "characters of the result, 1 to 256", True, None, 1, 256),
            _text("fill", "the one character to fill with", 1, 1, default="0"),
        ),
        "width",
        _make_pad_left,
    ),
    Transform("prefix", "puts a text before", (_text("text", "the text to add", 1),), "text", _make_prefix),
    Transform("suffix", "puts a text after", (_text("text", "the text to add", 1),), "text", _make_suffix),
    Transform(
        "substring",
        "keeps a part; a part beyond the end finds nothing",
        (
            Parameter(
                "start", Kind.NUMBER, "first character, from 0; negative counts from the end", True, None, -4096, 4096
            ),
            Parameter("length", Kind.NUMBER, "most characters to keep; without it, to the end", False, None, 1, 4096),
        ),
        "start",
        _make_substring,
    ),
    Transform(
        "replace",
        "replaces every occurrence of a text, taken literally",
        (
            Parameter("old", Kind.TEXT, "the text to look for", True, None, 1, MAX_TEXT),
            _text("new", "the text to put there; may be empty", 0),
        ),
        None,
        _make_replace,
    ),
    Transform("digits_only", "keeps the digits 0 to 9 and drops all else", make_each=_make_digits_only),
    Transform(
        "regex_extract",
        "keeps the first match of a regular expression (RE2 syntax); a value without a match drops out",
        (
            Parameter(
                "pattern", Kind.TEXT, "the regular expression, at most 500 characters", True, None, 1, MAX_PATTERN
            ),
            Parameter("group", Kind.GROUP, _GROUP, minimum=0, maximum=MAX_PATTERN),
        ),
        "pattern",
        _make_regex_extract,
        check=_check_regex_extract,
    ),
    Transform(
        "lookup",
        "replaces the value by its entry in a table; without a default, a value not in the table refuses the launch",
        (
            Parameter("table", Kind.TABLE, "from each value to what is sent for it", True, None, 1, MAX_TABLE, True),
            Parameter("default", Kind.TEXT, _MISSES, maximum=MAX_TEXT, sent=True),
        ),
        "table",
        _make_lookup,
    ),
    Transform(
        "date_format",
        "rewrites a date or time, without converting between time zones; anything else refuses the launch",
        (
            Parameter(
                "from",
                Kind.TEXT,
                "pattern of the value, for example %d.%m.%Y; without it ISO 8601",
                False,
                None,
                1,
                100,
            ),
            _text("to", "pattern of the result, for example %m/%d/%Y", 1, 100),
        ),
        "to",
        _make_date_format,
        check=_check_date_format,
    ),
    Transform(
        "hash_sha256",
        "makes 64 hexadecimal digits: SHA-256 of the salt followed by the value, both in UTF-8",
        (Parameter("salt", Kind.TEXT, "random text, at least 16 characters", True, None, MIN_SALT, MAX_TEXT),),
        "salt",
        _make_hash_sha256,
    ),
    Transform(
        "join",
        "makes one value of all",
        (_text("separator", "put between the values; may be empty", 0, default=","),),
        "separator",
        make_list=_make_join,
    ),
    Transform("first", "keeps the first value only", make_list=lambda _: lambda values: values[:1]),
    Transform(
        "default",
        "gives a value where the field has no value",
        (_text("value", "the value to send", 1),),
        "value",
        make_list=_make_default,
        check=_check_default,
    ),
)

TRANSFORMS: Mapping[str, Transform] = {one.name: one for one in _ALL}
"""Every transform there is, by name."""

_KNOWN = f"Transforms are: {', '.join(TRANSFORMS)}."
