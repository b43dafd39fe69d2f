"""The HTTP/2 connection: many exchanges at once, each on a stream of its own, on one transport (RFC 9113).

Its life, states and signals and the tables of them, is in http2_life.py; how answers leave it, and how it ends, in
http2_ends.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from asgiri.asgi.scope import http_scope, scope_template
from asgiri.codec.contract import Http1Codec
from asgiri.codec.events import Body, End, Event, Failure, GoAway, PingAck, Refused, Request, Reset
from asgiri.proto.connection import Connection, Shared
from asgiri.proto.exchange import EAGER, NOT_OURS, PEER_LEFT, RETRY_SOON, VERSIONS, start
from asgiri.proto.http2_ends import LAST_PING, Http2Ends
from asgiri.proto.http2_exchange import Exchange
from asgiri.proto.http2_life import (
    ANSWERING,
    CLOSED,
    HELD,
    LINGERING,
    OPEN,
    RECEIVING,
    WARNED,
    Signal,
)
from asgiri.proto.http2_stream import HTTP2StreamTransport
from asgiri.proto.http2_upgrade import UpgradedBody, UpgradedExchange
from asgiri.types import Scope

if TYPE_CHECKING:
    from asgiri.proto.edge import Gate


class Http2Connection(Http2Ends):
    """One HTTP/2 connection: moves bytes between transport and codec, and events between codec and streams."""

    __slots__ = ("_earlier", "_gate", "_late", "read_at", "requests", "template")

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.template: dict[str, Any] = {}  # of the requests' scopes
        self._gate: Gate | None = None  # where the peer may be a proxy, or requests be for hosts that are not ours
        self.requests = 0
        self._earlier = 0  # requests of the connection that came over HTTP/1.1, before stream 1
        self._late: list[Exchange] = []  # exchanges that begin once all events are told
        self.read_at = 0.0  # when the last bytes came, by perf_counter

    def connected(self) -> None:
        shared = self.shared
        self.template = scope_template(self.peers, shared.context)
        self._name = shared.name_of(self._serial)
        if shared.edge is not None:
            self._gate = shared.edge.gate(self.peers, self.template)
        self.flush_soon()  # the server's preface, unless there is more to say by then (RFC 9113 section 3.4)

    # The upgrade from HTTP/1.1

    @classmethod
    def upgraded(
        cls,
        before: Connection,
        codec: Http1Codec,
        settings: bytes,
        request: Request,
        events: Sequence[Event],
        earlier: int = 0,
    ) -> Http2Connection | None:
        """Go on over HTTP/2 after ``request``, which becomes stream 1 (RFC 7540 section 3.2); says the 101, too.

        ``before`` must be reading, and must not touch its transport any more. ``settings`` is the payload decoded from
        HTTP2-Settings. ``codec`` is the one of HTTP/1.1: it still brings the request's body, and ``events`` are what it
        has brought behind the request already. ``earlier`` is how many requests the connection has had before. None,
        and nothing has happened, when these settings are none.
        """
        connection = cls(before.shared)
        if any(type(event) is Failure for event in connection.codec.upgrade(settings, request)):
            return None
        connection._earlier = earlier
        connection.take_over(before)
        connection._begin_upgraded(codec, request, events)
        return connection

    def _begin_upgraded(self, codec: Http1Codec, request: Request, events: Sequence[Event]) -> None:
        self.due = True
        self.read_at = self._due_since = perf_counter()
        self.requests += 1
        template = self._admit(request)
        exchange = UpgradedExchange(self, request, {} if template is None else self._scope(request, template))
        body = self._upgrading = UpgradedBody(self, codec, exchange)
        self._run(exchange, template is not None)
        rest = body.over() if request.end_stream else body.handle(events)
        if rest:
            self.received -= len(rest)  # which is told again
            self.data_received(rest)
        else:
            self._flush_after(1)

    def preface_due(self) -> None:
        """Stream 1 is whole: what comes now is HTTP/2's, the client's preface first."""
        self._head_since = self.shared.now
        self.flush_soon()

    # Bytes in

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state is LINGERING or state is CLOSED:
            return
        self.received += len(data)
        if self._upgrading is not None:
            data = self._upgrading.receive(data)
            if not data:
                return
        before = self.requests
        self.due = True  # what these bytes bring about leaves together
        self.read_at = self._due_since = perf_counter()
        try:
            self._handle(self.codec.receive(data))
        finally:
            self._flush_after(self.requests - before)

    def _flush_after(self, begun: int) -> None:
        """Flush, once the ``begun`` applications have got as far as they do without waiting."""
        if begun and not EAGER:
            self.shared.loop.call_soon(self.flush)
        else:
            self.flush()

    def _handle(self, events: list[Event]) -> None:
        streams = self.streams
        for event in events:
            kind = type(event)
            if kind is Request:
                self._begin(cast("Request", event))
            elif kind is Body:
                body = cast("Body", event)
                if body.stream_id in streams:
                    streams[body.stream_id].body(body.data)
            elif kind is End:
                number = cast("End", event).stream_id
                if number in streams:
                    streams[number].end()
            elif kind is Reset:
                number = cast("Reset", event).stream_id
                if number in streams:
                    streams[number].lost()
            else:
                self._handle_rare(event)
        if self._late:
            self._run_late()
        if events or self._head_since is None:
            self._head_since = self.shared.now if self.codec.in_head else None

    def _handle_rare(self, event: Event) -> None:
        match event:
            case Refused():
                self._refuse(event)
            case PingAck(data=data):
                if data == LAST_PING and self._state is WARNED:
                    self._finish()
            case GoAway():
                if self._state in (OPEN, WARNED, HELD):
                    self._finish()
            case Failure():  # its GOAWAY waits in the codec
                self._end()

    def eof_received(self) -> bool:
        """The peer sends nothing more. It may still read: what it asked for is answered, then the connection ends."""
        state = self._state
        if state is LINGERING or state is CLOSED or self._upgrading is not None or self.secure is not None:
            self._lose_streams()  # TLS ends as a whole: the transport takes no answer any more
            self._close()
            return False
        self.due = True
        self._handle(self.codec.receive(b""))
        if self._state is LINGERING:  # what it sent before was broken
            self._close()
            return False
        self._move(Signal.PEER_ENDED)
        for stream in list(self.streams.values()):
            stream.peer_ended()
        self.flush()
        return self._state is not CLOSED

    # Streams

    def _begin(self, request: Request) -> None:
        self.requests += 1
        shared = self.shared
        if shared.draining or 0 < shared.requests_per_connection <= self.requests:
            self.begin_drain()
        template = self._admit(request)
        if template is None:
            self._answer(request, HTTPStatus.BAD_REQUEST, NOT_OURS)
            return
        if request.protocol:
            self._begin_tunnel(request, template)
            return
        exchange = Exchange(self, request, self._scope(request, template))
        if EAGER and not request.end_stream:  # what is here of its body comes first: it need not wait for that
            self.streams[exchange.number] = exchange
            self._late.append(exchange)
        else:
            self._run(exchange)

    def _admit(self, request: Request) -> dict[str, Any] | None:
        """Name the request; what its scope begins as. None for one that is for a host of somebody else."""
        request.id = self._name + str(self._earlier + request.stream_id)
        if self._gate is None:
            return self.template
        template = self._gate.admit(request)
        if template is None and self.shared.meter is not None:
            self.shared.meter.refuse("host")
        return template

    def _scope(self, request: Request, template: dict[str, Any]) -> Scope:
        shared = self.shared
        scope = http_scope(request, template, shared.context)
        if shared.access_log is not None and shared.access_log.picks:
            scope["headers"] = request.headers.copy()  # the line shows what came, whatever the app does to its list
        return scope

    def _run_late(self) -> None:
        late, self._late = self._late, []
        for exchange in late:
            if exchange.phase is RECEIVING or exchange.phase is ANSWERING:  # else it is over already
                self._run(exchange)

    def _run(self, exchange: Exchange, is_ours: bool = True) -> None:
        shared = self.shared
        session = exchange.session
        self.streams[exchange.number] = exchange
        if not is_ours:
            session.answer(HTTPStatus.BAD_REQUEST, NOT_OURS)
            return
        if 0 < shared.requests <= len(shared.sessions):
            if shared.meter is not None:
                shared.meter.refuse("overload")
            session.answer(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at once", RETRY_SOON)
            return
        shared.sessions.add(session)
        session.task = start(shared.loop, session.run(), shared.base_context.copy())

    def _begin_tunnel(self, request: Request, template: dict[str, Any]) -> None:
        """An extended CONNECT (RFC 8441): for whoever knows its protocol."""
        make = self.shared.tunnels.get(request.protocol)
        if make is None:  # RFC 8441 leaves it open; RFC 9220 section 3 asks for 501
            self._answer(request, HTTPStatus.NOT_IMPLEMENTED, "this :protocol is not known here")
            return
        transport = HTTP2StreamTransport(self, request, template)
        self.streams[request.stream_id] = transport
        transport.begin(make(request, transport))

    def _refuse(self, refused: Refused) -> None:
        """Answer what is not to be served, and what never became a request or was told as one before."""
        status = HTTPStatus(refused.status)
        stream = self.streams.get(refused.stream_id)
        if stream is not None:
            stream.refuse(status, refused.reason)
        else:
            if self.shared.meter is not None:
                self.shared.meter.refuse("malformed")
            request = Request(refused.stream_id, "", b"", b"", b"", [], "2", True)
            request.id = self._name + str(self._earlier + refused.stream_id)
            self._answer(request, status, refused.reason)

    def _answer(self, request: Request, status: HTTPStatus, reason: str) -> None:
        """Answer without an application."""
        exchange = Exchange(self, request, {})
        self.streams[exchange.number] = exchange
        exchange.session.answer(status, reason)

    @property
    def is_first(self) -> bool:
        """Whether the request that came last is the only one so far."""
        return self._earlier + self.requests == 1

    def log(self, request: Request, status: int, size: int, began: float) -> None:
        """Put an exchange in the access log: ``status`` 0 is none, ``size`` bytes of content, ``began`` exactly."""
        log = self.shared.access_log
        if log is not None:
            log.record(
                request.client or self.client,
                request.method,
                request.target,
                VERSIONS[request.http_version],
                request.headers,
                status or PEER_LEFT,
                size,
                began,
                self._serial,
                self._earlier + request.stream_id,
                request.id,
            )
