"""The house keeps its walls: who imports whom, and no import in a circle."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "asgiri"

LEAVES = frozenset(
    {
        *("access_format", "asgiri", "build", "deposit", "errors", "log_target", "statuses", "tracebacks", "types"),
        *("units", "x509"),
    }
)

# layer -> what it may import besides the leaves and itself; None: anything.
MAY_IMPORT: dict[str, frozenset[str] | None] = {
    "asgiri": frozenset(),
    "access_format": frozenset(),
    "build": frozenset(),
    "errors": frozenset(),
    "log_target": frozenset(),
    "statuses": frozenset(),
    "tracebacks": frozenset(),
    "types": frozenset(),
    "units": frozenset(),
    "x509": frozenset(),
    "deposit": frozenset(),
    "demo": frozenset(),
    "config": frozenset(),
    "interfaces": frozenset(),
    "loader": frozenset({"interfaces"}),
    "log": frozenset(),
    "codec": frozenset(),
    "tls": frozenset({"config", "tls_files"}),
    "tls_files": frozenset({"config"}),
    "sockets": frozenset({"config"}),
    "asgi": frozenset({"codec.events"}),
    "proto": frozenset({"config", "codec", "asgi", "log", "metrics"}),
    "metrics": frozenset({"config.schema"}),
    "link": frozenset({"config", "sockets", "supervisor.scoreboard"}),
    "dev": frozenset({"child", "config", "link", "log", "sockets", "supervisor.bulletin", "supervisor.scoreboard"}),
    "child": frozenset({"config", "link", "log", "supervisor.scoreboard"}),
    "equip": frozenset({"metrics", "config", "sockets", "tls", "tls_files", "log", "codec", "asgi", "proto"}),
    "server": frozenset({"metrics", "config", "equip", "sockets", "tls", "log", "codec", "asgi", "proto"}),
    "worker": frozenset(
        {
            "child",
            "config",
            "dev",
            "supervisor.bulletin",
            "equip",
            "link",
            "loader",
            "log",
            "metrics",
            "proto.detect",
            "proto.drain",
            "server",
            "supervisor.scoreboard",
        }
    ),
    "admin": frozenset(
        {"child", "config", "equip", "link", "log", "metrics", "server", "sockets.listener", "supervisor.scoreboard"}
    ),
    "supervisor": frozenset({"config", "link", "log", "metrics", "sockets", "tls", "tls_files"}),
    "cli": None,
    "ctl": None,
    "__main__": None,
}

# Sans-I/O: nothing in codec may reach the loop, a socket, a clock or a log.
CODEC_MAY_NOT = {"asyncio", "socket", "time", "logging", "select", "selectors", "ssl", "threading", "os"}


@cache
def modules() -> dict[str, Path]:
    """Dotted name below the package ("codec.events"; "" for the package itself) -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


@cache
def imports(name: str, path: Path, runtime_only: bool = False) -> set[str]:
    """Absolute dotted names that the module imports; the ones for type checkers too unless ``runtime_only``."""
    package = ["asgiri", *([part for part in name.split(".") if part])]
    if path.name != "__init__.py":
        package.pop()
    found: set[str] = set()

    def visit(node: ast.AST, in_function: bool) -> None:
        if isinstance(node, ast.If) and runtime_only and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            if not (runtime_only and in_function):
                found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if not (runtime_only and in_function):
                found.update(f"{module}.{alias.name}" for alias in node.names)
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(path.read_text("utf-8"), str(path)), False)
    return found


def own(target: str, known: dict[str, Path]) -> str | None:
    """The module of ours that the imported name is, or is in; None for foreign names."""
    if target != "asgiri" and not target.startswith("asgiri."):
        return None
    name = target[len("asgiri") :].lstrip(".")
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def layer(name: str) -> str:
    return name.split(".")[0] or "asgiri"


def allowed(importer: str, imported: str) -> bool:
    if layer(importer) == layer(imported) or layer(imported) in LEAVES:
        return True
    permitted = MAY_IMPORT[layer(importer)]
    if permitted is None:
        return True
    return any(imported == entry or imported.startswith(f"{entry}.") for entry in permitted)


@pytest.mark.parametrize("name", modules())
def test_a_module_imports_only_what_its_layer_may(name: str) -> None:
    known = modules()
    assert layer(name) in MAY_IMPORT, f"no layer is known for asgiri.{name}: add it to the table and to the design"
    broken = sorted(
        target
        for target in imports(name, known[name])
        if (imported := own(target, known)) is not None and not allowed(name, imported)
    )
    assert not broken, f"asgiri.{name} may not import {', '.join(broken)}"


@pytest.mark.parametrize("name", [name for name in modules() if layer(name) == "codec"])
def test_the_codec_room_is_sans_io(name: str) -> None:
    roots = {target.split(".")[0] for target in imports(name, modules()[name])}
    assert not roots & CODEC_MAY_NOT


def test_there_is_no_import_cycle() -> None:
    known = modules()
    graph = {
        name: {
            found
            for target in imports(name, path, runtime_only=True)
            if (found := own(target, known)) is not None and found not in (name, "")
        }
        for name, path in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_the_checker_sees_a_forbidden_import() -> None:
    assert not allowed("codec.events", "proto.connection")
    assert not allowed("asgi.http", "codec.rules")
    assert allowed("asgi.http", "codec.events")
    assert not allowed("supervisor.master", "worker")
    assert allowed("proto.http11", "codec.h1_h11")
