"""Values at rest that the database must not tell.

They are sealed with a key that is derived from the service's secret.

Owns: the sealing and its key, and which secrets can be guessed. Does not own: what is sealed.
Called by: the stores that keep a payer's values for a while (partner sessions, logouts that go on); `app.settings` and
`storage.partner_secrets`, which take a secret.
"""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any, Final

from cryptography.fernet import Fernet, InvalidToken

from saml_bridge.model.errors import BridgeError

FEWEST_DIFFERENT: Final = 5


class SealBroken(BridgeError):
    """A sealed value that was changed, or sealed with another secret."""

    code = "seal-broken"


def is_monotonous(secret: str) -> bool:
    """Tells that a secret is a few characters over and over.

    Such a secret can be guessed, however long it is.
    """
    return len(set(secret)) < FEWEST_DIFFERENT


class Seal:
    """Seals JSON values for one purpose.

    A value that is sealed for another purpose cannot be opened. Safe to share between threads.
    """

    def __init__(self, secret: bytes, purpose: str) -> None:
        key = hmac.digest(secret, b"seal\0" + purpose.encode(), "sha256")
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def seal(self, value: Any) -> str:
        """ASCII text of which nothing but its length can be told."""
        return self._fernet.encrypt(json.dumps(value).encode()).decode("ascii")

    def open(self, sealed: str) -> Any:
        """Opens a sealed value. Raises SealBroken."""
        try:
            return json.loads(self._fernet.decrypt(sealed.encode("ascii")))
        except (InvalidToken, UnicodeEncodeError):
            raise SealBroken("a sealed value cannot be opened: was SAML_BRIDGE_SECRET_KEY changed?") from None
