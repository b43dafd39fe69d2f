"""The load balancers of deploy/, each as it is shipped, before three replicas: what comes through, and both ways."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.proxies import free_port
from tests.e2e.replicas import BALANCERS, NAMES, Replicas, haproxy_passthrough, running
from tests.e2e.service import PATIENCE, eventually
from tests.pki import Pki
from tests.websocket_clients import Offer, http2, through_websockets

OUTSIDE = "127.0.0.2"  # a client's address, of which the balancers know nothing
UPSTREAM = {"haproxy": "2", "haproxy_http1": "1.1", "nginx": "1.1", "envoy": "2"}


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    directory = tmp_path_factory.mktemp("replicas")
    with running(Pki(directory), directory) as three:
        yield three


@dataclass
class Front:
    """A balancer, as somebody outside sees it. ``sockets`` has the clients of tests/ find it."""

    port: int
    pki: Pki

    def tls(self, alpn: str) -> ssl.SSLContext:
        return self.pki.client(alpn=(alpn,))

    @property
    def sockets(self) -> list[Front]:
        return [self]

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @contextmanager
    def client(self, http2: bool = False) -> Iterator[httpx.Client]:
        tls = self.pki.client()
        transport = httpx.HTTPTransport(verify=tls, http1=not http2, http2=http2, local_address=OUTSIDE)
        with httpx.Client(transport=transport, base_url=f"https://localhost:{self.port}", timeout=PATIENCE) as made:
            yield made


@pytest.fixture(scope="module", params=[*BALANCERS])
def balancer(request: pytest.FixtureRequest, replicas: Replicas) -> Iterator[tuple[str, Front]]:
    port = free_port()
    with BALANCERS[request.param](replicas, port):
        front = Front(port, replicas.pki)
        with front.client() as client:  # the first health checks are done
            assert eventually(lambda: {client.get("/").json()["replica"] for _ in NAMES} == {*NAMES})
        yield request.param, front


def told(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, (answer.status_code, answer.text)
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_requests(balancer: tuple[str, Front], version: str) -> None:
    name, front = balancer
    with front.client(http2=version == "HTTP/2") as client:
        answer = client.get("/")
        assert answer.http_version == version
        seen = told(answer)
        assert (seen["http_version"], seen["scheme"]) == (UPSTREAM[name], "https")
        assert seen["client"] == [OUTSIDE, 0]
        assert seen["id"] == answer.headers["x-request-id"]
        assert told(client.post("/", content=b"x" * 300_000))["size"] == 300_000


def test_what_a_client_forges(balancer: tuple[str, Front]) -> None:
    _, front = balancer
    forged = {"For": "6.6.6.6", "Proto": "http", "Host": "evil.example", "Port": "6", "Prefix": "/evil"}
    with front.client() as client:
        fields = {f"X-Forwarded-{name}": value for name, value in forged.items()}
        seen = told(client.get("/", headers={**fields, "X-Request-ID": "forged", "Forwarded": "for=7.7.7.7"}))
    assert (seen["client"], seen["scheme"], seen["headers"]["host"].partition(":")[0]) == (
        [OUTSIDE, 0],
        "https",
        "localhost",
    )
    assert seen["id"] != "forged"
    assert "evil" not in str(seen)
    assert "forwarded" not in seen["headers"]


def test_websockets_over_http1(balancer: tuple[str, Front]) -> None:
    _, front = balancer
    asyncio.run(asyncio.wait_for(websocket_http1(front), PATIENCE))


async def websocket_http1(front: Front) -> None:
    async with through_websockets(front, Offer("/ws", tls=front.tls("http/1.1"))) as peer:
        seen = json.loads(await peer.receive())
        assert (seen["type"], seen["scheme"]) == ("websocket", "wss")
        await peer.send("again")
        assert await peer.receive() == "again"


@pytest.mark.parametrize(
    "balancer", [name for name in BALANCERS if name != "nginx"], indirect=True
)  # no RFC 8441 there
def test_websockets_and_requests_on_one_http2_connection(balancer: tuple[str, Front]) -> None:
    _, front = balancer
    asyncio.run(asyncio.wait_for(websocket_http2(front), PATIENCE))


async def websocket_http2(front: Front) -> None:
    async with http2(front, front.tls("h2")) as connection:
        peer = await connection.open(Offer("/ws"))
        seen = json.loads(await peer.receive())
        assert (seen["type"], seen["scheme"]) == ("websocket", "wss")
        assert (await connection.get("/")).status == 200
        await peer.send("again")
        assert await peer.receive() == "again"
        await peer.close()


@pytest.mark.parametrize("balancer", [name for name in BALANCERS if UPSTREAM[name] == "2"], indirect=True)
def test_trailers(balancer: tuple[str, Front]) -> None:
    """As gRPC needs them; where HTTP/2 is spoken on both sides."""
    _, front = balancer

    async def ask() -> None:
        async with http2(front, front.tls("h2")) as connection:
            await connection.until(lambda: connection.settings)
            stream = connection.request("/trailers", ("te", "trailers"))
            await connection.flush()
            await connection.until(lambda: connection.done(stream))
            answer = connection.answers[stream]
            assert (answer.status, answer.body, answer.trailers) == (200, b"message", {"grpc-status": "0"})

    asyncio.run(asyncio.wait_for(ask(), PATIENCE))


def test_who_comes_after_a_replica_has_died_is_served_by_another(
    balancer: tuple[str, Front], replicas: Replicas
) -> None:
    """Before any health check has told: a connection that is refused is made to another replica, for all at once."""
    _, front = balancer
    dead = replicas.services.pop("a")
    for pid in dead.members():
        os.kill(pid, signal.SIGKILL)
    dead.close()

    async def ask() -> list[int]:
        url = f"https://localhost:{front.port}/?seconds=0.3"
        async with httpx.AsyncClient(
            verify=front.pki.client(), http2=True, timeout=PATIENCE, trust_env=False
        ) as client:
            answers = await asyncio.gather(*(client.get(url) for _ in range(60)))
        return [answer.status_code for answer in answers]

    try:
        assert asyncio.run(ask()) == [200] * 60
    finally:
        replicas.start("a").ready()


def test_tls_passed_through_with_the_proxy_protocol(replicas: Replicas) -> None:
    port = free_port()
    with haproxy_passthrough(replicas, port):
        front = Front(port, replicas.pki)
        with front.client(http2=True) as client:
            answer = client.get("/")
            assert answer.http_version == "HTTP/2"
            seen = told(answer)
    assert (seen["scheme"], seen["client"][0], seen["server"]) == ("https", OUTSIDE, ["127.0.0.1", port])
