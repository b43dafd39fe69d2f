"""How this copy of asgiri was built: setup.py has the hot path compiled where there is a C compiler."""

from __future__ import annotations

from typing import Final

from asgiri import statuses

COMPILED: Final = not statuses.__file__.endswith(".py")
BUILD: Final = "compiled" if COMPILED else "not compiled"
