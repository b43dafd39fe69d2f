"""Files that change while what was in them is in use: when to look into them, and when to say that they are no good.

    KEPT      what is on the disk is what is in use, as far as anybody knows
    SETTLING  they have changed, and who changes them may not be done
    DOUBTFUL  they were looked into, and are no good as they are: half of a pair may still be on its way
    REFUSED   nothing better has come, and that was said; what was in use is in use

Pure: how the files look, how old that is and what time it is, are told. What was looked into is told too. The table is
the whole life; a pair that is not in it is a defect of ours and raises KeyError.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

# Files whose last change is so long ago, in seconds, are looked into at once: whoever has written them is done with
# them. Where the clock of their file system does not tell, the same look twice, so far apart, will do.
QUIET_SECONDS: Final = 0.25
SETTLE_SECONDS: Final = 0.9
# How long after a change files may be no good before that is said, in seconds. A certificate is copied, and then its
# key: by a person's script or by one that goes from host to host.
PATIENCE_SECONDS: Final = 3.0

# How files look, each in a few numbers: equal as long as they do.
Look = tuple[tuple[int, ...], ...]


class Phase(Enum):
    KEPT = "kept"
    SETTLING = "settling"
    DOUBTFUL = "doubtful"
    REFUSED = "refused"


class Cause(Enum):
    CHANGE = "they look different"
    TAKEN = "they are good, and new"
    SAME = "they have in them what is in use"
    DOUBT = "they are no good"
    PATIENCE = "they have not become good"


class Step(Enum):
    """What is to be done."""

    WAIT = "nothing"
    JUDGE = "look into them, and tell what was found"
    REFUSE = "say that they are no good"


P, C = Phase, Cause
LIFE: dict[tuple[Phase, Cause], Phase] = {
    **{(phase, C.CHANGE): P.SETTLING for phase in Phase},
    (P.SETTLING, C.TAKEN): P.KEPT,
    (P.SETTLING, C.SAME): P.KEPT,
    (P.SETTLING, C.DOUBT): P.DOUBTFUL,
    (P.DOUBTFUL, C.PATIENCE): P.REFUSED,
}


class Renewal:
    """Of the files that make one part of a section. ``seen`` is how they looked when what is in use was read."""

    def __init__(self, seen: Look) -> None:
        self.phase = Phase.KEPT
        self._seen = seen
        self._since = 0.0  # when they were first seen as they look now

    def look(self, seen: Look, age: float, now: float) -> Step:
        """They look like that, and changed last ``age`` seconds ago; less than 0 where that cannot be."""
        if seen != self._seen:
            self._seen, self._since = seen, now
            self._move(Cause.CHANGE)
        if self.phase is Phase.SETTLING and (age >= QUIET_SECONDS or now - self._since >= SETTLE_SECONDS):
            return Step.JUDGE
        if self.phase is Phase.DOUBTFUL and now - self._since >= PATIENCE_SECONDS:
            self._move(Cause.PATIENCE)
            return Step.REFUSE
        return Step.WAIT

    def judged(self, cause: Cause) -> None:
        """What was found: TAKEN, SAME or DOUBT. Not called when they changed while they were read."""
        self._move(cause)

    def _move(self, cause: Cause) -> None:
        self.phase = LIFE[self.phase, cause]
