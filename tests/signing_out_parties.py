"""Relying parties in a logout: how a test configures them, opens them, and reads what they are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from saml_bridge.keys.jws import dump_public_jwk, sign
from saml_bridge.protocols.oidc.grant import Grant
from saml_bridge.protocols.oidc.receiver import SUBJECT_FORMAT
from saml_bridge.storage.audit import Entry, Kind, Search
from tests.relying_party import copy_keys
from tests.sign_outs import Town
from tests.world import BASE_URL, BILLER

ISSUER = f"{BASE_URL}/oidc/{BILLER}"
EVENT = "http://schemas.openid.net/event/backchannel-logout"


def make_party(slug: str, **settings: Any) -> dict[str, Any]:
    """A relying party as it stands in a file."""
    origins = settings.pop("origins", [])
    oidc = {
        "client_id": f"{slug}:1",
        "redirect_uris": [f"https://{slug}.example/cb"],
        "client_auth": "none",
        **settings,
    }
    return {"slug": slug, "name": slug.title(), "protocol": "oidc", "origins": origins, "oidc": oidc}


def add_parties(town: Town, **parties: dict[str, Any]) -> None:
    """Publish relying parties, slug to settings, beside the partners that are there."""
    copy_keys(town.world.folder / "certs")
    town.world.biller["partners"] += [make_party(slug, **settings) for slug, settings in parties.items()]
    town.world.publish()


def remember_party(town: Town, slug: str, **changes: Any) -> None:
    """The payer opened this relying party."""
    values = {"name_id": f"sub-at-{slug}", "name_id_format": SUBJECT_FORMAT, "session_index": f"sid-at-{slug}"}
    town.remember(slug, **{**values, **changes})


def make_hint(town: Town, slug: str, *, key: str = "tokens", typ: str | None = "JWT", **changes: Any) -> str:
    """An ID token that this relying party was given an hour ago; None leaves a claim out."""
    then = int(datetime.now(UTC).timestamp()) - 3600
    claims = {
        "iss": ISSUER,
        "sub": f"sub-at-{slug}",
        "aud": f"{slug}:1",
        "exp": then + 300,
        "iat": then,
        "auth_time": then,
        "sid": f"sid-at-{slug}",
        "token_use": "id",
        **changes,
    }
    found = town.world.bridge.keys.find(key)
    told = {name: value for name, value in claims.items() if value is not None}
    return sign(found, told, algorithm="ES256" if key.endswith("ec") else "RS256", typ=typ)


def grant_token(town: Town, slug: str, *, sid: str = "S-1", biller: str = BILLER) -> str:
    """An access token that this relying party got in a portal session."""
    now = datetime.now(UTC)
    granted = Grant(
        client_id=f"{slug}:1",
        redirect_uri=f"https://{slug}.example/cb",
        scope=("openid",),
        subject=f"sub-at-{slug}",
        sid=f"sid-at-{slug}",
        auth_time=int(now.timestamp()),
    )
    grants = town.world.bridge.grants
    code = grants.save(biller, slug, sid, granted.to_json(), now=now)
    return grants.redeem(code, biller=biller, now=now, judge=lambda *_: 600).access_token


def is_good(town: Town, token: str, *, biller: str = BILLER) -> bool:
    """Whether an access token still opens UserInfo."""
    return town.world.bridge.grants.find_by_token(token, biller=biller, now=datetime.now(UTC)) is not None


def read_logout_token(town: Town, body: bytes, *, client_id: str, algorithm: str = "RS256") -> dict[str, Any]:
    """The claims of what was posted, verified by joserfc as a relying party does (Back-Channel Logout 2.6)."""
    form = parse_qs(body.decode("ascii"), strict_parsing=True)
    assert list(form) == ["logout_token"]
    [token] = form["logout_token"]
    snapshot = town.world.bridge.registry.find_current(BILLER)
    keys = KeySet([import_jwk(dump_public_jwk(one)) for one in snapshot.find_token_keys()])
    read = jwt.decode(token, keys, algorithms=[algorithm])
    assert read.header["typ"] == "logout+jwt"
    claims: dict[str, Any] = read.claims
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": client_id},
        iat={"essential": True},
        exp={"essential": True},
    ).validate(claims)
    assert claims["exp"] == claims["iat"] + timedelta(minutes=2).total_seconds()
    assert claims["events"] == {EVENT: {}}
    assert "nonce" not in claims
    assert claims["jti"]
    return claims


def import_jwk(jwk: dict[str, Any]) -> RSAKey | ECKey:
    kind = RSAKey if jwk["kty"] == "RSA" else ECKey
    return kind.import_key(jwk)


def list_records(town: Town, kind: Kind = Kind.LOGOUT_DONE) -> list[Entry]:
    return [one.entry for one in town.world.bridge.audit.search(Search(kind=kind))]
