"""Where the log is somebody else's: a system log, systemd's journal; and what others log that comes into ours."""

from __future__ import annotations

import asyncio
import json
import logging
import logging.config
import os
import re
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from asgiri.errors import ConfigError
from asgiri.log import setup, syslog
from asgiri.log.access import open_access_log
from asgiri.log.file import is_journal
from asgiri.log.layout import Source
from asgiri.log.request import noting
from asgiri.log.setup import Label, configure, current_level, enable, set_level
from asgiri.types import Receive, Scope, Send

ROOT = Path(__file__).resolve().parent.parent
LOG = logging.getLogger("asgiri.test")
MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
LOCAL = rf"<(\d+)>(?:{MONTHS}) [ \d]\d \d\d:\d\d:\d\d shop\[{os.getpid()}\]: (.*)"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The loggers as they were before, whatever a test makes of them."""
    found = [logging.getLogger(name) for name in ("asgiri", "", "py.warnings")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in found]
    found[0].handlers.clear()
    yield
    logging.captureWarnings(False)
    for handler in found[0].handlers:
        if isinstance(handler, setup.LineHandler):
            handler.end()
    for logger, (handlers, level, propagate) in zip(found, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def daemon(path: Path) -> socket.socket:
    """A system log of this machine."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.settimeout(5)
    return sock


def to(file: str, format: str = "text", **more: bool) -> None:  # noqa: A002 - as in configure
    configure(level="info", format=format, file=file, role="master", label=Label("local3", "shop"), **more)


def heard(sock: socket.socket) -> tuple[int, str]:
    """Priority and message of the next line that comes, as libc would have sent it."""
    match = re.fullmatch(LOCAL, sock.recv(1 << 16).decode())
    assert match
    return int(match[1]), match[2]


def drained(sock: socket.socket) -> list[str]:
    """The messages that are there now."""
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(heard(sock)[1])
    return found


# The system log


def test_lines_to_the_system_log_of_this_machine(tmp_path: Path) -> None:
    with closing(daemon(tmp_path / "log")) as sock:
        to(f"syslog:{tmp_path}/log")
        LOG.info("a\nb")
        LOG.error("ü", extra={"trace": "Traceback:\n  x\n"})
        LOG.critical("c")
        local3 = 19 << 3
        assert [heard(sock) for _ in range(5)] == [
            (local3 + 6, r"INFO  [master] a\nb"),
            (local3 + 3, "ERROR [master] ü"),
            (local3 + 3, "Traceback:"),
            (local3 + 3, "  x"),
            (local3 + 2, "CRIT  [master] c"),
        ]


def test_json_to_the_system_log(tmp_path: Path) -> None:
    with closing(daemon(tmp_path / "log")) as sock:
        to(f"syslog:{tmp_path}/log", "json")
        LOG.warning("a")
        number, line = heard(sock)
        assert (number, json.loads(line)["message"]) == ((19 << 3) + 4, "a")


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "[::1]")])
def test_lines_by_udp(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((host.strip("[]"), 0))
        except OSError:
            pytest.skip("no IPv6 here")
        sock.settimeout(5)
        to(f"syslog:{host}:{sock.getsockname()[1]}")
        before = datetime.now().astimezone()
        LOG.info("a")
        # RFC 5424 section 6: PRI VERSION SP TIMESTAMP SP HOSTNAME SP APP-NAME SP PROCID SP MSGID SP SD SP MSG
        match = re.fullmatch(r"<158>1 (\S+) ([\w-]+) shop (\d+) - - INFO  \[master\] a", sock.recv(1 << 16).decode())
        assert match
        assert before <= datetime.fromisoformat(match[1]) <= datetime.now().astimezone()
        assert int(match[3]) == os.getpid()


def test_a_line_that_is_too_long_is_cut_between_characters(tmp_path: Path) -> None:
    with closing(daemon(tmp_path / "log")) as sock:
        to(f"syslog:{tmp_path}/log")
        LOG.info("%s", "ü" * 10_000)
        _, line = heard(sock)
        assert re.fullmatch(r"INFO  \[master\] ü+\[\.\.\.\]", line)
        assert len(line.encode()) in (syslog.MESSAGE_MOST - 1, syslog.MESSAGE_MOST)


def test_a_system_log_that_was_restarted_and_what_was_lost_meanwhile(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    to(f"syslog:{path}")
    LOG.info("lost")
    LOG.info("lost too")
    assert (
        capfd.readouterr().err == f'asgiri: the system log "syslog:{path}" takes no lines: No such file or directory\n'
    )
    with closing(daemon(path)) as sock:
        LOG.info("a")
        missed = "the system log has lost 2 lines: No such file or directory"
        assert [heard(sock)[1] for _ in range(2)] == [missed, "INFO  [master] a"]
    LOG.critical("last words")
    path.unlink()
    told = f'asgiri: the system log "syslog:{path}" takes no lines: Connection refused\nCRIT  [master] last words\n'
    assert capfd.readouterr().err == told
    with closing(daemon(path)) as sock:
        LOG.info("b")
        assert heard(sock)[1] == "the system log has lost 1 line: Connection refused"
        assert heard(sock)[1] == "INFO  [master] b"
    path.unlink()
    with closing(daemon(path)) as sock:  # restarted between two lines: nothing is lost
        LOG.info("c")
        assert heard(sock)[1] == "INFO  [master] c"
    assert capfd.readouterr().err == ""


def test_a_system_log_that_does_not_read_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(syslog, "PATIENCE", 0.01)
    with closing(daemon(tmp_path / "log")) as sock:
        to(f"syslog:{tmp_path}/log")
        while not (said := capfd.readouterr().err):
            LOG.info("x" * 4000)
        assert said.endswith("takes no lines: its reader does not read\n")
        LOG.info("lost")
        sock.setblocking(False)
        sent = drained(sock)
        assert sent
        assert all(line.endswith("x" * 4000) for line in sent)
        sock.settimeout(5)
        LOG.info("a")
        assert heard(sock)[1] == "the system log has lost 2 lines: its reader does not read"
        assert heard(sock)[1] == "INFO  [master] a"


def test_a_host_that_is_not_known() -> None:
    with pytest.raises(ConfigError, match=r'log\.file: cannot open "syslog:none\.invalid:514"'):
        to("syslog:none.invalid:514")


def access_line(file: str, format: str = "text") -> None:  # noqa: A002 - the name of the key
    log = open_access_log(file, format, Source(1, 2, 3, "ab"), lambda *_: None, Label("local3", "shop"))
    for target in (b"/a", b"/b"):
        log.record("127.0.0.1:5", "GET", target, "HTTP/1.1", [], 200, 7, 0.0, 4, 5, "ab-4-5")
    log.close()


def test_the_access_log_to_the_system_log(tmp_path: Path) -> None:
    with closing(daemon(tmp_path / "log")) as sock:
        access_line(f"syslog:{tmp_path}/log")
        for target in ("/a", "/b"):
            number, line = heard(sock)
            assert number == (19 << 3) + 6
            what = rf'HTTP  \[worker 1 gen 2\] 127\.0\.0\.1:5 "GET {target} HTTP/1\.1" 200 7B [\d.]+ms ab-4-5'
            assert re.fullmatch(what, line)
        access_line(f"syslog:{tmp_path}/log", "{status} {path}")
        assert [heard(sock)[1] for _ in range(2)] == ["200 /a", "200 /b"]


def test_access_lines_wait_for_a_system_log_that_is_not_there(tmp_path: Path) -> None:
    log = open_access_log(
        f"syslog:{tmp_path}/log", "{path}", Source(1, 2, 3, "ab"), lambda *_: None, Label("local3", "shop")
    )
    log.record("unix", "GET", b"/a", "HTTP/1.1", [], 200, 7, 0.0, 4, 5, "ab-4-5")
    log.flush()
    with closing(daemon(tmp_path / "log")) as sock:
        log.close()
        assert heard(sock)[1] == "/a"


# The journal


def journal(fd: int) -> str:
    found = os.fstat(fd)
    return f"{found.st_dev}:{found.st_ino}"


def test_the_journal_is_known_by_its_socket() -> None:
    assert is_journal({"JOURNAL_STREAM": journal(2)})
    device, inode = journal(2).split(":")
    for other in ("", device, f"{device}:{int(inode) + 1}", f"{device}:", "a:b", f"{device}:{inode}:0"):
        assert not is_journal({"JOURNAL_STREAM": other})
    assert not is_journal({})


WRITER = """
import logging, os, sys
from asgiri.log.access import open_access_log, this_process
from asgiri.log.setup import configure
found = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino + int(sys.argv[2])}"
configure(level="debug", format=sys.argv[1], file="-", role="master")
log = logging.getLogger("asgiri")
log.debug("a")
log.warning("b")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("c")
access = open_access_log("-", sys.argv[1], this_process(1, 2), lambda *_: None)
access.record("unix", "GET", b"/", "HTTP/1.1", [], 200, 7, 0.0, 4, 5, "ab-4-5")
access.close()
"""


def written(format: str, off: int, stderr: Callable[[], tuple[int, int]]) -> list[str]:  # noqa: A002
    reading, writing = stderr()
    subprocess.run([sys.executable, "-c", WRITER, format, str(off)], check=True, cwd=ROOT, stderr=writing, timeout=30)
    os.close(writing)
    with os.fdopen(reading) as stream:
        return stream.read().splitlines()


def stream_sockets() -> tuple[int, int]:
    first, second = socket.socketpair()
    return first.detach(), second.detach()


@pytest.mark.parametrize("stderr", [os.pipe, stream_sockets])
def test_lines_to_the_journal(stderr: Callable[[], tuple[int, int]]) -> None:
    lines = written("text", 0, stderr)
    assert lines[:3] == ["<7>DEBUG [master] a", "<4>WARN  [master] b", "<3>ERROR [master] c"]
    assert lines[3] == "<3>Traceback (most recent call last):"
    assert all(line.startswith("<3>") for line in lines[3:-1])
    assert lines[-2] == "<3>ZeroDivisionError: division by zero"
    assert lines[-1].startswith('<6>HTTP  [worker 1 gen 2] unix "GET / HTTP/1.1" 200 7B ')


def test_json_to_the_journal() -> None:
    lines = written("json", 0, os.pipe)
    assert [line[:3] for line in lines] == ["<7>", "<4>", "<3>", "<6>"]
    told = [json.loads(line[3:]) for line in lines]
    assert [one.get("message") for one in told] == ["a", "b", "c", None]
    assert all("timestamp" in one for one in told)


def test_another_stderr_than_the_journals_is_written_to_as_ever() -> None:
    lines = written("text", 1, os.pipe)
    assert not any(line.startswith("<") for line in lines)
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} DEBUG ", lines[0])


# What others log


def test_what_others_log_is_captured_when_asked(tmp_path: Path) -> None:
    to(str(tmp_path / "log"), capture=True)
    logging.getLogger("shop.db").info("a\nb")
    logging.getLogger("shop.db").debug("below the level")
    logging.getLogger().warning("c")
    LOG.info("d")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("e", UserWarning, stacklevel=1)
    lines = [line[24:] for line in (tmp_path / "log").read_text().splitlines()]
    assert lines[:3] == [r"INFO  [master] shop.db: a\nb", "WARN  [master] root: c", "INFO  [master] d"]  # once each
    assert re.fullmatch(r"WARN  \[master\] py\.warnings: .*UserWarning: e.*", lines[3])


def test_captured_lines_in_json_name_their_logger(tmp_path: Path) -> None:
    to(str(tmp_path / "log"), "json", capture=True)
    logging.getLogger("shop").error("a")
    told = json.loads((tmp_path / "log").read_text())
    assert (told["logger"], told["level"], told["role"], told["message"]) == ("shop", "error", "master", "a")


class Detached:
    """What cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("detached")


@pytest.mark.parametrize("format", ["text", "json"])
def test_what_an_application_logs_wrongly_is_no_failure_of_its_own(tmp_path: Path, format: str) -> None:  # noqa: A002
    logging.getLogger().handlers.clear()  # pytest's own raises what a message does
    to(str(tmp_path / "log"), format, capture=True)
    logging.getLogger("shop").info("a %s", Detached())
    logging.getLogger("shop").info("a", Detached())
    logging.getLogger("shop").info(Detached())
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 3
    assert all("a message that cannot be shown (test_log_elsewhere.py, line " in line for line in lines)


@pytest.mark.parametrize("format", ["text", "json"])
def test_fields_of_an_application_are_not_taken_for_ours(tmp_path: Path, format: str) -> None:  # noqa: A002
    to(str(tmp_path / "log"), format, capture=True)
    for about in ("b", {"b": object()}, {"level": "critical"}):
        logging.getLogger("shop").info("a", extra={"about": about, "trace": "c"})
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 3
    if format == "json":
        told = [json.loads(line) for line in lines]
        assert [(one["level"], one["message"], "trace" in one) for one in told] == [("info", "a", False)] * 3


def answer(state: dict[str, str], kind: str = "http") -> None:
    """Have an application that logs be called as the server does: in a context of its own."""

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        logging.getLogger("shop").info("a")
        LOG.info("b")
        await asyncio.to_thread(logging.getLogger("shop").info, "c")

    async def nothing(*_: object) -> Any:
        raise AssertionError

    async def called() -> None:
        await noting(app)({"type": kind, "state": state}, nothing, nothing)

    asyncio.run(called())


def test_captured_lines_know_their_request(tmp_path: Path) -> None:
    to(str(tmp_path / "log"), capture=True)
    answer({"request_id": "ab-1-2"})
    answer({"request_id": "the application's own"}, "lifespan")
    assert [line[24:] for line in (tmp_path / "log").read_text().splitlines() if "asyncio" not in line] == [
        "INFO  [master] shop: a (request ab-1-2)",
        "INFO  [master] b",
        "INFO  [master] shop: c (request ab-1-2)",
        "INFO  [master] shop: a",
        "INFO  [master] b",
        "INFO  [master] shop: c",
    ]
    to(str(tmp_path / "json"), "json", capture=True)
    answer({"request_id": "ab-1-2"})
    answer({})
    told = [json.loads(line) for line in (tmp_path / "json").read_text().splitlines()]
    assert [one.get("request_id") for one in told] == ["ab-1-2"] * 3 + [None] * 3


def test_what_others_log_is_left_alone_otherwise(tmp_path: Path) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    to(str(tmp_path / "log"))
    assert (root.handlers, root.level) == (before, level)
    logging.getLogger("shop").error("a")
    assert (tmp_path / "log").read_text() == ""


def test_what_was_captured_before_is_not_captured_twice(tmp_path: Path) -> None:
    to(str(tmp_path / "old"), capture=True)
    to(str(tmp_path / "new"), capture=True)
    logging.getLogger("shop").error("a")
    assert (tmp_path / "old").read_text() == ""
    assert len((tmp_path / "new").read_text().splitlines()) == 1
    to(str(tmp_path / "new"))
    logging.getLogger("shop").error("b")
    assert len((tmp_path / "new").read_text().splitlines()) == 1


CONFIGURING = """
import logging, logging.config, sys
from asgiri.log.setup import configure, enable
configure(level="info", format="text", file=sys.argv[1], role="master", capture=True)
logging.config.dictConfig({
    "version": 1,
    "handlers": {"own": {"class": "logging.FileHandler", "filename": sys.argv[2]}},
    "root": {"handlers": ["own"], "level": "INFO"},
})
enable()
logging.getLogger("shop").error("a")
logging.getLogger("asgiri").error("b")
logging.getLogger("asgiri.app").error("c")
"""


def test_an_application_that_configures_logging_wins_and_ours_goes_on(tmp_path: Path) -> None:
    """dictConfig closes all handlers, and silences the loggers that it does not name: in a process of its own."""
    files = [tmp_path / "ours", tmp_path / "own"]
    code = CONFIGURING.replace("configure(level", 'logging.getLogger("asgiri.app")\nconfigure(level', 1)
    subprocess.run([sys.executable, "-c", code, *map(str, files)], check=True, cwd=ROOT, timeout=30)
    assert [line[24:] for line in files[0].read_text().splitlines()] == ["ERROR [master] b", "ERROR [master] c"]
    assert files[1].read_text() == "a\n"


def test_an_application_that_takes_all_handlers_away(tmp_path: Path) -> None:
    to(str(tmp_path / "log"))
    ours, root = logging.getLogger("asgiri"), logging.getLogger()
    ours.handlers = []  # as recipes for loguru have it, of all loggers
    setup.enable()
    setup.enable()
    LOG.info("a")
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    handler = ours.handlers[0]
    ours.handlers, ours.propagate = [], True
    root.addHandler(logging.NullHandler())
    setup.enable()
    assert not ours.handlers  # the application wants them itself
    ours.addHandler(handler)  # for who cleans up


def test_loggers_of_others_stay_disabled() -> None:
    mine, other = logging.getLogger("asgiri.some"), logging.getLogger("asgirish")
    mine.disabled = other.disabled = True
    enable()
    assert (mine.disabled, other.disabled) == (False, True)


# The level


def test_the_level_can_be_changed_while_all_runs(tmp_path: Path) -> None:
    to(str(tmp_path / "log"), capture=True)
    assert current_level() == logging.INFO
    set_level(logging.DEBUG)
    assert current_level() == logging.DEBUG
    LOG.debug("a")
    logging.getLogger("shop").debug("b")
    set_level(logging.ERROR)
    LOG.warning("c")
    assert [line[24:] for line in (tmp_path / "log").read_text().splitlines()] == [
        "DEBUG [master] a",
        "DEBUG [master] shop: b",
    ]
    to(str(tmp_path / "log"))
    assert current_level() == logging.INFO


def test_the_level_of_others_is_theirs_where_it_is_not_captured(tmp_path: Path) -> None:
    to(str(tmp_path / "log"))
    before = logging.getLogger().level
    set_level(logging.DEBUG)
    assert logging.getLogger().level == before
