"""The application that the WebSocket tests serve, in this process or as ``tests.websocket_app:app`` in a worker's."""

from __future__ import annotations

import asyncio
import sys

from asgiri.types import Message, Receive, Scope, Send
from tests.proto.fakes import reply

FLOOD = 200  # messages of ``/flood``,
PIECE = 1 << 17  # and the bytes of each: 25 MiB together, more than the kernel's buffers hold on loopback
TALK = 300  # messages that ``/talk`` sends while it receives as many
QUICK = 50  # turns of the loop that a send takes at most which waits for nobody


class Application:
    """Answers by path; keeps the scopes of its WebSockets, and how each of them ended, as (code, reason)."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.ends: list[tuple[int, str]] = []
        self.flooded = 0  # messages that ``/flood`` has sent
        self.stalled_at: int | None = None  # how many it had when it first had to wait
        self.heard: list[str] = []  # by ``/talk``
        self.released = asyncio.Event()  # ``/sluggish`` takes messages
        self.taken: list[bytes] = []  # by ``/sluggish``

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"], scope.get("path", ""):
            case "lifespan", _:
                for _ in range(2):
                    await send({"type": f"{(await receive())['type']}.complete"})
            case "http", path:
                await reply(send, f"{scope['http_version']} {path}".encode())
            case "websocket", path:
                self.scopes.append(scope)
                assert (await receive()) == {"type": "websocket.connect"}
                await getattr(self, path.strip("/").replace("-", "_"))(scope, receive, send)

    async def _echo(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "websocket.receive":
            try:
                await send({**message, "type": "websocket.send"})
            except OSError:  # the client has closed behind its message
                pass
        self._ended(message)

    async def _end(self, receive: Receive) -> None:
        """Take what is left until the WebSocket has ended."""
        message = await receive()
        while message["type"] != "websocket.disconnect":
            message = await receive()
        self._ended(message)

    def _ended(self, message: Message) -> None:
        self.ends.append((message["code"], message["reason"]))
        print("told", message["code"], message["reason"], file=sys.stderr, flush=True)

    async def echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send back what comes, on the first subprotocol that the client would speak."""
        await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
        await self._echo(receive, send)

    async def version(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ``echo``, but first say what it is spoken over."""
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": f"{scope['scheme']} {scope['http_version']}"})
        await self._echo(receive, send)

    async def close(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Close as the first message says: its code and its reason."""
        await send({"type": "websocket.accept"})
        code, _, reason = (await receive())["text"].partition(" ")
        await send({"type": "websocket.send", "text": "farewell"})
        await send({"type": "websocket.close", "code": int(code), "reason": reason})
        await self._end(receive)

    async def leave(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return without a word."""
        await send({"type": "websocket.accept"})
        await receive()

    async def fail(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await receive()
        raise RuntimeError("on purpose")

    async def fail_early(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("on purpose")

    async def refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close"})

    async def deny(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as HTTP does, with a body in pieces."""
        headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        for piece in (b"who ", b"are "):
            await send({"type": "websocket.http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "websocket.http.response.body", "body": b"you?"})

    async def talk(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Speak and listen at once."""
        await send({"type": "websocket.accept"})

        async def speak() -> None:
            for number in range(TALK):
                await send({"type": "websocket.send", "text": f"server {number}"})
                await asyncio.sleep(0)

        speaking = asyncio.create_task(speak())
        for _ in range(TALK):
            self.heard.append((await receive())["text"])
        await speaking
        await self._end(receive)

    async def sluggish(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take nothing until released, and then everything."""
        await send({"type": "websocket.accept"})
        await self.released.wait()
        while (message := await receive())["type"] == "websocket.receive":
            self.taken.append(message["bytes"])
        self._ended(message)

    async def flood(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send more than anybody can hold, numbered, and see when that begins to take time."""
        await send({"type": "websocket.accept"})
        for number in range(FLOOD):
            piece = number.to_bytes(4, "big") * (PIECE // 4)
            sending = asyncio.create_task(flood_with(send, piece))
            for _ in range(QUICK):
                await asyncio.sleep(0)
                if sending.done():
                    break
            else:
                self.stalled_at = number if self.stalled_at is None else self.stalled_at
            await sending
            self.flooded += 1
        await self._end(receive)


async def flood_with(send: Send, piece: bytes) -> None:
    await send({"type": "websocket.send", "bytes": piece})


app = Application()
