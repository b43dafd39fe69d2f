"""WSGI applications on a real socket: what they are told, what they answer, and what becomes of their threads."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import httpx
import pytest

import asgiri
from asgiri.config.schema import Config, Listen, Timeouts, Workers
from asgiri.errors import ClientDisconnectedError
from asgiri.interfaces.adapt import as_asgi3
from asgiri.interfaces.wsgi import THREADS, wsgi_headers
from asgiri.server import Server
from asgiri.types import Message, Scope
from tests.proto.fakes import in_loop, request, until
from tests.serving import shared_of

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], None]]
App = Callable[[Environ, Start], Iterable[bytes]]

MIB = 1 << 20
PATIENCE = 20.0  # seconds; for threads that wait for what the test does


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    yield
    for thread in pool_threads():
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{thread.name} outlives its server"


def pool_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("WSGI")]


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def errors() -> Iterator[list[logging.LogRecord]]:
    """What is logged from level warning on, by the loop (asyncio) too."""
    kept = Kept()
    logging.getLogger().addHandler(kept)
    yield kept.records
    logging.getLogger().removeHandler(kept)


@asynccontextmanager
async def serving(
    app: App, *, lifespan: Any = "auto", **config: Any
) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    settings = Config(listen=(Listen(bind="127.0.0.1:0"),), lifespan=lifespan, **config)
    async with (
        Server(as_asgi3(app, "wsgi"), config=settings) as server,
        httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port(server)}", timeout=PATIENCE) as client,
    ):
        yield server, client


def port(server: Server) -> int:
    number: int = server.sockets[0].getsockname()[1]
    return number


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port(server), limit=1 << 16)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


def answering(body: bytes = b"hello") -> App:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]

    return app


class Seen:
    """An application that keeps the environs it is called with, and answers ``hello``."""

    def __init__(self) -> None:
        self.environs: list[Environ] = []

    def __call__(self, environ: Environ, start_response: Start) -> list[bytes]:
        self.environs.append(environ)
        return list(answering()(environ, start_response))


# What the application is told


@in_loop
async def test_the_validator_of_the_standard_library_finds_nothing_wrong() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.errors"].flush()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body or b"nothing"]

    async with serving(validator(app)) as (_, client):  # type: ignore[arg-type]  # typeshed's own protocols
        assert (await client.get("/a%20b?c=d")).text == "nothing"
        assert (await client.post("/", content=b"x" * 1000)).text == "x" * 1000


@in_loop
async def test_the_environ() -> None:
    app = Seen()
    async with serving(app, root_path="/shop") as (server, client):
        headers = {"X-One": "1", "Content-Type": "text/x", "Host": "example.org"}
        await client.put("/a%2Fb/%C3%A9/%FF;p?q=%20&r", content=b"abc", headers=headers)
        number = port(server)
    (environ,) = app.environs
    expected = {
        "REQUEST_METHOD": "PUT",
        "SCRIPT_NAME": "/shop",
        "PATH_INFO": "/a/b/\xc3\xa9/\xff;p",  # the bytes that were sent, as PEP 3333 has it
        "QUERY_STRING": "q=%20&r",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(number),
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "3",
        "HTTP_X_ONE": "1",
        "HTTP_HOST": "example.org",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.input_terminated": True,
        "wsgi.multithread": True,
        "wsgi.run_once": False,
    }
    assert {name: environ.get(name) for name in expected} == expected
    assert environ["asgi.scope"]["path"] == "/shop/a/b/\xe9/\ufffd;p"
    assert not [name for name in environ["asgi.scope"] if name.startswith("asgiri")]
    assert "HTTP_CONTENT_TYPE" not in environ


def test_header_fields_that_an_environ_cannot_tell_apart() -> None:
    assert wsgi_headers(
        [(b"cookie", b"a=1"), (b"x-user", b"me"), (b"x_user", b"root"), (b"cookie", b"b=2"), (b"x-user", b"too")]
    ) == [(b"x-user", b"me"), (b"x-user", b"too"), (b"cookie", b"a=1; b=2")]
    assert wsgi_headers([(b"x_user", b"root")]) == []


@in_loop
async def test_a_name_with_an_underscore_does_not_pass_for_one_with_a_hyphen() -> None:
    app = Seen()
    async with serving(app) as (_, client):
        await client.get("/", headers=[("X-User", "me"), ("X_User", "root"), ("Cookie", "a=1"), ("Cookie", "b=2")])
    assert app.environs[0]["HTTP_X_USER"] == "me"
    assert app.environs[0]["HTTP_COOKIE"] == "a=1; b=2"


# The request body


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_upload_is_read_in_pieces(chunked: bool) -> None:
    data = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(5 * MIB // 32))

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        digest = hashlib.sha256()
        while piece := environ["wsgi.input"].read(100_000):
            digest.update(piece)
        start_response("200 OK", [])
        return [digest.hexdigest().encode()]

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 70_001):
            yield data[start : start + 70_001]

    @in_loop
    async def upload() -> None:
        async with serving(app) as (_, client):
            answer = await client.post("/", content=in_pieces() if chunked else data)
            assert answer.text == hashlib.sha256(data).hexdigest()

    upload()


@in_loop
async def test_the_body_is_there_while_the_client_still_sends() -> None:
    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield environ["wsgi.input"].read1()
        yield environ["wsgi.input"].read()

    async with serving(app) as (server, _), connected(server) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none")
        await reader.readuntil(b"3\r\none\r\n")
        writer.write(b"two")
        await reader.readuntil(b"3\r\ntwo\r\n0\r\n\r\n")


READS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "read": (lambda body: [body.read(), body.read(), body.read(5)], [b"one\ntwo\n\nlast", b"", b""]),
    "read some": (lambda body: [body.read(2), body.read(0), body.read(90)], [b"on", b"", b"e\ntwo\n\nlast"]),
    "readline": (lambda body: [body.readline() for _ in range(5)], [b"one\n", b"two\n", b"\n", b"last", b""]),
    "readline, limited": (lambda body: [body.readline(3), body.readline(99), body.readline(0)], [b"one", b"\n", b""]),
    "readlines": (lambda body: body.readlines(), [b"one\n", b"two\n", b"\n", b"last"]),
    "readlines, hinted": (lambda body: body.readlines(5), [b"one\n", b"two\n"]),
    "iteration": (list, [b"one\n", b"two\n", b"\n", b"last"]),
}


@pytest.mark.parametrize(("read", "expected"), READS.values(), ids=READS)
def test_ways_to_read(read: Callable[[Any], Any], expected: list[bytes]) -> None:
    found = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        found.append(read(environ["wsgi.input"]))
        start_response("200 OK", [])
        return []

    @in_loop
    async def post() -> None:
        async with serving(app) as (_, client):
            await client.post("/", content=b"one\ntwo\n\nlast")

    post()
    assert found == [expected]


@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"], ids=["length", "chunked"])
@pytest.mark.parametrize("half_closed", [False, True], ids=["gone", "half closed"])
def test_a_body_that_is_cut_off_is_no_whole_one(
    framing: bytes, half_closed: bool, errors: list[logging.LogRecord]
) -> None:
    read: list[Any] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        read.append(environ["wsgi.input"].read(3))
        try:
            read.append(environ["wsgi.input"].read())
        except OSError as error:
            read.append(error)
            raise
        return []

    @in_loop
    async def upload() -> None:
        async with serving(app) as (server, _), connected(server) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n" % framing)
            writer.write(b"3\r\none\r\n" if b"chunked" in framing else b"one")
            await until(lambda: read)
            if half_closed:
                writer.write_eof()
                assert b"200" not in await reader.readline()
            else:
                writer.transport.abort()
            await until(lambda: len(read) == 2)

    upload()
    assert read[0] == b"one"
    assert isinstance(read[1], OSError)
    assert not errors  # the client's fault, and not the application's


# The answer


@in_loop
async def test_pieces_are_sent_as_they_come() -> None:
    go_on = threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"one"
        assert go_on.wait(PATIENCE)
        yield b""
        yield b"two"

    async with serving(app) as (_, client), client.stream("GET", "/") as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"one"
        go_on.set()
        assert [piece async for piece in pieces] == [b"two"]


@in_loop
async def test_write_and_what_is_returned_follow_each_other() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        write = start_response("201 Created", [("X-A", " b ")])
        write(b"")
        write(b"one ")
        write(b"two ")
        return [b"three"]

    async with serving(app) as (_, client):
        answer = await client.get("/")
        assert (answer.status_code, answer.headers["x-a"], answer.text) == (201, "b", "one two three")


@in_loop
async def test_an_answer_in_one_piece_has_a_length() -> None:
    async with serving(answering()) as (_, client):
        answer = await client.get("/")
        assert (answer.headers["content-length"], answer.text) == ("5", "hello")
    async with serving(answering(b"")) as (_, client):
        assert (await client.get("/")).headers["content-length"] == "0"


@in_loop
async def test_a_large_answer_and_one_without_a_body() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        size = int(environ["QUERY_STRING"])
        start_response("200 OK" if size else "204 No Content", [("Content-Length", str(size))] if size else [])
        return [b"x" * (size // 64)] * 64 if size else []

    async with serving(app) as (_, client):
        assert len((await client.get(f"/?{8 * MIB}")).content) == 8 * MIB
        head = await client.head(f"/?{8 * MIB}")
        assert (head.headers["content-length"], head.content) == (str(8 * MIB), b"")
        assert (await client.get("/?0")).status_code == 204


class Closing:
    """An answer that notes when it is closed, and by which thread."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.closed: list[str] = []

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        self.closed.append(threading.current_thread().name)


def failing_pieces() -> Iterator[bytes]:
    yield b"one"
    raise ValueError("on purpose")


@pytest.mark.parametrize("pieces", [[], [b"one"], failing_pieces()], ids=["empty", "whole", "failing"])
def test_close_is_called_once_in_the_thread(pieces: Iterable[bytes]) -> None:
    answer = Closing(pieces)

    def app(environ: Environ, start_response: Start) -> Closing:
        start_response("200 OK", [])
        return answer

    @in_loop
    async def get() -> None:
        async with serving(app) as (server, _), connected(server) as (reader, writer):
            writer.write(request("/", "Connection: close"))
            try:
                await reader.read()
            except ConnectionResetError:
                pass  # the failing one

    get()
    assert [name[:4] for name in answer.closed] == ["WSGI"]


# Errors


def fails(environ: Environ, start_response: Start) -> list[bytes]:
    raise ValueError("on purpose")


def fails_after_start(environ: Environ, start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Length", "3")])
    yield b""
    raise ValueError("on purpose")


def exits(environ: Environ, start_response: Start) -> list[bytes]:
    sys.exit("ValueError")


def stops(environ: Environ, start_response: Start) -> list[bytes]:
    raise StopIteration("ValueError")


def forgets_to_start(environ: Environ, start_response: Start) -> list[bytes]:
    return [b"one"]


def starts_twice(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", [])
    start_response("200 OK", [])
    return [b"one"]


def gives_text(environ: Environ, start_response: Start) -> Iterable[Any]:
    start_response("200 OK", [])
    return ["text"] * 50  # more than fit in the queue


def gives_too_much(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "3")])
    return [b"text"] * 50


def gives_bad_headers(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [("X-A", "a\r\nb")])
    return [b"text"] * 50


def gives_none(environ: Environ, start_response: Start) -> Any:
    start_response("200 OK", [])


def gives_bad_status(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("fine", [])
    return [b"text"]


def said(records: list[logging.LogRecord]) -> list[str]:
    """The messages, without the ids of the requests."""
    return [re.sub(r", request \S+-\d+-\d+", "", record.getMessage()) for record in records]


FAILURES: dict[App, tuple[str, str]] = {
    fails: ("ValueError", 'raise ValueError("on purpose")'),
    fails_after_start: ("ValueError", 'raise ValueError("on purpose")'),
    exits: ("SystemExit", 'sys.exit("ValueError")'),
    stops: ("RuntimeError", 'raise StopIteration("ValueError")'),
    forgets_to_start: ("RuntimeError", "without calling start_response"),
    starts_twice: ("RuntimeError", "start_response was called already"),
    gives_text: ("TypeError", "body: expected bytes, got str"),
    gives_too_much: ("RuntimeError", "longer than its Content-Length"),
    gives_bad_headers: ("RuntimeError", "cannot be sent"),
    gives_bad_status: ("ValueError", 'start_response("fine", [])'),
    gives_none: ("TypeError", "'NoneType' object is not iterable"),
}


@pytest.mark.parametrize("app", FAILURES, ids=lambda app: app.__name__)
def test_a_failing_application_gets_a_500_and_its_own_frames_in_the_log(
    app: App, errors: list[logging.LogRecord]
) -> None:
    @in_loop
    async def get() -> None:
        async with serving(app) as (_, client):
            for _ in range(2):
                assert (await client.get("/")).status_code == 500

    get()
    name, trace = FAILURES[app]
    assert said(errors) == [f"the application failed: {name} (GET '/')"] * 2
    for record in errors:
        text: str = record.__dict__["trace"]
        assert trace in text
        assert "concurrent/futures" not in text
        assert f"{Path(asgiri.__file__).parent}/" not in text


def test_an_error_of_close_is_logged_and_the_answer_is_whole(errors: list[logging.LogRecord]) -> None:
    class Answer(Closing):
        def close(self) -> None:
            raise ValueError("on purpose")

    def app(environ: Environ, start_response: Start) -> Answer:
        start_response("200 OK", [])
        return Answer([b"one", b"two"])

    @in_loop
    async def get() -> None:
        async with serving(app) as (_, client):
            assert (await client.get("/")).text == "onetwo"

    get()
    assert said(errors) == ["the application failed: ValueError (GET '/')"]


def test_an_error_in_mid_answer_cuts_it_after_what_was_yielded(errors: list[logging.LogRecord]) -> None:
    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [])
        return failing_pieces()

    @in_loop
    async def get() -> None:
        async with serving(app) as (_, client), client.stream("GET", "/") as answer:
            pieces = answer.aiter_raw()
            assert await anext(pieces) == b"one"
            with pytest.raises(httpx.HTTPError):
                await anext(pieces)

    get()
    assert said(errors) == ["the application failed: ValueError (GET '/')"]


def test_a_head_that_was_not_sent_may_be_replaced(errors: list[logging.LogRecord]) -> None:
    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        try:
            start_response("200 OK", [("X-A", "b"), ("Content-Length", "99")])
            yield b""
            raise ValueError("on purpose")
        except ValueError:
            start_response("503 Service Unavailable", [], sys.exc_info())
            yield b"sorry"

    @in_loop
    async def get() -> None:
        async with serving(app) as (_, client):
            answer = await client.get("/")
            assert (answer.status_code, answer.text) == (503, "sorry")
            assert "x-a" not in answer.headers

    get()
    assert not errors


def test_a_head_that_was_sent_is_not_replaced(errors: list[logging.LogRecord]) -> None:
    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        try:
            raise ValueError("on purpose")
        except ValueError:
            start_response("503 Service Unavailable", [], sys.exc_info())
            yield b"sorry"

    @in_loop
    async def get() -> None:
        async with serving(app) as (_, client):
            with pytest.raises(httpx.HTTPError):
                await client.get("/")

    get()
    assert said(errors) == ["the application failed: ValueError (GET '/')"]


# Threads


@in_loop
async def test_requests_run_at_once_up_to_the_number_of_threads() -> None:
    together = threading.Barrier(THREADS)

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        together.wait(PATIENCE)
        return answering()(environ, start_response)

    async with serving(app) as (_, client):
        answers = await asyncio.gather(*(client.get("/") for _ in range(2 * THREADS)))
    assert [answer.status_code for answer in answers] == [200] * (2 * THREADS)


class Endless:
    """Yields for ever, once a request; tells how much, and how many were closed."""

    def __init__(self) -> None:
        self.pieces = 0
        self.closed = 0

    def __call__(self, environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while environ["PATH_INFO"] == "/endless":
                self.pieces += 1
                yield b"x" * 65536
        finally:
            self.closed += 1
        yield b"hello"


def test_a_client_that_leaves_frees_its_thread(errors: list[logging.LogRecord]) -> None:
    app = Endless()

    @in_loop
    async def leave() -> None:
        async with serving(app) as (server, client):
            for number in range(1, THREADS + 2):  # one more than there are threads to lose
                async with connected(server) as (reader, writer):
                    writer.write(request("/endless"))
                    await reader.readexactly(MIB)
                await until(lambda number=number: app.closed == number)  # type: ignore[misc]
            assert (await client.get("/")).text == "hello"

    leave()
    assert not errors


def test_a_client_that_leaves_while_it_reads_nothing_frees_its_thread(errors: list[logging.LogRecord]) -> None:
    app = Endless()

    @in_loop
    async def leave() -> None:
        async with serving(app) as (server, _):
            async with connected(server) as (reader, writer):
                writer.write(request("/endless"))
                await reader.readexactly(1000)
                await held_up(app, server)
            await until(lambda: app.closed)

    leave()
    assert not errors


async def held_up(app: Endless, server: Server) -> None:
    """Wait until no more pieces come: the peer, the transport and the queue are full."""
    await until(lambda: any(c._writable is not None for c in shared_of(server).connections) and hands_over())
    assert app.pieces * 65536 < 64 * MIB


def hands_over() -> bool:
    """Whether a thread waits to pass a piece on."""
    stacks = sys._current_frames()
    tops = [stacks[thread.ident] for thread in pool_threads() if thread.ident in stacks]
    return any(frame.f_code.co_name == "_pass_on" for top in tops for frame, _ in traceback.walk_stack(top))


def test_what_the_drain_cuts_off_frees_its_thread(errors: list[logging.LogRecord]) -> None:
    app = Endless()

    @in_loop
    async def stop() -> None:
        async with AsyncExitStack() as stack:
            server, _ = await stack.enter_async_context(serving(app, workers=Workers(drain_timeout=0.3)))
            reader, writer = await stack.enter_async_context(connected(server))
            writer.write(request("/endless"))
            await reader.readexactly(1000)
            await held_up(app, server)
            await server.shutdown()
            await until(lambda: app.closed)

    stop()
    assert said(errors) == ["cut off while stopping: GET '/endless'"]


def test_a_drain_lets_a_request_finish(errors: list[logging.LogRecord]) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        entered.set()
        assert go_on.wait(PATIENCE)
        return answering()(environ, start_response)

    @in_loop
    async def stop() -> None:
        async with serving(app) as (server, client):
            asked = asyncio.create_task(client.get("/"))
            await until(entered.is_set)
            stopping = asyncio.create_task(server.shutdown())
            await until(lambda: server.state.value == "draining")
            go_on.set()
            assert (await asked).text == "hello"
            await stopping

    stop()
    assert not errors


def test_what_waited_for_a_thread_when_it_was_cut_off_never_runs() -> None:
    calls: list[str] = []
    go_on = threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        calls.append(environ["PATH_INFO"])
        assert go_on.wait(PATIENCE)
        return answering()(environ, start_response)

    @in_loop
    async def stop() -> None:
        async with AsyncExitStack() as stack:
            server, _ = await stack.enter_async_context(serving(app, workers=Workers(drain_timeout=0.3)))
            for number in range(THREADS + 1):
                _, writer = await stack.enter_async_context(connected(server))
                writer.write(request("/first" if number < THREADS else "/late"))
                await until(lambda number=number: len(calls) == min(number + 1, THREADS))  # type: ignore[misc]
            await server.shutdown()
            go_on.set()

    stop()
    assert calls == ["/first"] * THREADS


def test_a_request_that_took_too_long_is_answered_and_its_thread_comes_back(errors: list[logging.LogRecord]) -> None:
    go_on, over = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        assert go_on.wait(PATIENCE)
        try:
            while True:
                yield b"too late"
        finally:
            over.set()

    @in_loop
    async def get() -> None:
        async with serving(app, timeouts=Timeouts(request=0.2)) as (_, client):
            assert (await client.get("/")).status_code == 503
            go_on.set()
            await until(over.is_set)

    get()
    assert not [record for record in errors if "failed" in record.getMessage()]


def test_the_loop_may_end_while_a_thread_is_busy() -> None:
    """As when somebody cancels the whole of asyncio.run: no thread may wait for a loop that is no more."""
    app = Endless()

    async def abandon() -> None:
        server = Server(as_asgi3(app), config=Config(listen=(Listen(bind="127.0.0.1:0"),)))
        await server.start()
        _, writer = await asyncio.open_connection("127.0.0.1", port(server))
        writer.write(request("/endless"))
        await held_up(app, server)
        for sock in server.sockets:
            sock.close()
        writer.transport.abort()

    asyncio.run(abandon())
    for thread in pool_threads():
        thread.join(PATIENCE)
    assert app.closed == 1


def comes_back_with_a_piece(environ: Environ, start_response: Start) -> list[bytes]:
    return [b"too late"] * 50


def comes_back_to_write(environ: Environ, start_response: Start) -> list[bytes]:
    write = start_response("200 OK", [])
    write(b"too late")
    raise AssertionError("it was written")


def comes_back_to_read(environ: Environ, start_response: Start) -> list[bytes]:
    assert not environ["wsgi.input"].read(), "there is no end of the body"
    return []


@pytest.mark.parametrize("closed", [False, True], ids=["stopped", "closed"])
@pytest.mark.parametrize("late", [comes_back_with_a_piece, comes_back_to_write, comes_back_to_read])
def test_a_thread_may_come_back_when_the_loop_runs_no_more(late: App, closed: bool) -> None:
    entered, go_on = threading.Event(), threading.Event()
    ends: list[BaseException | None] = []

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        entered.set()
        assert go_on.wait(PATIENCE)
        try:
            for piece in late(environ, start_response):
                start_response("200 OK", [])
                yield piece
        except BaseException as error:
            ends.append(error)
            raise
        ends.append(None)

    async def abandon() -> None:
        async with serving(app, workers=Workers(drain_timeout=0.1)) as (server, _), connected(server) as (_, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            await until(entered.is_set)
            await server.shutdown()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(abandon())
    if closed:
        loop.close()
    go_on.set()
    for thread in pool_threads():
        thread.join(PATIENCE)
    loop.close()
    assert [type(end) for end in ends] == [
        GeneratorExit if late is comes_back_with_a_piece else ClientDisconnectedError
    ]


# An exchange by itself


def scope(**changes: Any) -> Scope:
    plain = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/", "raw_path": b"/", "root_path": ""}
    return {**plain, "query_string": b"", "headers": [], "client": None, "server": None, **changes}


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def reads_for_ever(environ: Environ, start_response: Start) -> list[bytes]:
    return [environ["wsgi.input"].read()]


def yields_nothing_for_ever(environ: Environ, start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [])
    while True:
        yield b""


@pytest.mark.parametrize("what", [reads_for_ever, yields_nothing_for_ever])
@in_loop
async def test_a_cancelled_request_ends_whatever_its_thread_waits_for(what: App) -> None:
    entered, left = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        entered.set()
        try:
            yield from what(environ, start_response)
        finally:
            left.set()

    async def send(message: Message) -> None: ...

    running = asyncio.ensure_future(as_asgi3(app, "wsgi")(scope(), never, send))
    await until(entered.is_set)
    running.cancel()
    await until(left.is_set)
    with pytest.raises(asyncio.CancelledError):
        await running


@in_loop
async def test_the_news_that_the_client_has_left_is_not_told_back() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await as_asgi3(reads_for_ever, "wsgi")(scope(), receive, send)
    assert sent == []


# What is not HTTP


@pytest.mark.parametrize("lifespan", ["auto", "on", "off"])
def test_every_lifespan_starts_and_stops_in_silence(lifespan: str, errors: list[logging.LogRecord]) -> None:
    @in_loop
    async def serve() -> None:
        async with serving(answering(), lifespan=lifespan) as (_, client):
            assert (await client.get("/")).text == "hello"
            assert pool_threads()
        if lifespan != "off":
            await until(lambda: not pool_threads())  # idle threads end with the lifespan, not with the process

    serve()
    assert not errors


@in_loop
async def test_it_may_be_served_again() -> None:
    app = as_asgi3(answering(), "wsgi")
    for _ in range(2):
        async with Server(app, config=Config(listen=(Listen(bind="127.0.0.1:0"),), lifespan="on")) as server:
            assert (
                await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port(server)}/", trust_env=False)
            ).text == "hello"


@in_loop
async def test_a_websocket_is_refused() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await as_asgi3(answering(), "wsgi")({"type": "websocket", "path": "/"}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
