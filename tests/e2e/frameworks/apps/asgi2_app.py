"""The routes in plain ASGI 2: a class that is made with the scope, and awaited with receive and send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from email.parser import BytesParser
from email.policy import HTTP
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from asgiri.types import Receive, Scope, Send
from tests.e2e.frameworks.apps import common
from tests.e2e.frameworks.apps.common import notes


class App:
    def __init__(self, scope: Scope) -> None:
        if scope["type"] == "lifespan":
            raise ValueError("ASGI 2 has no lifespan")
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.receive: Receive
        self.send: Send

    async def __call__(self, receive: Receive, send: Send) -> None:
        self.receive, self.send = receive, send
        path = self.scope["path"].removeprefix(self.scope["root_path"])
        name, _, key = path[1:].partition("/")
        if self.scope["type"] == "websocket":
            await self.talk(key)
            return
        handle: Callable[[str], Awaitable[None]] | None = getattr(
            self, f"do_{(name or 'home').replace('-', '_')}", None
        )
        if handle is None:
            await self.answer(b"not found", status=404)
        else:
            await handle(key)

    # Tools

    async def body(self) -> bytes:
        body, more = b"", True
        while more:
            message = await self.receive()
            assert message["type"] == "http.request", message
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return body

    async def start(self, status: int, kind: bytes, *fields: tuple[bytes, bytes]) -> None:
        head = {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), *fields]}
        await self.send(head)

    async def answer(
        self, body: bytes, *fields: tuple[bytes, bytes], status: int = 200, kind: bytes = b"text/plain"
    ) -> None:
        await self.start(status, kind, *fields)
        await self.send({"type": "http.response.body", "body": body})

    async def json(self, what: Any, *fields: tuple[bytes, bytes]) -> None:
        await self.answer(json.dumps(what).encode(), *fields, kind=b"application/json")

    async def pour(self, pieces: AsyncIterator[bytes], kind: bytes = b"text/plain") -> None:
        await self.start(200, kind)
        async for piece in pieces:
            await self.send({"type": "http.response.body", "body": piece, "more_body": True})
        await self.send({"type": "http.response.body"})

    # Routes

    async def do_home(self, key: str) -> None:
        await self.answer(b"hello")

    async def do_json(self, key: str) -> None:
        if self.scope["method"] == "POST":
            await self.json(json.loads(await self.body()))
        else:
            await self.json({"hello": parse_qs(self.scope["query_string"].decode())["name"][0]})

    async def do_form(self, key: str) -> None:
        fields = parse_qs((await self.body()).decode())
        await self.json({"name": fields["name"][0], "colours": fields["colour"]})

    async def do_upload(self, key: str) -> None:
        head = b"content-type: " + self.headers[b"content-type"] + b"\r\n\r\n"
        parts: dict[Any, Any] = {}
        for part in BytesParser(policy=HTTP).parsebytes(head + await self.body()).iter_parts():
            parts[part.get_param("name", header="content-disposition")] = part
        note = parts["note"].get_payload(decode=True).decode()
        file = parts["file"]
        await self.json(
            {"filename": file.get_filename(), "note": note, **common.digest(file.get_payload(decode=True))},
        )

    async def do_count(self, key: str) -> None:
        await self.json(common.digest(await self.body()))

    async def do_stream(self, key: str) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"first\n"
            await common.passed(key)
            yield b"second\n"

        await self.pour(pieces())

    async def do_endless(self, key: str) -> None:
        notes[key].append("begun")
        await self.start(200, b"application/octet-stream")
        try:
            while True:
                await self.send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
                await asyncio.sleep(0.005)
        finally:
            notes[key].append("ended")

    async def do_events(self, key: str) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for event in common.EVENTS.split("\n\n")[:-1]:
                yield event.encode() + b"\n\n"

        await self.pour(pieces(), b"text/event-stream")

    async def do_background(self, key: str) -> None:
        await self.answer(b"accepted")
        await common.passed(key)
        notes[key].append("done")

    async def do_gates(self, key: str) -> None:
        common.gates[key].set()
        await self.answer(b"", status=204)

    async def do_notes(self, key: str) -> None:
        await self.json(notes[key])

    async def do_meet(self, key: str) -> None:
        await asyncio.to_thread(common.meet, key)
        await self.answer(b"met")

    async def do_file(self, key: str) -> None:
        with common.FILE.open("rb") as file:
            await self.start(200, b"application/octet-stream")
            await self.send({"type": "http.response.zerocopysend", "file": file})
        notes["file"].append("http.response.zerocopysend")

    async def do_cookies(self, key: str) -> None:
        seen = SimpleCookie(self.headers.get(b"cookie", b"").decode()).get("seen")
        both = ((b"set-cookie", b"one=1"), (b"set-cookie", b"two=2; HttpOnly"))
        await self.json({"seen": seen.value if seen else None}, *both)

    async def do_redirect(self, key: str) -> None:
        await self.answer(b"", (b"location", self.json_path().encode() + b"?name=redirected"), status=303)

    async def do_headers(self, key: str) -> None:
        large = self.headers[b"x-large"]
        await self.json({"size": len(large)}, (b"x-large", large))

    async def do_fail(self, key: str) -> None:
        raise common.OnPurposeError("at once")

    async def do_fail_late(self, key: str) -> None:
        await self.start(200, b"text/plain")
        await self.send({"type": "http.response.body", "body": b"a part", "more_body": True})
        raise common.OnPurposeError("late")

    async def do_where(self, key: str) -> None:
        address = f"{self.scope['scheme']}://{self.headers[b'host'].decode()}{self.json_path()}"
        await self.json({"root_path": self.scope["root_path"], "path": self.scope["path"], "json": address})

    def json_path(self) -> str:
        return f"{self.scope['root_path']}/json"

    async def talk(self, key: str) -> None:
        assert (await self.receive())["type"] == "websocket.connect"
        chosen = "chat" if "chat" in self.scope["subprotocols"] else None
        await self.send({"type": "websocket.accept", "subprotocol": chosen})
        while (message := await self.receive())["type"] == "websocket.receive":
            if message.get("text") == "bye":
                await self.send({"type": "websocket.close", "code": 4001, "reason": "bye"})
                return
            await self.send({**message, "type": "websocket.send"})
        notes[key].append(f"closed {message['code']}")


app = App
