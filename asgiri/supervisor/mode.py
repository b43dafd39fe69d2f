"""What a master does besides: in production nothing; under reload see :mod:`asgiri.supervisor.workshop`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgiri.supervisor.children import NOTHING_LENT, Lent

if TYPE_CHECKING:
    from asgiri.config.load import Loaded
    from asgiri.config.schema import Config
    from asgiri.link import Boot, Booted
    from asgiri.tracebacks import Trouble


class Mode:
    """Each method is told of something that has happened, or asked for what is different under reload."""

    # What is said at a stop.
    stopping = "stopping, requests in progress are finished"

    @property
    def is_troubled(self) -> bool:
        """The newest code does not serve, and browsers are shown why."""
        return False

    def look(self, loaded: Loaded, generation: int) -> None:
        """This config is in effect."""

    def ask(self, after: str) -> None:
        """A reload is asked for, because of that."""

    def begin(self, generation: int) -> None:
        """A worker of this generation is about to be forked."""

    def lent(self, *, first: bool) -> Lent:
        """What a worker gets of the master's. ``first``: nobody serves, so it is to show what is wrong."""
        del first
        return NOTHING_LENT

    def spawn(self, boot: Boot) -> int | None:
        """The pid of the worker, if somebody else can fork it."""
        del boot
        return None

    def let_go(self, boot: Boot) -> None:
        """In a child: close what is not for it."""

    def learn(self, generation: int, config: Config, booted: Booted) -> None:
        """A worker serves, the application or an error page."""

    def note_trouble(self, generation: int, trouble: Trouble | None) -> None:
        """A worker of this generation has said what keeps it from serving."""

    def refuse(self, why: str) -> None:
        """A reload came to nothing before anything was forked."""

    def abandon(self, generation: int, why: str, trace: str) -> None:
        """The generation came to nothing."""

    def commit(self, generation: int) -> None:
        """Its first worker serves."""

    def close(self) -> None:
        """The master goes."""
