"""From file, environment and flags to one :class:`~asgiri.config.schema.Config`, or to all that is wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from asgiri.config.checks import check
from asgiri.config.decode import BAD, Decoder, got
from asgiri.config.nodes import Faults, Mapping, Node, Place, is_broken, is_null
from asgiri.config.schema import Config
from asgiri.config.settings import CONFIG_VARIABLE, Setting, from_environment, lay_over

if TYPE_CHECKING:
    from collections.abc import Mapping as AbstractMapping
    from collections.abc import Sequence as AbstractSequence

__all__ = ["DEFAULT_FILES", "Found", "Loaded", "Setting", "find_file", "load"]

# Next to the application first: what a developer has at hand goes before what the machine has.
DEFAULT_FILES = (Path("asgiri.yaml"), Path("/etc/asgiri/asgiri.yaml"))


class Found(Struct, frozen=True):
    """The file to read; ``asked_by`` is the flag or variable that named it, empty for a default place."""

    path: Path
    asked_by: str = ""


class Loaded(Struct, frozen=True):
    """The config, the file it was read from, if any, and where each key that was given comes from.

    ``origins`` maps dotted paths (``workers.count``, ``listen[0].bind``) to ``asgiri.yaml:12``,
    ``ASGIRI_LOOP`` or ``--workers``; a key that is not in it has its default. ``written`` maps the paths of values
    that variables were put into to what the file says (``${HOME}/app``): what may be shown in their place.
    """

    config: Config
    found: Found | None
    origins: dict[str, str]
    written: dict[str, str]


def find_file(
    explicit: str | None,
    environ: AbstractMapping[str, str],
    defaults: AbstractSequence[Path] = DEFAULT_FILES,
) -> Found | None:
    """The file to read: what the flag names, else ASGIRI_CONFIG, else the first of ``defaults`` there is.

    A file that was asked for by name need not exist: it is found, and cannot be read.
    """
    if explicit is not None:
        return Found(Path(explicit), "--config")
    if named := environ.get(CONFIG_VARIABLE):
        return Found(Path(named), CONFIG_VARIABLE)
    return next((Found(path) for path in defaults if os.path.lexists(path)), None)


def load(file: str | Found | None, environ: AbstractMapping[str, str], flags: AbstractSequence[Setting] = ()) -> Loaded:
    """The configuration that ``file`` (the --config flag), environment and flags make; flags go over all.

    A reload gives the file as :func:`find_file` found it (``Loaded.found``), so that errors name who asked for it.

    Raises ConfigError with every problem that was found, in the order of the file, then variables, then
    flags.
    """
    faults = Faults()
    if file == "":  # as of a shell's variable that is not set; the path of nothing is a directory's
        faults.add(Place("--config"), "", "expected the path of a file, got nothing")
        file = None
    found = file if isinstance(file, Found) else find_file(file, environ)
    tree = _top(_read(found, environ, faults), faults)
    for setting in (*from_environment(environ, flags, faults), *flags):
        tree = lay_over(tree, setting, faults)
    decoder = Decoder(faults)
    config = decoder.section(Config, tree)
    assert config is not BAD  # every key of Config has a default
    check(config, decoder.places, decoder.written, faults)
    faults.raise_any()
    origins = {path: place.origin for path, place in decoder.places.items()}
    return Loaded(config, found, origins, decoder.written)


def _read(found: Found | None, environ: AbstractMapping[str, str], faults: Faults) -> Node | None:
    if found is None:
        return None
    from asgiri.config.source import parse_file  # and with it YAML: only where there is some

    return parse_file(found.path, found.asked_by, environ, faults)


def _top(node: Node | None, faults: Faults) -> Mapping:
    """The top of the file as a mapping: an empty file is one without keys."""
    if isinstance(node, Mapping):
        return node
    if node is not None and not is_null(node) and not is_broken(node):
        faults.add(node.place, "", f"expected a mapping of keys at the top, got {got(node)}")
    return Mapping(Place(""), {})
