"""The links that a payer sees, and which of them would launch now.

Owns: which links are shown for a session, and the question whether each would launch. Does not own: the launch
(`launch`), languages and addresses (`web.portal.api`). Called by: the portal's calls, the demo portal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.flows.launch.launch import check_biller, check_launch
from saml_bridge.mapping.conditions import compile_condition
from saml_bridge.model.document import Biller, Link
from saml_bridge.model.errors import BridgeError
from saml_bridge.model.values import JsonObject, PortalSession

MOST_ACCOUNTS: Final = 20
"""Accounts that a link is tried with before it counts as one that launches."""

_compile = lru_cache(maxsize=4096)(compile_condition)


@dataclass(frozen=True, slots=True)
class ShownLink:
    """A link that the payer sees.

    `refusal` says why it would not launch now; None when it would.
    """

    link: Link
    refusal: BridgeError | None = None


def list_visible_links(biller: Biller, session: PortalSession) -> tuple[Link, ...]:
    """The links that are shown, in order.

    They are enabled, and visible for the selected account, or for any while none is selected.
    """
    return tuple(link for link in biller.links if link.enabled and _list_accounts(link, session))


def list_links(snapshot: Snapshot, session: PortalSession, *, now: datetime) -> tuple[ShownLink, ...]:
    """The links that are shown, each with why it would not launch now.

    Where no account is selected, a link launches when it does for any account that it is visible for. Raises
    LaunchRefused (`session-of-other-biller`).
    """
    check_biller(session, snapshot)
    shown = list_visible_links(snapshot.biller, session)
    return tuple(ShownLink(link, _find_refusal(snapshot, link, session, now)) for link in shown)


def _list_accounts(link: Link, session: PortalSession) -> tuple[JsonObject | None, ...]:
    """The accounts that a link may be launched for: those that it is visible for; None for a payer without any."""
    selected = session.find_account(session.selected_account) if session.selected_account else None
    accounts: tuple[JsonObject | None, ...] = session.accounts or (None,)
    if selected is not None:
        accounts = (selected,)
    if link.visible_when is None:
        return accounts
    holds = _compile(link.visible_when)
    return tuple(account for account in accounts if holds(session, account))


def _find_refusal(snapshot: Snapshot, link: Link, session: PortalSession, now: datetime) -> BridgeError | None:
    accounts = _list_accounts(link, session)
    first: BridgeError | None = None
    for account in accounts[:MOST_ACCOUNTS]:
        try:
            check_launch(snapshot, link.slug, session, account=account, now=now)
        except BridgeError as error:
            first = first or error
        else:
            return None
    return first if len(accounts) <= MOST_ACCOUNTS else None
