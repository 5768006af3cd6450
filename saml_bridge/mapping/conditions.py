"""Conditions on a portal session: `when` of a rule and `visible_when` of a link.

Owns: the check of a condition at publication and its compilation to a function.
Does not own: the condition's shape (`model.document.Condition`), field paths (`fields`).
Called by: `rules`, `billers.checks.document`, `billers.snapshot`. Pure.

A multi-valued field matches when any of its values does. A field without a value neither equals nor is in anything;
it `exists` when it has a value that is not blank. Texts are compared exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from saml_bridge.mapping.characters import is_blank
from saml_bridge.mapping.fields import FieldReader, FieldUnknown, compile_path
from saml_bridge.model.document import Condition
from saml_bridge.model.errors import ConfigInvalid
from saml_bridge.model.values import Finding, JsonObject, PortalSession, Severity

MAX_DEPTH: Final = 10
"""Conditions inside conditions."""

MAX_PARTS: Final = 100
"""Conditions in one `all` or `any`, texts in one `in`."""

Test = Callable[[PortalSession, JsonObject | None], bool]


def check_condition(condition: Condition, *, where: str) -> tuple[Finding, ...]:
    """Every problem of a condition; `where` is its own path in the document."""
    return tuple(_check(condition, where, 1))


def compile_condition(condition: Condition) -> Test:
    """Make the test of a condition. Raises ConfigInvalid when `check_condition` refuses."""
    findings = check_condition(condition, where="condition")
    if any(finding.refuses for finding in findings):
        raise ConfigInvalid("the condition has errors", findings=findings)
    return _compile(condition)


def _refuse(code: str, message: str, where: str, fix: str = "") -> Finding:
    return Finding(code, Severity.ERROR, message, fix, where)


def _check(condition: Condition, where: str, depth: int) -> Iterator[Finding]:
    if depth > MAX_DEPTH:
        yield _refuse("condition-too-deep", f"conditions stand more than {MAX_DEPTH} deep in each other", where)
        return
    given = (condition.field, condition.all, condition.any, condition.not_)
    kinds = [name for name, value in zip(("field", "all", "any", "not"), given, strict=True) if value is not None]
    if len(kinds) != 1:
        message = f"a condition has exactly one of field, all, any and not, found {' and '.join(kinds) or 'none'}"
        yield _refuse("condition-shape", message, where, "Put several tests into `all` or `any`.")
    if condition.field is not None:
        yield from _check_path(condition.field, where)
    yield from _check_tests(condition, where)
    for name, parts in (("all", condition.all), ("any", condition.any)):
        if parts is not None:
            yield from _check_count(len(parts), f"{where}.{name}")
            for position, part in enumerate(parts):
                yield from _check(part, f"{where}.{name}[{position}]", depth + 1)
    if condition.not_ is not None:
        yield from _check(condition.not_, f"{where}.not", depth + 1)


def _check_path(path: str, where: str) -> Iterator[Finding]:
    try:
        compile_path(path)
    except FieldUnknown as error:
        yield _refuse("field-unknown", str(error), f"{where}.field")


def _check_tests(condition: Condition, where: str) -> Iterator[Finding]:
    given = (condition.in_, condition.equals, condition.exists)
    tests = [name for name, value in zip(("in", "equals", "exists"), given, strict=True) if value is not None]
    if condition.field is not None and len(tests) != 1:
        message = f"a field is tested with exactly one of in, equals and exists, found {' and '.join(tests) or 'none'}"
        yield _refuse("condition-shape", message, where)
    if condition.field is None and tests:
        yield _refuse("condition-shape", f"{' and '.join(tests)} needs a field to test", where)
    if condition.in_ is not None:
        yield from _check_count(len(condition.in_), f"{where}.in")


def _check_count(count: int, where: str) -> Iterator[Finding]:
    if not 1 <= count <= MAX_PARTS:
        yield _refuse("condition-size", f"expected 1 to {MAX_PARTS} entries, found {count}", where)


def _compile(condition: Condition) -> Test:
    if condition.not_ is not None:
        inner = _compile(condition.not_)
        return lambda session, account: not inner(session, account)
    if condition.all is not None:
        every = tuple(_compile(part) for part in condition.all)
        return lambda session, account: all(test(session, account) for test in every)
    if condition.any is not None:
        some = tuple(_compile(part) for part in condition.any)
        return lambda session, account: any(test(session, account) for test in some)
    return _compile_field(condition, compile_path(condition.field or ""))


def _compile_field(condition: Condition, read: FieldReader) -> Test:
    if condition.exists is not None:
        wanted = condition.exists
        return lambda session, account: (not all(map(is_blank, read(session, account)))) is wanted
    allowed = frozenset(condition.in_ if condition.in_ is not None else (condition.equals or "",))
    return lambda session, account: not allowed.isdisjoint(read(session, account))
