"""HPACK, from the fields of an answer to bytes (RFC 7541), for the native engine.

Without the dynamic table: a field's bytes are then the same for every answer of every connection, and so are made once.
Without Huffman codes too: they save a quarter of bytes that are few beside an answer's body, and cost the most for the
fields that differ from answer to answer.
"""

from __future__ import annotations

from typing import Final

from asgiri.codec import h2_rules, rules
from asgiri.codec.h2_rules import CONNECTION_FIELDS, SECRETS
from asgiri.codec.hpack_decode import STATIC
from asgiri.types import Headers

# The dynamic table has size 0 from now on (RFC 7541 section 6.3).
NO_TABLE: Final = b"\x20"
NEVER_INDEXED: Final = 0x10  # section 6.2.3: for intermediaries too, a secret is not to be in a table

EXACT: Final = {field: index for index, field in enumerate(STATIC) if index}
NAMES: Final = {name: index for index, (name, _) in reversed(list(enumerate(STATIC))) if index}

# Fields of answers that were checked -> their bytes, none for those that are left out. Apps send the same few again and
# again; those that differ each time fill it up, and then it begins anew. No secret is in it, nor a long one.
FIELDS: Final[dict[tuple[bytes, bytes], bytes]] = {}
MOST_FIELDS: Final = 1024
LONG_FIELD: Final = 256


def number(value: int, prefix: int, first: int) -> bytes:
    """A number in a prefix of so many bits, whose octet has the bits ``first`` besides (RFC 7541 section 5.1)."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes((first | value,))
    octets = bytearray((first | most,))
    value -= most
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def string(value: bytes) -> bytes:
    return number(len(value), 7, 0) + value


def field_bytes(name: bytes, value: bytes) -> bytes:
    """One field: indexed, or a literal that changes no table (RFC 7541 sections 6.1 to 6.2.3)."""
    first = NEVER_INDEXED if name in SECRETS else 0
    index = EXACT.get((name, value))
    if index is not None and not first:
        return number(index, 7, 0x80)
    index = NAMES.get(name)
    if index is None:
        return bytes((first,)) + string(name) + string(value)
    return number(index, 4, first) + string(value)


# Whole heads, by status and fields, of which the same goes: those whose fields were all known.
HEADS: Final[dict[tuple[object, ...], bytes]] = {}
MOST_HEADS: Final = 256
LONG_HEAD: Final = 32  # fields

STATUSES: Final = {status: field_bytes(b":status", b"%d" % status) for status in range(100, 600)}
LENGTH_HEAD: Final = number(NAMES[b"content-length"], 4, 0)


def plain_field(field: tuple[bytes, bytes]) -> bytes:
    """The bytes of a field of an answer's head that does not say its length. Raises LocalProtocolError."""
    rules.check_answer_fields([field])
    name, value = field
    name = name.lower()
    data = b"" if name in CONNECTION_FIELDS else field_bytes(name, value.strip(b" \t"))
    if name not in SECRETS and len(data) <= LONG_FIELD:
        if len(FIELDS) >= MOST_FIELDS:
            FIELDS.clear()
        FIELDS[field] = data
    return data


def head_block(status: int, headers: Headers) -> bytes:
    """The header block of an answer's head. Raises LocalProtocolError for what must not go out."""
    key = (status, *headers)
    block = HEADS.get(key)
    if block is not None:
        return block
    parts = [STATUSES[status]]
    is_known = True
    has_length = False
    for field in headers:
        data = FIELDS.get(field)
        if data is None:
            name, value = field
            if name != b"content-length" and name.lower() != b"content-length":
                data = plain_field(field)
                is_known = False
            elif (
                name == b"content-length"
                and value.isdigit()
                and len(value) <= rules.CONTENT_LENGTH_DIGITS
                and not has_length
                and status >= 200
                and status != 204
            ):
                has_length = True
                data = b"%b%c%b" % (LENGTH_HEAD, len(value), value)
            else:  # in no plain way: the rules decide
                return STATUSES[status] + fields_block(h2_rules.answer_fields(status, headers))
        parts.append(data)
    block = b"".join(parts)
    if is_known and len(headers) <= LONG_HEAD:
        if len(HEADS) >= MOST_HEADS:
            HEADS.clear()
        HEADS[key] = block
    return block


def fields_block(fields: Headers) -> bytes:
    """The header block of fields that were judged already."""
    return b"".join([field_bytes(name, value) for name, value in fields])
