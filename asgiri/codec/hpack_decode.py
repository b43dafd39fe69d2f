"""HPACK, from bytes to fields (RFC 7541), for the native engine.

The hpack library gives the RFC's tables; its decoder takes twenty times as long for a browser's request, and is what
the tests compare this one with.

The static and the dynamic table are one list here, the newest entry of the dynamic one at its place 62 (section 2.3.3),
so that an index is an index. What a block can make is bounded by its size: fields of a table are not copied, and a
string is at most 8/5 of its Huffman code.
"""

from __future__ import annotations

from typing import Any, Final

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable

from asgiri.codec.h2_rules import FIELD_COST
from asgiri.codec.h2_wire import DEFAULT_TABLE, ConnectionFault, ErrorCode
from asgiri.types import Headers

# RFC 7541 appendix A. Index 0 is none (section 6.1): it is checked for.
STATIC: Final[Headers] = [(b"", b""), *[(name, value) for name, value in HeaderTable.STATIC_TABLE]]
DYNAMIC: Final = len(STATIC)
PATH_INDEXES: Final = (4, 5)  # both are ":path"

# Section 5.1: no number here is that large, so more octets than these are a mistake or worse.
MOST_OCTETS: Final = 4


def broken(reason: str) -> ConnectionFault:
    """After one block that cannot be decoded none can be (RFC 9113 section 4.3)."""
    return ConnectionFault(ErrorCode.COMPRESSION_ERROR, reason)


# Huffman codes (RFC 7541 section 5.2 and appendix B): an automaton that eats whole bytes. A row is a place in the tree
# of codes, and says for each byte which row comes next and what symbols were complete; it is filled as bytes come.

NUMBER, MAY_END = 256, 257  # besides them a row holds its number in TREE, and whether a string may end there
EOS: Final = 256
Row = list[Any]


def code_tree() -> list[list[int]]:
    """Nodes of the tree of codes: for a bit, the number of the next node, or ~symbol."""
    tree = [[0, 0]]
    for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
        node = 0
        for place in range(length - 1, -1, -1):
            bit = code >> place & 1
            if not place:
                tree[node][bit] = ~symbol
            elif tree[node][bit]:
                node = tree[node][bit]
            else:
                tree.append([0, 0])
                tree[node][bit] = node = len(tree) - 1
    return tree


TREE: Final = code_tree()
ROWS: Final[dict[int, Row]] = {}


def row_of(number: int) -> Row:
    row = ROWS.get(number)
    if row is None:
        row = ROWS[number] = [None] * 256 + [number, number in PADDING]
    return row


def padding_nodes() -> set[int]:
    """Where a string may end: behind a symbol, or behind up to seven of the ones that EOS begins with."""
    nodes = {0}
    node = 0
    for _ in range(7):
        node = TREE[node][1]
        nodes.add(node)
    return nodes


PADDING: Final = padding_nodes()
ROOT: Final = row_of(0)


def fill(row: Row, byte: int) -> tuple[Row, bytes]:
    """What ``byte`` does in ``row``."""
    node = row[NUMBER]
    symbols = bytearray()
    for place in range(7, -1, -1):
        node = TREE[node][byte >> place & 1]
        if node < 0:
            if ~node == EOS:
                raise broken("a Huffman code holds the end of its string")
            symbols.append(~node)
            node = 0
    step = row[byte] = row_of(node), bytes(symbols)
    return step


def huffman_decoded(code: bytes) -> bytes:
    """The string of a Huffman code. Raises ConnectionFault for one that is none.

    No string is kept for the next time: it may be a secret, and what comes again and again is in the table.
    """
    row = ROOT
    parts = []
    for byte in code:
        row, symbols = row[byte] or fill(row, byte)
        parts.append(symbols)
    if not row[MAY_END]:
        raise broken("a Huffman code ends within a symbol")
    return b"".join(parts)


def number_at(block: bytes, at: int, value: int) -> tuple[int, int]:
    """A number whose prefix is full, ``value``, and where its other octets end (RFC 7541 section 5.1)."""
    for shift in range(0, 7 * MOST_OCTETS, 7):
        octet = block[at]
        at += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
    raise broken("a number of a header block is too large")


def string_at(block: bytes, at: int) -> tuple[bytes, int]:
    """A string literal and where it ends (RFC 7541 section 5.2)."""
    first = block[at]
    at += 1
    length = first & 0x7F
    if length == 0x7F:
        length, at = number_at(block, at, length)
    end = at + length
    if end > len(block):
        raise broken("a header block ends within a string")
    text = block[at:end]
    return (huffman_decoded(text) if first >= 0x80 else text), end


class HpackDecoder:
    """The receiving side's dynamic table. ``changes`` counts what has happened to it."""

    __slots__ = ("_most", "_size", "_table", "changes", "path_at")

    def __init__(self) -> None:
        self._table = list(STATIC)
        self._size = 0
        self._most = DEFAULT_TABLE  # which we never change by a setting
        self.changes = 0
        # Where the string of the last block's :path begins, when that was a literal with an indexed name; else 0. For
        # the engine, that need not decode the same block with another path as long as the table stays as it is.
        self.path_at = 0

    def decode(self, block: bytes) -> Headers:
        """The fields of a whole header block. Raises ConnectionFault(COMPRESSION_ERROR)."""
        table = self._table
        fields: Headers = []
        end = len(block)
        at = self.path_at = 0
        try:
            while at < end:
                byte = block[at]
                at += 1
                if byte > 0x80:  # section 6.1: indexed
                    index = byte & 0x7F
                    if index == 0x7F:
                        index, at = number_at(block, at, index)
                    fields.append(table[index])
                    continue
                if byte >= 0x40:
                    if byte == 0x80:
                        raise broken("a header block names index 0")
                    prefix = 0x3F  # section 6.2.1: a literal for the table
                elif byte >= 0x20:
                    at = self._resize(block, at, byte & 0x1F, bool(fields))
                    continue
                else:
                    prefix = 0x0F  # sections 6.2.2 and 6.2.3: a literal
                index = byte & prefix
                if index:
                    if index == prefix:
                        index, at = number_at(block, at, index)
                    name = table[index][0]
                    if index in PATH_INDEXES:
                        self.path_at = at
                else:
                    name, at = string_at(block, at)
                value, at = string_at(block, at)
                field = (name, value)
                fields.append(field)
                if prefix == 0x3F:
                    self._add(field)
        except IndexError:
            raise broken("a header block ends early, or names an index that is not there") from None
        return fields

    def _add(self, field: tuple[bytes, bytes]) -> None:
        """A new entry, before which old ones may have to go (RFC 7541 section 4.4)."""
        self.changes += 1
        size = len(field[0]) + len(field[1]) + FIELD_COST
        self._shrink(self._most - size)
        if size <= self._most:
            self._table.insert(DYNAMIC, field)
            self._size += size

    def _resize(self, block: bytes, at: int, size: int, late: bool) -> int:
        """A new size of the table, before the first field of a block only (RFC 7541 section 4.2)."""
        if late:
            raise broken("the size of the dynamic table changes within a header block")
        if size == 0x1F:
            size, at = number_at(block, at, size)
        if size > DEFAULT_TABLE:
            raise broken("the dynamic table is larger than its setting")
        self.changes += 1
        self._most = size
        self._shrink(size)
        return at

    def _shrink(self, most: int) -> None:
        table = self._table
        while self._size > most and self._size:
            name, value = table.pop()
            self._size -= len(name) + len(value) + FIELD_COST
