"""Files of KEY=VALUE lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.config.envfile import read_env_file
from asgiri.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("KEY=value", "value"),
        ("  KEY=value  ", "value"),
        ("export KEY=value", "value"),
        ("KEY=", ""),
        ("KEY=a=b", "a=b"),
        ("KEY=a b # a comment", "a b"),
        ("KEY= # a comment", ""),
        ("KEY=#fff", "#fff"),
        ("KEY=a#b", "a#b"),
        ("KEY='a # b' # a comment", "a # b"),
        (r"KEY='\n$x'", r"\n$x"),
        (r'KEY="a\tb\n\"c\" \\ \$x \y"', 'a\tb\n"c" \\ $x \\y'),
        ('KEY=""', ""),
        ("KEY=$HOME", "$HOME"),
        ("KEY=ü", "ü"),
        ("KEY=value\r", "value"),
    ],
)
def test_a_line_is_a_name_and_a_value(tmp_path: Path, line: str, value: str) -> None:
    file = tmp_path / "env"
    file.write_text(f"# first\n\n{line}\n", encoding="utf-8", newline="")
    assert read_env_file(file) == {"KEY": value}


def test_a_later_line_goes_over_an_earlier_one(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("\ufeffA=1\nB=2\nA=3", encoding="utf-8")
    assert read_env_file(file) == {"A": "3", "B": "2"}


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("A=1\nKEY\nKEY = 1\n1KEY=1\nB='x\nB=\"x\\\"\nC='x'y\nD=a\0b\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_env_file(file)
    assert str(caught.value).splitlines() == [
        f"{file}:2: expected KEY=VALUE",
        f"{file}:3: expected KEY=VALUE",
        f"{file}:4: expected KEY=VALUE",
        f"{file}:5: the quote ' is not closed on its line",
        f'{file}:6: the quote " is not closed on its line',
        f"{file}:7: unexpected text after the closing quote",
        f"{file}:8: a value cannot have a NUL character",
    ]


def test_a_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "env"
    with pytest.raises(ConfigError) as caught:
        read_env_file(str(file))
    assert str(caught.value) == f'env_file: cannot read "{file}": No such file or directory'


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(b"A=1\nB=\xff\n")
    with pytest.raises(ConfigError) as caught:
        read_env_file(file)
    assert str(caught.value) == f"{file}:2: not UTF-8: byte 0xff"


@pytest.fixture(scope="module")
def module_tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("envfile")


@settings(deadline=None)  # a disk may take its time
@given(data=st.text().map(str.encode) | st.binary())
def test_anything_is_read_or_a_config_error(module_tmp: Path, data: bytes) -> None:
    file = module_tmp / "env"
    file.write_bytes(data)
    try:
        variables = read_env_file(file)
    except ConfigError:
        return
    assert all(name.isidentifier() and "\0" not in value for name, value in variables.items())
