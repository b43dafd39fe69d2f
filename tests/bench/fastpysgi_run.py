"""Start fastpysgi: ``python fastpysgi_run.py MODULE:ATTRIBUTE PORT LOOP [CERTFILE KEYFILE]``.

Its own command cannot choose the event loop that the application's tasks run on; its Python interface can.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main(target: str, port: int, loop: str, *pair: str) -> None:
    fastpysgi: Any = importlib.import_module("fastpysgi")  # the peers' virtual environment has it, ours does not
    module, _, attribute = target.partition(":")
    if loop == "uvloop":
        fastpysgi.server.loop = importlib.import_module("uvloop").new_event_loop()
    if pair:
        fastpysgi.server.tls_list = [(*pair, None)]
    fastpysgi.run(getattr(importlib.import_module(module), attribute), "127.0.0.1", port)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
