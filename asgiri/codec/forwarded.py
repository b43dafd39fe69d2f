"""What proxies say of a request that they pass on: X-Forwarded-* and ``Forwarded`` (RFC 7239), and whom to believe.

Each proxy adds one entry behind those that it was given: its own peer, as it saw that. So a list is read from its end,
where the entry of the nearest proxy is, and whatever a client has put into it stands before those of the proxies.
Nothing is read beyond the entry that decides, so nothing that stands before it can spoil it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from asgiri.codec import rules

# Entries that are walked at the most: more hops than there are, and few enough to be read in no time.
MOST_HOPS: Final = 32
# And entries of a list that are looked at, those included that are empty.
MOST_ENTRIES: Final = 256
# And bytes of a list, of which a client writes as many as it likes, and quotes take long to read. A long entry for each
# of the hops fits in.
MOST_BYTES: Final = 8 << 10

_BACKSLASH: Final = ord("\\")
_BLANKS: Final = " \t"
# RFC 7239 section 4: token "=" ( token / quoted-string ), of RFC 9110 section 5.6; what is none is malformed.
_PAIR: Final = re.compile(
    r"(?P<name>[!#$%&'*+\-.^_`|~0-9A-Za-z]+)="
    r"(?:(?P<token>[!#$%&'*+\-.^_`|~0-9A-Za-z]+)|\"(?P<quoted>(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+)\")"
)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_SEPARATOR: Final = re.compile(r"[ \t]*;[ \t]*")  # the blanks are no part of the grammar, and some proxies send them
# Section 6: what stands in the place of an address, and of a port.
_OBFUSCATED: Final = re.compile(r"_[0-9A-Za-z._-]+")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
# What a scope's root_path may be made of: a path without anything that could be read as more, or as less, than it.
_PREFIX: Final = re.compile(r"(?:/[0-9A-Za-z\-._~!$&'()*+;=:@%]+)*")
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Node:
    """Who is at one end of a hop: an address (IPv4 or IPv6, in its usual form), or a ``name`` that stands for one.

    ``port`` is 0 where it is not told. A name is ``unknown``, or one that begins with ``_`` (RFC 7239 section 6.3).
    """

    host: str
    port: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Element:
    """One entry of ``Forwarded``. ``node`` is None where it has no ``for``; the others are empty where not there."""

    node: Node | None
    proto: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What the proxies say of a request, as far as they are believed.

    ``client`` is None where it is the peer itself. ``scheme`` is http or https; it and the others are empty (``port``:
    0) where they say nothing, or no such thing.
    """

    client: Node | None = None
    scheme: str = ""
    host: str = ""
    port: int = 0
    prefix: str = ""


Trusts = Callable[[str], bool]


def parse_node(text: str) -> Node | None:
    """A node of RFC 7239 section 6; or of X-Forwarded-For, where IPv6 addresses may have no brackets. None: neither."""
    from ipaddress import IPv6Address, ip_address  # most services have no proxy that tells addresses

    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            return None
        port = rest[1:]
        if rest and not port:
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not port:
            return None
    if not _is_port(port):
        return None
    number = int(port) if port.isdigit() else 0
    if host == "unknown" or _OBFUSCATED.fullmatch(host):
        return Node("", number, host) if not text.startswith("[") else None
    if "%" in host:
        return None
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return Node(str(mapped or address), number)


def _is_port(port: str) -> bool:
    if not port or _OBFUSCATED.fullmatch(port):
        return True
    return _PORT.fullmatch(port) is not None and int(port) <= 65535


def parse_element(text: str) -> Element | None:
    """One entry of ``Forwarded``; None for what is none, or says the same thing twice (RFC 7239 section 4)."""
    said: dict[str, str] = {}
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            return None
        name = pair["name"].lower()
        if name in said:
            return None
        quoted = pair["quoted"]
        said[name] = pair["token"] if quoted is None else _ESCAPED.sub(r"\1", quoted)
        at = pair.end()
        if at < len(text):
            separator = _SEPARATOR.match(text, at)
            if separator is None:
                return None
            at = separator.end()
    node = parse_node(said["for"]) if "for" in said else None
    if "for" in said and node is None:
        return None
    return Element(node, said.get("proto", ""), said.get("host", ""))


def from_the_end(values: Sequence[bytes]) -> Iterator[str]:
    """The last entries of a list, in one field or several, the last one first; commas in quotes are of the entry.

    An entry whose quotes do not match comes with all that stands before it in its field. Empty ones are left out (RFC
    9110 section 5.6.1.2).
    """
    left, size = MOST_ENTRIES, MOST_BYTES
    for whole in reversed(values):
        if not size:
            return
        value = whole[-size:]
        size -= len(value)
        end = at = len(value)  # of the entry; of what of it is not looked at yet
        comma, quote = value.rfind(b","), value.rfind(b'"')
        while end >= 0 and left:
            if quote > comma:  # it ends a quoted string
                at = value.rfind(b'"', 0, quote)
                while at > 0 and _is_escaped(value, at):
                    at = value.rfind(b'"', 0, at)
                if at < 0:
                    comma = quote = -1
                    continue
                quote = value.rfind(b'"', 0, at)
                if comma > at:
                    comma = value.rfind(b",", 0, at)
                continue
            if entry := value[comma + 1 : end].decode("latin-1").strip(_BLANKS):
                yield entry
            left -= 1
            end = comma
            comma = value.rfind(b",", 0, max(end, 0))


def _is_escaped(value: bytes, at: int) -> bool:
    before = at
    while before > 0 and value[before - 1] == _BACKSLASH:
        before -= 1
    return (at - before) % 2 == 1


def read_forwarded(values: Sequence[bytes], trusts: Trusts) -> Told:
    """What ``Forwarded`` tells, of a peer that is trusted.

    The client is the last node that is not trusted, or the first one if all are. An entry that is malformed or names no
    node ends the walk: the client is then the last one that was passed. Scheme and host are of the client's entry.
    """
    client: Node | None = None
    proto = host = ""
    for hops, entry in enumerate(from_the_end(values)):
        element = parse_element(entry)
        if element is None or hops == MOST_HOPS:
            break
        if element.node is None and hops:
            break
        proto, host = element.proto, element.host
        client = element.node
        if client is None or not client.host or not trusts(client.host):
            break
    return Told(client, _SCHEMES.get(proto.lower(), ""), judged_host(host))


def read_x_forwarded(fields: dict[bytes, list[bytes]], trusts: Trusts) -> Told:
    """What X-Forwarded-For, -Proto, -Host, -Port and -Prefix tell, of a peer that is trusted.

    ``fields`` has their values by their names, in lower case. The client is found as in :func:`read_forwarded`. Of the
    others, a list as long as X-Forwarded-For has its entry for the client where that one has it; of any other the last
    entry counts, which is the nearest proxy's.
    """
    client: Node | None = None
    place = 0  # of the client's entry, from the end
    length = 0
    walking = True
    for entry in from_the_end(fields.get(b"x-forwarded-for", ())):
        length += 1
        if not walking:
            continue
        node = parse_node(entry) if length <= MOST_HOPS else None
        if node is None:
            walking = False
            continue
        client, place = node, length - 1
        walking = bool(node.host) and trusts(node.host)

    def said(name: bytes) -> str:
        entries = list(from_the_end(fields.get(name, ())))
        if not entries:
            return ""
        return entries[place] if len(entries) == length else entries[0]

    port = said(b"x-forwarded-port")
    return Told(
        client,
        _SCHEMES.get(said(b"x-forwarded-proto").lower(), ""),
        judged_host(said(b"x-forwarded-host")),
        int(port) if _PORT.fullmatch(port) and 0 < int(port) <= 65535 else 0,
        judged_prefix(said(b"x-forwarded-prefix")),
    )


def judged_host(text: str) -> str:
    """The host, with or without a port, if it is one that a Host field may have (RFC 9110 section 7.2); else ""."""
    if not text or text.startswith(":") or len(text) > rules.LONG_HOST:
        return ""
    return text if rules.is_host(text.encode("latin-1")) else ""


def judged_prefix(text: str) -> str:
    """The path, decoded and without the slash at its end, if it is one that goes down only; else ""."""
    from urllib.parse import unquote

    text = text.removesuffix("/")
    if _PREFIX.fullmatch(text) is None or _PERCENT.search(text):
        return ""
    try:
        path = unquote(text, errors="strict")
    except UnicodeDecodeError:
        return ""
    if not path.isprintable() or any(part in (".", "..") for part in path.split("/")):
        return ""
    return path if text.count("/") == path.count("/") and not set("\\?#") & set(path) else ""


def split_host(host: str) -> tuple[str, int]:
    """Host, without brackets, and port of a Host field's value; the port is 0 where there is none that can be."""
    name, colon, port = host.rpartition(":")
    if not colon or "]" in port:
        name, port = host, ""
    number = int(port) if _PORT.fullmatch(port) else 0
    return name.removeprefix("[").removesuffix("]"), number if number <= 65535 else 0
