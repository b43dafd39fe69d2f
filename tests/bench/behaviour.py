"""``python -m tests.bench.behaviour``: a service that is reloaded, is broken, or hangs; asgiri next to its peers.

Three trials, each with a server started anew, two workers, and nothing said to it but that:

- reload: HUP, four times with 2.5 s between them, while clients that never retry ask on connections that they keep and
  on new ones. Requests that fail are counted. http.client is what asks: it does not look whether the other side has
  closed before it sends, so a server that closes an idle connection without a word of warning shows.
- broken: the application's file becomes one that cannot be imported, then HUP. Is a request answered 8 s later? And by
  new code once the file is mended, and HUP comes again?
- hang: all workers' event loops are blocked for good. How many seconds until a request is answered again?

Needs Linux and taskset. It leaves nothing running.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.measure import free_port
from tests.bench.process import Running, wait_until
from tests.bench.venv import Venv, VenvError, add_options, chosen

SERVERS = {
    "asgiri": ["asgiri", "-w", "2", "-b", "HOST:PORT"],
    "gunicorn": ["gunicorn", "-k", "asgi", "-w", "2", "-b", "HOST:PORT"],
    "uvicorn": ["uvicorn", "--workers", "2", "--host", "HOST", "--port", "PORT"],
    "hypercorn": ["hypercorn", "-w", "2", "-b", "HOST:PORT"],
    "granian": ["granian", "--interface", "asgi", "--workers", "2", "--host", "HOST", "--port", "PORT"],
    "h2corn": ["h2corn", "--workers", "2", "--bind", "HOST:PORT"],
}
PEERS = [name for name in SERVERS if name != "asgiri"]
HOST = "127.0.0.1"
APP = """\
import time

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/hang":
        time.sleep(3600)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"GENERATION"})
"""
BROKEN = "raise RuntimeError('broken')\n"
STARTUP = 20.0  # seconds
KEPT, FRESH = 8, 4  # clients
PAUSE = 0.02  # seconds between two requests of a client
RELOADS, BETWEEN = 4, 2.5  # how many, and seconds
SETTLED = 8.0  # seconds from a HUP to the verdict
LOOKS = 8  # connections that find a worker that is left: where each worker has its own queue, some go to the others
LONGEST_HANG = 100.0  # seconds that are waited for


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.bench.behaviour", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", action="append", metavar="NAME", choices=SERVERS, help="this server; repeatable")
    add_options(parser)
    args = parser.parse_args()
    try:
        venv = chosen(args, PEERS, ["uvicorn[standard]"])
    except VenvError as error:
        print(f"behaviour: {error}", file=sys.stderr)
        return 1
    packages = venv.packages()
    print(venv.version())
    print("| server | reload: failed of all requests | broken code | mended | answers after a hang |")
    print("| --- | --- | --- | --- | --- |")
    for name in args.only or SERVERS:
        row = [trial(venv, name, args.server_core) for trial in (reload, broken, hang)]
        print(f"| {name} {packages[name]} | {' | '.join(row)} |", flush=True)
    return 0


class Trial:
    """A server that serves the first generation."""

    def __init__(self, server: Running, app: Path, port: int) -> None:
        self._server = server
        self._app = app
        self.port = port

    def write(self, text: str) -> None:
        """What a deployment does: a new file in the place of the old one."""
        new = self._app.with_suffix(".new")
        new.write_text(text, "utf-8")
        new.replace(self._app)

    def hup(self) -> None:
        if not self._server.ended:
            os.kill(self._server.pid, signal.SIGHUP)

    def answer(self, patience: float = 3.0) -> str:
        """The body, or '' if there is none."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=patience)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return ""
        finally:
            connection.close()


@contextmanager
def served(venv: Venv, name: str, core: int) -> Iterator[Trial]:
    port = free_port()
    program, *flags = [part.replace("HOST", HOST).replace("PORT", str(port)) for part in SERVERS[name]]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # two files of one second and size would be taken for the same
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder, "served.py")
        app.write_text(generation("one"), "utf-8")
        command = [str(venv.bin / program), *flags, "served:app"]
        with Running(command, core=core, folder=Path(folder), env=env) as server:
            trial = Trial(server, app, port)
            if not wait_until(lambda: server.ended or trial.answer() == "one", STARTUP) or server.ended:
                raise RuntimeError(f"{name} does not serve: {server.epitaph()}")
            time.sleep(1.0)  # until all workers do
            yield trial


def generation(word: str) -> str:
    return APP.replace("GENERATION", word)


def reload(venv: Venv, name: str, core: int) -> str:
    with served(venv, name, core) as trial:
        over = threading.Event()
        failed: Counter[str] = Counter()
        answered: Counter[str] = Counter()
        clients = [
            threading.Thread(target=ask, args=(trial.port, kept, over, answered, failed))
            for kept in [True] * KEPT + [False] * FRESH
        ]
        for client in clients:
            client.start()
        for number in range(RELOADS):
            time.sleep(BETWEEN)
            trial.write(generation(f"after {number + 1}"))
            trial.hup()
        time.sleep(BETWEEN)
        over.set()
        for client in clients:
            client.join()
    count = sum(failed.values())
    return f"{count} of {count + sum(answered.values())}" + (f" ({listed(failed)})" if count else "")


def ask(port: int, kept: bool, over: threading.Event, answered: Counter[str], failed: Counter[str]) -> None:
    connection: http.client.HTTPConnection | None = None
    while not over.is_set():
        try:
            connection = connection or http.client.HTTPConnection(HOST, port, timeout=5.0)
            connection.request("GET", "/")
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                failed[str(response.status)] += 1
            answered["kept" if kept else "fresh"] += 1
            if not kept or response.will_close:
                connection.close()
                connection = None
        except (OSError, http.client.HTTPException) as error:
            failed[f"{type(error).__name__}, {'kept' if kept else 'new'} connection"] += 1
            if connection is not None:
                connection.close()
            connection = None
        time.sleep(PAUSE)


def broken(venv: Venv, name: str, core: int) -> str:
    with served(venv, name, core) as trial:
        trial.write(BROKEN)
        trial.hup()
        time.sleep(SETTLED)
        held = "serves on" if trial.answer() == "one" else "does not serve"
        trial.write(generation("two"))
        trial.hup()
        mended = "serves the new code" if wait_until(lambda: trial.answer() == "two", SETTLED) else "does not serve"
    return f"{held} | {mended}"


def hang(venv: Venv, name: str, core: int) -> str:
    with served(venv, name, core) as trial:
        stuck: list[socket.socket] = []
        try:
            while any(trial.answer(patience=0.5) for _ in range(LOOKS)):  # one more, as long as a worker is left
                stuck.append(socket.create_connection((HOST, trial.port)))
                stuck[-1].sendall(b"GET /hang HTTP/1.1\r\nHost: behaviour\r\n\r\n")
                time.sleep(0.2)
            since = time.monotonic()
            if not wait_until(lambda: trial.answer(patience=1.0) != "", LONGEST_HANG):
                return f"not within {LONGEST_HANG:.0f} s"
            return f"after {time.monotonic() - since:.0f} s"
        finally:
            for one in stuck:
                one.close()


def listed(counts: Counter[str]) -> str:
    return "; ".join(f"{count} {what}" for what, count in counts.most_common())


if __name__ == "__main__":
    sys.exit(main())
