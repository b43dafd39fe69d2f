"""Applications that are not ASGI 3, served by the real command."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import httpx

from tests.e2e.conftest import Start
from tests.e2e.service import ROOT, eventually

WSGI = """
import os, threading, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/fail":
        raise ValueError("on purpose")
    if path == "/slow":
        open("entered", "w").close()
        while not os.path.exists("go-on"):
            time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield threading.current_thread().name.encode() + b" "
    while piece := environ["wsgi.input"].read(10_000):
        yield piece
    if path == "/endless":
        while True:
            yield b"x" * 65536
"""

ASGI2 = """
class app:
    def __init__(self, scope):
        if scope["type"] != "http":
            raise RuntimeError(scope["type"])
        self.scope = scope

    async def __call__(self, receive, send):
        body = self.scope["asgi"]["version"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""


def test_a_wsgi_application_is_found_and_served(start: Start, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(WSGI, "utf-8")
    service = start(app="shop:app").ready()
    service.log.wait(r"shop:app looks like a WSGI application, and is served as one \(interface: wsgi\)")
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        answer = client.post("/", content=b"x" * 1_000_000)
        assert answer.text.startswith("WSGI_")
        assert answer.text.endswith(" " + "x" * 1_000_000)
        assert client.get("/fail").status_code == 500
    service.log.wait("ValueError: on purpose")
    slow: list[str] = []
    asking = threading.Thread(target=lambda: slow.append(httpx.get(f"{service.url}/slow", trust_env=False).text))
    asking.start()
    assert eventually((tmp_path / "entered").exists)
    with httpx.stream("GET", f"{service.url}/endless", trust_env=False) as endless:
        next(endless.iter_raw())
    service.signal(signal.SIGTERM)  # and the client that has left does not hold the stop up
    service.log.wait("draining")
    (tmp_path / "go-on").touch()
    began = time.monotonic()
    assert service.wait() == 0
    assert time.monotonic() - began < 10
    asking.join()
    assert slow[0].startswith("WSGI_")


def test_a_thread_that_does_not_come_back_does_not_hold_the_stop_up(start: Start, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(WSGI, "utf-8")
    service = start(
        "--lifespan", "on", app="shop:app", config="interface: wsgi\nworkers: {drain_timeout: 0.5s}"
    ).ready()
    asking = threading.Thread(target=lambda: status(f"{service.url}/slow"))
    asking.start()
    assert eventually((tmp_path / "entered").exists)
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    asking.join()
    assert "cut off while stopping: GET '/slow'" in str(service.log)
    assert "killed" not in str(service.log)


def status(url: str) -> int:
    try:
        return httpx.get(url, trust_env=False).status_code
    except httpx.HTTPError:
        return 0


def test_an_asgi2_application_is_found_and_served(start: Start, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(ASGI2, "utf-8")
    service = start(app="shop:app").ready()
    service.log.wait(r"shop:app looks like an ASGI 2 application, and is served as one \(interface: asgi2\)")
    assert httpx.get(service.url, trust_env=False).text == "2.0"
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert "lifespan" not in str(service.log)


def test_wsgi_without_a2wsgi_does_not_start_and_says_what_to_install(start: Start, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(WSGI, "utf-8")
    (tmp_path / "a2wsgi.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'a2wsgi'\", name='a2wsgi')", "utf-8"
    )
    service = start(app="shop:app", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert service.wait() == 3
    service.log.wait(r"shop:app is a WSGI application, which takes a2wsgi: pip install 'asgiri\[wsgi\]'")


def test_an_interface_that_does_not_fit_does_not_start(start: Start, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(WSGI, "utf-8")
    service = start("--set", "interface=asgi2", app="shop:app")
    assert service.wait() == 3
    service.log.wait(r"cannot be called with \(scope\), as interface: asgi2 wants; it looks like a WSGI application")
