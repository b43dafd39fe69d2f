"""What of Starlette's and FastAPI's behaviour depends on the server; /behind has a BaseHTTPMiddleware in front."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Annotated

import anyio
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from tests.e2e.frameworks.apps import common
from tests.e2e.frameworks.apps.common import notes

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Names(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        assert WHO.get() == "nobody", "the context of another request"
        WHO.set(request.url.path)
        return await call_next(request)


async def waits(request: Request) -> Response:
    """Looks for the disconnect, as is done between the steps of long work."""
    key = request.path_params["key"]
    notes[key].append("begun")
    while not await request.is_disconnected():
        await asyncio.sleep(0.005)
    notes[key].append("gone")
    return PlainTextResponse("to nobody")


async def takes(request: Request) -> Response:
    key = request.path_params["key"]
    try:
        async for piece in request.stream():
            if piece:
                notes[key].append("piece")
    except ClientDisconnect:
        notes[key].append("ClientDisconnect")
        raise
    return PlainTextResponse("whole")


async def pour(request: Request) -> Response:
    """More than the client takes: the server holds it up, and its send fails when the client has left."""
    key = request.path_params["key"]

    async def pieces() -> AsyncIterator[bytes]:
        notes[key].append("begun")
        try:
            while True:
                yield bytes(1 << 20)
        except GeneratorExit:
            notes[key].append("closed")
            raise
        except asyncio.CancelledError:
            notes[key].append("cancelled")
            raise

    return StreamingResponse(pieces())


async def scopes(request: Request) -> Response:
    """Cancel scopes and task groups around receive, and within the endpoint."""
    with anyio.move_on_after(0.02) as limit:
        while (await request.receive())["type"] != "http.disconnect":
            pass
    steps: list[int] = []

    async def step(number: int) -> None:
        await anyio.sleep(0)
        steps.append(number)

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(step, number)
    return JSONResponse({"timed out": limit.cancelled_caught, "steps": sorted(steps), "who": WHO.get()})


async def group_fails(request: Request) -> Response:
    async def fails() -> None:
        raise common.OnPurposeError("in a group")

    async with anyio.create_task_group() as group:
        group.start_soon(fails)
        await anyio.sleep_forever()
    raise AssertionError


async def task_fails(request: Request) -> Response:
    async def fails() -> None:
        raise common.OnPurposeError("in the background")

    return PlainTextResponse("whole", background=BackgroundTask(fails))


async def noted(request: Request) -> Response:
    return JSONResponse(notes[request.path_params["key"]])


api = FastAPI()


async def resource(key: str) -> AsyncIterator[str]:
    notes[key].append("opened")
    try:
        yield "resource"
    except common.OnPurposeError:
        notes[key].append("failed")
        raise
    finally:
        notes[key].append("closed")


Resource = Annotated[str, Depends(resource)]


@api.get("/uses/{key}")
async def uses(key: str, what: Resource) -> str:
    notes[key].append("used")
    return what


@api.get("/uses-and-fails/{key}")
async def uses_and_fails(key: str, what: Resource) -> str:
    raise common.OnPurposeError(f"with the {what}")


@api.get("/uses-in-stream/{key}")
async def uses_in_stream(key: str, what: Resource) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0.005)

    return StreamingResponse(pieces())


own = [Route("/scopes", scopes), Route("/group-fails", group_fails)]

app = Starlette(
    routes=[
        # Not behind the middleware: it hides a disconnect from is_disconnected, and leaves generators to the collector.
        Route("/waits/{key}", waits),
        Route("/pour/{key}", pour),
        Route("/takes/{key}", takes, methods=["POST"]),
        Route("/task-fails", task_fails),
        Route("/notes/{key}", noted),
        Mount("/api", api),
        Mount("/behind", routes=own, middleware=[Middleware(Names)]),
        *own,
    ],
)
