"""One demo partner's OpenID Connect relying party, built on Authlib's Flask client.

Owns: its registration at a utility (issuer, client ID and secret, in a file of its own), its authorization requests,
and the answer to 'may this code sign somebody in?'. Does not own: pages and sessions (`partners`), and nothing of
the bridge: Authlib decides, by the utility's discovery document and keys. On top of Authlib's checks it refuses an
answer of another issuer (RFC 9207) and a UserInfo of another subject (OpenID Connect Core 5.3.2).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.flask_client import OAuth
from flask import Flask, request, session
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from werkzeug.wrappers import Response as AnyResponse

from saml_bridge.demo.service_provider import Received, ReceivedAttribute, ResponseRefused

SUBJECT: Final = "urn:openid:subject"
"""What stands for a name ID's format where the name is an ID token's `sub`."""

_LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_OWN: Final = frozenset({"iss", "sub", "aud", "exp", "iat", "nbf", "auth_time", "nonce", "at_hash", "azp", "sid"})
_SCOPE: Final = "openid profile email address"


class AnswerRefused(ResponseRefused):
    """The utility's answer with an error instead of a code.

    `error` is its name (RFC 6749, 4.1.2.1).
    """

    def __init__(self, error: str) -> None:
        super().__init__(f"the utility answered: {error}")
        self.error = error


@dataclass(frozen=True, slots=True)
class Registration:
    """The agreement of a utility and the partner, made out of band."""

    issuer: str
    name: str
    client_id: str
    client_secret: str

    @classmethod
    def read(cls, path: Path) -> Registration:
        """Raises OSError while nobody has registered the partner."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


class RelyingParty:
    """The relying party of one portal at one utility. `base_url` is the portals' origin."""

    def __init__(self, app: Flask, slug: str, base_url: str, state_dir: Path) -> None:
        self._oauth = OAuth(app)
        self._slug = slug
        self._callback = f"{base_url}/{slug}/callback"
        self._file = state_dir / "oidc" / f"{slug}.json"
        self._registered: tuple[Registration, Any] | None = None

    def find_registration(self) -> Registration | None:
        """The utility that the partner is registered at, if it is at one."""
        try:
            return Registration.read(self._file)
        except OSError:
            return None

    def ask(self, *, page: str, login_hint: str | None = None, **more: str) -> AnyResponse:
        """Sends the browser to the utility.

        `page` is where to land after the sign-in. Raises ResponseRefused.
        """
        _, client = self._find_client()
        given = {"login_hint": login_hint} if login_hint else {}
        with _Refusing():
            asked = client.create_authorization_url(self._callback, **given, **more)
            client.save_authorize_data(redirect_uri=self._callback, **asked)
        session[f"page {asked['state']}"] = page
        return _go(asked["url"])

    def accept(self) -> tuple[Received, str]:
        """Exchanges the code of the request at hand.

        Gives the payer and where to land. Raises ResponseRefused.
        """
        registration, client = self._find_client()
        page = session.pop(f"page {request.args.get('state', '')}", "")
        if (error := request.args.get("error")) is not None:
            raise AnswerRefused(error[:60])
        if request.args.get("iss") != registration.issuer:
            raise ResponseRefused("the answer does not say that it is of the utility that was asked")
        with _Refusing():
            token = client.authorize_access_token()
            told = client.userinfo(token=token)
        proven = token.get("userinfo") or {}
        if not proven.get("sub") or told.get("sub") != proven["sub"]:
            raise ResponseRefused("the ID token and UserInfo are not of the same person")
        return _describe(proven, told, token["id_token"]), str(page)

    def take_logout_token(self, token: str) -> tuple[str, str]:
        """Issuer and session ID of a logout token (Back-Channel Logout 1.0, 2.6). Raises ResponseRefused."""
        registration, client = self._find_client()
        with _Refusing():
            keys = KeySet.import_key_set(client.fetch_jwk_set(force=True))
            read = jwt.decode(token, keys, algorithms=["RS256", "ES256"])
        claims = read.claims
        right = (claims.get("iss"), claims.get("aud")) == (registration.issuer, registration.client_id)
        if not right or _LOGOUT_EVENT not in claims.get("events", {}) or "nonce" in claims or not claims.get("sid"):
            raise ResponseRefused("this is no logout token for this portal")
        return registration.issuer, str(claims["sid"])

    def find_logout_url(self, received: Received, *, back: str) -> str:
        """Where signing out leads (RP-Initiated Logout 1.0). Raises ResponseRefused."""
        _, client = self._find_client()
        with _Refusing():
            found = client.create_logout_url(post_logout_redirect_uri=back, id_token_hint=received.assertion_id)
        return str(found["url"])

    def _find_client(self) -> tuple[Registration, Any]:
        registration = self.find_registration()
        if registration is None:
            raise ResponseRefused("no utility has registered this portal")
        if self._registered is None or self._registered[0] != registration:
            self._oauth._clients.pop(self._slug, None)
            self._oauth.register(
                self._slug,
                overwrite=True,
                client_id=registration.client_id,
                client_secret=registration.client_secret,
                server_metadata_url=f"{registration.issuer}/.well-known/openid-configuration",
                client_kwargs={"scope": _SCOPE, "code_challenge_method": "S256"},
            )
            self._registered = registration, self._oauth.create_client(self._slug)
        return self._registered


class _Refusing:
    """What a library raises in here is a refusal."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AuthlibBaseError | JoseError | requests.RequestException | ValueError | KeyError):
            raise ResponseRefused(f"{type(error).__name__}: {str(error)[:200]}") from error


def _go(url: str) -> AnyResponse:
    return AnyResponse(status=303, headers={"Location": url})


def _describe(proven: Mapping[str, Any], told: Mapping[str, Any], id_token: str) -> Received:
    claims = {**{name: value for name, value in proven.items() if name not in _OWN}, **told}
    claims.pop("sub", None)
    return Received(
        issuer=proven["iss"],
        name_id=proven["sub"],
        name_id_format=SUBJECT,
        attributes=tuple(_list_claims(claims)),
        signed=("ID token",),
        encrypted=False,
        assertion_id=id_token,
        session_index=proven.get("sid", ""),
    )


def _list_claims(claims: Mapping[str, Any], start: str = "") -> Iterator[ReceivedAttribute]:
    """Nested claims by their path, each value as text."""
    for name, value in claims.items():
        if isinstance(value, Mapping):
            yield from _list_claims(value, f"{start}{name}.")
        else:
            values = value if isinstance(value, list) else [value]
            yield ReceivedAttribute(f"{start}{name}", tuple(map(str, values)), "claim", "")
