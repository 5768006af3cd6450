"""The shape of the code: what `lint-imports` does not show of its rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "saml_bridge"
SOURCES = sorted(path for path in ROOT.rglob("*.py") if "versions" not in path.parts)
PAGES = [path for path in SOURCES if path.name == "__init__.py"]
PURE = ("model", "mapping", "protocols")
PARTNERS = ("service_provider", "relying_party", "crypto")

MOST_CLASS_LINES = 250
MOST_PAGE_LINES = 20
MOST_VIEW_LINES = 12
MOST_LEVELS = 10
MOST_PAIRS = 66


def show(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def list_imports(path: Path) -> Iterator[str]:
    """Full names of everything that a file imports, wherever in it."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def count_lines(node: ast.ClassDef | ast.FunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_the_root_holds_rooms_alone() -> None:
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("path", PAGES, ids=show)
def test_a_room_begins_with_its_page(path: Path) -> None:
    tree = parse(path)
    page = ast.get_docstring(tree)
    assert page is not None
    assert len(page.splitlines()) <= MOST_PAGE_LINES
    rest = [one for one in tree.body[1:] if not (path.parent == ROOT and isinstance(one, ast.Assign))]
    assert rest == [], "a page holds no code"


@pytest.mark.parametrize("path", SOURCES, ids=show)
def test_a_class_can_be_read_at_once(path: Path) -> None:
    sizes = {node.name: count_lines(node) for node in ast.walk(parse(path)) if isinstance(node, ast.ClassDef)}
    assert {name: size for name, size in sizes.items() if size > MOST_CLASS_LINES} == {}


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.parts[-2] != "demo" and "web" in path.parts], ids=show
)
def test_a_view_is_short(path: Path) -> None:
    views = {
        node.name: count_lines(node)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef) and any(map(is_route, node.decorator_list))
    }
    assert {name: size for name, size in views.items() if size > MOST_VIEW_LINES} == {}


def is_route(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Attribute) and called.attr in ("route", "get", "post")


@pytest.mark.parametrize("path", [path for path in SOURCES if path.relative_to(ROOT).parts[0] in PURE], ids=show)
def test_a_pure_room_reads_no_clock_and_no_randomness(path: Path) -> None:
    assert not {"random", "secrets", "uuid", "socket", "time"} & {name.split(".")[0] for name in list_imports(path)}
    text = path.read_text(encoding="utf-8")
    assert "datetime.now(" not in text
    assert "os.urandom" not in text


@pytest.mark.parametrize("name", PARTNERS)
def test_the_demos_partners_judge_us_by_code_that_is_not_ours(name: str) -> None:
    ours = {one for one in list_imports(ROOT / "demo" / f"{name}.py") if one.startswith("saml_bridge")}
    assert all(one.startswith(("saml_bridge.demo", "saml_bridge.model")) for one in ours)


def test_rooms_are_few_and_know_few() -> None:
    """Counted as in a picture of the rooms: an arrow for each room that another one imports."""
    pairs = set()
    for path in SOURCES:
        room = path.relative_to(ROOT).parts[0]
        for name in list_imports(path):
            package, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if package == "saml_bridge" and (ROOT / other).is_dir() and other != room:
                pairs.add((room, other))
    rooms = {room for pair in pairs for room in pair}
    assert len(rooms) == 13
    assert len(pairs) <= MOST_PAIRS, sorted(pairs)
    assert measure_depth(pairs - {("app", "demo")}) <= MOST_LEVELS


def measure_depth(pairs: set[tuple[str, str]]) -> int:
    """The number of levels: the longest way along the arrows."""
    below: dict[str, set[str]] = {}
    for one, other in pairs:
        below.setdefault(one, set()).add(other)

    def depth(room: str) -> int:
        return 1 + max((depth(other) for other in below.get(room, ())), default=0)

    return max(depth(room) for room in below)
