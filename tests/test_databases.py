"""Each surface is walked on PostgreSQL, too: what is marked `both_databases` (`tests/databases.py` has the rule)."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.databases import HERE, SURFACES


def list_marks() -> Iterator[str]:
    """The surface that each mark of the tests names."""
    for path in HERE.rglob("test_*.py"):
        if "both_databases(" not in path.read_text():
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "both_databases"
            ):
                yield from (str(ast.literal_eval(one)) for one in node.args)


def test_each_surface_has_a_path_on_postgresql() -> None:
    assert set(list_marks()) == SURFACES


def test_an_unmarked_test_runs_on_sqlite(database_url: str) -> None:
    assert database_url.startswith("sqlite:")


@pytest.mark.both_databases
def test_a_marked_test_runs_on_both(database_url: str, request: pytest.FixtureRequest) -> None:
    assert (request.node.get_closest_marker("postgresql") is not None) == database_url.startswith("postgresql")
