"""Where there is no inotify: watchfiles, which knows FSEvents, kqueue and the others."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Final

from asgiri.dev.inotify import Happened

_STEP_MS: Final = 10  # it looks so often whether it has heard of anything


class Watchfiles:
    """Tells of what happens below the folders, in a thread: watchfiles blocks."""

    def __init__(self, folders: Iterable[str]) -> None:
        from watchfiles._rust_notify import RustNotify

        self._notify = RustNotify(list(folders), False, False, 0, True, True)
        self._news: set[str] = set()
        self._lock = threading.Lock()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True, name="watchfiles")
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop.is_set():
            found = self._notify.watch(_STEP_MS, _STEP_MS, 0, self._stop)
            if isinstance(found, set):
                with self._lock:
                    self._news |= {path for _, path in found}
                os.write(self._write, b"!")

    def fileno(self) -> int:
        return self._read

    def read(self) -> list[Happened]:
        try:
            os.read(self._read, 4096)
        except BlockingIOError:
            return []
        with self._lock:
            paths, self._news = self._news, set()
        return [Happened(path, came=os.path.isdir(path)) for path in sorted(paths)]

    def add(self, directory: str) -> None:
        """It watches all that is below its folders already."""

    def remove(self, directory: str) -> None:
        """As :meth:`add`."""

    def close(self) -> None:
        self._stop.set()
        self._thread.join(1.0)
        os.close(self._read)
        os.close(self._write)
