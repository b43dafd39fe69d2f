"""The routes in Flask: a WSGI application, which asgiri serves in threads of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, jsonify, make_response, redirect, request, send_file, url_for

from tests.e2e.frameworks.apps import common
from tests.e2e.frameworks.apps.common import notes

app = Flask(__name__)


@app.get("/")
def home() -> Response:
    return Response("hello", mimetype="text/plain")


@app.get("/json")
def json() -> Response:
    return jsonify({"hello": request.args["name"]})


@app.post("/json")
def post_json() -> Response:
    return jsonify(request.get_json())


@app.post("/form")
def form() -> Response:
    return jsonify({"name": request.form["name"], "colours": request.form.getlist("colour")})


@app.post("/upload")
def upload() -> Response:
    file = request.files["file"]
    return jsonify({"filename": file.filename, "note": request.form["note"], **common.digest(file.read())})


@app.post("/count")
def count() -> Response:
    return jsonify(common.digest(request.stream.read()))


@app.get("/stream/<key>")
def stream(key: str) -> Response:
    def pieces() -> Iterator[str]:
        yield "first\n"
        common.passed_by_thread(key)
        yield "second\n"

    return Response(pieces(), mimetype="text/plain")


@app.get("/endless/<key>")
def endless(key: str) -> Response:
    def pieces() -> Iterator[bytes]:
        notes[key].append("begun")
        try:
            while True:
                yield b"x" * 1000
                common.pause()
        finally:
            notes[key].append("ended")

    return Response(pieces())


@app.get("/events")
def events() -> Response:
    def pieces() -> Iterator[str]:
        for event in common.EVENTS.split("\n\n")[:-1]:
            yield event + "\n\n"

    return Response(pieces(), mimetype="text/event-stream")


@app.post("/background/<key>")
def background(key: str) -> Response:
    response = Response("accepted", mimetype="text/plain")

    @response.call_on_close
    def task() -> None:
        common.passed_by_thread(key)
        notes[key].append("done")

    return response


@app.post("/gates/<key>")
def open_gate(key: str) -> tuple[str, int]:
    common.gates[key].set()
    return "", 204


@app.get("/notes/<key>")
def noted(key: str) -> Response:
    return jsonify(notes[key])


@app.get("/meet/<key>")
def meet(key: str) -> str:
    common.meet(key)
    return "met"


@app.get("/file")
def file() -> Response:
    return send_file(common.FILE, "application/octet-stream")


@app.get("/cookies")
def cookies() -> Response:
    response = make_response({"seen": request.cookies.get("seen")})
    response.set_cookie("one", "1")
    response.set_cookie("two", "2", httponly=True)
    return response


@app.get("/redirect")
def away() -> Any:
    return redirect(url_for("json", name="redirected", _external=True), 303)


@app.get("/headers")
def headers() -> Response:
    large = request.headers["X-Large"]
    response = jsonify({"size": len(large)})
    response.headers["X-Large"] = large
    return response


@app.get("/fail")
def fail() -> Response:
    raise common.OnPurposeError("at once")


@app.get("/fail-late")
def fail_late() -> Response:
    def pieces() -> Iterator[bytes]:
        yield b"a part"
        raise common.OnPurposeError("late")

    return Response(pieces())


@app.get("/where")
def where() -> Response:
    environ = request.environ
    return jsonify(
        {
            "root_path": environ["SCRIPT_NAME"],
            "path": environ["SCRIPT_NAME"] + environ["PATH_INFO"],
            "json": url_for("json", _external=True),
        },
    )
