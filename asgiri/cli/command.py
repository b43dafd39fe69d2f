"""The ``asgiri`` command: what a user types, to a configuration and what is to be done with it.

Nothing of the configuration is imported before it is read: ``--version`` and the shells' completion do without.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from asgiri import __version__
from asgiri.cli.flags import FLAGS, parameters
from asgiri.cli.output import HelpfulCommand, emit, perform, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from click.shell_completion import CompletionItem

    from asgiri.config.load import Found, Loaded, Setting


class Command(HelpfulCommand):
    """A command whose help, and whose completion, is made when it is asked for."""

    def format_options(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        from asgiri.cli.help import write_flags

        write_flags(formatter)

    def format_epilog(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        from asgiri.cli.help import write_examples

        write_examples(formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from asgiri.cli.completion import flags

        return flags(ctx, incomplete)


@click.command(
    cls=Command,
    params=parameters(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
def command(
    version: bool | None,
    config: str | None,
    check_config: bool | None,
    import_: bool | None,
    print_config: bool | None,
    schema: bool | None,
    set_: Sequence[str],
    http: str | None,
    certfile: str | None,
    keyfile: str | None,
    **flags: Any,
) -> None:
    """Serve an ASGI application from forked workers.

    APP is module:attribute. Without it, the file's app is served; without that, a built-in demo.
    """
    if version:
        say(f"asgiri {__version__}")
        return
    if import_ and not check_config:
        raise click.UsageError("--import goes with --check-config")
    if keyfile is not None and certfile is None:
        raise click.UsageError("--keyfile goes with --certfile")
    if print_config and check_config:
        raise click.UsageError("--print-config and --check-config each stand alone: run one after the other")
    if schema:  # it says what a file may be, whatever the one that is here
        from asgiri.config.json_schema import json_schema_text

        emit(json_schema_text())
        return
    settings = [*from_flags(flags), *from_sets(set_)]
    environ = dict(os.environ)

    def read(file: str | Found | None) -> Loaded:
        from asgiri.config.load import load

        if http is None and certfile is None:
            return load(file, environ, settings)
        from asgiri.cli.overlay import overlaid

        return overlaid(lambda: load(file, environ, settings), http, certfile, keyfile)

    loaded = read(config)
    if check_config:
        from asgiri.cli.preflight import check

        check(loaded, bool(import_))
    elif print_config:
        from asgiri.config.show import resolved

        emit(resolved(loaded))
    else:
        from asgiri.cli.serve import serve

        sys.exit(serve(loaded, read))


def main() -> NoReturn:
    """The entry point: runs the command, and turns what asgiri raises on purpose into a message and an exit code."""
    if "_ASGIRI_COMPLETE" in os.environ:
        from asgiri.cli.shells import prepare

        prepare()
    sys.exit(perform(command, "asgiri"))


def from_flags(values: Mapping[str, Any]) -> list[Setting]:
    """The flags that were given, as settings of their keys. ``values``: all, by the names that click has."""
    from asgiri.config.settings import Setting

    settings = []
    for flag in FLAGS:
        value = values.get(flag.parameter)
        if not flag.key or value is None or value == () or (value is False and not flag.off):
            continue
        settings.append(Setting(flag.off if value is False else flag.name, flag.key, value))
    return settings


def from_sets(pairs: Sequence[str]) -> list[Setting]:
    """Each ``--set KEY.PATH=VALUE`` as a setting. click.BadParameter for what is none."""
    from asgiri.config.settings import Setting

    settings = []
    for pair in pairs:
        path, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f'expected KEY.PATH=VALUE, got "{pair}"', param_hint="--set")
        settings.append(Setting("--set", path.strip(), value))
    return settings
