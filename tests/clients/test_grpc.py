"""gRPC's own client against an application that speaks gRPC by hand: messages in frames, the status in trailers.

The wire format is https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: five octets before each message
(compressed or not, and its length), ``grpc-status`` and ``grpc-message`` in the trailers, over HTTP/2 only.
"""

from __future__ import annotations

import asyncio
import queue

import grpc
import pytest

from asgiri.codec.engines import HTTP2_ENGINES
from asgiri.types import Receive, Scope, Send
from tests.clients.test_http2 import port_of, serving
from tests.pki import Pki
from tests.proto.fakes import in_loop
from tests.serving import MIB

each_engine = pytest.mark.parametrize("engine", HTTP2_ENGINES)
TYPE = (b"content-type", b"application/grpc")


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


async def calculator(scope: Scope, receive: Receive, send: Send) -> None:
    """``/calc/sum`` adds what is streamed to it, ``/calc/count`` streams, ``/calc/chat`` does both, all else fails."""
    head = {"type": "http.response.start", "status": 200}
    match scope["path"]:
        case "/calc/sum":
            total = 0
            async for message in Messages(receive):
                total += int(message)
            await send({**head, "headers": [TYPE], "trailers": True})
            await send({"type": "http.response.body", "body": framed(b"%d" % total), "more_body": False})
        case "/calc/count":
            [many] = [int(message) async for message in Messages(receive)]
            await send({**head, "headers": [TYPE], "trailers": True})
            for number in range(many):
                await send({"type": "http.response.body", "body": framed(b"%d" % number), "more_body": True})
            await send({"type": "http.response.body"})
        case "/calc/chat":
            await send({**head, "headers": [TYPE], "trailers": True})
            async for message in Messages(receive):
                await send({"type": "http.response.body", "body": framed(message[::-1]), "more_body": True})
            await send({"type": "http.response.body"})
        case _:  # the status alone, in the head, as "Trailers-Only"
            status = [(b"grpc-status", b"12"), (b"grpc-message", b"no such method: %C3%A9")]
            await send({**head, "headers": [TYPE, *status]})
            await send({"type": "http.response.body"})
            return
    trailers = [(b"grpc-status", b"0"), (b"grpc-message", b""), (b"x-used", b"hand")]
    await send({"type": "http.response.trailers", "headers": trailers})


class Messages:
    """The messages of a request's body, each as soon as it is whole."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._data = b""
        self._more = True

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> bytes:
        while len(self._data) < 5 or len(self._data) < 5 + int.from_bytes(self._data[1:5], "big"):
            if not self._more:
                assert self._data == b""
                raise StopAsyncIteration
            event = await self._receive()
            assert event["type"] == "http.request"
            self._data += event.get("body", b"")
            self._more = event.get("more_body", False)
        end = 5 + int.from_bytes(self._data[1:5], "big")
        message, self._data = self._data[5:end], self._data[end:]
        return message


def calls(channel: grpc.Channel) -> None:
    """All four kinds of call, and one that is not there."""
    with channel:
        add = channel.stream_unary("/calc/sum")
        answer, call = add.with_call(iter([b"1", b"20", b"300"]), timeout=20)
        assert answer == b"321"
        assert ("x-used", "hand") in call.trailing_metadata()
        assert [*channel.unary_stream("/calc/count")(b"100", timeout=20)] == [b"%d" % number for number in range(100)]

        words: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        talk = channel.stream_stream("/calc/chat")(iter(words.get, None), timeout=20)
        for word in (b"abc", b"xy" * (MIB // 2), b""):  # each is answered before the next one is sent
            words.put(word)
            assert next(talk) == word[::-1]
        words.put(None)
        assert list(talk) == []
        assert talk.code() == grpc.StatusCode.OK
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/calc/none")(b"", timeout=20)
        assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert raised.value.details() == "no such method: \u00e9"


@each_engine
@in_loop
async def test_every_kind_of_call(engine: str) -> None:
    async with serving(calculator, engine) as server:
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 4 * MIB)]
        await asyncio.to_thread(calls, grpc.insecure_channel(f"127.0.0.1:{port_of(server)}", options))


@each_engine
@in_loop
async def test_every_kind_of_call_over_tls(engine: str, pki: Pki) -> None:
    async with serving(calculator, engine, pki) as server:
        trusted = grpc.ssl_channel_credentials(pki.authority.cert_pem.bytes())
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 4 * MIB)]
        await asyncio.to_thread(calls, grpc.secure_channel(f"localhost:{port_of(server)}", trusted, options))
