"""Gate, retries and accounts together, whatever happens in whatever order: every record ends once, in its order."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from orchestrator_adapters.batch._accounts import Accounts, Tally, Unbalanced
from orchestrator_adapters.batch._classes import Failure
from orchestrator_adapters.batch._gate import Entry, Gate
from orchestrator_adapters.batch._retries import Retries

KINDS = st.sampled_from(["permanent", "transient", "throttled", "timeout", "crash", "invalid"])


class Pipeline(RuleBasedStateMachine):
    """Source, supervisor, journal and sink as lists; time passes when a rule says so."""

    @initialize(tasks=st.integers(1, 4), results=st.integers(1, 4), slots=st.integers(1, 3), live=st.booleans())
    def begin(self, tasks: int, results: int, slots: int, live: bool) -> None:
        self.tasks, self.results, self.slots, self.live = tasks, results, slots, live
        self.gate = Gate(tasks, results, slots)
        self.accounts = Accounts(0.0, slots)
        self.retries = Retries(attempts=3, share=0.5)
        self.now = 0.0
        self.spent = 0
        self.running: list[Entry] = []
        self.journal: list[tuple[str, Entry]] = []  # on its way
        self.ended: Counter[int] = Counter()
        self.attempts = 0
        self.delivered = 0
        self.pauses = 0.0

    # What may happen

    def take(self, *, bad: bool = False) -> None:
        entry = Entry(self.accounts.taken + 1, "", None, b"")
        self.accounts.take()
        self.gate.take(entry, sendable=not bad)
        if bad:
            self.journal.append(("invalid", entry))

    @rule(bad=st.booleans())
    def take_if_there_is_room(self, bad: bool) -> None:
        if self.gate.may_take():
            self.take(bad=bad)

    @rule()
    def resume_one(self) -> None:
        # Done by an earlier run: goes by whatever is full.
        self.accounts.resume(Tally(1))
        self.ended[self.accounts.taken] += 1
        self.look()

    @rule()
    def send(self) -> None:
        self.try_send()

    def try_send(self) -> bool:
        entry = self.gate.next(self.now)
        if entry is None:
            return False
        assert self.now >= self.pauses and (not entry.tried or self.now >= entry.due)
        self.accounts.send(again=entry.tried)
        entry.tried = True
        self.running.append(entry)
        return True

    @precondition(lambda self: self.running)
    @rule(data=st.data(), kind=st.none() | KINDS, made=st.integers(1, 3), after=st.none() | st.floats(0, 5))
    def come_back(self, data: st.DataObject, kind: Any, made: int, after: float | None) -> None:
        entry = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.back(entry, kind, made, after)

    def back(self, entry: Entry, kind: Any, made: int, after: float | None) -> None:
        self.gate.came_back(self.now)
        entry.made = made
        self.attempts += made
        if kind is None:
            self.journal.append(("", entry))
            return
        failure = Failure(kind=kind, error="E", message="", retry_after=after)
        left = self.retries.budget(self.accounts.taken) - self.spent
        again = self.retries.decide(
            failure, made=made, charged=entry.charged, throttles=entry.throttles, budget_left=left, jitter=0.5
        )
        if again is None:
            self.journal.append((kind, entry))
            return
        assert kind in ("transient", "throttled", "timeout")
        self.spent += again.spends
        assert self.spent <= self.retries.budget(self.accounts.taken)
        entry.due, entry.charged, entry.throttles = self.now + again.delay, again.charged, again.throttles
        if again.pause:
            self.gate.pause(self.now + again.pause)
            self.pauses = max(self.pauses, self.now + again.pause)
        self.journal.append(("again", entry))

    @precondition(lambda self: self.journal)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        self.commit_first(data.draw(st.integers(1, len(self.journal))))

    def commit_first(self, count: int) -> None:
        batch, self.journal = self.journal[:count], self.journal[count:]
        for kind, entry in batch:
            if kind == "again":
                self.accounts.retry(Tally(entry.made))
                self.gate.again(entry)
            else:
                assert self.gate.end(entry.number) is entry
                self.accounts.settle(Tally(entry.made, {"t": 2 * entry.made}, kind or None), sent=entry.tried)
                self.ended[entry.number] += 1
        self.accounts.check()
        self.look()

    @rule(count=st.integers(1, 3))
    def deliver(self, count: int) -> None:
        self.deliver_some(count)

    def deliver_some(self, count: int) -> bool:
        before = self.delivered
        self.delivered = min(self.gate.frontier(self.accounts.taken) - 1, self.delivered + count)
        self.look()
        return self.delivered > before

    def look(self) -> None:
        beyond = self.accounts.taken + 1 - len(self.gate.open) if self.live else self.gate.frontier(self.accounts.taken)
        self.gate.ready, self.gate.awaited = beyond - self.delivered - 1, self.delivered + 1

    @rule(seconds=st.floats(0.01, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    # What holds

    @invariant()
    def accounts_add_up(self) -> None:
        if not hasattr(self, "accounts"):
            return
        self.accounts.check()
        accounts, gate = self.accounts, self.gate
        assert accounts.open == len(gate.open)
        assert accounts.done == self.ended.total() and set(self.ended.values()) <= {1}
        waits = [entry for _, entry in self.journal if entry.tried]
        assert accounts.sent == len(self.running) + len(waits)
        assert gate.sent == len(self.running) and gate.uncommitted == len(waits)
        snapshot = accounts.snapshot(self.now)
        assert snapshot.running + snapshot.queued + snapshot.waiting == accounts.open

    @invariant()
    def queues_are_bounded(self) -> None:
        if hasattr(self, "gate"):
            assert len(self.gate.open) <= self.tasks + self.slots
            # The one that the sink waits for has a place of its own.
            assert self.gate.sent + self.gate.uncommitted <= self.results + self.slots + 1

    def teardown(self) -> None:
        """Let everything go well from here on: it all ends, without a record that waits for ever."""
        if not hasattr(self, "gate"):
            return
        for _ in range(10_000):
            if not self.gate.open and self.delivered == self.accounts.taken:
                break
            moved = False
            if self.running:
                self.back(self.running.pop(), None, 1, None)
                moved = True
            if self.journal:
                self.commit_first(len(self.journal))
                moved = True
            moved |= self.deliver_some(1)
            moved |= self.try_send()
            if not moved:
                at = self.gate.wake_at()
                assert at is not None, "nothing moves, and nothing ever will"
                assert at > self.now, "it says that something can be sent, and sends nothing"
                self.now = at
        assert self.ended == Counter(range(1, self.accounts.taken + 1))
        assert self.delivered == self.accounts.taken
        resumed = self.accounts.resumed
        assert self.accounts.attempts == self.attempts + resumed


Pipeline.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestPipeline = Pipeline.TestCase


def test_what_does_not_add_up_is_told() -> None:
    accounts = Accounts(0.0)
    accounts.take()
    accounts.check()
    accounts.taken += 1
    with pytest.raises(Unbalanced, match="2 records were taken, but 1 are queued"):
        accounts.check()


def test_rate_is_that_of_the_last_half_minute_and_leaves_resumed_records_out() -> None:
    accounts = Accounts(0.0)
    accounts.count(1000)
    for _ in range(500):
        accounts.resume(Tally(1))
    assert accounts.snapshot(1.0).rate == 0.0 and accounts.snapshot(1.0).eta is None
    for second in range(1, 101):
        for _ in range(2 if second <= 50 else 4):
            accounts.take()
            accounts.send(again=False)
            accounts.settle(Tally(1), sent=True)
        snapshot = accounts.snapshot(float(second))
    assert snapshot.rate == pytest.approx(4, rel=0.1)
    assert snapshot.eta == pytest.approx((1000 - 500 - 300) / 4, rel=0.1)
    assert snapshot.resumed == 500 and snapshot.succeeded == 800
