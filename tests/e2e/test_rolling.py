"""Replicas behind a load balancer are replaced one after the other, under load, and no client sees it.

The balancers are those of deploy/. haproxy and Envoy have their retries taken out: what is not served the first time
has failed. nginx asks nobody who is ready: a connection that is refused is all that it is told, and goes on to the next
replica. Checks come faster here, so that a stop need not take eight seconds.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.proxies import free_port, needs
from tests.e2e.replicas import NAMES, Changes, Replicas, envoy_http2, haproxy, haproxy_http1, nginx, running
from tests.e2e.service import PATIENCE, eventually
from tests.pki import Pki

# The sum of docs/operations/balancers.md: checks 100 ms apart of which one fails, and what a busy machine may take.
DRAIN_DELAY = "1500ms"
LONG = 1.8  # seconds that a long request takes: those that run when the delay is over are finished by the drain
SHORT = 0.15  # each costs CPU, and with less time between them no more is found

AS_HERE: dict[str, Changes] = {
    "haproxy": {
        "retries": ("retries 2", "retries 0"),
        "redispatch": ("    option redispatch 1\n", ""),
        "retry_on": ("    retry-on conn-failure\n", ""),
        "checks": ("inter 2s fall 2 rise 1", "inter 100ms fall 1 rise 1"),
    },
    "envoy": {
        "retries": ("num_retries: 2", "num_retries: 0"),
        "checks": (
            "interval: 2s\n          unhealthy_threshold: 2",
            "interval: 0.1s\n          unhealthy_threshold: 1",
        ),
        "traffic": ("no_traffic_interval: 2s", "no_traffic_interval: 0.1s"),
    },
    "nginx": {"found_again": ("fail_timeout=5s", "fail_timeout=1s")},
}
AS_HERE["haproxy_http1"] = AS_HERE["haproxy"]
FRONTS = {"haproxy": haproxy, "haproxy_http1": haproxy_http1, "envoy": envoy_http2, "nginx": nginx}


class Client(threading.Thread):
    """Asks again and again, and never a second time for the same; ``failures`` are all that was not served whole."""

    def __init__(self, name: str, ask: Callable[[], Any], leave: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._ask = ask
        self._leave = leave
        self._halt = threading.Event()
        self.served: list[int] = []  # the pid of the worker, for each answer
        self.failures: list[str] = []

    def run(self) -> None:
        try:
            while not self._halt.is_set():
                try:
                    self.served.append(self._ask()["pid"])
                except (OSError, http.client.HTTPException, httpx.HTTPError, AssertionError) as error:
                    self.failures.append(f"{self.name}: {type(error).__name__}: {error}")
        finally:
            self._leave()

    def stop(self) -> None:
        self._halt.set()

    def wait(self) -> None:
        self.join(PATIENCE)
        assert not self.is_alive(), self.name


def over_http1(front: str, port: int, pki: Pki, method: str, seconds: float, fresh: bool = False) -> Client:
    connection = http.client.HTTPSConnection("localhost", port, context=pki.client(), timeout=PATIENCE)

    def ask() -> Any:
        try:
            connection.request(method, f"/?seconds={seconds}", body=b"x" * 1000 if method == "POST" else None)
            answer = connection.getresponse()
            body = answer.read()
        except BaseException:
            connection.close()
            raise
        if fresh or answer.will_close:
            connection.close()
        assert answer.status == 200, (answer.status, body)
        return json.loads(body)

    kind = "fresh" if fresh else "kept"
    return Client(f"{front}, HTTP/1.1 {kind} {method} of {seconds} s", ask, connection.close)


def over_http2(front: str, port: int, pki: Pki, method: str, seconds: float) -> Client:
    client = httpx.Client(verify=pki.client(), http1=False, http2=True, timeout=PATIENCE, trust_env=False)

    def ask() -> Any:
        url = f"https://localhost:{port}/?seconds={seconds}"
        answer = client.request(method, url, content=b"x" * 1000 if method == "POST" else None)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return answer.json()

    return Client(f"{front}, HTTP/2 {method} of {seconds} s", ask, client.close)


def clients_of(front: str, port: int, pki: Pki) -> list[Client]:
    """One of each kind."""
    return [
        over_http1(front, port, pki, "GET", SHORT),
        over_http1(front, port, pki, "POST", SHORT, fresh=True),
        over_http2(front, port, pki, "POST", SHORT),
        over_http1(front, port, pki, "POST", LONG),
        over_http2(front, port, pki, "GET", LONG),
    ]


@contextmanager
def load(clients: list[Client]) -> Iterator[None]:
    """Each of them has been served when the body runs."""
    for client in clients:
        client.start()
    try:
        assert eventually(lambda: all(client.served or client.failures for client in clients))
        yield
    finally:
        for client in clients:
            client.stop()
        for client in clients:
            client.wait()


@pytest.fixture
def replicas(tmp_path: Path, pki: Pki) -> Iterator[Replicas]:
    with running(pki, tmp_path, DRAIN_DELAY) as three:
        yield three


def replace(name: str, replicas: Replicas, clients: list[Client]) -> None:
    """Stop a replica that serves, and start it anew: each balancer finds it again."""

    def all_heard_of(pids: set[int]) -> bool:
        return all(any(pids & {*client.served} for client in of) for of in by_front(clients))

    old = replicas.services[name]
    assert eventually(lambda: all_heard_of({*old.workers()})), f"{name} serves nobody"
    assert replicas.stop(name).wait() == 0, str(old.log)
    old.close()
    assert "WARN" not in str(old.log), str(old.log)  # as of a request that was cut
    new = replicas.start(name).ready()
    assert eventually(lambda: all_heard_of({*new.workers()})), f"the new {name} serves nobody"


def by_front(clients: list[Client]) -> list[list[Client]]:
    return [[client for client in clients if client.name.startswith(f"{front},")] for front in FRONTS]


def test_a_rolling_replacement_fails_no_request(replicas: Replicas, pki: Pki) -> None:
    for program in ("haproxy", "envoy", "nginx"):
        needs(program)
    with ExitStack() as stack:
        clients = []
        for front, begin in FRONTS.items():
            port = free_port()
            stack.enter_context(begin(replicas, port, **AS_HERE[front]))
            clients += clients_of(front, port, pki)
        with load(clients):
            for name in NAMES:
                replace(name, replicas, clients)
    assert [failure for client in clients for failure in client.failures] == []
    assert all(len(client.served) > 1 for client in clients)
