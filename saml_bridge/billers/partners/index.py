"""The protocols that a partner can be configured for, each with its entry.

Owns: finding the entry of every protocol. Does not own: any entry (one file each in this room).
Called by: `billers.file.schemas`, `billers.checks`, `billers.changes`.

A protocol's file is found by its `ENTRY`, in the order of `model.document.Protocol`; no list names it a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Final, get_args

from saml_bridge.billers import partners
from saml_bridge.billers.partners.entry import ConfigurationEntry
from saml_bridge.model.document import Partner, Protocol


def _find_entries() -> Iterator[ConfigurationEntry]:
    for module in iter_modules(partners.__path__, f"{partners.__name__}."):
        if module.name != __name__:
            entry = getattr(import_module(module.name), "ENTRY", None)
            if entry is not None:
                yield entry


def _order_entries(found: Mapping[Protocol, ConfigurationEntry]) -> dict[Protocol, ConfigurationEntry]:
    return {name: found[name] for name in get_args(Protocol)}


ENTRIES: Final[Mapping[Protocol, ConfigurationEntry]] = _order_entries({one.protocol: one for one in _find_entries()})
_BY_SETTINGS: Final[Mapping[type, ConfigurationEntry]] = {one.settings: one for one in ENTRIES.values()}


def find_entry(partner: Partner) -> ConfigurationEntry:
    """The entry of a partner's protocol, by the type of its settings."""
    return _BY_SETTINGS[type(partner.settings)]
