"""What every test would build again is built once a process: parsed keys, compiled templates and URL builders.

All three are pure functions of their input, and all results are immutable. The consistency check of an RSA key costs as
much as a hundred signatures, and a service compiles all its templates at start; a test starts several services. A key
or template that is refused is judged again each time. What the service itself builds once (`model.built_once`) is left
alone: tests count it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from flask import Flask
from jinja2.bccache import Bucket, BytecodeCache
from werkzeug.routing import Rule

_parse = serialization.load_pem_private_key
_parse_once = lru_cache(maxsize=256)(_parse)


def load_pem_private_key(data: bytes, password: bytes | None, backend: Any = None, **options: Any) -> Any:
    """`cryptography`'s function of this name, which parses the same bytes under the same password once."""
    return _parse_once(bytes(data), password, backend, **options)


class CompiledTemplates(BytecodeCache):
    """Compiled templates by their source and by the environment's settings that decide what is compiled."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[Any, ...], Any] = {}

    def get_bucket(self, environment: Any, name: str, filename: str | None, source: str) -> Bucket:
        settings = (environment.trim_blocks, environment.lstrip_blocks, *sorted(environment.extensions))
        bucket = Bucket(environment, (name, filename, source, *settings), "")  # type: ignore[arg-type]
        bucket.code = self._compiled.get(bucket.key)  # type: ignore[call-overload]
        return bucket

    def set_bucket(self, bucket: Bucket) -> None:
        self._compiled[bucket.key] = bucket.code  # type: ignore[index]


_compile_builder = Rule._compile_builder
_builders: dict[tuple[Any, ...], Callable[..., tuple[str, str]]] = {}


def compile_builder_once(rule: Rule, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
    """Werkzeug's compiled function that builds a rule's URL; the rule itself is an argument of it."""
    if rule.defaults:  # a default is put into the code by a converter of its application
        return _compile_builder(rule, append_unknown)
    key = (rule.rule, *rule._trace, append_unknown)
    if key not in _builders:
        _builders[key] = _compile_builder(rule, append_unknown)
    return _builders[key]


# before anything imports the function by its name: the plugins of `tests.conftest` come after this one
serialization.load_pem_private_key = load_pem_private_key
Flask.jinja_options = {"bytecode_cache": CompiledTemplates()}
Rule._compile_builder = compile_builder_once  # type: ignore[method-assign]
