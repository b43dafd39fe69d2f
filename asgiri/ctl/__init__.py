"""The ``asgirictl`` command: asks a master over its control socket, and says what it answers.

Exit codes: 0 done, 1 not done (the service says why, or there is none), 2 bad usage.
"""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """The entry point."""
    from asgiri.ctl.command import run

    run()
