"""WebSockets on streams of HTTP/2 (RFC 8441): what takes an extended CONNECT for one."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from asgiri.asgi.answers import plain_answer
from asgiri.codec.events import Request
from asgiri.errors import HandshakeError
from asgiri.proto.http2_stream import HTTP2StreamTransport
from asgiri.proto.websocket import WebSocketProtocol, refuse_while_draining, run


class StreamWebSocket(WebSocketProtocol):
    """A WebSocket whose application runs from the moment that it has its stream."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        del transport
        assert self.session is not None
        run(self.session, self.shared)


def websocket_on(request: Request, transport: HTTP2StreamTransport) -> asyncio.Protocol:
    """The protocol of an extended CONNECT for ``websocket``; one that cannot be had is answered here."""
    shared, template = transport.shared, transport.template
    try:
        refuse_while_draining(shared, transport.is_first)
        protocol = StreamWebSocket(request, transport, template, shared)
    except HandshakeError as error:
        if shared.meter is not None and error.status < 500:
            shared.meter.refuse("malformed")
        headers, body = plain_answer(HTTPStatus(error.status), error.reason)
        transport.deny(error.status, [*headers, *error.headers], body)
        return asyncio.Protocol()
    transport.pause_reading()  # until it is accepted; its window bounds what waits
    return protocol
