"""Jobs that wait: in order, by priority, by flavour, admitted by limits; none lost, none left beside a free child."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestrator import Job
from orchestrator._codec import Payload
from orchestrator._queue import Queue
from orchestrator._record import Record
from orchestrator._targets import Target

NUMBERS = itertools.count(1)


def target(kind: str | None) -> Target:
    found = Target("hosting:double", None)
    if kind is not None:
        found.learn(kind)
    return found


def record(kind: str | None = "sync", **options: Any) -> Record:
    job = Job("hosting:double", **options)
    return Record(next(NUMBERS), job, target(kind), Payload(b"", b""), None)  # type: ignore[arg-type]


class Worker:
    """A child that takes so many jobs of its flavour; the first job decides on that."""

    def __init__(self, slots: int = 1, flavour: str | None = None) -> None:
        self.slots = slots
        self.flavour = flavour
        self.jobs: list[Record] = []
        self.taken: list[Record] = []
        self.state = "ready"
        self.turning = self.retiring = False
        self.is_blocked = False
        self.unflushed = 0

    @property
    def held(self) -> int:
        return len(self.jobs)

    def _fits(self, record: Record) -> bool:
        return self.flavour is None or (self.flavour == "async") == record.target.is_async

    def takes(self, record: Record) -> bool:
        return self.state == "ready" and not self.turning and self._fits(record) and self.held < self.slots

    def slots_for(self, record: Record) -> int:
        return self.slots - self.held if self.takes(record) else 0

    def could_serve(self, record: Record) -> bool:
        return self.state == "down" or (self.state == "ready" and self._fits(record) and not self.turning)

    def lease(self, record: Record) -> None:
        assert self.takes(record), "a job was sent to a child that does not take it"
        if self.flavour is None and record.target.kind is not None:
            self.flavour = "async" if record.target.is_async else "plain"
        record.state = "running"
        self.jobs.append(record)
        self.taken.append(record)
        self.unflushed += 1

    def flush(self) -> None:
        self.unflushed = 0

    def flush_soon(self) -> None:
        self.flush()

    def recycle(self) -> None:
        assert not self.jobs, "a child was replaced under a job"
        self.state = "stopping"

    def start(self) -> None:
        self.flavour = None
        self.turning = False
        self.state = "ready"


class Grant:
    def __init__(self, limits: Limits, units: dict[str, float]) -> None:
        self._limits = limits
        self._units = units
        self.released = False

    def forgo(self) -> None:
        self.release()

    def release(self) -> None:
        assert not self.released
        self.released = True
        for name, count in self._units.items():
            self._limits.free[name] += count
        self._limits.grant()


class Ticket:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Limits:
    """Permits for so many units of each name at once, first come first served."""

    def __init__(self, **free: float) -> None:
        self.free = dict(free)
        self.all = dict(free)
        self.waiting: deque[tuple[dict[str, float], Callable[[Any], None], Ticket]] = deque()

    counts_jobs = False

    def check(self, units: Any, where: str) -> Any:
        return units

    def request(self, units: Any, granted: Callable[[Any], None], **_: Any) -> Ticket:
        ticket = Ticket()
        self.waiting.append((dict(units), granted, ticket))
        self.grant()
        return ticket

    def grant(self) -> None:
        while self.waiting:
            units, granted, ticket = self.waiting[0]
            if ticket.cancelled:
                self.waiting.popleft()
                continue
            if any(self.free[name] < count for name, count in units.items()):
                return
            self.waiting.popleft()
            for name, count in units.items():
                self.free[name] -= count
                assert self.free[name] >= 0
            granted(Grant(self, units))


class Bench:
    """A queue with fake workers and limits, and a clock that is set by hand."""

    def __init__(self, *workers: Worker, **limits: float) -> None:
        self.workers = list(workers)
        self.limits = Limits(**limits)
        self.wanted = 0
        self.now = 0.0
        self.queue = Queue(self.workers, self.limits, self._want, lambda: self.now)  # type: ignore[arg-type]

    def _want(self) -> None:
        self.wanted += 1

    def put(self, *records: Record, front: bool = False) -> None:
        for each in records:
            self.queue.put(each, front=front)
            self.queue.pump()

    def finish(self, worker: Worker, index: int = 0) -> Record:
        """Have a worker's job end, as an answer does."""
        done = worker.jobs.pop(index)
        done.state = "settled"
        grant, done.grant = done.grant, None
        if grant is not None:
            grant.release()
        if worker.turning and not worker.jobs:
            worker.recycle()
        self.queue.has_room()
        self.queue.pump()
        return done

    def start_anew(self) -> None:
        """Have the children that were replaced start."""
        for worker in self.workers:
            if worker.state == "stopping":
                worker.start()
        self.queue.has_room()
        self.queue.pump()

    def drop(self, record: Record) -> None:
        """Settle a job that waits, as a cancel does."""
        record.state = "settled"
        if record.ticket is not None:
            record.ticket.cancel()
            record.ticket = None
        self.queue.dropped(record)


def test_first_come_first_served() -> None:
    bench = Bench(worker := Worker())
    records = [record() for _ in range(5)]
    bench.put(*records)
    for expected in records:
        assert bench.finish(worker) is expected
    assert worker.unflushed == 0


def test_higher_priority_goes_first_and_the_front_before_its_equals() -> None:
    bench = Bench(worker := Worker())
    bench.put(busy := record())
    low, usual, high, higher, back = (record(priority=number) for number in (-1, 0, 1, 2, 0))
    bench.put(low, usual, high, higher)
    bench.put(back, front=True)
    assert [bench.finish(worker) for _ in range(6)] == [busy, higher, high, back, usual, low]


def test_idle_children_in_turn_before_any_is_sent_ahead() -> None:
    bench = Bench(*(workers := [Worker(slots=10) for _ in range(3)]))
    bench.put(*[record() for _ in range(3)])
    assert [worker.held for worker in workers] == [1, 1, 1]
    bench.put(*[record() for _ in range(6)])
    assert [worker.held for worker in workers] == [3, 3, 3]


def test_more_children_are_wanted_when_jobs_are_left() -> None:
    bench = Bench(Worker())
    bench.put(record())
    assert bench.wanted == 0
    bench.put(record())
    assert bench.wanted == 1


def test_dropped_jobs_are_never_sent() -> None:
    bench = Bench(worker := Worker())
    records = [record() for _ in range(6)]
    bench.put(*records)
    for each in records[1:4]:
        bench.drop(each)
    assert [bench.finish(worker) for _ in range(3)] == [records[0], *records[4:]]
    assert not worker.jobs


def test_free_child_gets_its_flavour_however_long_the_other_line_is() -> None:
    plain, other = Worker(flavour="plain"), Worker(flavour="async")
    bench = Bench(plain, other)
    bench.put(record(), record(), record())
    assert (plain.held, other.held) == (1, 0)
    bench.put(record("async"))
    assert (plain.held, other.held) == (1, 1)
    bench.drop(waiting := record("async"))
    bench.put(waiting)
    bench.put(late := record("async"))
    bench.finish(other)
    assert other.jobs == [late]


def test_held_back_jobs_wait() -> None:
    bench = Bench(worker := Worker())
    bench.queue.caution = lambda: "wait"
    bench.put(record(), record(limits={"api": 1}))
    assert not worker.jobs
    bench.limits.free["api"] = 1
    bench.queue.caution = lambda: None
    bench.queue.has_room()
    bench.queue.pump()
    assert worker.held == 1


def test_idle_child_is_turned_when_no_other_will_ever_serve() -> None:
    bench = Bench(worker := Worker(flavour="async"))
    bench.put(job := record("sync"))
    assert worker.state == "stopping"
    bench.start_anew()
    assert worker.jobs == [job]


def test_busy_child_is_turned_after_a_while() -> None:
    bench = Bench(worker := Worker(slots=4, flavour="async"))
    bench.put(record("async"), record("async"))
    bench.put(record("sync"))
    assert not worker.turning
    bench.now = 10.0
    bench.queue.has_room()
    bench.queue.pump()
    assert worker.turning
    bench.put(late := record("async"))
    assert late.state == "queued"
    while worker.jobs:
        bench.finish(worker)
    assert worker.state == "stopping"
    bench.start_anew()
    assert worker.held == 1


def test_busy_child_goes_on_when_nobody_waits_for_another_one() -> None:
    bench = Bench(worker := Worker(slots=4, flavour="async"))
    bench.put(record("async"))
    bench.put(waits := record("sync"))
    bench.now = 10.0
    bench.queue.has_room()
    bench.queue.pump()
    assert worker.turning
    waits.state = "settled"
    bench.queue.dropped(waits)
    bench.put(late := record("async"))
    assert not worker.turning
    assert late.state == "running"


def test_permits_are_asked_for_only_when_a_job_could_start() -> None:
    bench = Bench(worker := Worker(), api=5)
    bench.put(*[record(limits={"api": 1}) for _ in range(4)])
    assert bench.limits.free["api"] == 4, "one runs, and no other holds a permit while it waits"
    while worker.jobs:
        bench.finish(worker)
    assert bench.limits.free == bench.limits.all


def test_job_without_permits_passes_one_that_waits_for_them() -> None:
    bench = Bench(worker := Worker(), api=1)
    bench.limits.free["api"] = 0
    bench.put(waits := record(limits={"api": 1}))
    assert not worker.jobs
    bench.put(free := record())
    assert worker.jobs == [free]
    bench.finish(worker)
    bench.limits.free["api"] = 1
    bench.limits.grant()
    assert worker.jobs == [waits]


def test_permit_that_comes_too_late_is_given_back() -> None:
    bench = Bench(worker := Worker(), api=1)
    bench.limits.free["api"] = 0
    bench.put(waits := record(limits={"api": 1}))
    bench.put(record())
    bench.limits.free["api"] = 1
    bench.limits.grant()
    assert bench.limits.free["api"] == 1, "the child is busy: a permit used later would break the rate"
    assert waits.state == "queued"
    bench.finish(worker)
    assert worker.jobs == [waits]


def test_many_dropped_jobs_are_cleared_away() -> None:
    bench = Bench(Worker())
    bench.put(record())
    records = [record() for _ in range(10_002)]
    for each in records:
        bench.queue.put(each)
    for each in records:
        bench.drop(each)
    lane = bench.queue._lanes["plain",]
    assert sum(map(len, lane._lines.values())) < 10


KINDS = st.sampled_from(["sync", "async", "generator", "async_generator", None])


class Machine(RuleBasedStateMachine):
    """Any order of arrivals, ends, cancels and returns."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(Worker(1), Worker(3), a=1, b=2)
        self.records: list[Record] = []

    @rule(
        kind=KINDS,
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        limits=st.sampled_from([{}, {}, {"a": 1}, {"a": 1, "b": 2}]),
    )
    def put(self, kind: str | None, priority: int, limits: dict[str, float]) -> None:
        self.records.append(record(kind, priority=priority, limits=limits))
        self.bench.put(self.records[-1])

    @precondition(lambda self: any(worker.jobs for worker in self.bench.workers))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from([worker for worker in self.bench.workers if worker.jobs]))
        self.bench.finish(worker, data.draw(st.integers(0, worker.held - 1)))

    @precondition(lambda self: any(worker.jobs for worker in self.bench.workers))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from([worker for worker in self.bench.workers if worker.jobs]))
        back = worker.jobs.pop()
        worker.taken.remove(back)
        back.state = "queued"
        grant, back.grant = back.grant, None
        if grant is not None:
            grant.release()
        self.bench.queue.put(back, front=True)
        self.bench.queue.has_room()
        self.bench.queue.pump()

    @precondition(lambda self: any(each.state == "queued" for each in self.records))
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        self.bench.drop(data.draw(st.sampled_from([each for each in self.records if each.state == "queued"])))

    @rule(seconds=st.sampled_from([0.1, 1.0]))
    def wait(self, seconds: float) -> None:
        self.bench.now += seconds
        self.bench.start_anew()

    @invariant()
    def nobody_waits_beside_a_free_child(self) -> None:
        for each in self.records:
            if each.state == "queued" and not each.job.limits:
                takers = [worker for worker in self.bench.workers if worker.takes(each)]
                assert not takers, f"{each.target.kind} job {each.id} waits although a child takes it"

    @invariant()
    def no_permit_is_lost(self) -> None:
        held = [each.job.limits for each in self.records if each.grant is not None]
        for name, all_of_it in self.bench.limits.all.items():
            assert self.bench.limits.free[name] + sum(limits.get(name, 0) for limits in held) == all_of_it

    @invariant()
    def everything_is_flushed(self) -> None:
        assert all(worker.unflushed == 0 for worker in self.bench.workers)

    def teardown(self) -> None:
        for _ in range(20 * len(self.records) + 20):
            self.bench.now += 1.0
            for worker in self.bench.workers:
                if worker.jobs:
                    self.bench.finish(worker)
            self.bench.start_anew()
        assert [each for each in self.records if each.state != "settled"] == [], "jobs are lost in line"
        taken = [each.id for worker in self.bench.workers for each in worker.taken]
        assert len(taken) == len(set(taken)), "a job was sent twice"


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
