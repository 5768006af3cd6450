"""A server on this machine that gives metadata away, well or badly, for tests of what is fetched.

`metadata_server` has an answer for each path; it counts what it was asked and knows ETags.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Served:
    """One answer. `with_etag` adds one made of the content; `stalls` sends a part and then nothing until the end."""

    content: bytes
    status: int = 200
    content_type: str = "application/samlmetadata+xml"
    with_etag: bool = True
    location: str | None = None
    stalls: bool = False


@dataclass
class MetadataServer:
    """What it serves, by path, and the requests that came: path and the headers that matter."""

    origin: str = ""
    answers: dict[str, Served] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def serve(self, path: str, content: bytes, **more: Any) -> str:
        """Serve this from now on; gives the URL."""
        self.answers[path] = Served(content, **more)
        return self.origin + path

    def headers(self, name: str) -> list[str | None]:
        """A header of every request that came."""
        return [headers.get(name) for _, headers in self.asked]


def _make_handler(served: MetadataServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append((self.path, dict(self.headers)))
            answer = served.answers.get(self.path, Served(b"nothing here", status=404, with_etag=False))
            etag = f'"{hashlib.sha256(answer.content).hexdigest()[:16]}"' if answer.with_etag else None
            status = 304 if etag is not None and self.headers.get("If-None-Match") == etag else answer.status
            served.statuses.append(status)
            self.send_response(status)
            self.send_header("Content-Type", answer.content_type)
            if etag:
                self.send_header("ETag", etag)
            if answer.location:
                self.send_header("Location", answer.location)
            body = b"" if status == 304 else answer.content
            if status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if answer.stalls:
                self.wfile.write(body[:10])
                self.wfile.flush()
                served.ended.wait(20)
            else:
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def metadata_server() -> Iterator[MetadataServer]:
    served = MetadataServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(served))
    served.origin = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield served
    served.ended.set()
    server.shutdown()
    thread.join()
    server.server_close()
