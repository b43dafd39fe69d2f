"""``python -m tests.autobahn``: the fuzzing client of the Autobahn test suite against both WebSocket engines.

It reads RFC 6455 and RFC 7692 as their authors' first readers did, in some 500 cases. It runs on Python 2.7 only, which
must be there with its pip (pyenv has it); the suite comes from the package index into a folder of its own below
``.bench``. Not a part of the test suite: the compression cases take minutes. Ends with 1 where a case failed, or where
a connection ended otherwise than it should.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.client import BOOT
from tests.bench.measure import free_port
from tests.bench.process import wait_until

ROOT = Path(__file__).resolve().parents[1]
SUITE = "autobahntestsuite==25.10.1"
# NON-STRICT: a close at once where the suite would rather have seen what was sent before it echoed first.
GOOD = {"OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED"}
GOOD_CLOSE = {"OK", "INFORMATIONAL"}
MOST = "64MiB"  # what the suite sends in one message is 16 MiB and a few bytes


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.autobahn", description=__doc__)
    parser.add_argument("--python2", default=found_python2(), help="an interpreter of Python 2.7")
    parser.add_argument("--engines", default="native,wsproto", help="default: both")
    parser.add_argument("--cases", default="*", help='as in "1.*,6.*"; default: all')
    parser.add_argument("--exclude", default="", help='as in "9.*,12.*,13.*": what takes long')
    args = parser.parse_args()
    if args.python2 is None:
        parser.error("no Python 2.7 was found: --python2 tells where it is")
    packages = ROOT / ".bench" / "autobahn"
    install(args.python2, packages)
    problems = []
    with tempfile.TemporaryDirectory(prefix="autobahn-") as folder:
        for engine in args.engines.split(","):
            with serving(engine, Path(folder)) as url:
                found = fuzz(args, packages, Path(folder), engine, url)
            print(engine, *(f"{name}: {count}" for name, count in Counter(map(verdict, found.values())).items()))
            problems += [f"{engine}: {case}: {verdict(result)}" for case, result in found.items() if not good(result)]
    print(*problems, sep="\n")
    return 1 if problems else 0


def found_python2() -> str | None:
    """pyenv's, or the one of PATH; pyenv's stand-in there works in some folders only."""
    pyenv = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob("2.7*/bin/python"))
    return str(pyenv[-1]) if pyenv else shutil.which("python2.7")


def install(python2: str, packages: Path) -> None:
    """The suite with what it needs, once."""
    if (packages / "bin" / "wstest").exists():
        return
    subprocess.run([python2, "-m", "pip", "install", "-q", "--target", str(packages), SUITE], check=True)
    (packages / "zope" / "__init__.py").touch()  # pip's .pth file for it counts in a site directory only


@contextlib.contextmanager
def serving(engine: str, folder: Path) -> Iterator[str]:
    """An asgiri with this engine; its echo's address."""
    port = free_port()
    command = [sys.executable, "-m", "asgiri", "--bind", f"127.0.0.1:{port}", "--no-access-log"]
    command += ["--set", f"websocket.engine={engine}", "--set", f"websocket.max_message={MOST}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = folder / f"{engine}.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*command, "tests.websocket_app:app"], cwd=folder, env=env, stdout=output, stderr=output
        ) as process,
    ):
        try:
            if not wait_until(lambda: "ready: " in log.read_text("utf-8"), BOOT):
                raise SystemExit(f"asgiri did not start: {log.read_text('utf-8')}")
            yield f"ws://127.0.0.1:{port}/echo"
        finally:
            process.terminate()


def fuzz(args: argparse.Namespace, packages: Path, folder: Path, engine: str, url: str) -> dict[str, dict[str, Any]]:
    """Case -> what the suite has to say of it."""
    spec = {
        "outdir": str(folder / engine),
        "servers": [{"agent": engine, "url": url}],
        "cases": args.cases.split(","),
        "exclude-cases": args.exclude.split(",") if args.exclude else [],
        "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec), "ascii")
    command = [args.python2, str(packages / "bin" / "wstest"), "-m", "fuzzingclient", "-s", str(folder / "spec.json")]
    env = {**os.environ, "PYTHONPATH": str(packages)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    report = folder / engine / "index.json"
    if not report.exists():
        raise SystemExit(f"the suite failed: {done.stdout}{done.stderr}")
    found: dict[str, dict[str, Any]] = json.loads(report.read_text("utf-8"))[engine]
    return found


def verdict(result: dict[str, Any]) -> str:
    return result["behavior"] if result["behaviorClose"] in GOOD_CLOSE else f"closing {result['behaviorClose']}"


def good(result: dict[str, Any]) -> bool:
    return result["behavior"] in GOOD and result["behaviorClose"] in GOOD_CLOSE


if __name__ == "__main__":
    sys.exit(main())
