"""How the project's prose reads, as far as a program can tell: docstrings and pages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for path in (ROOT / "saml_bridge").rglob("*.py") if "versions" not in path.parts)
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]

MOST_WORDS = 15
CONTORTED = re.compile(
    r"\b(?:[Aa]new|[Ww]hoever|[Ww]homever|[Ww]hatever|by way of|is none|are none|none of ours)\b"
    r"|[Ww]hat [a-z ]{3,40} (?:is|are) not there"
)
NO_SUBJECT = {"what", "whether", "whoever", "who", "as", "which", "that"}
"""A first line that begins so hides its subject."""


def show(path: Path) -> str:
    return str(path.relative_to(ROOT))


def list_docstrings(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Name, docstring, and if the name is public, of the module and everything in it. Help texts of commands are left
    out: they are for people at a terminal."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield "module", ast.get_docstring(tree) or "", True
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            is_command = any(
                "command" in ast.unparse(one) or "group" in ast.unparse(one) for one in node.decorator_list
            )
            yield node.name, ast.get_docstring(node) or "", not node.name.startswith("_") and not is_command


@pytest.mark.parametrize("path", SOURCES, ids=show)
def test_a_first_line_is_short_and_has_its_subject_first(path: Path) -> None:
    found = []
    for name, text, is_public in list_docstrings(path):
        first = text.split("\n", 1)[0]
        words = first.split()
        if is_public and words and (len(words) > MOST_WORDS or words[0].strip("`,.:;").lower() in NO_SUBJECT):
            found.append(f"{name}: {first}")
    assert found == []


@pytest.mark.parametrize("path", SOURCES, ids=show)
def test_no_docstring_is_contorted(path: Path) -> None:
    found = [(name, match[0]) for name, text, _ in list_docstrings(path) for match in CONTORTED.finditer(text)]
    assert found == []


@pytest.mark.parametrize("path", PAGES, ids=show)
def test_no_page_is_contorted(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if CONTORTED.search(line)] == []
