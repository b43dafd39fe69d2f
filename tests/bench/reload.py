"""``python -m tests.bench.reload``: from the write of a file to the first answer by new code, next to the peers.

Each server runs with its reload on, in a project of its own, and is asked over a fresh connection as fast as it
answers, from another core. A round writes a marker into a module and ends with the first answer that has it; then the
server has a moment for itself, as between two saves of a quick typist. Two projects: one small file, and a FastAPI
application of a few modules. Needs Linux and taskset. It asks nobody and leaves nothing running.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.system import processes
from tests.bench.venv import VenvError, add_options, chosen

PATIENCE = 20.0  # seconds for one round
PAUSE = 0.0005  # between two attempts, in seconds
REST = 0.5  # between two saves, in seconds

HELLO = {
    "main.py": """
MARKER = "first"

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": MARKER.encode()})
"""
}
FASTAPI = {
    "shop/__init__.py": "",
    "shop/models.py": """
from pydantic import BaseModel

class Item(BaseModel):
    name: str
    price: float
    tags: list[str] = []

class Order(BaseModel):
    items: list[Item]
    note: str | None = None
""",
    "shop/items.py": """
from fastapi import APIRouter
from shop.models import Item, Order

router = APIRouter(prefix="/items")

@router.post("/")
async def create(item: Item) -> Item:
    return item

@router.post("/order")
async def order(order: Order) -> dict[str, int]:
    return {"items": len(order.items)}
""",
    "main.py": """
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from shop.items import router

MARKER = "first"

app = FastAPI()
app.include_router(router)

@app.get("/", response_class=PlainTextResponse)
async def index() -> str:
    return MARKER
""",
}
PROJECTS = {"hello": HELLO, "fastapi": FASTAPI}
# The promises: at most so much of each peer's time.
MOST = {"hello": 0.6, "fastapi": 0.4}
SERVERS = {
    "asgiri": ["asgiri", "--reload", "--bind", "127.0.0.1:PORT", "main:app"],
    "uvicorn": ["uvicorn", "--reload", "--port", "PORT", "main:app"],
    "granian": ["granian", "--reload", "--interface", "asgi", "--host", "127.0.0.1", "--port", "PORT", "main:app"],
}


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parser = argparse.ArgumentParser("python -m tests.bench.reload", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="saves for each; default 20")
    parser.add_argument("--servers", default=",".join(SERVERS), help="which of them, with commas")
    parser.add_argument("--projects", default=",".join(PROJECTS), help="which of them, with commas")
    parser.add_argument("--rest", type=float, default=REST, metavar="S", help=f"between two saves; default {REST}")
    add_options(parser)
    args = parser.parse_args()
    try:
        venv = chosen(args, ["uvicorn", "granian", "watchfiles", "fastapi"], ["uvicorn[standard]"])
    except VenvError as error:
        print(f"reload: {error}", file=sys.stderr)
        return 1
    os.sched_setaffinity(0, {args.client_core})
    print(f"{venv.version()}, from a save to the first answer by new code, medians of {args.rounds}")
    for project in args.projects.split(","):
        found = {}
        for server in args.servers.split(","):
            program, *flags = SERVERS[server]
            command = ["taskset", "-c", str(args.server_core), str(venv.bin / program), *flags]
            found[server] = measure(PROJECTS[project], command, args.rounds, args.rest)
        for server, seconds in found.items():
            ratio = found["asgiri"] / seconds if server != "asgiri" and "asgiri" in found else None
            against = "" if ratio is None else f"   asgiri is {ratio:.2f}x (to be {MOST[project]} at most)"
            print(f"{project:8} {server:8} {seconds * 1e3:6.0f} ms{against}", flush=True)
    return 0


def measure(project: dict[str, str], command: Sequence[str], rounds: int, rest: float) -> float:
    """The median of the seconds from a save to the first answer by what was saved."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in project.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(text, "utf-8")
        with running(command, folder) as port:
            wait_for(port, "first")
            found = []
            for number in range(rounds):
                time.sleep(rest)
                marker = f"marker{number}"
                text = project["main.py"].replace('"first"', f'"{marker}"')
                began = time.perf_counter()
                (folder / "main.py").write_text(text, "utf-8")
                wait_for(port, marker)
                found.append(time.perf_counter() - began)
            return statistics.median(found)


@contextmanager
def running(command: Sequence[str], folder: Path) -> Iterator[int]:
    """The port of a server that runs in the folder. It is ended with all its children."""
    port = free_port()
    with tempfile.TemporaryFile() as output:  # not in the folder, where a peer would see it change
        process = subprocess.Popen(
            [part.replace("PORT", str(port)) for part in command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield port
    finally:
        process.terminate()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for one in processes():
            if one.session == process.pid and one.state != "Z":
                os.kill(one.pid, signal.SIGKILL)


def wait_for(port: int, marker: str) -> None:
    """Ask until an answer has the marker."""
    deadline = time.perf_counter() + PATIENCE
    while marker not in answer(port):
        if time.perf_counter() > deadline:
            raise RuntimeError(f"no answer with {marker} within {PATIENCE:.0f} s")
        time.sleep(PAUSE)


def answer(port: int) -> str:
    """An answer over a fresh connection; empty when there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            data = b""
            while chunk := client.recv(4096):
                data += chunk
            return data.decode("latin-1")
    except OSError:
        return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
