"""The built-in schedule: a thread of the service that looks after fetched metadata.

Owns: the thread. Does not own: which metadata is due, and that one process at a time does the work
(`billers.partner_metadata.refresh`). Called by: `wiring.create_served_app` alone.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections import Counter
from datetime import timedelta

import structlog

from saml_bridge.billers.partner_metadata.refresh import Refresher
from saml_bridge.model.error_logging import trace_fault
from saml_bridge.model.errors import BridgeError

log = structlog.get_logger()


class RefreshSchedule:
    """A thread that looks at intervals for metadata that is due.

    It ends with the process. Every process of the service has one; the lease lets one of them do the work. It logs one
    line a run, and none of its errors takes the service down.
    """

    def __init__(self, refresher: Refresher, *, every: timedelta, first: timedelta = timedelta(seconds=30)) -> None:
        self._refresher = refresher
        self._every = every
        self._first = first
        self._holder = f"{socket.gethostname()[:40]} {secrets.token_hex(8)}"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metadata refresh", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the run that is under way come to its end, and no other begin."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        wait = self._first
        while not self._stopped.wait(wait.total_seconds()):
            self.run_once()
            wait = self._every

    def run_once(self) -> None:
        """One run. Another process being at it is no run, and not worth a line."""
        try:
            done = self._refresher.run_due(self._holder)
        except BridgeError as error:
            log.error("metadata-refresh", code=error.code, detail=error.diagnosis())
        except Exception as error:  # noqa: BLE001 of a thread nobody else would hear
            log.error("metadata-refresh", code="internal", traceback=trace_fault(error))
        else:
            if done is not None:
                failed = [f"{one.biller}/{one.partner}: {one.outcome}" for one in done if one.failed]
                counts = Counter(one.outcome for one in done if not one.failed)
                log.info("metadata-refresh", asked=len(done), failed=failed, **counts)
