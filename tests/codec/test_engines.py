"""Engines by name: those that are installed, imported when they are asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from asgiri.codec.engines import HTTP1_ENGINES, HTTP2_ENGINES, WEBSOCKET_ENGINES, Engines, websocket_engine


@pytest.mark.parametrize(
    ("engines", "names"),
    [
        (HTTP1_ENGINES, ["h11", "httptools"]),
        (HTTP2_ENGINES, ["h2", "native"]),
        (WEBSOCKET_ENGINES, ["wsproto", "native"]),
    ],
)
def test_auto_is_the_last_one(engines: Engines[type], names: list[str]) -> None:
    assert list(engines) == names
    assert engines.choose("auto") is engines[names[-1]]
    assert engines.choose(names[0]) is engines[names[0]]


def test_a_name_that_is_none() -> None:
    with pytest.raises(KeyError, match="apache"):
        websocket_engine("apache")


def test_an_engine_that_is_not_installed_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asgiri.codec.h1_httptools", None)
    assert list(HTTP1_ENGINES) == ["h11"]
    assert len(HTTP1_ENGINES) == 1
    assert HTTP1_ENGINES.choose("auto") is HTTP1_ENGINES["h11"]
    with pytest.raises(KeyError, match="httptools"):
        HTTP1_ENGINES.choose("httptools")


def test_what_is_not_used_is_not_imported() -> None:
    """These libraries are 4 MiB a worker, and a good part of the time of a start."""
    code = (
        "import sys, asgiri.worker.main\n"
        "from asgiri.codec.engines import http1_engine, http2_engine, websocket_engine\n"
        "for engine in (http1_engine, http2_engine, websocket_engine): engine('auto')\n"
        "libraries = {'aiofastnet', 'h2', 'h11', 'httptools', 'websockets', 'wsproto'}\n"
        "print(*sorted(libraries & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout.split() == ["httptools"]
