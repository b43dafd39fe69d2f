"""What is told of a reload: key by key, listeners by address, and no secret."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from asgiri.config.changes import changes, in_effect, taken
from asgiri.config.load import Loaded
from asgiri.config.schema import Config, Control, Listen, Log, Process, SniPair, Tls, Workers
from tests.config.strategies import sections

PAIR = SniPair(certfile="a", keyfile="b")


def loaded(config: Config, **written: str) -> Loaded:
    return Loaded(config, None, {}, {name.replace("__", "."): text for name, text in written.items()})


def told(old: Config, new: Config) -> list[str]:
    return [str(change) for change in changes(loaded(old), loaded(new))]


def listening(*binds: str, **more: Any) -> Config:
    return Config(listen=tuple(Listen(bind=bind, **more) for bind in binds))


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (Config(), Config(), []),
        (Config(), Config(app="a:b", workers=Workers(count="auto", max_memory=1 << 20)), [
            "app: null -> a:b", "workers.count: 1 -> auto", "workers.max_memory: 0 -> 1MiB",
        ]),
        (Config(env={"A": "a", "B": "b"}), Config(env={"B": "c", "C": "d"}), [
            "env.A: removed", "env.B: changed", "env.C: added",
        ]),
        (Config(response_headers={"X": "a"}), Config(response_headers={"X": "b"}), ["response_headers.X: changed"]),
        (Config(), Config(process=Process(umask=0o27, chdir="/a b")), [
            'process.umask: null -> "0027"', 'process.chdir: null -> "/a b"',
        ]),
        (Config(), Config(log=Log(file="a\nb" + "c" * 1000)), [
            'log.file: "-" -> "a\\x0ab' + "c" * 263 + "[...]" + "c" * 24 + '"',
        ]),
        # Listeners
        (listening("a:1", "b:2"), listening("b:2", "a:1"), []),
        (listening("a:1", "b:2"), listening("b:2", "unix:/c"), ["listen: unix:/c is new", "listen: a:1 is gone"]),
        (listening("LOCALHOST:1", "[::0]:2"), listening("localhost:1", "[::]:2"), []),
        (listening("a:1"), listening("b:1", "a:1", backlog=5), [
            "listen: b:1 is new", "listen[a:1].backlog: 2048 -> 5",
        ]),
        (listening("a:0", "a:0"), listening("a:0", "a:0", "a:0"), ["listen: a:0 is new"]),
        (listening("a:1"), listening("a:1", tls=Tls(certfile="c", sni={"x": PAIR})), [
            "listen[a:1].tls: null -> {certfile: c, sni: {x: {certfile: a, keyfile: b}}}",
        ]),
        (listening("a:1", tls=Tls(certfile="c", sni={"x": PAIR})),
         listening("a:1", tls=Tls(certfile="d", sni={"x": SniPair(certfile="e", keyfile="b"), "y": PAIR})), [
            "listen[a:1].tls.certfile: c -> d", "listen[a:1].tls.sni.x.certfile: a -> e",
            "listen[a:1].tls.sni.y: added",
        ]),
        (listening("a:1", tls=Tls(certfile="c")), listening("a:1"), ["listen[a:1].tls: {certfile: c} -> null"]),
        (listening("unix:a\nb"), listening("unix:a\nb", mode=0o600), ['listen[unix:a\\nb].mode: null -> "0600"']),
    ],
)  # fmt: skip
def test_what_is_told(old: Config, new: Config, lines: list[str]) -> None:
    assert told(old, new) == lines


def test_what_variables_were_put_into_is_shown_as_the_file_has_it() -> None:
    old = loaded(Config(app="a:b", root_path="/1", loop="uvloop"), loop="${LOOP}", root_path="${ROOT}")
    new = loaded(Config(app="a secret", root_path="/2"), app="${APP}", root_path="${ROOT}")
    assert [str(change) for change in changes(old, new)] == [
        'app: a:b -> "${APP}"',
        "root_path: changed",
        'loop: "${LOOP}" -> auto',
    ]


def test_what_was_put_into_a_listener_is_found_at_its_place() -> None:
    old = Loaded(listening("a:1", "b:2"), None, {}, {"listen[1].bind": "${B}"})
    new = Loaded(
        Config(listen=(Listen(bind="b:2", mode=0o600, owner="secret"), Listen(bind="a:1"))),
        None, {}, {"listen[0].bind": "${B}", "listen[0].owner": "${OWNER}"},
    )  # fmt: skip
    assert [str(change) for change in changes(old, new)] == [
        'listen[b:2].mode: null -> "0600"',
        'listen[b:2].owner: null -> "${OWNER}"',
    ]


def test_what_stays_is_shown_as_the_file_that_it_comes_from_had_it() -> None:
    first = Loaded(
        Config(listen=(Listen(bind="b:2"), Listen(bind="a:1", name="a secret")), control=Control(socket="/secret")),
        None, {}, {"control.socket": "${S}", "listen[1].name": "${N}"},
    )  # fmt: skip
    then = Loaded(
        Config(listen=(Listen(bind="a:1", name="x"),), control=Control(socket="/a"), process=Process(chdir="/secret")),
        None, {}, {"process.chdir": "${C}"},
    )  # fmt: skip
    lines = ['listen[a:1].name: "${N}" -> x', 'control.socket: "${S}" -> /a', 'process.chdir: null -> "${C}"']
    for before in (first, taken(first, then)):  # of the first reload, and of the next
        assert [str(change) for change in changes(before, then) if change.stays] == lines


def test_what_stays_goes_on_as_it_was() -> None:
    old = Config(
        listen=(Listen(bind="a:1", name="web"), Listen(bind="b:1")),
        control=Control(socket="/a"),
        process=Process(chdir="/a", title="a"),
    )
    new = Config(
        listen=(Listen(bind="c:1", name="c"), Listen(bind="a:1", name="other", backlog=9)),
        control=Control(socket="/b"),
        process=Process(chdir="/b", title="b"),
    )
    assert in_effect(old, new) == Config(
        listen=(Listen(bind="c:1", name="c"), Listen(bind="a:1", name="web", backlog=9)),
        control=Control(socket="/a"),
        process=Process(chdir="/a", title="b"),
    )
    found = [(change.path, change.stays) for change in changes(loaded(old), loaded(new))]
    assert found == [
        ("listen", False),
        ("listen[a:1].name", True),
        ("listen[a:1].backlog", False),
        ("listen", False),
        ("control.socket", True),
        ("process.chdir", True),
        ("process.title", False),
    ]


def in_order(config: Config) -> Config:
    """The same for a reload: neither the order of listeners nor how an address is spelled makes a difference."""
    listen = (msgspec.structs.replace(one, bind=str(one.address)) for one in config.listen)
    return msgspec.structs.replace(config, listen=tuple(sorted(listen, key=lambda one: one.bind)))


@settings(deadline=None, max_examples=25)
@given(sections(Config), sections(Config))
def test_what_is_told_is_all_there_is(old: Config, new: Config) -> None:
    found = changes(loaded(old), loaded(new))
    assert all(str(change).isprintable() for change in found)
    effective = in_effect(old, new)
    assert [change for change in changes(loaded(effective), loaded(new)) if not change.stays] == []
    assert [change for change in changes(loaded(old), loaded(effective)) if change.stays] == []
    assert bool(found) == (in_order(old) != in_order(new))
    assert changes(loaded(new), loaded(new)) == []
