"""The routes in BlackSheep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from blacksheep import (
    Application,
    Cookie,
    Request,
    Response,
    StreamedContent,
    WebSocket,
    WebSocketDisconnectError,
    text,
)
from blacksheep import (
    file as file_response,
)
from blacksheep import (
    json as json_response,
)

from tests.e2e.frameworks.apps import common
from tests.e2e.frameworks.apps.common import Watched, notes

sheep = Application()
router = sheep.router
left: dict[str, str] = {}
running: set[asyncio.Task[None]] = set()  # the framework has no background tasks


@sheep.on_start
async def begin(_: Application) -> None:
    common.started()
    left["startup"] = "done"


@sheep.on_stop
async def end(_: Application) -> None:
    common.stopped()


@router.get("/")
async def home() -> Response:
    return text("hello")


@router.head("/")
async def home_head() -> Response:
    return text("hello")


@router.get("/json")
async def json(name: str) -> Response:
    return json_response({"hello": name})


@router.post("/json")
async def post_json(request: Request) -> Response:
    return json_response(await request.json())


@router.post("/form")
async def form(request: Request) -> Response:
    fields: Any = await request.form()
    return json_response({"name": fields["name"], "colours": fields["colour"]})


@router.post("/upload")
async def upload(request: Request) -> Response:
    note, file = "", None
    for part in await request.multipart() or []:
        if part.name == b"file":
            file = part
        else:
            note = (part.data or b"").decode()
    assert file is not None
    return json_response({"filename": (file.file_name or b"").decode(), "note": note, **common.digest(file.data)})


@router.post("/count")
async def count(request: Request) -> Response:
    pieces: Any = request.stream()  # its annotation says something else
    return json_response(common.digest(b"".join([piece async for piece in pieces])))


@router.get("/stream/{key}")
async def stream(key: str) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first\n"
        await common.passed(key)
        yield b"second\n"

    return Response(200, content=StreamedContent(b"text/plain", pieces))


@router.get("/endless/{key}")
async def endless(key: str) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        notes[key].append("begun")
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.005)
        finally:
            notes[key].append("ended")

    return Response(200, content=StreamedContent(b"application/octet-stream", pieces))


@router.get("/events")
async def events() -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for event in common.EVENTS.split("\n\n")[:-1]:
            yield event.encode() + b"\n\n"

    return Response(200, content=StreamedContent(b"text/event-stream", pieces))


@router.post("/background/{key}")
async def background(key: str) -> Response:
    async def task() -> None:
        await common.passed(key)
        notes[key].append("done")

    begun = asyncio.create_task(task())
    running.add(begun)
    begun.add_done_callback(running.discard)
    return text("accepted")


@router.post("/gates/{key}")
async def open_gate(key: str) -> Response:
    common.gates[key].set()
    return Response(204)


@router.get("/notes/{key}")
async def noted(key: str) -> Response:
    return json_response(notes[key])


@router.get("/startup")
async def startup() -> Response:
    return json_response({"startup": left["startup"], "variable": common.VARIABLE.get()})


@router.get("/meet/{key}")
async def meet(key: str) -> Response:
    await asyncio.to_thread(common.meet, key)  # the framework runs plain functions in the loop
    return text("met")


@router.get("/file")
async def file() -> Response:
    return file_response(str(common.FILE), "application/octet-stream")


@router.get("/cookies")
async def cookies(request: Request) -> Response:
    response = json_response({"seen": request.cookies.get("seen")})
    response.set_cookie(Cookie("one", "1"))
    response.set_cookie(Cookie("two", "2", http_only=True))
    return response


@router.get("/redirect")
async def redirect(request: Request) -> Response:
    return Response(303, [(b"Location", f"{request.base_path}/json?name=redirected".encode())])


@router.get("/headers")
async def headers(request: Request) -> Response:
    large = request.headers.get_first(b"x-large")
    assert large is not None
    response = json_response({"size": len(large)})
    response.headers.set(b"X-Large", large)
    return response


@router.get("/fail")
async def fail() -> Response:
    raise common.OnPurposeError("at once")


@router.get("/fail-late")
async def fail_late() -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a part"
        raise common.OnPurposeError("late")

    return Response(200, content=StreamedContent(b"application/octet-stream", pieces))


@router.get("/where")
async def where(request: Request) -> Response:
    scope: Any = request.scope
    address = f"{request.scheme}://{request.host}{request.base_path}/json"
    return json_response({"root_path": scope["root_path"], "path": scope["path"], "json": address})


@router.ws("/ws/{key}")
async def talk(websocket: WebSocket, key: str) -> None:
    scope: Any = websocket.scope
    await websocket.accept(subprotocol="chat" if "chat" in scope["subprotocols"] else None)
    try:
        while True:
            message: Any = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                notes[key].append(f"closed {message['code']}")
                return
            if message.get("text") == "bye":
                await websocket.close(4001, "bye")
                return
            await websocket._send({**message, "type": "websocket.send"})
    except WebSocketDisconnectError as gone:
        notes[key].append(f"closed {gone.code}")


app = Watched(sheep)
