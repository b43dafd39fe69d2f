"""Durations and sizes: what is read, what is refused, and that what is written is read back."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiri.units import (
    DURATION_EXPECTED,
    SIZE_EXPECTED,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


def exactly(message: str) -> str:
    return f"^{re.escape(message)}$"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1d2h3m4s5ms", 93784.005),
        ("100ms", 0.1),
        ("1.5s", 1.5),
        (" 75 ", 75.0),
        ("0.30000000000000004", 0.30000000000000004),
        (2, 2.0),
        (0.25, 0.25),
    ],
)
def test_durations_are_read_in_seconds(value: str | float, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "30 s",
        "-1",
        "-1s",
        "30s1h",
        "1s1s",
        "1h30",
        "1e3",
        "inf",
        "nan",
        "٣s",
        "1.s",
        "9" * 400,
        "9" * 400 + "s",
    ],
)
def test_texts_that_are_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=exactly(f'expected {DURATION_EXPECTED}, got "{text}"')):
        parse_duration(text)


@pytest.mark.parametrize("value", [-1, -0.5, math.inf, math.nan, True, 10**400])
def test_numbers_that_are_no_duration(value: float) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("0", 0),
        ("64KiB", 65536),
        ("16 MiB", 16 << 20),
        ("10MB", 10**7),
        ("1.5KiB", 1536),
        ("1.001KB", 1001),
        ("7B", 7),
        ("9223372036854775807", 2**63 - 1),
        (4096, 4096),
    ],
)
def test_sizes_are_read_in_bytes(value: str | int, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("text", ["", "KiB", "-1", "1kib", "1 K", "1e3", "1.", "9" * 5000, "9" * 400 + ".5TiB"])
def test_texts_that_are_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=exactly(f'expected {SIZE_EXPECTED}, got "{text}"')):
        parse_size(text)


def test_a_size_is_a_whole_number_of_bytes() -> None:
    with pytest.raises(ValueError, match=r'got "1\.1KiB", which is no whole number of bytes'):
        parse_size("1.1KiB")


@pytest.mark.parametrize("value", [-1, True])
def test_numbers_that_are_no_size(value: int) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(value)


@given(st.integers(0, 10**12))
def test_a_written_duration_is_read_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert round(parse_duration(format_duration(seconds)) * 1000) == milliseconds


@given(st.integers(0, 2**63 - 1) | st.integers(0, 2**20).map(lambda count: count << 20))
def test_a_written_size_is_read_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds < math.inf


@given(st.text())
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    try:
        size = parse_size(text)
    except ValueError:
        return
    assert size >= 0
