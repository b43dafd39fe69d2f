"""From HTTP/1.1 to HTTP/2 within a connection: Upgrade: h2c (RFC 7540 section 3.2, which RFC 9113 has dropped)."""

from __future__ import annotations

from collections.abc import Sequence

from asgiri.codec.events import Event, Request
from asgiri.codec.h2_wire import PREFACE
from asgiri.codec.h2c import asked_settings, upgraded
from asgiri.proto.http2 import Http2Connection
from asgiri.proto.http11 import Http11Connection
from asgiri.proto.http11_life import CLOSED, LINGERING, Signal

# RFC 9110 section 7.8: who waits for a 100 gets it before the 101.
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class UpgradableConnection(Http11Connection):
    """An HTTP/1.1 connection that becomes one of HTTP/2 when a request asks for it.

    What it cannot, or will not, take is ignored, and the request is one like any other.
    """

    __slots__ = ()

    def _handle(self, events: list[Event]) -> None:
        for place, event in enumerate(events):
            if isinstance(event, Request) and self._upgrade(event, events[place + 1 :]):
                return
            super()._handle([event])

    def _begin(self, request: Request) -> None:
        if not self._upgrade(request, ()):
            super()._begin(request)

    def _upgrade(self, request: Request, events: Sequence[Event]) -> bool:
        """Let HTTP/2 take over, with the request and the ``events`` behind it, if it is asked for and may."""
        settings = asked_settings(request)
        if settings is None or self._state is LINGERING or self._state is CLOSED:
            return False
        if self._gate is not None and self._gate.trusted:
            return False  # no proxy asks for it: its client does, and would speak past it, in a trusted peer's name
        if self.shared.draining or self._peer_ended or not self._may_change():
            return False
        self._read(True)
        if request.expect_continue:
            self.write(CONTINUE)
            request.expect_continue = False
        request = upgraded(request)
        if Http2Connection.upgraded(self, self._codec, settings, request, events, self._requests) is None:
            return False
        self._move(Signal.CLOSED)  # for HTTP/1.1: nothing reaches this object any more
        return True

    def _may_change(self) -> bool:
        """Whether nothing but HTTP/2 has come behind the request: what was pipelined is HTTP/1.1, and stays it."""
        behind = self._codec.rest if self._codec.pending else b""
        return PREFACE.startswith(behind[: len(PREFACE)])
