"""The error page: what it says, what it escapes, and what stands in for an application that cannot be started."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from asgiri.dev.page import (
    TroubleApp,
    chief_of,
    is_foreign,
    sentence_of,
    shown,
    trouble_page,
    trouble_text,
)
from asgiri.tracebacks import Frame, Trouble
from asgiri.types import Message, Scope
from tests.proto.fakes import in_loop

OUTER = Frame("/home/me/shop/main.py", 3, "<module>", 2, ("", "TABLE = prices()", ""))
INNER = Frame("/home/me/shop/prices.py", 12, "prices", 11, ("def prices():", "    return DISCOUNT"))
LIBRARY = Frame("/venv/lib/python3.13/site-packages/lib/core.py", 7, "check", 7, ("raise ValueError",))
TROUBLE = Trouble(
    "module shop.main was found, but importing it failed: NameError: name 'DISCOUNT' is not defined",
    "NameError",
    "name 'DISCOUNT' is not defined",
    "Traceback (most recent call last):\n  ...\nNameError: name 'DISCOUNT' is not defined\n",
    (OUTER, INNER),
)


class Parsed(HTMLParser):
    """The page as a browser takes it apart: its tags, and its text without scripts and styles."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._within = ""
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within not in ("script", "style"):
            self.text += data

    def values(self, name: str) -> list[str | None]:
        return [value for key, value in self.attributes if key == name]


def test_it_says_what_failed_and_where() -> None:
    page = trouble_page(TROUBLE, through="/.asgiri/through?to=/a%3Fb&amp", at="7-1.3.2")
    parsed = Parsed(page)
    text = " ".join(parsed.text.split())
    for words in (
        "module shop.main was found, but importing it failed NameError name 'DISCOUNT' is not defined",
        "Open /home/me/shop/prices.py:12",
        "12 return DISCOUNT",
        "The whole traceback Traceback (most recent call last):",
        "This page reloads itself when the code is fixed.",
        "The old version still serves: go on with it",
    ):
        assert words in text
    assert text.index("prices.py:12 prices") < text.index("main.py:3 <module>")  # the innermost first
    assert "/.asgiri/through?to=/a%3Fb&amp" in parsed.values("href")
    assert parsed.values("data-at") == ["7-1.3.2"]
    assert "NameError: name 'DISCOUNT' is not defined</title>" in page.decode().replace("&#x27;", "'")


def test_the_line_is_marked() -> None:
    page = trouble_page(TROUBLE, through=None).decode()
    assert re.findall(r'<span class="mark"><i>(\d+)</i>(.*)', page) == [
        ("12", "    return DISCOUNT"),
        ("3", "TABLE = prices()"),
    ]


def test_without_an_old_version_nothing_leads_to_it() -> None:
    page = trouble_page(TROUBLE, through=None)
    assert b"<a " not in page
    assert b"Nothing else is served" in page


def test_nothing_comes_from_outside() -> None:
    """But the page's own events; the icon is in the page."""
    page = trouble_page(TROUBLE, through="/x").decode()
    without_icon = page.replace("xmlns='http://www.w3.org/2000/svg'", "")
    assert not re.findall(r"https?://|@import|url\(", without_icon)
    assert "src" not in [name for name, _ in Parsed(page.encode()).attributes]


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "</style></title></pre></details></textarea><!--",
    "]]><![CDATA[<b>",
    "$script ${what} $$",
    "&lt;script&gt;",
    "\x00\x07\x1b[31mred\x7f\x9b",
    "\ud800 \u202egnp.exe \u2028 \ufeff",
    "a\r\nb\rc",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_an_exception_says_is_text(text: str) -> None:
    frame = Frame(text, 1, text, 1, (text, text))
    page = trouble_page(Trouble(text, text, text, text, (frame,)), through=text, at=text, events=text)
    plain = Parsed(trouble_page(Trouble("x", "x", "x", "x", (Frame("x", 1, "x", 1, ("x", "x")),)), through="x", at="x"))
    parsed = Parsed(page)
    assert parsed.tags == plain.tags
    assert [name for name, _ in parsed.attributes] == [name for name, _ in plain.attributes]
    assert shown(text, 1000).strip() in parsed.text
    assert not re.search(r"[^\n\t\x20-\x7e\xa0-\uffff]", parsed.text)


def test_however_long_it_is_the_page_is_short() -> None:
    long = "<" * (1 << 20)
    frames = tuple(Frame(long, 1, long, 1, (long,) * 50) for _ in range(200))
    assert len(trouble_page(Trouble(long, long, long, long, frames), through="/")) < 4 << 20
    sane = "a" * (1 << 20)
    page = trouble_page(Trouble(sane, "Error", sane, sane, (INNER,)), through="/")
    assert len(page) < 100 << 10
    assert b"characters ...]" in page


@pytest.mark.parametrize(
    ("text", "most", "seen"),
    [
        ("plain", 10, "plain"),
        ("tab\tand\nline", 20, "tab\tand\nline"),
        ("a\r\nb", 10, "a\nb"),
        ("\x1b[0m\x00", 20, "\\x1b[0m\\x00"),
        ("\ud800\u202e", 20, "\\ud800\\u202e"),
        ("e\u0301 \u00fc \U0001f600", 20, "e\u0301 \u00fc \U0001f600"),
        ("abcdefghijkl", 9, "abc [... 3 characters ...] ghijkl"),
    ],
)
def test_what_can_be_shown(text: str, most: int, seen: str) -> None:
    assert shown(text, most) == seen


@pytest.mark.parametrize(
    ("message", "kind", "sentence"),
    [
        ("importing it failed: ValueError: no", "ValueError", "importing it failed"),
        ("importing it failed: a.py:5: SyntaxError: no", "SyntaxError", "importing it failed: a.py:5"),
        ("ValueError: no", "ValueError", "ValueError: no"),
        ("main has no attribute app", "", "main has no attribute app"),
        ("main has no attribute app", "AttributeError", "main has no attribute app"),
    ],
)
def test_the_sentence_leaves_the_exception_out(message: str, kind: str, sentence: str) -> None:
    assert sentence_of(Trouble(message, kind)) == sentence


def test_the_file_to_open_is_of_ones_own_code() -> None:
    assert chief_of([LIBRARY, INNER, OUTER]) is INNER
    assert chief_of([LIBRARY]) is LIBRARY
    assert chief_of([]) is None
    assert is_foreign(re.__file__)
    assert is_foreign("<string>")
    page = trouble_page(Trouble("no", "Error", "no", "", (OUTER, INNER, LIBRARY)), through=None).decode()
    assert page.count("<details open>") == 2
    assert re.search(r"<span>Open</span> <code>/home/me/shop/<b>prices\.py:12", page)


def test_one_sentence_is_enough() -> None:
    page = Parsed(trouble_page(Trouble("app_dir is not a directory"), through=None))
    assert "app_dir is not a directory" in page.text
    assert "details" not in page.tags


def test_for_a_terminal() -> None:
    assert trouble_text(TROUBLE) == f"{TROUBLE.message}\n\n{TROUBLE.trace}".encode()
    assert trouble_text(Trouble("no \x1b[2J such")) == b"no \\x1b[2J such\n"


# What stands in


def scope_of(kind: str = "http", accept: str = "*/*", method: str = "GET", root: str = "", **more: Any) -> Scope:
    headers = [(b"host", b"a"), (b"accept", accept.encode())]
    path = f"{root}/a"
    scope = {"type": kind, "method": method, "path": path, "raw_path": path.encode(), "query_string": b"x=1"}
    return scope | {"root_path": root, "headers": headers, "extensions": {}} | more


async def ask(app: TroubleApp, scope: Scope, *received: Message) -> list[Message]:
    sent: list[Message] = []
    waiting = [*received]

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


@in_loop
async def test_a_browser_gets_the_page() -> None:
    app = TroubleApp(TROUBLE)
    app.at = "1.1.1"
    start, body = await ask(app, scope_of(accept="text/html,*/*;q=0.8", root="/r o"))
    assert start["status"] == 500
    fields = dict(start["headers"])
    assert fields[b"content-type"] == b"text/html; charset=utf-8"
    assert fields[b"cache-control"] == b"no-store"
    assert fields[b"content-length"] == b"%d" % len(body["body"])
    assert b"'sha256-" in fields[b"content-security-policy"]
    assert body["body"] == trouble_page(TROUBLE, through=None, at="1.1.1", events="/r%20o/.asgiri/events")


@in_loop
async def test_who_does_not_ask_for_html_gets_the_traceback() -> None:
    for accept in ("*/*", "application/json", "image/avif,*/*"):
        start, body = await ask(TroubleApp(TROUBLE), scope_of(accept=accept, method="POST"))
        assert start["status"] == 500
        assert dict(start["headers"])[b"content-type"] == b"text/plain; charset=utf-8"
        assert body["body"] == trouble_text(TROUBLE)


@in_loop
async def test_head_gets_the_head_alone() -> None:
    start, body = await ask(TroubleApp(TROUBLE), scope_of(method="HEAD"))
    assert dict(start["headers"])[b"content-length"] == b"%d" % len(trouble_text(TROUBLE))
    assert body["body"] == b""


@in_loop
async def test_a_websocket_is_denied() -> None:
    offers = scope_of("websocket", extensions={"websocket.http.response": {}})
    start, body = await ask(TroubleApp(TROUBLE), offers)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 500)
    assert body["body"] == trouble_text(TROUBLE)
    [close] = await ask(TroubleApp(TROUBLE), scope_of("websocket"), {"type": "websocket.connect"})
    assert (close["type"], close["code"]) == ("websocket.close", 1011)


@in_loop
async def test_it_speaks_lifespan() -> None:
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = await ask(TroubleApp(TROUBLE), {"type": "lifespan", "asgi": {}, "state": {}}, *events)
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
