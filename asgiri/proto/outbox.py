"""Answers of many connections that leave together, at the end of the loop's turn.

A write wakes the process that waits for it. Where answers are made one by one, each write wakes a client, or a proxy,
that goes to sleep again before the next; where they leave back to back, it is awake for all of them, and both sides
have more time for their work. A connection that is alone in its turns has nothing to gain, and would wait for nothing:
then its answers leave at once, and now and then it is looked again.

    TOGETHER  --8 turns with one answer each--> AT_ONCE  --64 answers--> TOGETHER
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

# Turns with one answer each after which answers leave at once, and how many do before it is looked again.
LONELY_TURNS: Final = 8
AT_ONCE: Final = 64


class Sender(Protocol):
    def push(self) -> None:
        """Write what waits."""


class Outbox:
    """Knows who has an answer that waits. ``call_soon`` is the loop's."""

    __slots__ = ("_at_once", "_call_soon", "_lonely", "_senders")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._senders: list[Sender] = []
        self._lonely = 0  # turns in a row with one answer
        self._at_once = 0  # answers that still leave at once

    def takes(self, sender: Sender) -> bool:
        """Whether the sender is to keep its answer until it is told to push it; else it writes it at once."""
        if self._at_once:
            self._at_once -= 1
            return False
        if not self._senders:
            self._call_soon(self.flush)
        self._senders.append(sender)
        return True

    def keep(self, sender: Sender) -> None:
        """The sender keeps what it has until it is told to push it: more is likely to come in this turn."""
        if not self._senders:
            self._call_soon(self.flush)
        self._senders.append(sender)

    def flush(self) -> None:
        """The turn is over: let everything go."""
        senders, self._senders = self._senders, []
        if len(senders) > 1:
            self._lonely = 0
        else:
            self._lonely += 1
            if self._lonely >= LONELY_TURNS:
                self._lonely = 0
                self._at_once = AT_ONCE
        left = iter(senders)
        try:
            for sender in left:
                sender.push()
        except BaseException:  # a defect of ours, and loud: but the others' answers are not to hang on it
            if not self._senders:
                self._call_soon(self.flush)
            self._senders = [*left, *self._senders]
            raise
