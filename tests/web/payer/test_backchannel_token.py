"""Launches whose partner's server is asked meanwhile: the whole way, with its secret from the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lxml import html

from saml_bridge.app.wiring import open_bridge
from saml_bridge.network.breaker import FAILURES_TO_OPEN
from saml_bridge.storage.audit import Kind, Record, Search
from saml_bridge.storage.database import find_database
from tests.network.test_client import Server, Visit, serve
from tests.web.conftest import Browser, open_browser
from tests.web.payer.test_introspection import read_metric
from tests.world import BILLER, World

PASSWORD = "test-only-service-password"
TOKEN = "T-4711-hush"
LANDING = "https://app.itron.example/enter"
PATH = f"/launch/{BILLER}/hours"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        running.script = give_token
        yield running


def give_token(visit: Visit) -> None:
    visit.reply(json.dumps({"sessionToken": TOKEN}).encode())


def fail(visit: Visit) -> None:
    visit.reply(b"", status="500 Oh")


def add_itron(world: World, server: Server) -> None:
    """Publish a partner whose server is asked, with its secret, as revision 2."""
    settings = {
        "url": f"http://127.0.0.1:{server.port}/LoginSSO",
        "username": "riverton",
        "secret": "itron-service",
        "token_at": "/sessionToken",
        "landing_url": LANDING,
        "callback_parameter": "page",
    }
    rules = [{"attribute": "accountIds", "from": "account.number", "list": True}]
    link = {"slug": "hours", "label": "Hours", "partner": "itron", "mapping": "itron"}
    link["callback_uri"] = "https://app.itron.example/hours"
    world.biller["partners"].append(
        {"slug": "itron", "name": "Itron", "protocol": "backchannel_token", "backchannel_token": settings}
    )
    world.biller["mappings"].append({"slug": "itron", "rules": rules})
    world.biller["links"].append(link)
    world.bridge.partner_secrets.add(BILLER, "itron-service", PASSWORD, now=datetime.now(UTC))
    world.publish()


@pytest.fixture
def payer(world: World, server: Server, keys_dir: Path) -> Iterator[Browser]:
    """A payer who is signed in, at a service that may call servers of this machine."""
    add_itron(world, server)
    with open_browser(world, keys_dir, FETCH_ALLOW="127.0.0.0/8") as opened:
        opened.sign_in()
        yield opened


def list_records(world: World) -> list[Record]:
    return list(world.bridge.audit.search(Search(kind="payer:launch")))


@pytest.mark.both_databases("launch")
def test_the_browser_carries_what_the_server_gave(payer: Browser, server: Server) -> None:
    answer = payer.get(PATH)
    assert answer.status_code == 200
    [form] = html.fromstring(answer.text).forms
    assert (form.action, form.method) == (LANDING, "POST")
    assert dict(form.fields) == {"token": TOKEN, "page": "https://app.itron.example/hours"}
    assert "form-action https://app.itron.example" in answer.headers["Content-Security-Policy"]
    [visit] = server.visits
    assert json.loads(visit.body) == {"accountIds": [payer.world.session()["accounts"][0]["number"]]}


def test_the_record_of_it_has_neither_token_nor_secret_nor_values(
    payer: Browser, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    payer.get(PATH)
    server.script = fail
    payer.get(PATH)
    refused, issued = list_records(payer.world)
    assert (issued.entry.kind, issued.entry.partner, issued.entry.code) == (Kind.LAUNCH_ISSUED, "itron", "")
    assert (refused.entry.kind, refused.entry.code) == (Kind.LAUNCH_REFUSED, "partner-status")
    told = repr([issued, refused]) + "".join(capfd.readouterr())
    assert "partner-status" in told
    for hidden in (TOKEN, PASSWORD, payer.world.session()["accounts"][0]["number"], "LoginSSO"):
        assert hidden not in told


def test_a_partner_that_fails_gets_the_payer_a_page_to_try_again(payer: Browser, server: Server) -> None:
    server.script = fail
    for _ in range(FAILURES_TO_OPEN + 2):
        answer = payer.get(PATH)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "30"
        [again] = html.fromstring(answer.text).xpath("//main//a[@class='button']/@href")
        assert again == PATH
    assert len(server.visits) == FAILURES_TO_OPEN
    assert list_records(payer.world)[0].entry.code == "partner-breaker-open"
    assert payer.get().status_code == 200, "other partners are asked nothing"


def test_whoever_runs_the_service_sees_how_calls_end(payer: Browser, server: Server) -> None:
    app = payer.client.application
    answered, failed = (f'saml_bridge_partner_calls_total{{result="{one}"}}' for one in ("answered", "partner-status"))
    before = read_metric(app, answered), read_metric(app, failed)
    payer.get(PATH)
    server.script = fail
    for _ in range(FAILURES_TO_OPEN):
        payer.get(PATH)
    assert (read_metric(app, answered), read_metric(app, failed)) == (before[0] + 1, before[1] + FAILURES_TO_OPEN)
    assert read_metric(app, "saml_bridge_partner_circuits_open") == 1


def change_words(world: World) -> None:
    world.biller["links"][1]["label"] = "Other words"


def change_landing(world: World) -> None:
    world.biller["partners"][1]["backchannel_token"]["landing_url"] = "https://new.itron.example/enter"


def change_mapping(world: World) -> None:
    world.biller["mappings"][1]["rules"].append({"attribute": "email", "from": "payer.email"})


@pytest.mark.parametrize(
    ("change", "calls", "place"),
    [
        (change_words, 1, LANDING),
        (change_landing, 1, "https://new.itron.example/enter"),
        (change_mapping, 2, LANDING),
    ],
)
def test_a_change_meanwhile_asks_the_partner_anew_only_if_it_changes_the_question(
    payer: Browser, server: Server, change: Callable[[World], None], calls: int, place: str
) -> None:
    publish_meanwhile(payer.world, server, change, then=give_token)
    [form] = html.fromstring(payer.get(PATH).text).forms
    assert form.action == place
    assert len(server.visits) == calls
    [record] = list_records(payer.world)
    assert record.entry.revision == 3


def test_a_failure_is_not_tried_anew_because_something_else_changed(payer: Browser, server: Server) -> None:
    publish_meanwhile(payer.world, server, change_words, then=fail)
    assert payer.get(PATH).status_code == 503
    assert len(server.visits) == 1
    [record] = list_records(payer.world)
    assert (record.entry.code, record.entry.revision) == ("partner-status", 3)


def publish_meanwhile(
    world: World, server: Server, change: Callable[[World], None], *, then: Callable[[Visit], None]
) -> None:
    """Have another process publish while the partner's server is asked for the first time."""

    def answer(visit: Visit) -> None:
        if len(server.visits) == 1:
            other = open_bridge(world.settings)
            change(world)
            world.publish(other)
            find_database(other.app).dispose()
        then(visit)

    server.script = answer


def test_b19_the_partners_server_is_told_nothing_in_a_session_that_has_ended(payer: Browser, server: Server) -> None:
    """The call comes before the record of the launch, which would refuse it."""
    assert payer.get(f"/logout/{BILLER}").status_code == 200
    answer = payer.get(PATH)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("https://pay.example/riverton/sign-in?")
    assert not server.visits
