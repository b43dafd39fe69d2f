"""How this copy of asgiri was built: setup.py has the hot path compiled where there is a C compiler."""

from __future__ import annotations

import warnings
from typing import Final

from asgiri import statuses

COMPILED: Final = not statuses.__file__.endswith(".py")
BUILD: Final = "compiled" if COMPILED else "not compiled"

# What mypyc makes of an ``await`` passes a cancellation on in a form that Python 3.12 and later warn of. With -W error,
# the warning would take the place of the cancellation.
THROW: Final = r"the \(type, exc, tb\) signature of throw\(\) is deprecated"
if COMPILED:
    warnings.filterwarnings("ignore", THROW, DeprecationWarning)
