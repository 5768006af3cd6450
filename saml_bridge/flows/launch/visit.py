"""A visit: one request of a browser to an address of ours, as a value.

Owns: what a visit carries from the edge to the flows. Does not own: reading it from HTTP (`web.visit`), any decision.
Called by every flow that a browser starts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from saml_bridge.model.values import Credentials, TraceId

NO_CREDENTIALS = Credentials()


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a browser to a biller's address.

    `account`, `callback` and `link` stand in the address; `link` is good for an offer, never for a decision.
    `remembered` is the token of an account that was chosen earlier in this portal session. `browser` is the cookie that
    waiting requests are bound to, None without one. `chosen` says that the payer has just picked `account` on a page of
    ours, `returned` that the portal's sign-in sent the payer back. `is_cross_site` says that another site started the
    request, `is_background` that no person sees the answer: a frame, a picture, a script, a prefetch.
    `sent_by_portal` says that the portal sent the session with this request, so that it is asked for nowhere else.
    """

    biller: str
    trace_id: TraceId
    credentials: Credentials = NO_CREDENTIALS
    account: str | None = None
    callback: str | None = None
    link: str | None = None
    remembered: str | None = None
    browser: str | None = None
    chosen: bool = False
    returned: bool = False
    is_cross_site: bool = False
    is_background: bool = False
    sent_by_portal: bool = False

    def without_choices(self) -> Visit:
        """The visit that brings a new request of a partner.

        What its address says beside the message counts for nothing: only pages of ours lead to an address that says
        more.
        """
        return replace(self, account=None, chosen=False, returned=False, link=None)


NOT_A_PAGE = "launch-not-a-page"
"""The code of a refusal to answer where no person looks."""

IN_BACKGROUND = "asked for by a frame, a picture, a script or a prefetch"
