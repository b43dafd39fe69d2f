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
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

# What every request passes through. A class and what inherits from it are compiled together or not at all.
HOT = (
    "asgi/answers",
    "asgi/http",
    "asgi/messages",
    "asgi/scope",
    "asgi/session",
    "asgi/websocket",
    "codec/contract",
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
    "codec/ws_deflate",
    "codec/ws_mask",
    "codec/ws_native",
    "codec/ws_rules",
    "codec/ws_wsproto",
    "log/access",
    "log/layout",
    "metrics/meter",
    "proto/carrier",
    "proto/connection",
    "proto/edge",
    "proto/http11",
    "proto/http11_ends",
    "proto/http11_life",
    "proto/http11_tunnel",
    "proto/http2",
    "proto/http2_ends",
    "proto/http2_exchange",
    "proto/http2_life",
    "proto/http2_stream",
    "proto/http2_upgrade",
    "proto/http2_websocket",
    "proto/outbox",
    "proto/peers",
    "proto/upgrade",
    "proto/websocket",
    "proto/websocket_life",
    "statuses",
)


WANTED = os.environ.get("ASGIRI_COMPILE", "auto")

# Where the source is published, as https://HOST/OWNER/NAME: the links of the package's metadata are made of it. There
# is no such place yet, and a made-up one would be worse than none.
REPOSITORY = ""


def urls(repository: str) -> dict[str, str]:
    """The links of the package's metadata; none without a repository."""
    if not repository:
        return {}
    return {
        "Homepage": repository,
        "Documentation": f"{repository}/blob/main/docs/index.md",
        "Changelog": f"{repository}/blob/main/docs/changelog.md",
        "Source": repository,
        "Issues": f"{repository}/issues",
    }


def extensions() -> list[Extension]:
    if WANTED not in ("auto", "0", "1"):
        raise SystemExit(f"ASGIRI_COMPILE: expected auto, 0 or 1, got {WANTED!r}")
    if WANTED == "0" or not {"bdist_wheel", "build_ext"} & set(sys.argv) or sys.implementation.name != "cpython":
        return []
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if WANTED == "auto" and shutil.which(compiler.split()[0]) is None:
        stay_python(f"there is no C compiler ({compiler})")
        return []
    from mypyc.build import mypycify

    files = [f"asgiri/{name}.py" for name in HOT]
    version = "--python-version={}.{}".format(*sys.version_info)
    try:
        return mypycify([version, *files], opt_level="3", debug_level="0", group_name="asgiri")  # type: ignore[no-any-return]
    except SystemExit:  # it has said what it cannot compile
        if WANTED == "1":
            raise
        stay_python("mypyc cannot compile it")
        return []


def stay_python(why: str) -> None:
    print(f"asgiri: {why}: the hot path stays Python, and is slower", file=sys.stderr)


class BuildAll(build_ext):
    """All extensions or none: half of them would not work together."""

    def run(self) -> None:
        try:
            super().run()
        except (BaseError, CCompilerError) as error:
            if WANTED == "1":
                raise
            stay_python(str(error))
            for extension in self.extensions:
                for path in {self.get_ext_fullpath(extension.name), self.get_ext_filename(extension.name)}:
                    if os.path.exists(path):
                        os.remove(path)
            self.extensions = []


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildAll}, project_urls=urls(REPOSITORY))
