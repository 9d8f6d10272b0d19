"""Leases of the cache: one computes, the others wait, whoever dies is replaced, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestrator._cache_flights import Call, Flights

A, B, C = b"a", b"b", b"c"
KEYS = [A, B, C, b"d"]
DEEPEST = 3


def call(owner: object, number: int = 1, *inside: int, group: object = None, **options: Any) -> Call:
    return Call(owner, group or owner, number, frozenset(inside), **options)


# One by one


def test_the_first_computes_and_the_others_wait_in_their_order() -> None:
    flights = Flights()
    first, second, third = call("one"), call("two"), call("three")
    assert flights.ask(first, [A], wait=True) == [A]
    assert flights.ask(second, [A], wait=True) == []
    assert flights.ask(third, [A], wait=True) == []
    assert flights.waits("two") == [second]
    assert flights.filled([A]) == [second, third]
    assert (len(flights), flights.waits("two"), flights.call("one", 1)) == (0, [], None)


def test_when_the_computer_is_gone_the_next_one_computes_and_only_that_one() -> None:
    flights = Flights()
    calls = [call(number) for number in range(4)]
    for each in calls:
        flights.ask(each, [A], wait=True)
    assert flights.leave(0) == [(calls[1], [A])]
    assert flights.failed(calls[1]) == [(calls[2], [A])]
    assert flights.leave(2) == [(calls[3], [A])]
    assert flights.leave(3) == []
    assert len(flights) == 0


def test_keys_of_one_that_is_gone_come_together_to_who_waits_for_all_of_them() -> None:
    flights = Flights()
    flights.ask(call("one"), [A, B, C], wait=True)
    waiting = call("two")
    assert flights.ask(waiting, [A, B, C], wait=True) == []
    assert flights.leave("one") == [(waiting, [A, B, C])]


def test_who_gets_something_to_compute_does_not_wait_for_the_rest() -> None:
    flights = Flights()
    flights.ask(call("one"), [A], wait=True)
    second = call("two")
    assert flights.ask(second, [A, B], wait=True) == [B]
    assert flights.waits("two") == []
    assert flights.filled([A]) == []
    assert flights.ask(call("two", 2), [B], wait=False) == []
    assert flights.waits("two") == []


def test_one_that_waits_no_longer_is_not_chosen() -> None:
    flights = Flights()
    calls = [call(number) for number in range(3)]
    for each in calls:
        flights.ask(each, [A], wait=True)
    assert flights.failed(calls[1]) == []
    assert flights.leave(0) == [(calls[2], [A])]


def test_two_that_would_wait_for_each_other() -> None:
    flights = Flights()
    flights.ask(call("one"), [A], wait=True)
    flights.ask(call("two"), [B], wait=True)
    assert flights.ask(call("one", 2, 1), [B], wait=True) == []
    # The second to ask computes for itself, and the first one's lease stays.
    assert flights.ask(call("two", 2, 1), [A], wait=True) == [A]
    assert flights.call("two", 2) is None
    assert [each.owner for each in flights.filled([B])] == ["one"]
    assert flights.filled([A]) == []


def test_tasks_of_one_job_that_know_for_whom_they_ask_are_no_circle() -> None:
    flights = Flights()
    flights.ask(call("one"), [A], wait=True)
    flights.ask(call("two"), [B], wait=True)
    assert flights.ask(call("one", 2), [B], wait=True) == []
    assert flights.ask(call("two", 2), [A], wait=True) == []


def test_a_circle_of_three() -> None:
    flights = Flights()
    for owner, key in (("one", A), ("two", B), ("three", C)):
        flights.ask(call(owner), [key], wait=True)
    assert flights.ask(call("one", 2, 1), [B], wait=True) == []
    assert flights.ask(call("two", 2, 1), [C], wait=True) == []
    assert flights.ask(call("three", 2, 1), [A], wait=True) == [A]


def test_a_key_that_is_computed_by_way_of_itself() -> None:
    flights = Flights()
    flights.ask(call("one"), [A], wait=True)
    assert flights.ask(call("one", 2, 1), [A], wait=True) == [A]


def test_a_thread_that_does_not_say_for_whom_it_asks() -> None:
    flights = Flights()
    flights.ask(call("one"), [A], wait=True)
    flights.ask(call("two"), [B], wait=True)
    # Another thread of the same job computes it: there is nothing wrong with waiting.
    assert flights.ask(call("one", 2, unsure=True), [A], wait=True) == []
    assert flights.ask(call("one", 3, unsure=True), [B], wait=True) == []
    assert flights.ask(call("two", 2, unsure=True), [A], wait=True) == [A]


def test_one_that_blocks_its_loop_does_not_wait_for_what_is_computed_on_it() -> None:
    flights = Flights()
    flights.ask(call("one", group="child"), [A], wait=True)
    assert flights.ask(call("two", group="child", blocks=True), [A], wait=True) == [A]
    assert flights.ask(call("three", group="another", blocks=True), [A], wait=True) == []


def test_a_lease_does_not_go_to_a_child_that_could_not_begin() -> None:
    flights = Flights()
    flights.ask(call("one"), [A, B], wait=True)
    stuck = call("two", group="child")
    flights.ask(stuck, [A], wait=True)
    flights.ask(call("three", group="child", blocks=True), [B], wait=True)
    later = call("four")
    flights.ask(later, [A], wait=True)
    assert flights.failed(flights.call("one", 1), [A]) == [(later, [A])]  # type: ignore[arg-type]
    # With nobody else there, all of them compute.
    assert flights.failed(later) == [(stuck, [A])]


def test_what_is_being_stored_stays_when_its_computer_dies() -> None:
    flights = Flights()
    store = call("store", 0)
    flights.ask(call("one"), [A, B], wait=True)
    waiting = call("two")
    flights.ask(waiting, [A, B], wait=True)
    flights.land(flights.call("one", 1), A, store)
    assert flights.leave("one") == [(waiting, [B])]
    again = call("three")
    assert flights.ask(again, [A], wait=True) == []
    assert flights.filled([A]) == [again]
    assert len(flights) == 1


# All together: jobs that compute values out of other values, and die while they do


class Task:
    """A thread or task of a job: the questions that it is in, the innermost last."""

    def __init__(self, owner: Job, kind: str) -> None:
        self.owner = owner
        self.kind = kind
        self.asks: list[Ask] = []


class Ask:
    def __init__(self, keys: list[bytes]) -> None:
        self.keys = keys
        self.call: Call | None = None
        self.computing: list[bytes] = []
        self.free: set[bytes] = set()  # to be computed without a lease


class Job:
    def __init__(self, name: int, child: str) -> None:
        self.name = name
        self.child = child
        self.questions = 0
        self.tasks: list[Task] = []


class World(RuleBasedStateMachine):
    """Jobs in three children, on a clock of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.flights = Flights()
        self.there: set[bytes] = set()
        self.jobs: list[Job] = []
        self.count = 0

    # What a task does

    def tasks(self) -> list[Task]:
        return [task for job in self.jobs for task in job.tasks if task.asks]

    def waits(self, task: Task) -> bool:
        asked = task.asks[-1].call
        return asked is not None and bool(asked.wants)

    def able(self) -> list[Task]:
        """Return who can take a step: not who waits, nor who is on a loop that somebody blocks while it waits."""
        blocked = {task.owner.child for task in self.tasks() if task.kind == "blocks" and self.waits(task)}
        return [task for task in self.tasks() if not self.waits(task) and task.owner.child not in blocked]

    def ask(self, task: Task) -> None:
        """Ask for what is not there yet of the innermost question; leave it when all is."""
        ask = task.asks[-1]
        ask.computing, ask.free = [], set()
        missing = [key for key in ask.keys if key not in self.there]
        if not missing:
            task.asks.pop()
            return
        owner = task.owner
        owner.questions += 1
        numbers = [outer.call.number for outer in task.asks[:-1] if outer.computing and outer.call is not None]
        asking = ask.call = Call(
            owner,
            owner.child,
            owner.questions,
            frozenset(numbers),
            unsure=task.kind == "unsure",
            blocks=task.kind == "blocks",
        )
        granted = self.flights.ask(asking, missing, wait=len(missing) == len(ask.keys))
        self.compute(task, granted)
        if not granted and not asking.wants:
            # Some were there: now for the others.
            ask.keys = missing
            self.ask(task)

    def compute(self, task: Task, keys: list[bytes]) -> None:
        ask = task.asks[-1]
        ask.computing = list(keys)
        ask.free = {key for key in keys if ask.call is None or key not in ask.call.holds}

    def granted(self, found: list[Any]) -> None:
        for asked, keys in found:
            task = next(task for task in self.tasks() if task.asks[-1].call is asked)
            self.compute(task, keys)

    def finish(self, task: Task) -> None:
        """Tell what is computed, then ask for the rest."""
        ask = task.asks[-1]
        for key in ask.computing:
            if key not in self.there:
                self.there.add(key)
                for woken in self.flights.filled([key]):
                    self.ask(next(each for each in self.tasks() if each.asks[-1].call is woken))
        self.ask(task)

    def fail(self, task: Task) -> None:
        """Have what the innermost question computes raise: all around it fail too."""
        while task.asks:
            ask = task.asks.pop()
            if ask.call is not None:
                self.granted(self.flights.failed(ask.call))

    # What happens

    @rule(child=st.sampled_from(["x", "y", "z"]), kinds=st.lists(st.sampled_from(["plain", "unsure"]), max_size=2))
    def begin(self, child: str, kinds: list[str]) -> None:
        self.count += 1
        job = Job(self.count, child)
        self.jobs.append(job)
        job.tasks = [Task(job, kind) for kind in kinds]

    @rule(child=st.sampled_from(["x", "y"]))
    def begin_blocking(self, child: str) -> None:
        self.begin(child, [])
        self.jobs[-1].tasks = [Task(self.jobs[-1], "blocks")]

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def look_up(self, data: st.DataObject) -> None:
        blocked = {task.owner.child for task in self.tasks() if task.kind == "blocks" and self.waits(task)}
        tasks = [task for job in self.jobs for task in job.tasks if not self.waits_at_all(task)]
        tasks = [task for task in tasks if len(task.asks) < DEEPEST and task.owner.child not in blocked]
        if tasks:
            task = data.draw(st.sampled_from(tasks))
            task.asks.append(Ask(data.draw(st.lists(st.sampled_from(KEYS), min_size=1, unique=True))))
            self.ask(task)

    def waits_at_all(self, task: Task) -> bool:
        return bool(task.asks) and (self.waits(task) or not task.asks[-1].computing)

    @precondition(lambda self: self.able())
    @rule(data=st.data(), fails=st.sampled_from([False, False, False, True]))
    def step(self, data: st.DataObject, fails: bool) -> None:
        task = data.draw(st.sampled_from(self.able()))
        if fails:
            self.fail(task)
        else:
            self.finish(task)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        self.jobs.remove(job)
        self.granted(self.flights.leave(job))

    @rule(key=st.sampled_from(KEYS))
    def evict(self, key: bytes) -> None:
        self.there.discard(key)

    # What holds

    @invariant()
    def each_key_is_computed_once_but_in_circles(self) -> None:
        # A lease ends when somebody who computed without one was quicker.
        asks = [ask for task in self.tasks() for ask in task.asks if ask.call is not None]
        leased = Counter(key for ask in asks if ask.call for key in ask.computing if key in ask.call.holds)
        assert leased.total() == len(self.flights)
        assert all(count == 1 for count in leased.values()), leased
        # Whoever is in no computation, knows that, and lets others go on, never computes without a lease.
        for task in self.tasks():
            if task.kind == "plain" and len(task.asks) == 1 and task.asks[0].free:
                blocking = any(other.kind == "blocks" for other in (each for job in self.jobs for each in job.tasks))
                assert blocking or task.asks[0].free <= self.there

    @invariant()
    def somebody_can_always_go_on(self) -> None:
        assert bool(self.able()) == bool(self.tasks()), "they wait for each other"

    def teardown(self) -> None:
        for _ in range(1000):
            if not self.tasks():
                break
            self.finish(self.able()[0])
        assert not self.tasks()
        for job in self.jobs:
            assert self.flights.leave(job) == []
        left = {name: value for name, value in vars(self.flights).items() if value}
        assert not left, left


World.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
test_jobs_that_need_each_others_values = World.TestCase
