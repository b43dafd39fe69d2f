"""The verdicts are the reader's own: they are the same under an engine that understands nothing, or everything."""

from __future__ import annotations

import pytest

from asgiri.build import COMPILED
from asgiri.codec.events import Body, Failure
from asgiri.codec.framing import EngineError, RequestReader
from asgiri.codec.rules import HttpLimits, split_fields
from asgiri.types import Headers
from tests.codec.rows import (
    CHUNKED,
    GOOD,
    SMALL,
    Row,
    head,
)
from tests.codec.rows_table import ACCEPTED, REFUSED
from tests.codec.tables import about, in_parts
from tests.codec.wire import dripped, feed, merged

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


@in_parts(REFUSED)
def test_the_verdict_is_the_rules_not_an_engine_s(rows: list[Row]) -> None:
    for row in rows:
        for pieces in ([row.data], dripped(row.data)):
            with about(row):
                assert feed(Credulous(row.limits), pieces, row.eof)[-1] == row.events[-1]
                if len(row.events) == 1:  # refused for its head
                    assert feed(Stubborn(row.limits), pieces, row.eof) == list(row.events)


@in_parts(ACCEPTED)
def test_what_the_rules_approve_needs_no_engine(rows: list[Row]) -> None:
    for row in rows:
        with about(row):
            events = feed(Credulous(row.limits), [row.data])
            assert [event for event in events if not isinstance(event, Body)] == [
                event for event in row.events if not isinstance(event, Body)
            ]


@pytest.mark.parametrize(("data", "status"), [(head(b"GET / HTTP/2.0"), 505), (head(b"GET /" + b"p" * 41), 414)])
def test_the_verdict_of_the_rules_comes_before_an_engine_s(data: bytes, status: int) -> None:
    (failure,) = Stubborn(SMALL).receive(data)
    assert isinstance(failure, Failure)
    assert failure.status == status
