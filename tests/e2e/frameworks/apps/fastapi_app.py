"""The routes in FastAPI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import (
    BackgroundTasks,
    Body,
    Cookie,
    FastAPI,
    Form,
    Header,
    Request,
    UploadFile,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)

from tests.e2e.frameworks.apps import common
from tests.e2e.frameworks.apps.common import Watched, notes


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    common.started()
    yield {"startup": "done"}
    common.stopped()


api = FastAPI(lifespan=lifespan)


@api.api_route("/", methods=["GET", "HEAD"], response_class=PlainTextResponse)
async def home() -> str:
    return "hello"


@api.get("/json")
async def json(name: str) -> dict[str, str]:
    return {"hello": name}


@api.post("/json")
async def post_json(what: Annotated[Any, Body()]) -> Any:
    return what


@api.post("/form")
async def form(name: Annotated[str, Form()], colour: Annotated[list[str], Form()]) -> dict[str, Any]:
    return {"name": name, "colours": colour}


@api.post("/upload")
async def upload(file: UploadFile, note: Annotated[str, Form()]) -> dict[str, Any]:
    return {"filename": file.filename, "note": note, **common.digest(await file.read())}


@api.post("/count")
async def count(request: Request) -> dict[str, Any]:
    return common.digest(b"".join([piece async for piece in request.stream()]))


@api.get("/stream/{key}")
async def stream(key: str) -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        yield "first\n"
        await common.passed(key)
        yield "second\n"

    return StreamingResponse(pieces(), media_type="text/plain")


@api.get("/endless/{key}")
async def endless(key: str) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        notes[key].append("begun")
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.005)
        finally:
            notes[key].append("ended")

    return StreamingResponse(pieces())


@api.get("/events")
async def events() -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        for event in common.EVENTS.split("\n\n")[:-1]:
            yield event + "\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


@api.post("/background/{key}", response_class=PlainTextResponse)
async def background(key: str, tasks: BackgroundTasks) -> str:
    async def task() -> None:
        await common.passed(key)
        notes[key].append("done")

    tasks.add_task(task)
    return "accepted"


@api.post("/gates/{key}", status_code=204)
async def open_gate(key: str) -> None:
    common.gates[key].set()


@api.get("/notes/{key}")
async def noted(key: str) -> list[str]:
    return notes[key]


@api.get("/startup")
async def startup(request: Request) -> dict[str, str]:
    return {"startup": request.state.startup, "variable": common.VARIABLE.get()}


@api.get("/meet/{key}", response_class=PlainTextResponse)
def meet(key: str) -> str:
    common.meet(key)
    return "met"


@api.get("/file")
async def file() -> FileResponse:
    return FileResponse(common.FILE, media_type="application/octet-stream")


@api.get("/cookies")
async def cookies(response: Response, seen: Annotated[str | None, Cookie()] = None) -> dict[str, str | None]:
    response.set_cookie("one", "1")
    response.set_cookie("two", "2", httponly=True)
    return {"seen": seen}


@api.get("/redirect")
async def redirect(request: Request) -> RedirectResponse:
    return RedirectResponse(str(request.url_for("json").include_query_params(name="redirected")), 303)


@api.get("/headers")
async def headers(x_large: Annotated[str, Header()]) -> JSONResponse:
    return JSONResponse({"size": len(x_large)}, headers={"X-Large": x_large})


@api.get("/fail")
async def fail() -> None:
    raise common.OnPurposeError("at once")


@api.get("/fail-late")
async def fail_late() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a part"
        raise common.OnPurposeError("late")

    return StreamingResponse(pieces())


@api.get("/where")
async def where(request: Request) -> dict[str, str]:
    scope = request.scope
    return {"root_path": scope["root_path"], "path": scope["path"], "json": str(request.url_for("json"))}


@api.websocket("/ws/{key}")
async def talk(websocket: WebSocket, key: str) -> None:
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


app = Watched(api)
