"""``python -m asgiri.ctl`` is the same as ``asgirictl``."""

from __future__ import annotations

from asgiri.ctl import main

if __name__ == "__main__":
    main()
