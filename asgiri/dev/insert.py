"""The live-reload script's way into the application's pages: which answers take it, and where in them. Sans-I/O.

START  nothing has come of the answer
HEAD   its head has, and may take the tag: kept back until it is known what the body comes as
BODY   the tag will go in: its length is in the head's already
PLAIN  the answer is left alone, or has the tag: what comes now passes

       a head that may       any other    a piece of body    a file      the last piece of body
START  HEAD                  PLAIN        PLAIN              PLAIN       PLAIN
HEAD   -                     -            BODY               PLAIN       PLAIN
BODY   -                     -            BODY               BODY        PLAIN
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from html import escape
from typing import Any, Final

from asgiri.types import Headers, Message

SCRIPT_NAME: Final = "reload.js"

# Bytes at the end of what has come so far that may be the end of the page: no more are kept back.
_TAIL_MOST: Final = 256


def _opening(steps: Iterable[str]) -> str:
    """A pattern of what begins like all the steps one after the other, or is nothing."""
    pattern = ""
    for step in reversed([*steps]):
        pattern = f"(?:{step}{pattern})?"
    return pattern


# The end of a page: ``</body>`` and nothing but ``</html>`` behind it. ``</body>`` alone may be part of a script or a
# comment, where a tag would do harm. The second pattern is for what may become the first.
_WHITE = r"[ \t\r\n\f]*"
_STEPS = [*"/body", _WHITE + ">", _WHITE + "<", *"/html", _WHITE + ">", _WHITE]
_END: Final = re.compile(rb"</body[ \t\r\n\f]*>", re.IGNORECASE)
_MAYBE_END: Final = re.compile(f"<{_opening(_STEPS)}{_WHITE}\\Z".encode(), re.IGNORECASE)

_VALIDATORS: Final = frozenset({b"etag", b"last-modified"})
_BINDING: Final = frozenset(
    {b"content-encoding", b"content-range", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"signature"}
)
_CHARSET: Final = re.compile(rb";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)
_NONCE: Final = re.compile(rb"'nonce-([A-Za-z0-9+/_=-]+)'")


class PolicyError(ValueError):
    """The page's Content-Security-Policy lets no script of ours run."""


class Phase(Enum):
    START = "start"
    HEAD = "head"
    BODY = "body"
    PLAIN = "plain"


class Insertion:
    """One answer: takes the application's messages, and gives those that are to be sent in their place.

    ``src`` is where the script is, ``at`` which code the page is of.
    """

    def __init__(self, src: str, at: str) -> None:
        self._src = src
        self._at = at
        self._tag = b""
        self._head: Message = {}
        self._kept = b""  # what may be the end of the page
        self.phase = Phase.START

    def take(self, message: Message) -> tuple[Message, ...]:
        """What to send for this message. PolicyError where the page forbids it: the message is to be sent as it is."""
        kind = message.get("type")
        match self.phase:
            case Phase.START if kind == "http.response.start":
                return self._start(message)
            case Phase.HEAD if kind == "http.response.body" and _is_content(message):
                self.phase = Phase.BODY
                return _with_tag(self._head, len(self._tag)), self._body(message)
            case Phase.HEAD if kind == "http.response.early_hint":
                return (message,)
            case Phase.HEAD:
                self.phase = Phase.PLAIN
                return self._head, message
            case Phase.BODY if kind == "http.response.body" and _is_content(message):
                return (self._body(message),)
            case Phase.BODY if kind == "http.response.zerocopysend":
                return self._file(message)
        return (message,)

    def _start(self, message: Message) -> tuple[Message, ...]:
        self.phase = Phase.PLAIN
        if isinstance(message.get("headers"), Iterator):  # it can be read once
            message = {**message, "headers": [*message["headers"]]}
        fields = _fields(message)
        if fields is None or not takes_tag(message.get("status"), fields):
            return (message,)
        nonce = nonce_of(fields)
        extra = f' nonce="{nonce}"' if nonce else ""
        self._tag = f'<script src="{escape(self._src)}" data-at="{escape(self._at)}"{extra} defer></script>\n'.encode()
        self._head = message
        self.phase = Phase.HEAD
        return ()

    def _body(self, message: Message) -> Message:
        data = self._kept + bytes(message.get("body", b""))
        end = _MAYBE_END.search(data, max(0, len(data) - _TAIL_MOST))
        cut = end.start() if end else len(data)
        self._kept = data[cut:]
        if message.get("more_body", False):
            return {**message, "body": data[:cut]}
        self.phase = Phase.PLAIN
        if not _END.match(self._kept):
            cut = len(data)
        return {**message, "body": data[:cut] + self._tag + data[cut:]}

    def _file(self, message: Message) -> tuple[Message, ...]:
        """A file in the middle of a page: nobody looks into it."""
        before: Message = {"type": "http.response.body", "body": self._kept, "more_body": True}
        kept, self._kept = (before,) if self._kept else (), b""
        if message.get("more_body", False):
            return *kept, message
        self.phase = Phase.PLAIN
        return *kept, {**message, "more_body": True}, {"type": "http.response.body", "body": self._tag}


def takes_tag(status: object, fields: Headers) -> bool:
    """Whether an answer to a GET, with fields in lower case, is a page whose length may change."""
    if not isinstance(status, int) or status < 200 or status in (204, 205, 206) or 300 <= status < 400:
        return False
    values: dict[bytes, bytes] = {}
    for name, value in fields:
        if name in values and name in (b"content-type", b"content-length"):
            return False
        values[name] = value
    kind, _, _ = values.get(b"content-type", b"").partition(b";")
    if kind.strip().lower() != b"text/html" or values.keys() & _BINDING:
        return False
    charset = _CHARSET.search(values[b"content-type"])
    if charset is not None and charset[1].lower().startswith((b"utf-16", b"utf-32", b"ucs-", b"utf-7")):
        return False
    if b"no-transform" in values.get(b"cache-control", b"").lower():  # RFC 9111 section 5.2.2.6
        return False
    if values.get(b"content-disposition", b"").strip().lower().startswith(b"attachment"):
        return False
    return values.get(b"content-length", b"0").strip().isdigit()


def nonce_of(fields: Headers) -> str:
    """The nonce that the script needs, empty where it needs none. PolicyError where it cannot run, or cannot listen.

    https://www.w3.org/TR/CSP3/: each policy must allow it; of a directive that is there twice the first counts.
    """
    lines = b",".join(value for name, value in fields if name == b"content-security-policy")
    policies = [_directives(policy) for policy in lines.split(b",") if policy.strip()]
    found = _NONCE.search(lines)
    nonce = found[0] if found else b"'nonce-'"
    needed = False
    for policy in policies:
        scripts = _sources(policy, b"script-src-elem", b"script-src", b"default-src")
        connects = _sources(policy, b"connect-src", b"default-src")
        if b"allow-scripts" not in policy.get(b"sandbox", [b"allow-scripts"]) or not _allow_self(connects):
            raise PolicyError
        if scripts is not None and nonce in scripts:
            needed = True
        elif not _allow_self(scripts) or (scripts is not None and b"'strict-dynamic'" in scripts):
            raise PolicyError
    return found[1].decode("ascii") if found and needed else ""


def _directives(policy: bytes) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for directive in policy.split(b";"):
        if words := directive.split():
            found.setdefault(words[0].lower(), words[1:])
    return found


def _sources(policy: dict[bytes, list[bytes]], *names: bytes) -> list[bytes] | None:
    """The sources of the first of these directives that is there; None: of anywhere."""
    return next((policy[name] for name in names if name in policy), None)


def _allow_self(sources: list[bytes] | None) -> bool:
    return sources is None or b"*" in sources or b"'self'" in [source.lower() for source in sources]


def _fields(message: Message) -> Headers | None:
    """The fields of a head with names in lower case; None where they are none: the server says what is wrong."""
    try:
        return [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
    except (TypeError, ValueError):
        return None


def _with_tag(head: Message, size: int) -> Message:
    """The head of the longer answer, without what it is compared by: a 304 would bring back the page of older code."""
    fields: list[Any] = []
    for name, value in head.get("headers", ()):
        lower = bytes(name).lower()
        if lower == b"content-length":
            fields.append((name, b"%d" % (int(value) + size)))
        elif lower not in _VALIDATORS:
            fields.append((name, value))
    return {**head, "headers": fields}


def _is_content(message: Message) -> bool:
    return isinstance(message.get("body", b""), bytes | bytearray | memoryview)
