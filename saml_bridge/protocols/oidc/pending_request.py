"""An authorization request while it is answered, and the portal sessions that meet it.

Owns: the request in a form that can wait for the payer's sign-in, with the launch that it was started by, if any; the
refusals that its rules lead to. Does not own: reading a request (`authorization_request`), who is signed in, and the
answer (`receiver`). Called by the sign-on (`flows.sign_on.oidc`), the launch and the receiver.

Specification: OpenID Connect Core 1.0, 3.1.2.1, 3.1.2.3 and 5.5.1.1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from saml_bridge.mapping.fields import build_document, parse_session
from saml_bridge.model.comparisons import show
from saml_bridge.model.errors import AuthorizationRefused
from saml_bridge.model.values import PortalSession
from saml_bridge.protocols.auth_contexts import UNSPECIFIED, list_contexts
from saml_bridge.protocols.interface import NO_OVERRIDES, Hint, Needs, Overrides
from saml_bridge.protocols.oidc.authorization_request import AuthorizationRequest, RequestedClaims, ReturnPlace
from saml_bridge.protocols.saml.pending_request import CLOCKS_APART


@dataclass(frozen=True, slots=True)
class PendingOidcRequest:
    """`received_at` is aware UTC.

    `subject` is the only `sub` that the answer may be about, None for any.

    `hint` is the launch that brought the payer to the partner. `sent_to_sign_in` and `auth_time_before` as in SAML's
    `PendingSamlRequest`.
    """

    request: AuthorizationRequest
    received_at: datetime
    subject: str | None = None
    hint: Hint | None = None
    sent_to_sign_in: bool = False
    auth_time_before: datetime | None = None

    def to_json(self) -> str:
        """Text that `from_json` reads.

        Of the ID token that came as a hint the `subject` is left.
        """
        stored = {
            "request": asdict(replace(self.request, id_token_hint=None)),
            "received_at": self.received_at.isoformat(),
            "subject": self.subject,
            "hint": None if self.hint is None else dump_hint(self.hint),
            "sent_to_sign_in": self.sent_to_sign_in,
            "auth_time_before": self.auth_time_before and self.auth_time_before.isoformat(),
        }
        return json.dumps(stored)

    @property
    def session_length(self) -> int:
        """The launch that brought the payer has their portal session, with every account."""
        return 0 if self.hint is None else len(json.dumps(dump_hint(self.hint)))

    @classmethod
    def from_json(cls, text: str) -> PendingOidcRequest:
        """The request that `to_json` wrote."""
        stored = json.loads(text)
        for name in ("received_at", "auth_time_before"):
            stored[name] = stored[name] and datetime.fromisoformat(stored[name])
        stored["request"] = _load_request(stored["request"])
        stored["hint"] = stored["hint"] and load_hint(stored["hint"])
        return cls(**stored)

    @property
    def overrides(self) -> Overrides:
        """Nothing of a request changes how the partner is compiled."""
        return NO_OVERRIDES

    @property
    def is_passive(self) -> bool:
        """prompt=none."""
        return "none" in self.request.prompt

    @property
    def force_authn(self) -> bool:
        """The portal asks a payer who is not signed in for a password.

        It does so even where it knows the payer.
        """
        return self._wants_sign_in or self.request.max_age is not None

    @property
    def _wants_sign_in(self) -> bool:
        """prompt=login, or max_age=0, which says the same.

        prompt=select_account, too: at a new sign-in another payer can be chosen.
        """
        return not {"login", "select_account"}.isdisjoint(self.request.prompt) or self.request.max_age == 0

    def find_resume_path(self, biller: str) -> str:
        """The path of the authorization endpoint."""
        return f"/oidc/{biller}/authorize"

    def record_sign_in(self, auth_time: datetime | None) -> PendingOidcRequest:
        """The request of a payer who is sent to the portal's sign-in; `auth_time` as `auth_time_before`."""
        return replace(self, sent_to_sign_in=True, auth_time_before=auth_time)

    def needs_sign_in(self, session: PortalSession) -> bool:
        """The payer must have signed in since the request, as with SAML's ForceAuthn.

        With `max_age` a sign-in at most that many seconds before the request does.
        """
        max_age = self.request.max_age
        is_recent = max_age is None or session.auth_time >= self.received_at - timedelta(seconds=max_age)
        if is_recent and not self._wants_sign_in:
            return False
        moved = self.auth_time_before is None or session.auth_time > self.auth_time_before
        return not (self.sent_to_sign_in and moved and session.auth_time >= self.received_at - CLOCKS_APART)

    def check_session(self, session: PortalSession) -> None:
        """An `acr` that is essential must be met. Raises AuthorizationRefused (Core 5.5.1.1).

        The error is that of OpenID Connect Core Error Code unmet_authentication_requirements 1.0.
        """
        wanted, had = self.request.claims.acr, _list_acr(session)
        if wanted and not set(wanted).intersection(had):
            asked = ", or ".join(map(show, wanted))
            detail = f"the portal's sign-in (amr) bears out {', '.join(had) or 'no acr'}; the request asks for {asked}"
            raise AuthorizationRefused(
                detail, error="unmet_authentication_requirements", code="no-authn-context", description=_UNMET
            )

    def find_acr(self, session: PortalSession) -> str | None:
        """The `acr` to state, one of those that the session bears out.

        It is the first that is asked for, else the first.
        """
        had = _list_acr(session)
        asked = (*self.request.claims.acr, *self.request.acr_values)
        return next((one for one in asked if one in had), next(iter(had), None))

    def check_subject(self, subject: str) -> None:
        """Checks that the payer who is signed in is the one whom the request names.

        Raises AuthorizationRefused (Core 3.1.2.1).
        """
        if self.subject is not None and self.subject != subject:
            detail = "the request names another subject than the payer who is signed in"
            raise AuthorizationRefused(
                detail, error="login_required", code="unknown-principal", description="another end-user is signed in"
            )

    def refuse_passive(self, why: str, needs: Needs) -> AuthorizationRefused:
        """login_required, or interaction_required for what is no sign-in (Core 3.1.2.6)."""
        error = "login_required" if needs == "sign_in" else "interaction_required"
        return AuthorizationRefused(why, error=error, code="no-passive", description=_PASSIVE[needs])

    def refuse_old_sign_in(self) -> AuthorizationRefused:
        """login_required: prompt=login or max_age is not met (Core 3.1.2.1)."""
        detail = "the request asks for a new sign-in, and the payer came back with the old one"
        return AuthorizationRefused(
            detail, error="login_required", code="sign-in-not-new", description="the end-user did not sign in anew"
        )


_UNMET = "the sign-in is of none of the classes that are essential"
_PASSIVE = {
    "sign_in": "the end-user must sign in, and prompt is none",
    "choice": "the end-user must choose an account, and prompt is none",
}


def _list_acr(session: PortalSession) -> tuple[str, ...]:
    """The authentication context classes that the portal bears out, named as in SAML."""
    return tuple(one for one in list_contexts(session.amr) if one != UNSPECIFIED)


def dump_hint(hint: Hint) -> dict[str, Any]:
    """A hint as JSON that `load_hint` reads."""
    return {
        "biller": hint.biller,
        "link": hint.link,
        "session": build_document(hint.session),
        "account": hint.account,
        "callback": hint.callback,
        "vouched": hint.sent_by_portal,
    }


def load_hint(stored: Mapping[str, Any]) -> Hint:
    """The hint that `dump_hint` wrote."""
    return Hint(
        biller=stored["biller"],
        link=stored["link"],
        session=parse_session(stored["session"]),
        account=stored["account"],
        callback=stored["callback"],
        sent_by_portal=stored["vouched"],
    )


def _load_request(stored: Mapping[str, Any]) -> AuthorizationRequest:
    claims: dict[str, Any] = {
        name: tuple(one) if isinstance(one, list) else one for name, one in stored["claims"].items()
    }
    found = {
        **stored,
        "place": ReturnPlace(**stored["place"]),
        "claims": RequestedClaims(**claims),
        "scope": tuple(stored["scope"]),
        "prompt": tuple(stored["prompt"]),
        "acr_values": tuple(stored.get("acr_values", ())),
    }
    return AuthorizationRequest(**found)
