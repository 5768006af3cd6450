"""Adding to a configuration file as text, which keeps everything else in it, comments included.

Owns: the place of a new item in the text. Does not own: the item (`billers.catalog`), reading and writing YAML
(`model.yaml_lines`). Called by: `billers.catalog.apply_template`, which reads the result again and compares. Pure.

Nothing is moved or rewritten. An item is put after the last one of its list, in the list's own style and indentation;
only a list that is empty (`[]`, `null`) gives way. Where that is not enough, ValueError is raised.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import yaml

from saml_bridge.model.yaml_lines import Path, write_yaml

INDENT: Final = 2


def insert_item(text: str, path: Path, item: Any, *, comment: Sequence[str] = ()) -> str:
    """The text with `item` as the last one of the list at `path`.

    A missing list is made. `text` is YAML that `read_yaml` reads. `comment` are lines above the item; they are left out
    of a file that has no comments (JSON). Raises ValueError.
    """
    *above, key = path
    try:
        holder = _find(yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), above)
    except yaml.YAMLError as error:
        raise ValueError("the text is no YAML") from error
    if not isinstance(holder, yaml.MappingNode) or not holder.value:
        raise ValueError("the list has no place to stand in")
    pair = next(((name, node) for name, node in holder.value if name.value == key), None)
    if holder.flow_style:
        return _insert_flow(text, holder, str(key), pair, item)
    if pair is None:
        return _append_key(text, holder, str(key), item, comment)
    name, node = pair
    column = name.start_mark.column
    if _is_empty(node):
        text = text[: node.start_mark.index].rstrip(" ") + text[node.end_mark.index :]
        at = _find_line_after(text, name.end_mark.index, deeper_than=column)
        return _insert_lines(text, at, _build_lines(item, comment, column + INDENT))
    if not isinstance(node, yaml.SequenceNode):
        raise ValueError(f"{key} is no list")
    if node.flow_style:
        return _insert_flow(text, holder, str(key), pair, item)
    at = _find_line_after(text, _find_end(text, node), deeper_than=column)
    return _insert_lines(text, at, _build_lines(item, comment, node.start_mark.column))


def _find(node: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        if isinstance(step, int) and isinstance(node, yaml.SequenceNode):
            node = node.value[step]
        elif isinstance(node, yaml.MappingNode):
            node = next((value for name, value in node.value if name.value == step), None)
    return node


def _is_empty(node: Any) -> bool:
    """An empty list, or nothing at all where a list could stand."""
    if isinstance(node, yaml.ScalarNode):
        return node.style in (None, "") and node.value in ("", "~", "null", "Null", "NULL")
    return isinstance(node, yaml.SequenceNode) and not node.value


def _insert_flow(text: str, holder: Any, key: str, pair: Any, item: Any) -> str:
    """Within brackets, where new text can stand right behind what is there."""
    written = json.dumps(item, ensure_ascii=False)
    if pair is None:
        at = holder.value[-1][1].end_mark.index
        return f"{text[:at]}, {json.dumps(key)}: [{written}]{text[at:]}"
    node = pair[1]
    if _is_empty(node):
        return f"{text[: node.start_mark.index]}[{written}]{text[node.end_mark.index :]}"
    if not isinstance(node, yaml.SequenceNode):
        raise ValueError(f"{key} is no list")
    at = node.value[-1].end_mark.index
    return f"{text[:at]}, {written}{text[at:]}"


def _append_key(text: str, holder: Any, key: str, item: Any, comment: Sequence[str]) -> str:
    column = holder.value[0][0].start_mark.column
    at = _find_line_after(text, _find_end(text, holder), deeper_than=column - 1)
    return _insert_lines(text, at, [f"{' ' * column}{key}:", *_build_lines(item, comment, column + INDENT)])


def _build_lines(item: Any, comment: Sequence[str], column: int) -> list[str]:
    lines = [f"# {line}" for line in comment] + write_yaml([item]).splitlines()
    return [" " * column + line for line in lines]


def _find_end(text: str, node: Any) -> int:
    """Where the last value of a node ends; a block's own end mark stands behind the comments that follow it."""
    while not isinstance(node, yaml.ScalarNode) and not node.flow_style and node.value:
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    end: int = node.end_mark.index
    if isinstance(node, yaml.ScalarNode):  # a block scalar's ends at the next line that is not its own
        while end > node.start_mark.index and text[end - 1].isspace():
            end -= 1
    return end


def _find_line_after(text: str, index: int, *, deeper_than: int) -> int:
    """The start of the line after `index`, and after the comments there that are indented as what ends is."""
    at = _next_line(text, index)
    while at < len(text):
        line = text[at : _next_line(text, at)]
        indent = len(line) - len(line.lstrip(" "))
        if not line.lstrip(" ").startswith("#") or indent <= deeper_than:
            break
        at += len(line)
    return at


def _next_line(text: str, index: int) -> int:
    found = text.find("\n", index)
    return len(text) if found < 0 else found + 1


def _insert_lines(text: str, at: int, lines: Sequence[str]) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    before = text[:at]
    if before and not before.endswith("\n"):
        before += end
    return before + "".join(line + end for line in lines) + text[at:]
