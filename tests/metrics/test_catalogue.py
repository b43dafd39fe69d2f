"""The catalogue's words: each series has its own, and they fit into a slot; a config's certificates in their order."""

from __future__ import annotations

import pytest

from asgiri.config.schema import Config, Listen, SniPair, Tls
from asgiri.metrics.catalogue import (
    BUCKETS,
    EXITS,
    MASTER,
    MASTER_WORDS,
    WORKER,
    WORKER_WORDS,
    Kind,
    Metric,
    bucket,
    metric,
)
from asgiri.metrics.certificates import NamedCertificate, certificates_of
from asgiri.supervisor.scoreboard import Scoreboard


@pytest.mark.parametrize(("metrics", "words"), [(WORKER, WORKER_WORDS), (MASTER, MASTER_WORDS)])
def test_no_two_series_share_a_word(metrics: tuple[Metric, ...], words: int) -> None:
    taken = [
        word
        for one in metrics
        for labels in one.series
        for word in range(one.word(*labels), one.word(*labels) + one.width)
    ]
    assert sorted(taken) == list(range(words))
    assert len({one.name for one in metrics}) == len(metrics)
    assert all(metric(one.name) is one for one in metrics)


def test_all_words_are_on_the_board() -> None:
    board = Scoreboard(1)
    slot = board.take()
    assert slot is not None
    assert len(slot.cells) == WORKER_WORDS
    assert len(board.master.cells) == MASTER_WORDS


def test_a_word_that_is_none() -> None:
    with pytest.raises(ValueError, match="not in"):
        metric("requests").word("h2", "BREW", "2xx")
    with pytest.raises(KeyError):
        metric("requests_total")


@pytest.mark.parametrize(
    ("seconds", "place"), [(0.0, 0), (0.0005, 0), (0.00051, 1), (0.001, 1), (30.0, 14), (30.1, 15), (1e9, 15)]
)
def test_buckets_take_their_upper_bound(seconds: float, place: int) -> None:
    assert bucket(seconds) == place


def test_a_histogram_has_a_bucket_for_what_is_longer_and_the_sum() -> None:
    assert {one.width for one in WORKER if one.kind is Kind.HISTOGRAM} == {len(BUCKETS) + 2}


def test_the_reasons_of_the_fleet_are_those_of_the_metric() -> None:
    ((_, reasons),) = metric("worker_exits").labels
    assert reasons == EXITS


def test_certificates_in_the_order_of_the_listeners() -> None:
    sni = {"a.test": SniPair(certfile="a.pem", keyfile="a.key"), "*.b.test": SniPair(certfile="b.pem", keyfile="b.key")}
    config = Config(
        listen=(
            Listen(bind="127.0.0.1:1", tls=Tls(certfile="one.pem", sni=sni)),
            Listen(bind="127.0.0.1:2"),
            Listen(bind="unix:/run/three", tls=Tls(certfile="three.pem")),
        )
    )
    assert certificates_of(config) == [
        NamedCertificate("127.0.0.1:1", "", "one.pem"),
        NamedCertificate("127.0.0.1:1", "a.test", "a.pem"),
        NamedCertificate("127.0.0.1:1", "*.b.test", "b.pem"),
        NamedCertificate("unix:/run/three", "", "three.pem"),
    ]
    assert certificates_of(Config()) == []
