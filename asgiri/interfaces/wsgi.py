"""A WSGI application (PEP 3333) as an ASGI 3 one: threads here, the environ from a2wsgi.

    the loop                                          a thread of the pool
    WsgiApplication -> Exchange.run  --- starts --->  Exchange._work -> the application
           receive  <--------------- asks for a piece wsgi.input
           send     <----------- at most ten messages what the application writes and yields

a2wsgi's own middleware is not used: its threads wait for the loop without a limit, and so for ever once a client has
gone, a request is cancelled or the loop has stopped. Here every wait of a thread ends when the exchange is refused:
what the application does next raises ClientDisconnectedError. A thread that computes, or waits for something else,
cannot be stopped: it ends when the application comes back.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections import deque
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Condition
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from a2wsgi.wsgi import build_environ

from asgiri.errors import ClientDisconnectedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asgiri.types import Headers, Message, Receive, Scope, Send

# Requests at once in one worker; the others wait for a thread. As cheroot and a2wsgi, between waitress (4) and
# mod_wsgi (15): WSGI code mostly waits for its database, and more threads than that queue up for the GIL.
THREADS = 10
QUEUE = 10  # messages that a thread may be ahead of the client
INPUT_BUFFER = 64 << 10  # bytes


class WsgiApplication:
    """ASGI 3 around the WSGI application ``app``."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._pool = thread_pool()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it is accepted: 403
        else:
            await Exchange(self._app, scope, receive, send).run(self._pool)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """WSGI has none; but the end of it is where idle threads are let go."""
        try:
            for _ in ("startup", "shutdown"):
                await send({"type": f"{(await receive())['type']}.complete"})
        finally:
            retired, self._pool = self._pool, thread_pool()  # for who serves it once more
            retired.shutdown(wait=False)


def thread_pool() -> ThreadPoolExecutor:
    """The threads of an application; each is started when it is needed."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="WSGI")


class Exchange:
    """One request and its answer, between the loop and the thread that the application runs in."""

    def __init__(self, app: Callable[..., Iterable[bytes]], scope: Scope, receive: Receive, send: Send) -> None:
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()  # in the loop: the thread has done something
        self._changed = Condition()  # for the thread; its lock guards what both sides touch
        self._queue: deque[Message] = deque()
        self._refused: BaseException | None = None  # why nothing more can be sent or received
        self._over = False  # the application has come back
        self._asking: Future[Message] | None = None  # what the thread waits for, in wsgi.input
        # The thread's own
        self._error: BaseException | None = None  # the application's
        self._head: Message | None = None  # what start_response was given last
        self._begun = False  # the head is on its way

    # In the loop

    async def run(self, pool: ThreadPoolExecutor) -> None:
        """Run the application in a thread and send what it answers. Raises the application's error, or ``send``'s."""
        job = pool.submit(copy_context().run, self._work)
        try:
            while (message := await self._next()) is not None:
                if self._refused is None:
                    try:
                        await self._send(message)
                    except Exception as error:  # whatever it is: the thread is to hear of it, and to end
                        self.refuse(error)
                if message.get("more_body"):
                    await asyncio.sleep(0)  # a thread that keeps up with the loop would never let it turn
        except asyncio.CancelledError:
            job.cancel()  # if it still waits for a thread
            self.refuse(ClientDisconnectedError("the request was cancelled"))
            raise
        failure = self._refused if self._error is None else self._error
        # The news that the client has left needs no more telling to the server, which had told it.
        if failure is not None and not isinstance(failure, ClientDisconnectedError):
            raise failure

    async def _next(self) -> Message | None:
        """The next message of the application's answer; None when it has come back."""
        while True:
            with self._changed:
                if self._queue:
                    self._changed.notify()
                    return self._queue.popleft()
                if self._over:
                    return None
            await self._arrived.wait()
            self._arrived.clear()

    def refuse(self, error: BaseException) -> None:
        """Nothing more can be sent or received, because of ``error``: it is raised in the thread."""
        with self._changed:
            if self._refused is None:
                self._refused = error
            self._queue.clear()
            self._changed.notify()
            if self._asking is not None:
                self._asking.cancel()

    async def _receive_once(self) -> Message:
        return await self._receive()

    # In the thread

    def _work(self) -> None:
        """All of the application's part. Raises nothing: its error is kept for the loop."""
        try:
            self._serve()
        except BaseException as error:
            self._error = error
        with self._changed:
            self._over = True
        self._tell_loop()

    def _serve(self) -> None:
        answer: Iterable[bytes] = ()
        try:
            answer = self._app(self._environ(), self._start_response)
            whole = isinstance(answer, list | tuple) and len(answer) == 1 and not self._begun
            for piece in answer:
                self._check()
                if piece:  # an empty one is a breath, and does not make the head final
                    self._body(piece, more=not whole)
            if not (whole and self._begun):
                self._body(b"", more=False)
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()

    def _start_response(self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None) -> Any:
        """``start_response`` of PEP 3333; returns ``write``."""
        if exc_info is not None and self._begun:  # too late for another answer
            try:
                raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no circle through the traceback
        if exc_info is None and self._head is not None:
            raise RuntimeError("start_response was called already, and this time without exc_info")
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._head = {"type": "http.response.start", "status": int(status.partition(" ")[0]), "headers": fields}
        return self._write

    def _write(self, piece: bytes) -> None:
        self._check()
        if piece:
            self._body(piece, more=True)

    def _body(self, piece: bytes, *, more: bool) -> None:
        """Pass a piece on; the first one makes the head final."""
        if not self._begun:
            if self._head is None:
                raise RuntimeError("the application answered without calling start_response")
            self._begun = True
            self._pass_on(self._head)
        self._pass_on({"type": "http.response.body", "body": piece, "more_body": more})

    def _pass_on(self, message: Message) -> None:
        with self._changed:
            while len(self._queue) >= QUEUE:  # a refusal clears it
                self._changed.wait()
            self._check()
            self._queue.append(message)
        self._tell_loop()

    def _tell_loop(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the loop is closed
            self.refuse(ClientDisconnectedError("the server has stopped"))

    def _check(self) -> None:
        if self._refused is not None:
            raise self._refused

    def next_piece(self) -> Message:
        """The next ``http.request`` message. ClientDisconnectedError when the body will never be whole."""
        with self._changed:
            self._check()
            receiving = self._receive_once()
            try:
                asking = self._asking = asyncio.run_coroutine_threadsafe(receiving, self._loop)
            except RuntimeError:  # the loop is closed
                receiving.close()
                raise ClientDisconnectedError("the server has stopped") from None
        try:
            message = asking.result()
        except CancelledError:
            raise ClientDisconnectedError("the request was cancelled") from None
        finally:
            self._asking = None
        if message["type"] != "http.request":
            raise ClientDisconnectedError("the client left before its request was whole")
        return message

    def _environ(self) -> dict[str, Any]:
        """a2wsgi's environ, mended where it would be read wrongly."""
        scope = self._scope
        plain: Any = {**scope, "headers": wsgi_headers(scope["headers"]), "query_string": b""}
        body: Any = io.BufferedReader(Input(self.next_piece), INPUT_BUFFER)
        path, mount = unquote_to_bytes(scope["raw_path"]), scope["root_path"].encode()
        return {
            **build_environ(plain, body),
            "PATH_INFO": path.removeprefix(mount).decode("latin-1"),  # the bytes as sent, UTF-8 or not
            "QUERY_STRING": scope["query_string"].decode("latin-1"),
            "asgi.scope": scope,
            "wsgi.input_terminated": True,  # it ends where the body does: chunked ones can be read, too
            "wsgi.errors": sys.stderr,
        }


class Input(io.RawIOBase):
    """The request body for a thread, to be buffered."""

    def __init__(self, next_piece: Callable[[], Message]) -> None:
        self._next_piece = next_piece
        self._piece = memoryview(b"")
        self._more = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._piece:
            if not self._more:
                return 0
            message = self._next_piece()
            self._piece = memoryview(message.get("body", b""))
            self._more = message.get("more_body", False)
        size = min(len(buffer), len(self._piece))
        buffer[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size


def wsgi_headers(headers: Headers) -> Headers:
    """Header fields as an environ can hold them.

    A name with an underscore would pass for one with a hyphen, which a proxy in front may have vouched for; it is
    dropped. Cookies are joined by what separates them, not by a comma (RFC 9113 section 8.2.3).
    """
    kept = [(name, value) for name, value in headers if b"_" not in name and name != b"cookie"]
    cookies = [value for name, value in headers if name == b"cookie"]
    return [*kept, (b"cookie", b"; ".join(cookies))] if cookies else kept
