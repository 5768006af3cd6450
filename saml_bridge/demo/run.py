"""Setting the demo up and serving its partner portals.

Owns: what the demo writes below `INSTANCE/demo`. Does not own: certificates, database, publishing and the bridge's own
process. Called by `saml-bridge demo`, in this order: `prepare`, publish the returned file, `register_idp` for each
partner of each biller, `PartnersServer`.

| file below `INSTANCE/demo` | what |
| --- | --- |
| `billers.yaml` | the demo configuration with this demo's addresses |
| `metadata/SLUG.xml` | each partner's metadata, named by `billers.yaml` |
| `keys/` | the partners' keys, 0600 |
| `idp/SLUG/BILLER.xml` | the bridge's metadata for a biller, as a partner has registered it |
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from importlib.resources import files
from pathlib import Path
from string import Template
from types import TracebackType

from werkzeug.serving import WSGIRequestHandler, make_server

from saml_bridge.demo.partners import build_providers, create_partners_app


def prepare(instance_dir: Path, *, bridge_url: str, partners_url: str) -> Path:
    """Make the partners' keys and metadata and the demo configuration; returns the path of `billers.yaml`.

    The URLs are origins without a final slash and must be different ones. Running it again changes nothing but the
    addresses: the keys stay.
    """
    state_dir = instance_dir / "demo"
    for slug, provider in build_providers(partners_url, state_dir).items():
        _write(state_dir / "metadata" / f"{slug}.xml", provider.build_metadata())
    packaged = (files("saml_bridge.demo") / "data" / "billers.yaml").read_text(encoding="utf-8")
    filled = Template(packaged).substitute(BRIDGE_URL=bridge_url, PARTNERS_URL=partners_url)
    _write(state_dir / "billers.yaml", filled.encode())
    return state_dir / "billers.yaml"


def register_idp(instance_dir: Path, *, partner: str, biller: str, metadata: bytes) -> None:
    """Register the bridge's metadata for a biller at a demo partner, which notices a change at the next message."""
    _write(instance_dir / "demo" / "idp" / partner / f"{biller}.xml", metadata)


def _write(path: Path, content: bytes) -> None:
    """Replace a file at once, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    os.replace(beside, path)


class _QuietHandler(WSGIRequestHandler):
    """The demo's terminal belongs to the list of what to open."""

    def log(self, type: str, message: str, *args: object) -> None:
        logging.getLogger("saml_bridge.demo").debug(f"{type}: {message}", *args)


class PartnersServer:
    """The partner portals, served by a thread of this process. A context manager; leaving it stops the server."""

    def __init__(self, instance_dir: Path, *, host: str, port: int, base_url: str | None = None) -> None:
        """Binds at once; raises OSError when the port is taken. `base_url` is http://HOST:PORT when left out."""
        logging.getLogger("saml2").setLevel(logging.CRITICAL)  # it logs what payers are called
        self.base_url = base_url or f"http://{host}:{port}"
        app = create_partners_app(base_url=self.base_url, state_dir=instance_dir / "demo")
        with socket.create_server((host, port)) as bound:  # werkzeug itself would end the process when it cannot bind
            self._server = make_server(host, port, app, threaded=True, request_handler=_QuietHandler, fd=bound.fileno())
        self._thread = threading.Thread(target=self._server.serve_forever, name="demo partners", daemon=True)

    def __enter__(self) -> PartnersServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
