"""The routes in Quart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from quart import Quart, Response, current_app, jsonify, make_response, redirect, request, send_file, url_for, websocket

from tests.e2e.frameworks.apps import common
from tests.e2e.frameworks.apps.common import Watched, notes

quart = Quart(__name__)
left: dict[str, str] = {}


@quart.before_serving
async def begin() -> None:
    common.started()
    left["startup"] = "done"


@quart.after_serving
async def end() -> None:
    common.stopped()


@quart.get("/")
async def home() -> Response:
    return Response("hello", mimetype="text/plain")


@quart.get("/json")
async def json() -> Response:
    return jsonify({"hello": request.args["name"]})


@quart.post("/json")
async def post_json() -> Response:
    return jsonify(await request.get_json())


@quart.post("/form")
async def form() -> Response:
    fields = await request.form
    return jsonify({"name": fields["name"], "colours": fields.getlist("colour")})


@quart.post("/upload")
async def upload() -> Response:
    fields, files = await request.form, await request.files
    file = files["file"]
    return jsonify({"filename": file.filename, "note": fields["note"], **common.digest(file.read())})


@quart.post("/count")
async def count() -> Response:
    return jsonify(common.digest(b"".join([piece async for piece in request.body])))


@quart.get("/stream/<key>")
async def stream(key: str) -> Response:
    async def pieces() -> AsyncIterator[str]:
        yield "first\n"
        await common.passed(key)
        yield "second\n"

    return Response(pieces(), mimetype="text/plain")


@quart.get("/endless/<key>")
async def endless(key: str) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        notes[key].append("begun")
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.005)
        finally:
            notes[key].append("ended")

    return Response(pieces())


@quart.get("/events")
async def events() -> Response:
    async def pieces() -> AsyncIterator[str]:
        for event in common.EVENTS.split("\n\n")[:-1]:
            yield event + "\n\n"

    return Response(pieces(), mimetype="text/event-stream")


@quart.post("/background/<key>")
async def background(key: str) -> Response:
    async def task() -> None:
        await common.passed(key)
        notes[key].append("done")

    current_app.add_background_task(task)
    return Response("accepted", mimetype="text/plain")


@quart.post("/gates/<key>")
async def open_gate(key: str) -> tuple[str, int]:
    common.gates[key].set()
    return "", 204


@quart.get("/notes/<key>")
async def noted(key: str) -> Response:
    return jsonify(notes[key])


@quart.get("/startup")
async def startup() -> Response:
    return jsonify({"startup": left["startup"], "variable": common.VARIABLE.get()})


@quart.get("/meet/<key>")
def meet(key: str) -> str:
    common.meet(key)
    return "met"


@quart.get("/file")
async def file() -> Response:
    return await send_file(common.FILE, "application/octet-stream")


@quart.get("/cookies")
async def cookies() -> Any:
    response = await make_response({"seen": request.cookies.get("seen")})
    response.set_cookie("one", "1")
    response.set_cookie("two", "2", httponly=True)
    return response


@quart.get("/redirect")
async def away() -> Any:
    return redirect(url_for("json", name="redirected", _external=True), 303)


@quart.get("/headers")
async def headers() -> Response:
    large = request.headers["X-Large"]
    response = jsonify({"size": len(large)})
    response.headers["X-Large"] = large
    return response


@quart.get("/fail")
async def fail() -> Response:
    raise common.OnPurposeError("at once")


@quart.get("/fail-late")
async def fail_late() -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a part"
        raise common.OnPurposeError("late")

    return Response(pieces())


@quart.get("/where")
async def where() -> Response:
    scope: Any = request.scope
    return jsonify(
        {"root_path": scope["root_path"], "path": scope["path"], "json": url_for("json", _external=True)},
    )


@quart.websocket("/ws/<key>")
async def talk(key: str) -> None:
    await websocket.accept(subprotocol="chat" if "chat" in websocket.requested_subprotocols else None)
    try:
        while True:
            message = await websocket.receive()
            if message == "bye":
                await websocket.close(4001, "bye")
                return
            await websocket.send(message)
    except asyncio.CancelledError:
        notes[key].append("closed")  # Quart does not tell the code
        raise


app = Watched(quart)
