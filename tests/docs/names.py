"""The names that users type and read: keys, variables, flags, metrics. What the pages name has to be among them."""

from __future__ import annotations

from functools import cache

from asgiri.admin.families import Families
from asgiri.cli.flags import FLAGS, key_at
from asgiri.config.keys import keys_of
from asgiri.config.schema import Config
from asgiri.config.settings import BUILD_VARIABLE, CONFIG_VARIABLE, variables
from asgiri.ctl.command import command as ctl
from asgiri.metrics.catalogue import Kind
from tests.admin.boards import Fake


@cache
def exposed() -> dict[str, frozenset[str]]:
    """Every name in the exposition, and the labels of its series; ``le`` is one of a histogram's buckets."""
    found = {"asgiri_info": frozenset({"version", "python", "app"})}
    for family in Families(Fake().board, Config()).all():
        name, labels = f"asgiri_{family.name}", frozenset(family.labels)
        match family.kind:
            case Kind.COUNTER:
                found[f"{name}_total"] = labels
            case Kind.GAUGE:
                found[name] = labels
            case Kind.HISTOGRAM:
                found |= {
                    name: labels,
                    f"{name}_sum": labels,
                    f"{name}_count": labels,
                    f"{name}_bucket": labels | {"le"},
                }
    return found


def metric_names() -> frozenset[str]:
    return frozenset(exposed())


def labels_of(name: str) -> frozenset[str]:
    return exposed()[name]


@cache
def flags() -> frozenset[str]:
    """Every flag of ``asgiri``."""
    names = {name for flag in FLAGS for name in (*flag.names, flag.off) if name.startswith("-")}
    return frozenset(names | {"-h", "--help"})


@cache
def ctl_flags() -> frozenset[str]:
    """Every flag of ``asgirictl`` and of its verbs."""
    found = {option for parameter in ctl.params for option in parameter.opts}
    for verb in ctl.commands.values():
        found |= {option for parameter in verb.params for option in parameter.opts}
    return frozenset(found)


def is_key(path: str) -> bool:
    """Whether a dotted path, in which ``[]`` is any entry of a list, is one of a key. What is below a map is free."""
    try:
        return bool(key_at(path))
    except KeyError:
        pass
    above, dot, _ = path.rpartition(".")
    try:
        return bool(dot) and key_at(above).container == "map"
    except KeyError:
        return False


@cache
def sections() -> frozenset[str]:
    """The keys at the top that have keys below them."""
    return frozenset(name for name, key in keys_of(Config).items() if key.container)


@cache
def environment() -> frozenset[str]:
    """The variables that asgiri reads."""
    return frozenset({*variables(), CONFIG_VARIABLE, BUILD_VARIABLE})
