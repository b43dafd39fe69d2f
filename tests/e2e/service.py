"""A real master with real workers, in a session of its own, watched by its log; and clients that never retry."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0  # seconds until something that should happen is taken not to


class Log:
    """The lines that a process writes to its stderr, as they come."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._times: list[float] = []  # when each came
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._stream:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._times.append(time.monotonic())
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __str__(self) -> str:
        return "\n".join(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def since(self, mark: int) -> str:
        return "\n".join(self._lines[mark:])

    def find(self, pattern: str, since: int = 0) -> list[tuple[float, re.Match[str]]]:
        """The lines that have the pattern in them, each with when it came (CLOCK_MONOTONIC, seconds)."""
        lines = zip(self._times[since:], self._lines[since:], strict=False)
        return [(at, match) for at, line in lines if (match := re.search(pattern, line))]

    def wait(self, pattern: str, since: int = 0) -> re.Match[str]:
        """Wait for a line that has the pattern in it."""

        def found() -> re.Match[str] | None:
            return next((match for line in self._lines[since:] if (match := re.search(pattern, line))), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, PATIENCE)
            match = found()
        assert match, f"no {pattern!r} in the log:\n{self}"
        return match

    def join(self) -> None:
        self._reader.join(PATIENCE)
        self._stream.close()


class Service:
    """One master, and those that follow it in upgrades. ``args`` follow ``python -m asgiri``; a working directory of
    its own keeps stray files out. ``prefix`` is a command that runs the rest of its arguments; it inherits
    ``descriptors``.
    """

    def __init__(
        self,
        directory: Path,
        *args: str,
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        self.directory = directory
        self._runtime = tempfile.TemporaryDirectory(prefix="asgiri-", dir="/tmp")  # a name that sockets can have
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-W", "error", "-m", "asgiri", *args],
            cwd=directory,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "XDG_RUNTIME_DIR": self._runtime.name,
                **(env or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            pass_fds=descriptors,
        )
        self.log = Log(self.process.stderr)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return int(self.log.wait(r"(?:listening on|  ->) +https?://[^ ]*:(\d+)")[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> Self:
        self.log.wait(r"ready: \d+ worker|Ctrl-C stops it")  # or the banner
        return self

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code, once the master has ended."""
        return self.process.wait(PATIENCE)

    def members(self) -> dict[int, str]:
        """Pid -> title of every process of the service, the master too, that is not a zombie."""
        return {pid: title for pid, title in processes(self.pid).items() if title}

    def workers(self) -> dict[int, str]:
        """Pid -> title of the workers."""
        return {pid: title for pid, title in self.members().items() if ": worker " in title}

    def masters(self) -> list[int]:
        """The pids of the masters: more than one during an upgrade."""
        return [pid for pid, title in self.members().items() if ": master [" in title]

    def close(self) -> None:
        """End what is left of it, by pid, and see that nothing is."""
        for pid in set(self.masters()) - {self.pid}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(PATIENCE)
        gone = eventually(lambda: not self.members(), patience=PATIENCE if self.masters() else 5.0)
        left = self.members()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.log.join()
        self._runtime.cleanup()
        assert gone, f"processes left behind: {left}\n{self.log}"
        assert "Exception ignored" not in str(self.log), str(self.log)  # a warning, where nobody could catch it
        assert "never retrieved" not in str(self.log), str(self.log)


def processes(session: int) -> dict[int, str]:
    """Pid -> title of the processes of a session; the title of a zombie is empty."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            # As bytes, and no more than is needed: it is asked every few milliseconds, where many processes are.
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                fields = file.read().rpartition(b")")[2].split(None, 4)
            if int(fields[3]) == session:
                title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                found[int(pid)] = title.decode("utf-8", "replace").strip()
        except OSError:
            continue
    return found


def eventually(condition: Callable[[], object], patience: float = PATIENCE) -> bool:
    """Whether the condition comes true in time. For what no event tells: it is asked every few milliseconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


def get(service: Service, path: str) -> Any:
    """The JSON that a new connection gets for a path; AssertionError for any status but 200."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, (response.status, body)
        return json.loads(body)
    finally:
        connection.close()


def control(path: Path, verb: str, **more: object) -> dict[str, Any]:
    """What the control socket at ``path`` answers; AssertionError where that is an error."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(json.dumps({"verb": verb, **more}).encode() + b"\n")
        answer = json.loads(sock.makefile("rb").readline())
    assert answer["ok"], answer
    result: dict[str, Any] = answer["result"]
    return result


class Client(threading.Thread):
    """Asks the same path again and again on kept connections, as long as the server keeps them, and never retries.

    ``failures`` are the requests that got no whole answer of status 200, as (pid that was asked last, what came).
    """

    def __init__(self, port: int, path: str = "/who", keep_alive: bool = True) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._path = path
        self._keep_alive = keep_alive
        self._halt = threading.Event()
        self.served: list[int] = []  # pid of the worker, for each answer
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._halt.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
            try:
                self._use(connection)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            finally:
                connection.close()

    def _use(self, connection: http.client.HTTPConnection) -> None:
        connection.connect()
        while not self._halt.is_set():
            connection.request("GET", self._path)
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                self.failures.append(f"status {response.status}: {body!r}")
            else:
                self.served.append(json.loads(body)["pid"])
            if response.will_close or not self._keep_alive:
                return

    def stop(self) -> None:
        self._halt.set()
        self.join(PATIENCE)


@contextmanager
def load(service: Service, clients: int = 4, keep_alive: bool = True) -> Iterator[list[Client]]:
    """So many clients busy with the service; they have all been served at least once before the body runs."""
    running = [Client(service.port, keep_alive=keep_alive) for _ in range(clients)]
    for client in running:
        client.start()
    try:
        assert eventually(lambda: all(client.served or client.failures for client in running))
        yield running
    finally:
        for client in running:
            client.stop()
