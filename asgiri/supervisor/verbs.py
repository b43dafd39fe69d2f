"""What can be asked of a master over its control socket, and what it answers: one JSON object a line, each way.

{"verb": "reload", "wait": true}  ->  {"ok": true, "result": {...}}
                                      {"ok": false, "error": "...", "trace": "..."}
"""

from __future__ import annotations

import json
from typing import Annotated, Final, TypeAlias

import msgspec

from asgiri.config.keys import nearest
from asgiri.config.nodes import printable
from asgiri.supervisor.scoreboard import SLOTS

LINE_MOST: Final = 64 << 10  # bytes of a request, its newline included


class _Verb(msgspec.Struct, frozen=True, tag_field="verb", forbid_unknown_fields=True):
    """What is asked; its tag is the verb."""


class AskStatus(_Verb, frozen=True, tag="status"):
    """How the service is: a :class:`ServiceStatus`."""


class AskReload(_Verb, frozen=True, tag="reload"):
    """As HUP. With ``wait`` it is answered when the reload is complete, or has failed."""

    wait: bool = False


class AskScale(_Verb, frozen=True, tag="scale"):
    """So many workers. No more than there are slots can ever be, and a slip of the finger must not fork them."""

    count: Annotated[int, msgspec.Meta(ge=1, le=SLOTS)]


class AskRecycle(_Verb, frozen=True, tag="recycle"):
    """Replace all workers, one by one."""


class AskDrain(_Verb, frozen=True, tag="drain"):
    """Have /readyz say 503 from now on, and go on serving; with ``off`` take that back."""

    off: bool = False


class AskStop(_Verb, frozen=True, tag="stop"):
    """As TERM."""


Request: TypeAlias = AskStatus | AskReload | AskScale | AskRecycle | AskDrain | AskStop

VERBS: Final = ("status", "reload", "scale", "recycle", "drain", "stop")


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. ``age`` and ``silence`` (since it was last heard) in seconds, ``memory`` is resident, in bytes.

    ``connections`` and ``requests`` are open now; ``served`` counts from the fork on.
    """

    number: int
    generation: int
    pid: int
    state: str  # booting, serving, draining, hung ...
    age: float
    silence: float = 0.0
    connections: int = 0
    requests: int = 0
    served: int = 0
    memory: int = 0


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A service. ``count`` is how many workers there should be, ``uptime`` in seconds."""

    version: str
    pid: int
    app: str
    state: str  # starting, running, stopping
    draining: bool = False
    generation: int = 0
    count: int = 0
    uptime: float = 0.0
    requests_per_second: float = 0.0
    listeners: list[str] = msgspec.field(default_factory=list)
    workers: list[WorkerStatus] = msgspec.field(default_factory=list)


class BadRequestError(ValueError):
    """A line that asks nothing that can be understood; says what was expected."""


class _Asked(msgspec.Struct):
    verb: str


_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_verb_decoder = msgspec.json.Decoder(_Asked)


def decode(line: bytes) -> Request:
    """The request in a line. Raises BadRequestError, whatever the line is."""
    try:
        return _decoder.decode(line)
    except (ValueError, RecursionError) as error:  # msgspec's own are ValueErrors; of endless brackets it recurses
        raise BadRequestError(_unknown_verb(line) or f"the request is not understood: {error}") from None


def _unknown_verb(line: bytes) -> str:
    """What to say of a verb that is none; empty when that is not what is wrong."""
    try:
        verb = _verb_decoder.decode(line).verb
    except (ValueError, RecursionError):
        return ""
    return "" if verb in VERBS else f'unknown verb "{printable(verb)}"{nearest(verb[:100], VERBS)}'


def encode(answer: object) -> bytes:
    """A line of JSON. Lone surrogates, which file names and tracebacks may have, become question marks."""
    return json.dumps(msgspec.to_builtins(answer), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
