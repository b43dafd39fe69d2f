"""When changed files are looked into and refused, by transcripts: at this time, they look so; and what is told of them.

The clock and the age of files are given; files are real where they are read.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from asgiri.config.load import Loaded
from asgiri.config.schema import Config, Listen, SniPair, Tls
from asgiri.deposit import Deposit, read, wait_for
from asgiri.errors import ConfigError
from asgiri.metrics.catalogue import metric
from asgiri.supervisor.certificates import Certificates, age_of, look_at, passed
from asgiri.supervisor.renewal import LIFE, Cause, Phase, Renewal, Step
from asgiri.supervisor.scoreboard import Scoreboard
from tests.pki import Pki

WAIT, JUDGE, REFUSE = Step.WAIT, Step.JUDGE, Step.REFUSE
OLD, HALF, NEW = ((1,),), ((2,),), ((3,),)
FRESH, QUIET, UNKNOWN = 0.05, 0.5, -1.0  # ages

# (time, look, age, what is to be done, what was found)
Line = tuple[float, tuple[tuple[int, ...], ...], float, Step, Cause | None]


def play(*lines: Line) -> Renewal:
    renewal = Renewal(OLD)
    for now, seen, age, step, found in lines:
        assert renewal.look(seen, age, now) is step, f"at {now}"
        if found is not None:
            renewal.judged(found)
    return renewal


def test_nothing_changes() -> None:
    assert play((1, OLD, QUIET, WAIT, None), (2, OLD, QUIET, WAIT, None)).phase is Phase.KEPT


def test_a_change_that_is_over_is_looked_into_at_once() -> None:
    assert play((1, NEW, QUIET, JUDGE, Cause.TAKEN), (2, NEW, QUIET, WAIT, None)).phase is Phase.KEPT


def test_a_change_that_may_go_on_is_looked_into_when_it_has_not() -> None:
    play((1, HALF, FRESH, WAIT, None), (2, NEW, FRESH, WAIT, None), (3, NEW, QUIET, JUDGE, Cause.TAKEN))
    # Nobody knows how old it is: a file is missing, or the clock of its file system goes wrong.
    play((1, NEW, UNKNOWN, WAIT, None), (1.5, NEW, UNKNOWN, WAIT, None), (2, NEW, UNKNOWN, JUDGE, Cause.SAME))


def test_who_is_at_it_each_second_does_not_put_it_off_for_ever() -> None:
    play(
        (1, ((4,),), FRESH, WAIT, None),
        (2, ((5,),), FRESH, WAIT, None),
        (3, ((6,),), FRESH, JUDGE, Cause.TAKEN),
        (4, ((7,),), FRESH, WAIT, None),
        (5, ((8,),), FRESH, WAIT, None),
        (6, ((9,),), FRESH, JUDGE, Cause.TAKEN),
    )


def test_a_change_while_they_are_read_is_one_more() -> None:
    play((1, HALF, QUIET, JUDGE, None), (2, NEW, QUIET, JUDGE, Cause.TAKEN))


def test_what_is_no_good_is_refused_once_and_after_a_while() -> None:
    renewal = play(
        (1, HALF, QUIET, JUDGE, Cause.DOUBT),
        (2, HALF, QUIET, WAIT, None),
        (3, HALF, QUIET, WAIT, None),
        (4, HALF, QUIET, REFUSE, None),
        (5, HALF, QUIET, WAIT, None),
        (99, HALF, QUIET, WAIT, None),
    )
    assert renewal.phase is Phase.REFUSED
    assert renewal.look(NEW, QUIET, 100) is JUDGE, "and what comes then is looked into"


def test_the_other_half_is_in_time() -> None:
    play(
        (1, HALF, QUIET, JUDGE, Cause.DOUBT),
        (3, NEW, QUIET, JUDGE, Cause.TAKEN),
        (9, NEW, QUIET, WAIT, None),
    )


def test_each_change_begins_the_wait_anew() -> None:
    play(
        (1, HALF, QUIET, JUDGE, Cause.DOUBT),
        (3, NEW, QUIET, JUDGE, Cause.DOUBT),
        (5, NEW, QUIET, WAIT, None),
        (6, NEW, QUIET, REFUSE, None),
    )


def test_the_table_has_a_way_out_of_each_phase() -> None:
    assert {phase for phase, _ in LIFE} == set(Phase) == set(LIFE.values())


# With real files


class Stand:
    """Certificates of a listener with a name of its own, on a board."""

    def __init__(self, directory: Path, pki: Pki, **more: object) -> None:
        self.directory = directory
        self.put("cert.pem", pki.certfile)
        self.put("key.pem", pki.keyfile)
        www = pki.issue("www", "www.example.org")
        self.put("www.pem", www[0])
        self.put("www.key", www[1])
        sni = {"www.example.org": SniPair(certfile=self.path("www.pem"), keyfile=self.path("www.key"))}
        tls = Tls(certfile=self.path("cert.pem"), keyfile=self.path("key.pem"), sni=sni, **more)  # type: ignore[arg-type]
        config = replace(Config(), listen=(Listen(bind="127.0.0.1:1"), Listen(bind="127.0.0.1:2", tls=tls)))
        self.master = Scoreboard(slots=1).master
        self.certificates = Certificates(Loaded(config, None, {"listen[1].tls.keyfile": "here.yaml:7"}, {}))
        self.wall = datetime.now(UTC).timestamp() + 60
        self.certificates.show(self.master, self.wall)
        self.now = 0.0

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def put(self, name: str, source: str) -> None:
        (self.directory / name).write_bytes(Path(source).read_bytes())

    def look(self) -> bool:
        self.now += 1
        return self.certificates.look(self.master, self.now, self.wall)

    @property
    def counts(self) -> tuple[int, int]:
        reloads = metric("certificate_reloads")
        return self.master.cells[reloads.word("taken")], self.master.cells[reloads.word("refused")]

    def held(self) -> dict[str, dict[str, bytes]]:
        deposit = Deposit(self.certificates.encoded)
        try:
            materials = read(deposit.fileno())
        finally:
            deposit.close()
        assert materials is not None
        assert materials[0] is None
        assert materials[1] is not None
        return materials[1]


def test_a_part_is_taken_without_the_others(tmp_path: Path, pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    stand = Stand(tmp_path, pki)
    before = stand.held()
    assert not stand.look()
    # Half of the one pair, and the other pair as a whole: a broken name keeps no other from its renewal.
    stand.put("key.pem", pki.issue("half", "localhost")[1])
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=90)
    certfile, keyfile = pki.issue("new", "www.example.org", not_after=end)
    stand.put("www.pem", certfile)
    stand.put("www.key", keyfile)
    with caplog.at_level(logging.INFO, "asgiri.master"):
        assert stand.look()
        assert not any(stand.look() for _ in range(5))
    held = stand.held()
    assert held[""] == before[""]
    assert held[".sni.www.example.org"][stand.path("www.key")] == Path(keyfile).read_bytes()
    assert stand.counts == (1, 1)
    assert stand.master.expiries[1] == int(end.timestamp())
    taken, refused = (record.getMessage() for record in caplog.records)
    assert taken.startswith("127.0.0.1:2 (www.example.org): a new certificate for www.example.org, until ")
    assert refused == (
        "127.0.0.1:2: changed files are refused, and what was in use stays: here.yaml:7: listen[1].tls.keyfile: "
        f'the key in "{stand.path("key.pem")}" does not belong to the certificate in "{stand.path("cert.pem")}"'
    )


def test_of_many_changes_at_once_some_are_left_for_the_next_second(
    tmp_path: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(tmp_path, pki)
    other, www = pki.issue("other", "localhost"), pki.issue("www2", "www.example.org")
    for name, source in zip(("cert.pem", "key.pem", "www.pem", "www.key"), (*other, *www), strict=True):
        stand.put(name, source)
    monkeypatch.setattr("asgiri.supervisor.certificates.JUDGING_SECONDS", 1e-9)
    assert stand.look()
    assert stand.counts == (1, 0)
    assert stand.look()
    assert stand.counts == (2, 0)
    assert not stand.look()


def test_a_touch_is_no_news(tmp_path: Path, pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    stand = Stand(tmp_path, pki)
    (tmp_path / "cert.pem").touch()
    with caplog.at_level(logging.INFO, "asgiri.master"):
        assert not any(stand.look() for _ in range(5))
    assert not caplog.records
    assert stand.counts == (0, 0)


def test_the_end_of_what_is_in_use_is_told_at_14_7_1_and_0_days(
    tmp_path: Path, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    stand = Stand(tmp_path, pki, watch=False)
    ends = stand.master.expiries[:2]
    assert ends[0] > stand.wall
    assert ends[1] > stand.wall
    stand.certificates._held[1].warned = 4  # of one alone
    told = []
    for days in (15, 14, 13.9, 8, 6.9, 6, 0.5, 0.4, -0.1, -3):
        caplog.clear()
        stand.wall = ends[0] - days * 86400
        stand.look()
        told += [(days, record.getMessage().split(" in use ")[1][:12]) for record in caplog.records]
    assert told == [(13.9, "ends on 3000"), (6.9, "ends on 3000"), (0.5, "ends on 3000"), (-0.1, "has ended on")]
    assert passed(0.0, 5.0) == 0, "nobody knows when"


def test_a_file_that_cannot_be_read_is_said_of_its_key(tmp_path: Path, pki: Pki) -> None:
    (tmp_path / "cert.pem").write_bytes(Path(pki.certfile).read_bytes())
    tls = Tls(certfile=str(tmp_path / "cert.pem"), keyfile=str(tmp_path / "gone.pem"))
    config = replace(Config(), listen=(Listen(bind="127.0.0.1:0", tls=tls),))
    with pytest.raises(ConfigError) as caught:
        Certificates(Loaded(config, None, {"listen[0].tls.keyfile": "asgiri.yaml:4"}, {}))
    assert str(caught.value).startswith("asgiri.yaml:4: listen[0].tls.keyfile: cannot read")


def test_how_files_look(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    before = look_at([str(one)])
    assert before == look_at([str(one)])
    one.chmod(0o600)
    assert before != look_at([str(one)]), "what could not be read may be now"
    missing = look_at([str(one), str(other)])
    assert age_of(missing, 1e12) == -1.0
    assert age_of(look_at([str(one)]), one.stat().st_ctime + 5) == pytest.approx(5, abs=0.01)
    assert look_at(["a\0b"]) == ((0,),)


# The deposit


def test_a_deposit_is_read_whole_or_not_at_all() -> None:
    deposit = Deposit(b"")
    try:
        assert read(deposit.fileno()) is None
        deposit.put(b"\x91\xc0")
        assert read(deposit.fileno()) == [None]
        os.pwrite(deposit.fileno(), b"\x90", 12)  # in the middle of the master's writing
        assert read(deposit.fileno()) is None
        deposit.put(b"\x90")
        assert read(deposit.fileno()) == []
        deposit.put(b"\xc1")
        with pytest.raises(ValueError, match=r"\w"):
            read(deposit.fileno())
    finally:
        deposit.close()


def test_a_worker_that_boots_while_the_master_writes_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    deposit = Deposit(b"")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            deposit.put(b"\x91\xc0")

    monkeypatch.setattr("asgiri.deposit.time.sleep", pause)
    try:
        assert wait_for(deposit.fileno()) == [None]
        assert len(pauses) == 3
        os.pwrite(deposit.fileno(), bytes(12), 0)
        assert wait_for(deposit.fileno()) is None  # a master that hangs is not waited for for ever
        assert 0.5 < sum(pauses) < 2
    finally:
        deposit.close()
