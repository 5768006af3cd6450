"""Collection with the clock taken away: a test module that reads the time while it is imported is an error.

What such a module computes is old when its test runs, on a slow machine by half an hour. Under pytest-xdist one worker
checks, since all of them import the same modules.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

_READERS = frozenset(
    [
        "clock_gettime",
        "clock_gettime_ns",
        "ctime",
        "gmtime",
        "localtime",
        "monotonic",
        "monotonic_ns",
        "now",
        "perf_counter",
        "perf_counter_ns",
        "strftime",
        "time",
        "time_ns",
        "today",
        "utcnow",
    ]
)


@dataclass(frozen=True, slots=True)
class Ahead:
    """A time in seconds from now, for a parameter: `settle` makes it a number when the test runs."""

    seconds: int


def settle(claims: dict[str, Any]) -> dict[str, Any]:
    """The claims with each `Ahead` as the seconds since 1970 that it stands for now."""
    now = int(time.time())
    return {name: now + one.seconds if isinstance(one, Ahead) else one for name, one in claims.items()}


@contextmanager
def watching_clock(root: Path) -> Iterator[list[str]]:
    """Gather the places below `root` that read the time, themselves or through a library that they call.

    What a library reads while it is imported does not count.
    """
    places: list[str] = []
    ours = f"{root}/"

    def watch(frame: FrameType | None, event: str, called: Any) -> None:
        if event != "c_call" or called.__name__ not in _READERS or not _is_clock(called.__self__):
            return
        while frame is not None:
            path = frame.f_code.co_filename
            if path.startswith(ours) and "/.venv/" not in path:
                places.append(f"{path.removeprefix(ours)}:{frame.f_lineno} reads {called.__name__}()")
                return
            if frame.f_code.co_name == "<module>":
                return
            frame = frame.f_back

    before, collects = sys.getprofile(), gc.isenabled()
    gc.disable()  # what watches collections (Hypothesis does) times them, in the middle of anybody's lines
    sys.setprofile(watch)
    try:
        yield places
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()


def _is_clock(owner: object) -> bool:
    return owner is time or (isinstance(owner, type) and issubclass(owner, date))


class ClocklessModule(pytest.Module):
    """A test module whose import must not read the time."""

    def _getobj(self) -> Any:
        with watching_clock(self.config.rootpath) as places:
            module = super()._getobj()
        if places:
            listed = "\n".join(dict.fromkeys(places))
            raise self.CollectError(
                f"The clock is read while {self.path.name} is imported; read it in the test:\n{listed}"
            )
        return module


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Watch the import of every test module, in the first worker where there are several."""
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0":
        return None
    made: pytest.Module = ClocklessModule.from_parent(parent, path=module_path)
    return made
