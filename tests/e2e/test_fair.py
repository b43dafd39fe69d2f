"""Workers share long-lived connections out evenly, although they are as quick as each other to take one."""

from __future__ import annotations

import json
import socket
from collections import Counter
from contextlib import ExitStack

from tests.e2e.conftest import Start
from tests.e2e.service import Service
from tests.proto.fakes import parse_answers

ASK = b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n"
WORKERS = 3
CONNECTIONS = 90


def worker_of(client: socket.socket) -> int:
    """Which one has the connection."""
    client.sendall(ASK)
    data = b""
    while not (answers := parse_answers(data)[0]):
        piece = client.recv(1 << 16)
        assert piece
        data += piece
    return int(json.loads(answers[0].body)["worker"])


def opened(service: Service, stack: ExitStack, count: int) -> list[socket.socket]:
    return [stack.enter_context(socket.create_connection(("127.0.0.1", service.port), 20)) for _ in range(count)]


def test_no_worker_has_much_more_than_the_mean(start: Start) -> None:
    """One after the other, as clients come in a day, and at once, as they come back after a restart."""
    service = start("--workers", str(WORKERS)).ready()
    with ExitStack() as stack:
        slowly: Counter[int] = Counter()
        for _ in range(CONNECTIONS):
            [client] = opened(service, stack, 1)
            slowly[worker_of(client)] += 1
        at_once = Counter(map(worker_of, opened(service, stack, CONNECTIONS)))
    for counts in (slowly, slowly + at_once):
        assert max(counts.values()) <= 1.3 * counts.total() / WORKERS, counts
