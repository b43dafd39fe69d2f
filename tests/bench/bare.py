"""A point of reference: httptools on uvloop with response bytes made by hand. No ASGI, no limits, no timeouts.

``python bare.py PORT`` answers every request with the hello text. What an ASGI server of Python loses to this is what
its correctness and its ASGI side cost.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from email.utils import formatdate
from typing import cast

import httptools
import uvloop

HELLO = b"Hello, world!"


class Clock:
    """The response bytes; the Date field is as old as a second."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.tick()

    def tick(self) -> None:
        date = formatdate(time.time(), usegmt=True).encode()
        head = b"HTTP/1.1 200 OK\r\ndate: %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n" % (date, len(HELLO))
        self.keep = head + b"\r\n" + HELLO
        self.close = head + b"connection: close\r\n\r\n" + HELLO
        self._loop.call_later(1.0, self.tick)


class Bare(asyncio.Protocol):
    """One connection."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_complete(self) -> None:
        if self._parser.should_keep_alive():
            self._transport.write(self._clock.keep)
        else:
            self._transport.write(self._clock.close)
            self._transport.close()


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    clock = Clock(loop)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Bare(clock), "127.0.0.1", port, backlog=2048)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
