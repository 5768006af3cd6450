"""Setting the demo up and serving its partner portals.

Owns: what the demo writes below `INSTANCE/demo`. Does not own: certificates, database, publishing and the bridge's own
process. Called by `saml-bridge demo`, in this order: `prepare`, publish the returned file, `register_idp` for each
partner of each biller, `PartnersServer`.

| file below `INSTANCE/demo` | what |
| --- | --- |
| `billers.yaml` | the demo configuration with this demo's addresses |
| `metadata/SLUG.xml` | each partner's metadata, named by `billers.yaml` |
| `keys/` | the partners' keys, 0600 |
| `oidc/SLUG.json`, `accounts/SLUG.json` | what a partner and the bridge agreed on, with a secret, 0600 |
| `idp/SLUG/BILLER.xml` | the bridge's metadata for a biller, as a partner has registered it |
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from string import Template
from types import TracebackType

from werkzeug.serving import WSGIRequestHandler, make_server

from saml_bridge.demo.partner_portals import build_providers
from saml_bridge.demo.partners import create_partners_app


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
    """Registers the bridge's metadata for a biller at a demo partner.

    The partner notices a change at the next message.
    """
    _write(instance_dir / "demo" / "idp" / partner / f"{biller}.xml", metadata)


def share_secrets(instance_dir: Path, *, bridge_url: str, keep: Callable[[str, str], None]) -> None:
    """Agrees on secrets with those demo partners that need one.

    `keep` takes each by its name, for riverton-water. Each start makes a new one: the partners keep theirs in files
    that their owner alone may read.
    """
    state_dir, biller = instance_dir / "demo", "riverton-water"
    client_secret, password = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    registration = {
        "issuer": f"{bridge_url}/oidc/{biller}",
        "name": "Riverton Water",
        "client_id": "iedr",
        "client_secret": client_secret,
    }
    account = {"username": biller, "password": password, "utility": f"{bridge_url}/ ({biller})"}
    _write(state_dir / "oidc" / "iedr.json", json.dumps(registration).encode(), mode=0o600)
    _write(state_dir / "accounts" / "itron.json", json.dumps(account).encode(), mode=0o600)
    keep("iedr-client", client_secret)
    keep("itron-service", password)


def _write(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace a file at once, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.touch(mode=mode)
    beside.write_bytes(content)
    os.replace(beside, path)


class _QuietHandler(WSGIRequestHandler):
    """The demo's terminal belongs to the list of what to open."""

    def log(self, type: str, message: str, *args: object) -> None:
        logging.getLogger("saml_bridge.demo").debug(f"{type}: {message}", *args)


class PartnersServer:
    """The partner portals, served by a thread of this process.

    A context manager; leaving it stops the server.
    """

    def __init__(
        self, instance_dir: Path, *, host: str, port: int, base_url: str | None = None, portal_url: str | None = None
    ) -> None:
        """Binds at once; raises OSError when the port is taken. `base_url` is http://HOST:PORT when left out.

        `portal_url` is the demo bill portal, which every page then leads to.
        """
        logging.getLogger("saml2").setLevel(logging.CRITICAL)  # it logs what payers are called
        self.base_url = base_url or f"http://{host}:{port}"
        app = create_partners_app(base_url=self.base_url, state_dir=instance_dir / "demo", portal_url=portal_url)
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
