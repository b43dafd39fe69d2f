"""The parts that the table of HTTP/2 conversations is made of. What an engine must make of it is in test_h2_table.py.

Where RFC 9113 leaves a choice, the row says in ``why`` which one is taken and for what reason: an engine has no choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from asgiri.codec.events import Event, Failure, Reset
from asgiri.codec.h2_wire import Http2Options
from asgiri.codec.rules import HttpLimits
from tests.codec.h2_wire_tools import Away, Rst, Sent, Step

# Small enough that a row can go over each of them.
SMALL = Http2Options(limits=HttpLimits(request_line=20, header_count=6, header_size=400, body_size=8))


@dataclass(frozen=True)
class Row:
    """``steps``, bytes that come and verbs, make ``events`` and have the engine write ``sent``.

    ``behind``: the client's preface and its acknowledgement have come before. ``eof``: and then the peer ends.
    ``fails``: the connection is over with it; else it is as good as new.
    """

    name: str
    steps: tuple[Step, ...]
    events: tuple[Event, ...] = ()
    sent: tuple[Sent, ...] = ()
    options: Http2Options = field(default_factory=Http2Options)
    behind: bool = True
    why: str = ""

    @property
    def fails(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Failure)


def row(
    name: str,
    *steps: Step,
    events: Sequence[Event] = (),
    sent: Sequence[Sent] = (),
    options: Http2Options | None = None,
    behind: bool = True,
    why: str = "",
) -> Row:
    return Row(name, steps, tuple(events), tuple(sent), options or Http2Options(), behind, why)


def broken(
    name: str,
    code: int,
    *steps: Step,
    events: Sequence[Event] = (),
    sent: Sequence[Sent] = (),
    last: int = 0,
    options: Http2Options | None = None,
    behind: bool = True,
    why: str = "",
) -> Row:
    """A connection error of type ``code`` (section 5.4.1), behind ``events`` and ``sent``; ``last`` was processed."""
    return Row(
        name,
        steps,
        (*events, Failure(0, "", code)),
        (*sent, Away(last, code)),
        options or Http2Options(),
        behind,
        why,
    )


def reset(
    name: str,
    code: int,
    *steps: Step,
    events: Sequence[Event] = (),
    stream_id: int = 1,
    told: bool | None = None,
    sent: Sequence[Sent] = (),
    options: Http2Options | None = None,
    behind: bool = True,
    why: str = "",
) -> Row:
    """A stream error of type ``code`` (section 5.4.2). It is an event when the request was one."""
    told = bool(events) if told is None else told
    end: tuple[Event, ...] = (Reset(stream_id, "", code),) if told else ()
    return Row(name, steps, (*events, *end), (*sent, Rst(stream_id, code)), options or Http2Options(), behind, why)
