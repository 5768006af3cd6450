"""What every test gets: no network but loopback, and the test-only keys."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

pytest_plugins = [
    "pytester",
    "tests.built_once",  # first: what it replaces is imported by name
    "tests.clock",
    "tests.browser",
    "tests.databases",
    "tests.metadata_server",
    "tests.world",
    "tests.relying_party",
]

HERE = Path(__file__).parent
LOOPBACK = ("127.", "::1", "localhost")
MEMORY = Path("/dev/shm")
ROOM_BYTES = 2 * 1024**3


def pytest_configure() -> None:
    """Keep the folders of tests in memory where there is room: each commit to SQLite would wait for a disk."""
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in a test may open a connection beyond this machine."""
    connect = socket.socket.connect

    def checked(self: socket.socket, address: object) -> object:
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            raise AssertionError(f"a test tried to connect to {address!r}")
        return connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", checked)


@pytest.fixture(scope="session")
def keys_dir() -> Path:
    """The folder of test-only keys: NAME.key.pem and NAME.cert.pem."""
    return HERE / "keys"
