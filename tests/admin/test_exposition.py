"""/metrics, read back by the library's own parsers."""

from __future__ import annotations

from collections import Counter

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from asgiri import __version__
from asgiri.admin.exposition import Exposition, prefers_openmetrics
from asgiri.admin.families import Families
from asgiri.admin.pages import Question
from asgiri.config.schema import Config, Listen, SniPair, Tls
from asgiri.metrics.catalogue import MASTER, WORKER, metric
from asgiri.supervisor.scoreboard import State
from tests.admin.boards import Fake, count, observe

TLS = Tls(certfile="a.pem", keyfile="a.key", sni={'b"\\\n.example': SniPair(certfile="b.pem", keyfile="b.key")})
CONFIG = Config(app="shop.main:app", listen=(Listen(bind="127.0.0.1:0"), Listen(bind="127.0.0.1:1", tls=TLS)))
FORMATS = ["text", "openmetrics"]

Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


def families_of(fake: Fake) -> Families:
    return Families(fake.board, CONFIG, fake.clock_ns, fake.wall)


def scrape(fake: Fake, how: str) -> Found:
    """Value by name and labels; no sample comes twice, and no family."""
    exposition = Exposition(families_of(fake))
    accept = "application/openmetrics-text;version=1.0.0" if how == "openmetrics" else "*/*"
    text = exposition.page(Question(accept=accept)).body.decode()
    families = list((openmetrics_families if how == "openmetrics" else text_families)(text))
    assert not [name for name, times in Counter(family.name for family in families).items() if times > 1]
    samples = [(sample.name, frozenset(sample.labels.items())) for family in families for sample in family.samples]
    assert not [one for one, times in Counter(samples).items() if times > 1]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for one in families for sample in one.samples}


def of(found: Found, name: str, /, **labels: str) -> float:
    return found[f"asgiri_{name}", frozenset(labels.items())]


@pytest.mark.parametrize("how", FORMATS)
def test_workers_are_added_up_and_none_is_forgotten(how: str) -> None:
    fake = Fake()
    for slot, by in zip(fake.workers, (3, 4), strict=True):
        count(slot, "requests", "h2", "GET", "2xx", by=by)
        count(slot, "connections_open", "h2", by=by)
    fake.board.give_back(fake.workers[0])
    found = scrape(fake, how)
    assert of(found, "requests_total", protocol="h2", method="GET", status="2xx") == 7
    assert of(found, "requests_total", protocol="h2", method="GET", status="5xx") == 0
    assert of(found, "connections_open", protocol="h2") == 4  # those of the dead one are closed


@pytest.mark.parametrize("how", FORMATS)
def test_histograms_are_cumulative(how: str) -> None:
    fake = Fake()
    for slot in fake.workers:
        observe(slot, "request_duration_seconds", 0.0004, "h2", times=5)
        observe(slot, "request_duration_seconds", 0.2, "h2", times=2)
        observe(slot, "request_duration_seconds", 99.0, "h2")
    found = scrape(fake, how)
    name = "request_duration_seconds"
    assert [of(found, f"{name}_bucket", protocol="h2", le=le) for le in ("0.0005", "0.1", "0.25", "30.0", "+Inf")] == [
        10,
        10,
        14,
        14,
        16,
    ]
    assert of(found, f"{name}_count", protocol="h2") == 16
    assert of(found, f"{name}_sum", protocol="h2") == pytest.approx(2 * (0.002 + 0.4 + 99.0))


@pytest.mark.parametrize("how", FORMATS)
def test_all_of_the_catalogue_is_there(how: str) -> None:
    names = {name for name, _ in scrape(Fake(), how)}
    for one in (*WORKER, *MASTER):
        assert names & {f"asgiri_{one.name}{end}" for end in ("", "_total", "_bucket")}, one.name
    assert not [name for name in names if name.endswith("_created") or not name.startswith("asgiri_")]


@pytest.mark.parametrize("how", FORMATS)
def test_service_and_workers(how: str) -> None:
    fake = Fake()
    fake.board.master.generation = 2
    fake.board.master.count(metric("reloads").first)
    fake.board.master.expiries = [111, 222]
    fake.later(3)
    fake.workers[0].state = State.DRAINING
    fake.fork(1, generation=2)  # in the place of the first
    fake.now += 5 * 10**9  # and nobody has beaten since
    found = scrape(fake, how)
    assert of(found, "worker_generation", worker="1") == 2
    assert of(found, "worker_age_seconds", worker="2") == 8
    assert of(found, "worker_state", worker="2", state="stuck") == 1
    assert of(found, "workers", state="stuck") == 3
    assert of(found, "ready") == 0
    assert of(found, "generation") == 2
    assert of(found, "workers_wanted") == 2
    assert of(found, "reloads_total", result="done") == 1
    assert of(found, "certificate_expiry_seconds", listener="127.0.0.1:1", name="", certfile="a.pem") == 111
    assert (
        of(found, "certificate_expiry_seconds", listener="127.0.0.1:1", name='b"\\\n.example', certfile="b.pem") == 222
    )
    assert [
        dict(labels)["version"] for (name, labels), value in found.items() if name == "asgiri_info" and value == 1
    ] == [__version__]


def test_whatever_an_application_writes_over_it_there_is_an_answer() -> None:
    fake = Fake()
    for slot in fake.workers:
        for index in range(len(slot.cells)):
            slot.cells[index] = 2**64 - 1 - index
        slot._words[5] = slot._words[9] = 2**64 - 1
    assert scrape(fake, "text")
    assert scrape(fake, "openmetrics")


PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        (PROMETHEUS_3, True),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("text/plain, application/openmetrics-text;q=0.5", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.0, text/plain;q=0", False),
        ("application/openmetrics-text;version=1.x", True),
        ("application/openmetrics-text;q=nan", False),
        (";;,,;q=,\xe9" * 500, False),
    ],
)
def test_who_asks_gets_the_format_that_is_liked(accept: str, openmetrics: bool) -> None:
    assert prefers_openmetrics(accept) is openmetrics
    body = Exposition(families_of(Fake())).page(Question(accept=accept)).body
    assert body.endswith(b"# EOF\n") is openmetrics
