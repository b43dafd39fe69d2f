"""The working directory, where it is deleted and made anew under a service that goes on: by a clone, or a build."""

from __future__ import annotations

import os


class Home:
    """Where this process was when it was made."""

    def __init__(self) -> None:
        self._path = self._here()

    def enter_again(self) -> bool:
        """Go where it was, if the directory is gone and another one has its name; whether that was done."""
        here = self._here()
        if here is not None:
            self._path = here
            return False
        if self._path is None:
            return False
        try:
            os.chdir(self._path)
        except OSError:  # nothing is there yet
            return False
        return True

    @staticmethod
    def _here() -> str | None:
        try:
            return os.getcwd()
        except OSError:
            return None
