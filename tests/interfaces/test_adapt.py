"""What applications look like, what is believed of them, and those of ASGI 2 served on a real socket."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import httpx
import pytest
from websockets.asyncio.client import connect

from asgiri.config.schema import Config, Listen
from asgiri.errors import AppError
from asgiri.interfaces.adapt import INTERFACES, Asgi2Application, as_asgi3, interface_of
from asgiri.interfaces.shape import Shape, shape_of
from asgiri.server import Server
from asgiri.types import Receive, Scope, Send
from tests.proto.fakes import in_loop, read_body, reply


async def asgi3(scope: Scope, receive: Receive, send: Send) -> None: ...


def asgi2(scope: Scope) -> Any: ...


def wsgi(environ: dict[str, Any], start_response: Any) -> Any: ...


def wsgi_by_name(environ: Any, start_response: Any, settings: Any = None) -> Any: ...


def wsgi_with_default(environ: Any, start_response: Any = None) -> Any: ...


def any_two(a: Any, b: Any) -> Any: ...


class Asgi2Class:
    def __init__(self, scope: Scope) -> None: ...

    async def __call__(self, receive: Receive, send: Send) -> None: ...


class WsgiClass:
    def __init__(self, env: Any, start: Any) -> None: ...

    def __iter__(self) -> Any: ...


class Asgi3Middleware:
    def __init__(self, app: Any) -> None: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Asgi2Instance:
    def __init__(self, name: str) -> None: ...

    def __call__(self, scope: Scope) -> Any: ...


class WsgiMiddleware:
    """As a framework's application: its instances are called with (environ, start_response)."""

    def __init__(self, app: Any) -> None: ...

    def __call__(self, environ: Any, start_response: Any) -> Any: ...


class Settings:
    def __init__(self, a: Any, b: Any = None, c: Any = None) -> None: ...


def create_app(settings: Any) -> Any: ...


async def task(scope: Any) -> None: ...


@functools.wraps(wsgi)
def decorated(*args: Any, **kwargs: Any) -> Any: ...


@pytest.mark.parametrize(
    ("app", "shape"),
    [
        (asgi3, Shape.ASGI3),
        (Asgi3Middleware(None), Shape.ASGI3),
        (functools.partial(Asgi3Middleware.__call__, Asgi3Middleware(None)), Shape.ASGI3),
        (lambda scope, receive, send: None, Shape.ASGI3),
        (decorated, Shape.ASGI3),  # it may be: interface says more
        (asgi2, Shape.ASGI2),
        (Asgi2Instance("x"), Shape.ASGI2),
        (Asgi2Class, Shape.ASGI2),
        (lambda scope: None, Shape.ASGI2),
        (wsgi, Shape.WSGI),
        (wsgi_by_name, Shape.WSGI),
        (wsgi_with_default, Shape.WSGI),
        (WsgiMiddleware(None), Shape.WSGI),
        (WsgiMiddleware(None).__call__, Shape.WSGI),
        (WsgiClass, Shape.WSGI),
        (any_two, Shape.WSGI),
        (lambda: None, Shape.FACTORY),
        (type("Plain", (), {}), Shape.FACTORY),
        (create_app, Shape.OTHER),
        (task, Shape.OTHER),
        (WsgiMiddleware, Shape.OTHER),
        (Asgi3Middleware, Shape.OTHER),
        (Asgi2Instance, Shape.OTHER),
        (Settings, Shape.OTHER),
    ],
)
def test_the_shape_of_an_application_is_seen(app: Any, shape: Shape) -> None:
    assert shape_of(app) is shape


@pytest.mark.parametrize("interface", ["auto", "asgi3"])
def test_an_asgi3_application_is_passed_on_untouched(interface: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "asgiri")
    assert as_asgi3(asgi3, interface) is asgi3
    assert caplog.messages == []


@pytest.mark.parametrize(("app", "name"), [(asgi2, "an ASGI 2"), (Asgi2Class, "an ASGI 2"), (wsgi, "a WSGI")])
def test_what_was_found_is_logged(app: Any, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asgiri")
    assert as_asgi3(app, what="main:app") is not app
    interface = interface_of(app)
    assert caplog.messages == [f"main:app looks like {name} application, and is served as one (interface: {interface})"]


def test_what_is_named_is_believed_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asgiri")
    assert as_asgi3(decorated, "asgi3") is decorated
    assert isinstance(as_asgi3(create_app, "asgi2"), Asgi2Application)
    assert type(as_asgi3(decorated, "wsgi")).__name__ == "WsgiApplication"
    assert caplog.messages == []


def refusal(app: Any, interface: str) -> str:
    with pytest.raises(AppError) as caught:
        as_asgi3(app, interface, "main:app")
    return str(caught.value)


@pytest.mark.parametrize(
    ("app", "interface", "told"),
    [
        (asgi3, "wsgi", "(environ, start_response), as interface: wsgi wants; it looks like an ASGI 3 application"),
        (asgi2, "wsgi", "(environ, start_response), as interface: wsgi wants; it looks like an ASGI 2 application"),
        (asgi3, "asgi2", "(scope), as interface: asgi2 wants; it looks like an ASGI 3 application"),
        (task, "asgi2", "(scope), as interface: asgi2 wants"),
        (wsgi, "asgi3", "(scope, receive, send), as interface: asgi3 wants; it looks like a WSGI application"),
        (WsgiClass, "asgi2", "(scope) and its instance with (receive, send), as interface: asgi2 wants; it looks"),
        (Asgi3Middleware, "asgi2", "(scope) and its instance with (receive, send), as interface: asgi2 wants"),
    ],
)
def test_what_is_named_and_cannot_be_is_refused(app: Any, interface: str, told: str) -> None:
    assert refusal(app, interface).startswith(f"main:app cannot be called with {told}")


def test_what_is_no_application_is_refused_with_the_reason() -> None:
    assert refusal(7, "wsgi") == "main:app is an int, not an application: it cannot be called"
    assert refusal(create_app, "auto").startswith("main:app takes one argument, which is not called scope: if it is")
    assert refusal(WsgiMiddleware, "auto") == "main:app is a class, not an application: name an instance of it"
    assert refusal(asgi3, "asgi4") == "interface 'asgi4' is not known: use one of auto, asgi3, asgi2, wsgi"


def test_the_interfaces_are_those_of_the_schema() -> None:
    assert get_args(get_type_hints(Config)["interface"]) == INTERFACES


def test_wsgi_without_a2wsgi_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("asgiri.interfaces.wsgi", "a2wsgi.wsgi"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "a2wsgi", None)
    for interface in ("auto", "wsgi"):
        assert refusal(wsgi, interface) == (
            "main:app is a WSGI application, which takes a2wsgi: pip install 'asgiri[wsgi]'"
        )
    assert as_asgi3(asgi3) is asgi3  # and nobody else takes it
    assert isinstance(as_asgi3(asgi2), Asgi2Application)


# ASGI 2, served


class Echo:
    """A class as an ASGI 2 application: made once a connection."""

    def __init__(self, scope: Scope) -> None:
        assert scope["type"] == "http", "no lifespan here"
        assert scope["asgi"]["version"] == "2.0"
        self.scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        if self.scope["path"] == "/fail":
            raise ValueError("on purpose")
        await reply(send, await read_body(receive) or b"nothing")


def echo(scope: Scope) -> Callable[[Receive, Send], Any]:
    return Echo(scope)


def config(lifespan: Any = "auto") -> Config:
    return Config(listen=(Listen(bind="127.0.0.1:0"),), lifespan=lifespan)


@pytest.mark.parametrize("app", [Echo, echo, functools.partial(echo)], ids=["class", "function", "partial"])
def test_an_asgi2_application_is_served(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    @in_loop
    async def serve() -> None:
        async with (
            Server(as_asgi3(app), config=config()) as server,
            httpx.AsyncClient(trust_env=False, base_url=base(server)) as client,
        ):
            assert (await client.post("/", content=b"x" * 100_000)).content == b"x" * 100_000
            assert (await client.get("/")).content == b"nothing"
            assert (await client.get("/fail")).status_code == 500

    caplog.set_level(logging.WARNING, "asgiri")
    serve()
    (failure,) = caplog.records  # and not a word about the lifespan, which it does not know
    trace: str = failure.__dict__["trace"]
    assert 'ValueError("on purpose")' in trace
    assert "asgiri/interfaces" not in trace


def base(server: Server) -> str:
    host, port = server.sockets[0].getsockname()
    return f"http://{host}:{port}"


@in_loop
async def test_an_asgi2_application_may_have_a_lifespan_and_its_state() -> None:
    heard = []

    def app(scope: Scope) -> Any:
        async def instance(receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await reply(send, scope["state"]["greeting"])
                return
            for _ in range(2):
                message = await receive()
                heard.append((scope["asgi"]["version"], message["type"]))
                scope["state"]["greeting"] = b"hello"
                await send({"type": f"{message['type']}.complete"})

        return instance

    async with (
        Server(as_asgi3(app), config=config("on")) as server,
        httpx.AsyncClient(trust_env=False, base_url=base(server)) as client,
    ):
        assert (await client.get("/")).content == b"hello"
    assert heard == [("2.0", "lifespan.startup"), ("2.0", "lifespan.shutdown")]


@in_loop
async def test_an_asgi2_application_may_speak_websocket() -> None:
    def app(scope: Scope) -> Any:
        assert (scope["type"], scope["asgi"]) == ("websocket", {"version": "2.0", "spec_version": "2.5"})

        async def instance(receive: Receive, send: Send) -> None:
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": (await receive())["text"]})

        return instance

    async with (
        Server(as_asgi3(app), config=config("off")) as server,
        connect(f"{base(server).replace('http', 'ws')}/", proxy=None) as socket,
    ):
        await socket.send("hello")
        assert await socket.recv() == "hello"
        await socket.wait_closed()
        assert socket.close_code == 1000


@in_loop
async def test_an_asgi2_application_without_a_lifespan_fails_where_one_is_asked_for() -> None:
    with pytest.raises(AppError, match=r"raised AssertionError before lifespan.startup was complete"):
        await Server(as_asgi3(Echo), config=config("on")).start()


@in_loop
async def test_the_scope_of_the_server_is_not_changed() -> None:
    scope: Scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.5"}, "path": "/"}
    seen: list[Scope] = []

    def app(scope: Scope) -> Any:
        seen.append(scope)
        return lambda receive, send: asyncio.sleep(0)

    await Asgi2Application(app)(scope, asyncio.Event().wait, None)  # type: ignore[arg-type]
    assert seen[0]["asgi"] == {"version": "2.0", "spec_version": "2.5"}
    assert scope["asgi"]["version"] == "3.0"
