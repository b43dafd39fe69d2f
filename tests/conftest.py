"""Fixtures of all tests."""

from __future__ import annotations

import gc

import pytest

from tests.pki import Pki


def pytest_collection_finish() -> None:
    """Many tests collect garbage at their end; thousands of collected tests are none, and need not be looked at."""
    leave_alone()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Nor do the reports of those that are through, which pytest keeps: without this they cost a third of the suite."""
    if nextitem is None or nextitem.path != item.path:
        leave_alone()


def leave_alone() -> None:
    """Have what is there now be looked at by no collection of garbage any more."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """An authority, and files of a certificate that it has issued."""
    return Pki(tmp_path_factory.mktemp("pki"))
