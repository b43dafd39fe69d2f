"""A control server that answers as it is told to."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

from asgiri.supervisor.control import Call, ControlServer
from asgiri.supervisor.messages import Event
from asgiri.supervisor.verbs import (
    AskLoglevel,
    AskRecycle,
    AskReload,
    AskStacks,
    AskStatus,
    Request,
    ServiceStatus,
    WorkerStacks,
    WorkerStatus,
)

STATUS = ServiceStatus(
    version="0.1.0",
    pid=4711,
    app="shop:app",
    state="running",
    generation=3,
    count=2,
    uptime=7384.2,
    requests_per_second=12.34,
    listeners=["http://127.0.0.1:8000", "unix:/run/shop.sock"],
    workers=[
        WorkerStatus(
            number=1,
            generation=3,
            pid=4720,
            state="serving",
            age=61.0,
            served=1234,
            memory=50 << 20,
            requests_per_second=12.34,
        ),
        WorkerStatus(number=2, generation=3, pid=4721, state="booting", age=0.5, silence=0.25),
    ],
)


class Fake:
    """A control server in a thread, and what it was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[Request] = []
        self.replies: dict[type, object] = {
            AskStatus: STATUS,
            AskReload: {"generation": 4},
            AskRecycle: {"replaced": 1},
            AskStacks: {"workers": [WorkerStacks(1, 3, 4720, "Thread 0x1 (most recent call first):")]},
            AskLoglevel: {"level": "debug", "configured": "info"},
        }
        self.failure: tuple[str, str] | None = None
        self.silent = False
        self._selector = selectors.DefaultSelector()
        self._server = ControlServer(str(path), self._selector, self._answer)
        self._halted = False
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, self._halt)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._halted:
            for key, _events in self._selector.select():
                list(key.data())
        self._server.close()
        self._selector.close()
        self._woken.close()

    def _halt(self) -> Iterable[Event]:
        self._halted = True
        return ()

    def _answer(self, request: Request, call: Call) -> Iterable[Event]:
        self.asked.append(request)
        if self.failure:
            call.fail(*self.failure)
        elif not self.silent:
            call.reply(self.replies.get(type(request), {}))
        return ()

    def close(self) -> None:
        self._wake.close()
        self._thread.join()
