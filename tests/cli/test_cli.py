"""The command line: what it prints, on which stream, and with which exit code."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from lxml import etree

from saml_bridge.app.settings import Settings
from saml_bridge.app.wiring import open_bridge
from saml_bridge.cli.main import main
from saml_bridge.model.values import TraceId
from saml_bridge.storage.audit import Entry, Kind
from tests.bench.aggregates import name_entity, write_aggregate
from tests.metadata_server import MetadataServer
from tests.protocols.saml.metadata.test_judge import ACS, make_entity, make_key, make_role
from tests.world import BILLER, DOCUMENT, KEYS, SP_ACS, sp_metadata

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "corpus" / "sp-metadata" / "good"
CLOCK = "2026-01-15T12:00:00Z"

TELLING_METADATA = (
    sp_metadata(extra=' validUntil="2026-06-01T00:00:00Z" cacheDuration="PT6H"')
    .replace(
        b'protocol">\n',
        b"""protocol" WantAssertionsSigned="true" AuthnRequestsSigned="true"><md:Extensions>
<mdui:UIInfo xmlns:mdui="urn:oasis:names:tc:SAML:metadata:ui">
<mdui:DisplayName xml:lang="en">AquaHawk</mdui:DisplayName><mdui:DisplayName xml:lang="es">AquaHalcon</mdui:DisplayName>
<mdui:Logo height="60" width="80">https://sp.example.com/logo.png</mdui:Logo></mdui:UIInfo></md:Extensions>""",
        1,
    )
    .replace(
        b"</ds:KeyInfo>",
        b'</ds:KeyInfo><md:EncryptionMethod Algorithm="http://www.w3.org/2009/xmlenc11#aes256-gcm"/>',
    )
    .replace(
        b"<md:AssertionConsumerService",
        b"""<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
Location="https://sp.example.com/slo" ResponseLocation="https://sp.example.com/out"/>
<md:NameIDFormat>urn:oasis:names:tc:SAML:2.0:nameid-format:persistent</md:NameIDFormat>
<md:NameIDFormat>urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress</md:NameIDFormat>
<md:AssertionConsumerService""",
    )
    .replace(
        b"</md:SPSSODescriptor>",
        b"""<md:AttributeConsumingService index="0"><md:ServiceName xml:lang="en">Usage</md:ServiceName>
<md:RequestedAttribute Name="urn:oid:2.5.4.42" FriendlyName="givenName"
NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:uri"/>
<md:RequestedAttribute Name="accountNumber" isRequired="true"/></md:AttributeConsumingService></md:SPSSODescriptor>
<md:Organization><md:OrganizationName xml:lang="en">aquahawk</md:OrganizationName>
<md:OrganizationDisplayName xml:lang="en">AquaHawk Inc.</md:OrganizationDisplayName>
<md:OrganizationURL xml:lang="en">https://example.com/</md:OrganizationURL></md:Organization>
<md:ContactPerson contactType="technical"><md:EmailAddress>mailto:help@example.com</md:EmailAddress>
</md:ContactPerson>""",
    )
)
TOLD = """\
sp.xml: usable
  entity ID https://sp.example.com/saml/metadata
    name          AquaHawk (en), AquaHalcon (es)
    organisation  AquaHawk Inc., https://example.com/
    valid until   2026-06-01 00:00:00 UTC, to be fetched anew after 6 hours
    ACS           index 0 https://sp.example.com/saml/acs
    logout        HTTP-Redirect https://sp.example.com/slo, answers to https://sp.example.com/out
    key           for signing and encryption: RSA 2048, certificate until 2100-01-01
    encryption    aes256-gcm
    signing       wants assertions to be signed, signs its own requests
    name ID       persistent or emailAddress
    attributes    required: accountNumber
                  optional: urn:oid:2.5.4.42 (givenName, name_format uri)
    contact       technical: help@example.com
    logo          https://sp.example.com/logo.png (80 × 60)
"""


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@dataclass
class Shell:
    """A folder to run `saml-bridge` in, with nothing set but what the test sets."""

    folder: Path
    environ: dict[str, str]

    def run(self, *arguments: str, code: int = 0) -> Done:
        """Run the entry point to its end, in this process, and expect this exit code."""
        out, err = io.StringIO(), io.StringIO()
        with ExitStack() as stack:
            stack.enter_context(contextlib.chdir(self.folder))
            stack.enter_context(mock.patch.dict(os.environ, self.environ, clear=True))
            stack.enter_context(mock.patch.object(sys, "argv", ["saml-bridge", *arguments]))
            stack.enter_context(redirect_stdout(out))
            stack.enter_context(redirect_stderr(err))
            with pytest.raises(SystemExit) as ended:
                main()
        done = Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())
        assert done.returncode == code, done
        return done

    def run_process(self, *arguments: str, code: int = 0) -> Done:
        """The same as a process of its own; never a traceback."""
        command = [sys.executable, "-m", "saml_bridge.cli", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)


def make_shell(folder: Path) -> Shell:
    return Shell(folder, {name: value for name, value in os.environ.items() if not name.startswith("SAML_BRIDGE_")})


def make_installed(folder: Path) -> Shell:
    """With keys, secret and database, and the configuration and metadata lying in the folder."""
    made = make_shell(folder)
    made.run("init")
    (folder / "sp.xml").write_bytes(sp_metadata())
    (folder / "billers.yaml").write_text(yaml.safe_dump(DOCUMENT))
    return made


def make_published(folder: Path) -> Shell:
    """Installed, the configuration applied, and a session to launch with."""
    made = make_installed(folder)
    made.run("apply", "billers.yaml")
    (folder / "session.json").write_text(made.run("sample-session", BILLER).stdout)
    return made


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return make_shell(tmp_path)


@pytest.fixture
def installed(tmp_path: Path) -> Shell:
    return make_installed(tmp_path)


@pytest.fixture
def published(tmp_path: Path) -> Shell:
    return make_published(tmp_path)


def edit(shell: Shell, change: object) -> None:
    """Apply `change` to the file's document."""
    path = shell.folder / "billers.yaml"
    document = yaml.safe_load(path.read_text())
    change(document["billers"][0])  # type: ignore[operator]
    path.write_text(yaml.safe_dump(document))


def test_every_command_explains_itself(shell: Shell) -> None:
    assert "saml-bridge metadata check FILE" in shell.run("--help").stdout
    for command in (
        ["init"], ["serve"], ["demo"], ["plan"], ["apply"], ["export"], ["launch"], ["doctor"], ["sample-session"],
        ["metadata", "check"], ["metadata", "show"], ["keys", "list"], ["keys", "create"], ["audit", "list"],
    ):  # fmt: skip
        assert "Usage: saml-bridge " in shell.run(*command, "--help").stdout


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["launch"], ["audit", "list", "--payer", "x"], ["serve", "--bind", "x"]]
)
def test_wrong_usage_is_2(shell: Shell, arguments: list[str]) -> None:
    assert shell.run(*arguments, code=2).stderr


def test_as_a_process_of_its_own(shell: Shell) -> None:
    shell.run_process("init")
    (shell.folder / "sp.xml").write_bytes(sp_metadata())
    (shell.folder / "billers.yaml").write_text(yaml.safe_dump(DOCUMENT))
    assert "revision 1 published" in shell.run_process("apply", "billers.yaml").stdout
    assert shell.run_process("launch", BILLER, "usage", "--session", "absent.json", code=2).stderr
    assert "biller-unknown" in shell.run_process("export", "nobody", code=1).stderr


def test_init_makes_everything_once(shell: Shell) -> None:
    first = shell.run("init").stdout
    assert "secret.key" in first
    assert "default.key.pem" in first
    assert "tokens.key.pem" in first
    secret = shell.folder / "instance" / "secret.key"
    before = secret.read_bytes()
    assert secret.stat().st_mode & 0o777 == 0o600
    assert shell.run("init").stdout == "database  up to date\n"
    assert secret.read_bytes() == before


def test_without_init_the_fix_is_named(shell: Shell) -> None:
    for arguments in (["export", BILLER], ["keys", "list"], ["serve"]):
        assert "saml-bridge init" in shell.run(*arguments, code=1).stderr
    shell.environ["SAML_BRIDGE_SECRET_KEY"] = "a-test-secret-" * 3
    assert "saml-bridge init" in shell.run("export", BILLER, code=1).stderr


def test_plan_changes_nothing_and_apply_does(installed: Shell) -> None:
    planned = installed.run("plan", "billers.yaml").stdout
    assert "riverton-water: biller added" in planned
    assert SP_ACS in planned
    installed.run("export", BILLER, code=1)
    assert "revision 1 published" in installed.run("apply", "billers.yaml").stdout
    assert "revision 1 (unchanged)" in installed.run("apply", "billers.yaml").stdout


def test_a_plan_is_in_words(published: Shell) -> None:
    def change(biller: dict[str, object]) -> None:
        biller["links"][0]["callback_uri"] = "https://riverton.aquahawk.example/home"  # type: ignore[index]
        biller["mappings"][0]["rules"][0]["transforms"] = []  # type: ignore[index]

    edit(published, change)
    planned = published.run("plan", "billers.yaml").stdout
    assert (
        "link usage of riverton-water: callback URI changes from https://riverton.aquahawk.example/usage"
        " to https://riverton.aquahawk.example/home" in planned
    )
    assert "mapping usage of riverton-water: accountNumber no longer strips leading zeros" in planned


def test_every_problem_of_a_file_is_said_at_once(installed: Shell) -> None:
    def change(biller: dict[str, object]) -> None:
        biller["links"][0]["partner"] = "aquahwk"  # type: ignore[index]
        biller["mappings"][0]["rules"][0]["from"] = "account.nubmer"  # type: ignore[index]
        biller["partners"][0]["saml"]["sing"] = "both"  # type: ignore[index]

    edit(installed, change)
    for command in ("plan", "apply"):
        said = installed.run(command, "billers.yaml", code=1).stderr
        for words in ("aquahwk", "aquahawk", "account.nubmer", "account.number", "sing", "sign"):
            assert words in said


def test_findings_name_the_slugs_beside_the_positions(installed: Shell) -> None:
    edit(installed, lambda biller: biller["partners"][0]["saml"].update(sing="both"))
    said = installed.run("plan", "billers.yaml", code=1).stderr
    assert re.search(rf" billers\[0\]\.partners\[0\]\.saml\.sing \(line \d+\) of {BILLER}/aquahawk: ", said)
    edit(installed, lambda biller: biller["partners"][0]["saml"].pop("sing"))
    edit(installed, lambda biller: biller["links"][0].update(callback_uri="https://a.example/" + "x" * 80))
    assert f"links[0].callback_uri (line 5) of {BILLER}/usage: " in installed.run("plan", "billers.yaml").stdout
    edit(installed, lambda biller: biller["partners"][0]["saml"].update(metadata="absent.xml"))
    said = installed.run("plan", "billers.yaml", code=1).stderr
    assert f" {BILLER}: partners[0].saml.metadata of aquahawk: " in said
    (installed.folder / "absent.xml").write_bytes(sp_metadata(acs="http://sp.example.com/acs"))
    said = installed.run("plan", "billers.yaml", code=1).stderr
    assert re.search(rf" {BILLER}: partners\[0\]\.saml\.metadata \(\S+\) of aquahawk: ", said)


def test_one_certificate_is_told_once_at_plan_and_not_again_at_apply(installed: Shell) -> None:
    keys = make_key("expired", use="signing") + make_key("expired", use="encryption")
    (installed.folder / "sp.xml").write_text(make_entity(make_role(keys + ACS)))
    assert installed.run("plan", "billers.yaml").stdout.count("certificate-expired") == 1
    applied = installed.run("apply", "billers.yaml").stdout
    assert "certificate-expired" not in applied
    assert "1 more about partners' certificates: 'saml-bridge plan billers.yaml' says it." in applied


def test_all_billers_of_a_file_or_none(installed: Shell) -> None:
    path = installed.folder / "billers.yaml"
    document = yaml.safe_load(path.read_text())
    second = json.loads(json.dumps(document["billers"][0])) | {"slug": "second"}
    second["partners"][0]["saml"]["metadata"] = "absent.xml"
    document["billers"].append(second)
    path.write_text(yaml.safe_dump(document))
    assert "absent.xml" in installed.run("apply", "billers.yaml", code=1).stderr
    installed.run("export", BILLER, code=1)


def test_an_export_applies_to_the_same_bytes(published: Shell) -> None:
    exported = published.run("export", BILLER).stdout
    (published.folder / "exported.yaml").write_text(exported)
    assert "no changes" in published.run("apply", "exported.yaml").stdout
    assert published.run("export", BILLER).stdout == exported


def test_a_stale_export_is_a_conflict_and_an_old_revision_the_way_back(published: Shell) -> None:
    stale = published.run("export", BILLER).stdout.replace("View my water usage", "My changed label")
    edit(published, lambda biller: biller["links"][0].update(label="Somebody else's label"))
    published.run("apply", "billers.yaml")
    (published.folder / "stale.yaml").write_text(stale)
    assert "config-conflict" in published.run("apply", "stale.yaml", code=1).stderr
    assert "Somebody else's label" in published.run("export", BILLER).stdout
    (published.folder / "back.yaml").write_text(published.run("export", BILLER, "--revision", "1").stdout)
    assert "revision 3 published" in published.run("apply", "back.yaml").stdout
    assert "View my water usage" in published.run("export", BILLER).stdout


def test_launch_prints_form_xml_and_json(published: Shell) -> None:
    ask = ["launch", BILLER, "usage", "--session", "session.json"]
    assert '<form method="post" action="https://sp.example.com/saml/acs">' in published.run(*ask).stdout
    root = etree.fromstring(published.run(*ask, "--output", "xml").stdout.encode())
    assert root.get("Destination") == SP_ACS
    printed = json.loads(published.run(*ask, "--output", "json").stdout)
    assert set(printed) == {"action", "SAMLResponse", "RelayState"}
    assert printed["action"] == SP_ACS
    records = [
        json.loads(line) for line in published.run("audit", "list", "--json", "--kind", "payer").stdout.splitlines()
    ]
    assert [record["kind"] for record in records] == ["payer:launch:issued"] * 3


def test_a_refused_launch_is_1_with_the_reason_and_the_trace_id(published: Shell) -> None:
    done = published.run("launch", BILLER, "usage", "--session", "session.json", "--account", "999", code=1)
    assert "account-not-in-session" in done.stderr
    trace_id = done.stderr.split("trace ID ")[1].split()[0]
    listed = published.run("audit", "list", "--trace", trace_id.lower()).stdout
    assert "account-not-in-session" in listed
    assert "999" not in listed


def find_record(shell: Shell, code: str) -> dict[str, str]:
    [found] = [json.loads(one) for one in shell.run("audit", "list", "--json", "--code", code).stdout.splitlines()]
    return dict(found)


def refuse_in_many_ways(shell: Shell) -> None:
    rule = {"attribute": "telephone", "from": "payer.phone", "required": True}
    edit(shell, lambda biller: biller["mappings"][0]["rules"].append(rule))
    shell.run("apply", "billers.yaml")
    session = json.loads((shell.folder / "session.json").read_text())
    del session["payer"]["phone"]
    (shell.folder / "nothing.json").write_text(json.dumps(session))
    shell.run("launch", BILLER, "usage", "--session", "nothing.json", code=1)
    shell.run("launch", BILLER, "usage", "--session", "session.json", "--account", "999", code=1)
    shell.run("launch", BILLER, "usage", "--session", "session.json")


@pytest.mark.parametrize("columns", [80, 120, 300])
def test_trace_time_and_code_never_break_and_empty_columns_go(published: Shell, columns: int) -> None:
    refuse_in_many_ways(published)
    published.environ["COLUMNS"] = str(columns)
    shown = published.run("audit", "list", "--kind", "payer").stdout
    assert all(len(line) <= columns for line in shown.splitlines() if "Fix:" not in line or columns < 300)
    for line in published.run("audit", "list", "--json", "--kind", "payer").stdout.splitlines():
        record = json.loads(line)
        for value in (record["trace_id"], record["at"][:19].replace("T", " "), record["code"]):
            assert value in shown
    assert "actor" not in shown
    assert ("account" in shown.splitlines()[0]) == (columns == 300)


def test_of_an_actor_only_a_pseudonym_is_shortened(published: Shell) -> None:
    payer, agent, key = "f" * 32, "e" * 32, "portal key 0123456789ab"
    entry = Entry(Kind.TICKET_REFUSED, datetime.now(UTC), TraceId("AAAA"), biller=BILLER, payer=payer, actor=key)
    with mock.patch.dict(os.environ, published.environ, clear=True), contextlib.chdir(published.folder):
        trail = open_bridge(Settings.from_env()).audit
        for actor in (key, agent):
            trail.record(replace(entry, actor=actor))
    shown = " ".join(published.run("audit", "list", "--kind", "portal").stdout.split())
    assert key in shown
    assert f"{agent[:10]} " in f"{shown} ".replace(",", " ")
    assert payer not in shown
    assert agent not in shown


def test_one_trace_is_a_block_with_the_reason_and_the_fix(published: Shell) -> None:
    refuse_in_many_ways(published)
    published.environ["COLUMNS"] = "80"
    record = find_record(published, "mapping-required")
    shown = published.run("audit", "list", "--trace", record["trace_id"]).stdout
    assert all(len(line) <= 80 for line in shown.splitlines())
    fields = {line[2:15].strip(): line[15:] for line in shown.splitlines()[1:]}
    assert fields["trace ID"] == record["trace_id"]
    assert fields["code"] == "mapping-required"
    assert fields["payer"] == record["payer"]
    assert fields["reason"].startswith("mapping 'usage': ")
    assert fields["fix"]
    assert " ".join(shown.split()).count("'telephone'") == 1
    assert record["fix"].split()[0] == fields["fix"].split()[0]


def test_a_key_that_is_gone_is_to_be_brought_back_and_not_made_again(published: Shell) -> None:
    key = published.folder / "certs" / "default.key.pem"
    content = key.read_bytes()
    for broken in (None, b"broken"):
        key.unlink()
        if broken is not None:
            key.write_bytes(broken)
            key.chmod(0o600)
        said = published.run("launch", BILLER, "usage", "--session", "session.json", code=1).stderr
        trace_id = said.split("trace ID ")[1].split()[0]
        for shown in (said, published.run("audit", "list", "--trace", trace_id).stdout):
            assert "back from the backup" in " ".join(shown.split())
            assert "Do not make a new key" in " ".join(shown.split())
        key.write_bytes(content)


def test_a_partner_s_complaint_finds_the_record(published: Shell) -> None:
    ask = ["launch", BILLER, "usage", "--session", "session.json", "--output", "xml"]
    root = etree.fromstring(published.run(*ask).stdout.encode())
    published.run(*ask)
    shown = published.run("audit", "list", "--message-id", root.get("ID") or "").stdout
    assert shown.count("payer:launch:issued") == 1
    assert f"response ID  {root.get('ID')}" in shown


def test_no_match_says_so_and_suggests(published: Shell) -> None:
    published.run("launch", BILLER, "usage", "--session", "session.json", "--account", "999", code=1)
    said = published.run("audit", "list", "--trace", "AAAA-BBBB-CCCC").stdout
    assert "No record has the trace ID AAAA-BBBB-CCCC." in said
    assert "If the ID is right, nothing could be recorded: search the log" in said
    for arguments, meant in (
        (("--biller", "riverton-watr"), f"did you mean {BILLER}?"),
        (("--code", "account-not-in-sesion"), "did you mean account-not-in-session?"),
        (("--code", "mapping-requird"), "did you mean mapping-required?"),
    ):
        assert meant in published.run("audit", "list", *arguments).stdout
        quiet = published.run("audit", "list", "--json", *arguments)
        assert (quiet.stdout, meant in quiet.stderr) == ("", True)
    assert (
        "did you mean payer:launch:refused?"
        in published.run("audit", "list", "--kind", "payer:launch:refusd", code=2).stderr
    )


def test_an_expired_session_is_refused(published: Shell) -> None:
    session = json.loads((published.folder / "session.json").read_text())
    past = int((datetime.now(UTC) - timedelta(hours=1)).timestamp())
    (published.folder / "old.json").write_text(json.dumps(session | {"auth_time": past, "exp": past + 60}))
    assert "session-expired" in published.run("launch", BILLER, "usage", "--session", "old.json", code=1).stderr


def test_several_accounts_ask_for_one(published: Shell) -> None:
    session = json.loads((published.folder / "session.json").read_text())
    session["accounts"].append(session["accounts"][0] | {"number": "000777"})
    session["selected_account"] = None
    (published.folder / "two.json").write_text(json.dumps(session))
    ask = ["launch", BILLER, "usage", "--session", "two.json", "--output", "xml"]
    assert "--account with one of 000123456, 000777" in published.run(*ask, code=1).stderr
    assert "<saml:AttributeValue" in published.run(*ask, "--account", "000777").stdout


def test_a_broken_session_file_is_named(published: Shell) -> None:
    (published.folder / "broken.json").write_text("{")
    said = published.run("launch", BILLER, "usage", "--session", "broken.json", code=1).stderr
    assert "broken.json" in said


def test_metadata_check_says_what_and_why(shell: Shell) -> None:
    (shell.folder / "good.xml").write_bytes(sp_metadata())
    (shell.folder / "page.xml").write_text("<html><body>Please sign in</body></html>")
    done = shell.run("metadata", "check", "good.xml", "page.xml", code=1)
    assert "good.xml: usable" in done.stdout
    assert "page.xml: REFUSED" in done.stdout
    assert "HTML" in done.stdout
    reports = [json.loads(line) for line in shell.run("metadata", "check", "--json", "good.xml").stdout.splitlines()]
    assert reports[0]["entities"][0]["acs"][0]["location"] == SP_ACS


def test_metadata_check_shows_what_helps_to_write_a_mapping(shell: Shell) -> None:
    (shell.folder / "sp.xml").write_bytes(TELLING_METADATA)
    assert shell.run("metadata", "check", "sp.xml", "--at", CLOCK).stdout == TOLD
    plain = shell.run("metadata", "check", "sp.xml", "--at", CLOCK, "--json").stdout
    assert "data:" not in plain
    [entity] = json.loads(plain)["entities"]
    assert entity["valid_until"] == "2026-06-01T00:00:00+00:00"
    assert entity["cache_duration"] == 6 * 3600
    assert entity["want_assertions_signed"] is True
    assert entity["slo"][0]["response_location"] == "https://sp.example.com/out"
    assert [one["required"] for one in entity["requested_attributes"]] == [False, True]
    assert entity["encryption_methods"] == ["http://www.w3.org/2009/xmlenc11#aes256-gcm"]
    assert entity["contacts"][0]["emails"] == ["help@example.com"]
    assert entity["logos"][0]["width"] == 80
    assert entity["organization"]["urls"] == [{"language": "en", "text": "https://example.com/"}]
    certificate = x509.load_pem_x509_certificate((KEYS / "sp-signing.cert.pem").read_bytes())
    assert entity["certificates"] == [
        {
            "fingerprint_sha256": certificate.fingerprint(hashes.SHA256()).hex(),
            "use": None,
            "key_type": "rsa",
            "key_bits": 2048,
            "not_after": certificate.not_valid_after_utc.isoformat(),
        }
    ]


def test_metadata_check_of_several_shows_each_in_full_or_the_one_asked_for(shell: Shell) -> None:
    file, wanted = str(CORPUS / "python3-saml-entities.xml"), "https://sp2.example.com/simplesaml"
    both = shell.run("metadata", "check", file, "--at", CLOCK).stdout
    assert "usable, 2 of 2 service providers usable" in both
    assert both.count("\n    ACS ") == 2
    name = next(line.split()[-1] for line in both.splitlines() if f"entity ID {wanted}" in line)
    one = shell.run("metadata", "check", file, "--at", CLOCK, "--entity-id", name).stdout
    assert f"  entity ID {name}\n" in one
    assert one.count("\n    ACS ") == 1
    assert "sp1.example.com" not in one
    assert "entity-not-found" in shell.run("metadata", "check", file, "--entity-id", "urn:x", code=1).stdout


def test_metadata_check_of_a_federation_takes_the_entity_asked_for(shell: Shell) -> None:
    write_aggregate(shell.folder / "federation.xml", 900, signed=True)
    one = shell.run("metadata", "check", "federation.xml", "--at", CLOCK, "--entity-id", name_entity(700)).stdout
    assert "federation.xml: usable" in one
    assert f"  entity ID {name_entity(700)}\n" in one
    assert "xml-too-large" in shell.run("metadata", "check", "federation.xml", code=1).stdout
    absent = shell.run("metadata", "check", "federation.xml", "--entity-id", "urn:x", code=1).stdout
    assert "entity-not-found" in absent
    assert "and 880 more" in absent


def test_metadata_check_of_many_is_a_line_each_unless_told_otherwise(shell: Shell) -> None:
    file = str(CORPUS / "aggregate-switch-aaitest-262sp.xml")
    [report] = [json.loads(shell.run("metadata", "check", file, "--at", CLOCK, "--json").stdout)]
    lines = shell.run("metadata", "check", file, "--at", CLOCK).stdout.splitlines()
    assert lines[0].endswith("usable, 258 of 262 service providers usable")
    for entity in report["entities"]:
        verdict = "usable " if entity["usable"] else "REFUSED"
        [line] = [one for one in lines if one.split()[:2] == [verdict.strip(), entity["entity_id"]]]
        for finding in entity["findings"]:
            assert (finding["code"] in line) == (finding["severity"] == ("warning" if entity["usable"] else "error"))
    assert len(lines) <= len(report["entities"]) + 3
    verbose = shell.run("metadata", "check", file, "--at", CLOCK, "--verbose").stdout
    assert verbose.count("\n  entity ID ") == 262
    one = shell.run("metadata", "check", file, "--at", CLOCK, "--entity-id", "https://cern.ch/login").stdout
    assert "    name          CERN Service Provider Proxy (Dev)\n" in one


def test_metadata_check_judges_by_the_time_given(shell: Shell) -> None:
    extra = ' validUntil="2026-01-15T13:00:00Z"'
    (shell.folder / "short.xml").write_bytes(sp_metadata(extra=extra))
    shell.run("metadata", "check", "short.xml", "--at", "2026-01-15T12:00:00Z")
    shell.run("metadata", "check", "short.xml", "--at", "2026-01-15T14:00:00Z", code=1)
    shell.run("metadata", "check", "short.xml", "--at", "soon", code=2)


def test_metadata_check_takes_http_only_where_it_is_allowed(shell: Shell) -> None:
    (shell.folder / "http.xml").write_bytes(sp_metadata(acs="http://sp.example.com/acs"))
    shell.run("metadata", "check", "http.xml", code=1)
    shell.environ["SAML_BRIDGE_ALLOW_HTTP_ACS"] = "1"
    shell.run("metadata", "check", "http.xml")


def test_x22_a_file_never_steers_the_terminal(shell: Shell) -> None:
    (shell.folder / "bad.xml").write_bytes(sp_metadata().replace(b"https://sp.example.com/saml/metadata", b"&#x9b;31m"))
    done = shell.run("metadata", "check", "bad.xml", code=1)
    assert "\x9b" not in done.stdout


def test_our_metadata_is_printed(published: Shell) -> None:
    root = etree.fromstring(published.run("metadata", "show", BILLER).stdout.encode())
    assert root.get("entityID") == "http://localhost:8700/saml/riverton-water/metadata"


def test_keys_are_made_and_listed(installed: Shell) -> None:
    installed.run("keys", "create", "winter", "--kind", "ec-p256")
    listed = installed.run("keys", "list").stdout
    assert "winter" in listed
    assert "ECDSA P-256" in listed
    assert "exists already" in installed.run("keys", "create", "winter", code=1).stderr


def test_k1_serve_refuses_a_key_that_others_can_read(installed: Shell) -> None:
    key = installed.folder / "certs" / "default.key.pem"
    key.chmod(0o644)
    installed.environ |= {
        "SAML_BRIDGE_SESSION_SOURCE": "jwt",
        "SAML_BRIDGE_SESSION_JWKS": str(KEYS / "none.json"),
        "SAML_BRIDGE_SESSION_ISSUER": "https://pay.example",
        "SAML_BRIDGE_SESSION_AUDIENCE": "saml-bridge",
    }
    assert f"chmod 600 {key}" in installed.run("serve", code=1).stderr


@pytest.mark.parametrize("bind", ["0.0.0.0:8700", "[::]:8700", "192.0.2.7:8700"])
@pytest.mark.parametrize("base_url", ["http://localhost:8700", "http://127.0.0.1:8700"])
def test_serve_keeps_the_demo_on_this_machine_whatever_the_base_url_says(
    installed: Shell, bind: str, base_url: str
) -> None:
    installed.environ |= {"SAML_BRIDGE_SESSION_SOURCE": "demo", "SAML_BRIDGE_BASE_URL": base_url}
    said = installed.run("serve", "--bind", bind, code=1).stderr
    assert "error   demo-reachable  --bind: " in said
    assert "127.0.0.1" in said


def test_serve_does_not_share_a_port_that_is_taken(installed: Shell) -> None:
    installed.environ |= {
        "SAML_BRIDGE_SESSION_SOURCE": "jwt",
        "SAML_BRIDGE_SESSION_JWKS": str(KEYS / "none.json"),
        "SAML_BRIDGE_SESSION_ISSUER": "https://pay.example",
        "SAML_BRIDGE_SESSION_AUDIENCE": "saml-bridge",
    }
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        said = installed.run_process("serve", "--bind", bind, code=1).stderr
    assert "Address already in use" in said
    assert "--bind" in said


def test_doctor_finds_what_is_wrong(published: Shell) -> None:
    assert "session-source-absent" in published.run("doctor").stdout
    jwks = published.folder / "jwks.json"
    published.environ |= {
        "SAML_BRIDGE_SESSION_SOURCE": "jwt",
        "SAML_BRIDGE_SESSION_JWKS": str(jwks),
        "SAML_BRIDGE_SESSION_ISSUER": "https://pay.example",
        "SAML_BRIDGE_SESSION_AUDIENCE": "saml-bridge",
    }
    assert f"{jwks} cannot be read" in published.run("doctor", code=1).stdout
    jwks.write_text(json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}]}))
    assert published.run("doctor").stdout == "Everything is in order.\n"
    (published.folder / "certs" / "default.key.pem").chmod(0o640)
    published.environ["SAML_BRIDGE_BASEURL"] = "x"
    said = published.run("doctor", code=1).stdout
    assert "chmod 600" in said
    assert "SAML_BRIDGE_BASEURL" in said


def test_every_command_warns_of_a_misspelt_setting(published: Shell) -> None:
    published.environ["SAML_BRIDGE_ALLOW_HTTP"] = "1"
    for command in (["plan", "billers.yaml"], ["export", BILLER], ["keys", "list"]):
        assert "did you mean SAML_BRIDGE_ALLOW_HTTP_ACS?" in published.run(*command).stderr
    published.environ["SAML_BRIDGE_BASE_URL"] = "nonsense"
    for command in (["plan", "billers.yaml"], ["doctor"]):
        done = published.run(*command, code=1)
        assert (done.stdout + done.stderr).count("did you mean SAML_BRIDGE_ALLOW_HTTP_ACS?") == 1


def test_a_database_that_does_not_answer_is_one_line(shell: Shell) -> None:
    shell.environ |= {
        "SAML_BRIDGE_SECRET_KEY": "a-test-secret-" * 3,
        "SAML_BRIDGE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    }
    for command in (["init"], ["export", BILLER]):
        said = shell.run(*command, code=1).stderr
        assert len(said.strip().splitlines()) == 1
        assert "SAML_BRIDGE_DATABASE_URL" in said


def test_the_example_of_the_readme_works(shell: Shell) -> None:
    shell.run("init")
    shell.run("metadata", "check", str(ROOT / "metadata" / "example-sp.xml"))
    shell.run("apply", str(ROOT / "metadata" / "first-biller.yaml"))
    (shell.folder / "session.json").write_text(shell.run("sample-session", "maple-creek-water").stdout)
    shell.run("launch", "maple-creek-water", "usage", "--session", "session.json", "--output", "xml")


# Metadata that changes

EVIL = "https://sp.evil.example/acs"
BASE = "http://localhost:8700"


def test_m10_a_risky_change_of_metadata_is_shown_refused_and_accepted_by_name(published: Shell) -> None:
    (published.folder / "sp.xml").write_bytes(sp_metadata(acs=EVIL))
    planned = published.run("plan", "billers.yaml", code=1)
    said = f"partner aquahawk of {BILLER}: metadata: RISKY: responses would go to {EVIL} instead of {SP_ACS}"
    assert said in planned.stdout.splitlines()
    assert "error   metadata-change-risky" in planned.stderr
    refused = published.run("apply", "billers.yaml", code=1)
    assert "metadata-change-risky" in refused.stderr
    assert EVIL in refused.stderr
    assert f"--accept-metadata {BILLER}/aquahawk" in refused.stderr
    assert "metadata-change-risky" in published.run("audit", "list", "--kind", "ops:metadata:refused").stdout
    published.run("apply", "billers.yaml", "--accept-metadata", "other/aquahawk", code=1)
    assert published.run("plan", "billers.yaml", "--accept-metadata", "aquahawk").stderr == ""
    done = published.run("apply", "billers.yaml", "--accept-metadata", "aquahawk")
    assert f"{BILLER}: revision 2 published" in done.stdout
    assert "ops:metadata:accepted" in published.run("audit", "list").stdout


def test_m10_a_name_that_accepts_nothing_is_refused_beside_one_that_does(published: Shell) -> None:
    (published.folder / "sp.xml").write_bytes(sp_metadata(acs=EVIL))
    accept = ["--accept-metadata", "aquahawk", "--accept-metadata", f"{BILLER}/aquahwak"]
    for command in ("plan", "apply"):
        said = published.run(command, "billers.yaml", *accept, code=1).stderr
        assert said.startswith(f"error   partner-unknown  '{BILLER}/aquahwak'")
        assert f"did you mean {BILLER}/aquahawk?" in said
    assert "revision: 1\n" in published.run("export", BILLER).stdout


def _as_it_is(shell: Shell) -> list[str]:
    return []


def _relabelled(shell: Shell) -> list[str]:
    edit(shell, lambda biller: biller["links"][0].update(label="Another label"))
    return []


def _with_a_typo(shell: Shell) -> list[str]:
    edit(shell, lambda biller: biller["links"][0].update(partner="aquahwak"))
    return []


def _of_another_day(shell: Shell) -> list[str]:
    edit(shell, lambda biller: biller.update(revision=7, name="Another name"))
    return []


def _of_another_day_and_the_same(shell: Shell) -> list[str]:
    edit(shell, lambda biller: biller.update(revision=7))
    return []


def _with_risky_metadata(shell: Shell) -> list[str]:
    (shell.folder / "sp.xml").write_bytes(sp_metadata(acs=EVIL))
    return []


def _with_accepted_metadata(shell: Shell) -> list[str]:
    return [*_with_risky_metadata(shell), "--accept-metadata", "aquahawk"]


def _with_a_name_of_nobody(shell: Shell) -> list[str]:
    return ["--accept-metadata", "nobody"]


def _without_its_key(shell: Shell) -> list[str]:
    edit(shell, lambda biller: biller.update(idp={"keys": {"current": "absent"}}))
    return []


def _without_its_metadata(shell: Shell) -> list[str]:
    (shell.folder / "sp.xml").unlink()
    return []


def _with_a_biller_of_the_same_name_to_partners(shell: Shell) -> list[str]:
    edit(shell, lambda biller: biller.update(slug="second", idp={"entity_id": f"{BASE}/saml/{BILLER}/metadata"}))
    return []


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (_as_it_is, False),
        (_relabelled, False),
        (_with_a_typo, True),
        (_of_another_day, True),
        (_of_another_day_and_the_same, False),
        (_with_risky_metadata, True),
        (_with_accepted_metadata, False),
        (_with_a_name_of_nobody, True),
        (_without_its_key, True),
        (_without_its_metadata, True),
        (_with_a_biller_of_the_same_name_to_partners, True),
    ],
)
def test_plan_ends_as_apply_of_the_same_file_ends(
    published: Shell, change: Callable[[Shell], list[str]], refused: bool
) -> None:
    more = change(published)
    planned = published.run("plan", "billers.yaml", *more, code=int(refused))
    applied = published.run("apply", "billers.yaml", *more, code=int(refused))
    assert planned.stderr == applied.stderr


@pytest.fixture
def fetching(published: Shell, metadata_server: MetadataServer) -> Shell:
    """The partner's metadata comes from an address, and from no file."""
    published.environ["SAML_BRIDGE_FETCH_ALLOW"] = "127.0.0.0/8"
    document = json.loads(json.dumps(DOCUMENT))
    url = metadata_server.serve("/sp.xml", sp_metadata())
    document["billers"][0]["partners"][0]["saml"] = {"metadata_url": url, "encrypt": "never"}
    (published.folder / "billers.yaml").write_text(yaml.safe_dump(document))
    published.run("apply", "billers.yaml")
    return published


def test_fetched_metadata_is_refreshed_held_accepted_and_rejected(
    fetching: Shell, metadata_server: MetadataServer
) -> None:
    name = f"{BILLER}/aquahawk"
    assert fetching.run("metadata", "refresh").stdout == f"{name}: unchanged\n"
    metadata_server.serve("/sp.xml", sp_metadata(extra=' validUntil="2090-01-01T00:00:00Z"'))
    done = fetching.run("metadata", "refresh", BILLER, "aquahawk")
    assert done.stdout == f"{name}: published: revision 3: validUntil changes from none to 2090-01-01 00:00:00 UTC\n"
    assert fetching.run("metadata", "held").stdout == "No change waits.\n"
    metadata_server.serve("/sp.xml", sp_metadata(acs=EVIL, extra=' validUntil="2090-01-01T00:00:00Z"'))
    assert fetching.run("metadata", "refresh", BILLER).stdout.startswith(f"{name}: held: RISKY: responses would go")
    held = fetching.run("metadata", "held").stdout.splitlines()
    assert held[0].startswith(f"{name}: held since ")
    assert held[1] == f"  RISKY: responses would go to {EVIL} instead of {SP_ACS}"
    assert "metadata-held" in fetching.run("doctor").stdout
    rejected = fetching.run("metadata", "reject", BILLER, "aquahawk")
    assert rejected.stdout.startswith(f"{name}: rejected sha256:")
    assert fetching.run("metadata", "refresh").stdout.startswith(f"{name}: rejected")
    metadata_server.serve("/sp.xml", sp_metadata(acs=EVIL, extra=' validUntil="2091-01-01T00:00:00Z"'))
    fetching.run("metadata", "refresh")
    assert fetching.run("metadata", "accept", BILLER, "aquahawk").stdout == f"{BILLER}: revision 4 published\n"
    assert "metadata-not-held" in fetching.run("metadata", "accept", BILLER, "aquahawk", code=1).stderr
    kinds = fetching.run("audit", "list", "--kind", "ops:metadata").stdout
    assert all(f"ops:metadata:{kind}" in kinds for kind in ("held", "rejected", "accepted"))


def test_a_refresh_that_fails_says_so(fetching: Shell, metadata_server: MetadataServer) -> None:
    metadata_server.answers.clear()
    done = fetching.run("metadata", "refresh", code=1)
    assert done.stdout.startswith(f"{BILLER}/aquahawk: fetch-status: 127.0.0.1 answered with status 404.")
    assert fetching.run("metadata", "refresh", "--due").stdout == "nothing is due\n"  # before an hour has passed
    assert "metadata-source-failed" in fetching.run("doctor").stdout
    assert "biller-unknown" in fetching.run("metadata", "refresh", "nobody", code=1).stderr
    assert "partner-unknown" in fetching.run("metadata", "refresh", BILLER, "nobody", code=1).stderr
    fetching.run("metadata", "refresh", BILLER, "--due", code=2)
    fetching.environ["SAML_BRIDGE_FETCH_ALLOW"] = ""
    refused = fetching.run("metadata", "refresh", BILLER, "aquahawk", code=1)
    assert "fetch-address" in refused.stdout or "fetch-scheme" in refused.stdout


def test_due_metadata_is_refreshed_for_cron(fetching: Shell) -> None:
    assert fetching.run("metadata", "refresh", "--due").stdout == f"{BILLER}/aquahawk: unchanged\n"
    assert fetching.run("metadata", "refresh", "--due").stdout == "nothing is due\n"


def test_what_is_not_fetched_has_nothing_to_refresh(published: Shell) -> None:
    assert published.run("metadata", "refresh").stdout == "no partner has a metadata_url or mdq_url\n"
    assert "metadata-not-fetched" in published.run("metadata", "refresh", BILLER, "aquahawk", code=1).stderr
