"""The routes in Litestar."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, MediaType, Request, Response, WebSocket, get, head, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import Cookie, UploadFile
from litestar.exceptions import WebSocketDisconnect
from litestar.logging import LoggingConfig
from litestar.params import FromPath
from litestar.response import File, Redirect, ServerSentEvent, ServerSentEventMessage, Stream

from tests.e2e.frameworks.apps import common
from tests.e2e.frameworks.apps.common import Watched, notes


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    common.started()
    app.state.startup = "done"
    yield
    common.stopped()


@get("/", media_type=MediaType.TEXT)
async def home() -> str:
    return "hello"


@head("/", media_type=MediaType.TEXT)
async def home_head() -> Response[None]:
    return Response(None, headers={"Content-Length": "5"})


@get("/json", name="json")
async def json(request: Request[Any, Any, Any]) -> dict[str, str]:
    return {"hello": request.query_params["name"]}


@post("/json", status_code=200)
async def post_json(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return dict(await request.json())


@post("/form", status_code=200)
async def form(request: Request[Any, Any, Any]) -> dict[str, Any]:
    fields = await request.form()
    return {"name": fields["name"], "colours": fields.getall("colour")}


@post("/upload", status_code=200)
async def upload(request: Request[Any, Any, Any]) -> dict[str, Any]:
    fields = await request.form()
    file = fields["file"]
    assert isinstance(file, UploadFile)
    return {"filename": file.filename, "note": fields["note"], **common.digest(await file.read())}


@post("/count", status_code=200)
async def count(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return common.digest(b"".join([piece async for piece in request.stream()]))


@get("/stream/{key:str}")
async def stream(key: FromPath[str]) -> Stream:
    async def pieces() -> AsyncIterator[str]:
        yield "first\n"
        await common.passed(key)
        yield "second\n"

    return Stream(pieces(), media_type=MediaType.TEXT)


@get("/endless/{key:str}")
async def endless(key: FromPath[str]) -> Stream:
    async def pieces() -> AsyncIterator[bytes]:
        notes[key].append("begun")
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.005)
        finally:
            notes[key].append("ended")

    return Stream(pieces())


@get("/events")
async def events() -> ServerSentEvent:
    async def pieces() -> AsyncIterator[ServerSentEventMessage]:
        for number in range(3):
            yield ServerSentEventMessage(event="tick", data=str(number))

    return ServerSentEvent(pieces())


@post("/background/{key:str}", status_code=200)
async def background(key: FromPath[str]) -> Response[str]:
    async def task() -> None:
        await common.passed(key)
        notes[key].append("done")

    return Response("accepted", media_type=MediaType.TEXT, background=BackgroundTask(task))


@post("/gates/{key:str}", status_code=204)
async def open_gate(key: FromPath[str]) -> None:
    common.gates[key].set()


@get("/notes/{key:str}")
async def noted(key: FromPath[str]) -> list[str]:
    gc.collect()  # the framework leaves a generator that it cancels at its yield to the collector
    return notes[key]


@get("/startup")
async def startup(request: Request[Any, Any, Any]) -> dict[str, str]:
    return {"startup": request.app.state.startup, "variable": common.VARIABLE.get()}


@get("/meet/{key:str}", media_type=MediaType.TEXT, sync_to_thread=True)
def meet(key: FromPath[str]) -> str:
    common.meet(key)
    return "met"


@get("/file")
async def file() -> File:
    return File(common.FILE, filename="file", media_type="application/octet-stream")


@get("/cookies")
async def cookies(request: Request[Any, Any, Any]) -> Response[dict[str, str | None]]:
    return Response(
        {"seen": request.cookies.get("seen")},
        cookies=[Cookie("one", value="1"), Cookie("two", value="2", httponly=True)],
    )


@get("/redirect", status_code=303)
async def redirect(request: Request[Any, Any, Any]) -> Redirect:
    return Redirect(request.url_for("json") + "?name=redirected", status_code=303)


@get("/headers")
async def headers(request: Request[Any, Any, Any]) -> Response[dict[str, int]]:
    large = request.headers["x-large"]
    return Response({"size": len(large)}, headers={"X-Large": large})


@get("/fail")
async def fail() -> None:
    raise common.OnPurposeError("at once")


@get("/fail-late")
async def fail_late() -> Stream:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a part"
        raise common.OnPurposeError("late")

    return Stream(pieces())


@get("/where")
async def where(request: Request[Any, Any, Any]) -> dict[str, str]:
    scope = request.scope
    path = scope["raw_path"].decode()  # the framework takes the prefix off its scope's path
    return {"root_path": scope["root_path"], "path": path, "json": request.url_for("json")}


@websocket("/ws/{key:str}")
async def talk(socket: WebSocket[Any, Any, Any], key: FromPath[str]) -> None:
    await socket.accept(subprotocols="chat" if "chat" in socket.scope["subprotocols"] else None)
    try:
        while True:
            message: Any = await socket.receive()
            if message["type"] == "websocket.disconnect":
                notes[key].append(f"closed {message['code']}")
                return
            if message.get("text") == "bye":
                await socket.close(4001, "bye")
                return
            answer: Any = {**message, "type": "websocket.send"}
            await socket.send(answer)
    except WebSocketDisconnect as gone:
        notes[key].append(f"closed {gone.code}")


app = Watched(
    Litestar(
        [
            home,
            home_head,
            json,
            post_json,
            form,
            upload,
            count,
            stream,
            endless,
            events,
            background,
            open_gate,
            noted,
            startup,
            meet,
            file,
            cookies,
            redirect,
            headers,
            fail,
            fail_late,
            where,
            talk,
        ],
        lifespan=[lifespan],
        logging_config=LoggingConfig(log_exceptions="always"),  # by default a handler that fails is not logged at all
    )
)
