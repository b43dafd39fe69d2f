"""What is printed: whole, or told not to be. Where not even that can be told, the exit code still says it.

Whoever reads may have gone, as ``head`` has: that is a BrokenPipeError, of which click makes a quiet exit code 1.
"""

from __future__ import annotations

import os
import sys
from io import StringIO

import click

from asgiri.errors import AsgiriError, ConfigError, ExitCode


class HelpfulCommand(click.Command):
    """A command whose help page is printed as all else is."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = _show_help
        return option


def _show_help(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        say(context.get_help())
        context.exit()


def perform(command: click.Command, name: str) -> int:
    """Run a command, say what it raises on purpose, and return the exit code."""
    try:
        return int(command.main(prog_name=name, standalone_mode=False) or 0)
    except ConfigError as error:
        for problem in error.problems:
            complain(f"{name}: {problem}")
        return error.exit_code
    except AsgiriError as error:
        complain(f"{name}: {error}")
        return error.exit_code
    except click.ClickException as error:
        shown = StringIO()
        error.show(shown)
        complain(shown.getvalue().rstrip("\n"))
        return error.exit_code
    except click.Abort:  # an interrupt, before there is anything to stop
        return ExitCode.FAILED


def say(text: str) -> None:
    """Print a line for people. AsgiriError (exit code 1) when it cannot be written."""
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        _give_up(1)
        raise AsgiriError(f"cannot write to the standard output: {error.strerror}") from error


def complain(text: str) -> None:
    """Print a line to the standard error, if it can be had: nobody else could be told that it cannot."""
    try:
        click.echo(text, err=True)
    except OSError:
        _give_up(2)


def _give_up(stream: int) -> None:
    """What is left in Python's buffer goes nowhere: it would be tried again at the end, and change the exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream)
    os.close(nowhere)


def emit(text: str) -> None:
    """Write to the standard output, in UTF-8 whatever the locale. AsgiriError (exit code 1) when it cannot be had."""
    if sys.stdout is None:  # it was closed at the start, and its descriptor may be another file by now
        raise AsgiriError("cannot write to the standard output: it is closed")
    try:
        sys.stdout.flush()
        with open(1, "wb", closefd=False) as file:
            file.write(text.encode("utf-8", "surrogateescape"))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AsgiriError(f"cannot write to the standard output: {error.strerror}") from error
