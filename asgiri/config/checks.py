"""What one key alone cannot tell: checks between keys, and of texts that go into HTTP or the environment."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from asgiri.access_format import UnknownNameError, parse_format
from asgiri.config.address import is_fd_name, parse_bind
from asgiri.config.keys import nearest
from asgiri.log_target import is_path, is_syslog, parse_syslog
from asgiri.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgiri.config.address import Address
    from asgiri.config.nodes import Faults, Place
    from asgiri.config.schema import (
        AccessLog,
        Config,
        Http2,
        Listen,
        Log,
        Metrics,
        Proxy,
        RequestId,
        RespawnBackoff,
        Tls,
    )

# RFC 9110 section 5.6.2 (token) and 5.5 (field-value: visible characters, with blanks only between them).
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_FIELD_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?")

# RFC 6066 section 3 (a host name in ASCII, no address, no final dot); an asterisk stands for a whole label (RFC 9525).
_LABEL = r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
_SERVER_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*", re.ASCII)

# Fields that frame a message or manage its connection are the server's own (RFC 9110 sections 7.6.1 and 8.6).
_FRAMING = frozenset({"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})


# How often metrics may be pushed, in seconds: more often says nothing more, and 0 would be without a pause.
_PUSH_LEAST = 0.1


class Finding(NamedTuple):
    """A key that is wrong by its dotted path, and why."""

    path: str
    what: str


def check(config: Config, places: dict[str, Place], written: dict[str, str], faults: Faults) -> None:
    """Add to ``faults`` what is wrong between keys. Keys that are wrong by themselves are passed over.

    ``places`` and ``written`` are the Decoder's: where keys were given, and what the file has for those with variables.
    """
    for path, findings in (
        ("listen", (*_listen(config.listen, places), *_fd_names(config.listen))),
        ("admin", () if faults.below("listen") else _admin(config, places)),
        ("workers", _recycling(config, places)),
        ("workers.respawn_backoff", _backoff(config.workers.respawn_backoff, places)),
        ("http2", _http2(config.http2)),
        ("proxy", _proxy(config.proxy)),
        ("listen", () if faults.below("proxy") else _proxied(config, places)),
        ("allowed_hosts", _allowed_hosts(config.allowed_hosts)),
        ("request_id", _request_id(config.request_id, places)),
        ("metrics", _metrics(config.metrics, places)),
        ("log", _targets(config.log)),
        ("env", _env(config.env)),
        ("response_headers", _response_headers(config.response_headers)),
        ("log.access", _access_format(config.log.access)),
        ("process", _one_path(config, places)),
    ):
        if not faults.below(path):
            for finding in findings:
                variables = f" (from {written[finding.path]})" if finding.path in written else ""
                faults.add(places[finding.path], finding.path, f"{finding.what}{variables}")


def _named(path: str, places: dict[str, Place]) -> str:
    """A key and where it was given, for the error of another one."""
    return f"{path} ({places[path].origin})" if path in places else f"{path} (the default)"


def _listen(listeners: tuple[Listen, ...], places: dict[str, Place]) -> Iterator[Finding]:
    seen: dict[object, list[tuple[Address, str]]] = {}  # those of one port: all that can exclude each other
    for index, listener in enumerate(listeners):
        path = f"listen[{index}].bind"
        address = listener.address
        rivals = seen.setdefault(address.port or address, [])
        if taken := _taken(address, rivals, places):
            yield Finding(path, taken)
        rivals.append((address, path))
        if address.kind != "unix" or address.is_abstract:
            yield from _unix_only(listener, index)
        if listener.tls is not None:
            yield from _client_certs(listener.tls, f"listen[{index}].tls")
            yield from _names(listener.tls, f"listen[{index}].tls.sni")
            yield from _ciphers(listener.tls, f"listen[{index}].tls", places)
        if len(set(listener.http)) < len(listener.http):
            yield Finding(f"listen[{index}].http", f"{listener.http[0]} is there twice")


def _taken(address: Address, seen: list[tuple[Address, str]], places: dict[str, Place]) -> str:
    """Why nobody can listen on an address beside those that were seen; empty when somebody can."""
    for other, path in seen:
        if address == other and not address.is_any_port:
            return f"{address} is bound already, by {_named(path, places)}"
        if address.excludes(other):
            return f"{address} cannot be bound beside {other}, of {_named(path, places)}: one has the other's port too"
    return ""


def _admin(config: Config, places: dict[str, Place]) -> Iterator[Finding]:
    if config.admin.bind is None:
        return
    address = parse_bind(config.admin.bind)
    seen = [(listener.address, f"listen[{index}].bind") for index, listener in enumerate(config.listen)]
    if taken := _taken(address, seen, places):
        yield Finding("admin.bind", taken)


def _recycling(config: Config, places: dict[str, Place]) -> Iterator[Finding]:
    if config.reload.enabled and config.workers.max_requests:
        enabled = _named("reload.enabled", places)
        yield Finding("workers.max_requests", f"workers are not recycled under {enabled}: take one of the two out")


def _one_path(config: Config, places: dict[str, Place]) -> Iterator[Finding]:
    """Files and sockets that are one and the same path: each would be written over by the other."""
    candidates = [
        ("log.file", config.log.file if is_path(config.log.file) else None),
        ("log.access.file", config.log.access.file if is_path(config.log.access.file) else None),
        *((f"listen[{index}].bind", _socket_file(listener.address)) for index, listener in enumerate(config.listen)),
        ("admin.bind", _socket_file(parse_bind(config.admin.bind)) if config.admin.bind else None),
        ("control.socket", config.control.socket),
        ("process.pidfile", config.process.pidfile),
    ]
    seen: dict[str, str] = {}
    for path, file in candidates:
        if file is None:
            continue
        other = seen.setdefault(_absolute(config.process.chdir or "", file), path)
        both_logs = {path, other} == {"log.file", "log.access.file"}  # lines of both may go into one
        both_binds = path.endswith("bind") and other.endswith("bind")
        if other != path and not both_logs and not (both_binds and file == _bound(config, other)):
            yield Finding(path, f'"{file}" is the file of {_named(other, places)} already')


def _socket_file(address: Address) -> str | None:
    return None if address.is_abstract else address.path or None


def _absolute(directory: str, file: str) -> str:
    path = os.path.join(directory, file)
    try:
        return os.path.abspath(path)
    except OSError:  # the directory that we are in is gone
        return os.path.normpath(path)


def _bound(config: Config, path: str) -> str:
    """The path of a listener's unix socket, by that of its key: what is the same to the letter is told by _listen."""
    return config.listen[int(path[len("listen[") : path.index("]")])].address.path


def _ciphers(tls: Tls, path: str, places: dict[str, Place]) -> Iterator[Finding]:
    if tls.ciphers is not None and tls.min_version == "1.3":
        least = _named(f"{path}.min_version", places)
        yield Finding(f"{path}.ciphers", f"they are for TLS 1.2, which {least} does not let in")


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


def _proxy(proxy: Proxy) -> Iterator[Finding]:
    if not proxy.trusted:
        return
    from asgiri.config import outside  # a plain start has no use for it

    for index, entry in enumerate(proxy.trusted):
        if why := outside.peer(entry):
            yield Finding(f"proxy.trusted[{index}]", why)


def _proxied(config: Config, places: dict[str, Place]) -> Iterator[Finding]:
    """The PROXY protocol is spoken by trusted peers only: without any on this kind of socket, nobody can connect."""
    trusted = config.proxy.trusted
    for index, listener in enumerate(config.listen):
        if listener.proxy_protocol == "off" or "*" in trusted:
            continue
        kind = listener.address.kind
        missing = {"unix": '"unix"', "tcp": "the addresses of the proxies"}.get(kind, "the proxies")
        fitting = [entry for entry in trusted if kind not in ("unix", "tcp") or (entry == "unix") == (kind == "unix")]
        if not fitting:
            where = _named("proxy.trusted", places)
            what = f"nobody could connect to {listener.bind}: only trusted peers may, and {where} has none of them"
            yield Finding(f"listen[{index}].proxy_protocol", f"{what}; put {missing} there")


def _allowed_hosts(hosts: tuple[str, ...]) -> Iterator[Finding]:
    if not hosts:
        return
    from asgiri.config import outside

    seen: dict[str, str] = {}
    for index, entry in enumerate(hosts):
        path = f"allowed_hosts[{index}]"
        other = seen.setdefault(entry.lower(), entry)
        if why := outside.host(entry):
            yield Finding(path, why)
        elif other != entry:
            yield Finding(path, f'"{entry}" and "{other}" are the same host')


def _request_id(request_id: RequestId, places: dict[str, Place]) -> Iterator[Finding]:
    if request_id.header is None:
        if request_id.answer:
            header = _named("request_id.header", places)
            yield Finding("request_id.answer", f"there is no field to send it in: {header} is null")
    elif "request_id.header" in places:  # the default is a good one
        from asgiri.config import outside

        if why := outside.field(request_id.header, _FRAMING):
            yield Finding("request_id.header", why)


def _metrics(metrics: Metrics, places: dict[str, Place]) -> Iterator[Finding]:
    statsd = metrics.statsd
    if statsd.address is None:
        return
    from asgiri.config import outside

    path = "metrics.statsd"
    if why := outside.receiver(statsd.address):
        yield Finding(f"{path}.address", why)
    elif not metrics.enabled:
        enabled = _named("metrics.enabled", places)
        yield Finding(f"{path}.address", f"there is nothing to send: {enabled} is false")
    if why := outside.prefix(statsd.prefix):
        yield Finding(f"{path}.prefix", why)
    if statsd.interval < _PUSH_LEAST:
        got = format_duration(statsd.interval)
        what = f"expected {format_duration(_PUSH_LEAST)} or more, got {got}; without an address nothing is sent"
        yield Finding(f"{path}.interval", what)


def _targets(log: Log) -> Iterator[Finding]:
    for path, target in (("log.file", log.file), ("log.access.file", log.access.file)):
        if is_syslog(target):
            try:
                parse_syslog(target)
            except ValueError as error:
                yield Finding(path, str(error))


def _env(variables: dict[str, str]) -> Iterator[Finding]:
    for name in variables:
        if not name or "=" in name:
            yield Finding(f"env.{name}", "expected the name of a variable, which is not empty and has no =")


def _response_headers(fields: dict[str, str]) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name, value in fields.items():
        path = f"response_headers.{name}"
        if (other := seen.setdefault(name.lower(), name)) != name:
            yield Finding(path, f'"{name}" and "{other}" are the same field')
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
