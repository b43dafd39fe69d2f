"""The access log under reload: what asgiri's own pages ask asgiri for is nothing that a developer has to read."""

from __future__ import annotations

from urllib.parse import quote

from asgiri.dev.page import RESERVED
from asgiri.log.access import AccessLog
from asgiri.types import Headers


class QuietLog:
    """Tells an access log of all exchanges but those below ``/.asgiri/``, be the ``root_path`` in front or not."""

    def __init__(self, log: AccessLog, root_path: str) -> None:
        self._log = log
        self._own = tuple({RESERVED.encode(), f"{quote(root_path.rstrip('/'))}{RESERVED}".encode()})
        self.picks = log.picks

    def record(
        self,
        client: str,
        method: str,
        target: bytes,
        version: str,
        headers: Headers,
        status: int,
        size: int,
        began: float,
        connection: int,
        request: int,
        request_id: str,
    ) -> None:
        """As :meth:`AccessLog.record`."""
        if not target.startswith(self._own):
            self._log.record(
                client, method, target, version, headers, status, size, began, connection, request, request_id
            )
