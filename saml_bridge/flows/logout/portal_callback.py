"""The portal's callback: how it learns that a partner has ended a payer's session.

Owns: as whom the portal is told, by which key. Does not own: the token's claims and form (`logout_token.py`), when the
portal is told, and the connection (`sign_out.py`).
"""

from __future__ import annotations

from datetime import datetime

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from saml_bridge.flows.logout.logout_token import TYPE, build_logout_claims
from saml_bridge.keys.signing_key import SigningKey

_ALGORITHMS = {None: "RS256", "P-256": "ES256", "P-384": "ES384"}


def build_callback_token(
    *, issuer: str, audience: str, payer_id: str, sid: str, token_id: str, now: datetime, key: SigningKey
) -> str:
    """A JWT in compact form by the key of the biller's XML messages, whose certificate the portal has.

    `kid` is the SHA-256 of that certificate, in hexadecimal.
    """
    claims = build_logout_claims(
        issuer=issuer, audience=audience, subject=payer_id, sid=sid, token_id=token_id, now=now
    )
    algorithm = _ALGORITHMS[key.curve]
    header = {"alg": algorithm, "typ": TYPE, "kid": key.fingerprint_sha256}
    private = (RSAKey if key.kind == "rsa" else ECKey).import_key(key.private_key)  # type: ignore[arg-type]  # by kind
    return jwt.encode(header, claims, private, algorithms=[algorithm])
