"""The push: lines, datagrams, and listeners that are not there."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from asgiri.admin.families import Families
from asgiri.admin.statsd import Lines, Pusher, packets, plain, safe
from asgiri.config.schema import Config, Statsd
from tests.admin.boards import Fake, count, observe
from tests.proto.fakes import in_loop, until


def families(fake: Fake) -> Families:
    return Families(fake.board, Config(), fake.clock_ns, fake.wall)


def lines_of(lines: Lines) -> dict[str, str]:
    return dict(line.split(":") for line in lines.next())


def test_counters_are_what_has_come_since() -> None:
    fake = Fake()
    count(fake.workers[0], "requests", "http/1.1", "GET", "2xx", by=5)
    lines = Lines(families(fake), "web.eu west..1")
    count(fake.workers[0], "requests", "http/1.1", "GET", "2xx", by=3)
    count(fake.workers[1], "requests", "http/1.1", "GET", "2xx", by=4)
    sent = lines_of(lines)
    assert sent["web.eu_west.1.requests.http_1_1.GET.2xx"] == "7|c"
    assert not [name for name in sent if "POST" in name]
    assert sent["web.eu_west.1.workers.serving"] == "2|g"
    fake.board.give_back(fake.workers[0])
    again = lines_of(lines)
    assert "web.eu_west.1.requests.http_1_1.GET.2xx" not in again
    assert again["web.eu_west.1.workers.serving"] == "1|g"


def test_of_times_there_are_percentiles() -> None:
    fake = Fake()
    lines = Lines(families(fake), "")
    observe(fake.workers[0], "request_duration_seconds", 0.0003, "h2", times=99)
    observe(fake.workers[1], "request_duration_seconds", 0.2, "h2", times=1)
    sent = {name: value for name, value in lines_of(lines).items() if name.startswith("request_duration")}
    name = "request_duration_seconds.h2"
    assert sent == {
        f"{name}.count": "100|c",
        f"{name}.p50": "0.000253|g",
        f"{name}.p90": "0.000455|g",
        f"{name}.p99": "0.0005|g",
    }


def test_numbers_and_names_are_what_all_understand() -> None:
    assert [plain(3), plain(0.5), plain(1e-9), plain(1.7e9)] == ["3", "0.5", "0", "1700000000"]
    assert [safe("http/1.1"), safe("a:b|c@d\n"), safe("é")] == ["http_1_1", "a_b_c_d", ""]


def test_packets_are_full_and_not_too_large() -> None:
    lines = [f"name{number}:{number}|c" for number in range(1000)]
    sent = list(packets(["x" * 1401, *lines]))
    assert all(1300 < len(packet) <= 1400 for packet in sent[:-1])
    assert b"\n".join(sent).decode().split("\n") == lines
    assert list(packets([])) == []


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


def received(sock: socket.socket) -> str:
    found = []
    try:
        while True:
            found.append(sock.recv(65536).decode())
    except BlockingIOError:
        return "\n".join(found)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_it_sends_each_interval(host: str, udp: socket.socket) -> None:
    @in_loop
    async def test() -> None:
        fake = Fake()
        pusher = Pusher(Statsd(address=f"{host}:{udp.getsockname()[1]}", interval=0.02), families(fake))
        pusher.start()
        await until(lambda: "asgiri.workers.serving:2|g" in received(udp))
        count(fake.workers[0], "requests_refused", "host", by=9)
        await until(lambda: "asgiri.requests_refused.host:9|c" in received(udp))
        count(fake.workers[0], "requests_refused", "host", by=8)
        pusher.stop()
        assert "asgiri.requests_refused.host:8|c" in received(udp)  # the last of it

    test()


@in_loop
async def test_a_listener_that_comes_later_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "statsd.sock"
    with caplog.at_level(logging.INFO, "asgiri.admin"):
        pusher = Pusher(Statsd(address=f"unix:{path}", interval=0.01), families(Fake()))
        pusher.start()
        for _ in range(3):
            await until(lambda: True)
            pusher._push()
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
            sock.bind(str(path))
            sock.setblocking(False)
            await until(lambda: "workers" in received(sock))
            await until(lambda: any("again" in record.message for record in caplog.records))
        await until(lambda: len(caplog.records) == 3)  # it has gone
        pusher.stop()
    assert [record.message for record in caplog.records] == [
        f"metrics cannot be sent to unix:{path}: No such file or directory",
        f"metrics are sent to unix:{path} again",
        f"metrics cannot be sent to unix:{path}: Connection refused",
    ]


@in_loop
async def test_that_nobody_listens_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    with caplog.at_level(logging.INFO, "asgiri.admin"):
        pusher = Pusher(Statsd(address=address, interval=600.0), families(Fake()))
        pusher.start()
        for _ in range(5):
            await until(lambda: pusher._sock is not None)
            pusher._push()
        pusher.stop()
    assert [record.message for record in caplog.records] == [f"metrics cannot be sent to {address}: Connection refused"]


@pytest.mark.parametrize("address", ["a name that is none:8125", "127.0.0.1:no", "." * 300 + ":1"])
def test_an_address_that_leads_nowhere_is_said_once(address: str, caplog: pytest.LogCaptureFixture) -> None:
    @in_loop
    async def test() -> None:
        pusher = Pusher(Statsd(address=address, interval=0.01), families(Fake()))
        pusher.start()
        await until(lambda: caplog.records)
        pusher._push()
        pusher._push()
        pusher.stop()
        assert len(caplog.records) == 1
        assert f"metrics cannot be sent to {address}: " in caplog.records[0].message

    test()
