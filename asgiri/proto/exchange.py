"""What an exchange has in common whatever the connection speaks: how its application starts, how the log names it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, Final

RETRY_SOON: Final = (b"retry-after", b"1")

# The answer to a request for a host that is not in ``allowed_hosts``.
NOT_OURS: Final = "this host is not served here"

# What the access log shows where the peer left before an answer began: the number that nginx made known.
PEER_LEFT: Final = 499
# The versions as the access log writes them. HTTP/2 has no minor version; with one, it is what log readers know.
VERSIONS: Final = {"1.0": "HTTP/1.0", "1.1": "HTTP/1.1", "2": "HTTP/2.0"}

# Whether an application runs before ``start`` returns, as far as it gets without a wait.
EAGER: Final = sys.version_info >= (3, 12)

if sys.version_info >= (3, 12):

    def start(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, None], context: Context) -> asyncio.Task[None]:
        """Run the coroutine at once up to its first wait: most answers are complete before this returns."""
        return asyncio.Task(coro, loop=loop, eager_start=True, context=context)

else:

    def start(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, None], context: Context) -> asyncio.Task[None]:
        """Run the coroutine from the loop's next turn on: Python 3.11 has no eager start."""
        return loop.create_task(coro, context=context)
