"""Engine name to class: the only file that knows the engines by name."""

from __future__ import annotations

from collections.abc import Callable

from asgiri.codec.contract import Http1Codec
from asgiri.codec.h1_h11 import H11Codec
from asgiri.codec.rules import HttpLimits

Http1Engine = Callable[[HttpLimits], Http1Codec]

HTTP1_ENGINES: dict[str, Http1Engine] = {"h11": H11Codec}


def http1_engine(name: str) -> Http1Engine:
    """The HTTP/1.1 engine called ``name``; ``auto`` is the fastest one that is installed."""
    return HTTP1_ENGINES["h11" if name == "auto" else name]
