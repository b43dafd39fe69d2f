"""The meter, by table and by generated input: what goes in comes out, in the words of the catalogue."""

from __future__ import annotations

from bisect import bisect_left
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiri.metrics.catalogue import BUCKETS, METHODS, bucket
from asgiri.metrics.meter import FLUSH_REQUESTS, distribution
from tests.metrics.metered import Metered


@pytest.mark.parametrize(
    ("method", "status", "series"),
    [
        ("GET", 200, "GET 2xx"),
        ("HEAD", 304, "HEAD 3xx"),
        ("POST", 101, "POST 1xx"),
        ("PUT", 404, "PUT 4xx"),
        ("PATCH", 499, "PATCH 4xx"),
        ("DELETE", 599, "DELETE 5xx"),
        ("OPTIONS", 0, "OPTIONS left"),
        ("BREW", 200, "other 2xx"),
        ("get", 200, "other 2xx"),
        ("", 400, "other 4xx"),
        ("other", 999, "other 5xx"),  # no class of its own
    ],
)
@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_which_series_a_request_is_of(protocol: str, method: str, status: int, series: str) -> None:
    metered = Metered()
    requests = metered.meter.http1 if protocol == "http/1.1" else metered.meter.http2
    if status:
        requests.ended(method, status, perf_counter())
    else:
        requests.ended_in_pieces(method, status, perf_counter(), 0.0)
    assert metered.series("requests") == {f"{protocol} {series}": 1}
    assert metered.series("request_duration_seconds") == {protocol: 1}
    assert metered.series("request_first_byte_seconds") == ({protocol: 1} if status else {})


def test_an_answer_in_pieces_has_an_earlier_first_byte() -> None:
    metered = Metered()
    now = perf_counter()
    metered.meter.http1.ended_in_pieces("GET", 200, now - 20.0, now - 19.97)
    metered.meter.http1.ended("GET", 200, now - 3.0)
    duration = metered.buckets("request_duration_seconds", "http/1.1")
    first = metered.buckets("request_first_byte_seconds", "http/1.1")
    assert [place for place, number in enumerate(duration[:-1]) if number] == [bucket(3.0), bucket(20.0)]
    assert [place for place, number in enumerate(first[:-1]) if number] == [bucket(0.03), bucket(3.0)]
    assert duration[-1] == pytest.approx(23e6, rel=0.01)
    assert first[-1] == pytest.approx(3.03e6, rel=0.01)


@pytest.mark.parametrize("pieces", [False, True])
def test_a_batch_that_is_long_enough_is_counted_at_once(pieces: bool) -> None:
    metered = Metered()
    for number in range(FLUSH_REQUESTS):
        assert not any(metered.cells), number
        now = perf_counter()
        if pieces:
            metered.meter.http2.ended_in_pieces("GET", 200, now, now)
        else:
            metered.meter.http2.ended("GET", 200, now)
    assert sum(metered.cells) >= FLUSH_REQUESTS
    assert metered.series("requests") == {"h2 GET 2xx": FLUSH_REQUESTS}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*METHODS, "TRACE", ""]),
            st.sampled_from([0, 101, 200, 204, 301, 404, 500]),
            st.floats(0, 100),
            st.floats(0, 1),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_the_sums_add_up(ends: list[tuple[str, int, float, float, bool]]) -> None:
    metered = Metered()
    flushes = 0
    for method, status, took, part, flush in ends:
        now = perf_counter()
        if part or not status:
            metered.meter.http1.ended_in_pieces(method, status, now - took, now - took + took * part)
        else:
            metered.meter.http1.ended(method, status, now - took)
        if flush:
            flushes += 1
            metered.meter.flush()
    answered = sum(1 for _, status, *_ in ends if status)
    assert metered["requests"] == metered["request_duration_seconds"] == len(ends)
    assert metered["request_first_byte_seconds"] == answered
    assert metered.series("requests").get("http/1.1 GET left", 0) == sum(end[:2] == ("GET", 0) for end in ends)
    total = metered.buckets("request_duration_seconds", "http/1.1")[-1]
    assert sum(took for _, _, took, *_ in ends) * 1e6 - flushes - 1 <= total


@given(st.lists(st.one_of(st.floats(0, 60), st.sampled_from(BUCKETS))))
def test_a_distribution_is_what_each_one_says(seconds: list[float]) -> None:
    *counts, total = distribution(seconds)
    assert counts == [sum(bisect_left(BUCKETS, one) == place for one in seconds) for place in range(len(BUCKETS) + 1)]
    assert total == pytest.approx(sum(seconds) * 1e6, abs=1)


def test_what_somebody_else_counts_goes_on_from_there() -> None:
    """One meter after the other, in words that are not 0."""
    metered = Metered()
    metered.meter.add("sent_bytes", number=100)
    for value in (5, 5, 12):
        metered.meter.reached("sent_bytes", value)
    assert metered["sent_bytes"] == 112


def test_rare_things_by_their_names() -> None:
    metered = Metered()
    meter = metered.meter
    for reason in ("overload", "host", "malformed", "host"):
        meter.refuse(reason)
    for reason in ("tls", "proxy_header", "untrusted"):
        meter.refuse_connection(reason)
    meter.pause("limit")
    meter.pause("shortage")
    meter.add("certificate_swaps", "taken")
    assert metered.series("requests_refused") == {"overload": 1, "host": 2, "malformed": 1}
    assert metered.series("connections_refused") == {"tls": 1, "proxy_header": 1, "untrusted": 1}
    assert metered.series("accept_pauses") == {"limit": 1, "shortage": 1}
    assert metered.series("certificate_swaps") == {"taken": 1}
    with pytest.raises(ValueError, match="not in"):
        meter.refuse("weather")


def test_an_application_that_writes_over_the_words_breaks_nothing() -> None:
    metered = Metered()
    for place in range(len(metered.cells)):
        metered.cells[place] = 2**64 - 1
    metered.meter.http1.ended("GET", 200, perf_counter() - 5)
    metered.meter.http1.opened()
    metered.meter.late(0.5)
    metered.meter.refuse("host")
    metered.meter.flush()
