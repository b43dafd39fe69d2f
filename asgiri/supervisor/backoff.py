"""Backoff: what fails at once is tried again more and more slowly. Pure; times are seconds of one monotonic clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from asgiri.supervisor.messages import Policy


LEAST = 0.01  # seconds: whatever the config says, what fails at once is not tried again at once


class Backoff(Struct):
    """Failures in a row of the current generation, and the numbers that wait for their next worker."""

    failures: int = 0
    failed_at: float = 0.0
    waits: dict[int, float] = field(default_factory=dict)  # number -> when it may be forked

    def failed(self, number: int, policy: Policy, now: float) -> float:
        """Count one failure more; the seconds that ``number`` waits for it."""
        doublings = min(self.failures, 62)  # as a float, far more than any duration
        wait = max(LEAST, min(max(LEAST, policy.backoff_first) * 2.0**doublings, policy.backoff_most))
        self.failures += 1
        self.failed_at = now
        self.waits[number] = now + wait
        return wait

    def pause(self, number: int, policy: Policy, now: float) -> float:
        """Nothing has failed, and yet the next worker waits a little; the seconds that ``number`` waits."""
        wait = max(LEAST, min(policy.backoff_first, policy.backoff_most))
        self.waits[number] = now + wait
        return wait

    def note_health(self, healthy_at: float, now: float) -> None:
        """A worker became, or will become, healthy at that time: it ends the row of failures before it."""
        if self.failed_at < healthy_at <= now:
            self.failures = 0

    def forget_passed(self, now: float) -> None:
        self.waits = {number: until for number, until in self.waits.items() if until > now}
