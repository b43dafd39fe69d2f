"""Every line that asgiri can write to its log, found in its source: what is between the words is a ``{}``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

PACKAGE = Path(__file__).resolve().parent.parent / "asgiri"
METHODS = frozenset({"debug", "info", "warning", "error", "critical", "exception", "log"})

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class Line(Struct, frozen=True):
    """``text`` with its gaps; ``level`` is empty where the source alone does not tell it."""

    text: str
    level: str
    where: str


class Carrier(Struct, frozen=True):
    """Calls in the files below ``place`` whose argument ``text`` gets into the log, in the place of the frame's ``@``.

    ``level`` is what all of them are logged at, or the number of the argument that says so.
    """

    place: str
    call: str
    text: int = 0
    level: str | int = ""
    frame: str = "@"


CARRIERS = (
    Carrier("supervisor/fleet.py", "_report", text=1, level=0),
    Carrier("supervisor/fleet.py", "_give_up", text=2, level="error"),
    Carrier("supervisor/sidecar.py", "_report", text=1, level=0, frame="the {} process @"),
    Carrier("supervisor/sidecar.py", "_failed", text=2, level=1, frame="the {} process @"),
    Carrier("supervisor/master.py", "_scale", text=1, level="info"),
    Carrier("asgi/", "_fail", level="error", frame="the application @ ({})"),
    Carrier("cli/check.py", "warning", text=1, level="warning", frame="{}: @"),
    Carrier("cli/check.py", "Problem", text=2, level="warning", frame="{}: @"),
    Carrier("cli/certificates.py", "warn", text=1, level="warning", frame="{}: @"),
    Carrier("config/changes.py", "Change", text=1, level="info", frame="{}: @"),
    # The second half of a line: of "did not boot", of "is refused", and of the last one of a start that fails.
    Carrier("sockets/adjust.py", "BindError", level="warning"),
    Carrier("", "BindError", level="part"),
    Carrier("", "AppError", level="part"),
    Carrier("", "BootFailed", level="part"),
)

# Functions whose results, and attributes whose values, are lines: the level, and the frame.
MADE = {
    ("supervisor/workshop.py", "serves"): ("info", "@"),
    ("supervisor/certificates.py", "in_words"): ("info", "{}: @"),
    ("supervisor/mode.py", "stopping"): ("info", "{}: @"),
    ("supervisor/workshop.py", "stopping"): ("info", "{}: @"),
}

# What passes on a text that is found where it is made.
PASSED_ON = frozenset(
    {
        ("asgi/session.py", "'the application %s (%s)'"),
        ("cli/certificates.py", "f'{problem.what}; its dates are not known'"),  # nobody has seen one
        ("cli/check.py", "problem.what"),
        ("cli/serve.py", "'%s'"),
        ("supervisor/aides.py", "text"),
        ("supervisor/certificates.py", "'%s: %s'"),
        ("supervisor/master.py", "'%s'"),
        ("supervisor/master.py", "'%s: %s'"),
        ("supervisor/master.py", "report.text"),
        ("supervisor/plans.py", "'%s'"),
        ("supervisor/sidecar.py", "what"),
        ("supervisor/workshop.py", "'%s'"),
        ("worker/main.py", "str(error)"),
        ("admin/main.py", "str(error)"),
        ("dev/watch.py", "str(error)"),
        ("dev/zygote.py", "str(error)"),
        ("link.py", "message"),
    }
)

# What has the form of a line and is none: errors of the config, and what --check-config alone prints.
NO_LINES = frozenset(
    {
        ("sockets/probe.py", "probe"),
        ("sockets/probe.py", "probe_file"),
        ("sockets/probe.py", "find"),
        ("cli/check.py", "_placed"),
        ("cli/check.py", "error"),
        ("cli/check.py", "warning"),
        ("cli/check.py", "note"),
        ("cli/check.py", "check_owner"),
        ("cli/check.py", "check_interface"),
        ("cli/certificates.py", "check_order"),
        ("cli/certificates.py", "check_modes"),
    }
)


@cache
def lines() -> list[Line]:
    """All of them. AssertionError for a call of which it cannot be seen what it logs: a table above has to say it."""
    return [line for path in sorted(PACKAGE.rglob("*.py")) for line in Source(path).lines()]


def gaps(text: str) -> str:
    """The text with one ``{}`` for each gap, whatever stands for it; gaps side by side are one."""
    return re.sub(r"(?:\{\})+", "{}", re.sub(r"%[sdgr]|<[^<>]*>", "{}", text))


def walk(tree: ast.AST, function: Function | None = None) -> Iterator[tuple[Function | None, ast.AST]]:
    """All nodes, in the order of the text, each with the function that it is in."""
    waiting = [(function, node) for node in reversed(list(ast.iter_child_nodes(tree)))]
    while waiting:
        inside, node = found = waiting.pop()
        yield found
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside = node
        waiting += [(inside, below) for below in reversed(list(ast.iter_child_nodes(node)))]


def named(node: ast.expr) -> str:
    """What a call is of: the last name of it."""
    if isinstance(node, ast.IfExp):
        return named(node.orelse)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_logger(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == "logging.getLogger"
    return isinstance(node, ast.Name) and node.id == "logger"


class Source:
    """One file of the package."""

    def __init__(self, path: Path) -> None:
        self._module = path.relative_to(PACKAGE).as_posix()
        self._all = list(walk(ast.parse(path.read_text("utf-8"))))

    def lines(self) -> Iterator[Line]:
        for function, node in self._all:
            name = function.name if function is not None else ""
            match node:
                case ast.Call() if (self._module, name) not in NO_LINES:
                    yield from self._called(node, function)
                case ast.Return(ast.expr() as value):
                    yield from self._made(name, value, function)
                case ast.Assign([target], value) if function is None:
                    yield from self._made(ast.unparse(target), value, None)

    def _called(self, call: ast.Call, function: Function | None) -> Iterator[Line]:
        where = f"asgiri/{self._module}:{call.lineno}"
        for text, level, frame in self._said(call):
            if frame == "@" and (self._module, ast.unparse(text)) in PASSED_ON:
                continue
            found = list(self._texts(text, function))
            assert found or (self._module, ast.unparse(text)) in PASSED_ON, f"{where} logs {ast.unparse(text)}: what?"
            for one in found:
                yield Line(gaps(frame.replace("@", one)), level, where)

    def _made(self, name: str, value: ast.expr, function: Function | None) -> Iterator[Line]:
        level, frame = MADE.get((self._module, name), ("", ""))
        if frame:
            for text in self._texts(value, function):
                yield Line(gaps(frame.replace("@", text)), level, f"asgiri/{self._module}:{value.lineno}")

    def _said(self, call: ast.Call) -> Iterator[tuple[ast.expr, str, str]]:
        """The expressions in a call that get into the log, with their level and frame."""
        name = named(call.func)
        if isinstance(call.func, ast.Attribute) and name in METHODS and is_logger(call.func.value):
            yield call.args[1 if name == "log" else 0], {"log": "", "exception": "error"}.get(name, name), "@"
            return
        for carrier in CARRIERS:
            if name == carrier.call and self._module.startswith(carrier.place) and len(call.args) > carrier.text:
                level = carrier.level
                if isinstance(level, int):
                    said = call.args[level]
                    level = str(said.value) if isinstance(said, ast.Constant) else ""
                yield call.args[carrier.text], level, carrier.frame
                return

    def _texts(self, node: ast.expr, function: Function | None) -> Iterator[str]:
        """What an expression can come to, with gaps: through names of the function's and functions of the file's."""
        match node:
            case ast.Constant(str(text)):
                yield text
            case ast.JoinedStr(values):
                yield "".join(self._piece(value, function) for value in values)
            case ast.BinOp(left, ast.Add(), _):
                for text in self._texts(left, function):
                    yield text + "{}"
            case ast.IfExp(_, one, other):
                yield from self._texts(one, function)
                yield from self._texts(other, function)
            case ast.Name(name) if function is not None:
                for _, found in walk(function):
                    if isinstance(found, ast.Assign) and any(ast.unparse(to) == name for to in found.targets):
                        yield from self._texts(found.value, function)
            case ast.Call(ast.Name("printable"), [said]):
                yield from self._texts(said, function)
            case ast.Call(ast.Name(name) | ast.Attribute(ast.Name("self"), name)):
                for inside, found in self._all:
                    if inside is not None and inside.name == name and isinstance(found, ast.Return) and found.value:
                        yield from self._texts(found.value, inside)

    def _piece(self, node: ast.expr, function: Function | None) -> str:
        """What stands in the place of a ``{...}``: a text where it can only be that one, else a gap."""
        if isinstance(node, ast.Constant):
            return str(node.value)
        found = list(self._texts(node.value, function)) if isinstance(node, ast.FormattedValue) else []
        return found[0] if len(found) == 1 and found[0] else "{}"
