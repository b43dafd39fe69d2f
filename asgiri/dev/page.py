"""The error page: why the newest code cannot be started, for those who look at it ten times a day."""

from __future__ import annotations

import os
from collections.abc import Iterable
from html import escape
from string import Template
from typing import Final
from urllib.parse import quote

from asgiri.dev.script import SCRIPT, SCRIPT_HASH
from asgiri.tracebacks import Frame, Trouble
from asgiri.types import Headers, Receive, Scope, Send

# What is served below the root path by the wrapper (asgiri.dev.app).
RESERVED: Final = "/.asgiri/"
# It is the application that fails. A 503 would have proxies and clients try again by themselves, and hide why.
STATUS: Final = 500

# Characters that are shown: of the sentence, of the exception's text, of a line of source, of a name, of the traceback.
_SENTENCE = 600
_TEXT = 4000
_LINE = 300
_NAME = 400
_TRACE = 64 << 10
# More characters than this are set smaller.
_SHORT = 160
# Frames that are shown unfolded, of the application's own code; frames in all; lines of source of one.
_OPEN = 2
_FRAMES = 40
_LINES = 40

# Code that is not what somebody works on.
_FOREIGN = ("/site-packages/", "/dist-packages/")
_STANDARD = os.path.dirname(os.__file__) + os.sep


def trouble_page(trouble: Trouble, *, through: str | None, at: str = "", events: str = "/.asgiri/events") -> bytes:
    """The page as HTML. ``through`` leads to the old version, None where there is none.

    ``at`` is which code the page is of, ``events`` where its script hears of newer.
    """
    frames = trouble.frames[-_FRAMES:][::-1]
    chief = chief_of(frames)
    kind, text = shown(trouble.kind, _NAME), shown(trouble.text, _TEXT)
    sentence = shown(sentence_of(trouble), _SENTENCE)
    return _PAGE.substitute(
        title=escape(_cut(": ".join(part for part in (kind, text.partition("\n")[0]) if part) or sentence, 120)),
        style=_STYLE,
        state=_DOWN if through is None else _UP.substitute(href=escape(through)),
        what=_what(sentence, kind, text),
        file="" if chief is None else _FILE.substitute(place=_place(chief)),
        where=f"<h2>Where it happened</h2>\n{_frames(frames, chief)}" if frames else "",
        trace=_FOLD.substitute(trace=escape(shown(trouble.trace, _TRACE))) if trouble.trace else "",
        script=SCRIPT,
        events=escape(events),
        at=escape(at),
    ).encode("utf-8", "backslashreplace")


def trouble_text(trouble: Trouble) -> bytes:
    """The same for a terminal: what failed, and the traceback."""
    said = shown(trouble.message, _SENTENCE)
    trace = shown(trouble.trace, _TRACE)
    return "\n".join(part for part in (said, "", trace) if part or trace).rstrip("\n").encode("utf-8") + b"\n"


def sentence_of(trouble: Trouble) -> str:
    """The message, without the exception that it ends with: that one is shown by itself."""
    ending = trouble.message.find(f"{trouble.kind}: ") if trouble.kind else -1
    return trouble.message[:ending].rstrip(": ") if ending > 0 else trouble.message


def chief_of(frames: Iterable[Frame]) -> Frame | None:
    """Of frames, the innermost first, that whose file is to be opened: the first of code that somebody works on."""
    frames = [*frames]
    own = (frame for frame in frames if not is_foreign(frame.file))
    return next(own, frames[0] if frames else None)


def is_foreign(file: str) -> bool:
    """Whether a file is of an installed package, of the standard library, or none (``<string>``)."""
    return file.startswith((_STANDARD, "<")) or any(part in file for part in _FOREIGN)


def shown(text: str, most: int) -> str:
    """A text that can be shown: what is not printable is escaped, and what is overlong lacks its middle."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode("ascii")
        for letter in _cut(text, most).replace("\r\n", "\n")
    )


def _cut(text: str, most: int) -> str:
    """At most so many characters; a traceback says the most at its end, and begins with what called what."""
    if len(text) <= most:
        return text
    head = most // 3
    tail = most - head
    return f"{text[:head]} [... {len(text) - most} characters ...] {text[-tail:]}"


# Its parts


def _what(sentence: str, kind: str, text: str) -> str:
    if not kind:
        return f"<h1>{escape(sentence)}</h1>"
    size = " long" if "\n" in text or len(text) > _SHORT else ""
    said = f'<p class="said{size}">{escape(text)}</p>' if text else ""
    return f"<p>{escape(sentence)}</p>\n<h1>{escape(kind)}</h1>\n{said}"


def _place(frame: Frame) -> str:
    folder, name = os.path.split(shown(frame.file, _NAME))
    folder = folder if not folder or folder.endswith("/") else folder + "/"
    return f"{escape(folder)}<b>{escape(name)}:{frame.line}</b>"


def _frames(frames: Iterable[Frame], chief: Frame | None) -> str:
    """All of them, the innermost first; the first few of one's own code and the one to look at are unfolded."""
    left = _OPEN
    parts = []
    for frame in frames:
        unfolded = frame is chief or (left > 0 and not is_foreign(frame.file))
        left -= unfolded
        where = f' <span class="in">{escape(shown(frame.function, _NAME))}</span>' if frame.function else ""
        if not frame.source:
            parts.append(f'<div class="bare"><code>{_place(frame)}</code>{where}</div>')
            continue
        summary = f"<summary><code>{_place(frame)}</code>{where}</summary>"
        parts.append(f"<details{' open' * unfolded}>{summary}\n<pre>{_source(frame)}</pre></details>")
    return "\n".join(parts)


def _source(frame: Frame) -> str:
    lines = []
    for number, line in enumerate(frame.source[:_LINES], frame.first):
        mark = ' class="mark"' if number == frame.line else ""
        lines.append(f"<span{mark}><i>{number}</i>{escape(shown(line, _LINE))}\n</span>")
    return "".join(lines)


_STYLE = """\
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --ink: #1d2426; --soft: #5f6b6e; --line: #dfe3e1; --accent: #1f6a6e;
  --bad: #b3261e; --code: #f3f4f1; --marked: #fbe6e2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181a; --ink: #dde3e2; --soft: #93a0a2; --line: #2a3234; --accent: #85c7c6;
    --bad: #ff8f80; --code: #1b2123; --marked: #43211f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 3rem 1.5rem; max-width: 58rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
  -webkit-text-size-adjust: 100%;
}
header {
  display: flex; flex-wrap: wrap; justify-content: space-between; gap: .25rem 1rem;
  color: var(--soft); font-size: .875rem;
}
header b { display: flex; gap: .5rem; align-items: center; color: var(--accent); font-weight: 600; }
header svg { width: 1rem; height: 1rem; fill: none; stroke: currentColor; }
header span::before {
  content: ""; display: inline-block; width: .5rem; height: .5rem; margin-right: .5rem; border-radius: 50%;
  background: var(--bad);
}
header .up::before { background: var(--accent); }
h1 {
  margin: 0; color: var(--bad); font-size: 1.875rem; line-height: 1.25; font-weight: 600; letter-spacing: -.02em;
  overflow-wrap: anywhere;
}
main > p { margin: 2.25rem 0 .25rem; color: var(--soft); overflow-wrap: anywhere; }
main > h1:first-child { margin-top: 2.25rem; }
main > .said {
  margin: .5rem 0 0; max-height: 20rem; overflow: auto; color: var(--ink); white-space: pre-wrap; font-size: 1.125rem;
}
main > .long { font-size: .9375rem; }
code, pre, .in, .long {
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .875rem;
}
code { overflow-wrap: anywhere; }
.open {
  display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline;
  margin: 1.75rem 0 0; padding: .75rem 1rem; border: 1px solid var(--line); border-left: 3px solid var(--bad);
  border-radius: 4px;
}
.open span { color: var(--soft); font-size: .875rem; }
.open code { user-select: all; color: var(--soft); }
.open b { color: var(--ink); }
h2 { margin: 2.5rem 0 .5rem; font-size: 1rem; font-weight: 600; }
details, .bare { border-top: 1px solid var(--line); }
details:last-of-type { border-bottom: 1px solid var(--line); }
summary, .bare { padding: .625rem 0; color: var(--soft); }
summary { cursor: pointer; }
summary b, .bare b { color: var(--ink); font-weight: 600; }
summary:hover b { color: var(--accent); }
.in { margin-left: .75rem; color: var(--accent); overflow-wrap: anywhere; }
pre {
  margin: 0 0 1rem; padding: .625rem 0; background: var(--code); border-radius: 4px; overflow-x: auto; tab-size: 4;
}
pre span { display: block; width: max-content; min-width: 100%; padding-right: 1rem; }
pre i {
  display: inline-block; width: 4rem; padding-right: 1rem; color: var(--soft); font-style: normal; text-align: right;
  user-select: none;
}
pre .mark { background: var(--marked); box-shadow: inset 3px 0 var(--bad); }
pre .mark i { color: var(--bad); }
:not(details) + .trace { margin-top: 1.75rem; }
.trace pre { padding: .75rem 1rem; max-height: 32rem; overflow: auto; }
footer { margin: 2rem 0 0; color: var(--soft); font-size: .9375rem; }
footer p { margin: 0; }
a { color: var(--accent); text-underline-offset: .2em; text-decoration-thickness: 1px; }
a:hover { text-decoration-thickness: 2px; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 2px; }
@media (max-width: 36rem) {
  body { padding: 1.5rem 1rem 2.5rem; }
  main > p, main > h1:first-child { margin-top: 1.75rem; }
  h1 { font-size: 1.5rem; }
  main > .said:not(.long) { font-size: 1rem; }
  pre i { width: 2.75rem; padding-right: .75rem; }
  .open { padding: .625rem .75rem; }
}
"""

_FILE = Template('<div class="open"><span>Open</span> <code>$place</code></div>')

_FOLD = Template(
    '<details class="trace"><summary>The whole traceback</summary>\n<pre><code>$trace</code></pre></details>'
)

_DOWN = "<span>Nothing else is served</span>"
_UP = Template('<span class="up">The old version still serves: <a href="$href">go on with it</a></span>')

_PAGE = Template(
    """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
%3Ccircle cx='8' cy='8' r='6' fill='%23c8382c'/%3E%3C/svg%3E">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<header><b><svg viewBox="0 0 16 16" aria-hidden="true"><path d="M2 4h9M5 8h9M3 12h7" stroke-width="2" \
stroke-linecap="round"/></svg>asgiri</b> $state</header>
<main>
$what
$file
$where
$trace
</main>
<footer>
<p>This page reloads itself when the code is fixed.
<span id="note" role="status" hidden>The server does not answer right now.</span></p>
</footer>
<script data-events="$events" data-at="$at">$script</script>
</body>
</html>
"""
)


# The page as an answer

_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; "
    f"form-action 'none'; script-src {SCRIPT_HASH}"
).encode()


def page_head(size: int, kind: bytes = b"text/html; charset=utf-8") -> Headers:
    """The fields of an answer with a page, or a text, of ``size`` bytes."""
    return [
        (b"content-type", kind),
        (b"content-length", b"%d" % size),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", _POLICY),
        (b"x-content-type-options", b"nosniff"),
    ]


async def send_page(scope: Scope, send: Send, data: bytes, kind: bytes = b"text/html; charset=utf-8") -> None:
    """Answer an http request, or deny a WebSocket, with a whole page; a HEAD gets its length alone."""
    websocket = "websocket." if scope["type"] == "websocket" else ""
    await send({"type": f"{websocket}http.response.start", "status": STATUS, "headers": page_head(len(data), kind)})
    body = b"" if scope.get("method") == "HEAD" else data
    await send({"type": f"{websocket}http.response.body", "body": body})


def events_url(scope: Scope) -> str:
    return quote(scope.get("root_path", "").rstrip("/")) + RESERVED + "events"


def wants_html(scope: Scope) -> bool:
    """Whether the client names HTML among what it takes: browsers do, curl does not."""
    return any(name == b"accept" and b"text/html" in value.lower() for name, value in scope["headers"])


class TroubleApp:
    """Served in the place of an application that cannot be started: an ASGI 3 application that says why.

    The wrapper keeps ``trouble`` and ``at`` (which code it is) as they are now.
    """

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble
        self.at = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "lifespan":
                await self._lifespan(receive, send)
            case "http" if wants_html(scope):
                page = trouble_page(self.trouble, through=None, at=self.at, events=events_url(scope))
                await send_page(scope, send, page)
            case "websocket" if "websocket.http.response" not in scope.get("extensions", {}):
                await receive()
                await send({"type": "websocket.close", "code": 1011, "reason": "the application cannot be started"})
            case _:
                await send_page(scope, send, trouble_text(self.trouble), b"text/plain; charset=utf-8")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
