"""What the composition root lends the master, which does not know the other layers, and what it was started with."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from asgiri.config.load import Loaded
from asgiri.config.schema import Config
from asgiri.link import ChildMain
from asgiri.sockets.supply import Supply
from asgiri.supervisor.notify import Notifier
from asgiri.supervisor.upgrade import Heir, Recipe


class Greeting(Struct, frozen=True):
    """What there is, when all first workers are ready: URLs of the service, and of the admin child.

    ``broken``: the application does not start, and an error page stands in for it.
    """

    urls: list[str]
    admin: list[str]
    broken: bool


class Hooks(Struct, frozen=True):
    """``load`` reads the configuration anew and raises ConfigError; ``apply`` takes over what concerns the master
    itself (its log, its title) from a config that was committed; ``complete`` imports what the start has left out, of
    which the first request had no need; ``greet`` shows who develops what there is; the others are the mains of the
    children.
    """

    load: Callable[[], Loaded]
    apply: Callable[[Config], None]
    complete: Callable[[Config], None]
    worker_main: ChildMain
    admin_main: ChildMain
    watcher_main: ChildMain
    zygote_main: ChildMain
    greet: Callable[[Loaded, Greeting], None]


class Origin(Struct, frozen=True):
    """By whom the master was started, and how to start another one so."""

    recipe: Recipe
    notifier: Notifier
    supply: Supply
    heir: Heir | None
