"""The one tree of errors. Standard library only.

Each error has a stable `code` for machines, an `http_status`, a `public_message` that is safe for the payer (the
English original of a translated text) and a `detail` that is only for the log, the audit trail and the command line.
Errors that come from a check carry its findings.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import ClassVar, Final

from saml_bridge.model.values import Finding

FIX: Final = "Fix:"
"""What a fix begins with in a reason."""


class BridgeError(Exception):
    """Base of every error that this project raises on purpose."""

    code: str = "internal"
    http_status: ClassVar[int] = 500
    public_message: ClassVar[str] = "Something went wrong on our side."

    def __init__(self, detail: str = "", *, code: str | None = None, findings: Iterable[Finding] = ()) -> None:
        super().__init__(detail or self.public_message)
        self.detail = detail
        self.findings = tuple(findings)
        if code is not None:
            self.code = code

    @property
    def passes(self) -> bool:
        """True for an error after which the same request may succeed in a moment."""
        return self.http_status == 503

    def diagnosis(self) -> str:
        """The whole reason, for the log and the audit trail.

        It is the detail, and each finding with its fix. A message that stands in the detail is not said again; a fix
        begins with FIX.
        """
        said = [self.detail]
        for one in self.findings:
            said.append("" if one.message in self.detail else f"[{one.code}] {one.message}")
            said.append(f"{FIX} {one.fix}" if one.fix else "")
        return " ".join(part for part in dict.fromkeys(said) if part)


class Fault(BridgeError):
    """An exception that nobody foresaw, which is the `__cause__`.

    `detail` names its type and place, never its text.
    `is_recorded` says that a record of it stands in the audit trail already.
    """

    code = "fault"
    is_recorded: bool = False

    @property
    def passes(self) -> bool:
        """Nobody knows, and it costs nothing to try."""
        return True


def explain_fault(raised: Exception) -> BridgeError:
    """The exception itself if it is a BridgeError, else the Fault for it."""
    if isinstance(raised, BridgeError):
        return raised
    places = [(frame.f_globals.get("__name__", ""), line) for frame, line in traceback.walk_tb(raised.__traceback__)]
    own = [place for place in places if place[0].startswith("saml_bridge")]
    module, line = (own or places or [("nowhere", 0)])[-1]
    fault = Fault(f"{type(raised).__name__} at {module}, line {line}")
    fault.__cause__ = raised
    return fault


class SettingsInvalid(BridgeError):
    """The environment does not make a working service; `findings` name every variable at fault."""

    code = "settings-invalid"


class KeyRefused(BridgeError):
    """A key file is missing, readable by others, broken or too weak."""

    code = "key-refused"


class ConfigInvalid(BridgeError):
    """A configuration document breaks its schema; `findings` name every place."""

    code = "config-invalid"
    http_status = 422
    public_message = "The configuration has errors."


class ConfigConflict(BridgeError):
    """Another revision was published after the one that this change is based on."""

    code = "config-conflict"
    http_status = 409
    public_message = "Somebody else published a change in the meantime."


class XmlRefused(BridgeError):
    """XML that is read no further: malformed, with a document type, too deep, too large."""

    code = "xml-refused"
    http_status = 400
    public_message = "The XML document cannot be accepted."


class SignatureRefused(BridgeError):
    """A signature that covers too little, uses a forbidden algorithm or does not verify."""

    code = "signature-refused"
    http_status = 400
    public_message = "The signature cannot be accepted."


class MetadataRefused(BridgeError):
    """Partner metadata with at least one finding that refuses."""

    code = "metadata-refused"
    http_status = 422
    public_message = "The metadata cannot be accepted."


class RequestRefused(BridgeError):
    """A partner's message that must neither be acted on nor answered at the partner.

    The payer gets a page that says so in plain words; the `code` and `detail` are for the log and the audit trail.
    """

    code = "request-refused"
    http_status = 400
    public_message = (
        "We could not read the other website's request to sign you in. Please start again from your bill portal."
    )


class SignOnOver(RequestRefused):
    """A partner's request that is used, expired or another browser's.

    `partner` is the slug of the one that it came from, where that is known.
    """

    partner: str | None = None
    code = "sign-on-not-waiting"
    public_message = "This address works once, and only for a short time. Please start again from your bill portal."


class LogoutRefused(RequestRefused):
    """A sign-out that was asked for in a way that is not accepted."""

    code = "logout-refused"
    public_message = (
        "We could not read the other website's request to sign you out. To be sure, close all windows of your browser."
    )


class LogoutUnasked(LogoutRefused):
    """A sign-out without a payer's wish: by a frame, a prefetch, another site's form."""

    code = "logout-unasked"
    http_status = 403
    public_message = "Please sign out in your bill portal."


class FetchRefused(BridgeError):
    """A fetch from another server that failed.

    The fault is its address, its connection or its answer.
    `sent` says that the request may have reached the server, `status` is its answer, if that is the matter.
    `fix` is the end of the detail that says what to do.
    """

    code = "fetch-refused"
    http_status = 502
    public_message = "Another server could not be reached."
    sent: bool = True
    status: int | None = None
    fix: str = ""


class HeadersTooLarge(BridgeError):
    """A request with too large headers; mostly a browser with many cookies of a site."""

    code = "headers-too-large"
    http_status = 431
    public_message = (
        "Your browser sends more than we can read. Please delete the cookies of your bill portal, "
        "and sign in there again."
    )


class NotFound(BridgeError):
    """Unknown, disabled, or another biller's: the payer is told the same."""

    code = "not-found"
    http_status = 404
    public_message = "We could not find that link."


class BillerUnknown(NotFound):
    """`slug` is what was asked for."""

    code = "biller-unknown"

    def __init__(self, slug: str) -> None:
        super().__init__(f"there is no biller {slug[:100]!r}")
        self.slug = slug


class LogoutUnknown(NotFound):
    """A sign-out of this address is not under way, or no longer."""

    code = "logout-unknown"
    public_message = "This sign-out is over."


class LinkUnknown(NotFound):
    code = "link-unknown"


class LinkDisabled(NotFound):
    code = "link-disabled"


class LinkHidden(NotFound):
    """`visible_when` does not hold for this account."""

    code = "link-hidden"


class SessionAbsent(BridgeError):
    """A visit without a session at the portal: the payer goes to its sign-in.

    Also raised for a credential that is expired, forged or malformed; `code` and `detail` keep the reason.
    """

    code = "session-absent"
    http_status = 401
    public_message = "Please sign in first."


class SessionEnded(SessionAbsent):
    """A session that a sign-out has ended, though its source still tells of it.

    A new one is needed.
    """

    code = "session-ended"


class SourceUnavailable(BridgeError):
    """The session source cannot answer now."""

    code = "source-unavailable"
    http_status = 503
    public_message = "We cannot reach your bill portal right now. Please try again in a moment."


class LaunchRefused(BridgeError):
    """A launch that must not go on.

    `code` and `findings` keep the reason; the payer gets nothing of it.
    """

    code = "launch-refused"
    http_status = 403
    public_message = "We could not open this page for you."


class StatusRefused(LaunchRefused):
    """A partner's sign-on that is refused in the partner's own protocol.

    `status` and `sub_status` are SAML status codes (SAML 2.0 Core 3.2.2.2).
    """

    code = "status-refused"

    def __init__(self, detail: str, *, code: str, status: str, sub_status: str) -> None:
        super().__init__(detail, code=code)
        self.status = status
        self.sub_status = sub_status


class AuthorizationRefused(LaunchRefused):
    """A relying party's authorization that is refused at its redirect URI.

    `error` is the name of RFC 6749 (4.1.2.1) or OpenID Connect Core (3.1.2.6); `detail` is for the log alone, and
    `description` is what the relying party's developers read: never anything of the payer.
    """

    code = "authorization-refused"

    def __init__(self, detail: str, *, error: str, code: str | None = None, description: str | None = None) -> None:
        super().__init__(detail, code=code)
        self.error = error
        self.description = description


class ClientRefused(BridgeError):
    """A relying party's own request that is answered with an error of the RFCs.

    It is a request for a token or for UserInfo, or a pushed request. `error` is the name of RFC 6749 (5.2), RFC 6750
    (3.1) or RFC 9126 (2.3). `description` is what the caller is told where that is less than the detail.
    """

    code = "client-refused"
    http_status = 400
    public_message = "The request is not accepted."

    def __init__(
        self,
        detail: str,
        *,
        error: str,
        status: int = 400,
        code: str | None = None,
        description: str | None = None,
    ) -> None:
        super().__init__(detail, code=code)
        self.error = error
        self.status = status
        self.description = detail if description is None else description


class MappingRefused(LaunchRefused):
    """Required rules that found nothing (`mapping-required`) or a transform that failed (`mapping-transform`).

    `findings` hold one entry a rule, with attribute and field names and never a field's value.
    """

    code = "mapping-required"
    public_message = "Some of your account details that this page needs are missing. Please ask your utility for help."


class ValueRefused(LaunchRefused):
    """A value that the partner's message cannot carry; names the attribute, never the value."""

    code = "value-refused"


class PartnerUnusable(LaunchRefused):
    """The partner's registered metadata or our key for it does not allow a reply now."""

    code = "partner-unusable"
    http_status = 503


class DatabaseUnavailable(BridgeError):
    """The database cannot be read or written now."""

    code = "database-unavailable"
    http_status = 503
    public_message = "Something went wrong on our side. Please try again in a moment."


class NotRecorded(BridgeError):
    """The audit record could not be committed, so nothing may leave."""

    code = "not-recorded"
    http_status = 503
    public_message = "Something went wrong on our side. Please try again in a moment."


class AccountRefused(LaunchRefused):
    """The account asked for is not one of the session's."""

    code = "account-not-in-session"
    public_message = "This account does not belong to the person who is signed in."


class ImpersonationRefused(LaunchRefused):
    """A customer-service agent acts for the payer, and the link does not allow that."""

    code = "impersonation-not-allowed"
    public_message = "This page cannot be opened while somebody else is helping with the account."


class SignInFailed(BridgeError):
    """The payer came back from the portal's sign-in, and there is still no session."""

    code = "sign-in-failed"
    http_status = 403
    public_message = "We could not see that you are signed in. Please sign in to your bill portal and try again."


DATABASE_FAILURES: Final = (NotRecorded, DatabaseUnavailable)
"""The failures of our own database, which no record can tell of."""


def refuse_session(detail: str) -> SessionAbsent:
    """The error for a credential that is forged, broken, ambiguous or meant for somebody else."""
    return SessionAbsent(detail, code="session-invalid")
