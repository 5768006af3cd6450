"""A protocol without logout is added at four places: its dataclass, its module, its configuration, a line of the index.

The test adds an invented protocol to a copy of the package, at these places alone, and uses it from the file to the
compiled partner.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import saml_bridge
from saml_bridge.protocols.index import PROTOCOLS

PACKAGE = Path(saml_bridge.__file__).parent
DOCUMENT = "model/document.py"
PROTOCOL = "protocols/tokens/carrier_pigeon.py"
CONFIGURATION = "billers/partners/carrier_pigeon.py"
INDEX = "protocols/index.py"

DATACLASS = '''\
@dataclass(frozen=True, slots=True)
class PigeonSettings:
    """A note that a pigeon carries."""

    loft: str
    default_link: str | None = None


'''

MODULE = '''\
"""The protocol `carrier_pigeon`."""

from collections.abc import Iterator

from saml_bridge.model.values import Finding, Redirect
from saml_bridge.protocols.interface import PartnerContext


class PigeonReceiver:
    key_name = None

    def __init__(self, loft: str) -> None:
        self.location = loft

    def build(self, _):
        raise NotImplementedError

    def check(self, **_):
        pass


def compile_receiver(context: PartnerContext) -> PigeonReceiver:
    return PigeonReceiver(context.partner.settings.loft)


def check_partner(context: PartnerContext) -> Iterator[Finding]:
    yield from ()
'''

ENTRY = '''\
"""The configuration of a pigeon."""

from saml_bridge.billers.file.fields import Slug, Url
from saml_bridge.billers.file.strict_schema import StrictSchema
from saml_bridge.billers.partners.entry import ConfigurationEntry
from saml_bridge.billers.wording import compare_values
from saml_bridge.model.document import PigeonSettings
from saml_bridge.model.findings import warn


class PigeonSchema(StrictSchema):
    makes = PigeonSettings

    loft = Url(required=True)
    default_link = Slug(allow_none=True)


def _check(partner, where):
    yield warn("pigeon-slow", "loft: pigeons are slow", "Wait.", f"{where}.loft")


ENTRY = ConfigurationEntry(
    protocol="carrier_pigeon",
    settings=PigeonSettings,
    schema=PigeonSchema,
    describe=lambda partner, _: f"a pigeon flies to {partner.settings.loft}",
    compare=lambda old, new, _: compare_values(old.settings, new.settings, {"loft": "loft"}),
    check=_check,
    urls=("loft",),
)
'''

USE = """\
import json
from dataclasses import replace

import saml_bridge
from saml_bridge.billers.changes import plan
from saml_bridge.billers.checks.holdings import list_holdings
from saml_bridge.billers.file.load import check_biller, dump_biller, from_json, load_file, to_json
from saml_bridge.model.errors import ConfigInvalid
from tests.receiving import make_biller, make_context
from saml_bridge.protocols.index import PROTOCOLS

assert saml_bridge.__file__.startswith(COPY), saml_bridge.__file__

biller = make_biller("carrier_pigeon", {"loft": "https://loft.example/", "default_link": "usage"})
assert load_file(dump_biller(biller)).billers[0].biller == biller
assert from_json(to_json(biller)) == biller

assert [one.code for one in check_biller(biller)] == ["pigeon-slow"]
for settings, code in (
    ({"loft": "http://loft.example/"}, "config-url-http"),
    ({"loft": "https://loft.example/", "default_link": "other"}, "config-reference"),
    ({"loft": "https://loft.example/", "lofty": 1}, "config-key-unknown"),
):
    try:
        make_biller("carrier_pigeon", settings)
    except ConfigInvalid as refused:
        assert code in [one.code for one in refused.findings], refused.findings
    else:
        raise AssertionError(code)

partner = biller.partners[0]
moved = replace(biller, partners=(replace(partner, settings=replace(partner.settings, loft="https://new.example/")),))
said = [str(one) for one in plan(biller, moved)]
assert said == [
    "partner partner of riverton-water: loft changes from https://loft.example/ to https://new.example/"
], said
assert "a pigeon flies to https://loft.example/" in str(plan(None, biller))
assert [one.name for one in list_holdings(biller, "https://sso.example.com").keys] == ["default", "tokens"]

context = make_context(biller)
assert list(PROTOCOLS["carrier_pigeon"].check(context)) == []
assert PROTOCOLS["carrier_pigeon"].compile(context).location == "https://loft.example/"
"""


def add_protocol(package: Path) -> None:
    """Adds the invented protocol to a copy of the package."""
    (package / PROTOCOL).write_text(MODULE, encoding="utf-8")
    (package / CONFIGURATION).write_text(ENTRY, encoding="utf-8")
    change(package / DOCUMENT, '"backchannel_token"]\n', '"backchannel_token", "carrier_pigeon"]\n')
    change(package / DOCUMENT, "| BackchannelSettings\n", "| BackchannelSettings | PigeonSettings\n")
    change(package / DOCUMENT, "ProtocolSettings = ", f"{DATACLASS}ProtocolSettings = ")
    change(package / INDEX, "import backchannel_token, ", "import backchannel_token, carrier_pigeon, ")
    kind = type(PROTOCOLS["jwt"]).__name__
    entry = f'    "carrier_pigeon": {kind}(carrier_pigeon.compile_receiver, carrier_pigeon.check_partner),\n'
    change(package / INDEX, '    "saml": ', f'{entry}    "saml": ')


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_protocol_is_added_at_four_places(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "saml_bridge", ignore=shutil.ignore_patterns("__pycache__"))
    add_protocol(tmp_path / "saml_bridge")
    tests = PACKAGE.parent / "tests"
    (tmp_path / "tests").symlink_to(tests, target_is_directory=True)
    done = subprocess.run(
        [sys.executable, "-c", USE.replace("COPY", repr(str(tmp_path)))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
