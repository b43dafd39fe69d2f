"""What somebody may have meant by a key or a value that is wrong: for the end of an error's line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asgiri.config.keys import keys_of, nearest
from asgiri.config.nodes import Mapping, Scalar, is_null
from asgiri.units import BYTES, SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import msgspec

    from asgiri.config.keys import Key, Notation
    from asgiri.config.nodes import Node

# What gunicorn, uvicorn, hypercorn and granian call it. A key of ours may have that name at the end of its path, too.
ELSEWHERE = {
    "access_log": "log.access.enabled",
    "accesslog": "log.access.file",
    "access_log_format": "log.access.format",
    "ca_certs": "listen[].tls.client_ca",
    "errorlog": "log.file",
    "forwarded_allow_ips": "proxy.trusted",
    "graceful_timeout": "workers.drain_timeout",
    "h2_max_concurrent_streams": "http2.max_concurrent_streams",
    "header": "response_headers",
    "host": "listen[].bind",
    "keep_alive_timeout": "timeouts.keep_alive",
    "keepalive": "timeouts.keep_alive",
    "limit_concurrency": "limits.requests",
    "limit_max_requests": "workers.max_requests",
    "limit_request_fields": "limits.header_count",
    "limit_request_line": "limits.request_line",
    "log_level": "log.level",
    "loglevel": "log.level",
    "pid": "process.pidfile",
    "port": "listen[].bind",
    "proc_name": "process.title",
    "process_name": "process.title",
    "proxy_allow_ips": "proxy.trusted",
    "proxy_headers": "proxy.headers",
    "server_names": "allowed_hosts",
    "shutdown_timeout": "workers.drain_timeout",
    "ssl_ca_certs": "listen[].tls.client_ca",
    "ssl_certfile": "listen[].tls.certfile",
    "ssl_certificate": "listen[].tls.certfile",
    "ssl_ciphers": "listen[].tls.ciphers",
    "ssl_keyfile": "listen[].tls.keyfile",
    "statsd_host": "metrics.statsd.address",
    "statsd_prefix": "metrics.statsd.prefix",
    "syslog": "log.file",
    "syslog_addr": "log.file",
    "threads": "",  # nothing of ours, and nothing that it looks like
    "timeout": "timeouts workers.heartbeat_timeout",
    "timeout_graceful_shutdown": "workers.drain_timeout",
    "timeout_keep_alive": "timeouts.keep_alive",
    "uds": "listen[].bind",
    "worker_class": "loop",
    "workers_max_rss": "workers.max_memory",
    "ws_max_size": "websocket.max_message",
    "ws_ping_interval": "websocket.ping_interval",
    "ws_ping_timeout": "websocket.ping_timeout",
}

# The key of a section that somebody means who gives the section a plain value.
_MAIN = {
    "workers": "count",
    "log": "level",
    "reload": "enabled",
    "admin": "bind",
    "control": "socket",
    "listen[]": "bind",
}
_INDEX = re.compile(r"\[[0-9]+\]", re.ASCII)

_AMOUNT = re.compile(r"\s*[0-9.]+\s*([A-Za-z]+)\s*", re.ASCII)
_UNITS: dict[str, Iterable[str]] = {"duration": SECONDS, "size": BYTES}


def of_key(name: str, top: type[msgspec.Struct], known: Iterable[str]) -> str:
    """For a key that is not ``known`` in its section: one of nearly that name, or of that name in another section."""
    spelled = name.replace("-", "_").lower()
    known = list(known)
    if spelled in known:
        return f'; did you mean "{spelled}"?'
    meant = [path for path, _ in every_key(top) if path.rpartition(".")[2] == spelled]
    if spelled in ELSEWHERE:
        meant += ELSEWHERE[spelled].split()
    elif not meant:
        return nearest(name, known)
    if len(meant) > 1:
        return f"; did you mean one of {', '.join(meant)}?"
    return f'; did you mean "{meant[0]}"?' if meant else ""


def of_no_list(key: Key, node: Node) -> str:
    """For a list that was given something else: the list with that in it."""
    if isinstance(node, Mapping):
        return '; each entry of a list begins with "- "'
    if not isinstance(node, Scalar) or is_null(node):
        return ""
    return "; a variable is a text, which may be an entry of a list" if node.written else of_one_entry(key, str(node))


def of_plain_value(path: str, text: str) -> str:
    """For a section that was given a plain value."""
    main = _MAIN.get(_INDEX.sub("[]", path))
    return f"; did you mean {{{main}: {text}}}?" if main else ""


def of_one_entry(key: Key, text: str) -> str:
    """For a list that was given a plain value."""
    return f"; did you mean [{{{key.entry}: {text}}}]?" if key.entry else f"; did you mean [{text}]?"


def of_unit(notation: Notation | None, text: str) -> str:
    """For a quantity that cannot be read: the units that there are, where it has another one."""
    units = list(filter(None, _UNITS.get(notation or "", ())))
    amount = _AMOUNT.fullmatch(text)
    return f"; the units are {', '.join(units)}" if units and amount and amount[1] not in units else ""


def every_key(section: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Every key by its dotted path, those in lists of sections too: ``listen[].bind``."""
    for name, key in keys_of(section).items():
        path = prefix + name
        yield path, key
        if key.container == "list":
            key, path = key.element(), f"{path}[]"
        if key.section:
            yield from every_key(key.section, f"{path}.")
