"""Values as people write them: whatever the schema can hold is read back as the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.config.keys import Key, keys_of
from asgiri.config.load import load
from asgiri.config.notation import quoted, written
from asgiri.config.schema import Config, Listen, Process, Timeouts, Workers

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


def key_at(section: type, name: str) -> Key:
    return keys_of(section)[name]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (key_at(Timeouts, "keep_alive"), 75.0, "1m15s"),
        (key_at(Timeouts, "keep_alive"), 0.05, "50ms"),
        (key_at(Timeouts, "keep_alive"), 0.0, "0s"),
        (key_at(Workers, "max_memory"), 16 << 20, "16MiB"),
        (key_at(Workers, "count"), "auto", "auto"),
        (key_at(Workers, "count"), 4, "4"),
        (key_at(Process, "umask"), 0o27, '"0027"'),
        (key_at(Process, "umask"), None, "null"),
        (key_at(Listen, "http"), ("h2", "http/1.1"), "[h2, http/1.1]"),
        (key_at(Config, "env"), {"A B": "no", "B": "${HOME}"}, '{"A B": "no", B: "$${HOME}"}'),
        (key_at(Config, "factory"), False, "false"),
        (key_at(Config, "app"), "shop.main:app", "shop.main:app"),
    ],
)
def test_a_value_is_written_as_the_file_has_it(key: Key, value: object, text: str) -> None:
    assert written(key, value) == text


@given(TEXTS)
@pytest.mark.parametrize("form", ["{}", "[{}]"])
def test_other_parsers_read_a_text_as_the_same(form: str, text: str) -> None:
    read = yaml.safe_load(form.format(quoted(text)))
    assert (read if isinstance(read, str) else read[0]) == text.replace("${", "$${")


@settings(deadline=None)
@given(st.integers(0, 10**16).map(lambda nanoseconds: nanoseconds / 1e9))
def test_a_duration_is_read_as_the_same(seconds: float) -> None:
    text = written(key_at(Timeouts, "write"), seconds)
    config = load(None, {"ASGIRI_TIMEOUTS__WRITE": text}).config
    assert config.timeouts.write == seconds


@settings(deadline=None)
@given(st.dictionaries(TEXTS.filter(lambda text: text and "=" not in text and "${" not in text), TEXTS, max_size=3))
def test_a_map_is_read_as_the_same(tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]) -> None:
    if any("${" in text for text in variables.values()):
        return  # that is tests/config/test_interpolation.py's
    file = Path(tmp_path_factory.getbasetemp()) / "map.yaml"
    file.write_text(f"env: {written(key_at(Config, 'env'), variables)}", "utf-8")
    assert load(str(file), {}).config.env == variables
