"""The verbs of ``asgirictl``: each asks, and shows what is answered."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

import click
from msgspec import Struct

from asgiri import __version__
from asgiri.cli.output import HelpfulCommand, complain, perform, say
from asgiri.ctl import show
from asgiri.ctl.find import SOCKET_VARIABLE, find_socket
from asgiri.ctl.talk import PATIENCE, CtlError, NoAnswerError, talk
from asgiri.units import format_duration, parse_duration

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXAMPLES = """
\b
Examples:
  asgirictl status              how the service is, as a table
  asgirictl --json status       the same, for programs
  asgirictl reload --wait       take in changed config and code; 0: they serve
  asgirictl top                 how it is, live, for the whole terminal
  asgirictl stacks 2            what worker 2 is doing just now
  asgirictl --socket /run/shop/control.sock scale 8
"""


class Asker(Struct, frozen=True):
    """What the options say: the socket that was named, if one was, and how answers are shown."""

    socket: str | None
    as_json: bool

    def ask(self, verb: str, *, patience: float | None = PATIENCE, **more: object) -> Any:
        """The result. CtlError when there is no service, or it says no."""
        return talk(self.find(), {"verb": verb, **more}, patience)

    def find(self) -> str:
        """The socket's path. CtlError when there is none, or more than one."""
        from asgiri.supervisor.runtime import Runtime

        return find_socket(self.socket, os.environ, Runtime.of_this_process())

    def show(self, result: object, text: Callable[[], str]) -> None:
        if self.as_json:
            import json

            say(json.dumps(result))
        else:
            from asgiri.log.setup import escape

            say(escape(text(), keep="\n"))

    def tell(self, error: CtlError) -> None:
        """Why it was not done: for programs as an object, as the service would say it."""
        if self.as_json:
            import json

            trace = {"trace": error.trace} if error.trace else {}
            say(json.dumps({"ok": False, "error": str(error), **trace}))
        else:
            from asgiri.log.setup import escape

            complain(f"asgirictl: {escape(str(error), keep=chr(10))}")
            if error.trace:
                complain(escape(error.trace.rstrip("\n"), keep="\n\t"))


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
    click.option(
        "--json", "as_json", is_flag=True, help="Print what the service answers as it is, and errors as JSON too."
    ),
)


def verb(function: Callable[..., None]) -> click.Command:
    """A command of the function's name. ``--socket`` and ``--json`` may stand behind it as well as before."""

    @wraps(function)
    def run(socket_: str | None, as_json: bool, **arguments: Any) -> None:
        before: Asker = click.get_current_context().obj
        asker = Asker(socket_ or before.socket, as_json or before.as_json)
        try:
            function(asker, **arguments)
        except CtlError as error:
            asker.tell(error)
            sys.exit(1)

    for option in COMMON:
        run = option(run)
    return command.command(cls=HelpfulCommand)(run)


def show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        say(f"asgirictl {__version__}")
        context.exit()


class Verbs(HelpfulCommand, click.Group):
    """The verbs."""


def seconds_from(least: float) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    """Reads a duration as people write them (``30s``, ``5m``) that is not under so many seconds."""

    def read(_context: click.Context, _: click.Parameter, text: str | None) -> float | None:
        if text is None:
            return None
        try:
            seconds = parse_duration(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
        if seconds < least:
            raise click.BadParameter(f'at least {format_duration(least)}, not "{text}"')
        return seconds

    return read


def wait_options(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``--wait``, and how long."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        timeout = click.option(
            "--timeout",
            metavar="DURATION",
            callback=seconds_from(0.001),
            help="With --wait: how long; default: until it is decided.",
        )
        return click.option("--wait", is_flag=True, help=what)(timeout(function))

    return add


def patient(asker: Asker, verb: str, wait: bool, timeout: float | None) -> Any:
    """Ask for what may be waited for. CtlError when that takes longer than ``timeout`` seconds."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait")
    try:
        # A service of an earlier release may not know the word, and is not told it where it makes no difference.
        more = {"wait": True} if wait else {}
        return asker.ask(verb, patience=timeout if wait else PATIENCE, **more)
    except NoAnswerError:
        if timeout is None or not wait:
            raise
        spent = format_duration(timeout)
        raise CtlError(f"the {verb} is not complete after {spent}; it goes on, see asgirictl status") from None


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
    asker.show(result, lambda: show.describe(result))


@verb
@wait_options("Wait until it is complete; exit code 1, and why, when it fails.")
def reload(asker: Asker, wait: bool, timeout: float | None) -> None:
    """Take in a changed config and changed code, as HUP does."""
    result = patient(asker, "reload", wait, timeout)
    asker.show(result, lambda: show.reloaded(result) if wait else "reloading")


@verb
@click.argument("count", metavar="N", type=click.IntRange(min=1))
def scale(asker: Asker, count: int) -> None:
    """Have N workers."""
    result = asker.ask("scale", count=count)
    asker.show(result, lambda: f"scaling to {count} worker{'s' if count > 1 else ''}")


@verb
@wait_options("Wait until all are replaced; exit code 1, and why, when they cannot be.")
def recycle(asker: Asker, wait: bool, timeout: float | None) -> None:
    """Replace all workers, one by one."""
    result = patient(asker, "recycle", wait, timeout)
    asker.show(result, lambda: show.recycled(result) if wait else "recycling: the workers are replaced, one by one")


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


@verb
@click.argument("worker", type=click.IntRange(min=1), required=False, metavar="[WORKER]")
def stacks(asker: Asker, worker: int | None) -> None:
    """Show where all workers are, or one: threads and asyncio tasks. Nothing is stopped for it."""
    result = asker.ask("stacks", worker=worker)
    asker.show(result, lambda: show.stacks(result))


@verb
def reopen(asker: Asker) -> None:
    """Open the log files anew, after a rotation, as USR1 does."""
    result = asker.ask("reopen")
    asker.show(result, lambda: "log files are reopened")


def levels(_context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The levels, for a shell."""
    from asgiri.cli.flags import key_at

    return [level for level in key_at("log.level").words if level.startswith(incomplete)]


@verb
@click.argument("level", required=False, metavar="[LEVEL]", shell_complete=levels)
@click.option("--reset", is_flag=True, help="Go back to log.level of the config.")
def loglevel(asker: Asker, level: str | None, reset: bool) -> None:
    """Log from LEVEL on, master and workers, until a reload changes log.level; without LEVEL show it."""
    if level is not None and reset:
        raise click.UsageError("a LEVEL, or --reset: not both")
    result = asker.ask("loglevel", level=level, reset=reset)
    asker.show(result, lambda: show.log_level(result))


@verb
@click.option(
    "--interval",
    metavar="DURATION",
    callback=seconds_from(0.1),
    default="1s",
    show_default=True,
    help="How often it is looked at.",
)
def top(asker: Asker, interval: float) -> None:
    """Show the service live, on the whole terminal; q ends it."""
    from asgiri.ctl.top import watch

    watch(asker.find, asker.socket, interval, as_json=asker.as_json)


def run() -> NoReturn:
    """Be the command."""
    if "_ASGIRICTL_COMPLETE" in os.environ:
        from asgiri.cli.shells import prepare

        prepare()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C ends it without a word, as the shell expects
    sys.exit(perform(command, "asgirictl"))
