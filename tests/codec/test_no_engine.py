"""The verdicts are the reader's own: they are the same under an engine that understands nothing, or everything."""

from __future__ import annotations

import pytest

from asgiri.build import COMPILED
from asgiri.codec.events import Body, Event, Failure
from asgiri.codec.framing import EngineError, RequestReader
from asgiri.codec.rules import HttpLimits, split_fields
from asgiri.types import Headers
from tests.codec.rows import (
    CHUNKED,
    GARBAGE,
    GOOD,
    SMALL,
    Row,
    head,
    request,
)
from tests.codec.rows_table import ACCEPTED, ENDED, REFUSED
from tests.codec.wire import dripped, feed, merged

each_row = pytest.mark.parametrize("row", [*ACCEPTED, *REFUSED, *ENDED], ids=lambda row: row.name[:60])
each_accepted = pytest.mark.parametrize("row", ACCEPTED, ids=lambda row: row.name[:60])
each_refused = pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name[:60])

GOOD_REQUEST = request(target=b"/good", headers=[(b"host", b"good")])
# What may come behind a request, and what it makes.
TRAILING: dict[bytes, list[Event]] = {
    GOOD: [GOOD_REQUEST],
    b"\r\n" + GOOD: [GOOD_REQUEST],
    GARBAGE: [Failure(400, "")],
    b"\r\n": [],
}

if COMPILED:
    pytest.skip("the reader is compiled: no engine of a test inherits from it", allow_module_level=True)


class Stubborn(RequestReader):
    """An engine that understands nothing that is approved."""

    def take_head(self, method: bytes, version: bytes, head: bytes, fields: bytes) -> Headers:
        raise EngineError


@pytest.mark.parametrize("data", [GOOD, CHUNKED + b"0\r\n\r\n"])
def test_what_an_engine_refuses_never_becomes_a_request(data: bytes) -> None:
    reader = Stubborn(HttpLimits())
    assert merged(reader.receive(data)) == [Failure(400, "")]
    assert reader.receive(data) == []


class Credulous(RequestReader):
    """An engine that understands everything."""

    def take_head(self, method: bytes, version: bytes, head: bytes, fields: bytes) -> Headers:
        return split_fields(fields)

    def take_body(self, data: bytes) -> None:
        self._events.append(Body(self._stream_id, data))


@each_refused
def test_the_verdict_is_the_rules_not_an_engine_s(row: Row) -> None:
    for pieces in ([row.data], dripped(row.data)):
        assert feed(Credulous(row.limits), pieces, row.eof)[-1] == row.events[-1]
        if len(row.events) == 1:  # refused for its head
            assert feed(Stubborn(row.limits), pieces, row.eof) == list(row.events)


@each_accepted
def test_what_the_rules_approve_needs_no_engine(row: Row) -> None:
    events = feed(Credulous(row.limits), [row.data])
    assert [event for event in events if not isinstance(event, Body)] == [
        event for event in row.events if not isinstance(event, Body)
    ]


@pytest.mark.parametrize(("data", "status"), [(head(b"GET / HTTP/2.0"), 505), (head(b"GET /" + b"p" * 41), 414)])
def test_the_verdict_of_the_rules_comes_before_an_engine_s(data: bytes, status: int) -> None:
    (failure,) = Stubborn(SMALL).receive(data)
    assert isinstance(failure, Failure)
    assert failure.status == status
