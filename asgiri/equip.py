"""What a server is equipped with by its config: what is spoken on each listener, engines, limits, the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from asgiri.asgi.scope import AppContext
from asgiri.codec.engines import HTTP1_ENGINES, HTTP2_ENGINES, WEBSOCKET_ENGINES
from asgiri.codec.h2_wire import Http2Options
from asgiri.codec.rules import HttpLimits
from asgiri.config.schema import Config, HttpVersion, Listen, Tls
from asgiri.errors import ConfigError, Problem
from asgiri.proto.connection import ExchangeLog, Shared, TimeLimits, WebSocketOptions
from asgiri.proto.detect import Way
from asgiri.proto.http2_websocket import websocket_on
from asgiri.proto.secure import Secure
from asgiri.sockets.listener import Listener

if TYPE_CHECKING:
    from asgiri.deposit import Materials
    from asgiri.metrics.meter import Meter
    from asgiri.proto.announced import Proxies
    from asgiri.tls_files import Material

T = TypeVar("T")


def shared_of(
    config: Config,
    context: AppContext,
    loop: asyncio.AbstractEventLoop,
    access_log: ExchangeLog | None,
    request_id: Callable[[int, int], str],
    meter: Meter | None = None,
) -> Shared:
    """What the connections of a server share. ConfigError when an engine is not installed."""
    timeouts, limits = config.timeouts, config.limits
    message_limits = HttpLimits(
        request_line=limits.request_line,
        header_count=limits.header_count,
        header_size=limits.header_size,
        body_size=limits.body_size,
    )
    return Shared(
        context=context,
        http1=installed(HTTP1_ENGINES.choose, config.http1.engine, "http1.engine"),
        limits=message_limits,
        times=TimeLimits(
            request_head=timeouts.request_head,
            request_body=timeouts.request_body,
            request=timeouts.request,
            keep_alive=timeouts.keep_alive,
            write=timeouts.write,
            ping_interval=config.websocket.ping_interval,
            ping_timeout=config.websocket.ping_timeout,
        ),
        loop=loop,
        http2=installed(HTTP2_ENGINES.promise, config.http2.engine, "http2.engine"),
        http2_options=Http2Options(
            limits=message_limits,
            max_concurrent_streams=config.http2.max_concurrent_streams,
            initial_window=config.http2.initial_window,
            max_frame_size=config.http2.max_frame_size,
            max_header_list=config.http2.max_header_list,
        ),
        tunnels={b"websocket": websocket_on},
        websocket=WebSocketOptions(
            engine=installed(WEBSOCKET_ENGINES.promise, config.websocket.engine, "websocket.engine"),
            max_message=config.websocket.max_message,
            compression=config.websocket.compression,
        ),
        requests=limits.requests,
        requests_per_connection=limits.requests_per_connection,
        access_log=access_log,
        meter=meter,
        request_id=request_id,
        now=loop.time(),
    )


def ways_of(
    config: Config,
    listeners: Sequence[Listener] | None = None,
    *,
    tls: Tls | None = None,
    http: tuple[HttpVersion, ...] = (),
    materials: Materials | None = None,
    before: Sequence[Way] = (),
) -> list[Way]:
    """What is spoken on each listener, in their order; those of the config where no ``listeners`` are given.

    ``tls`` is for listeners of which the config does not know, and ``http``, where it is not empty, for all. Raises
    ConfigError when TLS files cannot be used: this is what reads them, but for what
    is in ``materials``. Of those that were made ``before``, for the same listeners, what has not changed is used again.
    """
    ways = []
    for index, listen in enumerate(listens_of(config, listeners, tls=tls, http=http)):
        secure = None
        if listen.tls is not None:
            material = material_of(config, listen.tls, materials)
            known = before[index].secure if before else None
            key = f"listen[{index}].tls"
            secure = secured(listen.tls, listen.http, key, config.timeouts.tls_handshake, material, known)
        ways.append(Way(listen.http, secure, config.http2.h2c_upgrade, proxies_of(config, listen)))
    return ways


def proxies_of(config: Config, listen: Listen) -> Proxies | None:
    """The proxies whose headers connections there begin with; None where there are none."""
    if listen.proxy_protocol == "off":
        return None
    from asgiri.proto.announced import VERSIONS, Proxies  # few services have one that speaks this
    from asgiri.proto.trust import Trusted

    return Proxies(Trusted(config.proxy.trusted), VERSIONS[listen.proxy_protocol], config.timeouts.proxy_header)


def listens_of(
    config: Config, listeners: Sequence[Listener] | None, *, tls: Tls | None, http: tuple[HttpVersion, ...]
) -> list[Listen]:
    """What is said of each listener: by the config, or where that does not know its address, by its binder.

    A reload keeps the bound sockets, but not what is spoken on them.
    """
    if listeners is None:
        return list(config.listen)
    said: list[Listen] = []
    left = list(config.listen)
    for listener in listeners:
        listen = next((one for one in left if one.address == listener.listen.address), None)
        if listen is not None and listen.address.is_any_port:  # any other may be that of several sockets of systemd's
            left.remove(listen)
        elif listen is None and listener.listen.tls is None:
            listen = msgspec.structs.replace(listener.listen, tls=tls)
        listen = listen or listener.listen
        said.append(msgspec.structs.replace(listen, http=http or listen.http))
    return said


def with_address(config: Config, host: str | None, port: int | None) -> Config:
    """The config listening on ``host`` and ``port`` alone. ConfigError when they are none."""
    host = "127.0.0.1" if host is None else host
    port = 8000 if port is None else port
    listen = Listen(bind=f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    try:
        _ = listen.address
    except ValueError as error:
        raise ConfigError([Problem("Server", "host, port", str(error))]) from None
    return msgspec.structs.replace(config, listen=(listen,))


def installed(find: Callable[[str], T], name: str, key: str) -> T:
    """The engine called ``name``. ConfigError when what it stands on is not installed."""
    try:
        return find(name)
    except KeyError:
        raise ConfigError([Problem("", key, f'{name} is not installed: use "auto"')]) from None


def load_engines(config: Config, *, all_of_them: bool = True) -> None:
    """Import what the config's engines are made of: before the fork, workers share it. ConfigError when one is missing.

    And a worker that is forked after an installation of another release is still all of this one. Without
    ``all_of_them`` those are left out that a first request over HTTP/1.1 can do without, and nobody has named.
    """
    installed(HTTP1_ENGINES.choose, config.http1.engine, "http1.engine")
    http2, websocket = HTTP2_ENGINES, WEBSOCKET_ENGINES
    installed(http2.choose if all_of_them else http2.promise, config.http2.engine, "http2.engine")
    installed(websocket.choose if all_of_them else websocket.promise, config.websocket.engine, "websocket.engine")


def response_headers(config: Config) -> list[tuple[bytes, bytes]]:
    """The header fields that answers get where the app set none of that name; the date is the sweep's to add."""
    fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in config.response_headers.items()]
    if config.server_header:
        fields.append((b"server", b"asgiri"))
    return fields


def material_of(config: Config, tls: Tls, materials: Materials | None) -> Material | None:
    """What is in the files of this section of the config, where somebody has read them."""
    found = (material for listen, material in zip(config.listen, materials or (), strict=False) if listen.tls is tls)
    return next(found, None)


def secured(
    tls: Tls,
    http: Sequence[str],
    key: str,
    handshake_timeout: float,
    material: Material | None = None,
    before: Secure | None = None,
) -> Secure:
    """What a listener needs for TLS; ConfigError, whose keys begin with ``key``, when its files do not do.

    That of ``before``, where nothing of it has changed.
    """
    from asgiri.tls import make_contexts, weak_ciphers  # a plain start has no need of it; a master has imported it

    known = before.made if before is not None else None
    made = make_contexts(tls, http, key, material, known)
    if before is not None and made == known:
        return before
    context = made[""].context
    certificates = {one.context: one.certificate for one in made.values()}
    return Secure(context, certificates, handshake_timeout, weak_ciphers(context), made)


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """How to make the loop called ``name``: ``asyncio``, ``uvloop``, or ``auto``: uvloop where there is one."""
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise ConfigError([Problem("", "loop", 'uvloop is not installed: use "auto" or "asyncio"')]) from None
        else:
            return uvloop.new_event_loop
    return asyncio.new_event_loop
