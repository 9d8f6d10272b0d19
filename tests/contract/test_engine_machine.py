"""Whatever happens in whatever order, hours of it: one child a worker, one outcome a job, and nothing after a stop."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import hosting
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator import Job, JobHandle, Limit, RestartPolicy, RetryPolicy, Supervisor, _worker
from orchestrator.exceptions import PoolBroken
from tests.contract._fake_child import FakeChild, Frame
from tests.contract._virtual_loop import VirtualLoop

T = TypeVar("T")

GRACE = 1.0
START_TIMEOUT = 30.0
QUICK, HOLDS, DIES, FAILS, DEAF = "quick", "holds", "dies", "fails", "deaf"


def kind_of(job: Frame) -> str:
    kind: str = job["args"][0].partition(" ")[0]
    return kind


def pick(data: st.DataObject, choices: Sequence[T]) -> T:
    """Draw one of some; how many there are is the engine's doing, and no part of what Hypothesis repeats."""
    return choices[data.draw(st.integers(0, 999)) % len(choices)]


class ScriptedChild(FakeChild):
    """A child that starts as it is told and does what the names of its jobs say; plain ones run one by one.

    Attributes:
        line: Frames of its jobs; the first one runs.
    """

    machine: ClassVar[Any]

    def __init__(self, name: str, recipe: Any, owner: Any) -> None:
        super().__init__(name, recipe, owner)
        self.line: list[Frame] = []
        self.running = 0  # it notes what it begins, as real ones do
        self.worker, _, generation = name.rpartition("-")
        self.generation = int(generation)

    def script(self, frame: Frame) -> None:  # type: ignore[override]
        loop = asyncio.get_running_loop()
        match frame["type"]:
            case "init":
                self.machine.started(self)
                how, after = self.machine.start
                if how == "ready":
                    loop.call_later(after, self.hello)
                elif how == "dies":
                    loop.call_later(after, self.end_now, 1)
            case "job":
                self.line.append(frame)
                if len(self.line) == 1:
                    self.begin()
            case "cancel":
                running = self.line[0] if self.line else None
                for job in [job for job in self.line if job["fence"] == frame["fence"]]:
                    if job is not running or kind_of(job) != DEAF:
                        self.answer(job, error="JobCancelled", cancelled=True)
            case "recall":
                back = [job for job in self.line[1:] if job["fence"] in frame["fences"]]
                self.line = [job for job in self.line if job not in back]
                self.say({"type": "returned", "asked": frame["fences"], "fences": [job["fence"] for job in back]})
            case "ping":
                self.say({"type": "pong", "seq": frame["seq"]})

    def begin(self) -> None:
        job = self.line[0]
        self.running = job["fence"]
        loop = asyncio.get_running_loop()
        kind = kind_of(job)
        if kind == QUICK:
            loop.call_later(0.001, self.answer, job)
        elif kind == FAILS:
            loop.call_later(0.01, lambda: self.answer(job, error="ValueError"))
        elif kind == DIES:
            loop.call_later(0.01, lambda: self.end_now(signal="SIGSEGV") if job in self.line else None)

    def end_now(self, code: int | None = None, signal: str | None = None) -> None:
        if self.line and not self._end.done():
            self.machine.deaths[self.line[0]["args"][0]] += 1
        super().end_now(code, signal)

    def answer(self, job: Frame, *, error: str = "", cancelled: bool = False) -> None:
        if job not in self.line or self._end.done():  # the dead say nothing, also before it is noticed that they are
            return
        ran = self.line[0] is job
        self.line.remove(job)
        if error:
            said: Frame = {"type": "error", "cancelled": cancelled, "error": {"type": error, "message": ""}}
        else:
            said = {"type": "result", "ms": 0.1, "value": job["args"][0]}
        self.say({**said, "fence": job["fence"]})
        if ran and self.line:
            self.begin()


@dataclass
class Known:
    """What the model knows of one job."""

    handle: JobHandle
    kind: str
    job: Job
    cancelled: bool = False
    statuses: list[str] = field(default_factory=list)


class Machine(RuleBasedStateMachine):
    """A supervisor with fake children on a clock that jumps, beside a model of what may become of each job."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.children: list[ScriptedChild] = []
        self.jobs: list[Known] = []
        self.start: tuple[str, float] = ("ready", 0.05)
        self.disturbed = False  # children died for no reason of a job
        self.closed = False
        self.deaths: Counter[str] = Counter()  # of children, by the job that ran

        class Child(ScriptedChild):
            machine = self
            made: ClassVar[list[FakeChild]] = []

        self.kept = _worker.Child
        _worker.Child = Child  # type: ignore[misc,assignment]

    def started(self, child: ScriptedChild) -> None:
        before = [other for other in self.children if other.worker == child.worker]
        assert all(other.gone.is_set() for other in before), "one child a worker"
        assert [other.generation for other in before] == list(range(1, child.generation)), "none left out"
        assert not self.closed, "nothing is started after the end"
        self.children.append(child)

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    @property
    def living(self) -> list[ScriptedChild]:
        return [child for child in self.children if not child.gone.is_set()]

    @initialize(workers=st.integers(1, 4))
    def opens(self, workers: int) -> None:
        async def scenario() -> Supervisor:
            return await Supervisor(
                workers=workers,
                grace=GRACE,
                start_timeout=START_TIMEOUT,
                on_exit="cancel",
                limits=[Limit("few", concurrency=2)],
                restart=RestartPolicy(cooldown=5.0),
            ).__aenter__()

        self.supervisor = self.do(scenario())

    @rule(
        kinds=st.lists(
            st.sampled_from([QUICK, QUICK, QUICK, QUICK, HOLDS, DIES, FAILS, DEAF]), min_size=1, max_size=20
        ),
        again=st.booleans(),
        limited=st.sampled_from([False, False, True]),
        timeout=st.sampled_from([None, None, None, 2.0]),
    )
    def submits(self, kinds: list[str], again: bool, limited: bool, timeout: float | None) -> None:
        retry = RetryPolicy(attempts=5, on="any", backoff=0.1) if again else None

        async def scenario() -> None:
            for kind in kinds:
                limits = {"few": 1} if limited else {}
                text = f"{kind} {len(self.jobs)}"
                job = Job(hosting.double, args=(text,), retry=retry, limits=limits, timeout=timeout)
                self.jobs.append(Known(await self.supervisor.submit(job), kind, job))

        try:
            self.do(scenario())
        except PoolBroken:
            assert self.supervisor.statistics().state == "broken"

    @rule(count=st.integers(3, 40))
    def submits_quick_ones(self, count: int) -> None:
        """They are learnt to be quick, and sent ahead."""
        self.submits([QUICK] * count, again=False, limited=False, timeout=None)

    @property
    def open_jobs(self) -> list[Known]:
        return [known for known in self.jobs if not known.handle.done]

    @precondition(lambda self: self.open_jobs)
    @rule(data=st.data())
    def cancels(self, data: st.DataObject) -> None:
        known = pick(data, self.open_jobs)

        async def scenario() -> None:
            if not known.handle.done:
                known.cancelled = True
                known.handle.cancel()
                async with asyncio.timeout(GRACE + 2):  # promise 3
                    await known.handle.outcome()

        self.do(scenario())

    @rule(how=st.sampled_from(["ready", "ready", "ready", "dies", "mute"]), after=st.sampled_from([0.05, 0.05, 5.0]))
    def starts_differ(self, how: str, after: float) -> None:
        """The children that are started from now on."""
        self.start = how, after
        self.disturbed |= how != "ready"

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def is_killed(self, data: st.DataObject) -> None:
        pick(data, self.living).end_now(signal="SIGKILL")
        self.disturbed = True

    @rule(workers=st.integers(1, 5))
    def scales(self, workers: int) -> None:
        async def scenario() -> None:
            async with asyncio.timeout(2):
                await self.supervisor.scale(workers)

        self.do(scenario())

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def holder_ends(self, data: st.DataObject) -> None:
        """A job that holds its child is done."""
        self.do(self.let_holder_end(pick(data, self.living)))

    async def let_holder_end(self, child: ScriptedChild) -> None:
        if child.line and kind_of(child.line[0]) in (HOLDS, DEAF):
            child.answer(child.line[0])

    @precondition(lambda self: len(self.children) > 1 and any(child.line for child in self.living))
    @rule(data=st.data())
    def says_what_is_not_its_to_say(self, data: st.DataObject) -> None:
        """A frame of a dead child, or of a living one about another's job, is nobody's answer."""
        other = pick(data, [child for child in self.living if child.line])
        # An earlier child of the same worker, if there was one.
        alike = [child for child in self.children if child.worker == other.worker and child is not other]
        child = pick(data, alike or [child for child in self.children if child is not other])
        fence = pick(data, other.line)["fence"]
        line = json.dumps({"type": "result", "fence": fence, "ms": 1.0, "value": "forged"}).encode()

        async def scenario() -> None:
            child._owner.received(child, [line], [])

        self.do(scenario())

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.2, 3.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    @invariant()
    def numbers_belong_together(self) -> None:
        if not hasattr(self, "supervisor"):
            return
        seen = self.supervisor.statistics()
        assert seen.submitted == len(self.jobs)
        assert seen.submitted == seen.queued + seen.running + seen.waiting + sum(seen.settled.values())
        assert min(seen.queued, seen.running, seen.waiting) >= 0
        [few] = seen.limits
        assert 0 <= few.held <= 2, "a limit is never exceeded"
        assert seen.state in ("open", "broken"), "the engine failed"
        for known in self.jobs:
            if known.handle.done and not known.statuses:
                known.statuses.append(known.handle.state)
            if known.statuses:
                assert known.handle.state == known.statuses[0], "one outcome"

    def check_outcome(self, known: Known) -> None:
        outcome = self.do(known.handle.outcome())
        possible = {"cancelled"} if known.cancelled else set()
        if known.kind in (QUICK, HOLDS, DEAF):
            possible.add("succeeded")
        if known.kind == FAILS:
            possible.add("failed")
        if known.kind == DIES or self.disturbed or not known.cancelled:
            possible |= {"crashed", "quarantined"}
        if known.job.timeout is not None:
            possible.add("timed_out")
        if self.disturbed:
            possible.add("failed")  # no child can be started
        assert outcome.status in possible, f"{known.kind}: {outcome}"
        assert outcome.value != "forged"
        if outcome.succeeded and known.kind == QUICK and known.job.timeout is None:
            assert outcome.attempts <= 1 + self.deaths[known.job.args[0]], "charged for what was not its fault"
        if known.kind == QUICK and not self.disturbed and not any(other.kind == DIES for other in self.jobs):
            assert outcome.succeeded or outcome.status == "cancelled"
            assert outcome.attempts <= 1

    def teardown(self) -> None:
        try:
            if hasattr(self, "supervisor"):
                self.ends()
        finally:
            _worker.Child = self.kept  # type: ignore[misc]
            self.loop.close()

    def ends(self) -> None:
        # When nothing happens to children any more, every job comes to its end.
        self.start = "ready", 0.05
        for _ in range(300):
            for child in self.living:
                self.do(self.let_holder_end(child))
            self.do(asyncio.sleep(5))
            if all(known.handle.done for known in self.jobs):
                break
        assert all(known.handle.done for known in self.jobs), self.supervisor.statistics()

        async def scenario() -> float:
            began = self.loop.time()
            await self.supervisor.__aexit__(None, None, None)
            return self.loop.time() - began

        took = self.do(scenario())
        self.closed = True
        assert took <= 10 + GRACE + 2
        assert not self.living
        self.do(asyncio.sleep(700))  # no timer is left that would start anything
        for known in self.jobs:
            self.check_outcome(known)
        assert not asyncio.all_tasks(self.loop)


QUIETLY = {"deadline": None, "suppress_health_check": list(HealthCheck)}
TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=30, **QUIETLY)  # type: ignore[arg-type]


@pytest.mark.soak
class TestMachineForLong(Machine.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=1_000, stateful_step_count=60, **QUIETLY)  # type: ignore[arg-type]
