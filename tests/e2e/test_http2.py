"""The real command with HTTP/2: flags and file, TLS, a drain at a stop, and reloads under load."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import shutil
import signal
import ssl
import subprocess
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Start
from tests.e2e.service import Service, eventually
from tests.http2_client import Http2Peer, http2_connected
from tests.pki import Pki
from tests.proto.fakes import in_loop, until

RELOADS = 10


class Clients:
    """Clients that keep ``streams`` requests going on a connection each, and never ask again for one that was lost.

    Behind a GOAWAY they begin no stream, and do again on another connection what that one says it has not seen
    (RFC 9113 section 6.8). ``failures`` are the requests that got no whole answer of status 200.
    """

    def __init__(self, port: int, clients: int, streams: int, tls: ssl.SSLContext | None = None) -> None:
        self.address = ("127.0.0.1", port)
        self._tls = tls
        self.served: list[int] = []  # pid of the worker, for each answer
        self.failures: list[str] = []
        self.unseen = 0  # requests that a GOAWAY said were not seen
        self._streams = streams
        self._halt = False
        self._tasks = [asyncio.create_task(self._run()) for _ in range(clients)]

    async def _run(self) -> None:
        while not self._halt:
            try:
                async with http2_connected(self.address, self._tls) as peer:
                    await self._use(peer)
            except (OSError, AssertionError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")

    async def _use(self, peer: Http2Peer) -> None:
        waiting: set[int] = set()
        while True:
            while not (self._halt or peer.goaways) and len(waiting) < self._streams:
                waiting.add(peer.request("/who"))
            last = min((last for last, _ in peer.goaways), default=2**31)
            unseen = {stream for stream in waiting if stream > last}
            self.unseen += len(unseen)
            waiting -= unseen
            if not waiting:
                return
            await peer.until(functools.partial(has_news, peer, waiting, len(peer.goaways)))
            for stream in [stream for stream in waiting if peer.done(stream)]:
                waiting.remove(stream)
                answer = peer.answers.pop(stream)
                if answer.status == 200 and answer.reset is None:
                    self.served.append(json.loads(answer.body)["pid"])
                else:
                    self.failures.append(f"{answer}")

    async def stop(self) -> None:
        self._halt = True
        await asyncio.gather(*self._tasks)


def has_news(peer: Http2Peer, waiting: set[int], goaways: int) -> bool:
    """Whether something has come of those that wait, or a GOAWAY behind the first ``goaways``.

    One that is known is no news: answers to what came before it may be on their way still.
    """
    return len(peer.goaways) > goaways or any(peer.done(stream) for stream in waiting)


async def wait_for(service: Service, pattern: str, since: int = 0) -> None:
    """Wait for a line of the log, while clients go on in this loop."""
    await asyncio.to_thread(service.log.wait, pattern, since)


@in_loop
async def reload_under_load(service: Service, tls: ssl.SSLContext | None = None) -> None:
    clients = Clients(await asyncio.to_thread(lambda: service.port), clients=4, streams=8, tls=tls)
    try:
        await until(lambda: clients.served or clients.failures)
        for generation in range(2, RELOADS + 2):
            mark = len(service.log)
            service.signal(signal.SIGHUP)
            await wait_for(service, f"the reload is complete: generation {generation} serves", mark)
            before = len(clients.served)
            await until(lambda before=before: len(clients.served) > before + 100 or clients.failures)  # type: ignore[misc]
    finally:
        await clients.stop()
    assert not clients.failures
    assert len(set(clients.served)) > RELOADS  # each generation has served
    assert "cut off" not in str(service.log)


@pytest.mark.parametrize(("loop", "engine"), [("asyncio", "h2"), ("uvloop", "native")])
def test_reloads_under_load_lose_nothing(start: Start, loop: str, engine: str) -> None:
    chosen = ["--http", "h2", "--loop", loop, "--set", f"http2.engine={engine}"]
    reload_under_load(start("-w", "2", "--no-access-log", *chosen).ready())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_reloads_over_tls_lose_nothing(start: Start, pki: Pki, loop: str) -> None:
    secured = ["--certfile", pki.certfile, "--keyfile", pki.keyfile, "--loop", loop]
    reload_under_load(start("-w", "2", "--no-access-log", *secured).ready(), pki.client(alpn=("h2",)))


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
def test_h2load_through_a_reload(start: Start, tmp_path: Path) -> None:
    """What was asked is answered, all of it.

    h2load does not connect again behind a GOAWAY: it counts as errors what it could not even begin.
    """
    access = ["--set", "log.access.file=access.log", "--set", "log.access.format={status} {protocol}"]
    service = start("-w", "2", *access).ready()
    load = subprocess.Popen(
        ["h2load", "-D", "2", "-c", "8", "-m", "10", f"{service.url}/who"], stdout=subprocess.PIPE, text=True
    )
    try:
        lines = tmp_path / "access.log"
        assert eventually(lambda: lines.exists() and lines.stat().st_size > 10_000)
        service.signal(signal.SIGHUP)
        service.log.wait("the reload is complete: generation 2 serves")
        said, _ = load.communicate(timeout=30)
    finally:
        load.kill()
        load.wait()
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    found = re.search(r"(\d+) started, .* (\d+) succeeded, (\d+) failed", said)
    assert found, said
    started, succeeded, failed = map(int, found.groups())
    assert failed <= 8 * 10, said  # one for each place of a stream
    assert started == succeeded + failed
    assert Counter(lines.read_text("ascii").splitlines()) == {"200 HTTP/2.0": succeeded}
    assert "cut off" not in str(service.log)


@in_loop
async def stop_with_a_stream_open(service: Service) -> None:
    async with http2_connected(("127.0.0.1", await asyncio.to_thread(lambda: service.port))) as peer:
        slow = peer.request("/slow?seconds=0.5")
        await peer.flush()
        assert (await peer.get("/who")).status == 200
        service.signal(signal.SIGTERM)
        await peer.until(lambda: peer.goaways)
        assert peer.goaways[0] == (2**31 - 1, 0)
        assert (await peer.get("/who")).status == 200  # what was on its way, with the answer to the PING
        assert (await peer.answer(slow)).body == b'{"slept": "0.5"}'
        await peer.end()
        assert peer.goaways[-1][0] == 5
    assert await asyncio.to_thread(service.wait) == 0


def test_a_stop_finishes_streams(start: Start) -> None:
    service = start("--http", "h2").ready()
    stop_with_a_stream_open(service)
    service.log.wait(r'"GET /slow\?seconds=0.5 HTTP/2.0" 200|GET /slow.* 200')


def test_both_versions_by_default_and_each_alone_by_the_flag(start: Start) -> None:
    def versions(*flags: str) -> list[int | str]:
        service = start(*flags).ready()
        found: list[int | str] = []
        with httpx.Client(trust_env=False) as old, httpx.Client(http1=False, http2=True, trust_env=False) as new:
            for client in (old, new):
                try:
                    answer = client.get(f"{service.url}/who")
                    found.append(answer.http_version if answer.status_code == 200 else answer.status_code)
                except httpx.RemoteProtocolError:
                    found.append("none")  # an answer of HTTP/1.1 to the preface
        return found

    assert versions() == ["HTTP/1.1", "HTTP/2"]
    assert versions("--http", "auto") == ["HTTP/1.1", "HTTP/2"]
    assert versions("--http", "h2") == [505, "HTTP/2"]
    assert versions("--http", "http/1.1") == ["HTTP/1.1", "none"]


def test_the_flag_outlives_a_reload(start: Start) -> None:
    service = start("--http", "h2").ready()
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete: generation 2 serves")
    assert httpx.get(f"{service.url}/who").status_code == 505


def test_a_reload_changes_what_a_socket_speaks(start: Start, tmp_path: Path) -> None:
    listen = "listen: [{{bind: 127.0.0.1:0, http: [{}]}}]\n"
    service = start(config=listen.format("h2"), bind=False).ready()
    assert httpx.get(f"{service.url}/who").status_code == 505
    (tmp_path / "asgiri.yaml").write_text(listen.format("h2, http/1.1"), "utf-8")
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete: generation 2 serves")
    assert httpx.get(f"{service.url}/who").status_code == 200


def test_names_and_tls(start: Start, pki: Pki, tmp_path: Path) -> None:
    certfile, keyfile = pki.issue("shop", "shop.localhost")
    config = f"""
listen:
  - bind: 127.0.0.1:0
    tls:
      certfile: {pki.certfile}
      keyfile: {pki.keyfile}
      sni:
        "*.localhost": {{certfile: {certfile}, keyfile: {keyfile}}}
"""
    service = start(config=config, bind=False).ready()
    shown = set()
    for name in ("localhost", "shop.localhost"):
        with httpx.Client(http2=True, verify=pki.client(), trust_env=False) as client:
            extensions = {"sni_hostname": name}
            answer = client.get(f"https://127.0.0.1:{service.port}/who", extensions=extensions)
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
            shown.add(answer.extensions["network_stream"].get_extra_info("ssl_object").getpeercert()["serialNumber"])
    assert len(shown) == 2
    (tmp_path / "asgiri.yaml").write_text(config.replace(keyfile, pki.keyfile), "utf-8")
    service.signal(signal.SIGHUP)
    refused = service.log.wait("the reload is refused, generation 1 goes on: (.*)")[1]
    assert refused.startswith("asgiri.yaml:8:")
    assert "listen[0].tls.sni.*.localhost.keyfile: the key in" in refused
