"""Answers of many connections that leave together, at the end of the loop's turn.

A write wakes the process that waits for it. Where answers are made one by one, each write wakes a client, or a proxy,
that goes to sleep again before the next; where they leave back to back, it is awake for all of them, and both sides
have more time for their work. A connection that is alone in its turns has nothing to gain, and would wait for nothing:
then its answers leave at once, and now and then it is looked again.

Nor has an answer anything to gain that would wait for applications which work for long, each in the turn's time: what
waits leaves after two milliseconds, and where few have come together in that, answers leave at once.

    TOGETHER  --8 turns with one answer each, or 2 ms with four or fewer--> AT_ONCE  --64 answers--> TOGETHER
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final, Protocol

# Turns with one answer each after which answers leave at once, and how many do before it is looked again.
LONELY_TURNS: Final = 8
AT_ONCE: Final = 64
# How long an answer waits for others, in seconds; and so many in that time are too few to be worth it.
MOST_WAIT: Final = 0.002
FEW: Final = 4


class Sender(Protocol):
    def push(self) -> None:
        """Write what waits."""


class Outbox:
    """Knows who has an answer that waits, for ``patience`` seconds at most.

    ``call_soon`` is the loop's; ``clock`` tells seconds.
    """

    __slots__ = ("_at_once", "_call_soon", "_clock", "_lonely", "_patience", "_senders", "_since")

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        patience: float = MOST_WAIT,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._call_soon = call_soon
        self._patience = patience
        self._clock = clock
        self._senders: list[Sender] = []
        self._since = 0.0  # when the first of them came
        self._lonely = 0  # turns in a row with one answer
        self._at_once = 0  # answers that still leave at once

    def takes(self, sender: Sender) -> bool:
        """Whether the sender is to keep its answer until it is told to push it; else it writes it at once."""
        if self._at_once:
            self._at_once -= 1
            return False
        if not self._senders:
            self._call_soon(self.flush)
            self._since = self._clock()
        elif self._clock() - self._since > self._patience:
            if len(self._senders) <= FEW:
                self._at_once = AT_ONCE
            self._push_all()
            return False
        self._senders.append(sender)
        return True

    def keep(self, sender: Sender) -> None:
        """The sender keeps what it has until it is told to push it: more is likely to come in this turn."""
        if not self._senders:
            self._call_soon(self.flush)
            self._since = self._clock()
        self._senders.append(sender)

    def flush(self) -> None:
        """The turn is over: let everything go."""
        if len(self._senders) > 1:
            self._lonely = 0
        elif self._senders:
            self._lonely += 1
            if self._lonely >= LONELY_TURNS:
                self._lonely = 0
                self._at_once = AT_ONCE
        self._push_all()

    def _push_all(self) -> None:
        senders, self._senders = self._senders, []
        left = iter(senders)
        try:
            for sender in left:
                sender.push()
        except BaseException:  # a defect of ours, and loud: but the others' answers are not to hang on it
            if not self._senders:
                self._call_soon(self.flush)
            self._senders = [*left, *self._senders]
            raise
