"""Which service is meant: where its control socket is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from asgiri.cli.output import complain
from asgiri.ctl.talk import PATIENCE, CtlError, connect, talk
from asgiri.errors import ConfigError

if TYPE_CHECKING:
    from asgiri.config.nodes import Node
    from asgiri.supervisor.runtime import Runtime

# Seconds for each of several services to say what it is.
GLANCE: Final = 1.0

SOCKET_VARIABLE: Final = "ASGIRI_CONTROL__SOCKET"


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


def configured_text(environ: Mapping[str, str], *names: str) -> str:
    """The text of a key of the file that asgiri would read here; empty when there is none that can be read."""
    from asgiri.config.load import find_file
    from asgiri.config.nodes import Faults
    from asgiri.config.source import parse_file

    found = find_file(None, environ)
    return "" if found is None else text_at(parse_file(found.path, found.asked_by, environ, Faults()), *names)


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
