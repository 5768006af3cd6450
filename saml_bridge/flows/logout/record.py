"""The records of logouts: audit entries, abandoned logouts, the log's line for a partner.

Owns: how a refusal, an end and an abandoned logout are recorded; of two that end one logout, one records it.
Does not own: the tables (`storage.audit`, `storage.logouts`), and the states (`progress`). Called by `sign_out`,
`kept_logouts`, `server_calls`, `browser_steps` and `end_session`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog

from saml_bridge.flows.logout.progress import NOTIFIED, NotifyOutcome, Progress
from saml_bridge.model.errors import DATABASE_FAILURES, BridgeError
from saml_bridge.model.values import TraceId
from saml_bridge.storage.audit import AuditTrail, Entry, Kind
from saml_bridge.storage.logouts import Logouts

PARTIAL: Final = "partial-logout"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LogoutRecord:
    """The writer of logouts' records. `clock` gives aware UTC times."""

    audit: AuditTrail
    logouts: Logouts
    clock: Callable[[], datetime]

    @contextmanager
    def recording(self, biller: str, trace_id: TraceId) -> Iterator[dict[str, str]]:
        """Records what the block refuses, and raises it again.

        The block may put `partner` (a slug) into the dictionary, which then stands in the record.
        """
        known: dict[str, str] = {}
        try:
            yield known
        except DATABASE_FAILURES:
            raise
        except BridgeError as error:
            self._record_refusal(biller, trace_id, error.code, error.diagnosis(), **known)
            raise

    def record_refusal(
        self, biller: str, trace_id: TraceId, code: str, detail: str, *, partner: str | None = None
    ) -> None:
        """Records and logs a request that is answered, but not acted on. Raises NotRecorded."""
        self._record_refusal(biller, trace_id, code, detail, partner=partner)
        log.warning("logout-refused", trace_id=trace_id, biller=biller, partner=partner, code=code, detail=detail)

    def record_end(self, biller: str, token: str, ended: Progress, *, version: int, revision: int | None) -> bool:
        """Saves a logout's end and records it, in one transaction.

        False when another change than `version` came first. Raises NotRecorded, DatabaseUnavailable.
        """
        entry = self._describe_end(biller, ended, revision=revision)
        return self.logouts.end(
            token=token,
            version=version,
            state=ended.to_json(),
            record=lambda transaction: self.audit.record_within(transaction, [entry]),
        )

    def record_abandoned(self, *, now: datetime, most: int) -> None:
        """Records up to `most` logouts whose pages were closed before their end, and removes them."""
        self.logouts.consume_abandoned(
            now=now,
            most=most,
            record=lambda transaction, biller, state: self.audit.record_within(
                transaction, self._describe_abandoned(biller, state)
            ),
        )

    def _describe_abandoned(self, biller: str, state: Any) -> list[Entry]:
        try:
            progress = Progress.from_json(state)
        except (TypeError, KeyError, ValueError) as error:  # another version's: it must not stop every new logout
            log.error("logout-unreadable", biller=biller, detail=type(error).__name__)
            return []
        return [] if progress.ended else [self._describe_end(biller, progress.end(), revision=None)]

    def _describe_end(self, biller: str, ended: Progress, *, revision: int | None) -> Entry:
        return Entry(
            kind=Kind.LOGOUT_DONE,
            at=self.clock(),
            trace_id=TraceId(ended.trace_id),
            biller=biller,
            partner=ended.partner_request.partner if ended.partner_request else None,
            revision=revision,
            payer=ended.payer,
            code="" if ended.is_complete else PARTIAL,
            detail=ended.describe(),
        )

    def _record_refusal(
        self, biller: str, trace_id: TraceId, code: str, detail: str, *, partner: str | None = None
    ) -> None:
        self.audit.record(
            Entry(
                kind=Kind.LOGOUT_REFUSED,
                at=self.clock(),
                trace_id=trace_id,
                biller=biller,
                partner=partner,
                code=code,
                detail=detail,
            )
        )


def log_outcome(biller: str, progress: Progress, notified: str, outcome: NotifyOutcome) -> None:
    """Logs why `notified` (a partner's slug, or `portal`) failed, or what its answer lacks."""
    if outcome == NOTIFIED:
        return
    log.log(
        logging.WARNING if outcome.code else logging.INFO,
        "logout-told",
        trace_id=progress.trace_id,
        biller=biller,
        partner=notified,
        code=outcome.code,
        detail=outcome.reason,
    )
