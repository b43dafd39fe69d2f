"""What a worker does when the master has new certificates for it (docs/design/tls.md)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from asgiri import deposit
from asgiri.equip import ways_of
from asgiri.errors import ConfigError
from asgiri.metrics.catalogue import metric

if TYPE_CHECKING:
    from asgiri.link import Boot
    from asgiri.proto.detect import Way
    from asgiri.server import Server

logger = logging.getLogger("asgiri.worker")

TAKEN: Final = metric("certificate_swaps").word("taken")
FAILED: Final = metric("certificate_swaps").word("failed")


def renewed(boot: Boot, server: Server, ways: Sequence[Way]) -> Sequence[Way]:
    """Have the server serve with what is in the deposit; the ways that it speaks from here on.

    Where that fails it goes on with those that it has. The master has seen that the files are good: a failure is the
    system's, such as no descriptor, or that of an application that has written where it should not.
    """
    try:
        materials = deposit.read(boot.deposit)
        if materials is None:  # the master writes there again, and will tell
            return ways
        ways = ways_of(boot.config, boot.listeners, materials=materials, before=ways)
    except (ConfigError, OSError, ValueError, KeyError) as error:  # KeyError: a part is missing
        why = "; ".join(str(error).splitlines())
        logger.error("new certificates cannot be taken, and the old ones stay: %s", why)
        boot.slot.cells[FAILED] += 1
        return ways
    server.swap(ways)
    boot.slot.cells[TAKEN] += 1
    logger.debug("new certificates are taken")
    return ways
