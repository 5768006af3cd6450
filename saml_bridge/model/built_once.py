"""Values that are built at their first use and then shared by all threads.

Of several first uses at once, one builds.

Owns: that order. Does not own: the values. With `functools.lru_cache` each of the first threads builds for itself.
That is fine for a value that is pure Python and cheap, and `lru_cache` stands there. It is not for what a library
cannot build twice at once (libxml2's schemas), what costs much, or what must be there once (key sets). What a service
needs in any case is built at its start, too (`app.wiring`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from threading import RLock
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
Value = TypeVar("Value")


class BuiltOnce(Generic[P, Value]):
    """A function whose values are kept, by their arguments. Others wait while one is built."""

    def __init__(self, build: Callable[P, Value], *, most: int) -> None:
        self._kept = lru_cache(maxsize=most)(build)
        self._lock = RLock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Value:
        with self._lock:
            return self._kept(*args, **kwargs)  # type: ignore[arg-type]  # what is no key raises TypeError

    @property
    def count(self) -> int:
        """How many values are kept."""
        return self._kept.cache_info().currsize


def built_once(*, most: int) -> Callable[[Callable[P, Value]], BuiltOnce[P, Value]]:
    """Has a function's values built once and kept, up to `most` of those used last."""
    return lambda build: BuiltOnce(build, most=most)
