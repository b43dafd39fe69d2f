"""Every key of the configuration: its type, its default, and what it means. One frozen Struct a section.

This is the only place that knows. Loaded values are plain: a duration is a float of seconds, a size an int of
bytes, a mode the int that its octal text names. A default with a reason names the reason next to it.
"""
# No `from __future__ import annotations`: msgspec and the decoder want the types themselves.

import logging
import os
import sys
from typing import Annotated, Literal, Self

from msgspec import Struct
from msgspec.structs import replace

from asgiri.config.address import Address, parse_bind
from asgiri.config.keys import key

DEMO_APP = "asgiri.demo:app"

HttpVersion = Literal["h2", "http/1.1"]


class SniPair(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``listen[].tls.sni.NAME``: the certificate for one server name."""

    certfile: Annotated[str, key("PEM file: the certificate, then its chain.", examples=("/etc/asgiri/www.pem",))]
    keyfile: Annotated[str, key("PEM file: the private key of the certificate.", examples=("/etc/asgiri/www.key",))]


class Tls(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``listen[].tls``: how a listener speaks TLS."""

    certfile: Annotated[
        str,
        key(
            "PEM file: the certificate, then its chain; a reload reads it anew.",
            examples=("/etc/asgiri/cert.pem",),
        ),
    ]
    keyfile: Annotated[
        str | None,
        key("PEM file: the certificate's private key; null: it is in certfile.", examples=("/etc/asgiri/key.pem",)),
    ] = None
    password_file: Annotated[
        str | None, key("File whose first line decrypts the private key.", examples=("/etc/asgiri/key.password",))
    ] = None
    client_ca: Annotated[
        str | None,
        key("PEM file: the authorities that client certificates come from.", examples=("/etc/asgiri/clients.pem",)),
    ] = None
    client_certs: Annotated[
        Literal["none", "optional", "required"],
        key("Whether clients show a certificate; optional lets those without in."),
    ] = "none"
    # RFC 8996 retired everything below 1.2.
    min_version: Annotated[Literal["1.2", "1.3"], key("The oldest TLS version that is spoken.")] = "1.2"
    ciphers: Annotated[str | None, key("OpenSSL cipher list for TLS 1.2; null: what is safe there.")] = None
    sni: Annotated[
        dict[str, SniPair],
        key(
            'Certificates by the name that a client asks for; "*.example.org" is any one label in front.',
            examples=("{www.example.org: {certfile: /etc/asgiri/www.pem, keyfile: /etc/asgiri/www.key}}",),
        ),
    ] = {}
    watch: Annotated[
        bool, key("Swap changed certificate files in without a reload; a bad pair is refused, the old one kept.")
    ] = True


class Listen(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``listen[]``: one listening socket, bound once, by the master."""

    bind: Annotated[
        str,
        key(
            "Where to listen: HOST:PORT, [V6]:PORT, unix:PATH, unix:@NAME, fd:N or systemd[:NAME].",
            syntax="bind",
            examples=("0.0.0.0:8000", '"[::]:8000"', "unix:/run/asgiri/asgiri.sock"),
        ),
    ]
    name: Annotated[
        str | None,
        key(
            "A FileDescriptorName of systemd: where there is such a socket it is taken, and nothing bound.",
            stays=True,
            examples=("web",),
        ),
    ] = None
    http: Annotated[
        tuple[HttpVersion, ...],
        key(
            "What is spoken, the preferred first (ALPN). Without tls, HTTP/2 begins with its preface.",
            filled=True,
            examples=("[http/1.1]",),
        ),
    ] = ("h2", "http/1.1")
    # The kernel cuts it to net.core.somaxconn, 4096 on a current Linux.
    backlog: Annotated[int, key("Connections that may wait for accept (listen(2)).", least=1, most=65535)] = 2048
    proxy_protocol: Annotated[
        Literal["off", "v1", "v2", "any"],
        key("What each connection must begin with, of the PROXY protocol; only peers in proxy.trusted may connect."),
    ] = "off"
    mode: Annotated[
        int | None,
        key('Permissions of the unix socket, octal as in "0660"; null: what umask leaves.', syntax="octal"),
    ] = None
    owner: Annotated[str | None, key("User that owns the unix socket, by name or number; null: who starts.")] = None
    group: Annotated[
        str | None,
        key("Group of the unix socket, by name or number; null: that of who starts.", examples=("www-data",)),
    ] = None
    tls: Annotated[Tls | None, key("TLS; null is plaintext.")] = None

    @property
    def address(self) -> Address:
        """``bind`` as a parsed value. Raises ValueError for a text that did not come through the loader."""
        return parse_bind(self.bind)


class RespawnBackoff(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``workers.respawn_backoff``: the wait before a dead worker is replaced; it doubles each time."""

    first: Annotated[float, key("Wait after the first failure.", unit="duration")] = 0.1
    most: Annotated[float, key("The longest wait.", unit="duration")] = 10.0


class Workers(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``workers``: how many processes serve, and when they are stopped or replaced."""

    count: Annotated[
        int | Literal["auto"],
        key('Worker processes; "auto" is one for each usable CPU.', least=1, examples=("4", "auto")),
    ] = 1
    boot_timeout: Annotated[
        float, key("A worker that is not ready this long after its start is killed; 0: never.", unit="duration")
    ] = 60.0
    heartbeat_timeout: Annotated[
        float,
        key("A worker whose event loop is silent this long is replaced, its stacks logged; 0: never.", unit="duration"),
    ] = 30.0
    # systemd and Kubernetes kill after 90s and 30s: the default stays within both.
    drain_timeout: Annotated[
        float,
        key("How long a stopping worker may finish its requests; then they are cut. 0: any time.", unit="duration"),
    ] = 30.0
    drain_delay: Annotated[
        float,
        key("At a stop, serve on this long after /readyz has gone to 503.", unit="duration", examples=("6s",)),
    ] = 0.0
    max_requests: Annotated[
        int, key("Recycle a worker after this many requests; 0: never.", least=0, examples=("10000",))
    ] = 0
    max_requests_jitter: Annotated[
        int,
        key("Up to so many requests more, at random, so that workers do not recycle together.", least=0),
    ] = 0
    max_memory: Annotated[
        int,
        key(
            "Recycle a worker whose resident size is over this, or at random a little less; 0: never.",
            unit="size",
            examples=("512MiB",),
        ),
    ] = 0
    max_lifetime: Annotated[
        float,
        key(
            "Recycle a worker that is older than this, or at random a little less; 0: never.",
            unit="duration",
            examples=("1d",),
        ),
    ] = 0.0
    respawn_backoff: Annotated[
        RespawnBackoff, key("The wait before a worker that died is replaced; it doubles each time.")
    ] = RespawnBackoff()

    @property
    def processes(self) -> int:
        """``count`` as a number: "auto" is the number of CPUs that this process may run on."""
        return usable_cpus() if self.count == "auto" else self.count


class Timeouts(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``timeouts``: how long a connection may take for what; 0 turns one off."""

    tls_handshake: Annotated[float, key("The TLS handshake, the first byte included.", unit="duration")] = 10.0
    # What a proxy says of a connection goes out with it: who waits for it waits for a proxy that does not say it.
    proxy_header: Annotated[
        float, key("The header of the PROXY protocol, from the connection on.", unit="duration")
    ] = 5.0
    request_head: Annotated[
        float,
        key("A request head, from its first byte on, however it drips; later ones get 408.", unit="duration"),
    ] = 10.0
    request_body: Annotated[
        float, key("Between two pieces of a request body; later ones get 408.", unit="duration")
    ] = 60.0
    # Off, because only the application knows how long its answers take.
    request: Annotated[
        float,
        key(
            "A whole request, application included; then 503, or a reset if an answer has begun.",
            unit="duration",
            examples=("30s",),
        ),
    ] = 0.0
    # Longer than the 60s of the common load balancers, which must be the ones that close an idle connection.
    keep_alive: Annotated[
        float, key("An idle connection; longer than the 60s of the common load balancers.", unit="duration")
    ] = 75.0
    write: Annotated[float, key("A peer that reads nothing of what is sent; then it is cut.", unit="duration")] = 60.0


class Limits(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``limits``: how much a peer may send or use; 0 turns one off."""

    # RFC 9112 section 3 wants 8000 bytes at least.
    request_line: Annotated[int, key("The request line; longer ones get 414.", unit="size")] = 8 * 1024
    header_count: Annotated[int, key("Header fields of a request; more get 431.", least=0)] = 100
    header_size: Annotated[int, key("All header fields of a request together; more get 431.", unit="size")] = 64 * 1024
    # Off, because what is too large for a body is known to the application.
    body_size: Annotated[int, key("A request body; larger ones get 413.", unit="size", examples=("16MiB",))] = 0
    requests: Annotated[int, key("Requests at once in a worker; more get 503 with Retry-After.", least=0)] = 0
    connections: Annotated[int, key("Connections at once in a worker; more wait in the backlog.", least=0)] = 0
    requests_per_connection: Annotated[
        int, key("Requests on one connection; the last one is answered with a close.", least=0)
    ] = 0


class Http1(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``http1``: HTTP/1.1."""

    engine: Annotated[
        Literal["auto", "h11", "httptools"],
        key("The parser; auto is the fastest that is installed."),
    ] = "auto"


class Http2(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``http2``: HTTP/2."""

    engine: Annotated[Literal["auto", "h2", "native"], key("The codec; auto is the fastest that is installed.")] = (
        "auto"
    )
    # RFC 9113 section 6.5.2 wants 100 at least. No more than fit into its 31 bits; nor do windows.
    max_concurrent_streams: Annotated[
        int, key("Requests at once on one connection; more are refused.", least=1, most=2**31 - 1)
    ] = 128
    # At 100 ms to the client and back, 10 MiB/s for one upload; what is not read by the application waits in memory.
    initial_window: Annotated[
        int, key("How much of a request body may come before the application has read some of it.", unit="size")
    ] = 1024 * 1024
    max_frame_size: Annotated[int, key("The largest frame that a peer may send, up to 16MiB.", unit="size")] = 16 * 1024
    max_header_list: Annotated[
        int, key("All header fields of a request, uncompressed; more get 431. 0: as limits has it.", unit="size")
    ] = 64 * 1024
    # Off, because proxies that forward the header can be smuggled through.
    h2c_upgrade: Annotated[
        bool, key("Take Upgrade: h2c on listeners without tls that speak both; else it is ignored.")
    ] = False


class WebSocket(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``websocket``: WebSocket connections, over HTTP/1.1 and HTTP/2."""

    engine: Annotated[
        Literal["auto", "wsproto", "native"], key("The codec; auto is the fastest that is installed.")
    ] = "auto"
    max_message: Annotated[int, key("The largest message; larger ones close with 1009.", unit="size")] = (
        16 * 1024 * 1024
    )
    compression: Annotated[bool, key("permessage-deflate (RFC 7692), where the client offers it.")] = True
    ping_interval: Annotated[float, key("Time between two pings; 0 sends none.", unit="duration")] = 20.0
    ping_timeout: Annotated[
        float, key("A peer that has not answered a ping by then is gone; 0: never.", unit="duration")
    ] = 20.0


class Proxy(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``proxy``: the reverse proxies in front, and whose word about the client is taken."""

    trusted: Annotated[tuple[str, ...], key('Trusted peers: addresses, CIDR networks, "unix", or "*" for all.')] = ()
    headers: Annotated[
        Literal["none", "x-forwarded", "forwarded"],
        key("The one dialect that is read from trusted peers; it is stripped from all others."),
    ] = "none"


class RequestId(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``request_id``: what a request is called in the logs, and by the application."""

    header: Annotated[
        str | None,
        key(
            "Header field in which trusted peers name a request; null: it is always named here.",
            examples=("X-Trace-Id",),
        ),
    ] = "X-Request-ID"
    answer: Annotated[bool, key("Send it back with each answer, in a field of that name.")] = False


class Statsd(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``metrics.statsd``: metrics that are pushed, by UDP."""

    address: Annotated[
        str | None,
        key("HOST:PORT or unix:PATH that metrics are sent to; null: nowhere.", examples=("127.0.0.1:8125",)),
    ] = None
    prefix: Annotated[str, key("What the names begin with.")] = "asgiri"
    interval: Annotated[float, key("How often they are sent.", unit="duration")] = 10.0


class Metrics(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``metrics``: what is counted and measured of the requests."""

    enabled: Annotated[bool, key("Count and time requests; off, only what is busy is known.")] = True
    statsd: Annotated[Statsd, key("Metrics that are pushed, for who does not scrape.")] = Statsd()


class AccessLog(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``log.access``: one line for each request."""

    enabled: Annotated[bool, key("Write the access log.")] = True
    file: Annotated[
        str,
        key(
            'Path of the file; "-" is stderr, syslog: the system log (see log.file).',
            examples=("/var/log/asgiri/access.log",),
        ),
    ] = "-"
    format: Annotated[
        str,
        key(
            "text, json, common, combined, or a template with placeholders in braces.",
            examples=("combined", '"{time_iso} {host} {status} {duration_ms} {method} {path}"'),
        ),
    ] = "text"


class Log(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``log``: what happens to the server."""

    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        key("The least important messages to write."),
    ] = "info"
    format: Annotated[Literal["text", "json"], key("Lines for people, or one JSON object a line.")] = "text"
    # stderr, because service managers and container runtimes collect it.
    file: Annotated[
        str,
        key(
            'Path of the file; "-" is stderr; syslog: the system log, syslog:PATH or syslog:HOST:PORT another one.',
            examples=("/var/log/asgiri/asgiri.log", '"syslog:"', "syslog:192.0.2.1:514"),
        ),
    ] = "-"
    syslog_facility: Annotated[
        Literal["daemon", "user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"],
        key("The facility that syslog files lines under."),
    ] = "daemon"
    capture: Annotated[
        bool, key("Write what the application logs (logging's root logger), and warnings, in the same way.")
    ] = False
    access: Annotated[AccessLog, key("One line for each request.")] = AccessLog()


class Reload(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``reload``: development, where changed code is taken in by itself."""

    enabled: Annotated[bool, key("Serve for development: take in each change of a watched file.", stays=True)] = False
    dirs: Annotated[
        tuple[str, ...],
        key("Folders to watch, and all in them but hidden ones, caches and virtual environments.", filled=True),
    ] = (".",)
    include: Annotated[
        tuple[str, ...],
        key(
            "Globs of the files that matter: names, or with a slash, paths below the folder.",
            filled=True,
            examples=('["*.py", "templates/**/*.html"]',),
        ),
    ] = ("*.py",)
    exclude: Annotated[
        tuple[str, ...], key("Globs of files and folders that do not matter.", examples=('["test_*.py", scratch]',))
    ] = ()
    # A fifth of it when only one file has changed: who has saved it waits.
    delay: Annotated[float, key("Quiet after several changes, which are then taken as one.", unit="duration")] = 0.05
    warm: Annotated[
        bool, key("Fork new workers from a process that has imported all but the watched code already.")
    ] = True
    browser: Annotated[bool, key("Have HTML pages in the browser reload themselves when new code serves.")] = False
    polling: Annotated[
        bool | Literal["auto"], key("Look for changes twice a second; auto does where the system does not tell.")
    ] = "auto"


class Admin(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``admin``: health, metrics and the status page, on a listener of their own."""

    bind: Annotated[
        str | None,
        key(
            "Where health, metrics and the status page are shown, by a process of its own; null: nowhere.",
            syntax="bind",
            examples=("127.0.0.1:9000", "unix:/run/asgiri/admin.sock"),
        ),
    ] = None


class Control(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``control``: the socket that asgirictl talks to."""

    socket: Annotated[
        str | None,
        key(
            "Path of the socket, mode 0600; null: below the runtime directory.",
            stays=True,
            examples=("/run/asgiri/control.sock",),
        ),
    ] = None


class Process(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``process``: what the processes are to the operating system."""

    user: Annotated[
        str | None,
        key("User that the workers become, by name or number; takes a start as root.", examples=("www-data",)),
    ] = None
    group: Annotated[str | None, key("Group that the workers become, by name or number; null: the user's own.")] = None
    umask: Annotated[
        int | None, key('File mode creation mask, octal as in "027"; null: inherited.', syntax="octal")
    ] = None
    pidfile: Annotated[str | None, key("File for the master's process id.", examples=("/run/asgiri.pid",))] = None
    chdir: Annotated[
        str | None,
        key("Directory to work in, where relative paths start; null: that of the start.", stays=True),
    ] = None
    title: Annotated[str, key("What the process titles in ps and top begin with.")] = "asgiri"


class Config(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The whole configuration. ``Config()`` is the valid default: the demo application on 127.0.0.1:8000."""

    app: Annotated[
        str | None,
        key("The application, as module:attribute; null is the built-in demo.", examples=("shop.main:app",)),
    ] = None
    app_dir: Annotated[str, key("Directory that the application is imported from.", examples=("/srv/shop",))] = "."
    factory: Annotated[bool, key("app is a function that makes the application.")] = False
    interface: Annotated[
        Literal["auto", "asgi3", "asgi2", "wsgi"],
        key("Kind of application; auto looks at it. wsgi needs the package a2wsgi."),
    ] = "auto"
    root_path: Annotated[str, key("Path that the application is mounted at (ASGI root_path).", examples=("/shop",))] = (
        ""
    )
    lifespan: Annotated[
        Literal["auto", "on", "off"],
        key("ASGI lifespan; auto does without it where the application has none."),
    ] = "auto"
    loop: Annotated[
        Literal["auto", "uvloop", "asyncio"], key("The event loop; auto is uvloop where it is installed.")
    ] = "auto"
    env: Annotated[
        dict[str, str],
        key(
            "Environment variables, set before the application is imported.",
            secret=True,
            examples=("{DJANGO_SETTINGS_MODULE: shop.settings}",),
        ),
    ] = {}
    env_file: Annotated[
        str | None,
        key(
            "File of KEY=VALUE lines, set before the application is imported; env goes over it.",
            examples=("/etc/asgiri/env",),
        ),
    ] = None
    # Loopback, so that trying the server out does not publish an application.
    listen: Annotated[
        tuple[Listen, ...],
        key(
            "The listening sockets, bound once, by the master.",
            filled=True,
            entry="bind",
            examples=(
                (
                    "[{bind: 0.0.0.0:8443, tls: {certfile: /etc/asgiri/cert.pem, keyfile: /etc/asgiri/key.pem, "
                    "sni: {www.example.org: {certfile: /etc/asgiri/www.pem, keyfile: /etc/asgiri/www.key}}}}]"
                ),
                '[{bind: unix:/run/asgiri/asgiri.sock, mode: "0660", group: www-data}]',
            ),
        ),
    ] = (Listen(bind="127.0.0.1:8000"),)
    workers: Annotated[Workers, key("The worker processes.")] = Workers()
    timeouts: Annotated[Timeouts, key("How long a connection may take for what; 0 turns one off.")] = Timeouts()
    limits: Annotated[Limits, key("How much a peer may send or use; 0 turns one off.")] = Limits()
    http1: Annotated[Http1, key("HTTP/1.1.")] = Http1()
    http2: Annotated[Http2, key("HTTP/2.")] = Http2()
    websocket: Annotated[WebSocket, key("WebSocket connections.")] = WebSocket()
    proxy: Annotated[Proxy, key("Reverse proxies in front, and whose word about the client is taken.")] = Proxy()
    allowed_hosts: Annotated[
        tuple[str, ...],
        key(
            'Hosts that requests may be for, any others get 400; "*.example.org" is any name below; none: all may.',
            examples=('[shop.example.org, "*.example.org"]',),
        ),
    ] = ()
    request_id: Annotated[RequestId, key("What a request is called in the logs, and by the application.")] = RequestId()
    response_headers: Annotated[
        dict[str, str],
        key(
            "Header fields added to a response where the application set none of that name.",
            secret=True,
            examples=("{X-Frame-Options: DENY}",),
        ),
    ] = {}
    # Off, because a version tells attackers more than it tells anyone else.
    server_header: Annotated[bool, key("Send Server: asgiri with each response.")] = False
    # RFC 9110 section 6.6.1: an origin server with a clock sends it.
    date_header: Annotated[bool, key("Send Date with each response.")] = True
    log: Annotated[Log, key("The log of the server, and of what happens in it.")] = Log()
    reload: Annotated[Reload, key("Development: take changed code in by itself.")] = Reload()
    admin: Annotated[Admin, key("Health, metrics and the status page, on a listener of their own.")] = Admin()
    metrics: Annotated[Metrics, key("What is counted and measured of the requests.")] = Metrics()
    control: Annotated[Control, key("The socket of asgirictl.")] = Control()
    process: Annotated[Process, key("What the processes are to the operating system.")] = Process()

    @property
    def target(self) -> str:
        """The application to serve, as module:attribute: the built-in demo when none is named."""
        return self.app or DEMO_APP

    @property
    def routine(self) -> int:
        """The level of log lines that say that all goes as ever: of these, who develops wants to see but a few."""
        return logging.DEBUG if self.reload.enabled else logging.INFO

    @property
    def greets(self) -> bool:
        """Whether a start tells a person what there is, by a banner on stderr: where that is what the log is, too."""
        log = self.log
        return self.reload.enabled and log.file == "-" and log.format == "text" and log.level in ("debug", "info")

    def speaking(self, *http: HttpVersion) -> Self:
        """The config in which every listener speaks ``http`` and nothing else: what ``--http`` means."""
        return replace(self, listen=tuple(replace(one, http=http) for one in self.listen))

    def secured(self, tls: Tls) -> Self:
        """The config with TLS on every listener that has none: what ``--certfile`` and ``--keyfile`` mean."""
        return replace(self, listen=tuple(replace(one, tls=tls) if one.tls is None else one for one in self.listen))


def usable_cpus() -> int:
    """The number of CPUs that this process may run on: its affinity, where the platform knows one."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
