"""The measuring itself: servers one after the other, rounds interleaved, every answer checked first."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import client, client_http2, h2load, load, system, websocket, wrk
from tests.bench.cases import Case, Kind
from tests.bench.client import (
    Answer,
    IdleConnections,
    Request,
    ServerError,
    allow_files,
    check,
    wait_for_answer,
)
from tests.bench.process import Running, wait_until
from tests.bench.results import (
    CLIENT_BUSY,
    CLIENT_SHARED,
    CPU,
    SERVER_BUSY,
    SERVER_SHARED,
    STOLEN,
    WITHOUT,
    CaseResult,
    Sample,
    Series,
)
from tests.bench.servers import Http, Launch, Server

HERE = Path(__file__).parent
WARM_UP = 1  # seconds
SETTLE = 1.0  # seconds of quiet before memory is read
PATH = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin"  # nginx is often there
# Below the ports that Linux gives to clients, so that none of wrk's thousands can be in a server's way.
PORTS = range(10_000, 32_000)
# Shares of a core that others may take before a sample says so.
TOLERATED = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, and with what."""

    cases: Sequence[Case]
    servers: Sequence[Server]
    bin: Path
    unavailable: dict[str, str]  # server -> why it cannot run here at all
    rounds: int
    seconds: int
    named: bool = False  # whether the user named the servers; then a case's own choice does not count
    server_core: int = 0
    client_core: int = 1
    loop: str = "uvloop"
    commit: str = ""

    def entrants(self, case: Case) -> list[Server]:
        """The servers of one case: those that it names, and that speak its protocol."""
        if self.named:
            return list(self.servers)
        able = [server for server in self.servers if case.http in spoken(server, case)]
        return able if case.servers is None else [server for server in able if server.name in case.servers]

    def obstacle(self, case: Case, server: Server) -> str | None:
        """Why a server cannot be measured in a case, if so."""
        if case.http not in spoken(server, case):
            return f"is not measured {'with WebSocket ' if case.websocket else ''}over {case.http.value}"
        return self.unavailable.get(server.name) or server.lacks.get(case.name)


@dataclass(frozen=True, slots=True)
class Started:
    """A server that has given the right answer."""

    running: Running
    launch: Launch
    tls: str

    @property
    def url(self) -> str:
        return f"{'https' if self.launch.certfile else 'http'}://{self.launch.address}"

    @property
    def spoken(self) -> str:
        """What h2load must have spoken with it."""
        return "h2 TLSv1.3" if self.launch.certfile else "h2c"


class Bench:
    """Runs a plan. ``say`` takes one line for each thing that happens; ``done`` is called after each case."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say

    def run(self, done: Callable[[str, CaseResult], None]) -> None:
        with tempfile.TemporaryDirectory(prefix="asgiri-bench-") as folder:
            self._folder = Path(folder)
            for case in self._plan.cases:
                done(case.name, self.case(case))

    def case(self, case: Case) -> CaseResult:
        """All rounds of one case. A server that fails once is left out of the rounds that follow."""
        plan = self._plan
        result = CaseResult(unit=case.unit, date=datetime.now(UTC).strftime("%Y-%m-%d"), commit=plan.commit)
        entrants = plan.entrants(case)
        for server in entrants:
            why = plan.obstacle(case, server)
            result.series[server.name] = Series(skipped=why)
            if why:
                self._say(f"{case.name}: {server.name} is skipped: {why}")
        for number in range(plan.rounds):
            # Back and forth, so that a drift of the machine falls on the first as much as on the last.
            for server in entrants if number % 2 == 0 else reversed(entrants):
                if result.series[server.name].skipped is None:
                    self._round(case, server, number, result)
        return result

    def _round(self, case: Case, server: Server, number: int, result: CaseResult, *, again: bool = True) -> None:
        try:
            samples = self._measure(case, server, number)
        except load.LoadError as error:
            if again:  # h2load has been seen to end without a result, once in some dozens of runs
                self._say(f"{case.name}: {server.name} once more: {error}")
                self._round(case, server, number, result, again=False)
            else:
                self._leave_out(case, server, result, error)
            return
        except (ServerError, OSError, http.client.HTTPException) as error:
            self._leave_out(case, server, result, error)
            return
        for suffix, sample in samples:
            name = server.name + suffix
            result.series.setdefault(name, Series()).samples.append(sample)
            latency = "".join(
                f"  {name} {sample.detail[name + ' ms']:.2f} ms"
                for name in ("p99", "max")
                if name + " ms" in sample.detail
            )
            problems = f"  ! {'; '.join(sample.problems)}" if sample.problems else ""
            self._say(
                f"{case.name}: round {number + 1} of {self._plan.rounds}: {name}:"
                f" {sample.value:,.{0 if sample.value > 1000 else 1}f} {case.unit}{latency}{problems}"
            )

    def _leave_out(self, case: Case, server: Server, result: CaseResult, error: Exception) -> None:
        why = str(error) or type(error).__name__
        result.series[server.name].skipped = why
        self._say(f"{case.name}: {server.name} is left out: {why}")

    def _measure(self, case: Case, server: Server, number: int) -> list[tuple[str, Sample]]:
        """The samples of one server in one round, each with what is added to the server's name."""
        twice = server.name in case.without
        match case.kind:
            case Kind.LOAD | Kind.WEBSOCKET:
                samples = [("", self._load(case, server, number))]
                if twice:
                    plain = replace(case, access_log=False, http=Http.ONE if case.websocket else case.http)
                    samples.append((WITHOUT, self._load(plain, server, number)))
                return samples
            case Kind.MEMORY:
                return [("", self._memory(case, server, number))]
            case Kind.IDLE_MEMORY | Kind.IDLE_WEBSOCKETS:
                return [("", self._idle_memory(case, server, number))]
            case Kind.IDLE_LOAD:
                return self._idle_load(case, server, number)

    def _load(self, case: Case, server: Server, number: int) -> Sample:
        problems: list[str] = []
        with self._started(case, server, problems) as started:
            warm = self._generate(case, started, WARM_UP)[0]
            sample = self._rate(case, started, number)
            folder, expected = started.launch.folder, warm.requests + int(sample.detail["requests"])
            if case.access_log and not wait_until(lambda: lines(folder) >= expected, 2.0):
                raise ServerError(f"logged {lines(folder)} of {expected} requests")
        return with_problems(sample, problems)

    def _memory(self, case: Case, server: Server, number: int) -> Sample:
        problems: list[str] = []
        with self._started(case, server, problems) as started:
            time.sleep(SETTLE)
            found = system.memory(worker(started))
        return Sample(round=number, value=found.rss, detail={"PSS MiB": found.pss}, problems=problems)

    def _idle_memory(self, case: Case, server: Server, number: int) -> Sample:
        problems: list[str] = []
        allow_files(case.idle)
        with self._started(case, server, problems) as started:
            pid = worker(started)
            time.sleep(SETTLE)
            before = system.memory(pid)
            with idle_connections(case, started.launch.port) as idle:
                time.sleep(SETTLE)
                after = system.memory(pid)
                problems += closed_early(idle)
        detail = {"before MiB": before.rss, "PSS MiB more": after.pss - before.pss}
        return Sample(round=number, value=after.rss - before.rss, detail=detail, problems=problems)

    def _idle_load(self, case: Case, server: Server, number: int) -> list[tuple[str, Sample]]:
        """One process, measured without and with the idle connections; every second round the other way round."""
        problems: list[str] = []
        allow_files(case.idle)
        with self._started(case, server, problems) as started:
            self._generate(case, started, WARM_UP)
            first = None if number % 2 else self._rate(case, started, number)
            with IdleConnections(started.launch.port, case.idle, case.expect) as idle:
                beside = self._rate(case, started, number)
                problems += closed_early(idle)
            time.sleep(SETTLE)  # it has their ends to read
            alone = first or self._rate(case, started, number)
        return [("", with_problems(beside, problems)), (WITHOUT, alone)]

    @contextmanager
    def _started(self, case: Case, server: Server, problems: list[str]) -> Iterator[Started]:
        """A server with the case's application, ready and right; what is odd about its end goes to ``problems``."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        for name in ("app.py", "starlette_app.py"):
            shutil.copy(HERE / name, folder)
        launch = Launch(
            self._plan.bin,
            folder,
            free_port(),
            case.app,
            self._plan.loop,
            access_log=case.access_log,
            http=case.http,
            websocket=case.websocket,
        )
        if case.tls:
            certfile, keyfile = certificate(self._folder)
            launch = replace(launch, certfile=certfile, keyfile=keyfile)
        env = {"PATH": PATH, "HOME": str(folder), "PYTHONPATH": str(folder), "LANG": "C.UTF-8"}
        with Running(server.command(launch), core=self._plan.server_core, folder=folder, env=env) as running:
            answer = wait_for_answer(running, lambda: fetch(launch, case.request))
            check(answer, case.expect, closes=case.request.closes)
            yield Started(running, launch, answer.tls)
            problems += running.stop()
        shutil.rmtree(folder)

    def _generate(self, case: Case, started: Started, seconds: int) -> tuple[load.Outcome, float]:
        """The load, and the CPU seconds that it took the load generator.

        Raises ServerError for a server that did not bear it, LoadError when the load generator itself fails.
        """
        try:
            outcome, cpu = self._load_generator(case, started, seconds)
        except load.LoadError as error:
            if started.running.ended:
                raise ServerError(started.running.epitaph()) from error
            raise
        if started.running.ended:
            raise ServerError(started.running.epitaph())
        if not outcome.requests:
            raise ServerError("answered nothing under load")
        return outcome, cpu

    def _load_generator(self, case: Case, started: Started, seconds: int) -> tuple[load.Outcome, float]:
        """wrk, h2load or picows, as the case's protocol wants it."""
        request = case.request
        parse: Callable[[str], load.Outcome]
        if case.websocket:
            messages = websocket.WebSocketLoad(case.connections, case.streams, case.flight, case.size)
            number = 1 if case.http is Http.ONE else 2
            python, port = self._plan.bin / "python", started.launch.port
            command = websocket.command(python, port, messages, http=number, seconds=seconds)
            parse = websocket.parse
        elif case.http is Http.ONE:
            command = wrk.command(
                started.url + request.path,
                connections=case.connections,
                seconds=seconds,
                headers=request.headers,
                script=case.script,
            )
            parse = wrk.parse
        else:
            paths = case.paths or (request.path,)
            asked = h2load.Load(paths, case.connections, case.streams, request.headers, request.body)
            command = h2load.command(started.url, asked, seconds=seconds, folder=started.launch.folder)
            parse = h2load.parse
        text, cpu = load.run(command, core=self._plan.client_core, seconds=seconds)
        return parse(text), cpu

    def _rate(self, case: Case, started: Started, number: int) -> Sample:
        """One run of the load, with what the two cores and the server's processes did meanwhile."""
        cores = (self._plan.server_core, self._plan.client_core)
        before, used = [system.core(one) for one in cores], started.running.cpu()
        outcome, client_used = self._generate(case, started, self._plan.seconds)
        used = started.running.cpu() - used
        server, client = (system.core(one) - first for one, first in zip(cores, before, strict=True))
        detail = {
            "requests": float(outcome.requests),
            **{f"{name} ms": seconds * 1e3 for name, seconds in outcome.latency.items()},
            CPU: used / outcome.requests * 1e6,
            SERVER_BUSY: server.busy,
            CLIENT_BUSY: client.busy,
            STOLEN: max(server.stolen / server.total, client.stolen / client.total),
        }
        tool = "the client" if case.websocket else "wrk" if case.http is Http.ONE else "h2load"
        problems = [f"{tool} counted errors: {name}" for name in outcome.errors]
        detail |= {f"{name} errors": float(count) for name, count in outcome.errors.items()}
        for shared, core, own in ((SERVER_SHARED, server, used), (CLIENT_SHARED, client, client_used)):
            if (core.programs - own) / core.total > TOLERATED:
                problems.append(shared)
        if detail[STOLEN] > TOLERATED:
            problems.append("the host took CPU time away")
        if started.tls:
            problems += [] if started.tls.startswith("TLSv1.3") else [f"spoke {started.tls}"]
        if case.http is Http.TWO and not case.websocket and outcome.protocol != started.spoken:
            problems.append(f"spoke {outcome.protocol} with h2load")
        return Sample(round=number, value=outcome.rate, detail=detail, problems=problems)


def spoken(server: Server, case: Case) -> tuple[Http, ...]:
    """What a server can be measured over in such a case."""
    return server.websocket if case.websocket else server.http


def idle_connections(case: Case, port: int) -> IdleConnections:
    if case.websocket:
        return websocket.IdleWebSockets(port, case.idle, bytes(case.size), compressed=case.compressed)
    return IdleConnections(port, case.idle, case.expect)


def with_problems(sample: Sample, problems: list[str]) -> Sample:
    return Sample(round=sample.round, value=sample.value, detail=sample.detail, problems=[*sample.problems, *problems])


def fetch(launch: Launch, request: Request) -> Answer:
    """One request over the protocol that the server was started for."""
    ask = client.fetch if launch.http is Http.ONE else client_http2.fetch
    return ask(launch.port, request, launch.certfile)


def worker(started: Started) -> int:
    """The process that runs the application: it says so itself."""
    answer = fetch(started.launch, Request("/pid"))
    pid = int(answer.body)
    if pid not in {one.pid for one in started.running.members()}:
        raise ServerError(f"the application runs in process {pid}, which is none of the server's")
    return pid


def closed_early(idle: IdleConnections) -> list[str]:
    gone = idle.gone()
    return [f"closed {gone} idle connections"] if gone else []


def lines(folder: Path) -> int:
    """Lines of the server's output and of its access log."""
    count = 0
    for name in ("output", "access.log"):
        if (folder / name).exists():
            with (folder / name).open("rb") as file:
                count += sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    return count


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def certificate(folder: Path) -> tuple[Path, Path]:
    """Certificate and key for 127.0.0.1 (P-256, self-made), as PEM files; made once. Raises ServerError."""
    certfile, keyfile = folder / "cert.pem", folder / "key.pem"
    if not certfile.exists():
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", "7", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        command += ["-out", str(certfile), "-keyout", str(keyfile)]
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            raise ServerError(f"no certificate, openssl failed: {error}") from error
    return certfile, keyfile
