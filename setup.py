"""How a wheel is built: the hot path is compiled by mypyc, where a C compiler is there; without one it stays Python.

The modules are plain, typed Python and run either way. ASGIRI_COMPILE=0 leaves them as they are, ASGIRI_COMPILE=1 makes
a failing compilation fail the build. An editable install and a source distribution compile nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig

from setuptools import Extension, setup

# What every request passes through. A class and what inherits from it are compiled together or not at all.
HOT = (
    "asgi/answers",
    "asgi/http",
    "asgi/messages",
    "asgi/scope",
    "codec/events",
    "codec/framing",
    "codec/h1_h11",
    "codec/h1_httptools",
    "codec/h2_budget",
    "codec/h2_gate",
    "codec/h2_h2",
    "codec/h2_known",
    "codec/h2_library",
    "codec/h2_native",
    "codec/h2_reading",
    "codec/h2_rules",
    "codec/h2_sending",
    "codec/h2_state",
    "codec/h2_wire",
    "codec/hpack_decode",
    "codec/hpack_encode",
    "codec/rules",
    "proto/connection",
    "proto/http11",
    "proto/http11_life",
    "proto/http2",
    "proto/http2_exchange",
    "proto/http2_life",
    "proto/http2_upgrade",
    "proto/outbox",
    "proto/upgrade",
    "statuses",
)


def extensions() -> list[Extension]:
    wanted = os.environ.get("ASGIRI_COMPILE", "auto")
    if wanted not in ("auto", "0", "1"):
        raise SystemExit(f"ASGIRI_COMPILE: expected auto, 0 or 1, got {wanted!r}")
    if wanted == "0" or not {"bdist_wheel", "build_ext"} & set(sys.argv) or sys.implementation.name != "cpython":
        return []
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if wanted == "auto" and shutil.which(compiler.split()[0]) is None:
        print(f"asgiri: no C compiler ({compiler}): the hot path stays Python, and is slower", file=sys.stderr)
        return []
    from mypyc.build import mypycify

    compiled: list[Extension] = mypycify(
        ["--config-file=mypyc.ini", *(f"asgiri/{name}.py" for name in HOT)], opt_level="3", debug_level="0"
    )
    for extension in compiled:
        extension.optional = wanted == "auto"  # without Python.h it fails: the Python modules are there all the same
    return compiled


setup(ext_modules=extensions())
