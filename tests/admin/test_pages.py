"""The admin child's application: what it answers for which board, over a real socket."""

from __future__ import annotations

import json
import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import httpx
import pytest
from msgspec.structs import replace

from asgiri.admin.health import Health
from asgiri.admin.history import History
from asgiri.admin.hosts import Hosts, name_of
from asgiri.admin.main import SETTINGS, routes
from asgiri.admin.pages import Admin
from asgiri.config.schema import Config, Listen
from asgiri.server import Server
from asgiri.sockets.bind import open_listener
from asgiri.sockets.supply import Supply
from asgiri.supervisor.scoreboard import STALE_SECONDS, MasterSlot, Scoreboard, State
from tests.proto.fakes import Answer, in_loop, parse_answers
from tests.serving import connected, url_of

NOW = 10**15  # of the clock that the boards here are told by, in nanoseconds
STALE = NOW - int(STALE_SECONDS * 1e9)

SERVING, BOOTING, DRAINING = State.SERVING, State.BOOTING, State.DRAINING
SILENT = None  # a worker that serves, and has not beaten lately


class Master:
    """The master's words on a board."""

    def __init__(
        self,
        *,
        wanted: int = 2,
        reached: int | None = None,
        announced: bool = True,
        draining: bool = False,
        handed_over: bool = False,
        beat_ns: int = NOW,
    ) -> None:
        self.wanted = wanted
        self.reached = wanted if reached is None else reached
        self.announced = announced
        self.draining = draining
        self.handed_over = handed_over
        self.beat_ns = beat_ns

    def tell(self, slot: MasterSlot) -> None:
        slot.wanted, slot.reached = self.wanted, self.reached
        slot.announced, slot.draining, slot.handed_over = self.announced, self.draining, self.handed_over
        slot.beat_ns = self.beat_ns


def board(master: Master, *workers: State | None, born_ns: int = NOW) -> Scoreboard:
    """The board of a service with these workers, and an admin child."""
    made = Scoreboard(16)
    master.tell(made.master)
    for number, state in enumerate([SERVING, *workers]):  # number 0: the admin child, which is no worker
        slot = made.take()
        assert slot is not None
        slot.clear(STALE if state is SILENT else born_ns)
        slot.introduce(1000 + number, number, 1)
        slot.state = SERVING if state is SILENT else state
    return made


@pytest.mark.parametrize(
    ("master", "workers", "why"),
    [
        (Master(), [SERVING, SERVING], None),
        (Master(), [SERVING, BOOTING], None),
        (Master(), [SERVING, SILENT], None),
        (Master(), [SERVING], None),
        (Master(), [BOOTING, BOOTING], "less than half"),
        (Master(), [SILENT, SILENT], "less than half"),
        (Master(), [DRAINING, BOOTING], "less than half"),
        (Master(), [], "less than half"),
        (Master(wanted=1), [SERVING], None),
        (Master(wanted=1), [DRAINING, SERVING], None),  # in a reload
        (Master(wanted=1), [BOOTING], "less than half"),
        (Master(wanted=5), [SERVING] * 3, None),
        (Master(wanted=5), [SERVING] * 2, "less than half"),
        (Master(wanted=6, reached=2), [SERVING] * 2 + [BOOTING] * 4, None),  # scaled up
        (Master(wanted=6, reached=0), [BOOTING] * 6, "less than half"),  # before the master's first look
        (Master(announced=False), [SERVING, BOOTING], "starting"),
        (Master(handed_over=True), [DRAINING, DRAINING], None),
        (Master(draining=True), [SERVING, SERVING], "draining"),
        (Master(beat_ns=STALE), [SERVING, SERVING], None),  # requests are answered, if nobody is replaced
    ],
)
def test_ready_is_when_half_of_the_workers_serve(master: Master, workers: list[State | None], why: str | None) -> None:
    page = Health(board(master, *workers), lambda: NOW).ready()
    said = json.loads(page.body)
    assert (page.status, said["ready"]) == ((200, True) if why is None else (503, False))
    assert why is None or why in said["reason"]
    assert said["workers"] == {"wanted": master.wanted, "serving": workers.count(SERVING)}


def test_what_was_reached_follows_what_is_wanted() -> None:
    made = board(Master(wanted=0), SERVING, SERVING, BOOTING)
    for count, reached in [(3, 2), (6, 2), (1, 1), (2, 2)]:
        made.want(count)
        assert (made.master.wanted, made.master.reached) == (count, reached)
    for slot in made.workers():
        slot.state = BOOTING
    made.want(4)
    assert made.master.reached == 2  # those that have died are missed


def test_live_is_while_the_master_wakes() -> None:
    health = Health(board(Master(beat_ns=STALE + 1), SILENT), lambda: NOW)
    assert (health.live().status, health.live().body) == (200, b"ok\n")
    page = Health(board(Master(beat_ns=STALE - 10**9), SERVING), lambda: NOW).live()
    assert page.status == 503
    assert json.loads(page.body) == {"live": False, "reason": "the master has been silent for 3.5s"}


@asynccontextmanager
async def serving(*workers: State | None) -> AsyncIterator[Server]:
    """The real thing, on a board that is of this moment."""
    now = time.monotonic_ns()
    config = replace(SETTINGS, listen=(Listen(bind="127.0.0.1:0"),))
    made = board(Master(beat_ns=now), *workers, born_ns=now)
    app = Admin(routes(made, Config(), History(made)), Hosts(frozenset({"admin.test"})))
    async with Server(app, config=config) as server:
        yield server


async def ask(path: str, method: str = "GET", host: str = "localhost:9000", more: str = "") -> Answer:
    async with serving(SERVING) as server, connected(server) as client:
        client.send(f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n{more}connection: close\r\n\r\n".encode())
        [answer], left = parse_answers(await client.rest(), methods=[method])
        assert left == b""
        return answer


@in_loop
async def test_a_probe_is_answered() -> None:
    answer = await ask("/readyz?verbose")
    assert answer.status == 200
    assert json.loads(answer.body) == {"ready": True, "workers": {"wanted": 2, "serving": 1}}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    answer = await ask("/livez")
    assert (answer.status, answer.body) == (200, b"ok\n")
    assert answer.headers["content-type"].startswith("text/plain")


@in_loop
async def test_a_head_is_answered_as_a_get_without_its_body() -> None:
    answer = await ask("/livez", "HEAD")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "3")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/page/status.js", 404),
        ("GET", "/livez/", 404),
        ("POST", "/nothing", 404),
        ("POST", "/livez", 405),
        ("DELETE", "/", 405),
    ],
)
def test_what_is_not_there(method: str, path: str, status: int) -> None:
    @in_loop
    async def test() -> None:
        answer = await ask(path, method)
        assert answer.status == status
        assert answer.headers.get("allow") == ("GET, HEAD" if status == 405 else None)
        assert answer.headers["cache-control"] == "no-store"

    test()


@in_loop
async def test_it_speaks_http2_too() -> None:
    async with serving(SERVING) as server, httpx.AsyncClient(http1=False, http2=True) as client:
        answer = await client.get(f"{url_of(server)}/readyz")
        assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)


@in_loop
async def test_a_websocket_is_refused() -> None:
    async with serving(SERVING) as server, connected(server) as client:
        handshake = (
            b"GET /livez HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert (await client.ask(handshake)).status == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST.:9000", 200),
        ("shop.localhost", 200),
        ("127.0.0.1:9000", 200),
        ("127.8.8.8", 200),
        ("[::1]:9000", 200),
        ("Admin.Test:9000", 200),
        ("rebound.example:9000", 421),
        ("localhost.example", 421),
        ("192.0.2.1", 421),
        ("127.0.0.1.example", 421),
    ],
)
def test_on_a_loopback_address_no_other_hosts_are_served(host: str, status: int) -> None:
    @in_loop
    async def test() -> None:
        assert (await ask("/status", host=host)).status == status

    test()


def test_hosts_of_listeners() -> None:
    def of(*binds: str) -> Hosts:
        found = [listener for bind in binds for listener in open_listener(Listen(bind=bind), Supply())]
        try:
            return Hosts.of(found)
        finally:
            for listener in found:
                listener.close()

    assert not of("127.0.0.1:0").serves("a.example")
    assert of("127.0.0.1:0").serves(None)  # HTTP/1.0: no browser
    assert of("0.0.0.0:0").serves("a.example")
    assert of("unix:@asgiri-test-hosts").serves("a.example")
    assert of("127.0.0.1:0", "0.0.0.0:0").serves("a.example")


@pytest.mark.parametrize(
    ("host", "name"),
    [("A.b:1", "a.b"), ("[::1]:8", "::1"), ("[::1", "::1"), ("", ""), (":80", ""), ("a.", "a"), ("::1", "")],
)
def test_the_name_of_a_host(host: str, name: str) -> None:
    assert name_of(host) == name


@in_loop
async def test_the_page_allows_nothing_but_itself() -> None:
    answer = await ask("/")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    html = answer.body.decode()
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        [code] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = b64encode(sha256(code.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", html)  # the namespace is a name
    assert not re.findall(r"<[^>]* (?:on\w+|style)=", html)
    assert "innerHTML" not in html
    assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "no-store")


@pytest.mark.parametrize(
    "query", ["history=x", "history=-1", "history=" + "9" * 400, "&".join(["a=b"] * 50), "%ff=%00"]
)
def test_a_strange_query_is_no_harm(query: str) -> None:
    @in_loop
    async def test() -> None:
        answer = await ask(f"/status?{query}")
        assert (answer.status, json.loads(answer.body)["service"]["app"]) == (200, "asgiri.demo:app")

    test()


@in_loop
async def test_status_and_history_have_the_same_points() -> None:
    assert json.loads((await ask("/history")).body) == []
    assert json.loads((await ask("/status?history")).body)["history"] == []
    assert json.loads((await ask("/status")).body)["history"] is None


@in_loop
async def test_metrics_are_what_the_asker_likes() -> None:
    plain = await ask("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert not plain.body.endswith(b"# EOF\n")
    head = await ask("/metrics", "HEAD")
    assert (head.status, head.body, head.headers["content-type"]) == (200, b"", plain.headers["content-type"])
    assert int(head.headers["content-length"]) > 1000
    accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n"
    openmetrics = await ask("/metrics", more=accept)
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.body.endswith(b"# EOF\n")
