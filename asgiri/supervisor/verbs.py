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
    """Replace all workers, one by one. With ``wait`` it is answered when that is done, or cannot be."""

    wait: bool = False


class AskDrain(_Verb, frozen=True, tag="drain"):
    """Have /readyz say 503 from now on, and go on serving; with ``off`` take that back."""

    off: bool = False


class AskStop(_Verb, frozen=True, tag="stop"):
    """As TERM."""


class AskStacks(_Verb, frozen=True, tag="stacks"):
    """Where the workers are: a list of :class:`WorkerStacks`; of those with this number, or of all."""

    worker: int | None = None


class AskReopen(_Verb, frozen=True, tag="reopen"):
    """As USR1."""


class AskLoglevel(_Verb, frozen=True, tag="loglevel"):
    """Log from this level on; with ``reset`` from that of the config; with neither say which one it is."""

    level: str | None = None
    reset: bool = False


Request: TypeAlias = (
    AskStatus | AskReload | AskScale | AskRecycle | AskDrain | AskStop | AskStacks | AskReopen | AskLoglevel
)

VERBS: Final = ("status", "reload", "scale", "recycle", "drain", "stop", "stacks", "reopen", "loglevel")

# As log.level of the config has them.
LEVELS: Final = ("debug", "info", "warning", "error", "critical")


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. ``age`` and ``silence`` (since it was last heard) in seconds, ``memory`` is resident, in bytes.

    ``connections`` and ``requests`` are open now; ``served`` counts from the fork on, the rate is of the last second.
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
    requests_per_second: float = 0.0


class Spread(msgspec.Struct, frozen=True):
    """Of ``count`` measured times, what 50, 90 and 99 in a hundred are not above, in seconds."""

    count: int
    p50: float
    p90: float
    p99: float


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured in the last ``seconds``: None where nothing was."""

    seconds: float
    duration: Spread | None = None  # of a request, to the end of its answer
    first_byte: Spread | None = None  # of a request, to the beginning of its answer
    loop_lag: Spread | None = None  # how late event loops were


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A service. ``count`` is how many workers there should be, ``uptime`` in seconds.

    ``wrong`` is what somebody should look at, a sentence each.
    """

    version: str
    pid: int
    app: str
    state: str  # starting, running, stopping
    draining: bool = False
    generation: int = 0
    count: int = 0
    uptime: float = 0.0
    requests_per_second: float = 0.0
    log_level: str = ""
    recent: Recent | None = None
    wrong: list[str] = msgspec.field(default_factory=list)
    listeners: list[str] = msgspec.field(default_factory=list)
    workers: list[WorkerStatus] = msgspec.field(default_factory=list)


class WorkerStacks(msgspec.Struct, frozen=True):
    """Where one worker is, as text: its threads, and its asyncio tasks."""

    number: int
    generation: int
    pid: int
    stacks: str


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
