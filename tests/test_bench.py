"""The harness of tests/bench, without its servers: what it reads, what it works out, what it writes, what it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import h2.config
import h2.connection
import h2.events
import pytest

from asgiri.server import Server
from asgiri.types import ASGIApp, Receive, Scope, Send
from tests.bench import client_http2, h2load, load, process, report, results, system, websocket, wrk
from tests.bench.__main__ import commands, names, shown
from tests.bench.app import app as bench_app
from tests.bench.cases import BROWSER, CASES, ECHO, MESSAGES, MIB, RATE, TARGETS, VARIED, Target
from tests.bench.client import Answer, Request, ServerError, check
from tests.bench.measure import Plan, free_port, lines, spoken
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
from tests.bench.servers import SERVERS, Http, Launch
from tests.bench.venv import Venv, changes, needed
from tests.clients.test_http1 import command
from tests.proto.fakes import in_loop
from tests.serving import config

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


BAD = bytes.fromhex("000000 04 00 00000000  000001 00 00 00000000 41")  # SETTINGS, then DATA on stream 0


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
    assert outcome.latency == pytest.approx({"p50": 635e-6, "p99": 1.25})
    assert outcome.errors == {}


def test_errors_that_wrk_counts() -> None:
    text = OUTPUT + "  Socket errors: connect 0, read 16, write 7, timeout 0\n  Non-2xx or 3xx responses: 3\n"
    assert wrk.parse(text).errors == {"read": 16, "write": 7, "status": 3}


@pytest.mark.parametrize("text", ["", "unable to connect", OUTPUT.replace("99%", "98%"), OUTPUT.replace("/sec", "")])
def test_what_wrk_never_prints_is_an_error(text: str) -> None:
    with pytest.raises(load.LoadError, match="in the output of wrk"):
        wrk.parse(text)


H2LOAD = """\
spawning thread #0: 16 total client(s). Timing-based test with 0s of warm-up time and 1s of main duration.
progress: 100% of clients started
TLS Protocol: TLSv1.3
Cipher: TLS_AES_128_GCM_SHA256
Application protocol: h2
Stopped all clients for thread #0

finished in 1.50s, 37840.50 req/s, 1.45MB/s
requests: 56761 total, 57017 started, 56761 done, 56761 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 56800 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.45MB (1515472) total, 333.55KB (341552) headers (space savings 90.40%), 480.39KB (491920) data
                     min         max         mean         sd        +/- sd
time for request:      365us     27.64ms      6.48ms      3.46ms    81.60%
time for connect:      122us      1.00ms       576us       279us    62.50%
"""


def test_the_output_of_h2load() -> None:
    outcome = h2load.parse(H2LOAD)
    assert (outcome.requests, outcome.rate, outcome.elapsed) == (56761, 37840.5, 1.5)
    assert outcome.latency == pytest.approx({"mean": 6.48e-3, "max": 27.64e-3})
    assert (outcome.protocol, outcome.errors) == ("h2 TLSv1.3", {})
    plain = h2load.parse(H2LOAD.replace("TLS Protocol: TLSv1.3\n", "").replace("protocol: h2", "protocol: h2c"))
    assert plain.protocol == "h2c"


def test_errors_that_h2load_counts() -> None:
    text = H2LOAD.replace("0 failed, 0 errored, 0 timeout", "7 failed, 4 errored, 3 timeout")
    text = text.replace("0 3xx, 0 4xx, 0 5xx", "0 3xx, 5 4xx, 6 5xx")
    assert h2load.parse(text).errors == {"failed": 7, "errored": 4, "timeout": 3, "status": 11}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "in the output of h2load"),
        (H2LOAD.partition("finished")[0], "in the output of h2load"),
        (H2LOAD.replace("protocol: h2", "protocol: http/1.1"), "the server spoke http/1.1 with h2load"),
    ],
)
def test_what_h2load_does_not_count_as_http2_is_an_error(text: str, words: str) -> None:
    with pytest.raises(load.LoadError, match=words):
        h2load.parse(text)


def test_how_h2load_is_called(tmp_path: Path) -> None:
    one = h2load.Load(("/echo",), 16, 8, {"A": "b"}, b"body")
    command = h2load.command("http://h", one, seconds=3, folder=tmp_path)
    body = tmp_path / "h2load-body"
    assert command == ["h2load", "-t1", "-c16", "-m8", "-D3", "-H", "A: b", "-d", str(body), "http://h/echo"]
    assert body.read_bytes() == b"body"
    many = h2load.Load(("/a", "/b"), 1, 100, {})
    command = h2load.command("https://h", many, seconds=3, folder=tmp_path)
    assert command[-2:] == ["-i", str(tmp_path / "h2load-paths")]
    assert (tmp_path / "h2load-paths").read_text() == "https://h/a\nhttps://h/b\n"


def test_the_targets_vary() -> None:
    assert len(set(VARIED)) == len(VARIED) == 1000
    assert len({len(path) for path in VARIED}) > 15  # so that Huffman coding ends at every bit of an octet
    assert all(re.fullmatch(r"/any/[\w/-]+\?[\w=&,-]+", path, re.ASCII) for path in VARIED)
    assert CASES["h2-varied"].paths == VARIED


@linux
def test_a_load_generator_that_fails() -> None:
    core = min(os.sched_getaffinity(0))
    text, cpu = load.run(["sh", "-c", "echo done"], core=core, seconds=1)
    assert text == "done\n"
    assert 0 <= cpu < 5
    with pytest.raises(load.LoadError, match="sh ended with 3: no such host"):
        load.run(["sh", "-c", "echo no such host >&2; exit 3"], core=core, seconds=1)


def test_a_load_generator_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "GRACE", -0.9)
    with pytest.raises(load.LoadError, match="sleep did not end within 0 s"):
        load.run(["sleep", "60"], core=min(os.sched_getaffinity(0)), seconds=1)


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


def test_a_run_may_need_packages_that_another_does_not() -> None:
    other = run()
    del other.versions["wrk"]
    other.versions["picows"] = "2"
    (merged,) = results.merge([run(), other])
    assert merged.versions == run().versions | {"picows": "2"}


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
            continue
        for name in (target.ours, target.against):
            assert case.http in spoken(SERVERS[name], case)


def test_the_reference_engine_has_targets_of_its_own() -> None:
    target = next(one for one in TARGETS if one.case == "h2-hello" and one.against == "hypercorn")
    assert target.says == "asgiri-h2 >= 1 x hypercorn"
    case = rates(**{"asgiri": series(100.0), "asgiri-h2": series(9.0), "hypercorn": series(10.0, problem="busy")})
    assert target.measured(case) == results.Ratio(0.9, 0.9, 0.9)
    assert target.flawed(case)


def test_who_is_measured_over_which_protocol() -> None:
    def names_of(plan: Plan, case: str) -> list[str]:
        return [server.name for server in plan.entrants(CASES[case])]

    main = [server for server in SERVERS.values() if server.chosen]
    plan = Plan([], main, Path("bin"), {"granian": "not installed"}, 1, 1)
    assert names_of(plan, "h2-hello") == ["nginx", "asgiri", "asgiri-h2", "h2corn", "granian", "hypercorn"]
    assert "asgiri-h2" not in names_of(plan, "hello")
    assert "uvicorn" in names_of(plan, "hello")
    assert plan.obstacle(CASES["h2-hello"], SERVERS["granian"]) == "not installed"
    assert plan.obstacle(CASES["h2-echo"], SERVERS["nginx"]) == "runs no application"
    messages = ["asgiri", "asgiri-wsproto", "h2corn", "uvicorn", "uvicorn-wsproto", "granian", "hypercorn"]
    assert names_of(plan, "ws-single") == messages
    assert names_of(plan, "ws-h2") == ["asgiri", "asgiri-wsproto", "h2corn", "hypercorn"]
    assert plan.obstacle(CASES["ws-h2"], SERVERS["uvicorn"]) == "is not measured with WebSocket over HTTP/2"
    named = Plan([], [SERVERS["uvicorn"]], Path("bin"), {}, 1, 1, named=True)
    assert names_of(named, "h2-hello") == ["uvicorn"]
    assert named.obstacle(CASES["h2-hello"], SERVERS["uvicorn"]) == "is not measured over HTTP/2"


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


def test_the_load_generator_is_no_limit_where_others_took_its_core() -> None:
    bound = {CLIENT_BUSY: 0.99, SERVER_BUSY: 0.6}
    assert report.client_bound(series(1.0, detail=bound))
    assert not report.client_bound(series(1.0, detail=bound, problem=CLIENT_SHARED))
    assert not report.client_bound(series(1.0, detail={CLIENT_BUSY: 0.99, SERVER_BUSY: 0.99}))


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


@pytest.mark.parametrize(("name", "http"), [(name, http) for name in SERVERS for http in SERVERS[name].http])
def test_how_a_server_is_started(name: str, http: Http, tmp_path: Path) -> None:
    server = SERVERS[name]
    launch = Launch(
        tmp_path / "bin",
        tmp_path,
        12345,
        certfile=tmp_path / "cert.pem",
        keyfile=tmp_path / "key.pem",
        access_log=True,
        http=http,
    )
    text = " ".join(server.command(launch))
    if name == "nginx":
        text = (tmp_path / "nginx.conf").read_text("ascii")
    assert "12345" in text
    assert ("cert.pem" in text and "key.pem" in text) or "tls" in server.lacks
    command = shown(server, "uvloop", http).replace("http/1.1", "")
    assert str(tmp_path) not in command
    assert "/" not in command
    assert set(server.lacks) <= set(CASES)


def test_the_commands_of_both_protocols_are_told() -> None:
    found = commands([SERVERS["granian"], SERVERS["uvicorn"]], [CASES["hello"], CASES["h2-hello"]], "uvloop")
    assert list(found) == ["granian", "granian, HTTP/2", "uvicorn"]
    assert "--http 1 " in found["granian"]
    assert "--http 2 " in found["granian, HTTP/2"]
    found = commands([SERVERS["granian"], SERVERS["uvicorn-wsproto"]], [CASES["hello"], CASES["ws-single"]], "uvloop")
    assert list(found) == ["granian", "granian, WebSocket", "uvicorn-wsproto, WebSocket"]
    assert " --no-ws " in found["granian"]
    assert " --ws " in found["granian, WebSocket"]


def test_each_protocol_has_a_table_of_its_own() -> None:
    found = run(hello=rates(asgiri=series(20.0), uvicorn=series(10.0)))
    two = {"asgiri": series(30.0), "asgiri-h2": series(10.0), "granian": series(20.0)}
    found.cases["h2-hello"] = rates(**two)
    text = report.markdown([found], "")
    first, second = text.partition("over HTTP/2, ")[::2]
    assert "Requests a second over HTTP/1.1, " in first
    assert "| case | uvicorn | spread |" in first
    assert "| case | asgiri-h2 | granian | spread |" in second
    assert "| h2-hello: HTTP/2 GET, 16 connections of 16 streams | 3.00 | 1.50 |" in second


def test_messages_have_a_table_of_their_own() -> None:
    found = run(hello=rates(asgiri=series(20.0), uvicorn=series(10.0)))
    one = {"asgiri": series(30.0), "uvicorn": series(12.0)}
    two = {"asgiri": series(21.0, detail={CPU: 12.0}), "asgiri without": series(30.0, detail={CPU: 10.0})}
    for name, rows in (("ws-single", one), ("ws-h2", two)):
        found.cases[name] = CaseResult(unit=MESSAGES, series=rows)
    text = report.markdown([found], "")
    assert "| ws-single: " in text.partition("Messages a second")[2]
    assert "| 2.50 |" in text
    assert "(of its own rate over HTTP/1.1: 0.70)" in text
    assert "| ws-h2 (of its own over HTTP/1.1: 1.20) |" in text
    assert re.search(r"ws-h2 +>= 0\.6 x asgiri without +0\.70  met", report.text(found))


SAID = '{"messages": 900, "elapsed": 1.5, "latency": {"p50": 0.001, "p99": 0.004}, "errors": {"closed early": 2}}\n'


def test_the_output_of_the_websocket_client() -> None:
    outcome = websocket.parse(SAID)
    assert (outcome.requests, outcome.rate, outcome.elapsed) == (900, 600.0, 1.5)
    assert outcome.latency == {"p50": 0.001, "p99": 0.004}
    assert outcome.errors == {"closed early": 2}


@pytest.mark.parametrize("text", ["", "Killed", "{}", SAID.replace("1.5", "0"), SAID.replace("900", "null")])
def test_what_the_websocket_client_never_prints_is_an_error(text: str) -> None:
    with pytest.raises(load.LoadError, match="the WebSocket client printed"):
        websocket.parse(text)


async def measured(server: Server, http: int, *, flight: int = 1, size: int = 64) -> load.Outcome:
    asked = websocket.WebSocketLoad(connections=2, streams=http, flight=flight, size=size)
    port = server.sockets[0].getsockname()[1]
    out, errors = await command(*websocket.command(Path(sys.executable), port, asked, http=http, seconds=0.1))
    assert not errors
    return websocket.parse(out.decode())


@in_loop
async def test_the_websocket_client_counts_what_comes_back() -> None:
    async def whole(scope: Scope, receive: Receive, send: Send) -> None:
        counted.append(scope["http_version"])
        await bench_app(dict(scope), receive, send)

    async def spoilt(scope: Scope, receive: Receive, send: Send) -> None:
        async def other(message: Any) -> None:
            await send({**message, "bytes": b"!" * len(message["bytes"])} if "bytes" in message else message)

        await bench_app(dict(scope), receive, other)

    counted: list[str] = []
    async with Server(whole, config=config()) as server:
        for http, flight, size in ((1, 4, 64), (2, 4, 64), (1, 1, 70_000), (2, 1, 5000)):
            outcome = await measured(server, http, flight=flight, size=size)
            assert outcome.errors == {}
            assert outcome.requests > 2 * 4
            assert outcome.rate == pytest.approx(outcome.requests / outcome.elapsed)
    assert counted == 2 * (["1.1"] * 2 + ["2"] * 4)
    async with Server(spoilt, config=config()) as server:
        for http in (1, 2):
            outcome = await measured(server, http)
            assert set(outcome.errors) == {"another message came back"}
            assert 0 <= outcome.requests - outcome.errors["another message came back"] <= 4  # as the clock stopped


@in_loop
async def test_idle_websockets() -> None:
    async with Server(cast(ASGIApp, bench_app), config=config()) as server:
        port = server.sockets[0].getsockname()[1]
        for compressed in (False, True):
            idle = await asyncio.to_thread(websocket.IdleWebSockets, port, 5, bytes(64), compressed=compressed)
            with idle:
                assert len(server._shared.sessions if server._shared else ()) == 5
                assert idle.gone() == 0


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


def test_an_answer_over_http2_is_read() -> None:
    def serve(sock: socket.socket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        body = b""
        while True:
            for event in connection.receive_data(sock.recv(1 << 16)):
                if isinstance(event, h2.events.DataReceived):
                    body += event.data or b""
                elif isinstance(event, h2.events.StreamEnded):
                    connection.send_headers(1, [(":status", "200")])
                    connection.send_data(1, body.upper(), end_stream=True)
                    sock.sendall(connection.data_to_send())
                    return

    with answering(serve) as port:
        answer = client_http2.fetch(port, Request("/echo", "POST", {"Content-Type": "text/plain"}, b"hello"))
    assert answer == Answer(200, b"HELLO", closes=False)


@pytest.mark.parametrize(
    ("said", "words"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "closed the connection"), (b"", "closed"), (BAD, "ProtocolError")],
)
def test_who_speaks_no_http2_is_noticed(said: bytes, words: str) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(1 << 16)
        sock.sendall(said)

    with answering(serve) as port, pytest.raises(client_http2.Http2Error, match=words):
        client_http2.fetch(port, Request())


@contextlib.contextmanager
def answering(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where one connection is served, by a thread that is gone afterwards."""

    def accept() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(20)
            serve(sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


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
    assert "h2-varied: " in done.stdout
