"""Fixtures of all tests."""

from __future__ import annotations

import pytest

from tests.pki import Pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """An authority, and files of a certificate that it has issued."""
    return Pki(tmp_path_factory.mktemp("pki"))
