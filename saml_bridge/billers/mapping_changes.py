"""The sentences about what changes between two attribute mappings, and about conditions.

Owns: rules, conditions and their words. Does not own: transforms and single values (`wording`). Pure.
Called by: `changes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from saml_bridge.billers.wording import (
    compare_order,
    compare_transforms,
    compare_values,
    describe_transform,
    place_adverb,
    quote,
)
from saml_bridge.model.document import AttributeMapping, CarriageReturn, Condition, Rule, ValueType

_TYPES: Final[Mapping[ValueType, str]] = {
    "text": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


_CARRIAGE_RETURNS: Final[Mapping[CarriageReturn, str]] = {
    "fold": "sent with a space for each carriage return",
    "refuse": "refused with a carriage return in it",
}


def describe_new_mapping(mapping: AttributeMapping) -> str:
    return f"added: sends {', '.join(rule.attribute for rule in mapping.rules) or 'no attributes'}"


def compare_mappings(old: AttributeMapping, new: AttributeMapping) -> Iterator[str]:
    before, after = _number_rules(old.rules), _number_rules(new.rules)
    for name in before:
        if name not in after:
            yield f"{name} is no longer sent"
    for name, rule in after.items():
        if name in before:
            yield from (f"{name} {what}" for what in _compare_rules(before[name], rule))
        else:
            yield f"{name} is now sent: {_describe_rule(rule)}"
    yield from compare_order("attributes", list(before), list(after))


def _number_rules(rules: Iterable[Rule]) -> dict[str, Rule]:
    """Rules by their attribute's name; the second of a name is `name (2)`, and so on."""
    numbered: dict[str, Rule] = {}
    for rule in rules:
        name, number = rule.attribute, 1
        while name in numbered:
            number += 1
            name = f"{rule.attribute} ({number})"
        numbered[name] = rule
    return numbered


def _describe_rule(rule: Rule) -> str:
    words = [_describe_source(rule), *(describe_transform(call) for call in rule.transforms)]
    if rule.value_type != "text":
        words.append(f"as {_TYPES[rule.value_type]}")
    if rule.as_list:
        words.append("always as a list")
    if rule.carriage_return != "fold":
        words.append(_CARRIAGE_RETURNS[rule.carriage_return])
    if rule.required:
        words.append("required")
    if rule.when is not None:
        words.append(f"only when {describe_condition(rule.when)}")
    return ", ".join(words)


def _describe_source(rule: Rule) -> str:
    if rule.constant is not None:
        return f"the constant {quote(rule.constant)}"
    source = f"the field {rule.from_}" if rule.template is None else f"the template {quote(rule.template)}"
    return f"{source} of each of {rule.each}" if rule.each else source


def _compare_rules(old: Rule, new: Rule) -> Iterator[str]:
    before, after = _describe_source(old), _describe_source(new)
    if before != after:
        yield f"is made from {after} instead of {before}"
    yield from compare_transforms(old.transforms, new.transforms)
    if old.required != new.required:
        yield "is now required" if new.required else "is no longer required"
    yield from compare_conditions("is sent", "whenever there is a value", old.when, new.when)
    yield from compare_values(
        old, new, {"name_format": "name format", "friendly_name": "friendly name"}, start="changes its "
    )
    if old.value_type != new.value_type:
        yield f"is now {_TYPES[new.value_type]} instead of {_TYPES[old.value_type]}"
    if old.as_list != new.as_list:
        yield "is now always a list" if new.as_list else "is now a list only when it has several values"
    if old.carriage_return != new.carriage_return:
        yield f"is now {_CARRIAGE_RETURNS[new.carriage_return]}"


def compare_conditions(state: str, always: str, old: Condition | None, new: Condition | None) -> Iterator[str]:
    if old != new:
        phrase = f"{state} {always}" if new is None else f"{state} only when {describe_condition(new)}"
        yield place_adverb("now", phrase)


def describe_condition(condition: Condition) -> str:
    """A condition as part of a sentence."""
    if condition.not_ is not None:
        return f"not ({describe_condition(condition.not_)})"
    for parts, word in ((condition.all, " and "), (condition.any, " or ")):
        if parts is not None:
            return word.join(
                f"({describe_condition(part)})" if len(parts) > 1 else describe_condition(part) for part in parts
            )
    if condition.exists is not None:
        return f"{condition.field} has {'a value' if condition.exists else 'no value'}"
    if condition.equals is not None:
        return f"{condition.field} is {quote(condition.equals)}"
    return f"{condition.field} is one of {', '.join(map(quote, condition.in_ or ()))}"
