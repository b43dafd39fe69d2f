"""/status and its history: rates, percentiles, what is wrong; of boards whose time is injected."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from asgiri.admin.history import History
from asgiri.admin.status import Reporter, Status
from asgiri.admin.trouble import lasting
from asgiri.config.schema import Config, Listen, Tls
from asgiri.metrics.catalogue import BUCKETS, WORKER_WORDS, metric
from asgiri.metrics.change import Change, Quantiles, grown, quantile
from asgiri.supervisor.scoreboard import HISTORY_SECONDS, State
from tests.admin.boards import SECOND, Fake, count, observe

TLS = Config(app="shop:app", listen=(Listen(bind="127.0.0.1:1", tls=Tls(certfile="a.pem", keyfile="a.key")),))


class Told:
    """A service, looked at each second."""

    def __init__(self, fake: Fake, config: Config = TLS) -> None:
        self.fake = fake
        self.history = History(fake.board, fake.clock_ns, fake.wall)
        self.reporter = Reporter(fake.board, config, self.history, fake.clock_ns, fake.wall)
        self.history.sample()

    def second(self) -> None:
        self.fake.later()
        self.history.sample()

    @property
    def status(self) -> Status:
        return self.reporter.status()

    @property
    def troubles(self) -> list[tuple[str, str]]:
        return [(one.level, one.text) for one in self.status.troubles]


@pytest.mark.parametrize(
    ("counts", "share", "seconds"),
    [
        ({}, 0.5, None),
        ({0: 10}, 0.5, 0.00025),
        ({0: 10}, 1.0, 0.0005),
        ({3: 1}, 0.5, 0.00375),
        ({0: 50, 5: 50}, 0.5, 0.0005),
        ({0: 50, 5: 50}, 0.9, 0.01 + 0.015 * 0.8),
        ({15: 3}, 0.5, 30.0),
        ({0: 1, 15: 99}, 0.99, 30.0),
    ],
)
def test_a_quantile_lies_within_its_bucket(counts: dict[int, int], share: float, seconds: float | None) -> None:
    row = [counts.get(index, 0) for index in range(len(BUCKETS) + 1)]
    assert quantile(row, share) == (None if seconds is None else pytest.approx(seconds))


def test_counters_wrap_and_do_not_go_back() -> None:
    assert [grown(5, 7), grown(7, 5), grown(2**64 - 1, 1)] == [2, 0, 2]
    empty = [0] * WORKER_WORDS
    assert Change(empty, empty, 0.0).rate("requests") == 0
    assert Change(empty, empty, 1.0).quantiles("loop_lag_seconds") == Quantiles()


def test_rates_are_of_the_last_ten_seconds() -> None:
    told = Told(Fake())
    one, two = told.fake.workers
    for _ in range(20):
        count(one, "requests", "h2", "GET", "2xx", by=90)
        count(two, "requests", "http/1.1", "POST", "5xx", by=10)
        observe(one, "request_duration_seconds", 0.02, "h2", times=100)
        one._words[8] += 90
        told.second()
    status = told.status
    assert (status.rates.seconds, status.rates.requests, status.rates.errors) == (10, 100, 10)
    assert status.rates.by_status["2xx"] == 90
    assert status.latency.duration.p50 == pytest.approx(0.0175)
    assert status.latency.first_byte == Quantiles()
    assert status.totals.requests == 2000
    assert status.totals.by_protocol == {"http/1.1": 200, "h2": 1800}
    assert [(worker.number, worker.rate, worker.age) for worker in status.workers] == [(1, 90, 20), (2, 0, 20)]
    for _ in range(11):
        told.second()
    assert told.status.rates.requests == 0


def test_history_is_five_minutes_and_a_point_a_second() -> None:
    told = Told(Fake())
    for number in range(HISTORY_SECONDS + 20):
        count(told.fake.workers[0], "requests", "h2", "GET", "4xx", by=number)
        told.second()
    points = told.history.points()
    assert [point.requests_4xx for point in points] == list(range(20, HISTORY_SECONDS + 20))
    assert [point.second for point in points] == list(range(points[0].second, points[0].second + HISTORY_SECONDS))
    assert points[-1].at == told.fake.wall()
    assert [point.second for point in told.history.points(points[-3].second)] == [
        points[-2].second,
        points[-1].second,
    ]
    assert (points[-1].duration_p99, points[-1].serving) == (None, 2)


def test_the_next_admin_child_has_what_the_last_one_saw() -> None:
    told = Told(Fake())
    told.second()
    assert History(told.fake.board, told.fake.clock_ns).points() == told.history.points() != []


def test_a_pause_is_a_gap_and_no_burst() -> None:
    told = Told(Fake())
    told.second()
    count(told.fake.workers[0], "requests", "h2", "GET", "2xx", by=500)
    told.fake.later(9)
    told.second()
    first, last = told.history.points()
    assert last.second - first.second == 10
    assert last.requests_2xx == 50


def test_what_an_application_has_written_over_history_is_no_harm() -> None:
    told = Told(Fake())
    told.second()
    words = told.fake.board.history
    for index in range(len(words)):
        words[index] = math.nan if index % 3 else math.inf
    assert told.history.points() == []
    words[0] = told.fake.now // SECOND
    [point] = told.history.points()
    assert (point.requests_1xx, point.at) == (None, 0.0)
    assert told.status.service.ready


def test_nothing_is_wrong() -> None:
    told = Told(Fake())
    told.second()
    assert told.troubles == []
    assert told.status.service.state == "serving"


def test_a_stuck_worker_is_told_first() -> None:
    told = Told(Fake(4), replace(TLS, workers=replace(TLS.workers, heartbeat_timeout=0.0)))
    told.fake.later(7)
    told.fake.workers[1]._words[5] -= 7 * SECOND
    assert told.troubles == [
        (
            "bad",
            "Worker 2 (pid 102) has not turned its event loop for 7.0s; it is never replaced (heartbeat_timeout: 0).",
        ),
        ("warning", "3 of 4 workers serve."),
    ]
    told.fake.workers[1].state = State.BOOTING  # which may import for long
    assert told.troubles == [("warning", "3 of 4 workers serve; 1 is starting.")]


def test_what_else_may_be_wrong() -> None:
    told = Told(Fake(2))
    master = told.fake.board.master
    told.second()
    master.count(metric("worker_exits").word("crashed"))
    master.count(metric("worker_exits").word("scale"))
    told.second()
    assert told.troubles == [("warning", "1 worker has crashed, hung or failed to start in the last 1.0s.")]
    told = Told(Fake(2))
    for days, level, text in (
        (13.5, "warning", "ends in 13 days"),
        (0.2, "warning", "ends in 4h"),
        (-3.0, "bad", "has ended 3 days ago"),
    ):
        told.fake.board.master.expiries = [int(told.fake.wall() + days * 86400)]
        assert told.troubles == [(level, f"The certificate a.pem of 127.0.0.1:1 {text}.")]
    told.fake.board.master.expiries = [int(told.fake.wall() + 15 * 86400)]
    assert told.troubles == []
    count(told.fake.workers[0], "requests", "h2", "GET", "5xx", by=5)
    count(told.fake.workers[0], "requests", "h2", "GET", "2xx", by=20)
    told.second()
    assert told.troubles == [("warning", "20% of the last requests were answered with an error (5xx).")]


def test_a_service_that_is_not_ready_says_why() -> None:
    told = Told(Fake(2))
    master = told.fake.board.master
    master.draining = True
    assert told.troubles == [("note", "Not ready: the service is draining.")]
    master.draining, master.announced = False, False
    assert told.troubles[0][1].startswith("Not ready: the service is starting")
    master.announced, master.handed_over = True, True
    assert told.troubles == [("note", "Another master has taken over: what is left here drains.")]
    master.handed_over = False
    for slot in told.fake.workers:
        slot.state = State.BOOTING
    assert told.troubles == [("bad", "Not ready: less than half of the workers are serving (0 of 2).")]
    told.fake.now += 4 * SECOND
    assert told.troubles[0] == ("bad", "The master has been silent for 4.0s: nobody replaces a worker.")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0s"), (9.96, "10.0s"), (59, "59s"), (300, "5m"), (8000, "2h"), (2e6, "23 days")]
)
def test_how_long_is_said_as_people_do(seconds: float, text: str) -> None:
    assert lasting(seconds) == text
