"""The Makefile: which Python makes the environment, what is said meanwhile, and what `make clean` leaves."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def make_python(folder: Path, version: str, *, venv: bool) -> Path:
    """A stand-in that says its version and writes down what it is asked to make."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python3.11"
    path.write_text(
        f"""#!/bin/sh
case "$*" in
  *version_info*) [ "{version}" = 3.11 ] ;;
  *ensurepip*) {"true" if venv else "false"} ;;
  --version) echo "Python {version}.0" ;;
  "-m venv "*) echo "$0" > "$3.made" ;;
esac
"""
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def run(tmp_path: Path, python: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "tools" / "make-venv"), python, str(tmp_path / "venv")]
    environ = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_the_python_that_is_named_is_taken_and_told(tmp_path: Path) -> None:
    named = make_python(tmp_path / "named", "3.11", venv=True)
    done = run(tmp_path, str(named), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Making {tmp_path / 'venv'} with {named} (Python 3.11.0).\n"
    assert (tmp_path / "venv.made").read_text() == f"{named}\n"


def test_another_version_is_refused_with_what_to_say(tmp_path: Path) -> None:
    named = make_python(tmp_path / "named", "3.12", venv=True)
    done = run(tmp_path, str(named), tmp_path)
    assert done.returncode == 1
    assert "is Python 3.12.0. Say which: make PYTHON=/path/to/python3.11" in done.stderr
    assert not (tmp_path / "venv.made").exists()


def test_left_open_the_systems_own_is_taken_before_another_of_the_path(tmp_path: Path) -> None:
    """Debian builds its Python with optimisations that version managers leave out."""
    own = Path("/usr/bin/python3.11")
    other = make_python(tmp_path / "path", "3.11", venv=True)
    check = [str(own), "-c", "import ensurepip, venv"]
    usable = own.exists() and subprocess.run(check, capture_output=True, check=False).returncode == 0
    expected = own if usable else other
    done = run(tmp_path, "", other.parent)
    assert done.returncode == 0, done.stderr
    assert f" with {expected} (" in done.stdout


@pytest.mark.parametrize("target", ["demo", "test"])
def test_it_is_said_what_takes_its_time(target: str) -> None:
    command = ["make", "--dry-run", "--always-make", target]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    for step in said.split("pip --disable-pip-version-check --quiet install --require-hashes")[:-1]:
        assert "Installing what saml_bridge" in step.splitlines()[-2] + step.splitlines()[-1]


def test_make_clean_leaves_keys_and_data() -> None:
    command = ["make", "--dry-run", "clean"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    removed = set(said.split())
    assert ".venv" in removed
    assert not removed & {"instance", "instance/", "instance-demo", "instance-demo/", "certs", "certs/"}
