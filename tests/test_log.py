"""The log: the shape of a line, what cannot be smuggled into it, and that it never fails the program."""

from __future__ import annotations

import json
import logging
import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiri.errors import ConfigError
from asgiri.log import setup
from asgiri.log.file import LogFile
from asgiri.log.setup import check_file, configure, escape, reopen

ROOT = Path(__file__).resolve().parent.parent
LOG = logging.getLogger("asgiri.test")
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} "


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The logger as it was before, whatever a test makes of it."""
    logger = logging.getLogger("asgiri")
    before = (logger.handlers[:], logger.level, logger.propagate)
    logger.handlers.clear()
    yield
    for handler in logger.handlers:
        if isinstance(handler, setup.LineHandler):  # pytest may have one there, too
            handler.end()
    logger.handlers[:], _, logger.propagate = before
    logger.setLevel(before[1])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log"


def to_file(
    file: Path,
    format: str = "text",  # noqa: A002 - as in configure
    level: str = "info",
    role: str = "master",
) -> None:
    configure(level=level, format=format, file=str(file), role=role)


def without_stamp(text: str) -> list[str]:
    """The lines, each without the time that it must begin with."""
    lines = text.splitlines()
    assert all(re.match(STAMP, line) for line in lines)
    return [re.sub(STAMP, "", line, count=1) for line in lines]


def objects(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text("ascii").splitlines()]


def test_lines_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    configure(level="debug", format="text", file="-", role="worker 1 gen 2")
    LOG.debug("a")
    LOG.info("b %s", 1)
    LOG.warning("c")
    LOG.error("d")
    LOG.critical("e")
    out, err = capfd.readouterr()
    assert not out
    assert without_stamp(err) == [
        "DEBUG [worker 1 gen 2] a",
        "INFO  [worker 1 gen 2] b 1",
        "WARN  [worker 1 gen 2] c",
        "ERROR [worker 1 gen 2] d",
        "CRIT  [worker 1 gen 2] e",
    ]


def test_what_is_below_the_level_or_of_another_logger_is_not_written(file: Path) -> None:
    to_file(file, level="WARNING")
    LOG.info("a")
    logging.getLogger("other").error("b")
    LOG.warning("c")
    assert without_stamp(file.read_text()) == ["WARN  [master] c"]


def test_the_role_can_change(file: Path) -> None:
    to_file(file)
    LOG.info("a")
    to_file(file, role="worker 3 gen 1")
    LOG.info("b")
    assert without_stamp(file.read_text()) == ["INFO  [master] a", "INFO  [worker 3 gen 1] b"]


def test_nothing_happens_before_configure() -> None:
    reopen()
    assert not logging.getLogger("asgiri").handlers


def test_configuring_again_replaces_what_was_there(file: Path, tmp_path: Path) -> None:
    to_file(file)
    LOG.info("a")
    to_file(tmp_path / "other")
    LOG.info("b")
    assert without_stamp(file.read_text()) == ["INFO  [master] a"]
    assert without_stamp((tmp_path / "other").read_text()) == ["INFO  [master] b"]


def test_a_file_that_cannot_be_opened_leaves_the_old_setup(file: Path, tmp_path: Path) -> None:
    to_file(file)
    with pytest.raises(ConfigError) as caught:
        to_file(tmp_path / "none" / "log")
    assert str(caught.value) == f'log.file: cannot open "{tmp_path}/none/log": No such file or directory'
    LOG.info("a")
    assert without_stamp(file.read_text()) == ["INFO  [master] a"]


def test_a_file_that_is_open_is_kept_when_it_cannot_be_opened_anew(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    to_file(directory / "log")
    (directory / "log").rename(tmp_path / "moved")
    directory.rmdir()
    to_file(directory / "log", "json")
    LOG.info("a")
    assert json.loads((tmp_path / "moved").read_text())["message"] == "a"


@pytest.mark.parametrize(("level", "format"), [("loud", "text"), ("info", "xml")])
def test_unknown_names(file: Path, level: str, format: str) -> None:  # noqa: A002 - as in configure
    with pytest.raises(ValueError, match="unknown log level or format"):
        to_file(file, format, level)
    assert not file.exists()


def test_a_json_line(file: Path) -> None:
    to_file(file, "json")
    before = datetime.now().astimezone().replace(microsecond=0)
    LOG.info("a\nb %s", "\x1b")
    to_file(file, "json", role="worker 1 gen 2")
    LOG.warning("ü", extra={"trace": "t\n  u\n"})
    first, second = objects(file)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", str(first["timestamp"]))
    assert before <= datetime.fromisoformat(str(first.pop("timestamp"))) <= datetime.now().astimezone()
    assert first == {
        "level": "info",
        "logger": "asgiri.test",
        "pid": os.getpid(),
        "role": "master",
        "message": "a\nb \x1b",
    }
    second.pop("timestamp")
    assert second == {
        "level": "warning",
        "logger": "asgiri.test",
        "pid": os.getpid(),
        "role": "worker",
        "worker": 1,
        "generation": 2,
        "message": "ü",
        "trace": "t\n  u\n",
    }


def fail() -> None:
    raise RuntimeError("first\nsecond\x1b[31m")


def test_a_traceback_keeps_its_lines_and_nothing_else(file: Path) -> None:
    to_file(file)
    try:
        fail()
    except RuntimeError:
        LOG.exception("failed")
    head, *below = file.read_text().splitlines()
    assert without_stamp(head) == ["ERROR [master] failed"]
    assert below[0] == "Traceback (most recent call last):"
    assert below[-2:] == ["RuntimeError: first", r"second\x1b[31m"]


def test_what_a_line_is_about(file: Path) -> None:
    """The master tells of workers, and of generations: by the fields that their own lines have."""
    to_file(file, "json")
    LOG.info("a", extra={"about": {"worker": 3, "generation": 4}})
    to_file(file, "text")
    LOG.info("b", extra={"about": {"worker": 3, "generation": 4}})
    first, second = file.read_text("ascii").splitlines()
    told = json.loads(first)
    assert (told["role"], told["worker"], told["generation"], told["message"]) == ("master", 3, 4, "a")
    assert without_stamp(second) == ["INFO  [master] b"]


def test_a_traceback_in_json(file: Path) -> None:
    to_file(file, "json")
    try:
        fail()
    except RuntimeError:
        LOG.exception("failed")
    (line,) = objects(file)
    assert line["message"] == "failed"
    assert str(line["exc"]).endswith("RuntimeError: first\nsecond\x1b[31m")


def test_exc_info_without_an_exception_and_a_stack(file: Path) -> None:
    to_file(file)
    LOG.error("a", exc_info=True)
    LOG.error("b", stack_info=True)
    first, second, stack, *_ = file.read_text().splitlines()
    assert without_stamp(f"{first}\n{second}") == ["ERROR [master] a", "ERROR [master] b"]
    assert stack == "Stack (most recent call last):"


def test_a_trace_is_printed_below_the_line(file: Path) -> None:
    to_file(file)
    LOG.error("the application failed", extra={"trace": 'Traceback:\n  File "a.py"\n\tx\nKeyError: 1\n'})
    head, below = file.read_text().split("\n", 1)
    assert without_stamp(head) == ["ERROR [master] the application failed"]
    assert below == 'Traceback:\n  File "a.py"\n\tx\nKeyError: 1\n'


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[2J\x07\x00\t", r"\x1b[2J\x07\x00\t"),
        ("\x7f\x85\x9b1m", r"\x7f\x85\x9b1m"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\udcff", r"\udcff"),
        ("äß 漢 🙂 \\n", "äß 漢 🙂 \\n"),
    ],
)
def test_control_characters_are_escaped(file: Path, text: str, written: str) -> None:
    to_file(file)
    LOG.info("%s", text)
    assert without_stamp(file.read_text("utf-8")) == [f"INFO  [master] {written}"]


@given(st.text(st.characters()))
def test_an_escaped_text_is_one_printable_line(text: str) -> None:
    assert len(escape(text).splitlines()) <= 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", escape(text))
    escape(text).encode("utf-8")


@pytest.mark.parametrize("format", ["text", "json"])
def test_arguments_that_do_not_fit_are_shown(file: Path, format: str, capfd: pytest.CaptureFixture[str]) -> None:  # noqa: A002
    to_file(file, format)
    LOG.info("a %s %s", 1)
    LOG.info("%d", "x")
    LOG.info("%(a)s", {"b": 1})
    assert "'a %s %s' with the arguments (1,)" in file.read_text()
    assert len(file.read_text().splitlines()) == 3
    assert capfd.readouterr() == ("", "")


def test_a_rotated_file_is_reopened(file: Path) -> None:
    to_file(file)
    LOG.info("a")
    file.rename(file.with_suffix(".1"))
    LOG.info("b")
    reopen()
    LOG.info("c")
    assert without_stamp(file.with_suffix(".1").read_text()) == ["INFO  [master] a", "INFO  [master] b"]
    assert without_stamp(file.read_text()) == ["INFO  [master] c"]


def test_a_file_that_cannot_be_reopened_stays_and_says_why(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    to_file(room / "log")
    room.rename(tmp_path / "moved")
    reopen()
    (line,) = without_stamp((tmp_path / "moved" / "log").read_text())
    assert line == f'ERROR [master] cannot reopen the log file "{room}/log": No such file or directory'


def test_reopening_stderr_does_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    configure(level="info", format="text", file="-", role="master")
    reopen()
    LOG.info("a")
    assert without_stamp(capfd.readouterr().err) == ["INFO  [master] a"]


def test_a_closed_stderr_does_not_matter(capfd: pytest.CaptureFixture[str]) -> None:
    configure(level="info", format="text", file="-", role="master")
    kept = os.dup(2)
    os.close(2)
    try:
        LOG.info("a")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    LOG.info("b")
    assert without_stamp(capfd.readouterr().err) == ["INFO  [master] a", "INFO  [master] b"]  # one of its own


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_does_not_matter(capfd: pytest.CaptureFixture[str]) -> None:
    to_file(Path("/dev/full"))
    LOG.error("a")
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_why_a_program_ends_is_told_on_stderr_where_the_log_has_no_room(capfd: pytest.CaptureFixture[str]) -> None:
    to_file(Path("/dev/full"))
    LOG.critical("no room for the pid file")
    assert without_stamp(capfd.readouterr().err) == ["CRIT  [master] no room for the pid file"]


def test_a_reader_that_went_away_does_not_matter(capfd: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    to_file(Path(f"/dev/fd/{writing}"))
    LOG.info("a")
    os.close(writing)
    assert capfd.readouterr() == ("", "")


def test_a_reader_that_is_stuck_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "PATIENCE", 0.01)
    waited = []
    write = LogFile.write

    def noted(out: LogFile, data: bytes, patience: float = 0.0) -> int:
        waited.append(patience)
        return write(out, data, patience)

    monkeypatch.setattr(LogFile, "write", noted)
    reading, writing = os.pipe()
    to_file(Path(f"/dev/fd/{writing}"))
    while 0.0 not in waited:
        LOG.info("x" * 4000)
    LOG.info("y" * 4000)
    assert waited == [0.01] * (len(waited) - 2) + [0.0, 0.0]
    got = os.read(reading, 1 << 20).decode()
    LOG.info("b")  # finds room
    LOG.info("c")
    assert waited[-2:] == [0.0, 0.01]
    assert without_stamp(os.read(reading, 1 << 20).decode()) == ["INFO  [master] b", "INFO  [master] c"]
    assert set(without_stamp(got)) == {f"INFO  [master] {'x' * 4000}"}
    os.close(reading)
    os.close(writing)


TALKATIVE = """
import logging
from asgiri.log import setup
setup.PATIENCE = 0.01
setup.configure(level="info", format="text", file="-", role="master")
for _ in range(1000):
    logging.getLogger("asgiri").info("x" * 1000)
"""


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_stderr_that_nobody_reads_stops_nothing(kind: str) -> None:
    """Its other end would block whoever writes to it: the flags of a descriptor are not ours to change."""
    if kind == "pipe":
        reading, writing = os.pipe()
    else:
        reading, writing = (sock.detach() for sock in socket.socketpair())
    try:
        subprocess.run([sys.executable, "-c", TALKATIVE], check=True, cwd=ROOT, stderr=writing, timeout=30)
        assert os.get_blocking(writing)
        os.close(writing)
        with os.fdopen(reading, "r", closefd=False) as stream:
            assert set(without_stamp(stream.read())) == {f"INFO  [master] {'x' * 1000}"}
    finally:
        os.close(reading)


def test_a_file_is_checked_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("a")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    for name in ("fifo", "file", "new"):
        check_file("log.file", str(tmp_path / name))
    check_file("log.file", "-")
    assert not (tmp_path / "new").exists()
    assert not [event for _, event in polled(reader) if event & select.POLLHUP]  # it has seen no writer come and go
    os.close(reader)


def polled(fd: int) -> list[tuple[int, int]]:
    news = select.poll()
    news.register(fd, select.POLLIN)
    return news.poll(0)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "No such file or directory"),
        ("none/such", "No such file or directory"),
        (".", "Is a directory"),
        ("file/such", "Not a directory"),
    ],
)
def test_a_file_that_could_not_be_opened(name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(ConfigError) as checked:
        check_file("log.file", name)
    with pytest.raises(ConfigError) as opened:
        configure(level="info", format="text", file=name, role="master")
    assert str(checked.value) == str(opened.value) == f'log.file: cannot open "{name}": {why}'


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_must_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o400)
    tmp_path.chmod(0o500)
    for name in ("file", "new"):
        with pytest.raises(ConfigError, match="Permission denied"):
            check_file("log.file", str(tmp_path / name))


def test_the_file_is_appended_to_and_not_inherited_by_other_programs(file: Path) -> None:
    file.write_text("before\n")
    to_file(file)
    LOG.info("a")
    assert file.read_text().startswith("before\n")
    assert descriptors(file)
    assert not any(os.get_inheritable(fd) for fd in descriptors(file))
    reopen()
    assert len(descriptors(file)) == 1
    assert not any(os.get_inheritable(fd) for fd in descriptors(file))


def descriptors(file: Path) -> list[int]:
    """The descriptors of this process that are open on ``file``."""
    return [fd for fd in map(int, os.listdir("/dev/fd")) if is_open(fd) and same_file(fd, file)]


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def same_file(fd: int, file: Path) -> bool:
    return os.path.samestat(os.fstat(fd), file.stat())


FORKING = """
import logging, os, sys
from asgiri.log.setup import configure
configure(level="info", format="text", file=sys.argv[1], role="master")
child = os.fork()
if child == 0:
    configure(level="info", format="text", file=sys.argv[1], role="worker 1 gen 1")
for _ in range(200):
    logging.getLogger("asgiri").info("x" * 500)
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_child_writes_whole_lines_into_the_same_file(file: Path) -> None:
    subprocess.run([sys.executable, "-c", FORKING, str(file)], check=True, cwd=ROOT)
    lines = sorted(without_stamp(file.read_text()))
    assert lines == [f"INFO  [{role}] {'x' * 500}" for role in ("master", "worker 1 gen 1") for _ in range(200)]


def test_stderr_that_python_replaced_is_not_used(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    configure(level="info", format="text", file="-", role="master")
    LOG.info("a")
    assert without_stamp(capfd.readouterr().err) == ["INFO  [master] a"]
