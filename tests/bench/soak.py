"""``python -m tests.bench.soak``: the supervisor does its work while clients that never retry keep asking.

Each scenario starts a real master whose application takes its time to be imported, puts three loads on it at once (see
:mod:`tests.bench.soak_load`), and does something to it. Exit code 1 when a request failed that should not have, a
request took too long, or the master has grown. Linux only; where there are two cores the service has one and the load
the other. Needs no network, ends only what it has started, and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from tests.bench import system
from tests.bench.soak_load import Failure
from tests.bench.soak_run import Load, Seen, Window
from tests.e2e.service import Service, control, eventually
from tests.pki import Pki

P99_MOST = 0.1  # seconds
GROWTH_MOST = 512 << 10  # bytes that the master's resident memory may grow by: some of the allocator's arenas
WORKER_GROWTH_MOST = 8 << 20  # bytes, of each, in which contexts of OpenSSL may come and go
CONFIG = """
app: soak_app:app
app_dir: .
listen:
  - bind: 127.0.0.1:{port}
  - bind: unix:web.sock
workers: {workers}
process: {{pidfile: master.pid}}
control: {{socket: control.sock}}
log: {{access: {{file: access.log}}}}
"""
TLS = "\n    tls: {certfile: server.pem, keyfile: server.key, "
COMPLETE = "the reload is complete"


@dataclass(slots=True)
class Stand:
    """One service, and what is found out about it."""

    directory: Path
    count: int
    seconds: float
    port: int
    service: Service
    before: tuple[int, int] = (0, 0)  # the master's footprint, once it is warm
    windows: list[Window] = field(default_factory=list)  # in which it was at work beside serving
    kills: list[Kill] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def master(self) -> int:
        return int((self.directory / "master.pid").read_text("ascii"))

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.master, number)

    def status(self) -> dict[str, Any]:
        return control(self.directory / "control.sock", "status")

    def serving(self) -> list[int]:
        """The pids of the workers that serve, as the master has it."""
        return [worker["pid"] for worker in self.status()["workers"] if worker["state"] == "serving"]

    def is_settled(self) -> bool:
        """All workers serve, all are of the current generation, and there are no others."""
        status = self.status()
        now = [(worker["state"], worker["generation"]) for worker in status["workers"]]
        return now == [("serving", status["generation"])] * self.count

    def expect(self, condition: Callable[[], object], what: str, patience: float = 20.0) -> bool:
        """Wait until it comes true; a problem when it does not."""
        if eventually(condition, patience):
            return True
        self.problems.append(f"not within {patience:.0f} s: {what}")
        return False

    def work(self, begin: Callable[[], None], pattern: str, patience: float = 30.0) -> None:
        """Begin something, and note how long it took until the log has a line with the pattern."""
        mark, start = len(self.service.log), time.monotonic()
        begin()
        log = self.service.log
        if self.expect(lambda: log.find(pattern, mark), f"a line with {pattern!r}", patience):
            self.windows.append((start, log.find(pattern, mark)[0][0]))

    def write(self, text: str) -> None:
        (self.directory / "asgiri.yaml").write_text(text, "utf-8")


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker that was killed, and when: it is gone between the two times."""

    pid: int
    at: float
    gone: float

    def excuses(self, failure: Failure) -> bool:
        """Whether the request was in flight on this worker when it was killed."""
        return failure.began <= self.gone and failure.ended >= self.at and failure.pid in (0, self.pid)


@dataclass(frozen=True, slots=True)
class Scenario:
    """``act`` does it, for about ``stand.seconds``. ``workers`` is the config's section, ``sleep`` and ``burn`` are
    what the import takes, in seconds. ``limit`` is on the p99 while the work is under way, ``growth`` on the resident
    memory of the master, in bytes.
    """

    says: str
    act: Callable[[Stand], None]
    seconds: float = 60.0
    workers: str = ""
    sleep: float = 1.0
    burn: float = 0.0
    limit: float | None = P99_MOST
    same_master: bool = True
    growth: int = GROWTH_MOST
    tls: str = ""  # what the section has besides the pair; "": there is none


def every(seconds: float, times: int, begin: Callable[[int], None]) -> None:
    """Begin something so many times, in even steps over so many seconds, whatever it takes."""
    start = time.monotonic()
    for turn in range(times):
        time.sleep(max(0.0, start + turn * seconds / times - time.monotonic()))
        begin(turn)
    time.sleep(max(0.0, start + seconds - time.monotonic()))


def reloads(stand: Stand) -> None:
    """20 HUPs in even steps; one that comes while another is under way is kept."""
    log, mark = stand.service.log, len(stand.service.log)
    sent: list[float] = []

    def hup(_turn: int) -> None:
        sent.append(time.monotonic())
        stand.signal(signal.SIGHUP)

    every(stand.seconds, 20, hup)
    stand.expect(stand.is_settled, "the end of the last reload")
    ends = [at for at, _ in log.find(COMPLETE, mark)]
    for begun in sent:
        stand.windows.append((begun, next((end for end in ends if end > begun), time.monotonic())))
    stand.notes.append(f"{len(sent)} HUPs, {len(ends)} generations complete")
    if not ends or log.find(r"the reload (failed|is refused)", mark):
        stand.problems.append("a reload failed")


def scalings(stand: Stand) -> None:
    """Two more, two less, and again."""

    def scale(turn: int) -> None:
        number, step = (signal.SIGTTIN, +1) if turn % 4 < 2 else (signal.SIGTTOU, -1)
        wanted = len(stand.serving()) + step
        start = time.monotonic()
        stand.signal(number)
        stand.expect(lambda: len(stand.serving()) == wanted, f"{wanted} workers after {number.name}")
        stand.windows.append((start, time.monotonic()))

    times = max(4, int(stand.seconds / 3) // 4 * 4)
    every(stand.seconds, times, scale)
    stand.notes.append(f"{times // 2} TTIN, {times // 2} TTOU")


def recyclings(stand: Stand) -> None:
    """Workers are replaced by how many requests they have served; never are there less than there should be."""
    log, mark, start = stand.service.log, len(stand.service.log), time.monotonic()
    least = stand.count
    while time.monotonic() < start + stand.seconds:
        least = min(least, len(stand.serving()))
        time.sleep(0.02)
    stand.windows.append((start, time.monotonic()))
    worn = len(log.find("is to be replaced: it has served", mark))
    stand.notes.append(f"{worn} workers recycled, {least} serving at the least")
    if worn < stand.count:
        stand.problems.append(f"only {worn} workers were recycled")
    if least < stand.count:
        stand.problems.append(f"only {least} workers were serving at one time")


def upgrades(stand: Stand) -> None:
    """A new master, five times; the old one is to be gone before the next."""

    def upgrade(_turn: int) -> None:
        before, start = stand.master, time.monotonic()
        stand.signal(signal.SIGUSR2)
        if stand.expect(lambda: stand.master != before, "a new pid in the pid file"):
            stand.expect(lambda: stand.service.masters() == [stand.master], "the end of the old master")
        stand.windows.append((start, time.monotonic()))

    every(stand.seconds, 5, upgrade)
    stand.notes.append("5 upgrades")


def kills(stand: Stand) -> None:
    """A random worker dies each second; the count is to be restored each time."""
    chance = random.Random(20)
    slowest = 0.0

    def kill(_turn: int) -> None:
        nonlocal slowest
        victim = chance.choice(stand.serving())
        at = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        stand.expect(lambda: not running(victim), "the end of a process that was killed")
        stand.kills.append(Kill(victim, at, time.monotonic()))
        stand.expect(lambda: len(stand.serving()) == stand.count, "the count is restored")
        stand.windows.append((at, time.monotonic()))
        slowest = max(slowest, time.monotonic() - at)

    times = int(stand.seconds)
    every(stand.seconds, times, kill)
    stand.notes.append(f"{times} kills, the count restored after {slowest:.2f} s at the most")


def renewals(stand: Stand) -> None:
    """A new certificate each second, each fifth time a bad one before it; every worker is to take all good ones."""
    pki = Pki(stand.directory)  # another authority: whoever is shown its certificates would refuse them
    authority = trustme.CA.from_pem(*((stand.directory / name).read_bytes() for name in ("trusted.pem", "trusted.key")))
    log, mark = stand.service.log, len(stand.service.log)
    before = [footprint(pid)[1] for pid in stand.serving()]

    def renew(turn: int) -> None:
        if turn % 5 == 4:
            install(stand.directory, Path(pki.certfile).read_bytes(), b"no key\n")
            time.sleep(0.5)
        leaf = authority.issue_cert("localhost")
        certificate = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        stand.work(lambda: install(stand.directory, certificate, leaf.private_key_pem.bytes()), "a new certificate for")

    times = int(stand.seconds)
    every(stand.seconds, times, renew)
    taken = len(log.find("a new certificate for localhost", mark))
    wanted = stand.count * taken
    stand.expect(lambda: len(log.find("new certificates are taken", mark)) == wanted, "every worker takes each of them")
    stand.notes.append(f"{times} renewals, of which {taken} were taken, by each of {stand.count} workers")
    after = [footprint(pid)[1] for pid in stand.serving()]
    stand.notes.append(f"workers: {sum(before) >> 10} -> {sum(after) >> 10} KiB together")
    if sum(after) > sum(before) + stand.count * WORKER_GROWTH_MOST:
        stand.problems.append("the workers have grown")
    if taken < times - 1:  # two within one look of the master's are one
        stand.problems.append(f"only {taken} of {times} renewals were taken")
    if log.find("WARN|ERROR", mark):
        stand.problems.append("a renewal was refused")


def install(directory: Path, certificate: bytes, key: bytes) -> None:
    """Put a pair where the service looks for it, each file in one step."""
    for name, data in (("server.pem", certificate), ("server.key", key)):
        fresh = directory / f"{name}.new"
        fresh.write_bytes(data)
        fresh.rename(directory / name)


def found_authority(directory: Path) -> str:
    """Make an authority, and a first pair; the file of the authority's certificate."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    install(directory, leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())
    (directory / "trusted.pem").write_bytes(authority.cert_pem.bytes())
    (directory / "trusted.key").write_bytes(authority.private_key_pem.bytes())
    return str(directory / "trusted.pem")


def running(pid: int) -> bool:
    """Whether a process still has its descriptors: not, once it is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def broken(stand: Stand) -> None:
    """Reloads of all that can be wrong: each is refused or fails, and says so; a good one in the end succeeds."""
    config = (stand.directory / "asgiri.yaml").read_text("utf-8")
    app = (stand.directory / "soak_app.py").read_text("utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        tls = "  - {bind: '127.0.0.1:0', tls: {certfile: bad.pem}}\nworkers:"
        (stand.directory / "bad.pem").write_text("this is no certificate\n", "ascii")
        wrong = {
            "a config that is no YAML": (config + "]", app),
            "an unknown key": (config + "wrokers: {}\n", app),
            "an app with an error in it": (config, app + "1 / 0\n"),
            "an app that is no Python": (config, app + "def\n"),
            "an app that is not there": (config.replace("soak_app:app", "soak_app:none"), app),
            "a lifespan that fails": (config + "lifespan: on\n", app),
            "a taken port": (config.replace("workers:", f"  - {{bind: '{address}'}}\nworkers:"), app),
            "a bad certificate": (config.replace("workers:", tls), app),
            "a certificate that is not there": (config.replace("workers:", tls.replace("bad", "none")), app),
        }
        names = list(wrong)

        def reload(turn: int) -> None:
            if turn == len(names):  # the first round has imported what each of them needs, OpenSSL for one
                stand.before = footprint(stand.master)
            text, code = wrong[names[turn % len(names)]]
            stand.write(text)
            (stand.directory / "soak_app.py").write_text(code, "utf-8")
            stand.work(lambda: stand.signal(signal.SIGHUP), r"the reload (failed|is refused), generation 1 goes on")

        every(stand.seconds - 5, 2 * len(names), reload)
    stand.write(config)
    (stand.directory / "soak_app.py").write_text(app, "utf-8")
    stand.work(lambda: stand.signal(signal.SIGHUP), COMPLETE)
    stand.notes.append(f"{len(stand.windows) - 1} reloads came to nothing, in {len(names)} ways")


SCENARIOS = {
    "reload": Scenario("20 reloads; the import takes 1 s", reloads),
    "reload-busy": Scenario("20 reloads; the import uses 0.3 s of the CPU", reloads, sleep=0.0, burn=0.3),
    "scale": Scenario("TTIN and TTOU", scalings),
    "recycle": Scenario(
        "max_requests: 500", recyclings, workers="max_requests: 500, max_requests_jitter: 50", seconds=60.0
    ),
    "upgrade": Scenario("USR2 five times", upgrades, same_master=False),
    "kill": Scenario("kill -9 of a worker each second", kills, seconds=30.0, sleep=0.1, limit=None),
    "renew": Scenario("a new certificate each second", renewals, tls="min_version: '1.2'", growth=8 << 20),
    "renew-sni": Scenario(
        "the same, shown by a server's name",
        renewals,
        tls="sni: {localhost: {certfile: server.pem, keyfile: server.key}}",
        growth=8 << 20,
    ),
    # Contexts of OpenSSL come and go in some MiB of heap, more or less of it resident: after 40 rounds as after 2.
    "broken": Scenario("reloads that must fail", broken, growth=8 << 20),
}


def run(scenario: Scenario, args: argparse.Namespace, cores: tuple[int, int] | None) -> tuple[Stand, Seen]:
    """One scenario from start to end."""
    seconds = args.seconds or scenario.seconds
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        directory = Path(name)
        shutil.copy(Path(__file__).with_name("soak_app.py"), directory)
        port = free_port()
        workers = f"{{count: {args.workers}{', ' + scenario.workers if scenario.workers else ''}}}"
        text = CONFIG.format(port=port, workers=workers)
        trust: list[str] = []
        if scenario.tls:
            trust = ["--cafile", found_authority(directory)]
            text = text.replace(f":{port}\n", f":{port}{TLS}{scenario.tls}}}\n", 1)
            text = text.replace("log: {", "log: {level: debug, ")
        (directory / "asgiri.yaml").write_text(text, "utf-8")
        env = {"SOAK_SLEEP": str(scenario.sleep), "SOAK_BURN": str(scenario.burn), "PYTHONDONTWRITEBYTECODE": "1"}
        service = start(directory, env, cores)
        stand = Stand(directory, args.workers, seconds, port, service)
        try:
            service.ready()
            with Load(f"127.0.0.1:{port}", "--rate", str(args.rate), *trust, core=cores and cores[1]) as load:
                warm_up(stand)
                stand.before = footprint(stand.master)
                scenario.act(stand)
            stand.expect(stand.is_settled, "all workers serving at the end, and no others")
            if scenario.same_master:
                compare(stand, scenario.growth)
            judge(stand, scenario, load.seen)
            return stand, load.seen
        finally:
            try:
                service.close()
            except AssertionError as error:
                stand.problems.append(str(error))
            if stand.problems and args.logs:
                print(service.log, file=sys.stderr)


def start(directory: Path, env: dict[str, str], cores: tuple[int, int] | None) -> Service:
    """The master and all that comes of it, on its core."""
    ours = os.sched_getaffinity(0)
    if cores is not None:
        os.sched_setaffinity(0, {cores[0]})
    try:
        return Service(directory, env=env)
    finally:
        os.sched_setaffinity(0, {cores[1]} if cores is not None else ours)


def free_port() -> int:
    """One that nobody has at this moment; a new master needs to find it under its number in the file."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def warm_up(stand: Stand) -> None:
    """What is imported, or cached, the first time, is there before anything is measured: a worker comes and goes."""
    for _ in range(2):
        stand.signal(signal.SIGTTIN)
        stand.expect(lambda: len(stand.serving()) == stand.count + 1, "one worker more")
        stand.signal(signal.SIGTTOU)
        stand.expect(stand.is_settled, "one worker less")


def footprint(pid: int) -> tuple[int, int]:
    """Descriptors, and bytes that are resident."""
    fds = len(os.listdir(f"/proc/{pid}/fd"))
    return fds, int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def compare(stand: Stand, most: int) -> None:
    """The master has not grown. A connection that has just asked for the status takes a moment to be gone."""
    before = stand.before
    eventually(lambda: footprint(stand.master)[0] == before[0], patience=2.0)
    after = footprint(stand.master)
    stand.notes.append(f"master: {before[0]} -> {after[0]} fds, {before[1] >> 10} -> {after[1] >> 10} KiB")
    if after[0] != before[0]:
        stand.problems.append("the master has another number of descriptors")
    if after[1] > before[1] + most:
        stand.problems.append("the master has grown")


def judge(stand: Stand, scenario: Scenario, seen: Seen) -> None:
    """What of it is not as it should be."""
    excused = [one for one in seen.failures if any(kill.excuses(one) for kill in stand.kills)]
    if stand.kills:
        each = [sum(kill.excuses(one) for one in excused) for kill in stand.kills]
        stand.notes.append(f"{len(excused)} requests were in flight on a killed worker, {max(each)} at the most")
    if len(seen.failures) > len(excused):
        stand.problems.append(f"failed requests:\n{seen.complaints()}")
    if seen.ledger.abrupt and not stand.kills:
        stand.problems.append(f"{seen.ledger.abrupt} connections of HTTP/2 ended without a GOAWAY")
    during = seen.latency(windows=stand.windows)
    if scenario.limit is not None and during.p99 > scenario.limit:
        stand.problems.append(f"p99 was {during.p99 * 1e3:.0f} ms while it was at work")
    stand.notes.append(f"the load itself was late by {seen.ledger.lag * 1e3:.0f} ms at the most")


HEADER = ("scenario", "requests", "failed", "p50", "p99", "max", "p99 at work", "max at work", "")


def row(name: str, stand: Stand, seen: Seen) -> list[str]:
    whole, during = seen.latency(), seen.latency(windows=stand.windows)
    times = [whole.p50, whole.p99, whole.most, during.p99, during.most]
    verdict = "FAILED" if stand.problems else "ok"
    return [name, str(seen.requests()), str(len(seen.failures)), *(f"{one * 1e3:.1f} ms" for one in times), verdict]


def table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    says = "; ".join(f"{name}: {scenario.says}" for name, scenario in SCENARIOS.items())
    parser = argparse.ArgumentParser("python -m tests.bench.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, "all"], metavar="SCENARIO", help=f"{says}; or all")
    parser.add_argument("--seconds", type=float, help="how long each takes; default 60, and 30 for kill")
    parser.add_argument("--workers", type=int, default=2, help="default 2")
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second of each of the loads; default 60")
    parser.add_argument("--logs", action="store_true", help="print the service's log where something is wrong")
    return parser.parse_args()


def main() -> int:
    signal.signal(signal.SIGTERM, end)
    args = arguments()
    names = args.scenarios if args.scenarios and "all" not in args.scenarios else list(SCENARIOS)
    usable = sorted(os.sched_getaffinity(0))
    cores = (usable[0], usable[1]) if len(usable) > 1 else None
    print(f"{', '.join(f'{key} {value}' for key, value in system.machine().items())}", flush=True)
    if cores is not None:
        busy = system.background(list(cores))
        print(f"others used {busy:.0%} of a core when this began" if busy > 0.02 else "the machine was quiet")
    rows = [list(HEADER)]
    failed = False
    for name in names:
        with suppress(KeyboardInterrupt):
            stand, seen = run(SCENARIOS[name], args, cores)
            rows.append(row(name, stand, seen))
            failed = failed or bool(stand.problems)
            print(f"{name}: {'; '.join(stand.notes)}", flush=True)
            for problem in stand.problems:
                print(f"! {name}: {problem}", flush=True)
            continue
        return 130
    print("\n" + table(rows))
    return int(failed)


def end(_number: int, _frame: object) -> None:
    """TERM unwinds the stack, so that what was started is ended."""
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
