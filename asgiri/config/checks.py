"""What one key alone cannot tell: checks between keys, and of texts that go into HTTP or the environment."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from asgiri.access_format import UnknownNameError, parse_format
from asgiri.config.address import is_fd_name
from asgiri.config.keys import nearest
from asgiri.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgiri.config.address import Address
    from asgiri.config.nodes import Faults, Place
    from asgiri.config.schema import AccessLog, Config, Http2, Listen, RespawnBackoff, Tls

# RFC 9110 section 5.6.2 (token) and 5.5 (field-value: visible characters, with blanks only between them).
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_FIELD_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?")

# RFC 6066 section 3 (a host name in ASCII, no address, no final dot); an asterisk stands for a whole label (RFC 9525).
_LABEL = r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
_SERVER_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*", re.ASCII)

# Fields that frame a message or manage its connection are the server's own (RFC 9110 sections 7.6.1 and 8.6).
_FRAMING = frozenset({"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})


class Finding(NamedTuple):
    """A key that is wrong by its dotted path, and why."""

    path: str
    what: str


def check(config: Config, places: dict[str, Place], faults: Faults) -> None:
    """Add to ``faults`` what is wrong between keys. Keys that are wrong by themselves are passed over."""
    for path, findings in (
        ("listen", (*_listen(config.listen, places), *_fd_names(config.listen))),
        ("workers.respawn_backoff", _backoff(config.workers.respawn_backoff, places)),
        ("http2", _http2(config.http2)),
        ("env", _env(config.env)),
        ("response_headers", _response_headers(config.response_headers)),
        ("log.access", _access_format(config.log.access)),
    ):
        if not faults.below(path):
            for finding in findings:
                faults.add(places[finding.path], finding.path, finding.what)


def _listen(listeners: tuple[Listen, ...], places: dict[str, Place]) -> Iterator[Finding]:
    seen: dict[Address, str] = {}
    for index, listener in enumerate(listeners):
        path = f"listen[{index}].bind"
        address = listener.address
        if address in seen:
            where = places[seen[address]].origin
            yield Finding(path, f"{address} is bound already, by {seen[address]} ({where})")
        if not address.is_any_port:
            seen.setdefault(address, path)
        if address.kind != "unix" or address.is_abstract:
            yield from _unix_only(listener, index)
        if listener.tls is not None:
            yield from _client_certs(listener.tls, f"listen[{index}].tls")
            yield from _names(listener.tls, f"listen[{index}].tls.sni")
        if len(set(listener.http)) < len(listener.http):
            yield Finding(f"listen[{index}].http", f"{listener.http[0]} is there twice")


def _unix_only(listener: Listen, index: int) -> Iterator[Finding]:
    for name, value in (("mode", listener.mode), ("owner", listener.owner), ("group", listener.group)):
        if value is not None:
            yield Finding(
                f"listen[{index}].{name}", f"only a unix socket with a file has one, and {listener.bind} is none"
            )


def _fd_names(listeners: tuple[Listen, ...]) -> Iterator[Finding]:
    """FileDescriptorNames of systemd: each is one entry's, or nobody could say whose its sockets are."""
    takers: dict[str, int] = {}
    for index, listener in enumerate(listeners):
        asked, name = listener.address.name, listener.name
        path = f"listen[{index}].{'bind' if name is None else 'name'}"
        if name is not None and not is_fd_name(name):
            yield Finding(path, f'expected a FileDescriptorName, without a colon and at most 255 long, got "{name}"')
        elif asked and name not in (None, asked):
            yield Finding(path, f'bind takes the sockets named "{asked}" already')
        elif one := asked or name:
            other = takers.setdefault(one, index)
            if other != index and listener.address != listeners[other].address:  # that is said already
                yield Finding(path, f'the sockets named "{one}" are those of listen[{other}] already')


def _client_certs(tls: Tls, path: str) -> Iterator[Finding]:
    if tls.client_certs == "none" and tls.client_ca is not None:
        yield Finding(f"{path}.client_ca", "nobody is asked for a certificate: client_certs is none")
    if tls.client_certs != "none" and tls.client_ca is None:
        yield Finding(f"{path}.client_certs", "this needs client_ca, the authorities that the certificates come from")


def _names(tls: Tls, path: str) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name in tls.sni:
        other = seen.setdefault(name.lower(), name)
        if not _SERVER_NAME.fullmatch(name):
            form = "" if name.isascii() else "; beyond ASCII, as DNS has it (xn--...)"
            yield Finding(path, f'"{name}" is no name of a server: expected example.org or *.example.org{form}')
        elif other != name:
            yield Finding(path, f'"{name}" and "{other}" are the same name')


def _http2(http2: Http2) -> Iterator[Finding]:
    for name, least, most in (("initial_window", 1024, 2**31 - 1), ("max_frame_size", 2**14, 2**24 - 1)):
        size = getattr(http2, name)
        if not least <= size <= most:
            yield Finding(f"http2.{name}", f"expected {format_size(least)} to {most} bytes, got {format_size(size)}")


def _backoff(backoff: RespawnBackoff, places: dict[str, Place]) -> Iterator[Finding]:
    if backoff.first > backoff.most:
        first, most = (f"workers.respawn_backoff.{name}" for name in ("first", "most"))
        what = f"first ({format_duration(backoff.first)}) is longer than most ({format_duration(backoff.most)})"
        yield Finding(first if first in places else most, what)


def _env(variables: dict[str, str]) -> Iterator[Finding]:
    for name in variables:
        if not name or "=" in name:
            yield Finding(f"env.{name}", "expected the name of a variable, which is not empty and has no =")


def _response_headers(fields: dict[str, str]) -> Iterator[Finding]:
    for name, value in fields.items():
        path = f"response_headers.{name}"
        if not _FIELD_NAME.fullmatch(name):
            yield Finding(path, "expected the name of a header field, a token of RFC 9110")
        elif name.lower() in _FRAMING:
            yield Finding(path, "this field frames the message, and is the server's own")
        elif not _FIELD_VALUE.fullmatch(value):
            yield Finding(path, "expected a field value, Latin-1 without control characters or outer blanks")


def _access_format(access: AccessLog) -> Iterator[Finding]:
    try:
        parse_format(access.format)
    except UnknownNameError as error:
        yield Finding("log.access.format", f"{error}{nearest(error.name, error.known)}")
    except ValueError as error:
        yield Finding("log.access.format", str(error))
