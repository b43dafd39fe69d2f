"""How each server is started: one worker, logs off, and the flags that its own documentation recommends for speed.

Over HTTP/2 that is h2 by prior knowledge, or by ALPN where there is TLS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from tests.bench.results import OURS, OURS_REFERENCE

HERE = Path(__file__).parent
IDLE = 300  # seconds of keep-alive, so that idle connections outlive their measurement
MOST_CONNECTIONS = 20_000
FOREVER = 1_000_000_000  # requests on one connection, for servers that count them
NO_ACCESS_LOG = "has no access log"


class Http(Enum):
    """What is spoken in a case."""

    ONE = "HTTP/1.1"
    TWO = "HTTP/2"


@dataclass(frozen=True, slots=True)
class Launch:
    """What a server is started with. ``folder`` is its working directory, and holds the application."""

    bin: Path  # the virtual environment's folder of programs
    folder: Path
    port: int
    app: str = "app:app"
    loop: str = "uvloop"
    certfile: Path | None = None
    keyfile: Path | None = None
    access_log: bool = False
    http: Http = Http.ONE
    websocket: bool = False  # whether the case is about it

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """The file of the access log, for those that do not write it to their output."""
        return str(self.folder / "access.log")

    def program(self, name: str) -> str:
        return str(self.bin / name)

    def tls(self, certfile: str, keyfile: str) -> list[str]:
        """The two flags, or nothing in plaintext."""
        if self.certfile is None or self.keyfile is None:
            return []
        return [certfile, str(self.certfile), keyfile, str(self.keyfile)]


@dataclass(frozen=True, slots=True)
class Server:
    """One row of the tables."""

    name: str
    command: Callable[[Launch], list[str]]
    packages: tuple[str, ...] = ()  # what pip installs for it
    faster: tuple[str, ...] = ()  # what makes it faster where it can be installed
    lacks: Mapping[str, str] = field(default_factory=dict)  # case -> why it is not measured there
    chosen: bool = True  # whether it runs when nobody asks
    http: tuple[Http, ...] = (Http.ONE,)  # what it is measured with
    websocket: tuple[Http, ...] = ()  # what it is measured with WebSockets over


def asgiri(launch: Launch) -> list[str]:
    command = [launch.program("asgiri"), "--workers", "1", "--bind", launch.address, "--loop", launch.loop]
    command += ["--log-level", "warning", "--set", f"timeouts.keep_alive={IDLE}s"]
    command += launch.tls("--certfile", "--keyfile")
    if launch.http is Http.TWO:
        command += ["--http", "h2"]
    if launch.access_log:
        command += ["--access-log", "--set", f"log.access.file={launch.log}"]
    else:
        command += ["--no-access-log"]
    return [*command, launch.app]


def asgiri_engine(engine: str) -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        *flags, app = asgiri(launch)
        return [*flags, "--set", f"http{2 if launch.http is Http.TWO else 1}.engine={engine}", app]

    return command


def asgiri_wsproto(launch: Launch) -> list[str]:
    *flags, app = asgiri(launch)
    return [*flags, "--set", "websocket.engine=wsproto", app]


def uvicorn(launch: Launch) -> list[str]:
    host, port = "127.0.0.1", str(launch.port)
    command = [launch.program("uvicorn"), "--host", host, "--port", port, "--http", "httptools", "--loop", launch.loop]
    command += ["--timeout-keep-alive", str(IDLE)]
    command += launch.tls("--ssl-certfile", "--ssl-keyfile")
    # Its access lines have the level info and go to stdout.
    command += ["--access-log"] if launch.access_log else ["--no-access-log", "--log-level", "warning"]
    return [*command, launch.app]


def uvicorn_wsproto(launch: Launch) -> list[str]:
    *flags, app = uvicorn(launch)
    return [*flags, "--ws", "wsproto", app]


def hypercorn(launch: Launch) -> list[str]:
    command = [launch.program("hypercorn"), "--bind", launch.address, "--workers", "1", "--worker-class", launch.loop]
    command += ["--keep-alive", str(IDLE)]
    if launch.http is Http.TWO:
        # Else it ends a connection after a thousand requests; there is no flag for that.
        (launch.folder / "hypercorn.toml").write_text(f"keep_alive_max_requests = {FOREVER}\n", "ascii")
        command += ["--config", "hypercorn.toml"]
    command += launch.tls("--certfile", "--keyfile")
    # The level is that of the access lines too, and they have the level info.
    command += ["--access-logfile", launch.log] if launch.access_log else ["--log-level", "warning"]
    return [*command, launch.app]


def granian(launch: Launch) -> list[str]:
    # As in its own benchmarks: one runtime thread, one protocol, WebSocket only for its cases; single-threaded mode
    # for HTTP/1.1. For HTTP/2 the mode that it chooses by itself, which is also the faster one on a single core.
    two = launch.http is Http.TWO
    command = [launch.program("granian"), "--interface", "asgi", "--host", "127.0.0.1", "--port", str(launch.port)]
    command += ["--workers", "1", "--runtime-threads", "1", "--runtime-mode", "mt" if two else "st"]
    command += ["--loop", launch.loop, "--ws" if launch.websocket else "--no-ws"]
    command += ["--http", "2"] if two else ["--http", "1", "--http1-header-read-timeout", "60000"]
    command += launch.tls("--ssl-certificate", "--ssl-keyfile")
    command += ["--log-level", "warning", "--access-log"] if launch.access_log else ["--no-log"]
    return [*command, launch.app]


def h2corn(launch: Launch) -> list[str]:
    # Its default of two runtime threads needs less CPU time here than one, even on a single core.
    command = [launch.program("h2corn"), "--bind", launch.address, "--workers", "1", "--loop", launch.loop]
    command += ["--timeout-keep-alive", str(IDLE)]
    command += launch.tls("--certfile", "--keyfile")
    command += ["--access-log" if launch.access_log else "--no-access-log"]
    return [*command, launch.app]


def h2corn_asyncio(launch: Launch) -> list[str]:
    # Its sockets are Rust's, so that uvloop has little to give: the plain loop is measured too, to be fair to it.
    return h2corn(replace(launch, loop="asyncio"))


def gunicorn(launch: Launch) -> list[str]:
    command = [launch.program("gunicorn"), "--bind", launch.address, "--workers", "1", "--worker-class", "asgi"]
    command += ["--asgi-loop", launch.loop, "--log-level", "warning", "--no-control-socket"]
    command += ["--keep-alive", str(IDLE), "--worker-connections", str(MOST_CONNECTIONS)]
    command += launch.tls("--certfile", "--keyfile")
    if launch.access_log:
        command += ["--access-logfile", launch.log]
    return [*command, launch.app]


def fastpysgi(launch: Launch) -> list[str]:
    command = [launch.program("python"), str(HERE / "fastpysgi_run.py"), launch.app, str(launch.port), launch.loop]
    return command + [str(path) for path in (launch.certfile, launch.keyfile) if path]


def bare(launch: Launch) -> list[str]:
    return [launch.program("python"), str(HERE / "bare.py"), str(launch.port)]


def nginx(launch: Launch) -> list[str]:
    """Writes its configuration too: every file that it would put elsewhere goes to the folder."""
    folder = launch.folder
    tls = f"ssl_certificate {launch.certfile}; ssl_certificate_key {launch.keyfile};" if launch.certfile else ""
    listen = launch.address + (" ssl" if tls else "") + (" http2" if launch.http is Http.TWO else "")
    kib = "0123456789abcdef" * 64
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"""
        daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
        events {{ worker_connections {MOST_CONNECTIONS}; }}
        http {{
          {temporary}
          access_log {launch.log if launch.access_log else "off"};
          default_type text/plain; keepalive_timeout {IDLE}s; keepalive_requests {FOREVER};
          ssl_protocols TLSv1.2 TLSv1.3; {tls}
          server {{
            listen {listen};
            set $kib "{kib}";
            location = / {{ return 200 "Hello, world!"; }}
            location /any/ {{ return 200 "Hello, world!"; }}
            location = /10k {{ return 200 "{"$kib" * 10}"; }}
            location = /100k {{ return 200 "{"$kib" * 100}"; }}
          }}
        }}
        """,
        "ascii",
    )
    return ["nginx", "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]


NO_APP = "runs no application"
NO_APP_CASES = dict.fromkeys(("echo", "starlette", "memory", "idle10k", "idle500", "h2-echo"), NO_APP)
BOTH = (Http.ONE, Http.TWO)

SERVERS = {
    server.name: server
    for server in (
        Server("nginx", nginx, lacks=NO_APP_CASES, http=BOTH),
        Server(
            "bare",
            bare,
            ("httptools", "uvloop"),
            lacks={**NO_APP_CASES, **dict.fromkeys(("10k", "access", "tls"), "says hello only")},
            chosen=False,
        ),
        Server(OURS, asgiri_engine("auto"), http=BOTH, websocket=BOTH),
        Server("asgiri-h11", asgiri_engine("h11"), chosen=False),
        Server(OURS_REFERENCE, asgiri_engine("h2"), http=(Http.TWO,)),
        Server("asgiri-wsproto", asgiri_wsproto, http=(), websocket=BOTH),
        Server("h2corn", h2corn, ("h2corn", "uvloop"), http=BOTH, websocket=BOTH),
        Server("h2corn-asyncio", h2corn_asyncio, ("h2corn",)),
        Server("uvicorn", uvicorn, ("uvicorn[standard]",), websocket=(Http.ONE,)),
        Server("uvicorn-wsproto", uvicorn_wsproto, ("uvicorn[standard]", "wsproto"), http=(), websocket=(Http.ONE,)),
        Server("granian", granian, ("granian", "uvloop"), http=BOTH, websocket=(Http.ONE,)),
        Server("gunicorn", gunicorn, ("gunicorn", "uvloop"), ("gunicorn[fast]",)),
        Server("hypercorn", hypercorn, ("hypercorn", "uvloop"), http=BOTH, websocket=BOTH),
        Server("fastpysgi", fastpysgi, ("fastpysgi", "uvloop"), lacks={"access": NO_ACCESS_LOG}),
    )
}
