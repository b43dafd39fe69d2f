"""Durations and sizes as people write them: ``30s``, ``1h30m``, ``16MiB``."""

from __future__ import annotations

import re
import sys

# Units a duration may use, in seconds, longest first: the order that a written duration must keep.
SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
BYTES = {
    "": 1,
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}

# Nineteen digits hold every 64-bit count; the bound keeps int() and float() from limits of their own.
_NUMBER = r"[0-9]{1,19}(?:\.[0-9]{1,20})?"
_DURATION_PART = re.compile(rf"({_NUMBER})(ms|[dhms])", re.ASCII)
_PLAIN_NUMBER = re.compile(_NUMBER, re.ASCII)
_SIZE = re.compile(rf"({_NUMBER})\s*([A-Za-z]*)", re.ASCII)

DURATION_EXPECTED = 'a duration such as "30s", "5m", "1h30m" or a number of seconds'
SIZE_EXPECTED = 'a size such as "64KiB", "16MiB" or a number of bytes'


def parse_duration(value: str | float) -> float:
    """Seconds in ``value``: ``"30s"``, ``"1h30m"``, ``"100ms"``, or a number of seconds (also as text).

    Raises ValueError when the text is no duration, is negative, or is not finite.
    """
    if isinstance(value, bool):
        raise ValueError(f"expected {DURATION_EXPECTED}, got {str(value).lower()}")
    if isinstance(value, int | float):
        if not 0 <= value <= sys.float_info.max:
            raise ValueError(f"expected {DURATION_EXPECTED}, got {value}")
        return float(value)
    text = value.strip()
    if _PLAIN_NUMBER.fullmatch(text):
        return float(text)
    seconds = 0.0
    position = 0
    units = list(SECONDS)
    last = -1
    while match := _DURATION_PART.match(text, position):
        order = units.index(match[2])
        if order <= last:  # "30s1h" and "1s1s" are more likely slips than intent
            break
        seconds += float(match[1]) * SECONDS[match[2]]
        last = order
        position = match.end()
    if not text or position != len(text):
        raise ValueError(f'expected {DURATION_EXPECTED}, got "{value}"')
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest text that :func:`parse_duration` reads as ``seconds`` (to the millisecond)."""
    left = round(seconds * 1000)
    parts = []
    for unit, size in SECONDS.items():
        count, left = divmod(left, round(size * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(value: str | int) -> int:
    """Bytes in ``value``: ``"64KiB"``, ``"10MB"``, or a number of bytes (also as text).

    Raises ValueError when the text is no size, is negative, or is not a whole number of bytes.
    """
    if isinstance(value, bool):
        raise ValueError(f"expected {SIZE_EXPECTED}, got {str(value).lower()}")
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"expected {SIZE_EXPECTED}, got {value}")
        return value
    match = _SIZE.fullmatch(value.strip())
    factor = BYTES.get(match[2]) if match else None
    if match is None or factor is None:
        raise ValueError(f'expected {SIZE_EXPECTED}, got "{value}"')
    # In whole numbers: as a float, 1.001KB is no whole number of bytes.
    whole, _, decimals = match[1].partition(".")
    size, rest = divmod(int(whole + decimals) * factor, int("1" + "0" * len(decimals)))
    if rest:
        raise ValueError(f'expected {SIZE_EXPECTED}, got "{value}", which is no whole number of bytes')
    return size


def format_size(size: int) -> str:
    """Text that :func:`parse_size` reads as ``size`` bytes: in the largest binary unit that divides it."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % BYTES[unit] == 0:
            return f"{size // BYTES[unit]}{unit}"
    return f"{size}B" if size else "0"
