"""The whole demo as its users start it: `saml-bridge demo` as a process of its own."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import pytest

from saml_bridge.cli.main import main
from tests.browser import find_port


@dataclass(frozen=True)
class Demo:
    """A running demo; `portal` and `partners` are its two origins, `folder` is where it was started."""

    portal: str
    partners: str
    folder: Path
    environ: dict[str, str]

    def run(self, *arguments: str) -> str:
        """What `saml-bridge` with these arguments prints, run beside the demo.

        It runs in this process: no walk waits for imports. Raises CalledProcessError with what it complained of.
        """
        out, err = io.StringIO(), io.StringIO()
        with ExitStack() as stack:
            stack.enter_context(chdir(self.folder))
            stack.enter_context(mock.patch.dict(os.environ, self.environ, clear=True))
            stack.enter_context(mock.patch.object(sys, "argv", ["saml-bridge", *arguments]))
            stack.enter_context(redirect_stdout(out))
            stack.enter_context(redirect_stderr(err))
            with pytest.raises(SystemExit) as ended:
                main()
        if ended.value.code:
            raise subprocess.CalledProcessError(int(ended.value.code), arguments, out.getvalue(), err.getvalue())
        return out.getvalue()

    def beside_the_service(self) -> Demo:
        """The same, with a command line that has the settings of the running service."""
        settings = {"SAML_BRIDGE_BASE_URL": self.portal, "SAML_BRIDGE_ALLOW_HTTP_ACS": "1"}
        return replace(self, environ={**self.environ, **settings})


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("whole-demo")
    port, partners_port = find_port(), find_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SAML_BRIDGE_")}
    environ["PYTHONUNBUFFERED"] = "1"
    command = [sys.executable, "-m", "saml_bridge.cli", "demo", "--port", str(port)]
    log = (folder / "demo.log").open("w+")
    process = subprocess.Popen(
        [*command, "--partners-port", str(partners_port)], cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=log
    )
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line.decode())
        if line.startswith(b"Stop"):
            break
    else:
        raise AssertionError(f"the demo did not start: {''.join(printed)} {(folder / 'demo.log').read_text()}")
    kept = {name: str(folder / "instance-demo" / below) for name, below in (("INSTANCE", ""), ("CERTS", "certs"))}
    environ |= {f"SAML_BRIDGE_{name}_DIR": path for name, path in kept.items()}
    yield Demo(f"http://localhost:{port}", f"http://127.0.0.1:{partners_port}", folder, environ)
    assert not (folder / "instance").exists(), "a demo's biller never stands in the operator's database"
    assert not (folder / "certs").exists()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    log.close()
    assert process.returncode == 0, "Ctrl-C ends the demo in order"
    assert b"Stopped." in rest
    for one in (port, partners_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", one)) != 0, f"something still listens on {one}"
