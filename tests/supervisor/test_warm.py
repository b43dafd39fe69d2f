"""When the master has a zygote, and of what: without processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from asgiri.config.schema import Config
from asgiri.link import Booted, ChildMain
from asgiri.supervisor import warm
from asgiri.supervisor.aides import Aide
from asgiri.supervisor.children import Children, Lent
from asgiri.supervisor.plans import Plans
from asgiri.supervisor.sidecar import SidecarEvent, Want


class Wishes:
    """In the place of the aide: notes what is wanted."""

    def __init__(self) -> None:
        self.all: list[SidecarEvent] = []

    def feed(self, event: SidecarEvent) -> None:
        self.all.append(event)


@pytest.fixture
def zygote(monkeypatch: pytest.MonkeyPatch) -> Iterator[warm.Zygote]:
    monkeypatch.setattr(warm, "adopt_orphans", lambda: True)
    none = cast("object", None)
    it = warm.Zygote(cast("ChildMain", none), cast("Plans", none), lambda: cast("Children", none), Lent())
    it.aide = cast("Aide", Wishes())
    yield it
    it.close()


def wishes(zygote: warm.Zygote) -> list[SidecarEvent]:
    return cast("Wishes", zygote.aide).all


def booted(**environ: str) -> Booted:
    return Booted(modules=("json",), environ=environ)


def test_a_variable_that_is_always_another_one_is_no_reason_for_another_zygote(zygote: warm.Zygote) -> None:
    """A temporary folder, that is, or a number."""
    for number in range(20):
        zygote.learn(number + 1, Config(), booted(FOLDER=f"/tmp/{number}"))
    assert wishes(zygote) == [Want(number + 1) for number in range(1 + warm.CHANGES_MOST)]


def test_a_variable_that_is_edited_is(zygote: warm.Zygote) -> None:
    for number in range(20):
        zygote.learn(number + 1, Config(), booted(MODE=f"{number // 2}"))
    assert wishes(zygote) == [Want(number + 1) for number in range(10)]


def test_a_variable_that_settles_is_taken(zygote: warm.Zygote) -> None:
    for number in range(20):
        zygote.learn(number + 1, Config(), booted(MODE=f"{min(number, 10)}"))
    assert wishes(zygote) == [Want(number + 1) for number in range(2 + warm.CHANGES_MOST)]


def test_one_that_is_ready_when_none_is_wanted_any_more(zygote: warm.Zygote) -> None:
    """Its last words, which are heard when it is reaped."""
    zygote.learn(1, Config(), booted())
    zygote.forget()
    assert wishes(zygote) == [Want(1), Want(None)]
    assert list(zygote.hear(Booted())) == []
