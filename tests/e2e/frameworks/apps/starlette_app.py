"""The routes in Starlette."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.e2e.frameworks.apps import common
from tests.e2e.frameworks.apps.common import Watched, notes


async def home(request: Request) -> Response:
    return PlainTextResponse("hello")


async def json(request: Request) -> Response:
    if request.method == "POST":
        return JSONResponse(await request.json())
    return JSONResponse({"hello": request.query_params["name"]})


async def form(request: Request) -> Response:
    async with request.form() as fields:
        return JSONResponse({"name": fields["name"], "colours": fields.getlist("colour")})


async def upload(request: Request) -> Response:
    async with request.form() as fields:
        file = fields["file"]
        assert isinstance(file, UploadFile)
        found = {"filename": file.filename, "note": fields["note"], **common.digest(await file.read())}
    return JSONResponse(found)


async def count(request: Request) -> Response:
    return JSONResponse(common.digest(b"".join([piece async for piece in request.stream()])))


async def stream(request: Request) -> Response:
    async def pieces() -> AsyncIterator[str]:
        yield "first\n"
        await common.passed(request.path_params["key"])
        yield "second\n"

    return StreamingResponse(pieces(), media_type="text/plain")


async def endless(request: Request) -> Response:
    key = request.path_params["key"]

    async def pieces() -> AsyncIterator[bytes]:
        notes[key].append("begun")
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.005)
        finally:
            notes[key].append("ended")

    return StreamingResponse(pieces())


async def events(request: Request) -> Response:
    async def pieces() -> AsyncIterator[str]:
        for event in common.EVENTS.split("\n\n")[:-1]:
            yield event + "\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def background(request: Request) -> Response:
    async def task(key: str) -> None:
        await common.passed(key)
        notes[key].append("done")

    return PlainTextResponse("accepted", background=BackgroundTask(task, request.path_params["key"]))


async def open_gate(request: Request) -> Response:
    common.gates[request.path_params["key"]].set()
    return Response(status_code=204)


async def noted(request: Request) -> Response:
    return JSONResponse(notes[request.path_params["key"]])


async def startup(request: Request) -> Response:
    return JSONResponse({"startup": request.state.startup, "variable": common.VARIABLE.get()})


def meet(request: Request) -> Response:
    common.meet(request.path_params["key"])
    return PlainTextResponse("met")


async def file(request: Request) -> Response:
    return FileResponse(common.FILE, media_type="application/octet-stream")


async def cookies(request: Request) -> Response:
    response = JSONResponse({"seen": request.cookies.get("seen")})
    response.set_cookie("one", "1")
    response.set_cookie("two", "2", httponly=True)
    return response


async def redirect(request: Request) -> Response:
    return RedirectResponse(str(request.url_for("json").include_query_params(name="redirected")), 303)


async def headers(request: Request) -> Response:
    large = request.headers["x-large"]
    return JSONResponse({"size": len(large)}, headers={"X-Large": large})


async def fail(request: Request) -> Response:
    raise common.OnPurposeError("at once")


async def fail_late(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a part"
        raise common.OnPurposeError("late")

    return StreamingResponse(pieces())


async def where(request: Request) -> Response:
    scope = request.scope
    return JSONResponse(
        {"root_path": scope["root_path"], "path": scope["path"], "json": str(request.url_for("json"))},
    )


async def talk(websocket: WebSocket) -> None:
    key = websocket.path_params["key"]
    await websocket.accept("chat" if "chat" in websocket.scope["subprotocols"] else None)
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            if message.get("text") == "bye":
                await websocket.close(4001, "bye")
                return
            await websocket.send({**message, "type": "websocket.send"})
    except WebSocketDisconnect as gone:
        notes[key].append(f"closed {gone.code}")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
    common.started()
    yield {"startup": "done"}
    common.stopped()


app = Watched(
    Starlette(
        lifespan=lifespan,
        routes=[
            Route("/", home),
            Route("/json", json, methods=["GET", "POST"]),
            Route("/form", form, methods=["POST"]),
            Route("/upload", upload, methods=["POST"]),
            Route("/count", count, methods=["POST"]),
            Route("/stream/{key}", stream),
            Route("/endless/{key}", endless),
            Route("/events", events),
            Route("/background/{key}", background, methods=["POST"]),
            Route("/gates/{key}", open_gate, methods=["POST"]),
            Route("/notes/{key}", noted),
            Route("/startup", startup),
            Route("/meet/{key}", meet),
            Route("/file", file),
            Route("/cookies", cookies),
            Route("/redirect", redirect),
            Route("/headers", headers),
            Route("/fail", fail),
            Route("/fail-late", fail_late),
            Route("/where", where),
            WebSocketRoute("/ws/{key}", talk),
        ],
    )
)
