"""What a worker does for its process, seen from outside it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# How many pages are taken anew, where 2 MiB come and go in pieces of 64 KiB, fifty times.
COUNT = """
import resource
from asgiri.worker.main import keep_heap

def come_and_go():
    pieces = [bytearray(b"x") * (64 << 10) for _ in range(32)]

{call}
come_and_go(), come_and_go()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50): come_and_go()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(call: str) -> int:
    code = COUNT.format(call=call)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have their own ways")
def test_memory_that_comes_and_goes_is_not_taken_anew() -> None:
    assert pages("keep_heap()") < 200 < pages("")
