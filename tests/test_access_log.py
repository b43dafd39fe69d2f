"""The access log: what its lines look like, what a peer cannot do to them, and when they are written, or lost."""

from __future__ import annotations

import asyncio
import calendar
import itertools
import json
import logging
import math
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiri.access_format import FORMATS, PLACEHOLDERS, UnknownNameError, parse_format
from asgiri.equip import loop_factory
from asgiri.errors import ConfigError
from asgiri.log import access
from asgiri.log.access import AccessLog, Outlet, open_access_log, this_process
from asgiri.log.file import LogFile
from asgiri.log.layout import LINE_SIZE, Layout, Source
from asgiri.worker.main import call_later

ROOT = Path(__file__).resolve().parent.parent
SOURCE = Source(worker=1, generation=2, pid=4242, prefix="5f3a9c1e")
NOON = calendar.timegm((2026, 11, 23, 15, 8, 1)) + 0.1234  # 16:08:01 in Berlin
HEADERS = [(b"host", b"a"), (b"referer", b"http://a/?q"), (b"user-agent", b"curl/8.5 (x; y)"), (b"x-a", b"1")]
EVERYTHING = " ".join(f"{{{name}}}" for name in PLACEHOLDERS if name != "request_header") + " {request_header:x-a}"

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


class Clock:
    """A clock that is set."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Timer:
    """A loop's ``call_later``: what was armed is fired when the test says so."""

    def __init__(self) -> None:
        self.armed: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, callback: Callable[[], None]) -> None:
        self.armed.append((seconds, callback))

    def fire(self) -> None:
        armed, self.armed = self.armed, []
        for _, callback in armed:
            callback()


class Rig:
    """An access log on a file, with a clock and a timer of its own."""

    def __init__(self, file: Path | str, format: str = "{request} {target}") -> None:  # noqa: A002 - the key's name
        self.file = Path(file)
        self.clock = Clock()
        self.timer = Timer()
        self.outlet = Outlet(LogFile(str(file)), self.clock)
        self.log = AccessLog(Layout(format, SOURCE), self.outlet, self.timer, self.clock, self.clock)
        self.count = 0

    def record(self, times: int = 1, target: bytes = b"/") -> None:
        """Record so many, numbered from 1 on, a millisecond each."""
        for _ in range(times):
            self.count += 1
            self.clock.now += 0.001
            self.log.record("unix", "GET", target, "HTTP/1.1", [], 200, 1, self.clock.now - 0.001, 1, self.count, "")

    @property
    def numbers(self) -> list[int]:
        """Of the lines in the file, the number that begins each."""
        return [int(line.split()[0]) for line in self.file.read_text("ascii").splitlines()]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "access.log")
    yield rig
    rig.log.close()


@contextmanager
def zone(name: str) -> Iterator[None]:
    """The local time of a time zone, in the notation of POSIX."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


@pytest.fixture
def berlin() -> Iterator[None]:
    with zone("CET-1CEST,M3.5.0,M10.5.0/3"):
        yield


def lines(
    format: str,  # noqa: A002 - the key's name
    *,
    client: str = "127.0.0.1:53412",
    method: str = "GET",
    target: bytes = b"/items?page=2",
    headers: list[tuple[bytes, bytes]] = HEADERS,
    status: int = 200,
    size: int = 1234,
    seconds: float = 0.0012345,
    request_id: str = "5f3a9c1e-4711-12",
    now: float = NOON,
    times: int = 1,
) -> str:
    """What is written of so many exchanges that are alike."""
    layout = Layout(format, SOURCE)
    stamp, _ = layout.stamp(now)
    picked = layout.pick(headers) if layout.picks else None
    exchange = [stamp, client, method, target, "HTTP/1.1", picked, status, size, seconds, 4711, 12, request_id]
    return layout.render(exchange * times).decode("ascii")


def line(format: str, **exchange: object) -> str:  # noqa: A002 - the key's name
    text = lines(format, **exchange)  # type: ignore[arg-type]
    assert text.endswith("\n")
    return text[:-1]


# What a line looks like


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (
            "text",
            (
                "2026-11-23 16:08:01.123 HTTP  [worker 1 gen 2] 127.0.0.1:53412 "
                '"GET /items?page=2 HTTP/1.1" 200 1234B 1.23ms 5f3a9c1e-4711-12'
            ),
        ),
        (
            "json",
            (
                '{"timestamp": "2026-11-23T16:08:01.123+01:00", "level": "info", "logger": "asgiri.access", '
                '"pid": 4242, "role": "worker", "worker": 1, "generation": 2, "client": "127.0.0.1:53412", '
                '"method": "GET", "path": "/items", "query": "page=2", "protocol": "HTTP/1.1", "status": 200, '
                '"bytes": 1234, "duration": 0.001234, "request_id": "5f3a9c1e-4711-12"}'
            ),
        ),
        ("common", '127.0.0.1 - - [23/Nov/2026:16:08:01 +0100] "GET /items?page=2 HTTP/1.1" 200 1234'),
        (
            "combined",
            (
                '127.0.0.1 - - [23/Nov/2026:16:08:01 +0100] "GET /items?page=2 HTTP/1.1" 200 1234 '
                '"http://a/?q" "curl/8.5 (x; y)"'
            ),
        ),
        (
            EVERYTHING,
            (
                "2026-11-23 16:08:01.123 2026-11-23T16:08:01.123+01:00 23/Nov/2026:16:08:01 +0100 1795446481.123 "
                "127.0.0.1:53412 127.0.0.1 53412 GET /items?page=2 /items page=2 HTTP/1.1 200 1234 1234 0.001234 1.23 "
                "1 2 4242 4711 12 5f3a9c1e-4711-12 1"
            ),
        ),
        ("{{{status}}} %d {{}}\t{pid}%", "{200} %d {}\t4242%"),
        ("{request_header:X-A}{request_header:X-a}", "11"),
    ],
)
@pytest.mark.usefixtures("berlin")
def test_the_formats(name: str, written: str) -> None:
    assert line(name, seconds=0.001234) == written
    assert lines(name, seconds=0.001234, times=3) == f"{written}\n" * 3


@pytest.mark.parametrize(
    ("template", "exchange", "written"),
    [
        ("{client} {host} {port}", {"client": "unix"}, "unix unix -"),
        ("{client} {host} {port}", {"client": "[2001:db8::1]:80"}, "[2001:db8::1]:80 2001:db8::1 80"),
        ("{bytes} {bytes_clf}", {"size": 0}, "0 -"),
        ("{bytes} {bytes_clf}", {"size": 1 << 40}, "1099511627776 1099511627776"),
        ("{path} {query}", {"target": b"/a"}, "/a -"),
        ("{path} {query}|", {"target": b"/a?"}, "/a |"),
        ("{path} {query}", {"target": b"/a?b?c"}, "/a b?c"),
        ("{path} {query}", {"target": b"*"}, "* -"),
        ("{target} {path}", {"target": b"http://a/b?c"}, "http://a/b?c http://a/b"),
        ("{status}", {"status": 499}, "499"),
        ("{method}", {"method": "PROPFIND"}, "PROPFIND"),
        ("{request_header:accept}", {}, "-"),
        ("{request_header:a}|", {"headers": [(b"a", b"")]}, "|"),
        ("{request_header:a}", {"headers": [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]}, "1, 3"),
        ("{duration} {duration_ms}", {"seconds": 0.0}, "0.000000 0.00"),
        ("{duration} {duration_ms}", {"seconds": 0.000005}, "0.000005 0.01"),
        ("{duration} {duration_ms}", {"seconds": 0.9999996}, "1.000000 1000.00"),
        ("{duration} {duration_ms}", {"seconds": 86400.5}, "86400.500000 86400500.00"),
    ],
)
def test_each_placeholder_is_filled_in(template: str, exchange: dict[str, object], written: str) -> None:
    assert line(template, **exchange) == written


def test_a_query_that_is_not_there_is_empty_in_json() -> None:
    assert json.loads(line("json", target=b"/"))["query"] == ""


@pytest.mark.parametrize(
    ("name", "now", "written"),
    [
        ("UTC0", NOON, "2026-11-23 15:08:01.123 2026-11-23T15:08:01.123+00:00 23/Nov/2026:15:08:01 +0000"),
        ("NST3:30", NOON, "2026-11-23 11:38:01.123 2026-11-23T11:38:01.123-03:30 23/Nov/2026:11:38:01 -0330"),
        ("NPT-5:45", NOON, "2026-11-23 20:53:01.123 2026-11-23T20:53:01.123+05:45 23/Nov/2026:20:53:01 +0545"),
        ("UTC0", math.floor(NOON), "2026-11-23 15:08:01.000 2026-11-23T15:08:01.000+00:00 23/Nov/2026:15:08:01 +0000"),
        (
            "UTC0",
            math.nextafter(math.ceil(NOON), 0),
            "2026-11-23 15:08:01.999 2026-11-23T15:08:01.999+00:00 23/Nov/2026:15:08:01 +0000",
        ),
    ],
)
def test_local_time(name: str, now: float, written: str) -> None:
    with zone(name):
        assert line("{time} {time_iso} {time_clf}", now=now) == written


@pytest.mark.usefixtures("berlin")
def test_summer_ends_within_a_second() -> None:
    layout = Layout("{time_iso}", SOURCE)
    before = calendar.timegm((2026, 10, 25, 0, 59, 59)) + 0.999
    assert layout.stamp(before)[0] == "2026-10-25T02:59:59.999+02:00"
    assert layout.stamp(before + 0.001)[0] == "2026-10-25T02:00:00.000+01:00"


@given(st.floats(0, 2**35))
def test_a_stamp_holds_for_its_millisecond(now: float) -> None:
    layout = Layout("{time_unix}", SOURCE)
    stamp, until = layout.stamp(now)
    assert until == pytest.approx(math.floor(now * 1000 + 1) / 1000, abs=1e-3 + now * 1e-15)
    assert abs(float(str(stamp)) - now) < 0.001 + now * 1e-15


@given(st.floats(0, 10_000))
def test_milliseconds_are_rounded(seconds: float) -> None:
    assert abs(float(line("{duration_ms}", seconds=seconds)) - seconds * 1000) < 0.00501


def test_the_time_has_english_months_in_any_locale() -> None:
    months = [line("{time_clf}", now=calendar.timegm((2026, month, 15, 12, 0, 0)))[3:6] for month in range(1, 13)]
    assert " ".join(months) == "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"


def test_the_main_log_and_this_one_have_the_same_json_fields() -> None:
    main = {"timestamp", "level", "logger", "pid", "role", "worker", "generation"}
    assert main < set(json.loads(line("json")))


def test_the_documentation_has_each_placeholder_and_format() -> None:
    page = (ROOT / "docs" / "operations" / "access_log.md").read_text("utf-8")
    assert set(re.findall(r"\{(\w+)(?::NAME)?\}", page)) >= set(PLACEHOLDERS)
    assert all(f"| `{name}` |" in page for name in FORMATS)


# What is no format


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", 'neither format nor template with a {placeholder}: ""'),
        ("jsn", 'neither format nor template with a {placeholder}: "jsn"'),
        ("{{status}}", 'neither format nor template with a {placeholder}: "{{status}}"'),
        ("{statsu}", 'unknown placeholder "statsu"'),
        ("{}", 'unknown placeholder ""'),
        ("{ status}", 'unknown placeholder " status"'),
        ("{status", 'a single "{": a brace that stands for itself is doubled'),
        ("{status}}", 'a single "}": a brace that stands for itself is doubled'),
        ("{status:x}", "{status} takes nothing after its name, got {status:x}"),
        ("{request_header}", "expected {request_header:NAME} with the name of a header field, got {request_header}"),
        (
            "{request_header:a b}",
            "expected {request_header:NAME} with the name of a header field, got {request_header:a b}",
        ),
        ("{status}\n", "a template is one line of printable ASCII, with blanks and tabs"),
        ("{status} \x1b", "a template is one line of printable ASCII, with blanks and tabs"),
        ("{status} ü", "a template is one line of printable ASCII, with blanks and tabs"),
        ("{status}" * 129, "a template has 1024 characters at most, and this one 1032"),
    ],
)
def test_what_is_no_format(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_format(template)
    with pytest.raises(ValueError, match=re.escape(message)):
        Layout(template, SOURCE)


def test_an_unknown_name_tells_what_is_known() -> None:
    with pytest.raises(UnknownNameError) as caught:
        parse_format("{metod}")
    assert (caught.value.name, set(caught.value.known)) == ("metod", set(PLACEHOLDERS))


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_each_placeholder_has_a_column(name: str) -> None:
    assert line(f"<{{{name}{':host' if name == 'request_header' else ''}}}>").startswith("<")


# What a peer cannot do


@pytest.mark.parametrize(
    ("template", "exchange", "written"),
    [
        ("{target}", {"target": b'/"\\'}, r"/\x22\x5c"),
        ("{target}", {"target": b"/\xc3\xa4\xff"}, r"/\xc3\xa4\xff"),
        ("{target}", {"target": b"/\x00\r\n\x1b[2J\x7f"}, r"/\x00\x0d\x0a\x1b[2J\x7f"),
        ("{path}|{query}", {"target": b"/\x80?\n"}, r"/\x80|\x0a"),
        ("{method}", {"method": 'A"\n\u20ac'}, r"A\x22\x0a\x5cu20ac"),
        ('"{request_header:a}"', {"headers": [(b"a", b'" 200 1 "\xe4\t')]}, r'"\x22 200 1 \x22\xe4\x09"'),
    ],
)
def test_what_is_not_plain_is_escaped(template: str, exchange: dict[str, object], written: str) -> None:
    assert line(template, **exchange) == written


def test_in_json_a_byte_is_a_character() -> None:
    written = line("json", target=b'/\xc3\xa4"\\?\x00\x7f')
    assert r'"path": "/\u00c3\u00a4\"\\", "query": "\u0000\u007f"' in written
    assert json.loads(written)["path"].encode("latin-1") == b'/\xc3\xa4"\\'


def test_one_of_many_that_is_not_plain_is_escaped_alone() -> None:
    layout = Layout("{target}", SOURCE)
    targets = [b"/a", b'/"', b"", b"/b\nc", b"/d"]
    batch = [value for target in targets for value in ("", "unix", "GET", target, "", None, 1, 1, 0.1, 1, 1, "")]
    assert layout.render(batch).decode().splitlines() == ["/a", r"/\x22", "-", r"/b\x0ac", "/d"]


ANY_BYTES = st.binary(max_size=60) | st.text(max_size=30).map(str.encode)


@pytest.mark.parametrize("name", [*FORMATS, EVERYTHING])
@given(
    exchanges=st.lists(
        st.tuples(
            ANY_BYTES, st.text(max_size=20), st.lists(st.tuples(st.sampled_from([b"referer", b"x-a"]), ANY_BYTES))
        ),
        min_size=1,
        max_size=4,
    )
)
def test_an_exchange_is_one_line_of_printable_ascii(
    name: str, exchanges: list[tuple[bytes, str, list[tuple[bytes, bytes]]]]
) -> None:
    layout = Layout(name, SOURCE)
    stamp, _ = layout.stamp(NOON)
    batch: list[object] = []
    for target, method, headers in exchanges:
        batch += (stamp, "unix", method, target, "HTTP/1.1", layout.pick(headers), 200, 1, 0.1, 1, 1, "")
    written = layout.render(batch)
    assert written.endswith(b"\n")
    rows = written[:-1].split(b"\n")
    assert len(rows) == len(exchanges)
    for row, (target, _, _) in zip(rows, exchanges, strict=True):
        assert re.fullmatch(rb"[ -~]+", row)
        if name == "json":
            fields = json.loads(row)
            path, _, query = target.partition(b"?")
            assert fields["path"].encode("latin-1") == path
            assert fields["query"].encode("latin-1") == query
        elif name != EVERYTHING:
            quotes = 6 if name == "combined" else 2
            assert row.count(b'"') == quotes
            assert re.search(rb'" 200 1(B|$| ")', row)


@pytest.mark.parametrize("name", [*FORMATS, EVERYTHING])
@pytest.mark.parametrize("byte", [b"a", b'"', b"\xff", b"?"])
@pytest.mark.parametrize("size", [100, 1000, 1800, 4000, 10_000])
def test_a_line_fits_what_a_pipe_keeps_together(name: str, byte: bytes, size: int) -> None:
    headers = [(header, byte * size) for header in (b"referer", b"user-agent", b"x-a")]
    text = line(name, target=b"/" + byte * size, headers=headers, method="A" * size)
    assert len(text) < LINE_SIZE
    assert size < 200 or "[...]" in text
    if name == "json":
        json.loads(text)
    else:
        assert "[...]" not in re.sub(r'\[\.\.\.\](?="| |$)', "", text)  # never within an escape, nor before more
        assert not re.search(r"\\x?.?\[", text)


def test_a_line_is_not_cut_without_need() -> None:
    assert "[...]" not in line("text", target=b"/" + b"a" * 3000)
    assert "[...]" not in line("json", target=b"/" + b"a" * 1500 + b"?" + b"b" * 1500)


def test_request_ids_are_of_one_process() -> None:
    source = this_process(3, 4)
    assert (source.worker, source.generation, source.pid) == (3, 4, os.getpid())
    assert re.fullmatch(r"[0-9a-f]{8}", source.prefix)
    assert source.prefix != this_process(3, 4).prefix


def test_the_longest_request_id_of_a_proxy_leaves_room_for_the_rest() -> None:
    text = line("text", request_id="a" * 200, target=b"/" + b"b" * 8000)
    assert text.endswith(" " + "a" * 200)
    assert len(text) < 4096


# When lines are written


def test_nothing_is_written_before_its_time(rig: Rig) -> None:
    rig.record(10)
    assert rig.numbers == []
    assert [seconds for seconds, _ in rig.timer.armed] == [access.FLUSH_SECONDS]
    rig.timer.fire()
    assert rig.numbers == list(range(1, 11))
    assert rig.timer.armed == []  # an idle server has no timer
    rig.record()
    assert len(rig.timer.armed) == 1
    rig.timer.fire()
    assert rig.numbers == list(range(1, 12))


def test_what_is_much_is_written_at_once(rig: Rig) -> None:
    seen = []
    for _ in range(200):
        rig.record(10, target=b"/" + b"a" * 1000)
        seen.append(rig.file.stat().st_size)
    grown = [after - before for before, after in itertools.pairwise(seen) if after > before]
    assert all(access.FLUSH_SIZE / 2 < size < access.FLUSH_SIZE * 2 for size in grown[1:])
    assert len(grown) > 20
    assert len(rig.timer.armed) == 1  # and it is still the first one
    rig.timer.fire()
    assert rig.numbers == list(range(1, 2001))


def test_a_clock_that_is_set_back_is_followed(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "log", "{request} {time_unix}")
    rig.record()
    rig.timer.fire()
    rig.clock.now -= 3600
    rig.record()
    rig.timer.fire()
    first, second = (float(row.split()[1]) for row in rig.file.read_text().splitlines())
    assert first - second == pytest.approx(3600 - 0.001, abs=0.0015)
    rig.log.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_on_a_real_loop(loop: str, tmp_path: Path) -> None:
    file = tmp_path / "log"
    log = open_access_log(str(file), "{request}", SOURCE, call_later)

    async def serve() -> None:
        log.record("unix", "GET", b"/", "HTTP/1.1", [], 200, 1, 0.1, 1, 1, "")
        assert file.read_text() == ""
        async with asyncio.timeout(20):
            while not file.read_text():
                await asyncio.sleep(0.001)
        log.record("unix", "GET", b"/", "HTTP/1.1", [], 200, 1, 0.1, 1, 2, "")

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(serve())
    log.close()
    assert file.read_text() == "1\n2\n"


def test_closing_writes_what_there_is_and_then_nothing(rig: Rig) -> None:
    rig.record(3)
    rig.log.close()
    assert rig.numbers == [1, 2, 3]
    rig.record(3)
    rig.timer.fire()
    rig.log.close()
    assert rig.numbers == [1, 2, 3]
    assert rig.timer.armed == []


def test_a_rotation_loses_no_line(rig: Rig) -> None:
    for number in range(5):
        rig.record(7)
        rig.file.rename(rig.file.with_suffix(f".{number}"))
        rig.record(7)
        if number % 2:
            rig.timer.fire()
        rig.log.reopen()
        rig.record(7)
    rig.log.close()
    found = []
    for file in [*(rig.file.with_suffix(f".{number}") for number in range(5)), rig.file]:
        found += [int(row.split()[0]) for row in file.read_text().splitlines()]
    assert found == list(range(1, 106))
    assert rig.numbers == list(range(99, 106))  # what was noted before a reopening is in the old file


def test_a_file_that_cannot_be_reopened_stays_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    room = tmp_path / "room"
    room.mkdir()
    rig = Rig(room / "log")
    room.rename(tmp_path / "moved")
    rig.log.reopen()
    rig.record()
    rig.log.close()
    assert (tmp_path / "moved" / "log").read_text() == "1 /\n"
    assert caplog.messages == [f'cannot reopen the access log "{room}/log": No such file or directory']


def test_stderr_by_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    log = open_access_log("-", "{request} {worker}", SOURCE, Timer())
    log.record("unix", "GET", b"/", "HTTP/1.1", [], 200, 1, 0.1, 1, 1, "")
    log.reopen()
    log.close()
    assert capfd.readouterr() == ("", "1 1\n")


def test_a_file_that_cannot_be_opened() -> None:
    with pytest.raises(ConfigError) as caught:
        open_access_log("none/such", "text", SOURCE, Timer())
    assert str(caught.value) == 'log.access.file: cannot open "none/such": No such file or directory'


# Files that do not take what they are given


def test_a_disk_that_is_full_tears_one_line_and_is_told(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (22, before[1]))  # the kernel writes as much, and then no more
    try:
        rig.record(9)
        rig.timer.fire()
        assert rig.file.read_text() == "1 /\n2 /\n3 /\n4 /\n5 /\n6 "
        assert caplog.messages == [f'the access log "{rig.file}" has lost 1 line: File too large']
        assert len(rig.timer.armed) == 1
        rig.record()
        rig.timer.fire()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    rig.timer.fire()
    assert rig.file.read_text() == "1 /\n2 /\n3 /\n4 /\n5 /\n6 \n7 /\n8 /\n9 /\n10 /\n"
    assert rig.timer.armed == []
    assert len(caplog.messages) == 1


@needs_dev_full
def test_a_full_disk_costs_no_more_than_the_buffer(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig("/dev/full")
    size = len(b"1000 /\n") - 1 + 1000
    rig.record(999, target=b"/" + b"a" * 1000)
    assert caplog.messages == []
    room = access.BUFFER_SIZE // size
    rig.record(2 * room, target=b"/" + b"a" * 1000)
    told = re.fullmatch(r'the access log "/dev/full" has lost (\d+) lines: No space left on device', caplog.messages[0])
    assert told
    assert len(caplog.messages) == 1  # two seconds of it are told once
    rig.clock.now += access.TELL_SECONDS
    rig.timer.fire()
    assert len(caplog.messages) == 2
    rig.log.close()
    lost = sum(int(number) for message in caplog.messages for number in re.findall(r"lost (\d+)", message))
    assert lost == rig.log.lost == rig.count


def test_losses_are_told_when_all_is_well_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with unread_fifo(tmp_path) as (rig, reader):
        rig.record(1)
        rig.timer.fire()
        rig.record(3000, target=b"/" + b"a" * 1000)
        assert len(caplog.messages) == 1
        got = b""
        while rig.outlet.waiting:
            got += read_all(reader)
            rig.timer.fire()
        got += read_all(reader)
        numbers = [int(row.split()[0]) for row in got.decode().splitlines()]
        assert numbers[:1000] == list(range(1, 1001))  # those that came first are kept
        assert numbers == sorted(set(numbers))
        lost = sum(int(number) for message in caplog.messages for number in re.findall(r"lost (\d+)", message))
        assert len(numbers) + lost == rig.count
        assert rig.log.lost == lost
        assert all("its reader does not read" in message for message in caplog.messages)
        assert len(caplog.messages) == 2


@contextmanager
def unread_fifo(folder: Path) -> Iterator[tuple[Rig, int]]:
    """A log that writes into a FIFO, and the descriptor to read from it, which does not wait."""
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    rig = Rig(fifo)
    try:
        yield rig, reader
    finally:
        os.close(reader)
        rig.log.close()


def read_all(fd: int) -> bytes:
    """What can be read without waiting."""
    got = []
    try:
        while data := os.read(fd, 1 << 16):
            got.append(data)
    except BlockingIOError:
        pass
    return b"".join(got)


def test_a_reader_that_does_not_read_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with unread_fifo(tmp_path) as (rig, reader):
        rig.record(500, target=b"/" + b"a" * 300)
        rig.timer.fire()
        assert rig.outlet.waiting
        assert len(rig.timer.armed) == 1
        got = b""
        while rig.timer.armed:
            piece = read_all(reader)
            assert piece.endswith(b"\n")  # a write is of whole lines
            got += piece
            rig.timer.fire()
        got += read_all(reader)
    assert [int(row.split()[0]) for row in got.splitlines()] == list(range(1, 501))
    assert caplog.messages == []


def test_a_reader_that_went_away_may_come_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with unread_fifo(tmp_path) as (rig, reader):
        other = os.open(rig.file, os.O_RDONLY | os.O_NONBLOCK)
        os.dup2(other, reader)  # the fixture closes it
        os.close(other)
        rig.record()
        rig.timer.fire()
        assert read_all(reader) == b"1 /\n"
        kept = os.open(os.devnull, os.O_RDONLY)
        os.dup2(kept, reader)
        os.close(kept)
        rig.record(2)
        rig.timer.fire()
        assert rig.outlet.waiting
        again = os.open(rig.file, os.O_RDONLY | os.O_NONBLOCK)
        rig.timer.fire()
        assert read_all(again) == b"2 /\n3 /\n"
        os.close(again)
    assert caplog.messages == []


def test_a_fifo_that_nobody_reads_yet(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    rig = Rig(tmp_path / "fifo")
    rig.record(2)
    rig.timer.fire()
    reader = os.open(rig.file, os.O_RDONLY | os.O_NONBLOCK)
    assert read_all(reader) == b"1 /\n2 /\n"
    rig.log.close()
    os.close(reader)


def test_closing_waits_for_a_slow_reader(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "CLOSE_SECONDS", 20.0)
    with unread_fifo(tmp_path) as (rig, reader):
        rig.record(3000, target=b"/" + b"a" * 300)  # more than a pipe holds
        os.set_blocking(reader, True)
        got = bytearray()

        def read() -> None:
            while data := os.read(reader, 4096):
                got.extend(data)

        reading = threading.Thread(target=read)
        reading.start()
        rig.log.close()
        reading.join()
    assert [int(row.split()[0]) for row in got.decode().splitlines()] == list(range(1, 3001))
    assert caplog.messages == []


def test_closing_does_not_wait_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "CLOSE_SECONDS", 0.05)
    with unread_fifo(tmp_path) as (rig, _):
        rig.record(500, target=b"/" + b"a" * 300)
        rig.log.close()
    [message] = caplog.messages
    assert re.search(r"has lost \d+ lines: its reader does not read", message)


def test_a_pipe_whose_reader_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    rig = Rig(f"/dev/fd/{writing}")
    rig.record(2)
    rig.timer.fire()
    rig.log.close()
    os.close(writing)
    assert caplog.messages == [f'the access log "/dev/fd/{writing}" has lost 2 lines: Broken pipe']


# Several processes, one file

WRITERS = """
import os, sys
from asgiri.log.access import AccessLog, Outlet
from asgiri.log.file import LogFile
from asgiri.log.layout import Layout, Source

file, lines, longest, patience = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 30.0
children = []
for worker in range(4):
    child = os.fork()
    if child == 0:
        outlet = Outlet(LogFile(file))
        log = AccessLog(Layout("{worker} {request} {target}.", Source(worker, 1, 1, "")), outlet, lambda *_: None)
        for number in range(lines):
            log.record("unix", "GET", b"x" * (number * 37 % longest), "", [], 200, 1, 0.1, 1, number, "")
            if number % 50 == 0:
                log.flush()
                outlet.write(b"", patience)
        log.flush()
        outlet.write(b"", patience)
        log.close()
        os._exit(0)
    children.append(child)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


def check_written(text: str, count: int, longest: int) -> None:
    """Each worker's lines are there, whole, and in their order."""
    found: dict[int, list[int]] = {}
    for row in text.splitlines():
        match = re.fullmatch(r"(\d) (\d+) (x+|-)\.", row)
        assert match, row
        worker, number, target = match.groups()
        assert target.count("x") == int(number) * 37 % longest
        found.setdefault(int(worker), []).append(int(number))
    assert found == {worker: list(range(count)) for worker in range(4)}


def test_several_processes_append_to_one_file(tmp_path: Path) -> None:
    file = tmp_path / "log"
    command = [sys.executable, "-c", WRITERS, str(file), "2000", "3000"]
    subprocess.run(command, check=True, cwd=ROOT, timeout=50)
    check_written(file.read_text("ascii"), 2000, 3000)


def test_several_processes_share_the_pipe_of_stderr() -> None:
    command = [sys.executable, "-c", WRITERS, "-", "2000", "3000"]
    done = subprocess.run(command, check=True, cwd=ROOT, timeout=50, stderr=subprocess.PIPE)
    check_written(done.stderr.decode("ascii"), 2000, 3000)


# What it costs


def test_it_costs_no_more_than_a_few_microseconds(tmp_path: Path) -> None:
    """A bound that only a mistake exceeds: a quiet machine needs less than a fifth of it."""
    log = AccessLog(Layout("text", SOURCE), Outlet(LogFile(str(tmp_path / "log"))), Timer())

    def run() -> float:
        began = time.process_time()
        for number in range(1000):
            name = f"5f3a9c1e-7-{number}"
            log.record(
                "127.0.0.1:53412", "GET", b"/items?page=2", "HTTP/1.1", HEADERS, 200, 1234, 0.0005, 7, number, name
            )
        log.flush()
        return time.process_time() - began

    assert min(run() for _ in range(20)) / 1000 < 5e-6
    log.close()


def test_nothing_is_logged_for_a_request(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    rig.record(3)
    rig.timer.fire()
    assert caplog.records == []
