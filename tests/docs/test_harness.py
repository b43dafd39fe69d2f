"""What runs the snippets can fail: pages that are wrong, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs import test_prose
from tests.docs.checks import CHECKS, check_expression, within
from tests.docs.markdown import Page, read
from tests.docs.pages import scenes
from tests.docs.scene import Outcome, Scene, held_up, isolated, matches
from tests.docs.stand_ins import STAND_INS, MisuseError
from tests.pki import Pki

ROOT = Path(__file__).resolve().parents[2]

# Scenes


def play(text: str, directory: Path, pki: Pki) -> list[Outcome]:
    """What comes of the blocks of a page that is one scene."""
    if not isolated():
        pytest.skip("no namespaces of one's own here (unshare, ip)")
    (blocks,) = scenes(read(text))
    scene = Scene(
        blocks, directory / "scene", {"cert.pem": pki.certfile, "key.pem": pki.keyfile, "ca.pem": pki.ca_file}
    )
    scene.directory.mkdir()
    scene.run()
    return [scene.outcomes[one.id] for one in blocks]


def block(language: str, text: str, words: str = "then") -> str:
    return f"<!-- snippet: {words} -->\n```{language}\n{text}\n```\n\n"


def test_servers_go_on_through_a_scene_and_are_stopped(tmp_path: Path, pki: Pki) -> None:
    page = (
        block("python", 'from asgiri.demo import app\nprint("imported")', "file shop.py")
        + block("sh", "asgiri --certfile cert.pem --keyfile key.pem shop:app", "then with certificates")
        + block(
            "console",
            "$ curl --cacert ca.pem -o /dev/null -w '%{http_code} %{http_version}\\n' https://localhost:8000/\n200 2",
        )
        + block(
            "sh", "asgiri -b 127.0.0.1:8001 shop:app &\ncurl -f -o /dev/null http://127.0.0.1:8001/\nkill %1; wait %1"
        )
        + block("sh", "asgiri shop:app\nasgiri --pidfile /run/asgiri.pid --set log.level=error shop:app  # again")
        + block("sh", "asgirictl reload --wait\nkill -HUP $(cat /run/asgiri.pid)\n! curl -f http://127.0.0.1:8001/")
    )
    outcomes = play(page, tmp_path, pki)
    assert [(one.trouble, one.output) for one in outcomes if one.trouble] == []
    assert "generation 2" in outcomes[-1].output


def test_what_goes_wrong_in_a_scene_is_told_where_it_did(tmp_path: Path, pki: Pki) -> None:
    page = (
        block("console", "$ echo one; echo two\none\n$ true", "with A=b")
        + block("console", "$ false")
        + block("console", "$ echo $A; echo x > config/asgiri.yaml\nb\n...: Read-only file system")
        + block("sh", "exit 0", "then fails 3")
        + block("sh", "true")
    )
    troubles = [one.trouble for one in play(page, tmp_path, pki)]
    assert troubles == [
        "line 3: not what was expected:\none\n-- but:\none\ntwo\n",
        "line 10: ended with 1",
        "",
        "ended with 96",
        "not reached: the block at page.md:21 ended it with 96",
    ]


def test_a_server_that_never_serves_or_ends_badly(tmp_path: Path, pki: Pki) -> None:
    (never,) = play(block("sh", "asgiri main:no_such", ""), tmp_path, pki)
    assert never.trouble == "ended with 3"
    assert "no_such" in never.output
    (tmp_path / "2").mkdir()
    page = block("sh", "asgiri --pidfile a.pid main:app") + block("sh", "kill -KILL $(cat a.pid)")
    served, killed = play(page, tmp_path / "2", pki)
    assert served.trouble == ""
    assert killed.trouble == "the scene ended with 97"
    assert "ended with -9" in killed.output


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("asgiri main:app", False),
        ("asgiri main:app\n# or\nasgiri -w 4 \\\n  main:app", False),
        ("A=1 asgiri main:app &\ncurl http://127.0.0.1:8000", False),
        ("asgiri --check-config && kill -HUP 1\nls", False),
        ("asgiri --print-config > asgiri.yaml\nls", False),
        ("asgiri main:app\ncurl http://127.0.0.1:8000", True),
        ("python3 -m asgiri main:app  # serves\nls", True),
    ],
)
def test_nothing_stands_behind_a_server(text: str, wrong: bool) -> None:
    assert bool(held_up(text)) is wrong


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        ("a\nb", "a\nb\n", True),
        ("a\n...\nb", "a\nb\n", True),
        ("a\n...\nb", "a\n1\n2\nb\n", True),
        ("a ... b", "a 1 b", True),
        ("a ... b", "a 1\nb", False),
        ("a", "a\nb", False),
        ("2026-11-26 07:21:05.123 INFO ready after 12 ms", "2027-01-02 01:00:00.000 INFO ready after 340 ms", True),
        ("pid 12 [x]", "pid 4711 [x]", True),
        ("(a)", "a", False),
        ("...", "", True),
    ],
)
def test_output_matches(expected: str, got: str, same: bool) -> None:
    assert matches(expected, got) is same


@pytest.mark.parametrize(
    ("command", "good"),
    [
        ("pip install asgiri[fast,top] 'uvloop>=0.21' -U", True),
        ("pip install .[test]", True),
        ("pip install asgiri[nonsense]", False),
        ("pip instal asgiri", False),
        ("apt-get install -y nginx", True),
        ("apt-get install Nginx!", False),
        ("systemctl reload nginx", True),
        ("systemctl daemon-reload", True),
        ("systemctl relaod asgiri", False),
        ("systemctl start", False),
        ("kubectl apply -f README.md", True),
        ("kubectl apply -f no/such.yaml", False),
        ("nomad job run no-such.hcl", False),
        ("docker build -f no-such .", False),
        ("docker run --rm -p 8000:8000 shop", True),
        ("ruff chekc", False),
        ("pytest tests/docs -q", True),
        ("pytest tests/no_such.py", False),
    ],
)
def test_stand_ins_look_at_their_arguments(command: str, good: bool) -> None:
    name, *arguments = command.replace("'", "").split()
    if good:
        STAND_INS[name](ROOT, arguments)
    else:
        with pytest.raises(MisuseError):
            STAND_INS[name](ROOT, arguments)


# Blocks that are read


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("yaml", "workers:\n  cuont: 3", "cuont"),
        ("python", "from asgiri.server import Serv", "Serv"),
        ("python", "async def app(scope, receive, send):\n    raise KeyError(scope['type'])", "500"),
        ("json", "{'a': 1}", "Expecting property name"),
        ("hcl", 'job "a" {', "Unexpected"),
        ("promql", "rate(asgiri_request_total[5m])", "no such metric: asgiri_request_total"),
        ("dockerfile", "FROM python:3.13-slim\nCMD asgiri main:app", "Expecting value"),
        ("dockerfile", 'FROM python:3.13-slim\nCMD ["asgiri", "--wokers", "2"]', "--wokers"),
        ("dockerfile", "FROM python:3.13-slim\nRUN pip install asgiri[nonsense]", "nonsense"),
        ("ini", "[Service]\nExecStart=/usr/bin/asgiri\nTypo=notify", "Typo"),
        ("nginx", "server { listen 8080; proxy_passs http://127.0.0.1:8000; }", "proxy_passs"),
        ("haproxy", "backend app\n  server a 127.0.0.1:8000 chekc", "chekc"),
        ("logrotate", "/var/log/a.log {\n  dayly\n}", "dayly"),
    ],
)
def test_a_block_that_is_wrong(language: str, text: str, said: str, tmp_path: Path, pki: Pki) -> None:
    (snippet,) = read(f"```{language}\n{text}\n```").snippets
    with pytest.raises(Exception, match=said):
        CHECKS[language](snippet, tmp_path, pki)


@pytest.mark.parametrize(
    "expression",
    [
        "sum(rate(asgiri_requests_total[5m])",
        "asgiri_request_total",
        'asgiri_requests_total{state="5xx"}',
        "summ(asgiri_requests_total)",
        "rate(asgiri_requests_total[five])",
    ],
)
def test_an_expression_that_is_wrong(expression: str) -> None:
    with pytest.raises(AssertionError):
        check_expression(expression)


def test_a_part_of_a_file_is_put_where_it_belongs() -> None:
    assert within("    a: 1\n\n    b:\n      - c", "log.access") == "log:\n  access:\n    a: 1\n\n    b:\n      - c\n"


# Prose


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            test_prose.broken_links,
            "[a](README.md#work-on-it) [b](https://example.org/x)",
            "[a](no.md) [b](#no) [c](docs)",
        ),
        (
            test_prose.wrong_commands,
            "`asgiri -w 4 -c FILE main:app && kill -HUP ...` `asgirictl --json scale N` `asgiri --set loop=uvloop`",
            "`asgiri --wokers 4` `asgirictl scael 4` `asgirictl scale` `asgiri --set lop=uvloop` `asgiri -w four`",
        ),
        (test_prose.unknown_flags, "`--bind` `--wait`", "`--bnid`"),
        (test_prose.unknown_keys, "`workers.count` `listen[].tls` `env.TOKEN`", "`workers.cuont: 3` `listen[].tsl`"),
        (test_prose.unknown_variables, "`ASGIRI_WORKERS__COUNT`", "ASGIRI_WORKERS__CUONT"),
        (test_prose.unknown_signals, "`kill -HUP PID` `SIGKILL`", "`kill -HPU PID` `SIGUSR9`"),
        (test_prose.unknown_metrics, '`asgiri_requests_total{status="5xx"}`', "`asgiri_requests` `asgiri_ready{x}`"),
        (
            test_prose.missing_files,
            "`supervisor/fleet.py` `python -m tests.bench`",
            "`supervisor/feelt.py` `python -m tests.no`",
        ),
    ],
)
def test_prose_that_is_wrong(
    check: Callable[[Page], Iterator[tuple[int, str]]],
    good: str,
    bad: str,
) -> None:
    assert list(check(read(good, "README.md"))) == []
    expected = bad.count("](") or bad.count("`") // 2 or 1
    assert len(list(check(read(bad, "README.md")))) == expected


def test_values_that_are_wrong(tmp_path: Path) -> None:
    file = tmp_path / "asgiri.yaml"
    assert list(test_prose.wrong_values(read("`limits.requests: 64` `proxy: {headers: none}`"), file)) == []
    assert len(list(test_prose.wrong_values(read("`limits.requests: many` `proxy: {header: none}`"), file))) == 2


def test_defaults_that_are_wrong(tmp_path: Path) -> None:
    file = tmp_path / "asgiri.yaml"
    good = "`timeouts.keep_alive` (75 s), `limits.header_size` (64KiB), `limits.header_count` (100)"
    assert list(test_prose.wrong_defaults(read(good), file)) == []
    bad = "`timeouts.keep_alive` (65 s), `limits.header_size` (64MiB), `limits.header_count` (1)"
    assert len(list(test_prose.wrong_defaults(read(bad), file))) == 3
