"""Mappings: from a portal session and an account to the attributes that a partner gets.

Owns: `SOURCES`, the check of a mapping at publication, its compilation, and the case that a rule finds nothing.
Does not own: `transforms`, `conditions`, field paths (`fields`), the characters that may leave (`characters`).
Called by: `billers.checks.document` (`check_mapping`), `billers.snapshot` (`compile_mapping`) and
`flows.launch.launch` (`CompiledMapping.evaluate`); sources serve `identifiers`, too. Pure: no clock, database or
network.

Values pass as they are: no Unicode normalisation, no trimming, unless a transform says so. White space alone is no
value. A template finds nothing when any of its fields does. A rule whose `when` does not hold is passed over, required
or not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from saml_bridge.mapping.characters import CharacterRefused, find_unseen, find_unsendable, is_blank, release
from saml_bridge.mapping.conditions import check_condition, compile_condition
from saml_bridge.mapping.fields import (
    FieldUnknown,
    compile_item_path,
    compile_items,
    compile_path,
    is_multi_valued,
    list_paths,
)
from saml_bridge.mapping.transforms import (
    MAX_TRANSFORMS,
    TRANSFORMS,
    TransformFailed,
    check_transform,
    compile_transforms,
    dump_transform,
    parse_transform,
)
from saml_bridge.model.document import AttributeMapping, NameFormat, Rule, TransformCall
from saml_bridge.model.errors import ConfigInvalid, LaunchRefused, MappingRefused, ValueRefused
from saml_bridge.model.values import Attribute, Finding, JsonObject, PortalSession, Severity

__all__ = [
    "MAX_RULES",
    "MAX_VALUES",
    "MAX_VALUE_BYTES",
    "NAME_FORMATS",
    "SOURCES",
    "TRANSFORMS",
    "CompiledMapping",
    "SeveralValues",
    "Source",
    "check_mapping",
    "check_source",
    "check_transforms",
    "compile_mapping",
    "dump_transform",
    "list_sources",
    "parse_template",
    "parse_transform",
]

MAX_RULES: Final = 100
"""Rules of one mapping."""

MAX_VALUES: Final = 200
"""Values of one attribute; more refuse the launch."""

MAX_VALUE_BYTES: Final = 4096
"""Bytes of one value in UTF-8; more refuse the launch."""

MAX_NAME: Final = 256
"""Characters of an attribute's name and friendly name."""

NAME_FORMATS: Final[Mapping[NameFormat, str]] = {
    "basic": "urn:oasis:names:tc:SAML:2.0:attrname-format:basic",
    "uri": "urn:oasis:names:tc:SAML:2.0:attrname-format:uri",
    "unspecified": "urn:oasis:names:tc:SAML:2.0:attrname-format:unspecified",
}
"""SAML 2.0 core, section 8.2."""

Texts = tuple[str, ...]
Reader = Callable[[Any, Any], Texts]
"""Reads (session, account), or inside `each` ((session, account), item)."""

Resolve = Callable[[str], Reader]
RuleFunction = Callable[[PortalSession, JsonObject | None], Attribute | None]


class _RuleFailed(Exception):
    """Carries the finding of one rule to `evaluate`."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.code)
        self.finding = finding


class SeveralValues(ValueError):
    """A template's field has several values; holds the path."""


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a rule's values, given the text that stands under its name.

    `find_paths` lists the field paths in the text, or raises ValueError with a sentence; `make` compiles the text to a
    reader, with a function that compiles each path; `one_value` says that a path must not go through a list.
    """

    name: str
    description: str
    find_paths: Callable[[str], tuple[str, ...]]
    make: Callable[[str, Resolve], Reader]
    one_value: bool = False


def check_mapping(mapping: AttributeMapping, *, where: str) -> tuple[Finding, ...]:
    """Every problem of a mapping at once.

    `where` is its path in the document, such as `mappings[usage]`.
    """
    return tuple(_check_mapping(mapping, where))


def compile_mapping(mapping: AttributeMapping) -> CompiledMapping:
    """Compile a mapping once, for many launches. Raises ConfigInvalid when `check_mapping` refuses."""
    where = f"mappings[{mapping.slug}]"
    findings = check_mapping(mapping, where=where)
    if any(finding.refuses for finding in findings):
        raise ConfigInvalid(f"the mapping {mapping.slug!r} has errors", findings=findings)
    rules = tuple(_compile_rule(rule, f"{where}.rules[{position}]") for position, rule in enumerate(mapping.rules))
    return CompiledMapping(mapping.slug, rules, frozenset(_find_repeated(mapping)))


@dataclass(frozen=True, slots=True)
class CompiledMapping:
    """A mapping ready for launches; made by `compile_mapping` only."""

    slug: str
    _rules: tuple[RuleFunction, ...]
    _repeated: frozenset[str]

    def evaluate(self, session: PortalSession, account: JsonObject | None) -> tuple[Attribute, ...]:
        """The attributes for this session and account, in the order of the rules.

        Raises MappingRefused with one finding for every rule that failed, naming attributes and fields, never a value;
        ValueRefused where nothing but characters is the matter.
        """
        attributes: list[Attribute] = []
        failed: list[Finding] = []
        for rule in self._rules:
            try:
                attribute = rule(session, account)
            except _RuleFailed as error:
                failed.append(error.finding)
            else:
                if attribute is not None:
                    attributes.append(attribute)
        if self._repeated:
            failed += self._check_repeated(attributes)
        if failed:
            raise _make_refusal(self.slug, failed)
        return tuple(attributes)

    def _check_repeated(self, attributes: Sequence[Attribute]) -> Iterator[Finding]:
        counts = Counter(attribute.name for attribute in attributes)
        for name in sorted(self._repeated):
            if counts[name] > 1:
                message = f"{counts[name]} rules gave the attribute {name!r} a value for this payer"
                fix = "Make the conditions in `when` exclude each other."
                yield Finding("mapping-duplicate", Severity.ERROR, message, fix, f"mappings[{self.slug}]")


def _refuse(code: str, message: str, where: str, fix: str = "") -> Finding:
    return Finding(code, Severity.ERROR, message, fix, where)


def _make_refusal(slug: str, failed: Sequence[Finding]) -> LaunchRefused:
    codes = {finding.code for finding in failed}
    detail = f"mapping {slug!r}: " + "; ".join(finding.message for finding in failed)
    if codes == {ValueRefused.code}:
        return ValueRefused(detail, findings=failed)
    return MappingRefused(detail, code=next(code for code in _RUNTIME_CODES if code in codes), findings=failed)


_RUNTIME_CODES: Final = (
    "mapping-transform",
    "mapping-limit",
    "mapping-several-values",
    "mapping-duplicate",
    "value-refused",
    "mapping-required",
)
"""Why a mapping can refuse a launch; of several reasons the first in this order is the error's code."""


# Sources: from, template, constant.

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def parse_template(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits a template into n + 1 literals and the n field paths between them.

    Raises ValueError with a sentence.
    """
    literals, paths, end = [""], list[str](), 0
    for token in _BRACES.finditer(text):
        literals[-1] += text[end : token.start()]
        end = token.end()
        if token.group() in ("{{", "}}"):
            literals[-1] += token.group()[0]
        elif token.group(1):
            paths.append(token.group(1))
            literals.append("")
        else:
            place = f"character {token.start() + 1}"
            raise ValueError(f"{place}: expected a field's path in braces; a brace itself is written {{{{ or }}}}")
    literals[-1] += text[end:]
    return tuple(literals), tuple(paths)


def _make_template(text: str, resolve: Resolve) -> Reader:
    literals, paths = parse_template(text)
    first, rest = (
        literals[0],
        tuple((path, resolve(path), literal) for path, literal in zip(paths, literals[1:], strict=True)),
    )

    def read(place: Any, item: Any) -> Texts:
        made = first
        for path, read_field, literal in rest:
            found = read_field(place, item)
            if len(found) > 1:
                raise SeveralValues(path)
            if not found or is_blank(found[0]):
                return ()
            made += found[0] + literal
        return (made,)

    return read


def _make_constant(text: str, _resolve: Resolve) -> Reader:
    values = (text,)
    return lambda _place, _item: values


SOURCES: Final[Mapping[str, Source]] = {
    "from": Source(
        "from",
        "the values of one field; a path through a list gives one value an item",
        find_paths=lambda text: (text,),
        make=lambda text, resolve: resolve(text),
    ),
    "template": Source(
        "template",
        "one text with fields in braces, {payer.given_name} {payer.family_name}; nothing when one of them has no value",
        find_paths=lambda text: parse_template(text)[1],
        make=_make_template,
        one_value=True,
    ),
    "constant": Source("constant", "always the same text", find_paths=lambda _: (), make=_make_constant),
}
"""Where the values of a rule can come from; a rule has exactly one."""


def list_sources(*, from_: str | None, template: str | None, constant: str | None = None) -> list[tuple[Source, str]]:
    """Those sources that are given, each with its text."""
    given = {"from": from_, "template": template, "constant": constant}
    return [(SOURCES[name], text) for name, text in given.items() if text is not None]


def _list_sources(rule: Rule) -> list[tuple[Source, str]]:
    return list_sources(from_=rule.from_, template=rule.template, constant=rule.constant)


# Paths: of the session, or inside an item of `each`.


def _make_resolve(each: str | None) -> Resolve:
    """The function that compiles a path; inside `each` the item's own field first. It raises FieldUnknown."""
    if each is None:
        return compile_path

    def resolve(path: str) -> Reader:
        try:
            read_item = compile_item_path(each, path)
        except FieldUnknown as unknown:
            read_session = _compile_outside(path, unknown)
            return lambda place, _item: read_session(*place)
        return lambda _place, item: read_item(item)

    return resolve


def _compile_outside(path: str, unknown: FieldUnknown) -> Reader:
    try:
        return compile_path(path)
    except FieldUnknown as error:
        raise (unknown if unknown.nearest else error) from None


def _passes_list(path: str, each: str | None) -> bool:
    if each is None:
        return is_multi_valued(path)
    try:
        return is_multi_valued(path, items=each)
    except FieldUnknown:
        return is_multi_valued(path)


# The check at publication.

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")


def _check_mapping(mapping: AttributeMapping, where: str) -> Iterator[Finding]:
    if not mapping.rules:
        message = "the mapping has no rules: the partner gets no attributes"
        yield Finding("mapping-empty", Severity.NOTE, message, "Add a rule for each attribute it needs.", where)
    if len(mapping.rules) > MAX_RULES:
        message = f"expected at most {MAX_RULES} rules, found {len(mapping.rules)}"
        yield _refuse("mapping-limit", message, f"{where}.rules")
    for position, rule in enumerate(mapping.rules[:MAX_RULES]):
        yield from _check_rule(rule, f"{where}.rules[{position}]")
    yield from _check_repeated(mapping, where)


def _find_repeated(mapping: AttributeMapping) -> dict[str, list[int]]:
    """Names that several rules give, each with the positions of those rules."""
    places: dict[str, list[int]] = {}
    for position, rule in enumerate(mapping.rules):
        places.setdefault(rule.attribute, []).append(position)
    return {name: positions for name, positions in places.items() if len(positions) > 1}


def _check_repeated(mapping: AttributeMapping, where: str) -> Iterator[Finding]:
    for name, positions in _find_repeated(mapping).items():
        place = f"{where}.rules[{positions[1]}].attribute"
        if any(mapping.rules[position].when is None for position in positions):
            message = (
                f"the attribute {name!r} is given by {len(positions)} rules; many partners refuse it when sent twice"
            )
            fix = "Keep one rule (a list becomes one attribute with several values), or give each rule a `when`."
            yield _refuse("attribute-duplicate", message, place, fix)
        else:
            message = f"{len(positions)} rules give the attribute {name!r}; a launch where two of them hold is refused"
            yield Finding(
                "attribute-duplicate", Severity.NOTE, message, "See that their `when` exclude each other.", place
            )


def _check_rule(rule: Rule, where: str) -> Iterator[Finding]:
    yield from _check_name(rule, where)
    sources = _list_sources(rule)
    if len(sources) != 1:
        found = " and ".join(source.name for source, _ in sources) or "none"
        message = f"a rule has exactly one of {', '.join(SOURCES)}, found {found}"
        yield _refuse("rule-source", message, where)
    each_findings = tuple(_check_each(rule, where))
    yield from each_findings
    for source, text in sources:
        yield from check_source(source, text, each=rule.each, where=f"{where}.{source.name}")
    transform_findings = tuple(check_transforms(rule.transforms, where=f"{where}.transforms"))
    yield from transform_findings
    if rule.constant is not None and len(sources) == 1 and not (each_findings or transform_findings):
        yield from _check_constant(rule, where)
    if rule.when is not None:
        yield from check_condition(rule.when, where=f"{where}.when")


def _check_name(rule: Rule, where: str) -> Iterator[Finding]:
    for key, name in (("attribute", rule.attribute), ("friendly_name", rule.friendly_name)):
        if name is None:
            continue
        place = f"{where}.{key}"
        if is_blank(name):
            yield _refuse("attribute-name", f"{key} is empty", place, "Write the name that the partner expects.")
        elif unseen := find_unseen(name):
            yield _refuse("attribute-name", f"{key}: {unseen}, which no name may have", place, "Remove it.")
        elif len(name) > MAX_NAME:
            yield _refuse("attribute-name", f"{key}: expected at most {MAX_NAME} characters, found {len(name)}", place)
        elif name != name.strip():
            message = f"{key} {name!r} has white space at an end"
            yield Finding(
                "attribute-name-space", Severity.WARNING, message, "Remove it unless the partner has it.", place
            )
    yield from _check_format(rule, where)


def _check_format(rule: Rule, where: str) -> Iterator[Finding]:
    place = f"{where}.name_format"
    if rule.name_format not in NAME_FORMATS:
        message = f"expected one of {', '.join(NAME_FORMATS)}, found {rule.name_format!r}"
        yield _refuse("attribute-format", message, place)
    elif rule.name_format == "uri" and not _URI.fullmatch(rule.attribute):
        message = f"name_format is uri, but {rule.attribute!r} is no URI"
        fix = "Use a name such as urn:oid:0.9.2342.19200300.100.1.3, or the name_format basic."
        yield Finding("attribute-format", Severity.WARNING, message, fix, place)
    elif rule.name_format != "uri" and rule.attribute.startswith("urn:oid:"):
        message = f"{rule.attribute!r} is a URI, but name_format is {rule.name_format}; Shibboleth then passes it over"
        yield Finding("attribute-format", Severity.WARNING, message, "Set name_format to uri.", place)


def _check_each(rule: Rule, where: str) -> Iterator[Finding]:
    if rule.each is None:
        return
    if rule.constant is not None:
        message = "each goes with from or template; with a constant every item would give the same value"
        yield _refuse("rule-each", message, f"{where}.each", "Remove `each`.")
    try:
        compile_items(rule.each)
    except FieldUnknown as error:
        nearest = f"; did you mean {error.nearest!r}?" if error.nearest else ""
        fix = f"Lists are: {', '.join(list_paths())}."
        yield _refuse("field-unknown", f"{rule.each!r} is no list of objects{nearest}", f"{where}.each", fix)


def check_source(source: Source, text: str, *, each: str | None = None, where: str) -> Iterator[Finding]:
    """Every problem of what stands under a source's name; `where` is its own path."""
    if is_blank(text):
        message = f"{source.name} is {'white space alone' if text else 'empty'}"
        yield _refuse("rule-source", message, where, "Write what to send, or remove it.")
        return
    if bad := find_unsendable(text):
        message = f"{source.name} has the character {bad}, which no message can carry"
        yield _refuse("rule-source", message, where, "Remove it, or write a space.")
    try:
        paths = source.find_paths(text)
    except ValueError as error:
        yield _refuse("template-syntax", str(error), where, 'For example "{payer.given_name} {payer.family_name}".')
        return
    if each is not None and each not in list_paths():
        return
    resolve = _make_resolve(each)
    for path in dict.fromkeys(paths):
        try:
            resolve(path)
        except FieldUnknown as error:
            yield _refuse("field-unknown", str(error), where)
            continue
        if source.one_value and _passes_list(path, each):
            message = f"{path!r} can have several values, and a {source.name} makes one text"
            yield _refuse("template-several-values", message, where, "Use `each`, or `from` with the transform join.")


def check_transforms(calls: Sequence[TransformCall], *, where: str) -> Iterator[Finding]:
    """Every problem of a list of transforms; `where` is its own path."""
    if len(calls) > MAX_TRANSFORMS:
        message = f"expected at most {MAX_TRANSFORMS} transforms, found {len(calls)}"
        yield _refuse("mapping-limit", message, where, "Use fewer.")
    for position, call in enumerate(calls[:MAX_TRANSFORMS]):
        yield from check_transform(call, where=f"{where}[{position}]")


def _check_constant(rule: Rule, where: str) -> Iterator[Finding]:
    """What a constant becomes is known now, so nothing is left to fail at a launch."""
    try:
        made = _finish(rule, where)((rule.constant or "",))
    except _RuleFailed as error:
        yield error.finding
        return
    if not made:
        message = f"the transforms leave nothing of the constant of {rule.attribute!r}"
        yield _refuse("rule-source", message, f"{where}.transforms")


# Compilation.


def _compile_rule(rule: Rule, where: str) -> RuleFunction:
    run = _compile_fixed(rule, where) if rule.constant is not None else _compile_values(rule, where)
    if rule.when is None:
        return run
    test = compile_condition(rule.when)
    return lambda session, account: run(session, account) if test(session, account) else None


def _prepare_attribute(rule: Rule) -> Callable[[Texts], Attribute]:
    name, name_format, friendly_name = rule.attribute, NAME_FORMATS[rule.name_format], rule.friendly_name
    value_type, as_list = rule.value_type, rule.as_list
    return lambda values: Attribute(name, values, name_format, friendly_name, value_type, as_list)


def _compile_fixed(rule: Rule, where: str) -> RuleFunction:
    values = _finish(rule, where)((rule.constant or "",))
    attribute = _prepare_attribute(rule)(values)
    return lambda _session, _account: attribute


def _compile_values(rule: Rule, where: str) -> RuleFunction:
    read, finish = _compile_reader(rule), _finish(rule, where)
    make = _prepare_attribute(rule)
    required = rule.required

    def run(session: PortalSession, account: JsonObject | None) -> Attribute | None:
        try:
            found = read(session, account)
        except SeveralValues as error:
            raise _RuleFailed(_find_several(rule, str(error), where)) from None
        values = finish(found)
        if values:
            return make(values)
        if required:
            raise _RuleFailed(_find_nothing(rule, not all(map(is_blank, found)), where))
        return None

    return run


def _compile_reader(rule: Rule) -> Reader:
    ((source, text),) = _list_sources(rule)
    read = source.make(text, _make_resolve(rule.each))
    if rule.each is None:
        return read
    list_items = compile_items(rule.each)

    def read_items(session: PortalSession, account: JsonObject | None) -> Texts:
        place = (session, account)
        return tuple([value for item in list_items(session, account) for value in read(place, item)])

    return read_items


def _finish(rule: Rule, where: str) -> Callable[[Texts], Texts]:
    """The function from what the source found to what is sent: transforms, no blank values, limits kept."""
    transform = compile_transforms(rule.transforms) if rule.transforms else None
    fold = rule.carriage_return == "fold"
    few_enough = MAX_VALUE_BYTES // 4

    def finish(found: Texts) -> Texts:
        try:
            values = release(found if transform is None else transform(found), fold=fold)
        except TransformFailed as error:
            raise _RuleFailed(_find_failed(rule, error.position, str(error), where)) from None
        except CharacterRefused as error:
            raise _RuleFailed(_find_unsendable(rule, str(error), where)) from None
        if len(values) > MAX_VALUES:
            raise _RuleFailed(_find_too_many(rule, len(values), where))
        for value in values:
            if len(value) > few_enough and len(value.encode("utf-8", "surrogatepass")) > MAX_VALUE_BYTES:
                raise _RuleFailed(_find_too_long(rule, where))
        return tuple(values)

    return finish


# What a launch can fail on. Names only, never a value.


def _find_nothing(rule: Rule, found_before: bool, where: str) -> Finding:
    looked_at = " and ".join(_list_looked_at(rule))
    if found_before:
        message = f"the attribute {rule.attribute!r} is required, but the transforms left nothing of {looked_at}"
        fix = "Look at the transforms, or add the transform `default`."
    else:
        message = f"the attribute {rule.attribute!r} is required, but this payer has no value in {looked_at}"
        fix = f"See that the portal sends {looked_at}, make the rule optional, or add the transform `default`."
    return _refuse("mapping-required", message, where, fix)


def _list_looked_at(rule: Rule) -> tuple[str, ...]:
    ((source, text),) = _list_sources(rule)
    paths = dict.fromkeys(source.find_paths(text))
    return tuple(f"{path} (of each of {rule.each})" for path in paths) if rule.each else tuple(paths)


def _find_several(rule: Rule, path: str, where: str) -> Finding:
    message = f"the template of the attribute {rule.attribute!r} takes one value, and {path} has several for this payer"
    return _refuse("mapping-several-values", message, where, "Use `from` with the transform join or first.")


def _find_failed(rule: Rule, position: int, reason: str, where: str) -> Finding:
    name, count = rule.transforms[position].name, len(rule.transforms)
    message = f"the attribute {rule.attribute!r}: transform {position + 1} of {count}, {name}, failed: {reason}"
    return _refuse("mapping-transform", message, f"{where}.transforms[{position}]", _FIXES.get(name, ""))


_FIXES: Final = {
    "lookup": "Add the missing value to the table, or give a default.",
    "date_format": "See what the portal sends, and write that pattern in `from`.",
}


def _find_unsendable(rule: Rule, kind: str, where: str) -> Finding:
    message = f"the attribute {rule.attribute!r} has {kind} for this payer, which no message can carry"
    fix = (
        f"See what the portal sends in {' and '.join(_list_looked_at(rule))}, or take it out by the transform replace."
    )
    if kind == "a carriage return":
        fix = "Set carriage_return to fold, which makes a space of it, or take it out by the transform replace."
    return _refuse(ValueRefused.code, message, where, fix)


def _find_too_many(rule: Rule, count: int, where: str) -> Finding:
    message = f"the attribute {rule.attribute!r} would have {count} values; at most {MAX_VALUES} are sent"
    return _refuse("mapping-limit", message, where, "Choose a narrower list, or use the transform first or join.")


def _find_too_long(rule: Rule, where: str) -> Finding:
    message = f"a value of the attribute {rule.attribute!r} has more than {MAX_VALUE_BYTES} bytes in UTF-8"
    return _refuse("mapping-limit", message, where, "Cut it with the transform substring, or choose another field.")
