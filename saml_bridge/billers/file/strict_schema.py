"""The base of all schemas, which reports every error and keeps all readable values.

Owns: unknown and missing keys, lists, mappings within mappings. Does not own: single values (`fields`).
Called by: every schema of `billers.file`, `billers.partners` and `billers.catalog`.

Values that could be read in spite of errors stay in `valid_data`, with None for each broken item of a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from marshmallow import RAISE, Schema, ValidationError, fields, post_dump, post_load

from saml_bridge.billers.file.fields import Problem, raise_problem, show
from saml_bridge.model.nearest import suggest

MAX_ITEMS: Final = 500


class ListOf(fields.List[Any]):
    """A list; of one with errors the good items keep their places in `valid_data`."""

    def __init__(self, inner: fields.Field[Any], *, most: int = MAX_ITEMS, **kwargs: Any) -> None:
        super().__init__(inner, **kwargs)
        self.most = most

    def make_error(self, key: str, **_: Any) -> ValidationError:
        words = "is missing; expected a list" if key == "required" else "expected a list, found nothing"
        return ValidationError([Problem("config-missing" if key == "required" else "config-type", words)])

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:  # noqa: ARG002 marshmallow's
        if not isinstance(value, list | tuple):
            raise_problem("config-type", f"expected a list, found {show(value)}")
        if len(value) > self.most:
            raise_problem("config-size", f"expected at most {self.most} entries, found {len(value)}")
        result: list[Any] = []
        errors: dict[int, Any] = {}
        for position, item in enumerate(value):
            try:
                result.append(self.inner.deserialize(item))
            except ValidationError as error:
                errors[position] = error.messages
                result.append(error.valid_data)
        if errors:
            # the stubs name fewer types than marshmallow's trees have
            messages: Any = errors
            valid: Any = result
            raise ValidationError(messages, valid_data=valid)
        return tuple(result)


class Part(fields.Nested):
    """A mapping with keys of its own."""

    def make_error(self, key: str, **_: Any) -> ValidationError:
        if key == "required":
            return ValidationError([Problem("config-missing", "is missing; expected a mapping")])
        return ValidationError([Problem("config-type", "expected a mapping, found nothing")])


class StrictSchema(Schema):
    """Base of all schemas: loads a dataclass, and refuses unknown keys.

    The refusal names the nearest key that exists.
    """

    error_messages = {"unknown": "unknown", "type": "type"}  # noqa: RUF012 marshmallow types it as an instance's
    makes: ClassVar[type]
    only_when_given: ClassVar[frozenset[str]] = frozenset()

    class Meta:
        unknown = RAISE

    def handle_error(self, error: ValidationError, data: Any, **_: Any) -> None:
        """Put words to what marshmallow itself found."""
        messages: dict[Any, Any] = error.messages  # type: ignore[assignment]  # a schema's are always a dict
        known = [one.data_key or name for name, one in self.fields.items()]
        for key, found in messages.items():
            if found == ["type"]:
                messages[key] = [Problem("config-type", f"expected a mapping, found {show(data)}")]
            elif found == ["unknown"]:
                fix = f"Allowed: {', '.join(known)}."
                messages[key] = [Problem("config-key-unknown", f"there is no such key{suggest(str(key), known)}", fix)]

    @post_load
    def make(self, data: Mapping[str, Any], **_: Any) -> Any:
        return self.makes(**data)

    @post_dump
    def leave_out(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {key: value for key, value in data.items() if value is not None or key not in self.only_when_given}
