"""Header blocks whose requests are known, for the native HTTP/2 engine: clients send the same ones again and again.

A block means the same as long as the dynamic table does not change. So does one that differs in its :path alone, when
that is a literal: the known one is its template. Secrets are remembered no longer than the connection lasts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from asgiri.codec import h2_rules
from asgiri.codec.events import Request
from asgiri.codec.h2_wire import ENDLESS, Http2Options
from asgiri.codec.hpack_decode import huffman_decoded
from asgiri.types import Headers

Priority = tuple[int, bool]
# A request without a body: method, target, path, query, headers, and its priority when it says one.
Known = tuple[str, bytes, bytes, bytes, Headers, Priority | None]
# One with a body, its length and its priority.
KnownOpen = tuple[Request, int | None, Priority]

# How many header blocks are known, and how long they are, in bytes: each connection has some.
MOST_BLOCKS: Final = 32
LONG_BLOCK: Final = 512

# String literals of :path in origin-form -> target, path, query; with MOST_TARGETS of them it begins anew.
TARGETS: Final[dict[bytes, tuple[bytes, bytes, bytes]]] = {}
MOST_TARGETS: Final = 4096
LONG_TARGET: Final = 96
NO_TARGET: Final = (b"", b"", b"")


def target_of(literal: bytes) -> tuple[bytes, bytes, bytes]:
    """Target, path and query of a string literal of less than 127 bytes; NO_TARGET when it is not that plain."""
    if not literal or len(literal) > 0x7F or literal[0] & 0x7F != len(literal) - 1:
        return NO_TARGET
    target = literal[1:]
    if literal[0] & 0x80:
        target = huffman_decoded(target)
    if not target.startswith(b"/") or h2_rules.PATH.fullmatch(target) is None:
        return NO_TARGET
    path, _, query = target.partition(b"?")
    if len(literal) <= LONG_TARGET:
        if len(TARGETS) >= MOST_TARGETS:
            TARGETS.clear()
        TARGETS[literal] = target, path, query
    return target, path, query


class KnownBlocks:
    """Those of one connection."""

    __slots__ = ("_options", "bodiless", "open", "template")

    def __init__(self, options: Http2Options) -> None:
        self._options = options
        self.bodiless: dict[bytes, Known] = {}
        self.open: dict[bytes, KnownOpen] = {}  # with a body to come
        # A block without a body before and behind its :path, and how long the target may be for no limit to matter.
        self.template: tuple[bytes, bytes, int, Known] | None = None

    def forget(self) -> None:
        """The dynamic table has changed."""
        self.bodiless.clear()
        self.open.clear()
        self.template = None

    def remember(self, block: bytes, path_at: int, request: Request, priority: Priority, size: int) -> None:
        """The block means this request without a body. ``size`` is its list's, ``path_at`` HpackDecoder's."""
        if len(block) > LONG_BLOCK:
            return
        known = (
            request.method,
            request.target,
            request.path,
            request.query,
            request.headers.copy(),  # the application may change its own
            None if priority == h2_rules.NO_PRIORITY else priority,
        )
        if path_at and block[path_at] & 0x7F < 0x7F:
            limits = self._options.limits
            most = min(
                (limits.request_line or ENDLESS) - len(request.method),
                min(limits.header_size or ENDLESS, self._options.header_list) - size + len(request.target),
            )
            behind = path_at + 1 + (block[path_at] & 0x7F)
            self.template = block[:path_at], block[behind:], most, known
        else:
            if len(self.bodiless) >= MOST_BLOCKS:
                self.bodiless.clear()
            self.bodiless[block] = known

    def remember_open(self, block: bytes, request: Request, priority: Priority, length: int | None) -> None:
        """The block means this request, whose body comes behind it."""
        if len(block) > LONG_BLOCK:
            return
        if len(self.open) >= MOST_BLOCKS:
            self.open.clear()
        self.open[block] = replace(request, headers=request.headers.copy()), length, priority

    def from_template(self, block: bytes) -> Known | None:
        """The request of a block that differs from the last in its :path alone; None when it is not that plain."""
        if self.template is None:
            return None
        before, behind, most, (method, _, _, _, headers, priority) = self.template
        size = len(block) - len(before) - len(behind)  # one octet may be in both, and then it is another block
        if size <= 0 or not block.startswith(before) or not block.endswith(behind):
            return None
        literal = block[len(before) : len(before) + size]
        target, path, query = TARGETS.get(literal) or target_of(literal)
        if not target or len(target) > most:
            return None
        return method, target, path, query, headers, priority
