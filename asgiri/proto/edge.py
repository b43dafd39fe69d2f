"""What a request passes before the application sees it: who has sent it, what it is called, whether its host is ours.

An :class:`Edge` is the server's, a :class:`Gate` a connection's: whether its peer is trusted does not change. Where
there is nothing to look at, neither exists.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, Final

from asgiri.asgi.scope import Peers
from asgiri.codec import forwarded
from asgiri.codec.events import Request
from asgiri.codec.forwarded import Told
from asgiri.proto.trust import Trusted
from asgiri.types import Headers

logger = logging.getLogger("asgiri.server")

X_FORWARDED: Final = frozenset(
    b"x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port x-forwarded-prefix".split()
)
FORWARDED: Final = frozenset({b"forwarded"})
DIALECTS: Final = {"none": frozenset[bytes](), "x-forwarded": X_FORWARDED, "forwarded": FORWARDED}

# What may name a request: no byte that a log line, a shell or a page would have to escape; UUIDs, W3C's traceparent and
# the ids of the big clouds are made of these.
REQUEST_ID: Final = re.compile(rb"[0-9A-Za-z\-._~+/=:;,@]{1,200}")

# How many different words of proxies are remembered, and how many hosts; and the longest words, in bytes.
MOST_KNOWN: Final = 1024
LONGEST_KNOWN: Final = 512

UNDERSCORE: Final = 0x5F  # as a byte: see asgiri.asgi.scope.PERCENT

# What an asterisk stands for: labels, in lower case. A Host field may hold far more ("'", "&", "%2f"), of which an
# application that writes it into a page or a link is not to think that it was looked at.
LABELS: Final = re.compile(rb"[0-9a-z_-]+(?:\.[0-9a-z_-]+)*")

DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Hosts:
    """The hosts of ``allowed_hosts``; all, where it names none."""

    def __init__(self, entries: Sequence[str]) -> None:
        names = [plain_host(entry.encode("latin-1", "replace")) for entry in entries]
        self._any = not names or b"*" in names
        self._exact = frozenset(name for name in names if not name.startswith(b"*."))
        self._below = tuple(name[1:] for name in names if name.startswith(b"*."))
        self._known: dict[bytes, bool] = {}

    def allow(self, headers: Headers) -> bool:
        """Whether a request with these fields may be served. One without a host (HTTP/1.0) may not."""
        if self._any:
            return True
        for name, value in headers:
            if name == b"host":
                known = self._known.get(value)
                return self._judge(value) if known is None else known
        return False

    def _judge(self, value: bytes) -> bool:
        host = plain_host(value)
        allowed = host in self._exact or any(
            host.endswith(end) and LABELS.fullmatch(host, 0, len(host) - len(end)) is not None for end in self._below
        )
        if len(self._known) < MOST_KNOWN and len(value) <= LONGEST_KNOWN:
            self._known[value] = allowed
        return allowed


def plain_host(value: bytes) -> bytes:
    """A host as it is compared: without its port and the root's dot, in lower case; an IPv6 address in one form."""
    text = value.decode("latin-1")
    host, _ = forwarded.split_host(text)
    if ":" in host or text.startswith("["):  # a name in brackets is none, and not the one within
        node = forwarded.parse_node(f"[{host}]")
        return value.lower() if node is None else node.host.encode("ascii")
    return host.removesuffix(".").lower().encode("latin-1")


class Edge:
    """What holds for all connections.

    ``trusted`` and ``dialect`` are the config's ``proxy.trusted`` and ``headers``, ``hosts`` its ``allowed_hosts``.
    ``id_field`` is the field, in lower case, in which trusted peers name a request; b"": they do not.
    """

    def __init__(self, trusted: Sequence[str], dialect: str, id_field: bytes, hosts: Sequence[str]) -> None:
        self.trusted = Trusted(trusted)
        self.hosts = Hosts(hosts)
        self.id_field = id_field
        # Of a trusted peer, one dialect is read. A proxy that sets one and passes on the other would let anybody lie.
        self.read = DIALECTS[dialect]
        forged = X_FORWARDED | FORWARDED if self.read else frozenset[bytes]()
        ids = frozenset({id_field}) if id_field else frozenset[bytes]()
        self.stripped = (forged - self.read) | ids  # of a trusted peer; its id comes back if it may be one
        self.forged = forged | ids  # of all others
        self._told: dict[tuple[tuple[bytes, bytes], ...], Told] = {}

    def gate(self, peers: Peers, template: dict[str, Any]) -> Gate:
        """The one of a connection; ``template`` is of its requests' scopes."""
        if peers.client is not None:
            trusted = self.trusted.trusts(peers.client[0])
        else:  # a peer that has gone already has no address, either
            trusted = peers.server is not None and peers.server[1] is None and self.trusted.trusts(None)
        return Gate(self, trusted, template)

    def told(self, said: Headers) -> Told:
        """What these fields tell, of a trusted peer."""
        key = tuple(said)
        told = self._told.get(key)
        if told is None:
            told = self._read(said)
            if sum(len(name) + len(value) for name, value in said) <= LONGEST_KNOWN:  # many empty ones are much, too
                if len(self._told) >= MOST_KNOWN:
                    self._told.clear()
                self._told[key] = told
        return told

    def _read(self, said: Headers) -> Told:
        trusts = self.trusted.trusts
        if self.read is FORWARDED:
            return forwarded.read_forwarded([value for _, value in said], trusts)
        fields: dict[bytes, list[bytes]] = {}
        for name, value in said:
            fields.setdefault(name, []).append(value)
        return forwarded.read_x_forwarded(fields, trusts)


class Gate:
    """One connection's: ``trusted`` is whether its peer's word is taken."""

    def __init__(self, edge: Edge, trusted: bool, template: dict[str, Any]) -> None:
        self.trusted = trusted
        self._hosts = edge.hosts
        self._edge = edge
        self._template = template
        self._read = edge.read
        self._id_field = edge.id_field
        self._looked_at = edge.stripped | edge.read if trusted else edge.forged
        # What else a proxy may say like this (X-Forwarded-User) nobody but a proxy may say.
        self._prefix = b"x-forwarded-" if edge.read and not trusted else b"\n"
        self._last: Told | None = None  # whom the next three are of
        self._last_template = template
        self._last_client = ""
        self._last_host = b""

    def admit(self, request: Request) -> dict[str, Any] | None:
        """What the request's scope begins as; None for one that is for a host of somebody else.

        The request becomes what the application is to see: fields that are not to be believed are gone from it.
        """
        template = self._template
        looked_at, prefix = self._looked_at, self._prefix
        if looked_at:
            for name, _ in request.headers:
                if name in looked_at or name.startswith(prefix) or (UNDERSCORE in name and self._spells(name)):
                    template = self._sift(request)
                    break
        return template if self._hosts.allow(request.headers) else None

    def _spells(self, name: bytes) -> bool:
        """Whether it is another spelling of a name that is looked at: to WSGI and CGI, X_Forwarded_For is the same."""
        plain = name.replace(b"_", b"-")
        return plain in self._looked_at or plain.startswith(self._prefix)

    def _sift(self, request: Request) -> dict[str, Any]:
        """Take what the peer may say, and strip what it may not."""
        kept: Headers = []
        said: Headers = []
        ids: list[bytes] = []
        looked_at, read = self._looked_at, self._read
        for field in request.headers:
            name = field[0]
            if UNDERSCORE in name and self._spells(name):
                continue
            if name not in looked_at and not name.startswith(self._prefix):
                kept.append(field)
            elif self.trusted and name == self._id_field:
                ids.append(field[1])
            elif self.trusted and name in read:
                kept.append(field)
                said.append(field)
        if ids:
            self._take_id(request, ids, kept)
        request.headers = kept
        return self._apply(request, self._edge.told(said)) if said else self._template

    def _take_id(self, request: Request, ids: list[bytes], kept: Headers) -> None:
        if len(ids) == 1 and REQUEST_ID.fullmatch(ids[0]) is not None:
            request.id = ids[0].decode("ascii")
            kept.append((self._id_field, ids[0]))
        else:
            logger.debug("the proxy's request id is no such thing, request %s: expected one field of 1 to 200 "
                         "letters, digits or any of -._~+/=:;,@", request.id)  # fmt: skip

    def _apply(self, request: Request, told: Told) -> dict[str, Any]:
        """Let the request be what the proxies say."""
        if told is not self._last:
            self._last = told
            self._last_template, self._last_client = changed(self._template, told)
            self._last_host = told.host.encode("latin-1")
        request.client = self._last_client
        if self._last_host:
            headers = [(b"host", self._last_host)]
            headers += [field for field in request.headers if field[0] != b"host"]
            request.headers = headers
        return self._last_template


def changed(template: dict[str, Any], told: Told) -> tuple[dict[str, Any], str]:
    """The template of a scope with what the proxies tell, and what the logs show as the client ("": the peer)."""
    template = template.copy()
    shown = ""
    client = told.client
    if client is not None and client.name:
        template["client"] = None  # somebody, whose address nobody is to know
        shown = client.name
    elif client is not None:
        template["client"] = (client.host, client.port)
        shown = f"[{client.host}]:{client.port}" if ":" in client.host else f"{client.host}:{client.port}"
    if told.scheme:
        template["scheme"] = told.scheme
    if told.host:
        host, port = forwarded.split_host(told.host)
        template["server"] = (host, told.port or port or DEFAULT_PORTS[template["scheme"]])
    elif told.port and template["server"] is not None and template["server"][1] is not None:
        template["server"] = (template["server"][0], told.port)
    if told.prefix:
        template["root_path"] = told.prefix
    return template, shown
