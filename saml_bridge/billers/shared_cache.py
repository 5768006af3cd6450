"""A bounded cache for threads; of several that miss a key, one builds the value.

Owns: that order, and which values stay. Does not own: the values. Called by: `registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Final, Generic, TypeVar

from cachetools import LRUCache

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

BUILT_AT_ONCE: Final = 16
"""How many values of different keys can be built at the same time: keys that share a lock wait for each other."""


class SharedCache(Generic[Key, Value]):
    """The values used last, up to a number. Safe to share between threads."""

    def __init__(self, most: int) -> None:
        self._values: LRUCache[Key, Value] = LRUCache(most)
        self._lock = Lock()
        self._building = tuple(Lock() for _ in range(BUILT_AT_ONCE))

    def find(self, key: Key, build: Callable[[], Value]) -> Value:
        """The value of a key, built if it is missing.

        Raises what `build` raises, and keeps nothing then.
        """
        value = self._get(key)
        if value is None:
            with self._building[hash(key) % BUILT_AT_ONCE]:
                value = self._get(key)
                if value is None:
                    value = build()
                    self.put(key, value)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keep a value in place of the key's last one."""
        with self._lock:
            self._values[key] = value

    def drop(self, key: Key) -> None:
        """Build the value again at its next use."""
        with self._lock:
            self._values.pop(key, None)

    def _get(self, key: Key) -> Value | None:
        with self._lock:
            return self._values.get(key)
