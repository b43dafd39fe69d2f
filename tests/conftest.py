"""Fixtures of all tests."""

from __future__ import annotations

import gc
import os

import pytest

from tests.pki import Pki

FEW = 3  # files in which so little is to be done that one process is through before others have started


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """How many processes share the tests: one more than cores, for half of the end-to-end tests' time is waiting.

    None, which leaves it to xdist, where its own variable says it; 0, no further process, for a few files or tests.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    option = config.option
    chosen = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
    few = 0 < len(chosen) <= FEW and all(".py" in argument for argument in chosen)
    if few or option.keyword or config.getoption("lf", False) or option.collectonly or option.capture == "no":
        return 0
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


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
