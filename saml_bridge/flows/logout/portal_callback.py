"""The portal's callback: how it learns that a partner has ended a payer's session.

Owns: the name and the key that the portal is told with. Does not own: the token's claims and form (`logout_token`), the
signature (`keys.jws`), when the portal is told, and the connection (`server_calls`, the caller).
"""

from __future__ import annotations

from datetime import datetime

from saml_bridge.flows.logout.logout_token import TYPE, build_logout_claims
from saml_bridge.keys.jws import sign_for_certificate
from saml_bridge.keys.signing_key import SigningKey


def build_callback_token(
    *, issuer: str, audience: str, payer_id: str, sid: str, token_id: str, now: datetime, key: SigningKey
) -> str:
    """A JWT in compact form, by the key of the biller's XML messages.

    The portal has that key's certificate. `kid` is the SHA-256 of that certificate, in hexadecimal. Raises
    SignatureFault.
    """
    claims = build_logout_claims(
        issuer=issuer, audience=audience, subject=payer_id, sid=sid, token_id=token_id, now=now
    )
    return sign_for_certificate(key, claims, typ=TYPE)
