"""When an attempt is repeated, when a child may be started, and who is to blame for deaths."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestrator._models import ErrorRecord, RestartPolicy, RetryPolicy
from orchestrator._policy import CrashGuard, StartGuard, retry_delay, should_retry
from orchestrator.exceptions import JobCrashed, JobTimedOut


def record(*names: str) -> ErrorRecord:
    return ErrorRecord(type=names[0], message="", traceback="", bases=names)


class Flaky(Exception):
    pass


def test_without_a_policy_nothing_is_retried() -> None:
    assert not should_retry(None, "error", 1)


def test_attempts_count_all() -> None:
    policy = RetryPolicy(attempts=3, on="any")
    assert [should_retry(policy, "crash", made) for made in (1, 2, 3, 4)] == [True, True, False, False]


@pytest.mark.parametrize("kind", ["error", "crash", "timeout"])
def test_kinds(kind: str) -> None:
    asked = {on: should_retry(RetryPolicy(on=on), kind, 1) for on in ("error", "crash", "timeout", "any")}  # type: ignore[arg-type]
    assert asked == {on: on in (kind, "any") for on in asked}


@pytest.mark.parametrize(
    ("on", "raised", "expected"),
    [
        ("Timeout", ("requests.exceptions.ReadTimeout", "requests.exceptions.Timeout", "OSError"), True),
        ("requests.exceptions.Timeout", ("requests.exceptions.ReadTimeout", "requests.exceptions.Timeout"), True),
        ("OSError", ("requests.exceptions.ReadTimeout", "OSError"), True),
        ("builtins.OSError", ("ConnectionError", "OSError"), True),
        (OSError, ("ConnectionError", "OSError"), True),
        (ConnectionError, ("OSError",), False),
        ("out", ("requests.exceptions.Timeout",), False),
        ("Exception", ("ValueError",), True),
        (Exception, ("SystemExit",), False),
        (BaseException, ("SystemExit",), True),
        ("__main__.Flaky", ("__mp_main__.Flaky",), True),
        (Flaky, (f"{Flaky.__module__}.Flaky", "ValueError"), True),
    ],
)
def test_names_match_the_class_or_a_base(
    on: str | type[BaseException], raised: tuple[str, ...], expected: bool
) -> None:
    assert should_retry(RetryPolicy(on=on), "error", 1, record(*raised)) is expected


def test_our_own_exceptions_stand_for_kinds() -> None:
    policy = RetryPolicy(on=(JobCrashed, JobTimedOut))
    assert should_retry(policy, "crash", 1)
    assert should_retry(policy, "timeout", 1)
    assert not should_retry(policy, "error", 1, record("ValueError"))


def test_names_say_nothing_of_crashes() -> None:
    assert not should_retry(RetryPolicy(on="TimeoutError"), "timeout", 1)
    assert not should_retry(RetryPolicy(on="Exception"), "crash", 1, record("ValueError"))


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_retry_delay_is_half_to_all_of_the_doubled_backoff(attempts: int, chance: float) -> None:
    policy = RetryPolicy(backoff=0.5, max_backoff=60)
    full = min(60.0, 0.5 * 2.0 ** min(attempts - 1, 100))
    assert full / 2 <= retry_delay(policy, attempts, lambda: chance) <= full
    assert retry_delay(RetryPolicy(backoff=0.5, jitter=False), attempts, lambda: chance) == full


Outcome = Callable[[str, int, float], tuple[str, float]]  # worker, number of the start, now → what becomes of it, after


def simulate(workers: int, become: Outcome, *, until: float = 600.0, seed: int = 0) -> list[float]:
    """Start children as a pool does, in virtual time, and return when the starts were."""
    guard = StartGuard(RestartPolicy(), random.Random(seed).random)
    events: list[tuple[float, int, str, str]] = []
    waiting: set[str] = set()
    starts: list[float] = []
    order = iter(range(10**9))

    def push(when: float, kind: str, worker: str) -> None:
        heapq.heappush(events, (when, next(order), kind, worker))

    for number in range(workers):
        push(0.0, "want", f"w{number}")
    while events and events[0][0] <= until:
        now, _, kind, worker = heapq.heappop(events)
        if kind == "want":
            wait = guard.delay(worker, now)
            if wait is None:
                waiting.add(worker)
            elif wait > 0:
                push(now + wait, "want", worker)
            else:
                guard.began(worker, now)
                starts.append(now)
                what, after = become(worker, len(starts), now)
                push(now + after, what, worker)
            continue
        if kind == "fail":
            guard.start_failed(worker, now, "ImportError: no module named 'numpy'")
            push(now, "want", worker)
        elif kind in ("ready", "flap"):
            guard.ready(worker, now)
            if kind == "flap":
                push(now + 0.01, "idle", worker)
        elif kind == "idle":
            guard.died_idle(worker, now, "SIGSEGV")
            push(now, "want", worker)
        for other in sorted(waiting):
            push(now, "want", other)
        waiting.clear()
    return starts


@pytest.mark.parametrize("workers", [1, 4, 32])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lived", [0.05, 2.0])
def test_crash_at_import_makes_about_ten_starts_in_ten_minutes(workers: int, seed: int, lived: float) -> None:
    starts = simulate(workers, lambda *_: ("fail", lived), seed=seed)
    assert 8 <= len(starts) <= 12


def test_starts_that_take_long_to_fail_break_the_pool_too() -> None:
    guard = StartGuard(RestartPolicy(), lambda: 0.5)
    now = 0.0
    for _ in range(6):
        assert not guard.broken
        now += guard.delay("a", now) or 0.0
        guard.began("a", now)
        now += 60.0
        guard.start_failed("a", now, "no hello within 60 s")
    assert guard.broken and guard.reason == "no hello within 60 s"
    assert guard.delay("a", now) == 30.0


@pytest.mark.parametrize("workers", [1, 32])
def test_children_that_die_right_after_ready_are_bounded_a_worker(workers: int) -> None:
    starts = simulate(workers, lambda *_: ("flap", 0.05))
    assert len(starts) <= 12 * workers
    for first, later in zip(starts, starts[6 * workers :], strict=False):
        assert later - first > 5.0


def test_healthy_pool_starts_all_workers_and_no_more() -> None:
    assert len(simulate(32, lambda *_: ("ready", 0.05))) == 32
    assert max(simulate(32, lambda *_: ("ready", 0.05))) <= 0.05


def test_a_pool_recovers_from_an_outage() -> None:
    starts = simulate(8, lambda worker, n, now: ("fail" if now < 40 else "ready", 0.05), until=200)
    assert max(starts) < 40 + 60 + 1  # the canary that failed just before, and its cooldown
    assert len(starts) < 8 + 12


def test_few_start_until_the_first_is_ready_then_all() -> None:
    guard = StartGuard(RestartPolicy(), lambda: 0.0)
    names = [f"w{number}" for number in range(9)]
    for name in names[:4]:
        assert guard.delay(name, 0.0) == 0.0
        guard.began(name, 0.0)
    assert guard.delay("w4", 0.0) is None
    guard.ready("w2", 0.1)
    for name in names[4:]:
        assert guard.delay(name, 0.1) == 0.0
        guard.began(name, 0.1)


def test_after_a_failure_one_at_a_time_until_one_is_ready() -> None:
    guard = ready_guard("a", "b", "c")
    for name in ("b", "c"):
        guard.began(name, 1.0)
    guard.start_failed("b", 1.1, "no memory")
    assert guard.delay("b", 1.1) is None  # c is still in flight
    guard.start_failed("c", 1.2, "no memory")
    wait = guard.delay("b", 1.2)
    assert wait is not None and 0.1 <= wait <= 0.5  # c was in flight when b failed: one failure
    guard.began("b", 2.0)
    assert guard.delay("c", 2.0) is None
    guard.ready("b", 2.1)
    assert guard.delay("c", 2.1) == 0.0


def ready_guard(*workers: str) -> StartGuard:
    guard = StartGuard(RestartPolicy(), lambda: 0.5)
    for worker in workers:
        guard.began(worker, 0.0)
        guard.ready(worker, 0.0)
    return guard


def test_thirty_two_idle_children_killed_at_once_do_not_break_the_pool() -> None:
    names = [f"w{number}" for number in range(32)]
    guard = ready_guard(*names)
    for name in names:
        guard.died_idle(name, 10.0, "SIGKILL")
    assert not guard.broken
    for name in names:
        wait = guard.delay(name, 10.0)
        assert wait is not None and 0.25 <= wait <= 0.5
        guard.began(name, 10.5)
    for name in names:
        guard.ready(name, 10.6)
    assert not guard.broken


def die_idle(guard: StartGuard, worker: str, now: float, *, lived: float = 0.1) -> float:
    wait = guard.delay(worker, now)
    assert wait is not None
    guard.began(worker, now + wait)
    guard.ready(worker, now + wait)
    guard.died_idle(worker, now + wait + lived, "SIGSEGV")
    return now + wait + lived


def test_ready_alone_does_not_make_a_child_healthy() -> None:
    guard = ready_guard("a", "b")
    now = 0.0
    for deaths in range(1, 7):
        assert not guard.broken
        now = die_idle(guard, "a", now)
        if deaths < 6:
            assert guard.delay("a", now) == pytest.approx(0.75 * 0.5 * 2 ** (deaths - 1))
            assert guard.delay("b", now) == 0.0
    assert guard.broken and guard.reason == "SIGSEGV"


def test_a_job_or_a_long_life_proves_a_child() -> None:
    guard = ready_guard("a")
    now = 0.0
    for _ in range(20):
        now = die_idle(guard, "a", now, lived=60.0)
    for _ in range(20):
        guard.began("a", now)
        guard.ready("a", now)
        guard.proved("a", now)
        guard.died_idle("a", now, "SIGKILL")
        now += guard.delay("a", now) or 0.0
    assert not guard.broken


def broken_guard() -> tuple[StartGuard, float]:
    guard, now = StartGuard(RestartPolicy(), lambda: 0.5), 0.0
    while not guard.broken:
        now += guard.delay("a", now) or 0.0
        guard.began("a", now)
        guard.start_failed("a", now, "boom")
    return guard, now


def test_a_broken_pool_tries_one_canary_after_growing_cooldowns() -> None:
    guard, now = broken_guard()
    for cooldown in (30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0):
        assert guard.delay("a", now) == guard.delay("b", now) == cooldown
        now += cooldown
        assert guard.delay("b", now) == 0.0
        guard.began("b", now)
        assert guard.delay("a", now) is None
        guard.start_failed("b", now, "boom again")
    now += 600.0
    guard.began("a", now)
    guard.ready("a", now)
    assert not guard.broken and guard.delay("b", now) == 0.0
    assert guard.reason == "boom again"


def test_the_cooldown_starts_anew_only_after_proof() -> None:
    for proof, cooldown in ((False, 60.0), (True, 30.0)):
        guard, now = broken_guard()
        now += 30.0
        guard.began("a", now)
        guard.ready("a", now)
        if proof:
            guard.proved("a", now)
        while not guard.broken:
            now += guard.delay("b", now) or 0.0
            guard.began("b", now)
            guard.start_failed("b", now, "boom")
        assert guard.delay("b", now) == cooldown


def test_a_withdrawn_canary_makes_room_for_another() -> None:
    guard, now = broken_guard()
    now += 30.0
    guard.began("a", now)
    assert guard.delay("b", now) is None
    guard.withdrew("a")
    assert guard.delay("b", now) == 0.0


def test_jobs_of_old_children_do_not_hide_that_starts_fail() -> None:
    guard, now = ready_guard("a", "b"), 1.0
    for _ in range(6):
        guard.proved("a", now)
        now += guard.delay("b", now) or 0.0
        guard.began("b", now)
        guard.start_failed("b", now, "disk full")
        guard.proved("a", now)
    assert guard.broken


def test_no_restart_allowed_breaks_at_the_first_failure() -> None:
    guard = StartGuard(RestartPolicy(max_restarts=0), lambda: 0.0)
    guard.began("a", 0.0)
    guard.start_failed("a", 0.1, "boom")
    assert guard.broken


class StartMachine(RuleBasedStateMachine):
    """Any story of a pool that asks before it starts."""

    workers = st.sampled_from(["a", "b", "c", "d", "e", "f"])

    def __init__(self) -> None:
        super().__init__()
        self.chance = random.Random(0)
        self.guard = StartGuard(RestartPolicy(), self.chance.random)
        self.now = 0.0
        self.starting: set[str] = set()
        self.alive: set[str] = set()
        self.failed_last = False
        self.began: dict[str, float] = {}
        self.last_failure = float("-inf")
        self.ever_ready = False
        self.canaries: set[str] = set()

    @rule(seconds=st.floats(0.01, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(worker=workers)
    def ask(self, worker: str) -> None:
        if worker in self.starting | self.alive:
            return
        wait = self.guard.delay(worker, self.now)
        if wait is None:
            assert self.starting, "told to wait for a start, and there is none"
            return
        assert 0 <= wait <= 600
        if wait == 0:
            if self.failed_last and not self.guard.broken:
                assert not self.starting
            if self.guard.broken:
                assert not self.canaries
                self.canaries.add(worker)
            self.guard.began(worker, self.now)
            self.began[worker] = self.now
            self.starting.add(worker)

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def becomes_ready(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.starting)))
        self.guard.ready(worker, self.now)
        self.starting.remove(worker)
        self.alive.add(worker)
        self.failed_last = False
        self.ever_ready = True
        if worker in self.canaries:
            assert not self.guard.broken
        if not self.guard.broken:
            self.canaries.clear()

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def fails(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.remove(worker)
        self.guard.start_failed(worker, self.now, f"{worker} failed")
        # In a pool that once worked, one that was in flight when another failed says no more than that one.
        if not self.ever_ready or self.began[worker] >= self.last_failure:
            self.failed_last = True
            self.last_failure = self.now
        assert self.guard.reason == f"{worker} failed"
        if worker in self.canaries:
            assert self.guard.broken
            self.canaries.discard(worker)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), idle=st.booleans())
    def ends(self, data: st.DataObject, idle: bool) -> None:
        worker = data.draw(st.sampled_from(sorted(self.alive)))
        self.alive.remove(worker)
        if idle:
            self.guard.died_idle(worker, self.now, "idle")
        else:
            self.guard.proved(worker, self.now)

    @rule(worker=workers)
    def withdraws(self, worker: str) -> None:
        self.guard.withdrew(worker)
        self.starting.discard(worker)
        self.alive.discard(worker)
        self.canaries.discard(worker)

    @invariant()
    def somebody_may_always_start_in_time(self) -> None:
        free = {"a", "b", "c", "d", "e", "f"} - self.starting - self.alive
        if not self.starting:
            assert all(self.guard.delay(worker, self.now + 601) == 0 for worker in free)


TestStartMachine = StartMachine.TestCase
TestStartMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_child_that_dies_every_forty_seconds_is_started_again_each_time() -> None:
    guard, starts = ready_guard("a"), []
    now = 0.0
    while now < 3_600:
        now = die_idle(guard, "a", now, lived=40.0)
        starts.append(guard.delay("a", now))
        assert not guard.broken
    assert max(wait for wait in starts if wait is not None) <= 0.5 and None not in starts
    assert len(starts) <= 1.5 * 60


def died(guard: CrashGuard, *jobs: int, now: float = 0.0, tried: bool = False) -> list[str]:
    return [guard.crashed(job, now, tried=tried) for job in jobs]


def test_three_distinct_jobs_cast_a_doubt() -> None:
    guard = CrashGuard()
    assert died(guard, 1, 1, 1, 2, 2) == ["job"] * 5
    assert died(guard, 3, now=1.0) == ["doubt"] and guard.doubt and not guard.environment
    assert guard.deaths == {1: 3, 2: 2, 3: 1}
    assert died(guard, 4, 5, 6, now=1.0) == ["doubt"] * 3, "they were on their way"
    guard.ended()
    assert not guard.doubt and not guard.deaths and died(guard, 4, now=2.0) == ["job"]


def test_two_that_are_tried_in_doubt_and_die_blame_the_environment() -> None:
    guard = CrashGuard()
    died(guard, 1, 2, 3)
    assert died(guard, 4, tried=True) == ["doubt"]
    assert died(guard, 5, now=500.0, tried=True) == ["environment"] and guard.environment and guard.doubt
    assert guard.deaths == dict.fromkeys(range(1, 6), 1)
    assert died(guard, 1, now=501.0, tried=True) == ["environment"]
    assert guard.deaths[1] == 1, "up to the verdict"
    guard.ended()
    assert not guard.environment and not guard.doubt


def test_any_attempt_that_ended_clears_the_environment() -> None:
    guard = CrashGuard()
    for job in range(20):
        assert died(guard, job, now=float(job)) == ["job"]
        if job % 2:
            guard.ended()


def test_deaths_far_apart_are_the_jobs_own() -> None:
    guard = CrashGuard()
    assert {guard.crashed(job, 31.0 * job) for job in range(50)} == {"job"}


def test_jobs_are_tried_after_a_wait_that_grows() -> None:
    guard = CrashGuard()
    died(guard, 1, 2, 3)
    assert died(guard, 4, tried=True) == ["doubt"]
    delays = [guard.delay(lambda: 0.999999) for job in range(15) if died(guard, job, tried=True)]
    assert delays[:4] == pytest.approx([0.5, 1, 2, 4], rel=1e-3)
    assert delays[-1] == pytest.approx(60, rel=1e-3)
    assert guard.delay(lambda: 0.0) == 30
    assert guard.delay(lambda: 0.0, strangers=False) == 4


def test_who_is_known_to_die_says_nothing_of_the_environment() -> None:
    guard = CrashGuard()
    assert [guard.crashed(job, 0.0, known=True) for job in range(5)] == ["job"] * 5
    assert not guard.deaths
    died(guard, 1, 2, 3)
    assert guard.crashed(9, 0.0, known=True, tried=True) == "job"
    assert died(guard, 4, tried=True) == ["doubt"]


def test_the_longest_of_the_attempts_that_died_is_known() -> None:
    guard = CrashGuard()
    for job, ran in enumerate((0.1, 7.0, 0.2)):
        guard.crashed(job, 0.0, ran=ran)
    assert guard.longest == 7.0
    guard.ended()
    assert guard.longest == 0.0


STEPS = st.one_of(st.none(), st.tuples(st.integers(0, 5), st.floats(0, 40), st.booleans()))


@given(st.lists(STEPS))
def test_blame_agrees_with_its_definition(history: list[tuple[int, float, bool] | None]) -> None:
    guard, now = CrashGuard(), 0.0
    deaths: list[tuple[int, float]] = []
    tried = 0
    doubt = environment = False
    for step in history:
        if step is None:
            guard.ended()
            deaths, tried = [], 0
            doubt = environment = False
        else:
            job, passed, alone = step
            now += passed
            deaths.append((job, now))
            if doubt:
                tried += alone
                environment = environment or tried >= 2
            doubt = doubt or len({job for job, when in deaths if now - when <= 60}) >= 3
            verdict = guard.crashed(job, now, tried=alone)
            assert verdict == ("environment" if environment else "doubt" if doubt else "job")
        assert (guard.doubt, guard.environment) == (doubt, environment)
