"""A program that starts fresh processes of the service, each of which is used by many threads at once first of all.

`python -m tests.first_use FILE`, where FILE says what to do as JSON: `environment` (settings of an installation),
`cookie` (the portal's token of a payer), `processes`, `threads`. It prints a line of JSON: what was answered, with how
often. Everything is imported and the application made once, and then forked, so that a process costs neither. That
the imports built nothing is checked. Only forked processes get requests, so each is as good as a new one.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Flask

import saml_bridge
from saml_bridge.app.settings import Settings
from saml_bridge.app.wiring import create_app
from saml_bridge.model.built_once import BuiltOnce
from saml_bridge.storage.database import find_database
from tests.requester import encode_redirect, make_request
from tests.world import BASE_URL, BILLER

_CACHE = type(lru_cache(ord))


def import_everything() -> None:
    for module in pkgutil.walk_packages(saml_bridge.__path__, "saml_bridge."):
        if ".migrations." not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def list_built() -> list[str]:
    """The caches of our modules that hold anything."""
    return [
        f"{name}.{attribute}"
        for name, module in list(sys.modules.items())
        if name.startswith("saml_bridge")
        for attribute, value in vars(module).items()
        if (isinstance(value, _CACHE) and value.__module__ == name and value.cache_info().currsize)
        or (isinstance(value, BuiltOnce) and value.count)
    ]


def ask(client: Any, number: int) -> str:
    """One launch or sign-on; in words how it was answered."""
    path = f"/launch/{BILLER}/usage"
    if number % 2:
        path = f"/saml/{BILLER}/sso?{encode_redirect(make_request(), key=None)}"
    answer = client.get(path, base_url=BASE_URL)
    return "answered" if answer.status_code == 200 and "SAMLResponse" in answer.text else f"{answer.status_code}"


def use(app: Flask, order: dict[str, Any]) -> Iterator[str]:
    """What each thread of a process of the service was answered, all at its very first request."""
    barrier, ends = threading.Barrier(order["threads"]), [""] * order["threads"]

    def run(number: int) -> None:
        client = app.test_client()
        client.set_cookie("portal_session", order["cookie"], domain="sso.example.com")
        barrier.wait()
        try:
            ends[number] = ask(client, number)
        except Exception as error:  # noqa: BLE001 it is what is told
            ends[number] = repr(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(ends))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield from ends


def fork(app: Flask, order: dict[str, Any]) -> list[str]:
    """What the threads of a fresh process were answered; or how it ended, if it did not come so far."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as out:
            json.dump(list(use(app, order)), out)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        told = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ends: list[str] = json.loads(told) if status == 0 else [f"the process ended with {status}"]
    return ends


def main() -> None:
    order = json.loads(Path(sys.argv[1]).read_text())
    import_everything()
    if found := list_built():
        raise SystemExit(f"built before the first use: {found}")
    app = create_app(Settings.from_env(order["environment"]))
    find_database(app).dispose()  # a connection does not survive a fork
    print(json.dumps(Counter(end for _ in range(order["processes"]) for end in fork(app, order))))


if __name__ == "__main__":
    main()
