"""Variables in the file: what they become, what is said when they cannot, and that nothing of them is shown."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.config.load import Loaded, load
from asgiri.config.notation import quoted
from asgiri.config.schema import Config, Listen, Process, Timeouts, Tls, Workers
from asgiri.config.variables import expand
from asgiri.errors import ConfigError

Load = Callable[..., Loaded]

ENVIRON = {
    "N": "3",
    "HOST": "127.0.0.1",
    "PORT_": "8000",
    "EMPTY": "",
    "TIME": "90s",
    "YES": "on",
    "DOLLAR": "${N}",
    "COLON": "a: b",
    "HASH": "#x",
    "NULL": "null",
    "SECRET": "s3cret",
}
QUOTED = "within brackets, a value with a variable stands in quotes"
NAMES = "expected a mapping of names to values"
NO_LIST = "; a variable is a text, which may be an entry of a list"
SYNTAX = "expected ${NAME}, ${NAME:-text}, or $${ for ${ itself"


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads ./asgiri.yaml with the given text."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str, environ: dict[str, str] | None = None) -> Loaded:
        Path("asgiri.yaml").write_text(text, "utf-8")
        return load(None, ENVIRON if environ is None else environ)

    return load_text


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("workers: {count: '${N}'}", Config(workers=Workers(count=3))),
        ("workers:\n  count: ${N}", Config(workers=Workers(count=3))),
        ("workers:\n  count: ${NONE:-auto}", Config(workers=Workers(count="auto"))),
        ("timeouts:\n  write: ${TIME}", Config(timeouts=Timeouts(write=90.0))),
        ("factory: ${YES}", Config(factory=True)),
        ("listen:\n  - bind: ${HOST}:${PORT_}", Config(listen=(Listen(bind="127.0.0.1:8000"),))),
        ("listen:\n  - bind: unix:${NONE:-/run}/a.sock", Config(listen=(Listen(bind="unix:/run/a.sock"),))),
        ("listen:\n  - {bind: 'a:1', http: ['${NONE:-h2}']}", Config(listen=(Listen(bind="a:1", http=("h2",)),))),
        (
            "listen:\n  - bind: a:1\n    tls: {certfile: '${NONE:-c.pem}'}",
            Config(listen=(Listen(bind="a:1", tls=Tls(certfile="c.pem")),)),
        ),
        # An empty variable is as good as none where there is a text, and a value where there is none.
        ("root_path: ${EMPTY:-/shop}", Config(root_path="/shop")),
        ("root_path: ${EMPTY}", Config(root_path="")),
        ("root_path: ${NONE:-}", Config(root_path="")),
        ("process:\n  user: ${NONE:-}", Config()),  # a null, where the key may be one
        ("process:\n  user: ${EMPTY}", Config()),
        ("process:\n  user: '${EMPTY}'", Config(process=Process(user=""))),
        ("env: ${NONE:-}", Config()),
        ("app: ${NULL}", Config()),
        ("app: '${NULL}'", Config(app="null")),
        # What a variable brings in is a value, and neither YAML nor another variable.
        ("root_path: ${COLON}", Config(root_path="a: b")),
        ("root_path: ${HASH}", Config(root_path="#x")),
        ("root_path: ${DOLLAR}", Config(root_path="${N}")),
        ("env: {A: '${N}', B: 'x${N}y${N}'}", Config(env={"A": "3", "B": "x3y3"})),
        ("env:\n  A: |\n    ${N}\n    2", Config(env={"A": "3\n2"})),
        # Escapes, and what only looks like a variable.
        ("root_path: $${N}", Config(root_path="${N}")),
        ("root_path: $$${N}", Config(root_path="$${N}")),
        ("root_path: $$$${N}", Config(root_path="$$${N}")),
        ("root_path: $N", Config(root_path="$N")),
        ("root_path: $$N$", Config(root_path="$$N$")),
        ("root_path: '{N}'", Config(root_path="{N}")),
        ("env: {'${N}': x}", Config(env={"${N}": "x"})),  # not in keys
        ("# ${NONE}\n", Config()),
    ],
)
def test_what_a_variable_becomes(loaded: Load, text: str, config: Config) -> None:
    assert loaded(text).config == config


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "workers:\n  count: ${NONE}",
            "2:10: workers.count: the environment has no variable NONE; ${NONE:-text} says what is taken then",
        ),
        ("app: ${}", f'1:6: app: {SYNTAX}, got "${{}}"'),
        ("app: ${1X}", f'1:6: app: {SYNTAX}, got "${{1X}}"'),
        ("app: ${A B}", f'1:6: app: {SYNTAX}, got "${{A B}}"'),
        ("app: ${A-x}", f'1:6: app: {SYNTAX}, got "${{A-x}}"'),
        ("app: ${\xc4}", f'1:6: app: {SYNTAX}, got "${{\xc4}}"'),
        ("app: a${N", f'1:6: app: {SYNTAX}, got "${{N" without its closing brace'),
        (
            "app: ${A:-${N}}",
            '1:6: app: a variable cannot stand in the text of another one, got "${A:-${N}"',
        ),
        (
            "listen:\n  - bind: a:1\n    http: [h2, '${X}']",
            "3:16: listen[0].http[1]: the environment has no variable X; ${X:-text} says what is taken then",
        ),
        ("env: {A: '${X}'}", "1:10: env.A: the environment has no variable X; ${X:-text} says what is taken then"),
        ("${X}", "1:1: the environment has no variable X; ${X:-text} says what is taken then"),
        # A wrong value says where it comes from.
        (
            "workers:\n  count: ${HOST}",
            '2:10: workers.count: expected a number of 1 or more or "auto", got "127.0.0.1" (from ${HOST})',
        ),
        (
            "workers:\n  count: '${EMPTY}'",
            '2:10: workers.count: expected a number of 1 or more or "auto", got "" (from ${EMPTY})',
        ),
        (
            "env: {A: ${N}}",
            f"1:11: not valid YAML: expected ',' or '}}', but got '{{'; {QUOTED}",
        ),
        ("workers: ${N}", "1:10: workers: expected a mapping of keys, got 3 (from ${N})"),
        ("${N}", "1:1: expected a mapping of keys at the top, got 3 (from ${N})"),
        ("listen: ${HOST}", f'1:9: listen: expected a list, got "127.0.0.1" (from ${{HOST}}){NO_LIST}'),
        (
            "listen: [{bind: '127.0.0.1:8000'}, {bind: '${HOST}:${PORT_}'}]",
            (
                "1:43: listen[1].bind: 127.0.0.1:8000 is bound already, by listen[0].bind (asgiri.yaml:1)"
                " (from ${HOST}:${PORT_})"
            ),
        ),
    ],
)
def test_what_cannot_be_is_told_once_with_its_place(loaded: Load, text: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    assert [str(problem) for problem in caught.value.problems] == [f"asgiri.yaml:{error}"]


def test_all_are_told_at_once(loaded: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded("app: ${A}\nworkers: {count: '${B}'}\nfoo: 1\nroot_path: ${C}")
    keys = [problem.key or problem.what.partition(";")[0] for problem in caught.value.problems]
    assert keys == ["app", "workers.count", 'unknown key "foo"', "root_path"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("env: {A: '${SECRET}'}", "1:10: env.A: expected a text, got something else (from ${SECRET})"),
        ("env: ${SECRET}", f"1:6: env: {NAMES}, got a single value (from ${{SECRET}})"),
        ("env: s3cret", f"1:6: env: {NAMES}, got a single value"),
        (
            "response_headers: {A: '${SECRET}'}",
            "1:23: response_headers.A: expected a text, got something else (from ${SECRET})",
        ),
        (
            "response_headers: {A: '${FOLDED}'}",
            (
                "1:23: response_headers.A: expected a field value, Latin-1 without control characters or outer blanks"
                " (from ${FOLDED})"
            ),
        ),
    ],
)
def test_a_secret_is_shown_by_no_error(loaded: Load, text: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(text, {"SECRET": "s3cret\0", "FOLDED": "s3cret\r\n b"})
    assert [str(problem) for problem in caught.value.problems] == [f"asgiri.yaml:{error}"]


def test_what_is_written_is_known_by_its_path(loaded: Load) -> None:
    text = "app: ${A:-a:b}\nenv: {B: 'x${N}', C: '$${N}'}\nlisten:\n  - {bind: 'a:1', http: [h2, '${D:-http/1.1}']}\n"
    found = loaded(text)
    assert found.written == {"app": "${A:-a:b}", "env.B": "x${N}", "listen[0].http[1]": "${D:-http/1.1}"}
    assert found.origins["env.B"] == "asgiri.yaml:2"


def test_flags_and_variables_of_keys_are_taken_as_they_are(loaded: Load) -> None:
    assert loaded("", {"ASGIRI_ROOT_PATH": "${N}", "N": "3"}).config.root_path == "${N}"
    assert loaded("", {"ASGIRI_ENV": "{A: '${N}'}", "N": "3"}).config.env == {"A": "${N}"}


def test_variables_bring_in_no_more_than_a_file_may_hold(loaded: Load) -> None:
    text = "env:\n" + "".join(f"  A{number}: ${{BIG}}\n" for number in range(20))
    with pytest.raises(ConfigError, match="more than 1MiB"):
        loaded(text, {"BIG": "x" * 100_000})


def test_one_value_asks_for_no_more_either(loaded: Load) -> None:
    text = "root_path: " + "${BIG}" * 5_000  # half a gigabyte
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="more than 1MiB"):
            loaded(text, {"BIG": "x" * 100_000})
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 16 * 1024 * 1024


def test_what_is_brought_in_counts_not_what_stands_there(loaded: Load) -> None:
    text = f"root_path: /${{N}}{'x' * 600_000}\napp_dir: ${{N}}{'x' * 400_000}"
    assert len(loaded(text).config.root_path) == 600_002


def test_what_is_brought_in_is_counted_for_all_values(loaded: Load) -> None:
    text = "app: ${BIG}\nroot_path: ${BIG}"
    with pytest.raises(ConfigError, match="more than 1MiB"):
        loaded(text, {"BIG": "x" * 600_000})


@settings(deadline=None)
@given(st.text(st.sampled_from("${}N:-ax "), max_size=12))
def test_any_text_is_a_value_or_an_error(text: str) -> None:
    try:
        expanded = expand(text, {"N": "value"}, 1000)
    except ValueError:
        assert "${" in text
    else:
        assert len(expanded) <= len(text) + 5 * text.count("${")


@given(st.text(st.sampled_from('${}N:-ax" '), max_size=12))
def test_what_is_written_for_a_text_is_that_text(text: str) -> None:
    escaped = text.replace("${", "$${")
    assert expand(escaped, {}, 1000) == text
    assert escaped in quoted(text).replace('\\"', '"')
