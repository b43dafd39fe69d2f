"""Both ways to unmask, against the loop of RFC 6455 section 5.3."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.codec import ws_mask
from tests.codec.ws_wire import masked


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
@settings(max_examples=200, deadline=None)
def test_both_are_the_loop_of_the_rfc(data: bytes, key: bytes) -> None:
    for unmask in (ws_mask.xor, ws_mask.unmask):
        assert unmask(data, key) == masked(data, key)
        assert unmask(memoryview(data), key) == masked(data, key)
        assert type(unmask(data, key)) is bytes


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 4096, 65_537])
def test_long_data_is_unmasked_to_its_last_byte(size: int) -> None:
    data = bytes(size)
    for unmask in (ws_mask.xor, ws_mask.unmask):
        assert unmask(data, b"abcd") == (b"abcd" * (size // 4 + 1))[:size]


def test_where_websockets_is_installed_its_c_is_used() -> None:
    pytest.importorskip("websockets.speedups")
    assert ws_mask.chosen().__name__ == "apply_mask"


def test_without_the_package_integers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets", None)
    assert ws_mask.chosen() is ws_mask.xor


def test_without_its_c_integers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a platform that has no wheel."""
    bare = ModuleType("websockets")
    bare.__spec__ = ModuleSpec("websockets", None, is_package=True)
    monkeypatch.setitem(sys.modules, "websockets", bare)
    assert ws_mask.chosen() is ws_mask.xor
