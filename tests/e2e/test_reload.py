"""Reloads and scaling under three loads of clients that never retry; tests/bench/soak.py does it for longer."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from tests.bench.soak_run import ROOT, Load
from tests.e2e.conftest import Start
from tests.e2e.service import Service, control, eventually

APP = ("--app-dir", str(ROOT / "tests" / "bench"), "--no-access-log")
SLOW_IMPORT = {"SOAK_SLEEP": "0.3"}


def loaded(service: Service) -> Load:
    return Load(f"127.0.0.1:{service.port}")


def no_failure(load: Load) -> None:
    seen = load.seen
    assert not seen.failures, seen.complaints()
    assert seen.ledger.abrupt == 0
    assert min(seen.requests(name) for name in ("kept", "fresh", "h2")) > 10


def test_reloads_fail_no_request_of_three_loads(start: Start) -> None:
    service = start("-w", "2", *APP, app="soak_app:app", env=SLOW_IMPORT).ready()
    with loaded(service) as load:
        for generation in (2, 3, 4):
            service.signal(signal.SIGHUP)
            service.log.wait(f"the reload is complete: generation {generation} serves")
    no_failure(load)
    assert sorted(service.workers().values()) == [f"asgiri: worker {one} gen 4 [soak_app:app]" for one in (1, 2)]


def test_a_new_worker_serves_before_an_old_one_leaves(start: Start) -> None:
    service = start(*APP, app="soak_app:app").ready()
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete")
    [(ready, _)] = service.log.find("worker 1 gen 2 is ready")
    [(left, _)] = service.log.find(r"worker 1 gen 1\] draining")
    assert ready < left


def test_of_the_reloads_that_come_during_one_the_last_is_kept(start: Start) -> None:
    service = start(*APP, app="soak_app:app", env=SLOW_IMPORT).ready()
    for heard in (1, 2, 3):  # the second and the third while the first one's worker boots
        service.signal(signal.SIGHUP)
        assert eventually(lambda: len(service.log.find("HUP: reloading")) == heard)  # noqa: B023
    assert not service.log.find("worker 1 gen 2 is ready")
    service.log.wait("the reload is complete: generation 3 serves")
    assert list(service.workers().values()) == ["asgiri: worker 1 gen 3 [soak_app:app]"]
    assert not service.log.find("gen 4")


def test_what_is_wrong_in_a_reload_costs_no_request(start: Start, tmp_path: Path) -> None:
    code = (ROOT / "tests" / "bench" / "soak_app.py").read_text("utf-8")
    (tmp_path / "own.py").write_text(code, "utf-8")
    (tmp_path / "bad.pem").write_text("this is no certificate\n", "ascii")
    config = "app: own:app\nlisten:\n- bind: 127.0.0.1:0\nworkers: {count: 2}\n"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wrong = [
            (f"{config}]", code, "asgiri.yaml:5"),
            (f"{config}wrokers: {{}}\n", code, "wrokers"),
            (config, f"{code}1 / 0\n", "ZeroDivisionError: division by zero"),
            (config.replace("own:app", "own:none"), code, "none"),
            (f"{config}lifespan: on\n", code, "lifespan"),
            (config.replace("workers:", f"- bind: 127.0.0.1:{port}\nworkers:"), code, f"127.0.0.1:{port}.* in use"),
            (config.replace("workers:", "- {bind: 127.0.0.1:0, tls: {certfile: bad.pem}}\nworkers:"), code, "bad.pem"),
        ]
        service = start("--no-access-log", config=config, app=None, bind=False).ready()
        before = service.workers()
        with loaded(service) as load:
            for text, app, message in wrong:
                (tmp_path / "asgiri.yaml").write_text(text, "utf-8")
                (tmp_path / "own.py").write_text(app, "utf-8")
                mark = len(service.log)
                service.signal(signal.SIGHUP)
                service.log.wait("the reload (failed|is refused), generation 1 goes on", mark)
                service.log.wait(message, mark)
                assert eventually(lambda: service.workers() == before)
    no_failure(load)
    (tmp_path / "asgiri.yaml").write_text(config, "utf-8")
    (tmp_path / "own.py").write_text(code, "utf-8")
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete")


def test_scaling_fails_no_request_of_three_loads(start: Start, tmp_path: Path) -> None:
    config = "control: {socket: control.sock}"
    service = start("-w", "2", *APP, config=config, app="soak_app:app", env=SLOW_IMPORT).ready()

    def serving() -> int:
        workers = control(tmp_path / "control.sock", "status")["workers"]
        return sum(worker["state"] == "serving" for worker in workers)

    with loaded(service) as load:
        for number, count in ((signal.SIGTTIN, 3), (signal.SIGTTIN, 4), (signal.SIGTTOU, 3), (signal.SIGTTOU, 2)):
            service.signal(number)
            assert eventually(lambda: serving() == count)  # noqa: B023
        assert eventually(lambda: len(service.workers()) == 2)
    no_failure(load)
