"""Findings about one place, collected while it is read.

Owns: the collecting. Does not own: the findings' content. Called by the modules that read partner metadata.
"""

from __future__ import annotations

from saml_bridge.model.values import Finding, Severity


class Findings:
    """The findings about one place, in order.

    `where` is an entity ID, or empty for the whole file.
    """

    def __init__(self, where: str = "") -> None:
        self._where = where
        self._items: list[Finding] = []

    def refuse(self, code: str, message: str, fix: str) -> None:
        """Adds a finding that refuses."""
        self._items.append(Finding(code, Severity.ERROR, message, fix, self._where))

    def warn(self, code: str, message: str, fix: str) -> None:
        """Adds a warning."""
        self._items.append(Finding(code, Severity.WARNING, message, fix, self._where))

    def note(self, code: str, message: str, fix: str = "") -> None:
        """Adds a note."""
        self._items.append(Finding(code, Severity.NOTE, message, fix, self._where))

    @property
    def items(self) -> tuple[Finding, ...]:
        """The findings without repetitions, the ones that refuse first."""
        ranks = list(Severity)
        return tuple(sorted(dict.fromkeys(self._items), key=lambda one: ranks.index(one.severity)))

    @property
    def refuses(self) -> bool:
        return any(one.refuses for one in self._items)
