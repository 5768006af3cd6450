"""TODO docstring."""

from __future__ import annotations

from typing import Final

_HINT_BYTES: Final = 32
