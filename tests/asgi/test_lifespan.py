"""The lifespan: which apps start, which do not, and what is said of those that end badly."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from asgiri.asgi import lifespan as module
from asgiri.asgi.lifespan import Lifespan, LifespanState
from asgiri.errors import AppError
from asgiri.types import ASGIApp, Message, Receive, Scope, Send
from tests.asgi.exchange import records_of
from tests.proto.fakes import in_loop, settle

UP, DOWN, UNSUPPORTED = LifespanState.UP, LifespanState.DOWN, LifespanState.UNSUPPORTED

STARTED: Message = {"type": "lifespan.startup.complete"}
STOPPED: Message = {"type": "lifespan.shutdown.complete"}


@pytest.fixture
def log() -> Iterator[list[logging.LogRecord]]:
    with records_of("asgiri.lifespan") as records:
        yield records


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.02)


def lines(log: list[logging.LogRecord]) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in log]


def trace_of(record: logging.LogRecord) -> str:
    trace = record.__dict__["trace"]
    assert isinstance(trace, str)
    return trace


async def nobody_is_left() -> None:
    """No task but the test's own."""
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}


# Start-up. What the apps do, in their names.


async def raises_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    raise TypeError("I know http only")


async def raises_while_it_starts(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise ValueError("no such table")


async def is_cancelled_while_it_starts(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise asyncio.CancelledError


async def returns_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    return


async def returns_without_an_answer(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


async def says_a_word_that_is_none(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.completed"})


async def speaks_of_shutdown_too_early(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(STOPPED)


async def completes(scope: Scope, receive: Receive, send: Send) -> None:
    assert await receive() == {"type": "lifespan.startup"}
    await send(STARTED)
    assert await receive() == {"type": "lifespan.shutdown"}
    await send(STOPPED)


async def completes_before_it_receives(scope: Scope, receive: Receive, send: Send) -> None:
    await send(STARTED)
    await completes(scope, receive, answers_only(send))


def answers_only(send: Send) -> Send:
    async def shutdown_only(message: Message) -> None:
        if message != STARTED:
            await send(message)

    return shutdown_only


WARNING = (
    "WARNING the application raised {} while it handled lifespan.startup; it is taken for one without a lifespan "
    "(lifespan: on makes this an error)"
)
REFUSAL = "the application {} before lifespan.startup was complete (lifespan: on)"


# The app, then what "auto" makes of it (the warning, if any) and what "on" does (the error).
@pytest.mark.parametrize(
    ("app", "warning", "error"),
    [
        (raises_at_once, None, "raised TypeError"),
        (raises_while_it_starts, "ValueError", "raised ValueError"),
        (is_cancelled_while_it_starts, "CancelledError", "raised CancelledError"),
        (returns_at_once, None, "returned"),
        (returns_without_an_answer, None, "returned"),
        (says_a_word_that_is_none, "RuntimeError", "raised RuntimeError"),
        (speaks_of_shutdown_too_early, "RuntimeError", "raised RuntimeError"),
    ],
)
def test_an_app_without_a_lifespan(app: ASGIApp, warning: str | None, error: str, log: list[logging.LogRecord]) -> None:
    @in_loop
    async def auto() -> None:
        lifespan = Lifespan(app, "auto")
        await lifespan.startup()
        assert lifespan.phase is UNSUPPORTED
        assert not lifespan.is_up
        await lifespan.shutdown(1)
        assert lifespan.phase is UNSUPPORTED
        await nobody_is_left()

    @in_loop
    async def on() -> None:
        lifespan = Lifespan(app, "on")
        with pytest.raises(AppError) as caught:
            await lifespan.startup()
        assert str(caught.value) == REFUSAL.format(error)
        if error.startswith("raised") and "Cancelled" not in error:
            assert "asgiri/asgi" not in caught.value.trace
            assert getattr(app, "__name__", "?") in caught.value.trace
        assert not lifespan.is_up
        await nobody_is_left()

    auto()
    assert lines(log) == ([] if warning is None else [WARNING.format(warning)])
    if warning == "ValueError":
        assert trace_of(log[0]).endswith("ValueError: no such table\n")
    log.clear()
    on()
    assert not log, "what is raised is not logged too"


@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize("app", [completes, completes_before_it_receives])
def test_an_app_that_starts_and_stops(app: ASGIApp, mode: str, log: list[logging.LogRecord]) -> None:
    @in_loop
    async def test() -> None:
        lifespan = Lifespan(app, mode)
        assert lifespan.phase is LifespanState.NEW
        await lifespan.shutdown(1)  # nothing to do yet
        await lifespan.startup()
        assert (lifespan.phase, lifespan.is_up) == (UP, True)
        await lifespan.shutdown(1)
        assert (lifespan.phase, lifespan.is_up) == (DOWN, False)
        await lifespan.shutdown(1)  # nothing to do any more
        await nobody_is_left()

    test()
    assert not log


@in_loop
async def test_off_calls_nobody() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("called")

    lifespan = Lifespan(app, "off")
    await lifespan.startup()
    assert (lifespan.phase, lifespan.state) == (UNSUPPORTED, {})
    await lifespan.shutdown(1)
    await nobody_is_left()


@in_loop
async def test_the_scope_and_the_state() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope))
        scope["state"]["pool"] = 1
        await completes(scope, receive, send)

    lifespan = Lifespan(app)
    await lifespan.startup()
    assert seen == [{"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": lifespan.state}]
    assert lifespan.state == {"pool": 1}
    await lifespan.shutdown(1)


def fails(step: str, message: Any, raises: bool = False) -> ASGIApp:
    """Fails in that step with the message; None: with the traceback of what it raises, as Starlette sends it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if step == "shutdown":
            await send(STARTED)
            await receive()
        try:
            raise ConnectionError("no database")
        except ConnectionError:
            failed = {
                "type": f"lifespan.{step}.failed",
                "message": traceback.format_exc() if message is None else message,
            }
            await send({key: value for key, value in failed.items() if value != "absent"})
            if raises:
                raise

    return app


# message, raises as well; the sentence that is made of it, and what the trace must hold.
FAILURES = [
    ("no database", False, "no database", None),
    ("no database", True, "no database", "in app"),
    (" padded\n", False, "padded", None),
    ("", False, "it gave no reason", None),
    ("absent", False, "it gave no reason", None),
    (None, False, "ConnectionError: no database", "in app"),
    (None, True, "ConnectionError: no database", "in app"),
    (5, False, "5", None),
]


@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize(("message", "raises", "sentence", "frame"), FAILURES)
@in_loop
async def test_a_startup_that_failed(mode: str, message: Any, raises: bool, sentence: str, frame: str | None) -> None:
    lifespan = Lifespan(fails("startup", message, raises), mode)
    with pytest.raises(AppError) as caught:
        await lifespan.startup()
    assert str(caught.value) == f"the application's startup failed: {sentence}"
    assert (caught.value.trace == "") if frame is None else (frame in caught.value.trace)
    assert "asgiri/asgi/" not in caught.value.trace
    await lifespan.shutdown(1)
    await nobody_is_left()


@pytest.mark.parametrize(("message", "raises", "sentence", "frame"), FAILURES)
def test_a_shutdown_that_failed(
    message: Any, raises: bool, sentence: str, frame: str | None, log: list[logging.LogRecord]
) -> None:
    @in_loop
    async def test() -> None:
        lifespan = Lifespan(fails("shutdown", message, raises))
        await lifespan.startup()
        await lifespan.shutdown(1)
        assert lifespan.phase is DOWN
        await nobody_is_left()

    test()
    assert lines(log) == [f"ERROR the application's shutdown failed: {sentence}"]
    assert (trace_of(log[0]) == "") if frame is None else (frame in trace_of(log[0]))


def after_startup(*steps: str) -> ASGIApp:
    """Starts, then takes the steps."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        for step in steps:
            match step:
                case "receive":
                    await receive()
                case "stopped":
                    await send(STOPPED)
                case "started":
                    await send(STARTED)
                case "raise":
                    raise ValueError("in the end")
                case "hang":
                    await asyncio.Event().wait()
                case "cling":
                    while not let_go:
                        try:
                            await asyncio.Event().wait()
                        except asyncio.CancelledError:
                            continue

    return app


let_go: list[bool] = []

RAISED = "ERROR the application raised during its shutdown"
LATE = "ERROR the application did not finish its lifespan.shutdown in time; it is cut off"
STUCK = "ERROR the application's lifespan task does not end, not even when it is cancelled"


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("receive stopped", []),
        ("receive", []),  # returns without a word: as good as complete
        ("receive stopped receive", []),  # waits for a third message; cancelled
        ("receive stopped hang", []),
        ("receive stopped raise", [RAISED]),
        ("receive raise", [RAISED]),
        ("receive hang", [LATE]),
        ("receive cling", [LATE, STUCK]),
        ("receive started", [RAISED]),
        ("hang", [LATE]),
        ("", []),  # ended before the shutdown
        ("raise", [RAISED]),
        ("started", [RAISED]),
        ("stopped", [RAISED]),
    ],
)
def test_a_shutdown_ends_whatever_the_application_does(
    steps: str, said: list[str], log: list[logging.LogRecord]
) -> None:
    @in_loop
    async def test() -> None:
        lifespan = Lifespan(after_startup(*steps.split()))
        await lifespan.startup()
        await settle()
        assert lifespan.is_up
        await lifespan.shutdown(0.02)
        assert lifespan.phase is DOWN
        if STUCK in said:
            (stuck,) = asyncio.all_tasks() - {asyncio.current_task()}
            let_go.append(True)
            stuck.cancel()
            await asyncio.wait([stuck])
            let_go.clear()
        await nobody_is_left()

    test()
    assert lines(log) == said
    if said == [RAISED]:
        assert "in app" in trace_of(log[0])


def test_a_shutdown_without_a_limit_waits(log: list[logging.LogRecord]) -> None:
    go_on: list[asyncio.Event] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        await receive()
        await go_on[0].wait()
        await send(STOPPED)

    @in_loop
    async def test() -> None:
        go_on.append(asyncio.Event())
        lifespan = Lifespan(app)
        await lifespan.startup()
        stopping = asyncio.create_task(lifespan.shutdown())
        await settle()
        assert (lifespan.phase, stopping.done()) == (LifespanState.STOPPING, False)
        go_on[0].set()
        await stopping
        await nobody_is_left()

    test()
    assert not log


@in_loop
async def test_an_app_that_calls_sys_exit_fails_and_ends_nobody_else(log: list[logging.LogRecord]) -> None:
    async def at_start(scope: Scope, receive: Receive, send: Send) -> None:
        raise SystemExit(3)

    with pytest.raises(AppError, match=r"startup failed: it called sys\.exit\(3\)"):
        await Lifespan(at_start).startup()

    async def at_the_end(scope: Scope, receive: Receive, send: Send) -> None:
        await send(STARTED)
        await receive()
        await receive()
        raise SystemExit

    lifespan = Lifespan(at_the_end)
    await lifespan.startup()
    await lifespan.shutdown(10)
    assert lines(log) == ["ERROR the application's shutdown failed: it called sys.exit(None)"]
    await nobody_is_left()
