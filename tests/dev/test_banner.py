"""The banner: what it says, and when it has colours."""

from __future__ import annotations

import os
import re
import sys

import pytest

from asgiri import __version__
from asgiri.config.schema import Config, Listen, Reload, Workers
from asgiri.dev.banner import Scene, banner, wants_colours

CONFIG = Config(
    app="shop.main:app",
    listen=(Listen(bind="127.0.0.1:8000"), Listen(bind="127.0.0.1:8001", http=("http/1.1",))),
    workers=Workers(count=2),
    reload=Reload(enabled=True, dirs=(".", "lib"), include=("*.py", "*.html"), browser=True),
)
SCENE = Scene(
    CONFIG,
    ["http://127.0.0.1:8000", "http://127.0.0.1:8001"],
    admin=["http://127.0.0.1:9000"],
    files=["asgiri.yaml"],
)


def test_it_says_where_what_and_what_is_watched() -> None:
    assert banner(SCENE, colours=False) == (
        f"\n  asgiri {__version__}, Python {sys.version.split()[0]}\n\n"
        "  ->  http://127.0.0.1:8000\n"
        "  ->  http://127.0.0.1:8001\n"
        "      app      shop.main:app\n"
        "      workers  2\n"
        "      speaks   HTTP/1.1, HTTP/2, WebSocket\n"
        "      watches  ., lib (*.py *.html), asgiri.yaml\n"
        "      browser  pages reload themselves\n"
        "      health   http://127.0.0.1:9000 (/livez, /readyz)\n"
        "      Ctrl-C stops it\n\n"
    )


def test_colours_change_nothing_but_the_colours() -> None:
    coloured = banner(SCENE, colours=True)
    assert "\x1b[1m\x1b[36mhttp://127.0.0.1:8000\x1b[0m\n" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == banner(SCENE, colours=False)


def test_the_demo_and_many_folders() -> None:
    config = Config(reload=Reload(enabled=True, dirs=("a", "b", "c", "d", "e")))
    text = banner(Scene(config, []), colours=False)
    assert "asgiri.demo:app (the demo: no application is named)" in text
    assert "a, b, c, 2 more (*.py)\n" in text
    assert "browser" not in text


def test_an_application_that_does_not_start() -> None:
    scene = Scene(CONFIG, [], broken=True)
    assert "shop.main:app does not start: error pages" in banner(scene, colours=False)
    assert "\x1b[31mshop.main:app" in banner(scene, colours=True)


def test_nothing_hostile_reaches_the_terminal() -> None:
    config = Config(app="a\x1b[2J:app", reload=Reload(enabled=True))
    assert "\x1b" not in banner(Scene(config, ["unix:/tmp/\x1b[2J"], ["\x1b"], ["\x1b\x07"]), colours=False)


@pytest.mark.parametrize(
    ("environ", "colours"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_has_colours_unless_somebody_says_no(environ: dict[str, str], colours: bool) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb"), os.fdopen(theirs, "wb"):
        assert wants_colours(theirs, environ) is colours


def test_a_file_has_none() -> None:
    with open(os.devnull, "w") as file:
        assert not wants_colours(file.fileno(), {})
    assert not wants_colours(-1, {})
