"""Who is charged when children die, and when they are started again: hours of it, with children of no process."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hosting
import pytest

from orchestrator import Job, JobHandle, Limit, Outcome, RetryPolicy, Supervisor, _worker
from orchestrator.exceptions import JobCrashed, PoolBroken
from tests.contract._fake_child import FakeChild, Frame
from tests.contract._virtual_loop import run_virtually

AGAIN = RetryPolicy(attempts=5, on="crash")
JOB_TIME = 0.01


class Worker(FakeChild):
    """A child that runs its jobs one by one, and dies of some.

    Attributes:
        line: Fences and arguments of its jobs, the first one runs.
        begun: The arguments of all jobs that it began.
    """

    world: World

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.line: deque[tuple[int, str, Any]] = deque()
        self.begun: list[Any] = []
        self.beside = False

    def script(self, frame: Frame) -> None:  # type: ignore[override]
        loop = asyncio.get_running_loop()
        if frame["type"] == "init":
            self.world.starts.append(loop.time())
            self.world.start(self)
        elif frame["type"] == "ping":
            self.say({"type": "pong", "seq": frame["seq"]})
        elif frame["type"] == "job":
            self.line.append((frame["fence"], frame["target"].partition(":")[2], frame["args"][0]))
            if len(self.line) == 1:
                self._begin()
        elif frame["type"] == "recall":
            back = [job for job in list(self.line)[1:] if job[0] in frame["fences"]]
            for job in back:
                self.line.remove(job)
            self.say({"type": "returned", "asked": frame["fences"], "fences": [job[0] for job in back]})

    def _begin(self) -> None:
        fence, _, number = self.line[0]
        self.running = fence
        self.begun.append(number)
        asyncio.get_running_loop().call_later(self.world.takes(number), self._end_job)

    def _end_job(self) -> None:
        if self.gone.is_set():
            return
        fence, _, number = self.line[0]
        if self.world.kills(number):
            self.world.deaths.append((number, list(self.begun), len(self.line)))
            self.end_now(signal="SIGSEGV")
            return
        self.line.popleft()
        if self.line:
            self._begin()
        self.say_now({"type": "result", "fence": fence, "ms": 10.0, "value": number})


class World:
    """What children meet.

    Attributes:
        deaths: Of which job a child died, all jobs that it had begun by then, and how many it held.
        starts: When children were started.
    """

    def __init__(self) -> None:
        self.poisons: set[Any] = set()
        self.is_broken = False
        self.deaths: list[tuple[Any, list[Any], int]] = []
        self.starts: list[float] = []
        self.made: list[FakeChild] = []
        self.slow: set[Any] = set()

    def start(self, child: Worker) -> None:
        asyncio.get_running_loop().call_later(0.05, child.hello)

    def takes(self, number: Any) -> float:
        return 3_600.0 if number in self.slow else JOB_TIME

    def kills(self, number: Any) -> bool:
        return self.is_broken or number in self.poisons

    def count(self) -> Counter[Any]:
        return Counter(number for number, _, _ in self.deaths)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> World:
    caplog.set_level(logging.INFO, "orchestrator")
    found = World()

    class Here(Worker):
        made = found.made
        world = found

    monkeypatch.setattr(_worker, "Child", Here)
    return found


async def until(reached: Callable[[], bool]) -> None:
    while not reached():  # noqa: ASYNC110  the clock jumps: this takes no time
        await asyncio.sleep(0.1)


async def outcomes_of(handles: list[JobHandle]) -> list[Outcome]:
    return [await handle.outcome() for handle in handles]


async def run_all(supervisor: Supervisor, count: int, job: Job) -> list[Outcome]:
    """Submit jobs with the numbers from 0, and return their outcomes in this order."""
    handles = [await supervisor.submit(replace(job, args=(number,))) for number in range(count)]
    return await outcomes_of(handles)


def assert_blame_is_exact(world: World, outcomes: list[Outcome]) -> None:
    """Each poison died three times, twice of them alone in a child that had run nothing; nobody else was charged."""
    assert world.count() == dict.fromkeys(world.poisons, 3)
    seen: Counter[Any] = Counter()
    for number, begun, held in world.deaths:
        seen[number] += 1
        if seen[number] > 1:
            assert begun == [number] and held == 1, f"attempt {seen[number]} of {number} had company: {begun}"
    for number, outcome in enumerate(outcomes):
        expected = "quarantined" if number in world.poisons else "succeeded"
        assert outcome.status == expected, f"{number}: {outcome}"
        if number not in world.poisons:
            assert outcome.attempts == 1, f"{number}: {outcome.attempts} attempts"


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("place", [0, 1, 500, 999])
def test_a_poison_dies_three_times_and_nobody_else_is_charged(world: World, workers: int, place: int) -> None:
    world.poisons = {place}

    async def scenario() -> list[Outcome]:
        async with Supervisor(workers=workers) as supervisor:
            return await run_all(supervisor, 1_000, Job(hosting.double, retry=AGAIN))

    assert_blame_is_exact(world, run_virtually(scenario()))


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("first", [0, 3, 500, 980])
@pytest.mark.parametrize("limits", [{}, {"few": 1}])
def test_adjacent_poisons_are_not_taken_for_the_environment(
    world: World, workers: int, first: int, limits: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    world.poisons = set(range(first, first + 10))

    async def scenario() -> list[Outcome]:
        async with Supervisor(workers=workers, limits=[Limit("few", concurrency=5)]) as supervisor:
            return await run_all(supervisor, 1_000, Job(hosting.double, retry=AGAIN, limits=limits))

    outcomes = run_virtually(scenario())
    assert_blame_is_exact(world, outcomes)
    assert "environment_blamed" not in caplog.text


@pytest.mark.parametrize("workers", [1, 8])
def test_without_a_policy_each_poison_crashes_once(world: World, workers: int) -> None:
    world.poisons = {3, 4, 5, 6, 200}

    async def scenario() -> list[Outcome]:
        async with Supervisor(workers=workers) as supervisor:
            return await run_all(supervisor, 300, Job(hosting.double))

    outcomes = run_virtually(scenario())
    assert world.count() == dict.fromkeys(world.poisons, 1)
    assert {number for number, outcome in enumerate(outcomes) if outcome.status == "crashed"} == world.poisons
    assert {outcome.status for outcome in outcomes} == {"crashed", "succeeded"}


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("broken_for", [5.0, 300.0])
def test_an_environment_that_breaks_for_a_while_costs_nobody_an_attempt(
    world: World, workers: int, broken_for: float, caplog: pytest.LogCaptureFixture
) -> None:
    times: dict[str, float] = {}

    async def scenario() -> list[Outcome]:
        loop = asyncio.get_running_loop()
        async with Supervisor(workers=workers) as supervisor:
            handles = [
                await supervisor.submit(Job(hosting.double, args=(number,), retry=AGAIN)) for number in range(1_000)
            ]
            for handle in handles[:50]:
                await handle.outcome()
            world.is_broken, times["broken"] = True, loop.time()
            await until(lambda: "environment_blamed" in caplog.text)
            times["blamed"] = loop.time()
            await asyncio.sleep(broken_for)
            world.is_broken, times["healed"] = False, loop.time()
            await until(lambda: "environment_recovered" in caplog.text)
            times["recovered"] = loop.time()
            return await outcomes_of(handles)

    outcomes = run_virtually(scenario())
    assert {outcome.status for outcome in outcomes} == {"succeeded"}
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert times["blamed"] - times["broken"] < 20
    assert times["recovered"] - times["healed"] < 61, "the longest wait before one is tried"
    assert len(world.deaths) < 8 + 2 + 20, "one at a time, with waits that grow"


@pytest.mark.parametrize("killers", [3, 10])
def test_killers_with_nobody_else_around_are_given_up_in_the_end(world: World, killers: int) -> None:
    world.poisons = set(range(killers))

    async def scenario() -> tuple[list[Outcome], float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with Supervisor(workers=8) as supervisor:
            outcomes = await run_all(
                supervisor, killers, Job(hosting.double, retry=RetryPolicy(attempts=50, on="crash"))
            )
            return outcomes, loop.time() - began

    outcomes, took = run_virtually(scenario())
    assert {outcome.status for outcome in outcomes} == {"quarantined"}
    assert max(world.count().values()) <= 4 and took < 300


def test_who_comes_while_killers_are_tried_shows_that_it_is_them(world: World) -> None:
    world.poisons = {0, 1, 2, 3}

    async def scenario() -> tuple[list[Outcome], Outcome]:
        async with Supervisor(workers=2) as supervisor:
            job = Job(hosting.double, retry=RetryPolicy(attempts=50, on="crash"))
            handles = [await supervisor.submit(replace(job, args=(number,))) for number in range(4)]
            await asyncio.sleep(20)
            late = await supervisor.submit(replace(job, args=(99,)))
            return await outcomes_of(handles), await late.outcome()

    killers, late = run_virtually(scenario())
    assert late.succeeded and late.attempts == 1
    assert {outcome.status for outcome in killers} == {"quarantined"}


def test_one_that_outlives_the_dead_shows_that_jobs_can_run(world: World) -> None:
    world.poisons, world.slow = {0, 1, 2}, set(range(3, 20))

    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        async with Supervisor(workers=8, on_exit="cancel") as supervisor:
            handles = [await supervisor.submit(hosting.double, number) for number in range(20)]
            await outcomes_of(handles[:3])
            began = loop.time()
            await until(lambda: supervisor.statistics().running == 8)
            return loop.time() - began

    assert run_virtually(scenario()) < 3, "an hour's job that is tried holds nobody back for an hour"


# Starts


def test_a_crash_at_import_makes_twelve_starts_in_ten_minutes_and_all_who_wait_hear_why(world: World) -> None:
    world.start = lambda child: child.end(78)  # type: ignore[method-assign]
    told: list[BaseException] = []
    waited: list[float] = []

    async def call(supervisor: Supervisor) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await supervisor.run(hosting.double, 1)
        except PoolBroken as error:
            told.append(error)
        waited.append(loop.time() - began)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with Supervisor(workers=32) as supervisor:
            until = loop.time() + 600
            calls = []
            while loop.time() < until:
                calls += [asyncio.create_task(call(supervisor)) for _ in range(3)]
                await asyncio.sleep(1)
            assert len(world.starts) <= 12
            await asyncio.wait(calls)
            assert len(told) == len(calls) == 1_800

    run_virtually(scenario())
    assert all("exited with code 78" in str(error) for error in told)
    assert max(waited) < 60


def test_children_that_die_every_forty_seconds_never_break_the_pool(world: World) -> None:
    def start(child: Worker) -> None:
        child.hello()
        asyncio.get_running_loop().call_later(40, child.end_now, 1)

    world.start = start  # type: ignore[method-assign]

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with Supervisor(workers=1) as supervisor:
            until = loop.time() + 3_600
            while loop.time() < until:
                assert supervisor.statistics().state == "open"
                await asyncio.sleep(1)

    run_virtually(scenario())
    gaps = [later - earlier for earlier, later in zip(world.starts, world.starts[1:], strict=False)]
    assert len(gaps) > 80 and max(gaps) <= 40.6, "each is started again at the first step"


def test_a_child_that_dies_of_its_job_is_replaced_at_once_thirty_times_in_a_row(world: World) -> None:
    world.poisons = set(range(0, 60, 2))

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with Supervisor(workers=1) as supervisor:
            for number in range(0, 60, 2):
                with pytest.raises(JobCrashed):
                    await supervisor.run(hosting.double, number)
                died = loop.time()
                assert await supervisor.run(hosting.double, number + 1) == number + 1
                assert loop.time() - died < 0.05 + JOB_TIME + 0.001, "the time of a start and a job"

    run_virtually(scenario())
    assert len(world.starts) == 31
