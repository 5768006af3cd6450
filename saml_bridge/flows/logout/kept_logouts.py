"""The logouts under way, kept between two requests of one exchange.

Owns: the token and the lifetime of a logout, changes that come at once, its end. Does not own: the states (`progress`),
the table (`storage.logouts`), what is recorded (`record`). Called by `sign_out`, `server_calls` and `browser_steps`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.flows.logout.channels import PartnerChannels
from saml_bridge.flows.logout.progress import Progress, Step
from saml_bridge.flows.logout.record import LogoutRecord
from saml_bridge.model.errors import DatabaseUnavailable, LogoutUnknown
from saml_bridge.storage.logouts import Logouts

WAIT: Final = timedelta(minutes=15)
"""The longest time that a logout may take in the browser."""

_ATTEMPTS: Final = 50


@dataclass(frozen=True, slots=True)
class KeptLogout:
    """One logout, kept under `token`, with the channels to its partners."""

    channels: PartnerChannels
    token: str
    progress: Progress

    @property
    def biller(self) -> str:
        """The biller's slug."""
        return self.channels.biller

    @property
    def snapshot(self) -> Snapshot:
        """The revision that this request goes by."""
        return self.channels.snapshot

    def after(self, progress: Progress) -> KeptLogout:
        """The same logout, as far as `progress` has come."""
        return replace(self, progress=progress)


@dataclass(frozen=True, slots=True)
class KeptLogouts:
    """The logouts of one database. `clock` gives aware UTC times, `random_bytes` unpredictable bytes."""

    logouts: Logouts
    record: LogoutRecord
    clock: Callable[[], datetime]
    random_bytes: Callable[[int], bytes]

    def open(self, channels: PartnerChannels, progress: Progress, *, now: datetime) -> KeptLogout:
        """Saves a new logout, and lets partners' answers find it."""
        token = self.random_bytes(32).hex()
        self.logouts.open(token=token, biller=channels.biller, state=progress.to_json(), now=now, until=now + WAIT)
        logout = KeptLogout(channels, token, progress)
        for leg in progress.legs:
            if leg.step is Step.WAITING and not leg.silent:
                self.expect_answer(logout, leg.request_id)
        return logout

    def find(self, channels: PartnerChannels, token: str) -> KeptLogout:
        """The logout of this biller under `token`. Raises LogoutUnknown."""
        progress, _ = self._read(channels.biller, token)
        return KeptLogout(channels, token, progress)

    def find_by_request(self, channels: PartnerChannels, request_id: str) -> KeptLogout | None:
        """The logout that a request of ours to a partner belongs to.

        Raises LogoutUnknown for a logout that is over.
        """
        token = self.logouts.find_by_request(request_id=request_id, biller=channels.biller, now=self.clock())
        return None if token is None else self.find(channels, token)

    def expect_answer(self, logout: KeptLogout, request_id: str) -> None:
        """Lets an answer to this request find its logout."""
        until = self.clock() + WAIT
        self.logouts.save_request(request_id=request_id, of=logout.token, biller=logout.biller, until=until)

    def change(self, logout: KeptLogout, change: Callable[[Progress], Progress]) -> KeptLogout:
        """Applies one event to the saved state, after those that came first.

        Raises DatabaseUnavailable when others change it again and again.
        """
        for _ in range(_ATTEMPTS):
            progress, version = self._read(logout.biller, logout.token)
            changed = change(progress)
            if changed == progress or self.logouts.write(token=logout.token, version=version, state=changed.to_json()):
                return logout.after(changed)
        raise DatabaseUnavailable("one logout was changed again and again by others")

    def end(self, logout: KeptLogout) -> Progress:
        """Ends and records a logout, in one transaction.

        Of several that try at once, one does. Raises NotRecorded, DatabaseUnavailable.
        """
        for _ in range(_ATTEMPTS):
            progress, version = self._read(logout.biller, logout.token)
            if progress.ended:
                return progress
            ended, revision = progress.end(), logout.snapshot.revision
            if self.record.record_end(logout.biller, logout.token, ended, version=version, revision=revision):
                return ended
        raise DatabaseUnavailable("one logout was changed again and again while it ended")

    def _read(self, biller: str, token: str) -> tuple[Progress, int]:
        found = self.logouts.read(token=token, biller=biller, now=self.clock())
        if found is None:
            raise LogoutUnknown("no logout of this biller is under way under this token")
        return Progress.from_json(found[0]), found[1]
