"""Engine name to class: the only file that knows the engines by name.

They are imported when they are asked for: nobody pays, in memory and in the time of a start, for libraries whose
engines are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final, TypeVar, cast

from asgiri.codec.contract import Deflate, Http1Codec, Http2Codec, WebSocketCodec
from asgiri.codec.h2_wire import Http2Options
from asgiri.codec.rules import HttpLimits

Http1Engine = Callable[[HttpLimits], Http1Codec]
Http2Engine = Callable[[Http2Options], Http2Codec]
# The most bytes of a message, and what permessage-deflate was agreed on.
WebSocketEngine = Callable[[int, Deflate | None], WebSocketCodec]

E = TypeVar("E", bound=Callable[..., Any])


class Engines(Mapping[str, E]):
    """The engines of a protocol that are installed, by name. Made of name -> module:class, the fastest one last."""

    def __init__(self, **places: str) -> None:
        self._places = places

    def __getitem__(self, name: str) -> E:
        module, _, attribute = self._places[name].partition(":")
        try:
            engine: E = getattr(import_module(f"asgiri.codec.{module}"), attribute)
        except ImportError as error:  # some are compiled, and not for every platform
            raise KeyError(name) from error
        return engine

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._places if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def choose(self, name: str) -> E:
        """The engine called ``name``; ``auto`` is the fastest one that is installed. KeyError: it is not."""
        if name == "auto":
            name = next((name for name in reversed(self._places) if name in self), name)
        return self[name]

    def promise(self, name: str) -> E:
        """As :meth:`choose`, but what "auto" stands for is imported when the first connection needs it."""
        if name != "auto":
            return self[name]
        engine: E | None = None

        def promised(*arguments: Any) -> Any:
            nonlocal engine
            if engine is None:
                engine = self.choose(name)
            return engine(*arguments)

        return cast(E, promised)


HTTP1_ENGINES: Final[Engines[Http1Engine]] = Engines(h11="h1_h11:H11Codec", httptools="h1_httptools:HttptoolsCodec")
HTTP2_ENGINES: Final[Engines[Http2Engine]] = Engines(h2="h2_h2:H2Codec", native="h2_native:NativeCodec")
WEBSOCKET_ENGINES: Final[Engines[WebSocketEngine]] = Engines(
    wsproto="ws_wsproto:WsprotoCodec", native="ws_native:NativeWebSocketCodec"
)

http1_engine = HTTP1_ENGINES.choose
http2_engine = HTTP2_ENGINES.choose
websocket_engine = WEBSOCKET_ENGINES.choose
