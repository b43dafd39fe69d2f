"""``module:attribute`` -> the ASGI application, or one sentence that says what is wrong and where."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from contextlib import contextmanager
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from asgiri.errors import AppError
from asgiri.interfaces.adapt import as_asgi3, interface_of
from asgiri.interfaces.shape import Shape, is_async, kind_of, parameters, shape_of, takes
from asgiri.tracebacks import describe, has_user_frames, user_traceback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgiri.types import ASGIApp


def load_app(target: str, *, app_dir: str = ".", factory: bool = False, interface: str = "auto") -> ASGIApp:
    """Import ``target`` and return the application that it names, as an ASGI 3 one.

    ``target`` is ``module:attribute``, where the attribute may be dotted. ``app_dir`` becomes the first entry
    of ``sys.path``. With ``factory`` the attribute is called without arguments and what it returns is the
    application. ``interface`` is ``auto``, ``asgi3``, ``asgi2`` or ``wsgi``: see :func:`as_asgi3`.

    Raises AppError for whatever goes wrong, a ``sys.exit()`` of the application included; its ``trace`` holds
    the application's own frames, and is empty when no code of the application had a part in it.
    KeyboardInterrupt passes through.
    """
    module_name, attribute = _split(target)
    directory = _put_first_on_path(app_dir)
    module = _import(module_name, directory)
    if not attribute:
        raise AppError(f'"{target}" names no attribute: write {_example(module)}; {_offer(module)}')
    found = _resolve(module, attribute)
    where = f"{module_name}:{attribute}"
    if factory:
        return _accept(_call_factory(found, where), f"what the factory {where} returned", interface, made=True)
    return _accept(found, where, interface)


# The target


def _split(target: str) -> tuple[str, str]:
    """The module and the attribute of ``target``; the attribute is empty when there is no colon."""
    module, colon, attribute = target.strip().partition(":")
    if module.endswith(".py") or "/" in module:
        suggestion = _as_module(module, attribute)
        raise AppError(f'"{target}" names a file, where a module is expected: write {suggestion}')
    if attribute.endswith("()"):
        suggestion = f"{module}:{attribute.removesuffix('()')}"
        raise AppError(f'"{target}" is a call, where a name is expected: write {suggestion} and add --factory')
    if not all(module.split(".")) or (colon and not all(attribute.split("."))):
        raise AppError(f'"{target}" is not an application: write module:attribute, for example main:app')
    return module, attribute


def _as_module(path: str, attribute: str) -> str:
    """How to name the application in the file ``path``."""
    directory, name = os.path.split(os.path.normpath(path.removesuffix(".py")))
    if os.path.isabs(path):
        return f"{name}:{attribute or 'app'} with --app-dir {directory}"
    return f"{'.'.join([*directory.split('/'), name]).lstrip('.')}:{attribute or 'app'}"


def _put_first_on_path(app_dir: str) -> str:
    """Make ``app_dir`` the first entry of sys.path, once; return it as an absolute path.

    Symbolic links stay as they are: a deployment may switch a ``current`` link under a running server.
    """
    try:
        directory = os.path.abspath(app_dir)
    except OSError as error:  # the current directory has been removed
        raise AppError(f'app_dir "{app_dir}" cannot be found: {describe(error)}') from error
    try:
        os.scandir(directory).close()
        os.stat(os.path.join(directory, os.curdir))
    except PermissionError as error:  # workers may be another user than who wrote the config thinks
        whom = f"uid {os.geteuid()}, gid {os.getegid()}"
        raise AppError(f'app_dir "{directory}" cannot be read by {whom}: permission denied') from error
    except OSError as error:
        raise AppError(f'app_dir "{directory}" is not a directory') from error
    sys.path[:] = [directory, *(entry for entry in sys.path if entry != directory)]
    return directory


# The module


@contextmanager
def _application_code(doing: str) -> Iterator[None]:
    """Turn what the application's code raises into an AppError that says what was being done."""
    try:
        yield
    except SystemExit as error:
        code = "" if error.code is None else repr(error.code)
        raise AppError(f"{doing} called sys.exit({code})", _trace(error)) from error
    except SyntaxError as error:
        place = f"{error.filename}:{error.lineno}: " if error.filename else ""
        what = f"{type(error).__name__}: {error.msg}"
        raise AppError(f"{doing} failed: {place}{what}", user_traceback(error)) from error
    except Exception as error:
        raise AppError(f"{doing} failed: {describe(error)}", _trace(error)) from error


def _trace(error: BaseException) -> str:
    return user_traceback(error) if has_user_frames(error) else ""


def forget_directories() -> None:
    """A file may be younger than what the finders remember of its directory.

    ``importlib.invalidate_caches`` does the same, and imports importlib.metadata for it: two megabytes of each worker.
    """
    for place, finder in list(sys.path_importer_cache.items()):
        if finder is None:  # there was no such directory
            del sys.path_importer_cache[place]
        elif hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()
    for other in sys.meta_path:
        if other is not PathFinder and hasattr(other, "invalidate_caches"):
            other.invalidate_caches()


def _import(name: str, directory: str) -> ModuleType:
    forget_directories()
    with _application_code(f"module {name} was found, but importing it"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not _is_missing(name, error):
                raise
            missing = cast("str", error.name)
            cause = error
    raise AppError(_not_found(name, missing, directory)) from cause


def _is_missing(name: str, error: ModuleNotFoundError) -> bool:
    """Whether ``name`` itself, or a package it is in, is what does not exist: not what it imports in turn."""
    missing = error.name or ""
    return f"{name}.".startswith(f"{missing}.") and not has_user_frames(error)


def _not_found(name: str, missing: str, directory: str) -> str:
    parent, _, last = missing.rpartition(".")
    package = sys.modules.get(parent)
    if package is None:
        places = _searched(directory)
        hint = _similar(last, "", list(places)) or _elsewhere(last, directory)
        looked = ", ".join(f"{place} ({what})" for place, what in places.items())
        return f"module {name} was not found: looked in {looked} and the installed packages{hint}"
    if not hasattr(package, "__path__"):
        what = f"{parent} ({_place(package)}) is not a package"
        return f"module {name} was not found: {what}; did you mean {parent}:{last}?"
    hint = _similar(last, f"{parent}.", list(package.__path__))
    return f"module {name} was not found: package {parent} ({_place(package)}) has no module {last}{hint}"


def _searched(directory: str) -> dict[str, str]:
    """The directories of the application that were looked in -> what each is called."""
    current = _current_directory()
    if current == directory:
        return {directory: "app_dir, the current directory"}
    places = {directory: "app_dir"}
    if current and (current in sys.path or "" in sys.path):
        places[current] = "the current directory"
    return places


def _current_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return None


def _similar(name: str, prefix: str, directories: list[str]) -> str:
    """A did-you-mean for a module of nearly that name in one of the directories, or nothing."""
    import difflib  # only what is wrong needs it

    for directory in directories:
        known = {module.lower(): module for module in _modules_in(directory)}
        for match in difflib.get_close_matches(name.lower(), known, n=1):
            return f"; did you mean {prefix}{known[match]}?"
    return ""


def _elsewhere(name: str, directory: str) -> str:
    """A hint at the app_dir that would have done, or nothing."""
    for other in (_current_directory(), os.path.join(directory, "src")):
        if other and other != directory and name in _modules_in(other):
            return f"; it is in {other}: set --app-dir"
    return ""


def _modules_in(directory: str) -> list[str]:
    """The names that can be imported from the directory: its .py files and its packages."""
    try:
        with os.scandir(directory) as entries:
            found = [_module_name(entry) for entry in entries]
    except OSError:
        return []
    return sorted(name for name in found if name)


def _module_name(entry: os.DirEntry[str]) -> str:
    if entry.name.endswith(".py"):
        return entry.name.removesuffix(".py")
    return entry.name if os.path.isfile(os.path.join(entry.path, "__init__.py")) else ""


def _place(module: ModuleType) -> str:
    """Where the module comes from: its file, or the directory of a package without ``__init__.py``."""
    file: str | None = getattr(module, "__file__", None)
    return file or next(iter(getattr(module, "__path__", ())), "built in")


# The attribute


def _resolve(module: ModuleType, attribute: str) -> Any:
    """The object at the dotted ``attribute`` below the module."""
    holder: Any = module
    path = module.__name__
    separator = ":"
    for name in attribute.split("."):
        holder = _attribute(holder, name, path)
        path += separator + name
        separator = "."
    return holder


def _attribute(holder: Any, name: str, path: str) -> Any:
    with _application_code(f"reading {name} of {path}"):
        try:
            return getattr(holder, name)
        except AttributeError as error:
            # Another name or holder: a property of the application failed while it was read.
            if error.name != name or error.obj is not holder:
                raise
            cause = error
    if isinstance(holder, ModuleType):
        message = f'module {path} ({_place(holder)}) has no attribute "{name}"; {_offer(holder)}'
    else:
        message = f'{path} ({type(holder).__name__}) has no attribute "{name}"'
    raise AppError(message) from cause


def _offer(module: ModuleType) -> str:
    """What there is in the module to serve, as the end of a sentence."""
    applications, factories = _candidates(module)
    offers = [*applications, *(f"{name} (with --factory)" for name in factories)]
    return f"it offers {', '.join(offers)}" if offers else "nothing in it looks like an application"


def _example(module: ModuleType) -> str:
    applications, factories = _candidates(module)
    return f"{module.__name__}:{[*applications, *factories, 'app'][0]}"


def _candidates(module: ModuleType) -> tuple[list[str], list[str]]:
    """The names in the module that look like applications, and those that look like factories of one."""
    applications, factories = [], []
    for name, value in vars(module).items():
        if name.startswith("_") or inspect.isclass(value) or not callable(value):
            continue
        shape = shape_of(value)
        if shape is Shape.ASGI3 and is_async(value):
            applications.append(name)
        elif "app" not in name.lower():
            continue
        elif shape in (Shape.ASGI3, Shape.ASGI2) or (shape is Shape.WSGI and "start_response" in parameters(value)):
            applications.append(name)
        elif shape is Shape.FACTORY:
            factories.append(name)
    return applications, factories


# The application


def _call_factory(factory: Any, where: str) -> Any:
    if not callable(factory):
        raise AppError(f"factory {where} is {kind_of(factory)}, which cannot be called")
    if not takes(factory, 0):
        looks = interface_of(factory) is not None
        hint = "; it looks like the application itself: leave --factory out" if looks else ""
        raise AppError(f"factory {where} needs arguments, but a factory is called without any{hint}")
    with _application_code(f"factory {where} was found, but calling it"):
        return factory()


def _accept(value: Any, what: str, interface: str, made: bool = False) -> ASGIApp:
    """``value`` as an ASGI 3 application. ``what`` is how messages call it; ``made``: by a factory."""
    if inspect.iscoroutine(value):
        value.close()  # else Python warns that it was never awaited
        raise AppError(f"{what} is a coroutine, not an application: a factory must not be async")
    if not made and callable(value) and interface_of(value, interface) is None and shape_of(value) is Shape.FACTORY:
        kind = "class" if inspect.isclass(value) else "function"
        hint = f"is a {kind} that takes no arguments: if calling it makes the application, add --factory"
        raise AppError(f"{what} {hint}")
    return as_asgi3(value, interface, what)
