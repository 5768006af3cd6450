"""`python -m tests.bench.commands`: the CPU seconds of commands that people wait for at a terminal.

Each figure is the least of its rounds, of a process with bytecode present, user and system time together.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.world import sp_metadata

COMMANDS: dict[str, tuple[list[str], float]] = {
    "--help": (["--help"], 0.35),
    "--version": (["--version"], 0.35),
    "an unknown command": (["nothing"], 0.35),
    "an unknown option": (["launch", "--nothing"], 0.35),
    "a missing argument": (["keys", "create"], 0.35),
    "metadata check FILE": (["metadata", "check", "sp.xml"], 0.9),
    "catalog list": (["catalog", "list"], 0.9),
}
"""Arguments, and the most CPU seconds on a slow machine."""


def measure_command(arguments: list[str], folder: Path) -> float:
    """CPU seconds of one run, in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "saml_bridge.cli", *arguments]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SAML_BRIDGE_")}
    subprocess.run(command, cwd=folder, env=environ, capture_output=True, timeout=60, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Prints a line a command; the exit code is 1 when one costs more than it may."""
    parser = argparse.ArgumentParser(description="The CPU seconds of commands.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    missed = False
    print("command                  CPU s   at most")
    with tempfile.TemporaryDirectory(prefix="saml-bridge-bench-") as name:
        folder = Path(name)
        (folder / "sp.xml").write_bytes(sp_metadata())
        for label, (arguments, most) in COMMANDS.items():
            took = min(measure_command(arguments, folder) for _ in range(rounds + 1))
            missed |= took > most
            print(f"{label:<22} {took:7.3f} {most:9.2f}{'  MISSED' if took > most else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
