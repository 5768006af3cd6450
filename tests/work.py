"""The work of a function, counted: the same on every machine, which a time is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from cProfile import Profile
from dataclasses import dataclass
from typing import Final

MOST_CALLS: Final = 10_000
"""The most calls that one message may cost; those of the tests cost about 2,000."""


@dataclass
class Work:
    """The calls of Python functions and of functions in C."""

    calls: int = 0


@contextmanager
def counting_work() -> Iterator[Work]:
    """Count the calls of this thread in the block; the number is there at its end."""
    profile, work = Profile(), Work()
    profile.enable()
    try:
        yield work
    finally:
        profile.disable()
        work.calls = sum(one.callcount for one in profile.getstats())


def count_work(run: Callable[[], object]) -> int:
    """The number of calls that `run` makes."""
    with counting_work() as work:
        run()
    return work.calls
