"""Fixtures of all tests."""

from __future__ import annotations

import gc

import pytest

from tests.pki import Pki


def pytest_collection_finish() -> None:
    """Many tests collect garbage at their end; thousands of collected tests are none, and need not be looked at."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """An authority, and files of a certificate that it has issued."""
    return Pki(tmp_path_factory.mktemp("pki"))
