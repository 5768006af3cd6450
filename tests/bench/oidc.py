"""`python -m tests.bench.oidc`: an OpenID Connect sign-on from the link to the claims, in multiples of a raw signature.

Four requests to one service on SQLite (synchronous=FULL): the launch that sends the browser to the partner, the
authorization request (with PKCE), the exchange of the code, UserInfo. The service's own CPU for all four together; each
batch is divided by raw RSA-2048 signatures of the same moment, for ES256 as well.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from saml_bridge.app.wiring import Bridge
from tests.bench.__main__ import Measure, compare, in_process, raw_signature
from tests.bench.connection import KeptConnection
from tests.bench.service import CLIENT_CORE, Service, run_service
from tests.bench.world import OIDC_PARTNER, biller_slug

TARGET = 20.0
BILLERS = 10
SECRET = "bench-only-client-secret-of-no-service"
CALLBACK = "https://sp.example.com/callback"
VERIFIER = "bench-only-code-verifier-0123456789-0123456789-0123456789"
CHALLENGE = create_s256_code_challenge(VERIFIER)
KEYS = {"RS256": "tokens", "ES256": "curve"}


def prepare(bridge: Bridge) -> None:
    """The client's secret at every biller, and a key for ES256."""
    now = datetime.now(UTC)
    for number in range(BILLERS):
        bridge.partner_secrets.add(biller_slug(number), "rp", SECRET, now=now)
    bridge.keys.create("curve", kind="ec-p256", now=now)


class Round:
    """One relying party with one browser, over one connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._connection = KeptConnection("127.0.0.1", service.port, timeout=10)

    def run(self, at: int) -> dict[str, object]:
        """The claims of UserInfo."""
        issuer = f"/oidc/{biller_slug(at)}"
        cookie = f"portal_session={self._service.cookies[at]}"
        started = self._ask("GET", f"/launch/{biller_slug(at)}/usage", {"Cookie": cookie})
        hint = self._read_location(started)["login_hint"]
        bound = "; ".join([cookie, *(one.partition(";")[0] for one in started.headers.get_all("Set-Cookie") or ())])
        query = {
            "response_type": "code",
            "client_id": "rp",
            "redirect_uri": CALLBACK,
            "scope": "openid",
            "state": "s",
            "nonce": "n",
            "login_hint": hint,
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        answered = self._ask("GET", f"{issuer}/authorize?{urlencode(query)}", {"Cookie": bound})
        form = {
            "grant_type": "authorization_code",
            "code": self._read_location(answered)["code"],
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
            "client_id": "rp",
            "client_secret": SECRET,
        }
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        tokens = json.loads(self._ask("POST", f"{issuer}/token", kind, urlencode(form)).body)
        bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
        claims: dict[str, object] = json.loads(self._ask("GET", f"{issuer}/userinfo", bearer).body)
        if not tokens["id_token"] or "accountNumber" not in claims:
            raise RuntimeError(f"the round did not end in claims: {sorted(claims)}")
        return claims

    def _ask(self, method: str, address: str, headers: dict[str, str], body: str | None = None) -> _Answer:
        self._connection.request(method, address, body=body, headers={"Accept-Language": "en", **headers})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status not in (200, 303):
            raise RuntimeError(f"{method} {address[:80]}: {answer.status} {content[:300]!r}")
        return _Answer(answer.headers, content)

    def _read_location(self, answer: _Answer) -> dict[str, str]:
        query = parse_qs(urlsplit(answer.headers["Location"]).query)
        return {name: values[0] for name, values in query.items()}


class _Answer:
    def __init__(self, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.headers = headers
        self.body = body


def round_over_http(service: Service) -> Measure:
    """The service's own CPU seconds a round, at the billers in turn."""
    party, billers = Round(service), itertools.cycle(range(BILLERS))
    for _ in range(2 * BILLERS):
        party.run(next(billers))

    def measure(count: int) -> float:
        os.sched_setaffinity(0, {CLIENT_CORE})
        before = service.cpu_seconds()
        for _ in range(count):
            party.run(next(billers))
        return (service.cpu_seconds() - before) / count

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sign-ons", type=int, default=300, help="sign-ons a round")
    options = parser.parse_args()
    raw = in_process(raw_signature())
    for port, (algorithm, key) in enumerate(KEYS.items(), start=8861):
        with tempfile.TemporaryDirectory(prefix="saml-bridge-bench-") as made:
            folder = Path(made)
            partner = OIDC_PARTNER.replace("{algorithm}", algorithm).replace(
                "{key}", key if key != "tokens" else "null"
            )
            service = run_service(
                folder / "service",
                database_url=f"sqlite:///{folder / 'oidc.db'}",
                port=port,
                billers=BILLERS,
                used=BILLERS,
                partner=partner,
                prepare=prepare,
            )
            with service as running:
                measure = round_over_http(running)
                ratios = [compare(measure, raw, options.sign_ons)[0] for _ in range(options.rounds)]
        median = statistics.median(ratios)
        verdict = "met" if median <= TARGET else "MISSED"
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        name = f"OpenID Connect, link to claims, {algorithm}"
        print(f"{name:46} {median:8.2f} x   ({spread})  target {TARGET}: {verdict}")


if __name__ == "__main__":
    main()
