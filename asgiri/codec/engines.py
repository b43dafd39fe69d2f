"""Engine name to class: the only file that knows the engines by name."""

from __future__ import annotations

from collections.abc import Callable

from asgiri.codec.contract import Deflate, Http1Codec, Http2Codec, WebSocketCodec
from asgiri.codec.h1_h11 import H11Codec
from asgiri.codec.h2_h2 import H2Codec
from asgiri.codec.h2_native import NativeCodec
from asgiri.codec.h2_wire import Http2Options
from asgiri.codec.rules import HttpLimits
from asgiri.codec.ws_native import NativeWebSocketCodec
from asgiri.codec.ws_wsproto import WsprotoCodec

Http1Engine = Callable[[HttpLimits], Http1Codec]
Http2Engine = Callable[[Http2Options], Http2Codec]
# The most bytes of a message, and what permessage-deflate was agreed on.
WebSocketEngine = Callable[[int, Deflate | None], WebSocketCodec]

# The fastest one last.
HTTP1_ENGINES: dict[str, Http1Engine] = {"h11": H11Codec}

try:
    from asgiri.codec.h1_httptools import HttptoolsCodec
except ImportError:  # it is compiled, and not for every platform
    pass
else:
    HTTP1_ENGINES["httptools"] = HttptoolsCodec

HTTP2_ENGINES: dict[str, Http2Engine] = {"h2": H2Codec, "native": NativeCodec}

WEBSOCKET_ENGINES: dict[str, WebSocketEngine] = {"wsproto": WsprotoCodec, "native": NativeWebSocketCodec}


def http1_engine(name: str) -> Http1Engine:
    """The HTTP/1.1 engine called ``name``; ``auto`` is the fastest one that is installed. KeyError: it is not."""
    return HTTP1_ENGINES[next(reversed(HTTP1_ENGINES)) if name == "auto" else name]


def http2_engine(name: str) -> Http2Engine:
    """The HTTP/2 engine called ``name``; ``auto`` is the fastest one. KeyError: there is none of that name."""
    return HTTP2_ENGINES[next(reversed(HTTP2_ENGINES)) if name == "auto" else name]


def websocket_engine(name: str) -> WebSocketEngine:
    """The WebSocket engine called ``name``; ``auto`` is the fastest one. KeyError: there is none of that name."""
    return WEBSOCKET_ENGINES[next(reversed(WEBSOCKET_ENGINES)) if name == "auto" else name]
