"""The check that no test module reads the time while it is imported."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from tests import conftest
from tests.clock import watching_clock

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "read",
    [
        "NOW = datetime.now(UTC)",
        "TODAY = date.today()",
        "SECONDS = time.time()",
        "TICKS = time.monotonic()",
        "def at(now=datetime.now(UTC)): pass",
        "def now(): return int(time.time())\nCHANGES = [{'exp': now() + 600}]",
        "KEPT = Fernet(Fernet.generate_key()).encrypt(b'what a library dates')",
    ],
)
def test_a_clock_that_is_read_at_import_is_an_error_of_collection(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    imports = "import time\nfrom cryptography.fernet import Fernet\nfrom datetime import UTC, date, datetime\n"
    pytester.makepyfile(test_late=f"{imports}{read}\ndef test_it(): pass\n")
    result = pytester.runpytest_inprocess("-p", "tests.clock")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["The clock is read while test_late.py is imported*", "test_late.py:* reads *()"])


def test_a_clock_that_is_read_in_a_test_is_none(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_fine="import time\ndef test_it(): assert time.time() > 0\n")
    pytester.runpytest_inprocess("-p", "tests.clock").assert_outcomes(passed=1)


OUR_PLUGINS = [one for one in conftest.pytest_plugins if one.startswith("tests.")]


@pytest.mark.parametrize("name", ["tests.conftest", *OUR_PLUGINS])
def test_what_is_loaded_before_collection_reads_no_clock_either(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin is imported before the check is in place, so it is imported once more, under another name."""
    spec = spec_from_file_location(f"again_{name}", ROOT / f"{name.replace('.', '/')}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    with watching_clock(ROOT) as places:
        spec.loader.exec_module(module)
    assert places == []
