"""The request that HTTP/2 began with: it, and its body, come over HTTP/1.1 (RFC 7540 section 3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from asgiri.asgi.session import Session
from asgiri.codec.contract import Http1Codec
from asgiri.codec.events import Body, End, Event
from asgiri.proto.connection import HIGH_WATER
from asgiri.proto.http2_exchange import Exchange
from asgiri.proto.http2_life import RECEIVING

if TYPE_CHECKING:
    from asgiri.proto.http2 import Http2Connection


# How much goes out behind the 101 before the client's preface is here, in bytes: curl 7.88 has no room for more.
FIRST: Final = 8 << 10

SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"


class UpgradedExchange(Exchange):
    """Stream 1. HTTP/2's windows do not hold for its body: the transport's reading is its pace."""

    __slots__ = ("pace",)

    pace: UpgradedBody | None

    def body_consumed(self, session: Session, size: int) -> None:
        del session, size
        if self.pace is not None:
            self.pace.adjust()

    def _owes_room(self) -> bool:
        return self.session.buffered > HIGH_WATER


class UpgradedBody:
    """Reads the body with the codec of HTTP/1.1, up to where HTTP/2 begins."""

    __slots__ = ("_codec", "_connection", "_exchange", "_has_begun", "_reading", "_switched", "is_over")

    def __init__(self, connection: Http2Connection, codec: Http1Codec, exchange: UpgradedExchange) -> None:
        self._connection = connection
        self._codec = codec
        self._exchange = exchange
        self._reading = True
        self._switched = False  # the 101 is out
        self.is_over = False  # the request is whole, the client's preface is due
        self._has_begun = False  # HTTP/2 has said all that it may before that is here
        exchange.pace = self

    def switch(self) -> None:
        """Send the 101, which goes before all that is HTTP/2's."""
        if not self._switched:
            self._switched = True
            self._connection.write(SWITCHING)

    def lets_out(self) -> bool:
        """Whether HTTP/2 may write what it has.

        The 101 waits for the end of the body: curl, once it has read it, leaves the rest of a body unsent. Not so where
        the application waits until some of its answer has gone, for it may not read on before.
        """
        codec = self._connection.codec
        if not self.is_over:
            self.adjust()  # the application may have answered, and read no more
            if not self._switched and codec.held(self._exchange.number) > HIGH_WATER:
                self.switch()
            return self._switched
        if codec.in_head and not self._has_begun:
            self._has_begun = True
            self._connection.write(codec.take(FIRST))
        return not codec.in_head

    @property
    def is_served(self) -> bool:
        """Somebody waits for the body; else there is only so much time for what is left of it."""
        return self._exchange.phase is RECEIVING

    def receive(self, data: bytes) -> bytes:
        """Take bytes; gives back those that are HTTP/2's."""
        return data if self.is_over else self.handle(self._codec.receive(data))

    def handle(self, events: Iterable[Event]) -> bytes:
        """The same for events of the HTTP/1.1 codec."""
        for event in events:
            if isinstance(event, Body):
                self._exchange.body(event.data)
            elif isinstance(event, End):
                if self.is_served:
                    self._connection.codec.upgraded_body(True)
                    self._exchange.end()
                return self.over()
            else:  # where its end is cannot be known any more
                self._connection.abort()
                return b""
        self.adjust()
        return b""

    def over(self) -> bytes:
        """The request is whole: the bytes behind it, HTTP/2's."""
        self.switch()
        self.is_over = True
        self._exchange.pace = None
        self._read(True)
        self._connection.preface_due()
        return self._codec.rest

    def adjust(self) -> None:
        """Read on, or not: the body waits for the application."""
        self._read(not self.is_served or self._exchange.session.buffered <= HIGH_WATER)

    def _read(self, on: bool) -> None:
        transport = self._connection.transport
        if on is self._reading or transport.is_closing():
            return
        self._reading = on
        if on:
            transport.resume_reading()
        else:
            transport.pause_reading()
