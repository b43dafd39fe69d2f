"""The fleet on a random walk: whatever happens in whatever order, what must hold holds."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asgiri.errors import ExitCode
from asgiri.supervisor.crew import WorkerState
from asgiri.supervisor.fleet import PULSE_EVERY, STACKS_GRACE, Fleet, Phase
from asgiri.supervisor.messages import (
    Abandon,
    Announce,
    AskStacks,
    Command,
    Commit,
    Drain,
    DrainReason,
    Ending,
    Event,
    Exit,
    Exited,
    Failed,
    Fork,
    HandOver,
    Hold,
    Kill,
    KillHow,
    Policy,
    Pulse,
    QuickStop,
    Ready,
    Recycle,
    Reload,
    Report,
    Resize,
    Resume,
    Scale,
    Settled,
    Start,
    Stop,
    Tick,
    Vitals,
)
from asgiri.supervisor.scoreboard import BEAT_SECONDS

EPSILON = 1e-6

policies = st.builds(
    Policy,
    count=st.integers(1, 4),
    boot_timeout=st.sampled_from([0.0, 20.0]),
    heartbeat_timeout=st.sampled_from([2.0, 2.0, 2.0, 0.0]),
    drain_timeout=st.sampled_from([0.0, 5.0]),
    drain_delay=st.sampled_from([0.0, 4.0]),
    max_requests=st.sampled_from([0, 100]),
    hold=st.booleans(),
)
endings = st.sampled_from([Ending.CLEAN, Ending.FAILED, Ending.FAILED, Ending.KILLED, Ending.UNFORKED])


class Kernel(RuleBasedStateMachine):
    """Processes that boot, fail, fall silent, obey, ignore and die as hypothesis likes; and what must hold then.

    ``stage`` is what the process is, from the commands and from what it did: it "boots", "serves", is "stuck" or
    "hung" (given up, its stacks asked for), or "ends".
    """

    @initialize(policy=policies, up=st.sampled_from([True, True, True, False]))
    def begin(self, policy: Policy, up: bool) -> None:
        self.now = 0.0
        self.pulsed = 0.0
        self.stage: dict[int, str] = {}
        self.label: dict[int, tuple[int, int]] = {}  # (number, generation)
        self.served: dict[int, int] = {}
        self.silent: dict[int, float] = {}  # since when, by worker
        self.quiet: dict[int, float] = {}  # how long that was, as far as the master was awake
        self.asked_at: dict[int, float] = {}  # for its stacks
        self.held: set[int] = set()
        self.committed = 1
        self.stopped: DrainReason | None = None
        self.drain_from = 0.0  # no worker that serves is told of the stop before
        self.exits: list[ExitCode] = []
        self.announced = 0
        self.commands = 0
        self.fleet = Fleet(policy, lambda: 0.5)
        self.feed(Start())
        self.feed(self.pulse())
        if up:  # most walks shall get beyond STARTING
            self.becomes_ready(1)

    # What must hold.

    def feed(self, event: Event) -> None:
        if isinstance(event, Exited):
            self.stage.pop(event.worker_id, None)
            self.held.discard(event.worker_id)
        serving = self.having("serves")  # and not yet who is about to
        if isinstance(event, Ready) and self.stage.get(event.worker_id) == "boots":
            self.stage[event.worker_id] = "serves"
        count_before = self.fleet.count
        commands = self.fleet.handle(event, self.now)
        self.commands += len(commands)
        self.see_who_serves_again()
        for command in commands:
            self.obey(command)
        if self.stopped is None and self.fleet.phase is not Phase.STOPPING:
            hung = [worker_id for worker_id in serving if self.stage[worker_id] == "hung"]
            floor = min(count_before, self.fleet.count, len(serving) - len(hung))
            assert len(self.having("serves")) >= floor, "a command took a worker that was needed"
        if any(isinstance(command, Fork) for command in commands):
            assert len(self.having("boots", "serves")) <= self.fleet.count + 1

    def obey(self, command: Command) -> None:
        assert not self.exits, f"{command} after Exit"
        match command:
            case Fork(worker_id, number, generation):
                assert self.stopped is None
                assert worker_id not in self.label
                self.stage[worker_id] = "boots"
                self.label[worker_id] = (number, generation)
                self.served[worker_id] = 0
            case Drain(worker_id, reason):
                self.drains(worker_id, reason)
            case Kill(worker_id, how):
                self.kills(worker_id, how)
            case Hold(worker_id):
                assert self.stopped is None
                assert worker_id in self.having("serves")
                assert worker_id not in self.held, "held twice"
                self.held.add(worker_id)
            case Resume(worker_id):
                assert worker_id in self.having("serves")
                self.held.remove(worker_id)
            case AskStacks(worker_id):
                self.gives_up(worker_id)
            case Commit(generation):
                assert generation > self.committed
                self.committed = generation
            case Settled(generation):
                assert generation == self.committed
                assert all(self.label[worker_id][1] >= generation for worker_id in self.stage)
            case Announce():
                self.announced += 1
                assert self.announced == 1
                assert len(self.having("serves")) >= self.fleet.count
            case Exit(code):
                assert not self.stage, "Exit with workers left"
                self.exits.append(code)
            case Report(worker_id=worker_id, stacks=stacks):
                assert not stacks or worker_id in self.asked_at
            case Abandon():
                pass

    def drains(self, worker_id: int, reason: DrainReason) -> None:
        stage, worker = self.stage[worker_id], self.fleet.workers[worker_id]
        assert not (self.stopped and worker_id in self.held and stage == "serves"), "nobody is there to hand over to"
        self.held.discard(worker_id)
        goes = self.fleet.phase is Phase.STOPPING  # by itself, if the start failed
        assert reason is (self.stopped or (DrainReason.STOP if goes else DrainReason.RETIRE))
        if not goes:
            number, generation = self.label[worker_id]
            may_go = generation < self.committed or worker.worn or number > self.fleet.count
            assert may_go or stage == "stuck", "nobody wanted that one to go"
            assert stage != "ends", "told twice"
        elif stage == "serves":
            assert self.now >= self.drain_from, "before drain_delay was over"
        self.stage[worker_id] = "ends"

    def kills(self, worker_id: int, how: KillHow) -> None:
        stage = self.stage[worker_id]
        match how:
            case KillHow.TERM:
                assert stage == "boots"
            case KillHow.ABRT:
                assert stage in ("hung", "stuck")
                assert self.now >= self.asked_at[worker_id] + STACKS_GRACE - EPSILON
            case KillHow.KILL:
                assert stage == "ends"
            case KillHow.QUIT:
                assert self.stopped is not None
        self.stage[worker_id] = "ends"
        self.held.discard(worker_id)

    def gives_up(self, worker_id: int) -> None:
        assert worker_id in self.having("boots", "serves")
        if self.stage[worker_id] == "serves":
            assert self.quiet[worker_id] >= self.patience(worker_id) - EPSILON, "nobody who beats is blamed"
            self.stage[worker_id] = "hung"
        else:
            self.stage[worker_id] = "stuck"
        self.asked_at[worker_id] = self.now

    def see_who_serves_again(self) -> None:
        for worker_id in self.having("hung"):
            if self.fleet.workers[worker_id].state is WorkerState.READY:
                assert worker_id not in self.silent
                self.stage[worker_id] = "serves"

    def patience(self, worker_id: int) -> float:
        return BEAT_SECONDS + self.fleet.workers[worker_id].policy.heartbeat_timeout

    def having(self, *stages: str) -> list[int]:
        return [worker_id for worker_id, stage in self.stage.items() if stage in stages]

    @invariant()
    def the_fleet_knows_its_workers(self) -> None:
        assert list(self.fleet.workers) == list(self.stage)

    @invariant()
    def one_number_of_one_generation_has_one_worker_and_those_that_it_replaces(self) -> None:
        newest: dict[tuple[int, int], int] = {}
        for worker_id in self.having("boots", "serves"):
            if before := newest.get(self.label[worker_id]):
                assert self.fleet.workers[before].worn
            newest[self.label[worker_id]] = worker_id

    @invariant()
    def the_next_tick_lies_ahead(self) -> None:
        due = self.fleet.deadline()
        assert due is None or due > self.now

    @invariant()
    def who_is_silent_is_found(self) -> None:
        for worker_id in self.having("serves"):
            if self.fleet.workers[worker_id].policy.heartbeat_timeout:
                assert self.quiet.get(worker_id, 0.0) < self.patience(worker_id) + EPSILON

    @invariant()
    def who_serves_is_held_while_there_is_newer_code_and_only_then(self) -> None:
        holds = {self.fleet.generation: self.fleet._current.policy.hold}
        if self.fleet._candidate is not None:
            holds[self.fleet._candidate.number] = self.fleet._candidate.policy.hold
        over = self.fleet.phase in (Phase.STOPPING, Phase.GONE)
        for worker_id in self.having("serves"):
            newer = any(hold for number, hold in holds.items() if number > self.label[worker_id][1])
            assert (worker_id in self.held) is (newer and not over)

    @invariant()
    def gone_means_exit_was_given(self) -> None:
        assert len(self.exits) == (self.fleet.phase is Phase.GONE)
        assert self.fleet.phase in (Phase.STOPPING, Phase.GONE) or self.stopped is None

    # Time, as the master has it pass.

    def pulse(self) -> Pulse:
        for worker_id, since in self.silent.items():
            heard_or_looked = max(since, self.pulsed)
            self.quiet[worker_id] = self.quiet.get(worker_id, 0.0) + min(self.now - heard_or_looked, PULSE_EVERY)
        self.pulsed = self.now
        return Pulse(
            {
                worker_id: Vitals(self.silent.get(worker_id, self.now), self.served[worker_id])
                for worker_id in self.stage
            }
        )

    def wakes(self) -> None:
        self.feed(self.pulse())
        due = self.fleet.deadline()
        if due is not None and due <= self.now:
            self.feed(Tick())

    def advance(self, until: float) -> None:
        while True:
            due = self.fleet.deadline()
            at = self.pulsed + PULSE_EVERY if due is None else min(due, self.pulsed + PULSE_EVERY)
            if at > until:
                break
            self.now = at
            self.wakes()
        self.now = until

    @rule(seconds=st.sampled_from([0.01, 0.5, 2.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.advance(self.now + seconds)

    @precondition(lambda self: self.fleet.deadline() is not None)
    @rule()
    def a_tick_comes(self) -> None:
        due = self.fleet.deadline()
        assert due is not None
        self.advance(due)

    @rule(seconds=st.sampled_from([1.5, 3.0, 60.0]), data=st.data(), news=st.sampled_from([0, 0, 1, 2]))
    def the_master_sleeps(self, seconds: float, data: st.DataObject, news: int) -> None:
        self.now += seconds
        for _ in range(news):
            if self.stage:
                worker_id = data.draw(st.sampled_from(list(self.stage)))
                if self.stage[worker_id] == "boots":
                    self.becomes_ready(worker_id)
                else:
                    self.feed(Exited(worker_id, "left", data.draw(endings)))
        self.wakes()

    # What processes do.

    def becomes_ready(self, worker_id: int) -> None:
        self.speaks(worker_id)
        self.feed(Ready(worker_id))

    def speaks(self, worker_id: int) -> None:
        self.silent.pop(worker_id, None)
        self.quiet.pop(worker_id, None)

    @precondition(lambda self: self.having("boots"))
    @rule(data=st.data(), good=st.sampled_from([True, True, True, False]))
    def boots(self, data: st.DataObject, good: bool) -> None:
        worker_id = data.draw(st.sampled_from(self.having("boots")))
        if good:
            self.becomes_ready(worker_id)
        else:
            self.stage[worker_id] = "ends"
            self.feed(Failed(worker_id, "no"))

    @rule()
    def all_boot(self) -> None:
        for worker_id in self.having("boots"):
            if self.stage.get(worker_id) == "boots":
                self.becomes_ready(worker_id)

    @precondition(lambda self: self.having("serves"))
    @rule(data=st.data())
    def serves(self, data: st.DataObject) -> None:
        self.served[data.draw(st.sampled_from(self.having("serves")))] += 60

    @precondition(lambda self: set(self.having("serves")) - self.silent.keys())
    @rule(data=st.data())
    def falls_silent(self, data: st.DataObject) -> None:
        worker_id = data.draw(st.sampled_from([w for w in self.having("serves") if w not in self.silent]))
        self.silent[worker_id] = self.now

    @precondition(lambda self: self.having("serves"))
    @rule(data=st.data(), several=st.booleans())
    def hangs(self, data: st.DataObject, several: bool) -> None:
        """Until that is seen, where it is looked for."""
        serving = self.having("serves")
        for worker_id in serving if several else [data.draw(st.sampled_from(serving))]:
            self.silent.setdefault(worker_id, self.now)
        self.advance(self.now + BEAT_SECONDS + 2.0)

    @precondition(lambda self: self.silent)
    @rule(data=st.data())
    def is_heard_again(self, data: st.DataObject) -> None:
        self.speaks(data.draw(st.sampled_from(list(self.silent))))
        self.feed(self.pulse())

    @precondition(lambda self: self.stage)
    @rule(data=st.data(), ending=endings)
    def exits_(self, data: st.DataObject, ending: Ending) -> None:
        self.feed(Exited(data.draw(st.sampled_from(list(self.stage))), "left", ending))

    @precondition(lambda self: self.having("ends"))
    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        self.feed(Exited(data.draw(st.sampled_from(self.having("ends"))), "left"))

    @rule(worker_id=st.integers(0, 30))
    def late_news(self, worker_id: int) -> None:
        if self.stage.get(worker_id) not in ("boots", "serves"):
            self.feed(Ready(worker_id))
            self.feed(Failed(worker_id, "no"))
        if worker_id not in self.stage:
            self.feed(Exited(worker_id, "left"))

    # What people ask for.

    @rule(policy=policies)
    def reload(self, policy: Policy) -> None:
        self.feed(Reload(policy))

    @rule(by=st.sampled_from([-2, -1, 1]))
    def scale(self, by: int) -> None:
        self.feed(Scale(by))

    @rule(count=st.integers(0, 4))
    def resize(self, count: int) -> None:
        self.feed(Resize(count))

    @rule()
    def recycle(self) -> None:
        self.feed(Recycle())

    @precondition(lambda self: len(self.label) > 10)
    @rule(event=st.sampled_from([Stop(), HandOver(), QuickStop()]))
    def stop(self, event: Event) -> None:
        if self.stopped is None:
            self.stopped = DrainReason.RETIRE if isinstance(event, HandOver) else DrainReason.STOP
            self.drain_from = self.now
            if isinstance(event, Stop) and self.having("serves") and self.fleet.phase is Phase.RUNNING:
                self.drain_from += self.policy_delay()
        self.feed(event)

    def policy_delay(self) -> float:
        return self.fleet._current.policy.drain_delay

    # And in the end, when every process does what it should:

    def teardown(self) -> None:
        if not hasattr(self, "fleet"):
            return
        self.silent.clear()
        self.quiet.clear()
        for _ in range(200):
            if ends := self.having("ends"):
                self.feed(Exited(ends[0], "left"))
            elif boots := self.having("boots"):
                self.becomes_ready(boots[0])
            else:
                before = self.commands
                self.advance(self.now + 12)  # longer than any backoff
                if self.commands == before:
                    break
        else:
            pytest.fail("the fleet does not come to rest")
        if self.exits:
            assert self.stopped is not None or self.exits == [ExitCode.APP] or self.exits == [ExitCode.FAILED]
            return
        assert self.announced == 1
        wanted = [(number, self.committed) for number in range(1, self.fleet.count + 1)]
        assert sorted(self.label[worker_id] for worker_id in self.having("serves")) == wanted
        assert list(self.stage.values()) == ["serves"] * self.fleet.count
        assert not any(worker.worn for worker in self.fleet.workers.values())
        assert not self.held
        assert (self.fleet.generation, self.fleet.candidate) == (self.committed, None)


TestRandomWalk = Kernel.TestCase
TestRandomWalk.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
