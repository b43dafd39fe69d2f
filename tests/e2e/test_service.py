"""The main job: YAML -> master -> forked workers -> HTTP/1.1 -> an ASGI app, with real processes and real clients."""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from asgiri.supervisor.signals import HANDLED
from tests.e2e.conftest import APP_DIR, Start
from tests.e2e.service import ROOT, Client, Service, eventually, get, load

GIB = 1 << 30


def test_two_workers_serve(start: Start) -> None:
    service = start("-w", "2").ready()
    with load(service, clients=8, keep_alive=False) as clients:
        assert eventually(lambda: len({pid for client in clients for pid in client.served}) == 2)
        titles = service.workers()
    assert sorted(titles.values()) == [
        "asgiri: worker 1 gen 1 [app:app]",
        "asgiri: worker 2 gen 1 [app:app]",
    ]
    assert service.members()[service.pid] == "asgiri: master [app:app]"
    assert {pid for client in clients for pid in client.served} == set(titles)
    assert not [failure for client in clients for failure in client.failures]


def test_a_yaml_file_says_it_all(start: Start) -> None:
    config = f"""
app: app:app
app_dir: {Path(__file__).parent}
listen:
  - bind: 127.0.0.1:0
  - bind: unix:web.sock
    mode: "0600"
workers: {{count: 2}}
env: {{GREETING: hello}}
response_headers: {{x-served-by: asgiri}}
process: {{title: shop, pidfile: master.pid}}
log: {{format: json}}
"""
    service = start(config=config, app=None, bind=False).ready()
    assert (service.directory / "master.pid").read_text() == f"{service.pid}\n"
    assert sorted(service.workers().values()) == ["shop: worker 1 gen 1 [app:app]", "shop: worker 2 gen 1 [app:app]"]
    assert get(service, "/env?name=GREETING") == {"value": "hello"}
    assert json.loads(str(service.log).splitlines()[-1])["role"] == "master"
    path = service.directory / "web.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        response = client.get("http://web/who")
        assert response.headers["x-served-by"] == "asgiri"
        assert response.json()["pid"] in service.workers()
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert not path.exists()
    assert not (service.directory / "master.pid").exists()


def test_the_demo_serves_when_no_app_is_named(start: Start) -> None:
    service = start(app=None).ready()
    service.log.wait("no application is named: serving the built-in demo")
    page = httpx.get(f"{service.url}/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "asgiri" in page.text
    assert httpx.post(f"{service.url}/echo", content=b"hello").content == b"hello"
    assert httpx.get(f"{service.url}/status/418").status_code == 418


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data-binary", "@-"], b"x" * 200_000),
        (["--data-binary", "@-", "-H", "Transfer-Encoding: chunked"], b"x" * 200_000),
        (["--data-binary", "@-", "-H", "Expect: 100-continue"], b"x" * 200_000),
        (["--data-binary", "@-", "--http1.0"], b"x" * 200_000),
    ],
    ids=["length", "chunked", "expect", "http/1.0"],
)
def test_curl_gets_its_body_back(start: Start, arguments: list[str], expected: bytes) -> None:
    service = start(app=None).ready()
    command = ["curl", "-sS", "--fail", "--max-time", "20", *arguments, f"{service.url}/echo"]
    done = subprocess.run(command, input=expected, capture_output=True, check=True, timeout=30)
    assert done.stdout == expected


FASTAPI = """
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

done = []


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    yield {"greeting": "hello"}


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    name: str


@app.get("/hello/{name}")
async def hello(name: str, request: Request) -> dict[str, str]:
    return {"message": f"{request.state.greeting} {name}"}


@app.post("/items")
async def items(item: Item, tasks: BackgroundTasks) -> Item:
    tasks.add_task(done.append, item.name)
    return item


@app.get("/done")
def finished() -> list[str]:
    return done


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            yield f"{number}\\n"

    return StreamingResponse(lines())


@app.get("/boom")
async def boom() -> None:
    raise ValueError("boom")
"""


def test_a_fastapi_app(start: Start, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(FASTAPI, "utf-8")
    service = start(app="shop:app").ready()
    with httpx.Client(base_url=service.url) as client:
        assert client.get("/hello/w%C3%B6rld").json() == {"message": "hello wörld"}
        assert client.post("/items", json={"name": "tea"}).json() == {"name": "tea"}
        assert eventually(lambda: client.get("/done").json() == ["tea"])
        assert client.post("/items", json={}).status_code == 422
        assert client.get("/stream").text == "0\n1\n2\n"
        assert client.get("/boom").status_code == 500
        assert client.get("/hello/again").status_code == 200
    service.log.wait("ValueError: boom")


def test_killing_a_worker_costs_only_what_it_held(start: Start) -> None:
    service = start("-w", "2").ready()
    with load(service, clients=6) as kept, load(service, clients=2, keep_alive=False) as fresh:
        before = set(service.workers())
        victim = kept[0].served[-1]
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        assert eventually(lambda: set(service.workers()) - before)
        [replacement] = set(service.workers()) - before
        assert eventually(lambda: any(replacement in client.served for client in [*kept, *fresh]))
        took = time.monotonic() - killed
    # Each client has one request under way at the most, so the victim held no more than one of each.
    assert all(len(client.failures) <= 1 for client in [*kept, *fresh])
    assert took < 1.0
    service.log.wait(r"worker [12] gen 1 was killed by SIGKILL at the age of")


def test_term_finishes_a_request_of_three_seconds(start: Start) -> None:
    service = start("-w", "2").ready()
    answers = []

    def ask() -> None:
        answers.append(httpx.get(f"{service.url}/slow?seconds=3", timeout=10))

    asking = threading.Thread(target=ask)
    with Held(service):  # and an idle connection beside it holds nothing up
        asking.start()
        assert eventually(lambda: established(service.port) >= 2)
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
        asking.join()
    assert [answer.status_code for answer in answers] == [200]
    assert answers[0].headers["connection"] == "close"
    assert service.members() == {}


def test_a_service_that_drains_refuses_new_connections_at_once(start: Start) -> None:
    """Nobody would accept them any more: a client in the queue would hang until the last request is done."""
    service = start("-w", "2").ready()
    with socket.create_connection(("127.0.0.1", service.port), 20) as busy:
        busy.sendall(b"GET /slow?seconds=3 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert get(service, "/who")
        service.signal(signal.SIGTERM)
        assert eventually(lambda: not accepts(service.port))
        assert select.select([busy], [], [], 0) == ([], [], []), "the request is still under way"
        assert busy.recv(100).startswith(b"HTTP/1.1 200")
    assert service.wait() == 0


def accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 20):
            return True
    except ConnectionRefusedError:
        return False


def test_twenty_reloads_under_load_fail_no_request(start: Start) -> None:
    service = start("-w", "2").ready()
    with load(service, clients=4) as kept, load(service, clients=2, keep_alive=False) as fresh:
        for generation in range(2, 22):
            mark = len(service.log)
            service.signal(signal.SIGHUP)
            service.log.wait(f"the reload is complete: generation {generation} serves", since=mark)
        titles = sorted(service.workers().values())
        clients = [*kept, *fresh]
        assert eventually(lambda: all(client.served[-1] in service.workers() for client in clients))
    assert [failure for client in clients for failure in client.failures] == []
    assert titles == ["asgiri: worker 1 gen 21 [app:app]", "asgiri: worker 2 gen 21 [app:app]"]


def test_an_idle_connection_is_answered_once_more_in_a_reload(start: Start) -> None:
    service = start().ready()
    with Held(service) as held:
        service.signal(signal.SIGHUP)
        service.log.wait(r"worker 1 gen 1\] draining \(connections: 1, requests: 0\)")
        answer = held.ask("/who")
        assert b"connection: close" in answer.lower()
        assert b'"generation": 1' in answer
    assert get(service, "/who")["generation"] == 2


def test_a_gibibyte_goes_up_in_little_memory(start: Start) -> None:
    service = start().ready()
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as sock:
        sock.sendall(f"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n".encode())
        piece = memoryview(bytes(1 << 20))
        sent = 0
        # The app takes nothing: the client is held up, for as long as one cares to wait, with most of it unsent.
        while sent < GIB and select.select([], [sock], [], 0.5)[1]:
            sent += sock.send(piece[: GIB - sent], socket.MSG_DONTWAIT)
        assert sent < 32 << 20
        get(service, "/release")
        while sent < GIB:
            sent += sock.send(piece[: GIB - sent])
        answer = sock.makefile("rb").read1(65536)
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert body["size"] == GIB
    assert body["grown"] < 32 << 20


def test_the_workers_go_when_the_master_is_killed(start: Start) -> None:
    service = start("-w", "2").ready()
    assert len(service.workers()) == 2
    os.kill(service.pid, signal.SIGKILL)
    assert service.wait() == -signal.SIGKILL
    assert eventually(lambda: not service.members())


def test_the_master_has_one_thread_and_never_imports_the_app(start: Start, tmp_path: Path) -> None:
    (tmp_path / "telling.py").write_text(
        "import os\nfrom app import app\nopen(f'imported-{os.getpid()}', 'w').close()\n", "utf-8"
    )
    service = start("-w", "2", app="telling:app", env={"PYTHONPATH": f"{ROOT}:{APP_DIR}"}).ready()
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete")
    importers = {int(path.name.removeprefix("imported-")) for path in tmp_path.glob("imported-*")}
    assert len(importers) == 4  # two workers of two generations
    assert service.pid not in importers
    assert len(list(Path(f"/proc/{service.pid}/task").iterdir())) == 1


def test_ttin_and_ttou_scale(start: Start) -> None:
    service = start().ready()
    service.signal(signal.SIGTTIN)
    assert eventually(lambda: len(service.workers()) == 2)
    service.signal(signal.SIGTTOU)
    assert eventually(lambda: len(service.workers()) == 1)
    mark = len(service.log)
    service.signal(signal.SIGTTOU)  # never under one
    service.log.wait("TTOU", since=mark)  # signals that wait together come in the order of their numbers
    service.signal(signal.SIGTTIN)
    assert eventually(lambda: len(service.workers()) == 2)


@pytest.mark.parametrize(
    "signals", [[signal.SIGQUIT], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM, signal.SIGQUIT]]
)
def test_the_quick_stop_does_not_wait(start: Start, signals: list[signal.Signals]) -> None:
    service = start("-w", "2").ready()
    hanging = Client(service.port, path="/slow?seconds=600")
    hanging.start()
    assert eventually(lambda: established(service.port) >= 1)
    before = time.monotonic()
    for number in signals:
        mark = len(service.log)
        service.signal(number)
        service.log.wait("stopping", since=mark)
    assert service.wait() == 0
    assert time.monotonic() - before < 5
    hanging.stop()


def test_an_interrupted_idle_server_is_gone_at_once(start: Start) -> None:
    service = start("-w", "2").ready()
    before = time.monotonic()
    os.killpg(service.pid, signal.SIGINT)  # as a terminal does: everybody gets it
    assert service.wait() == 0
    assert time.monotonic() - before < 2
    assert "Traceback" not in str(service.log)


def test_the_lifespan_ends_in_every_worker(start: Start, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    service = start("-w", "2", env={"MARKS": str(marks)}).ready()
    workers = set(service.workers())
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert {int(mark.name) for mark in marks.iterdir()} == workers


def test_a_worker_that_exits_is_replaced(start: Start) -> None:
    service = start().ready()
    first = get(service, "/who")["pid"]
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        httpx.get(f"{service.url}/exit?status=7")
    assert get(service, "/who")["pid"] != first
    service.log.wait("worker 1 gen 1 exited with status 7")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("workers: {count: two}", r"asgiri\.yaml:1:18: workers\.count: expected .*, got \"two\""),
        ("wrokers: {}", r'asgiri\.yaml:1:1: .*unknown key "wrokers"; did you mean "workers"\?'),
        ("app: [", r"asgiri\.yaml:\d+:\d+: "),
        ("http2: {max_frame_size: 1KiB}", r"asgiri\.yaml:1:25: http2\.max_frame_size: expected 16KiB to"),
        ("websocket: {ping_interval: soon}", r"websocket\.ping_interval: expected"),
    ],
)
def test_a_broken_config_exits_with_2(start: Start, config: str, expected: str) -> None:
    service = start(config=config)
    assert service.wait() == 2
    service.log.wait(expected)
    assert len(service.log) == 1
    assert "Traceback" not in str(service.log)


def test_a_bad_flag_exits_with_2(start: Start) -> None:
    service = start("--workers", "none")
    assert service.wait() == 2
    assert str(service.log).startswith("asgiri: --workers: workers.count: expected")


FAILING_LIFESPAN = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""

BROKEN_APPS = {
    "missing": (None, "broken"),
    "syntax": ("def app(:\n", "SyntaxError"),
    "raises": ("raise ValueError('from the app')\n", "ValueError: from the app"),
    "no attribute": ("other = 1\n", "app"),
    "lifespan": (FAILING_LIFESPAN, "no database"),
    "exits": ("import os\nos._exit(9)\n", "exited with status 9"),
    "surrogate": ("raise ValueError('\\ud800')\n", "ValueError: \\ud800"),
}


@pytest.mark.parametrize("name", BROKEN_APPS)
def test_a_broken_app_exits_with_3_and_one_message(start: Start, tmp_path: Path, name: str) -> None:
    source, expected = BROKEN_APPS[name]
    if source is not None:
        (tmp_path / "broken.py").write_text(source, "utf-8")
    service = start("-w", "3", app="broken:app")
    assert service.wait() == 3
    log = str(service.log)
    assert expected.lower() in log.lower()
    assert log.count(" ERROR ") == 1, log
    assert "asgiri/" not in log.replace("asgiri/asgiri.yaml", ""), log
    assert log.count("Traceback") <= 1


def test_workers_that_die_all_at_once_are_one_message(start: Start, tmp_path: Path) -> None:
    """They are reaped together: what the first one's end leads to must not reach for the others."""
    (tmp_path / "broken.py").write_text("import os\nos._exit(9)\n", "utf-8")
    service = start("-w", "8", app="broken:app")
    assert service.wait() == 3
    assert str(service.log).count(" ERROR ") == 1, str(service.log)
    assert "Traceback" not in str(service.log)


def test_a_name_that_is_no_utf_8_is_a_name_like_others(start: Start) -> None:
    service = start("--set", "process.title=\udcff", app="\udcff:app")
    assert service.wait() == 3
    service.log.wait("was not found")
    assert "Traceback" not in str(service.log)


@pytest.mark.parametrize("key", ["process.pidfile", "log.file", "log.access.file", "env_file", "process.chdir"])
def test_a_file_that_cannot_be_had_exits_with_2(start: Start, key: str) -> None:
    service = start("--set", f"{key}=none/such")
    assert service.wait() == 2
    service.log.wait(f"{key}: cannot ")
    assert "Traceback" not in str(service.log)


def test_a_taken_port_exits_with_4(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = start("--bind", f"127.0.0.1:{port}")
        assert service.wait() == 4
    service.log.wait(rf"cannot bind 127\.0\.0\.1:{port}: the address is in use")
    assert "Traceback" not in str(service.log)


def test_a_reload_with_a_broken_config_changes_nothing(start: Start) -> None:
    service = start("-w", "2").ready()
    before = service.workers()
    with load(service) as clients:
        (service.directory / "asgiri.yaml").write_text("timeouts: {keep_alive: never}\n")
        service.signal(signal.SIGHUP)
        service.log.wait("the reload is refused, generation 1 goes on: asgiri.yaml:1:24: timeouts.keep_alive: expected")
        assert service.workers() == before
    assert [failure for client in clients for failure in client.failures] == []


def test_a_reload_with_a_broken_app_changes_nothing(start: Start, tmp_path: Path) -> None:
    good = (Path(__file__).parent / "app.py").read_text("utf-8")
    (tmp_path / "site.py").write_text("", "utf-8")
    (tmp_path / "shop.py").write_text(good, "utf-8")
    service = start("-w", "2", app="shop:app").ready()
    before = service.workers()
    with load(service) as clients:
        (tmp_path / "shop.py").write_text(good + "\n1 / 0\n", "utf-8")
        service.signal(signal.SIGHUP)
        service.log.wait("the reload failed, generation 1 goes on: .*ZeroDivisionError")
        assert eventually(lambda: service.workers() == before)
        (tmp_path / "shop.py").write_text(good, "utf-8")
        service.signal(signal.SIGHUP)
        service.log.wait("the reload is complete: generation 3 serves")
        assert not set(service.workers()) & set(before)
    assert [failure for client in clients for failure in client.failures] == []


def test_a_reload_binds_what_is_new_and_closes_what_is_gone(start: Start) -> None:
    app = f"app: app:app\napp_dir: {Path(__file__).parent}\n"
    service = start(config=f"{app}listen:\n- bind: 127.0.0.1:0\n- bind: unix:old.sock\n", app=None, bind=False).ready()
    port = service.port
    old, new = service.directory / "old.sock", service.directory / "new.sock"
    assert old.exists()
    (service.directory / "asgiri.yaml").write_text(f"{app}listen:\n- bind: unix:new.sock\n- bind: 127.0.0.1:0\n")
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete: generation 2 serves")
    assert service.port == port
    assert get(service, "/who")["generation"] == 2
    assert eventually(lambda: not old.exists())
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(new))) as client:
        assert client.get("http://web/who").json()["generation"] == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("log: {file: none/such}\n", "the reload failed, generation 1 goes on: log.file: cannot open"),
        ("env_file: none\n", "the reload is refused, generation 1 goes on: asgiri.yaml:1: env_file: cannot read"),
        ("process: {chdir: /tmp}\n", r"by an upgrade \(USR2\) or a restart: process.chdir: null -> /tmp"),
    ],
)
def test_a_reload_says_what_it_does_not_take(start: Start, config: str, message: str) -> None:
    service = start().ready()
    (service.directory / "asgiri.yaml").write_text(config)
    service.signal(signal.SIGHUP)
    service.log.wait(message)
    assert "Traceback" not in str(service.log)
    assert get(service, "/who")


def test_a_master_without_descriptors_goes_on(start: Start) -> None:
    service = start().ready()
    limit = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    used = max(int(fd) for fd in os.listdir(f"/proc/{service.pid}/fd"))
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (used + 1, limit[1]))
    service.signal(signal.SIGTTIN)
    service.log.wait("worker 2 gen 1 did not boot: it could not be forked: Too many open files; backing off")
    assert get(service, "/who")["state"].keys() == {"started", "request_id"}
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, limit)
    assert eventually(lambda: len(service.workers()) == 2)
    assert "Traceback" not in str(service.log)


def test_what_the_application_starts_inherits_no_ignored_signal(start: Start) -> None:
    service = start().ready()
    status = get(service, "/signals")["status"]
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    assert [number.name for number in HANDLED if ignored >> (number - 1) & 1] == []


def test_a_signal_at_the_very_end_does_not_take_the_exit_code(start: Start) -> None:
    service = start("--pidfile", "master.pid").ready()

    def gone_in_a_hail() -> bool:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            service.signal(number)
        return service.process.poll() is not None

    assert eventually(gone_in_a_hail)
    assert service.wait() == 0
    assert not (service.directory / "master.pid").exists()


def test_a_second_start_leaves_the_pid_file_to_the_first(start: Start, tmp_path: Path) -> None:
    first = start("--pidfile", "master.pid").ready()
    second = start("--bind", f"127.0.0.1:{first.port}", "--pidfile", "master.pid", bind=False)
    assert second.wait() == 4
    assert (tmp_path / "master.pid").read_text() == f"{first.pid}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing reaches a worker that blocks its loop")
def test_a_worker_that_blocks_goes_too_when_the_master_is_killed(start: Start, tmp_path: Path) -> None:
    service = start("--set", "workers.drain_timeout=100ms", env={"MARKS": str(tmp_path)}).ready()
    asking = Client(service.port, path="/block?seconds=600")
    asking.start()
    assert eventually((tmp_path / "blocked").exists)
    os.kill(service.pid, signal.SIGKILL)
    assert service.wait() == -signal.SIGKILL
    asking.stop()
    assert eventually(lambda: not service.members())


def test_a_storm_of_reloads_is_weathered(start: Start) -> None:
    service = start("-w", "3").ready()
    with load(service) as clients:
        # Until one of them has come while another was under way; a signal that is pending takes no second one.

        def kept() -> bool:
            service.signal(signal.SIGHUP)
            return "is kept until" in str(service.log)

        assert eventually(kept)
        service.log.wait("the reload is complete")
        service.signal(signal.SIGHUP)
        assert eventually(lambda: len({title.split()[4] for title in service.workers().values()}) == 1)
    assert [failure for client in clients for failure in client.failures] == []
    service.signal(signal.SIGHUP)
    service.signal(signal.SIGTERM)  # in the middle of a roll
    assert service.wait() == 0
    assert "Traceback" not in str(service.log)


def listens_on(path: Path) -> bool:
    """The file is there a moment before somebody listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_it_serves_without_standard_streams(tmp_path: Path) -> None:
    """Closed descriptors 0 to 2 must not be taken by sockets and pipes, which a print would then write into."""
    arguments = ["-b", "unix:web.sock", "--app-dir", str(Path(__file__).parent), "app:app"]
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "asgiri", *arguments],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / "web.sock"))) as client:
            assert eventually(lambda: listens_on(tmp_path / "web.sock"))
            pid = client.get("http://web/who").json()["pid"]
        assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)] == ["/dev/null"] * 3
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_a_full_disk_does_not_stop_it(start: Start) -> None:
    service = start("--bind", "unix:web.sock", "--set", "log.file=/dev/full", bind=False)
    path = service.directory / "web.sock"

    def listens() -> bool:  # the file is there a moment before, and no line of a log can tell
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0

    assert eventually(listens)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://web/who").status_code == 200
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


def test_a_reload_makes_a_socket_file_that_was_removed_anew(start: Start) -> None:
    service = start("--bind", "unix:web.sock", bind=False).ready()
    path = service.directory / "web.sock"
    for generation in (2, 3):
        path.unlink()
        service.signal(signal.SIGHUP)
        service.log.wait(f"the reload is complete: generation {generation} serves")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://web/who").json()["generation"] == generation
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert not path.exists()


def test_the_log_is_for_no_client(start: Start, tmp_path: Path) -> None:
    """An app that closes descriptor 2 lets the next connection have that number; our lines must not go there."""
    (tmp_path / "closer.py").write_text(CLOSER, "utf-8")
    service = start(app="closer:app").ready()
    assert httpx.get(f"{service.url}/close").status_code == 200
    taker = socket.create_connection(("127.0.0.1", service.port), timeout=20)
    with taker:
        taker.sendall(b"GET /fd HTTP/1.1\r\nHost: a\r\n\r\n")
        assert taker.recv(65536).endswith(b"socket")
        assert httpx.get(f"{service.url}/fail").status_code == 500
        service.log.wait("ValueError: for the log alone")
        taker.sendall(b"GET /fd HTTP/1.1\r\nHost: a\r\n\r\n")
        assert taker.recv(65536).startswith(b"HTTP/1.1 200 OK")


CLOSER = """
import os

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/close":
        for fd in (0, 1, 2):
            os.close(fd)
    if scope["path"] == "/fail":
        raise ValueError("for the log alone")
    links = [f"/proc/self/fd/{fd}" for fd in (0, 1, 2)]
    kinds = {os.readlink(link).partition(":")[0] for link in links if os.path.lexists(link)}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": " ".join(kinds).encode()})
"""


def test_usr1_reopens_the_log_file(start: Start) -> None:
    service = start(config="log: {file: asgiri.log}")
    log = service.directory / "asgiri.log"
    assert eventually(lambda: log.exists() and "ready:" in log.read_text())
    rotated = log.rename(service.directory / "asgiri.log.1")
    service.signal(signal.SIGUSR1)
    assert eventually(lambda: log.exists() and "reopened" in log.read_text())
    assert "ready:" in rotated.read_text()


def test_usr1_reopens_the_access_log(start: Start) -> None:
    service = start("-w", "2", config="log: {access: {file: access.log}}").ready()
    log = service.directory / "access.log"
    assert log.exists()
    assert log.stat().st_mode & 0o777 == 0o640
    log.rename(service.directory / "access.log.1")
    service.signal(signal.SIGUSR1)
    assert eventually(log.exists)
    inode = log.stat().st_ino
    assert eventually(lambda: all(inode in open_inodes(pid) for pid in service.workers()))


def open_inodes(pid: int) -> set[int]:
    """The inodes that a process has open."""
    return {os.stat(f"/proc/{pid}/fd/{fd}").st_ino for fd in os.listdir(f"/proc/{pid}/fd")}


def test_there_is_no_access_log_when_none_is_wanted(start: Start) -> None:
    service = start("--no-access-log", config="log: {access: {file: access.log}}").ready()
    assert get(service, "/who")
    assert not (service.directory / "access.log").exists()


def test_check_config(start: Start, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n", "utf-8")
    good = start("--check-config", "--import")
    assert good.wait() == 0
    bad = start("--check-config", "--import", app="broken:app")
    assert bad.wait() == 2
    bad.log.wait("ZeroDivisionError")
    unseen = start("--check-config", app="broken:app")
    assert unseen.wait() == 0


def test_a_boot_that_hangs_is_ended(start: Start, tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text("import threading\nthreading.Event().wait()\n", "utf-8")
    service = start("--set", "workers.boot_timeout=300ms", app="stuck:app")
    assert service.wait() == 3
    service.log.wait("was not ready within")


class Held:
    """A kept connection that has been used once and idles until it is asked again."""

    def __init__(self, service: Service) -> None:
        self._sock = socket.create_connection(("127.0.0.1", service.port), timeout=20)

    def __enter__(self) -> Held:
        assert b" 200 " in self.ask("/")
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def ask(self, path: str) -> bytes:
        self._sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return self._sock.recv(65536)


def established(port: int) -> int:
    """How many connections a loopback port has that are up."""
    lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    local = f"0100007F:{port:04X}"
    return sum(1 for line in lines if line.split()[1] == local and line.split()[3] == "01")
