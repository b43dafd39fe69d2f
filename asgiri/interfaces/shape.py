"""What a callable looks like from the arguments that it takes: ASGI 3, ASGI 2, WSGI, or none of them."""

from __future__ import annotations

import inspect
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Few would give an argument this name who do not write WSGI (PEP 3333), nor this one who do not write ASGI.
_WSGI_NAME = "start_response"
_ASGI_NAME = "scope"


class Shape(Enum):
    ASGI3 = auto()
    ASGI2 = auto()
    WSGI = auto()
    FACTORY = auto()
    OTHER = auto()


def shape_of(value: Callable[..., Any]) -> Shape:
    """The shape of ``value``; a guess that errs towards OTHER, for a wrong one fails at every request."""
    if inspect.isclass(value):
        return _class_shape(value)
    if is_async(value):  # neither ASGI 2 nor WSGI is awaited at the first call
        return Shape.ASGI3 if takes(value, 3) else Shape.FACTORY if takes(value, 0) else Shape.OTHER
    if _names_start_response(value):  # whatever it takes besides
        return Shape.WSGI
    if takes(value, 3):
        return Shape.ASGI3
    if takes(value, 0):
        return Shape.FACTORY
    if takes(value, 1):  # a function that makes the application of its settings looks the same but for the name
        return Shape.ASGI2 if parameters(value)[:1] == [_ASGI_NAME] else Shape.OTHER
    return Shape.WSGI if takes(value, 2) else Shape.OTHER


def _class_shape(value: type) -> Shape:
    """What is served by instances made per request: ASGI 3 awaits them, ASGI 2 calls them, WSGI iterates over them."""
    if _names_start_response(value):
        return Shape.WSGI
    if hasattr(value, "__await__") and takes(value, 3):
        return Shape.ASGI3
    if takes(value, 0):
        return Shape.FACTORY
    if instances_take(value, 2):
        call = inspect.getattr_static(value, "__call__")
        middleware = _names_start_response(call, skip=1)  # a WSGI one: its instances are the applications
        return Shape.ASGI2 if takes(value, 1) and not middleware else Shape.OTHER
    return Shape.WSGI if hasattr(value, "__iter__") and takes(value, 2) else Shape.OTHER


def instances_take(value: type, count: int) -> bool:
    """Whether instances of the class can be called with so many positional arguments, and no more."""
    call = inspect.getattr_static(value, "__call__", None)
    return call is not None and takes(call, count + 1) and not takes(call, count + 2)


def takes(value: Callable[..., Any], count: int) -> bool:
    """Whether ``value`` can be called with so many positional arguments; True when that cannot be known."""
    signature = _signature(value)
    if signature is None:
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def parameters(value: Callable[..., Any]) -> list[str]:
    """The names of the positional parameters, without ``*args``; empty when they cannot be known."""
    signature = _signature(value)
    if signature is None:
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, parameter in signature.parameters.items() if parameter.kind in positional]


def is_async(value: Callable[..., Any]) -> bool:
    """Whether calling ``value``, which is no class, gives a coroutine."""
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__)


def kind_of(value: object) -> str:
    """``value`` for a sentence: its type with an article."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _names_start_response(value: Callable[..., Any], skip: int = 0) -> bool:
    return parameters(value)[skip + 1 : skip + 2] == [_WSGI_NAME]


def _signature(value: Callable[..., Any]) -> inspect.Signature | None:
    try:
        # What is called is the wrapper, whatever functools.wraps makes it look like.
        return inspect.signature(value, follow_wrapped=False)
    except Exception:  # builtins, and objects of the application that resist being looked at
        return None
