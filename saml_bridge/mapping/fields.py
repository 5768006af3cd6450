"""The fields of a portal session: their list, reading a session document, following a path.

Owns: `FIELDS` (the one list that path checks, documentation and parsing share), `parse_session`, `compile_path`.
Does not own: the source of a session (`portal`) and the values made of it (`rules`).
Called by: `rules`, `conditions`, `identifiers`, `callback_uri`, `portal`.

A path is written with dots (`account.service_address.city`). `account` is the account of this launch, `accounts` all of
the session's. Following a path through a list gives one value an item (`account.service_points.meters.id`). Below a
`custom` object every name is allowed, since the portal chooses them; its value is text, a number, true or false, or a
list of these, which gives several values.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from saml_bridge.mapping.characters import is_blank
from saml_bridge.model.errors import BridgeError
from saml_bridge.model.values import JsonObject, PortalSession

FieldReader = Callable[[PortalSession, JsonObject | None], tuple[str, ...]]
"""From a session and the launch's account to the texts found, in order; empty when there are none."""

ItemReader = Callable[[JsonObject], tuple[str, ...]]
ItemsReader = Callable[[PortalSession, JsonObject | None], tuple[JsonObject, ...]]


class SessionMalformed(BridgeError):
    """The portal sent a session that does not have the agreed shape.

    `detail` names the place, never a value.
    """

    code = "session-malformed"
    http_status = 502
    public_message = "Something went wrong on our side. Please try again in a moment."


class FieldUnknown(ValueError):
    """A field path that no session can have.

    `nearest` is the closest path that exists, or None.
    """

    def __init__(self, path: str, nearest: str | None, *, is_object: bool = False) -> None:
        problem = f"{path!r} is an object, not a value" if is_object else f"there is no field {path!r}"
        super().__init__(problem + (f"; did you mean {nearest!r}?" if nearest else ""))
        self.path = path
        self.nearest = nearest


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    In `path`, `[]` marks a list of objects and a last `*` an object whose names the portal chooses.
    """

    path: str
    description: str
    required: bool = False


_ACCOUNT = (
    Field("number", "the account number as the biller prints it, leading zeros kept", required=True),
    Field("type", "for example residential or commercial"),
    Field("status", "for example active or closed"),
    Field("customer_id", "the biller's own customer number"),
    Field("service_address.line1", "street and house number"),
    Field("service_address.line2", "flat, suite"),
    Field("service_address.city", "city"),
    Field("service_address.state", "state, two letters"),
    Field("service_address.postal_code", "postal code"),
    Field("service_address.country", "country"),
    Field("service_points[].id", "service point, or premise"),
    Field("service_points[].meters[].id", "meter number"),
    Field("service_points[].meters[].kind", "for example water, electricity, gas"),
    Field("service_points[].meters[].custom.*", "everything else that the portal tells of a meter"),
    Field("service_points[].custom.*", "everything else that the portal tells of a service point"),
    Field("custom.*", "everything else that the portal tells of an account"),
)

FIELDS: tuple[Field, ...] = (
    Field("sid", "names the portal session; ends with it", required=True),
    Field("biller", "the biller's slug", required=True),
    Field("selected_account", "number of the account that the payer has open in the portal"),
    Field("impersonator", "the customer-service agent who acts for the payer"),
    Field("payer.id", "never reassigned, never changed: the base of a persistent name ID", required=True),
    Field("payer.email", "e-mail address"),
    Field("payer.given_name", "given name"),
    Field("payer.family_name", "family name"),
    Field("payer.phone", "telephone number"),
    Field("payer.custom.*", "everything else that the portal tells of a payer"),
    *(Field(f"account.{one.path}", one.description, one.required) for one in _ACCOUNT),
    *(Field(f"accounts[].{one.path}", one.description, one.required) for one in _ACCOUNT),
)


@dataclass(slots=True)
class _Node:
    is_list: bool = False
    is_open: bool = False
    is_required: bool = False
    children: dict[str, _Node] = field(default_factory=dict)


def _build_tree() -> _Node:
    root = _Node()
    for one in FIELDS:
        node = root
        for segment in one.path.split("."):
            if segment == "*":
                node.is_open = True
                break
            node = node.children.setdefault(segment.removesuffix("[]"), _Node(is_list=segment.endswith("[]")))
        else:
            node.is_required = one.required
    return root


_ROOT = _build_tree()
_PLAIN_PATHS = tuple(one.path.replace("[]", "") for one in FIELDS if not one.path.endswith(".*"))
_OPEN_PATHS = tuple(one.path.replace("[]", "").removesuffix(".*") for one in FIELDS if one.path.endswith(".*"))
_LONGEST_COMPARED = 200


def _find_nodes(path: str, base: str) -> list[tuple[str, _Node]]:
    """The nodes along `path` below `base`; raises FieldUnknown."""
    node = _ROOT
    for segment in base.split(".") if base else ():
        if segment not in node.children:
            raise FieldUnknown(base, _find_nearest(base, ""))
        node = node.children[segment]
    found = []
    for segment in path.split("."):
        if node.is_open and segment:
            child = _Node()
        elif segment in node.children:
            child = node.children[segment]
        else:
            raise FieldUnknown(path, _find_nearest(path, base))
        found.append((segment, child))
        node = child
    return found


def _find_nearest(path: str, base: str) -> str | None:
    prefix = f"{base}." if base else ""
    path = path[:_LONGEST_COMPARED]
    parent, _, last = path.rpartition(".")
    known = [one.removeprefix(prefix) for one in _PLAIN_PATHS if one.startswith(prefix)]
    opened = [one.removeprefix(prefix) for one in _OPEN_PATHS if one.startswith(prefix)]
    if difflib.get_close_matches(parent.rpartition(".")[2], ["custom"], cutoff=0.7):
        return f"{difflib.get_close_matches(parent, opened, n=1, cutoff=0)[0]}.{last or 'NAME'}"
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.5)
    if close:
        return close[0]
    by_last = {one.rsplit(".", 1)[-1]: one for one in reversed(known)}
    close = difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.7)
    return by_last[close[0]] if close else None


def _to_text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return None


_Steps = tuple[tuple[str, bool], ...]
"""Each a name to follow, and whether a list stands there."""


def _list_steps(nodes: list[tuple[str, _Node]]) -> _Steps:
    return tuple((name, node.is_list) for name, node in nodes)


def _follow(values: list[Any], steps: _Steps) -> list[Any]:
    """Follow steps from objects that `parse_session` has checked, so that no type is looked at again."""
    for name, is_list in steps:
        values = [found for value in values if (found := value.get(name)) is not None]
        if is_list:
            values = [item for found in values for item in found]
    return values


def _texts(values: list[Any]) -> tuple[str, ...]:
    flat = (item for value in values for item in _items(value))
    return tuple([text for item in flat if (text := _to_text(item)) is not None])


def _text(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return () if value is None else _texts([value])


def _start(root: str) -> Callable[[PortalSession, JsonObject | None], list[Any]]:
    if root == "account":
        return lambda _session, account: [] if account is None else [account]
    if root == "accounts":
        return lambda session, _account: list(session.accounts)
    return lambda session, _account: [value] if (value := getattr(session, root)) is not None else []


def compile_path(path: str) -> FieldReader:
    """Makes the reader of a field path.

    Raises FieldUnknown; also for a path that ends at an object.
    """
    nodes = _find_value(path, "")
    root, steps = nodes[0][0], _list_steps(nodes[1:])
    if not any(node.is_list for _, node in nodes):
        return _compile_single(root, tuple(name for name, _ in steps))
    start = _start(root)
    return lambda session, account: _texts(_follow(start(session, account), steps))


def _find_value(path: str, base: str) -> list[tuple[str, _Node]]:
    nodes = _find_nodes(path, base)
    last = nodes[-1][1]
    if last.children or last.is_open:
        inside = next(
            (name for name, child in last.children.items() if not child.children and not child.is_open), "NAME"
        )
        raise FieldUnknown(path, f"{path}.{inside}", is_object=True)
    return nodes


def _compile_single(root: str, names: tuple[str, ...]) -> FieldReader:
    """A path without lists, which most rules have, without the general walk."""
    if root == "account":
        return lambda _session, account: _text(_dig(account, names))
    if root == "payer" and len(names) == 1:
        return lambda session, _account: _text(session.payer.get(names[0]))
    return lambda session, _account: _text(_dig(getattr(session, root), names))


def _dig(value: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        if value is None:
            return None
        value = value.get(name)
    return value


def compile_items(path: str) -> ItemsReader:
    """Make the reader of a list of objects (`accounts`, `account.service_points.meters`). Raises FieldUnknown."""
    if path not in list_paths():
        close = difflib.get_close_matches(path[:_LONGEST_COMPARED], list_paths(), n=1)
        raise FieldUnknown(path, close[0] if close else None)
    nodes = _find_nodes(path, "")
    start, steps = _start(nodes[0][0]), _list_steps(nodes[1:])
    return lambda session, account: tuple(_follow(start(session, account), steps))


def compile_item_path(items: str, path: str) -> ItemReader:
    """Make the reader of a path inside one item of the list `items`. Raises FieldUnknown."""
    nodes = _find_value(path, items)
    if not any(node.is_list for _, node in nodes):
        names = tuple(name for name, _ in nodes)
        return lambda item: _text(_dig(item, names))
    steps = _list_steps(nodes)
    return lambda item: _texts(_follow([item], steps))


def is_multi_valued(path: str, *, items: str = "") -> bool:
    """Tells if a path passes through a list.

    The path is one of the session, or of one item of the list `items`. Raises FieldUnknown.
    """
    return any(node.is_list for _, node in _find_nodes(path, items))


def list_paths() -> tuple[str, ...]:
    """The paths that name a list of objects: what `each` of a rule may say."""
    found = set()
    for one in FIELDS:
        parts = one.path.split(".")
        for end, part in enumerate(parts, start=1):
            if part.endswith("[]"):
                found.add(".".join(parts[:end]).replace("[]", ""))
    return tuple(sorted(found))


def parse_session(document: object) -> PortalSession:
    """Read the JSON object of a portal session.

    Extra names are passed over. Raises SessionMalformed, which names the first place that has not the agreed shape,
    and never the value that stands there.
    """
    if not isinstance(document, Mapping):
        raise SessionMalformed("the session is not a JSON object")
    payer = _check_object(document.get("payer"), _ROOT.children["payer"], "payer")
    accounts = () if document.get("accounts") is None else document["accounts"]
    _check_list(accounts, _ROOT.children["accounts"], "accounts")
    session = PortalSession(
        sid=_read_text(document, "sid"),
        biller=_read_text(document, "biller"),
        auth_time=_read_instant(document, "auth_time"),
        expires_at=_read_instant(document, "exp"),
        payer=payer,
        accounts=tuple(accounts),
        selected_account=_read_optional_text(document, "selected_account"),
        impersonator=_read_impersonator(document),
        amr=_read_amr(document),
    )
    numbers = [account["number"] for account in session.accounts]
    if len(set(numbers)) != len(numbers):
        raise SessionMalformed("accounts: the same account number stands twice")
    if session.selected_account is not None and session.selected_account not in numbers:
        raise SessionMalformed("selected_account: is not one of accounts")
    return session


def build_document(session: PortalSession) -> dict[str, Any]:
    """The JSON object that `parse_session` reads as this very session."""
    return {
        "sid": session.sid,
        "biller": session.biller,
        "auth_time": int(session.auth_time.timestamp()),
        "exp": int(session.expires_at.timestamp()),
        "amr": list(session.amr),
        "payer": session.payer,
        "accounts": list(session.accounts),
        "selected_account": session.selected_account,
        "impersonator": session.impersonator,
    }


def _read_text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or is_blank(value):
        raise SessionMalformed(f"{name}: expected text that is not empty, found {_describe(value)}")
    return value


def _read_optional_text(document: Mapping[str, Any], name: str) -> str | None:
    return None if document.get(name) is None else _read_text(document, name)


def _read_impersonator(document: Mapping[str, Any]) -> str | None:
    """Text, or an object that describes the agent; anything but null means that an agent is acting."""
    value = document.get("impersonator")
    if isinstance(value, Mapping):
        agent = value.get("id")
        return agent if isinstance(agent, str) and agent else "an agent"
    return _read_optional_text(document, "impersonator")


def _read_instant(document: Mapping[str, Any], name: str) -> datetime:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SessionMalformed(f"{name}: expected seconds since 1970 as a number, found {_describe(value)}")
    try:
        return datetime.fromtimestamp(int(value), tz=UTC)
    except (ValueError, OverflowError, OSError):
        raise SessionMalformed(f"{name}: is not a time") from None


def _read_amr(document: Mapping[str, Any]) -> tuple[str, ...]:
    value = () if document.get("amr") is None else document["amr"]
    if not isinstance(value, list | tuple):
        raise SessionMalformed(f"amr: expected a list of texts, found {_describe(value)}")
    for position, one in enumerate(value):
        if not isinstance(one, str):
            raise SessionMalformed(f"amr[{position}]: expected text, found {_describe(one)}")
    return tuple(value)


def _check_object(value: object, node: _Node, path: str) -> JsonObject:
    if not isinstance(value, Mapping):
        raise SessionMalformed(f"{path}: expected an object, found {_describe(value)}")
    for name, child in node.children.items():
        found = value.get(name)
        if found is None:
            if child.is_required:
                raise SessionMalformed(f"{path}.{name}: is missing")
        elif child.is_list:
            _check_list(found, child, f"{path}.{name}")
        elif child.children or child.is_open:
            _check_object(found, child, f"{path}.{name}")
        elif not isinstance(found, str):
            raise SessionMalformed(f"{path}.{name}: expected text, found {_describe(found)}")
        elif child.is_required and is_blank(found):
            raise SessionMalformed(f"{path}.{name}: is {'white space alone' if found else 'empty'}")
    if node.is_open:
        _check_open(value, path)
    return value


def _check_open(value: Mapping[Any, Any], path: str) -> None:
    for name, found in value.items():
        for item in _items(found):
            if item is not None and (_to_text(item) is None or (isinstance(item, float) and not math.isfinite(item))):
                place = f"{path}.{name}" if _is_plain_name(name) else f"a name in {path}"
                raise SessionMalformed(f"{place}: expected text, number, true, false or a list of them")


def _is_plain_name(name: object) -> bool:
    """Whether a name that the portal chose can stand in a log: it may itself be data."""
    return isinstance(name, str) and len(name) <= 64 and name.isascii() and name.replace("_", "").isalnum()


def _check_list(value: object, node: _Node, path: str) -> None:
    if not isinstance(value, list | tuple):
        raise SessionMalformed(f"{path}: expected a list, found {_describe(value)}")
    for position, item in enumerate(value):
        _check_object(item, node, f"{path}[{position}]")


def _items(value: object) -> Iterator[object]:
    if isinstance(value, list | tuple):
        yield from value
    else:
        yield value


def _describe(value: object) -> str:
    names = {type(None): "nothing", bool: "true or false", int: "a number", float: "a number", str: "text"}
    if isinstance(value, str) and is_blank(value):
        return "white space alone" if value else "empty text"
    return names.get(type(value), "a list" if isinstance(value, list | tuple) else "an object")


def build_example(biller: str, *, now: int) -> dict[str, Any]:
    """A session document of an invented payer at `biller`.

    It is good for an hour from `now` (seconds since 1970).
    """
    return {
        "active": True,
        "sid": "S-81f3",
        "biller": biller,
        "auth_time": now,
        "exp": now + 3600,
        "amr": ["pwd"],
        "payer": {
            "id": "P-1001",
            "email": "ada@example.net",
            "given_name": "Ada",
            "family_name": "Lovelace",
            "phone": "+15550100",
        },
        "accounts": [
            {
                "number": "000123456",
                "type": "residential",
                "status": "active",
                "customer_id": "C-77",
                "service_address": {"line1": "1 Main St", "city": "Riverton", "state": "NY", "postal_code": "12345"},
                "service_points": [{"id": "SP-1", "meters": [{"id": "M-1", "kind": "water"}]}],
                "custom": {"ami_id": "A-9"},
            }
        ],
        "selected_account": "000123456",
        "impersonator": None,
    }
