"""The ``asgirictl`` command: asks a master over its control socket, and says what it answers.

Exit codes: 0 done, 1 not done (the service says why, or there is none), 2 bad usage.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from msgspec import Struct

from asgiri import __version__
from asgiri.cli.output import HelpfulCommand, complain, perform, say
from asgiri.errors import ConfigError
from asgiri.units import format_duration

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from asgiri.config.nodes import Node
    from asgiri.supervisor.runtime import Runtime
    from asgiri.supervisor.verbs import WorkerStatus

# Seconds for an answer of a master that is well: it answers all but a reload that is waited for at once.
PATIENCE: Final = 10.0
# Seconds for each of several services to say what it is.
GLANCE: Final = 1.0
_ANSWER_MOST: Final = 16 << 20

SOCKET_VARIABLE: Final = "ASGIRI_CONTROL__SOCKET"

# Verbs of features that are not in this release.
LATER: Final = ("stacks", "reopen", "loglevel", "top")

EXAMPLES = """
\b
Examples:
  asgirictl status              how the service is, as a table
  asgirictl --json status       the same, for programs
  asgirictl reload --wait       take in changed config and code; 0: they serve
  asgirictl --socket /run/shop/control.sock scale 8
"""


class CtlError(Exception):
    """It was not done; ``trace`` is a traceback of the application's as text, or empty."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class Asker(Struct, frozen=True):
    """What the options say: the socket that was named, if one was, and how answers are shown."""

    socket: str | None
    as_json: bool

    def ask(self, verb: str, *, patience: float | None = PATIENCE, **more: object) -> Any:
        """The result. CtlError when there is no service, or it says no."""
        from asgiri.supervisor.runtime import Runtime

        path = find_socket(self.socket, os.environ, Runtime.of_this_process())
        return talk(path, {"verb": verb, **more}, patience)

    def show(self, result: object, text: Callable[[], str]) -> None:
        if self.as_json:
            import json

            say(json.dumps(result))
        else:
            from asgiri.log.setup import escape

            say(escape(text(), keep="\n"))


def file_at(_context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What a shell is told of a path: to complete it by itself."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


COMMON = (
    click.option(
        "--socket",
        "socket_",
        metavar="PATH",
        shell_complete=file_at,
        help="The service's control socket; default: see asgirictl -h.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print what the service answers as it is."),
)


def verb(function: Callable[..., None]) -> click.Command:
    """A command of the function's name. ``--socket`` and ``--json`` may stand behind it as well as before."""

    @wraps(function)
    def run(socket_: str | None, as_json: bool, **arguments: Any) -> None:
        before: Asker = click.get_current_context().obj
        try:
            function(Asker(socket_ or before.socket, as_json or before.as_json), **arguments)
        except CtlError as error:
            tell(error)
            sys.exit(1)

    for option in COMMON:
        run = option(run)
    return command.command(cls=HelpfulCommand)(run)


def show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        say(f"asgirictl {__version__}")
        context.exit()


class Verbs(HelpfulCommand, click.Group):
    """The verbs; a shell is not offered what would be refused."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return [item for item in super().shell_complete(ctx, incomplete) if item.value not in LATER]


PLACES = f"""
\b
Without --socket:
  ${SOCKET_VARIABLE}, then control.socket of the file that asgiri would
  read here, then the one service that has a socket in a runtime directory.
"""


@click.group(
    cls=Verbs,
    epilog=EXAMPLES + PLACES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@COMMON[0]
@COMMON[1]
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the version and exit.",
)
@click.pass_context
def command(context: click.Context, socket_: str | None, as_json: bool) -> None:
    """Ask a running asgiri how it is, or to do something."""
    context.obj = Asker(socket_, as_json)


@verb
def status(asker: Asker) -> None:
    """Show the service and its workers."""
    result = asker.ask("status")
    asker.show(result, lambda: describe(result))


@verb
@click.option("--wait", is_flag=True, help="Wait until it is complete; exit code 1, and why, when it fails.")
def reload(asker: Asker, wait: bool) -> None:
    """Take in a changed config and changed code, as HUP does."""
    result = asker.ask("reload", wait=wait, patience=None if wait else PATIENCE)
    asker.show(result, lambda: reloaded(result) if wait else "reloading")


@verb
@click.argument("count", metavar="N", type=click.IntRange(min=1))
def scale(asker: Asker, count: int) -> None:
    """Have N workers."""
    result = asker.ask("scale", count=count)
    asker.show(result, lambda: f"scaling to {count} worker{'s' if count > 1 else ''}")


@verb
def recycle(asker: Asker) -> None:
    """Replace all workers, one by one."""
    result = asker.ask("recycle")
    asker.show(result, lambda: "recycling: the workers are replaced, one by one")


@verb
@click.option("--off", is_flag=True, help="Take it back.")
def drain(asker: Asker, off: bool) -> None:
    """Have /readyz say 503 from now on; all is served until the stop."""
    result = asker.ask("drain", off=off)
    asker.show(
        result,
        lambda: "/readyz tells how the workers are again" if off else "/readyz says 503; requests are served as before",
    )


@verb
def stop(asker: Asker) -> None:
    """Finish the requests in progress and exit, as on TERM."""
    result = asker.ask("stop")
    asker.show(result, lambda: "stopping: requests in progress are finished")


def words_of(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The levels of ``loglevel``, for a shell."""
    if context.info_name != "loglevel":
        return []
    from asgiri.cli.flags import key_at

    return [level for level in key_at("log.level").words if level.startswith(incomplete)]


def add_later(name: str) -> None:
    @command.command(name, help="Not in this release.", context_settings={"ignore_unknown_options": True})
    @click.argument("rest", nargs=-1, type=click.UNPROCESSED, metavar="", shell_complete=words_of)
    def later(rest: tuple[str, ...]) -> None:
        del rest
        raise click.UsageError(f"{name} is not in this release")


for _name in LATER:
    add_later(_name)


def main() -> NoReturn:
    """The entry point."""
    if "_ASGIRICTL_COMPLETE" in os.environ:
        from asgiri.cli.shells import prepare

        prepare()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C ends it without a word, as the shell expects
    sys.exit(perform(command, "asgirictl"))


def tell(error: CtlError) -> None:
    from asgiri.log.setup import escape

    complain(f"asgirictl: {escape(str(error), keep=chr(10))}")
    if error.trace:
        complain(escape(error.trace.rstrip("\n"), keep="\n\t"))


# Which socket


def find_socket(named: str | None, environ: Mapping[str, str], runtime: Runtime) -> str:
    """The path of the service's control socket. CtlError when none is to be found, or more than one."""
    if named is not None:
        return named
    if path := environ.get(SOCKET_VARIABLE):
        return path
    return configured_socket(environ) or only_socket(runtime)


def configured_socket(environ: Mapping[str, str]) -> str | None:
    """``control.socket`` of the file that asgiri would read here. What else may be wrong there is not our business."""
    from asgiri.config.load import find_file
    from asgiri.config.nodes import Faults
    from asgiri.config.source import parse_file

    found = find_file(None, environ)
    if found is None:
        return None
    faults = Faults()
    tree = parse_file(found.path, found.asked_by, environ, faults)
    if tree is None or faults.below("control.socket") or faults.below("process.chdir"):
        try:
            faults.raise_any()
        except ConfigError as error:
            complain(f"asgirictl: there may be a control.socket that cannot be read: {error}")
    path = text_at(tree, "control", "socket")
    return path and os.path.join(text_at(tree, "process", "chdir") or "", path)


def text_at(node: Node | None, *names: str) -> str:
    """The text below these keys; empty when there is none."""
    from asgiri.config.nodes import Mapping, Scalar, is_broken, is_null

    for name in names:
        entry = node.entries.get(name) if isinstance(node, Mapping) else None
        node = entry.value if entry else None
    return node.text if isinstance(node, Scalar) and not is_null(node) and not is_broken(node) else ""


def only_socket(runtime: Runtime) -> str:
    """The socket of the one service that runs below the runtime directories."""
    from asgiri.supervisor.runtime import sockets_in

    directories = runtime.searched()
    paths, unseen = sockets_in(directories)
    live: list[str] = []
    denied: list[str] = []
    for path in map(str, paths):
        try:
            connect(path, PATIENCE).close()
            live.append(path)
        except PermissionError:
            denied.append(path)
        except (FileNotFoundError, ConnectionRefusedError):
            pass  # of a master that is gone
        except OSError:
            live.append(path)  # it is too busy to answer, but there
    if len(live) == 1:
        return live[0]
    if live:
        lines = "".join(f"\n  {path}: {glance(path)}" for path in live)
        raise CtlError(f"{len(live)} services run here; say which one by --socket PATH:{lines}")
    if denied or unseen:
        raise CtlError(f"no permission, try as root or as the user of the service: {'; '.join([*denied, *unseen])}")
    where = ", ".join(map(str, directories))
    raise CtlError(f"no service is found; --socket PATH says where it is (looked in {where})")


def glance(path: str) -> str:
    """What a service says of itself, in a few words."""
    try:
        told = talk(path, {"verb": "status"}, GLANCE)
        return f"pid {told['pid']}, {told['app']}, {told['state']}"
    except (CtlError, TypeError, KeyError):
        return "it does not say what it is"


# What is said on it


def connect(path: str, patience: float | None) -> socket.socket:
    """A connection to the socket at ``path``. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(patience)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def talk(path: str, request: dict[str, object], patience: float | None) -> Any:
    """Ask, and return the result. CtlError when there is no answer within ``patience`` seconds, or the answer is no."""
    import json

    try:
        with connect(path, patience) as sock:
            line = exchange(sock, json.dumps(request).encode() + b"\n")
    except TimeoutError:
        raise CtlError(f"the service at {path} does not answer") from None
    except (OSError, ValueError) as error:
        raise CtlError(f"cannot talk to a service at {path}: {in_words(error)}") from error
    if not line.endswith(b"\n"):
        raise CtlError(f"the service at {path} has gone before it answered")
    try:
        answer = json.loads(line)
        if answer["ok"]:
            return answer["result"]
        message, trace = str(answer["error"]), str(answer.get("trace", ""))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CtlError(f"what answers at {path} is no asgiri: {line[:60]!r}") from None
    raise CtlError(message, trace)


def exchange(sock: socket.socket, request: bytes) -> bytes:
    """The line that comes for a request; what there is of it when the other end is closed."""
    try:
        sock.sendall(request)
    except BrokenPipeError:
        pass  # we are not served, and are told why
    line = bytearray()
    try:
        while not line.endswith(b"\n") and len(line) < _ANSWER_MOST:
            data = sock.recv(1 << 16)
            if not data:
                break
            line += data
    except ConnectionResetError:
        pass
    return bytes(line)


def in_words(error: OSError | ValueError) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such file, the service does not run or is somewhere else"
        case ConnectionRefusedError():
            return "the service that had this socket has gone"
        case PermissionError():
            return "no permission, try as root or as the user of the service"
        case BlockingIOError():
            return "it is too busy"
        case OSError(strerror=str(why)):
            return why
    return str(error)


# How it is shown


def field(result: object, name: str) -> object:
    """What the service says under this name, or a question mark."""
    return result.get(name, "?") if isinstance(result, dict) else "?"


def reloaded(result: object) -> str:
    """What a reload has come to for people: what it has changed, and what it could not."""
    lines = [f"reloaded: generation {field(result, 'generation')} serves"]
    for name, form in (("changed", "  {}"), ("stays", "  not changed, for that takes an upgrade or a restart: {}")):
        found = field(result, name)  # a service of an earlier release does not say
        lines += [form.format(one) for one in found] if isinstance(found, list) else []
    return "\n".join(lines)


def describe(result: object) -> str:
    """The status for people. A service of another release may tell less, or more."""
    import msgspec

    from asgiri.supervisor.verbs import ServiceStatus

    try:
        service = msgspec.convert(result, ServiceStatus)
    except msgspec.ValidationError as error:
        raise CtlError(f"the status is not understood, --json shows it: {error}") from error
    draining = ", draining (/readyz says 503)" if service.draining else ""
    serving = sum(worker.state == "serving" for worker in service.workers)
    workers = f"{service.count} worker{'s' if service.count != 1 else ''}"
    life = f"{service.state}{draining}, up {span(service.uptime)}"
    rate = f"{service.requests_per_second:.1f} requests/s"
    lines = [
        f"{service.app}: {life}, asgiri {service.version}, pid {service.pid}",
        f"{serving} of {workers} serving, generation {service.generation}, {rate}",
        *(f"listening on {url}" for url in service.listeners),
    ]
    if service.workers:
        lines += ["", *table([HEAD, *map(row, service.workers)])]
    return "\n".join(lines)


HEAD: Final = ("worker", "gen", "pid", "state", "age", "heard", "connections", "requests", "served", "memory")


def row(worker: WorkerStatus) -> tuple[str, ...]:
    return (
        str(worker.number),
        str(worker.generation),
        str(worker.pid),
        worker.state,
        span(worker.age),
        f"{worker.silence:.1f}s ago",
        str(worker.connections),
        str(worker.requests),
        str(worker.served),
        mebibytes(worker.memory),
    )


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """The rows with their columns under each other, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in rows]


def span(seconds: float) -> str:
    """A duration to two units or so: ``12s``, ``5m3s``, ``3h12m``, ``2d5h``."""
    coarse = next((unit for least, unit in ((86400, 3600), (3600, 60)) if seconds >= least), 1)
    return format_duration(seconds // coarse * coarse)


def mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.1f}MiB"


if __name__ == "__main__":
    main()
