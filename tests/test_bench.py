"""The harness of tests/bench, without its servers: what it reads, what it works out, what it writes, what it ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import process, report, results, system, wrk
from tests.bench.__main__ import names, shown
from tests.bench.cases import BROWSER, CASES, ECHO, MIB, RATE, TARGETS, Target
from tests.bench.client import Answer, ServerError, check
from tests.bench.measure import free_port, lines
from tests.bench.process import Running
from tests.bench.results import (
    CLIENT_BUSY,
    CLIENT_SHARED,
    CPU,
    SERVER_BUSY,
    CaseResult,
    MergeError,
    Run,
    Sample,
    Series,
)
from tests.bench.servers import SERVERS, Launch
from tests.bench.venv import Venv, changes, needed

HERE = Path(__file__).parent
linux = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("taskset") is None, reason="the harness needs Linux and taskset"
)

OUTPUT = """\
Running 4s test @ http://127.0.0.1:18101/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.01ms  500.12us   9.87ms   90.01%
    Req/Sec    61.50k     1.20k   63.00k    75.00%
  Latency Distribution
     50%  635.00us
     75%    0.98ms
     90%    1.10ms
     99%    1.25s 
  246812 requests in 4.01m, 31.54MB read
Requests/sec:  61613.60
Transfer/sec:      7.87MB
"""  # noqa: W291 - as wrk prints it


def series(
    *values: float, problem: str | None = None, skipped: str | None = None, detail: dict[str, float] | None = None
) -> Series:
    problems = [problem] if problem else []
    samples = [
        Sample(round=number, value=value, detail=detail or {}, problems=problems) for number, value in enumerate(values)
    ]
    return Series(samples=samples, skipped=skipped)


def run(python: str = "CPython 3.13.0", **cases: CaseResult) -> Run:
    return Run(
        python=python,
        machine={"CPU": "Some CPU", "cores": "2"},
        versions={"asgiri": "0.1.0", "wrk": "4.1.0"},
        rounds=3,
        seconds=4,
        cases=cases,
    )


def rates(**found: Series) -> CaseResult:
    return CaseResult(unit=RATE, series=found, date="2030-01-02", commit="abc1234")


def test_the_output_of_wrk() -> None:
    outcome = wrk.parse(OUTPUT)
    assert (outcome.requests, outcome.rate) == (246812, 61613.60)
    assert outcome.elapsed == pytest.approx(240.6)
    assert outcome.p50 == pytest.approx(635e-6)
    assert outcome.p99 == pytest.approx(1.25)
    assert outcome.errors == {}


def test_errors_that_wrk_counts() -> None:
    text = OUTPUT + "  Socket errors: connect 0, read 16, write 7, timeout 0\n  Non-2xx or 3xx responses: 3\n"
    assert wrk.parse(text).errors == {"read": 16, "write": 7, "status": 3}


@pytest.mark.parametrize("text", ["", "unable to connect", OUTPUT.replace("99%", "98%"), OUTPUT.replace("/sec", "")])
def test_what_wrk_never_prints_is_an_error(text: str) -> None:
    with pytest.raises(wrk.WrkError, match="in the output of wrk"):
        wrk.parse(text)


def test_median_and_spread() -> None:
    found = series(100.0, 130.0, 110.0)
    assert found.median == 110.0
    assert found.spread == pytest.approx(30 / 110)
    assert (Series().median, Series().spread, series(5.0).spread) == (None, 0.0, 0.0)


def test_a_ratio_compares_each_round_with_itself() -> None:
    # The machine halves its speed after the first round: the ratio does not notice.
    found = results.ratio(series(200.0, 100.0, 100.0), series(100.0, 50.0, 40.0))
    assert found == results.Ratio(2.0, 2.0, 2.5)


def test_a_ratio_takes_the_rounds_that_both_have() -> None:
    assert results.ratio(series(200.0, 90.0), series(100.0)) == results.Ratio(2.0, 2.0, 2.0)
    assert results.ratio(series(200.0), Series()) is None
    assert results.ratio(series(200.0), series(0.0)) is None


def test_a_detail_is_taken_from_the_samples_that_have_it() -> None:
    found = series(1.0, 2.0, detail={"cpu": 3.0})
    found.samples.append(Sample(round=2, value=3.0, detail={"cpu": 9.0}))
    found.samples.append(Sample(round=3, value=3.0))
    assert found.middle("cpu") == 3.0
    assert found.middle("other") is None


def test_a_run_is_read_back(tmp_path: Path) -> None:
    before = run(hello=rates(asgiri=series(1.5, problem="a"), uvicorn=series(skipped="not installed")))
    results.save(before, tmp_path / "run.json")
    assert results.load(tmp_path / "run.json") == before


@pytest.mark.parametrize("text", ["", "[]", '{"python": 3}'])
def test_a_file_that_is_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(MergeError, match=r"run\.json: "):
        results.load(tmp_path / "run.json")
    with pytest.raises(MergeError, match="No such file"):
        results.load(tmp_path / "none.json")


def test_merging_keeps_interpreters_apart_and_the_later_case() -> None:
    first = run(hello=rates(asgiri=series(1.0)), tls=rates(asgiri=series(2.0)))
    other = run("CPython 3.9.1", hello=rates(asgiri=series(3.0)))
    again = run(tls=rates(asgiri=series(4.0)))
    again.seconds = 2
    merged = results.merge([first, other, again])
    assert [one.python for one in merged] == ["CPython 3.9.1", "CPython 3.13.0"]
    assert {name: case.series["asgiri"].median for name, case in merged[1].cases.items()} == {"hello": 1.0, "tls": 4.0}
    assert merged[1].seconds == 2


def test_runs_of_different_machines_or_packages_are_not_merged() -> None:
    other = run()
    other.machine["CPU"] = "Another"
    with pytest.raises(MergeError, match="the machine of these runs differ: CPU"):
        results.merge([run(), other])
    other = run()
    other.versions["wrk"] = "5"
    with pytest.raises(MergeError, match="the packages of these runs differ: wrk"):
        results.merge([run(), other])


def test_targets() -> None:
    least, most = Target("hello", "uvicorn", 1.8), Target("idle10k", None, 120.0, at_most=True)
    assert (least.says, most.says) == (">= 1.8 x uvicorn", "<= 120 MiB")
    figure = least.measured(rates(asgiri=series(19.0), uvicorn=series(10.0)))
    assert figure is not None
    assert least.met(figure)
    assert not least.met(results.Ratio(1.79, 1.7, 1.9))
    memory = most.measured(CaseResult(unit=MIB, series={"asgiri": series(130.0, 110.0, 119.0)}))
    assert memory == results.Ratio(119.0, 110.0, 130.0)
    assert most.met(memory)
    assert least.measured(rates(asgiri=series(19.0))) is None
    assert most.measured(rates(asgiri=series(skipped="no"))) is None


def test_every_target_is_about_a_case_that_there_is() -> None:
    for target in TARGETS:
        case = CASES[target.case]
        if target.against is None:
            continue
        if target.against == "asgiri without":
            assert "asgiri" in case.without
        else:
            assert target.against in SERVERS


def test_the_table_on_the_terminal() -> None:
    bound = {CLIENT_BUSY: 1.0, SERVER_BUSY: 0.5}
    hello = rates(
        nginx=series(40_000.0, 40_000.0, detail=bound),
        asgiri=series(20_000.0, 18_000.0, detail={CPU: 50.0}),
        uvicorn=series(10_000.0, 10_000.0, problem="wrk counted errors: read"),
        granian=series(skipped="did not start"),
    )
    text = report.text(run(hello=hello))
    assert re.search(r"^  nginx +40,000 +0% +0\.47x \(0\.45 to 0\.50\) +\*$", text, re.MULTILINE)
    assert re.search(r"^  asgiri +19,000 +11% +50\.0$", text, re.MULTILINE)
    assert re.search(r"^  uvicorn +10,000 +0% +1\.90x \(1\.80 to 2\.00\) +!$", text, re.MULTILINE)
    assert "  granian: skipped: did not start\n" in text
    assert "  uvicorn: wrk counted errors: read\n" in text
    assert re.search(r"^  hello +>= 1\.8 x uvicorn +1\.90  met", text, re.MULTILINE)
    assert re.search(r"^  hello +>= 1 x h2corn +-  not measured", text, re.MULTILINE)


def test_a_missed_target_says_by_how_much() -> None:
    text = report.text(run(hello=rates(asgiri=series(9.0), h2corn=series(10.0))))
    assert re.search(r"hello +>= 1 x h2corn +0\.90  missed by 10\.0% *$", text, re.MULTILINE)


def test_a_target_that_was_measured_with_flaws_says_so() -> None:
    text = report.text(run(hello=rates(asgiri=series(20.0), h2corn=series(10.0, problem="busy"), uvicorn=series(1.0))))
    assert re.search(r"hello +>= 1 x h2corn +2\.00  met ! *$", text, re.MULTILINE)
    assert re.search(r"hello +>= 1\.8 x uvicorn +20\.00  met *$", text, re.MULTILINE)


def test_the_document_has_ratios_and_no_rates() -> None:
    found = run(
        hello=rates(
            asgiri=series(76543.0, detail={CPU: 10.0}),
            uvicorn=series(38271.5, detail={CPU: 25.0}),
            problem_free=Series(),
        ),
        access=rates(
            **{"asgiri": series(90.0), "asgiri without": series(100.0), "fastpysgi": series(skipped="no log")}
        ),
        memory=CaseResult(unit=MIB, series={"asgiri": series(27.3), "uvicorn": series(31.25)}),
    )
    found.commands["uvicorn"] = "uvicorn app:app"
    found.notes.append("the machine was not quiet")
    text = report.markdown([found], "")
    assert "| hello: GET, 64 connections | 2.00 | - | 0% |" in text
    assert "(of its own rate without: 0.90) | - | - | - |" in text
    assert "| hello | 2.50 | - |" in text  # CPU time
    assert "| memory: resident memory of an idle worker | 27.3 | 31.2 |" in text
    assert "- fastpysgi was not measured: no log: access\n" in text
    assert "- the machine was not quiet\n" in text
    assert "- uvicorn: `uvicorn app:app`" in text
    assert "Measured 2030-01-02, 3 rounds of 4 s. Machine: CPU Some CPU, cores 2. asgiri at abc1234" in text
    assert "76543" not in text
    assert "38271" not in text


def test_figures_with_flaws_are_marked_in_the_document() -> None:
    bound = {CLIENT_BUSY: 0.99, SERVER_BUSY: 0.6}
    hello = rates(
        asgiri=series(20.0), nginx=series(40.0, detail=bound), uvicorn=series(10.0, 8.0, problem="closed early")
    )
    text = report.markdown([run(hello=hello)], "")
    assert "| hello: GET, 64 connections | 0.50* | 2.00! | 0% |" in text
    assert "- ! uvicorn: closed early: hello (2 of 2)\n" in text


def test_wrk_is_no_limit_where_others_took_its_core() -> None:
    bound = {CLIENT_BUSY: 0.99, SERVER_BUSY: 0.6}
    assert report.wrk_bound(series(1.0, detail=bound))
    assert not report.wrk_bound(series(1.0, detail=bound, problem=CLIENT_SHARED))
    assert not report.wrk_bound(series(1.0, detail={CLIENT_BUSY: 0.99, SERVER_BUSY: 0.99}))


def test_notes_by_hand_are_kept() -> None:
    notes = "\nTLS misses its target by 2%.\n\n## Notes\n\nMore.\n"
    once = report.markdown([], notes)
    assert "Nothing has been measured yet" in once
    assert report.kept_notes(once) == notes
    assert report.markdown([], report.kept_notes(once)) == once
    assert report.kept_notes("# Something else\n") == ""


def test_the_document_in_the_tree_is_one_of_the_generator() -> None:
    document = (HERE.parent / "docs" / "benchmarks.md").read_text("utf-8")
    assert document.startswith(report.markdown([], "").partition("## Method")[0])
    assert report.METHOD in document
    assert report.KEPT in document


def test_a_browser_sends_fifteen_fields() -> None:
    assert len(BROWSER) + 1 == 15  # wrk adds Host
    assert "Cookie" in BROWSER


def test_the_script_posts_what_the_case_expects() -> None:
    script = CASES["echo"].script
    assert script is not None
    text = script.read_text("ascii")
    match = re.search(r'wrk\.body = string\.rep\("(.)", (\d+)\)', text)
    assert match is not None
    assert (match[1] * int(match[2])).encode() == ECHO == CASES["echo"].expect
    assert f'wrk.method = "{CASES["echo"].request.method}"' in text


@pytest.mark.parametrize("name", SERVERS)
def test_how_a_server_is_started(name: str, tmp_path: Path) -> None:
    server = SERVERS[name]
    launch = Launch(
        tmp_path / "bin",
        tmp_path,
        12345,
        certfile=tmp_path / "cert.pem",
        keyfile=tmp_path / "key.pem",
        access_log=True,
    )
    text = " ".join(server.command(launch))
    if name == "nginx":
        text = (tmp_path / "nginx.conf").read_text("ascii")
    assert "12345" in text
    assert ("cert.pem" in text and "key.pem" in text) or "tls" in server.lacks
    assert str(tmp_path) not in shown(server, "uvloop")
    assert "/" not in shown(server, "uvloop")
    assert set(server.lacks) <= set(CASES)


def test_names_on_the_command_line() -> None:
    assert names(CASES)("hello, tls") == ["hello", "tls"]
    with pytest.raises(Exception, match="'helo' is none of hello, single"):
        names(CASES)("helo")


def test_what_must_be_installed() -> None:
    assert needed("fastpysgi") == ["fastpysgi"]
    assert needed("uvicorn[standard]") == ["uvicorn", "uvloop", "httptools"]
    assert needed("gunicorn[fast]") == ["gunicorn", "gunicorn-h1c"]


def test_an_extra_never_changes_the_version_of_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv, asked = Venv(tmp_path), []

    def pip(*args: str) -> subprocess.CompletedProcess[str]:
        asked.append(args)
        return subprocess.CompletedProcess(args, 1, "", "one\nERROR: none found\n")

    monkeypatch.setattr(venv, "packages", lambda: {"gunicorn": "27.0.1"})
    monkeypatch.setattr(venv, "pip", pip)
    venv._add_extra("gunicorn[fast]")
    assert asked == [("install", "gunicorn[fast]==27.0.1")]
    assert venv.notes == ["gunicorn 27.0.1 ran without what gunicorn[fast] adds: ERROR: none found"]
    monkeypatch.setattr(venv, "packages", lambda: {"gunicorn": "27.0.1", "gunicorn-h1c": "0.7"})
    venv._add_extra("gunicorn[fast]")
    assert len(asked) == 1


def test_a_version_that_changed_is_told() -> None:
    before = {"asgiri": "0.1", "gunicorn": "27", "h2": "4"}
    after = {"asgiri": "0.2", "gunicorn": "26", "h2": "4", "new": "1"}
    assert changes(before, after) == ["gunicorn went from 27 to 26 while the servers were installed"]


def test_an_answer_is_checked() -> None:
    check(Answer(200, b"hi", closes=False), b"hi", closes=False)
    for answer, closes, words in (
        (Answer(500, b"hi", closes=False), False, "answered 500"),
        (Answer(200, b"ho", closes=False), False, "answered b'ho' .2 bytes., not b'hi'"),
        (Answer(200, b"hi", closes=True), False, "closed the connection"),
        (Answer(200, b"hi", closes=False), True, "kept the connection open"),
    ):
        with pytest.raises(ServerError, match=words):
            check(answer, b"hi", closes=closes)


def test_lines_of_both_logs_count(tmp_path: Path) -> None:
    assert lines(tmp_path) == 0
    (tmp_path / "output").write_bytes(b"ready\n")
    (tmp_path / "access.log").write_bytes(b"a\nb\nhalf")
    assert lines(tmp_path) == 3


def test_a_free_port_is_none_of_the_clients() -> None:
    assert 10_000 <= free_port() < 32_000


@linux
def test_processes_and_their_memory() -> None:
    own = next(one for one in system.processes() if one.pid == os.getpid())
    assert (own.session, own.state) == (os.getsid(0), "R")
    memory = system.memory(os.getpid())
    assert 1 < memory.pss <= memory.rss < 4096
    before = system.core(0)
    assert (system.core(0) - before).busy <= 1


def start(folder: Path, script: str) -> Running:
    """A shell that runs the script; ready when it has said so."""
    running = Running(["sh", "-c", script], core=min(os.sched_getaffinity(0)), folder=folder, env={"PATH": os.defpath})
    assert process.wait_until(lambda: "ready" in running.tail(), 10)
    return running


@linux
def test_a_server_is_ended_with_its_children(tmp_path: Path) -> None:
    with start(tmp_path, "sleep 600 & sleep 600 & echo ready; wait") as running:
        assert process.wait_until(lambda: len(running.members()) == 3, 10)
        assert not running.ended
        pids = [one.pid for one in running.members()]
    alive = [one for one in system.processes() if one.pid in pids and one.state != "Z"]
    assert not alive
    with pytest.raises(ChildProcessError):
        os.waitpid(running.pid, os.WNOHANG)


@linux
def test_what_ignores_term_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.2)
    running = start(tmp_path, "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    assert running.stop()[0] == "did not end within 0 s of TERM"
    assert running.members() == []


@linux
def test_how_a_process_ended(tmp_path: Path) -> None:
    with start(tmp_path, "echo one; echo ready; exit 3") as running:
        assert process.wait_until(lambda: running.ended, 10)
        assert running.epitaph() == "ended with exit code 3: one / ready"
    with start(tmp_path, "echo ready; kill -SEGV $$") as running:
        assert process.wait_until(lambda: running.ended, 10)
        assert running.epitaph() == f"ended by signal {signal.SIGSEGV}: ready"


def test_the_command_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--help"], cwd=HERE.parent, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert "--merge" in done.stdout
