"""The access log of the real command, as an operator reads it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.service import Service, eventually, get, load

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")


def curl(service: Service, path: str, *arguments: str) -> bytes:
    command = ["curl", "--silent", "--show-error", "--max-time", "20", *arguments, f"{service.url}{path}"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@needs_curl
def test_a_line_for_each_request_on_stderr(start: Start) -> None:
    service = start().ready()
    size = len(curl(service, "/any?a=b"))
    curl(service, "/other", "--head")
    curl(service, "/missing", "--http1.0")
    match = service.log.wait(
        r'^[\d-]+ [\d:.]+ HTTP  \[worker 1 gen 1\] 127\.0\.0\.1:\d+ "GET /any\?a=b HTTP/1\.1" '
        rf"200 {size}B [\d.]+ms ([0-9a-f]{{8}})-1-1$"
    )
    service.log.wait(rf'"HEAD /other HTTP/1\.1" 200 0B [\d.]+ms {match[1]}-2-1$')
    service.log.wait(rf'"GET /missing HTTP/1\.0" 200 \d+B [\d.]+ms {match[1]}-3-1$')
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert str(service.log).count(" HTTP  [") == 3


@needs_curl
def test_none_when_none_is_wanted(start: Start) -> None:
    service = start("--no-access-log").ready()
    curl(service, "/any")
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert "/any" not in str(service.log)


def test_the_id_of_a_failure_is_that_of_its_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text("async def app(scope, receive, send):\n    raise ValueError('on purpose')\n")
    service = start("--lifespan", "off", app="failing:app").ready()
    with pytest.raises(AssertionError, match="500"):
        get(service, "/a")
    failure = service.log.wait(r"failed: ValueError \(GET '/a', request ([0-9a-f]{8}-1-1)\)")
    service.log.wait(rf'"GET /a HTTP/1\.1" 500 26B [\d.]+ms {failure[1]}$')


@needs_curl
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_json(start: Start, loop: str) -> None:
    service = start("--loop", loop, config="log: {access: {file: access.log, format: json}}").ready()
    size = len(curl(service, "/a%22b?c=%0a"))
    log = service.directory / "access.log"
    assert eventually(lambda: lines_of(log))
    [line] = map(json.loads, lines_of(log))
    assert (line["method"], line["path"], line["query"]) == ("GET", "/a%22b", "c=%0a")
    assert (line["status"], line["bytes"], line["protocol"]) == (200, size, "HTTP/1.1")
    assert 0 < line["duration"] < 20
    assert line["pid"] in service.workers()


@needs_curl
def test_combined(start: Start) -> None:
    service = start(config="log: {access: {file: access.log, format: combined}}").ready()
    curl(service, "/a", "--user-agent", 'an "agent"', "--referer", "http://other.test/")
    curl(service, "/b", "--user-agent", "")
    log = service.directory / "access.log"
    assert eventually(lambda: len(lines_of(log)) == 2)
    one, two = lines_of(log)
    time = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
    quoted = r'"http://other\.test/" "an \\x22agent\\x22"'
    assert re.fullmatch(rf'127\.0\.0\.1 - - {time} "GET /a HTTP/1\.1" 200 \d+ {quoted}', one)
    assert re.fullmatch(rf'127\.0\.0\.1 - - {time} "GET /b HTTP/1\.1" 200 \d+ "-" "-"', two)


def test_a_rotation_under_load_loses_no_line(start: Start) -> None:
    service = start("-w", "2", config="log: {access: {file: access.log}}").ready()
    log = service.directory / "access.log"
    files = [log]
    with load(service, clients=4) as clients:
        for number in range(5):
            old = log.rename(log.with_suffix(f".{number}"))
            files.append(old)
            before = sum(len(client.served) for client in clients)
            service.signal(signal.SIGUSR1)
            assert eventually(lambda: lines_of(log))
            assert eventually(lambda before=before: sum(len(client.served) for client in clients) > before + 20)  # type: ignore[misc]
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert not [failure for client in clients for failure in client.failures]
    lines = [line for file in files for line in lines_of(file)]
    assert all(re.search(r'"GET /who HTTP/1\.1" 200 \d+B [\d.]+ms [0-9a-f]{8}-\d+-\d+$', line) for line in lines)
    ids = [line.rpartition(" ")[2] for line in lines]
    assert len(set(ids)) == len(ids), "no line is there twice"
    assert len(lines) == sum(len(client.served) for client in clients)
