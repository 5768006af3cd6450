"""The setting of a protocol that holds a partner's public keys.

Owns: its check. Does not own: the texts that are keys (`keys.partner_keys`), files (`billers.file.resolve`).
Called by: `entry`, the protocols of this room, `billers.file`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from saml_bridge.keys.partner_keys import KeyTextBroken
from saml_bridge.model.document import ProtocolSettings
from saml_bridge.model.findings import refuse
from saml_bridge.model.values import Finding


@dataclass(frozen=True, slots=True)
class PublicKeySetting:
    """A setting with public keys as text.

    `normalize` gives the form that a document keeps, and raises KeyTextBroken. `fix` says what to ask the partner for.
    """

    name: str
    normalize: Callable[[str], str]
    fix: str

    def read(self, settings: ProtocolSettings) -> str | None:
        """The text in a partner's settings, None where they have no public keys."""
        text: str | None = getattr(settings, self.name)
        return text

    def check(self, text: str | None, where: str) -> Iterator[Finding]:
        """Checks that public keys can be used; None passes.

        `where` is the path of the settings.
        """
        if text is None:
            return
        try:
            self.normalize(text)
        except KeyTextBroken as broken:
            yield refuse("partner-key-broken", f"{self.name}: {broken}", self.fix, f"{where}.{self.name}")
