"""`python -m tests.bench.signed_link`: what a signed link costs, in multiples of one raw RSA-2048 signature.

RS256, in a form that posts itself. In process: mapping, claims, subject, signature. Over HTTP: the whole launch with a
JWT session and its committed record on SQLite (synchronous=FULL), the service's own CPU, as a launch by SAML is
measured. Each batch is divided by raw signatures of the same moment.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from saml_bridge.billers.file.load import load_file
from saml_bridge.keys.signing_key import load_signing_key
from saml_bridge.mapping.fields import build_example, parse_session
from saml_bridge.mapping.rules import compile_mapping
from saml_bridge.protocols.index import PROTOCOLS
from saml_bridge.protocols.interface import NO_SERVICES, LaunchContext, PartnerContext
from tests.bench.__main__ import Measure, compare, in_process, over_http, raw_signature
from tests.bench.service import run_service
from tests.bench.world import JWT_PARTNER, NOW, write_billers
from tests.world import KEYS

TARGETS = {"signed link over HTTP, SQLite": 4.5}
BILLERS = 10


def link_in_process(folder: Path) -> Callable[[], object]:
    """One signed link from the session to the form's fields, to be called again."""
    path = next(iter(write_billers(folder, 1, partner=JWT_PARTNER)))
    biller = load_file(path.read_bytes()).billers[0].biller
    pem = {name: (KEYS / f"idp-rsa.{name}.pem").read_bytes() for name in ("key", "cert")}
    key = load_signing_key("bench", key_pem=pem["key"], certificate_pem=pem["cert"])
    context = PartnerContext(
        biller=biller,
        partner=biller.partners[0],
        base_url="https://idp.example.com",
        saml_issuer="",
        find_key=lambda _: key,
        read_metadata=lambda _: None,  # type: ignore[arg-type, return-value]  # a partner of this protocol has none
        has_secret=lambda _: False,
        pairwise_secret=b"p" * 40,
    )
    receiver = PROTOCOLS["jwt"].compile(context)
    mapping = compile_mapping(biller.mappings[0])
    session = parse_session(build_example(biller.slug, now=int(NOW.timestamp())))
    ask = LaunchContext(
        biller=biller.slug,
        partner="partner",
        link="usage",
        session=session,
        account=session.accounts[0],
        attributes=(),
        callback="https://sp.example.com/usage",
        now=NOW,
        random_bytes=os.urandom,
        services=NO_SERVICES,
    )
    return lambda: receiver.build(replace(ask, attributes=mapping.evaluate(session, ask.account)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--launches", type=int, default=1000, help="launches over HTTP a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="saml-bridge-bench-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'links.db'}"
        service = run_service(
            folder / "service", database_url=url, port=8851, billers=BILLERS, used=BILLERS, partner=JWT_PARTNER
        )
        with service as running:
            works: dict[str, tuple[Measure, int]] = {
                "signed link in process": (in_process(link_in_process(folder / "one")), 500),
                "signed link over HTTP, SQLite": (
                    over_http(replace(running, carries=b'name="jwt"'), BILLERS),
                    options.launches,
                ),
            }
            raw = in_process(raw_signature())
            ratios: dict[str, list[float]] = {name: [] for name in works}
            for number in range(options.rounds):
                print(f"  round {number + 1} of {options.rounds}", flush=True)
                for name, (measure, count) in works.items():
                    ratios[name].append(compare(measure, raw, count)[0])
    report(ratios)


def report(ratios: dict[str, list[float]]) -> None:
    """Print medians, spreads and verdicts."""
    print()
    for name, values in ratios.items():
        median, target = statistics.median(values), TARGETS.get(name)
        verdict = "" if target is None else f"  target {target}: {'met' if median <= target else 'MISSED'}"
        print(f"{name:46} {median:8.2f} x   ({min(values):.2f} to {max(values):.2f}){verdict}")


if __name__ == "__main__":
    main()
