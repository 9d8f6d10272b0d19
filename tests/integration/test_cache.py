"""The cache as jobs see it: each key computed once, whoever asks, dies, fails or is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import caching
import pytest
from gates import Gate

from orchestrator import Job, RetryPolicy, Supervisor, _cache
from orchestrator.exceptions import JobCancelled, JobCrashed, JobFailed, JobTimedOut

DEADLINE = 60.0


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def computed(log: str) -> list[str]:
    return Path(log).read_text("utf-8").splitlines() if os.path.exists(log) else []


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not reached():  # noqa: ASYNC110  nobody is told of what goes on inside
            await asyncio.sleep(0.005)


async def waiting(supervisor: Supervisor, count: int) -> None:
    """Return when so many questions of jobs wait."""
    flights = supervisor._link.engine.cache._flights  # type: ignore[union-attr]
    await until(lambda: sum(map(len, flights._waiting.values())) >= count)


ISOLATIONS = pytest.mark.parametrize("isolation", ["process", "inline"])
KINDS = pytest.mark.parametrize("target", [caching.look_up_at_gate, caching.look_up_at_gate_async])


@KINDS
@ISOLATIONS
async def test_eight_that_ask_for_one_key_compute_it_once(log: str, target: Any, isolation: Any) -> None:
    async with Gate() as gate, Supervisor(workers=8, isolation=isolation) as supervisor:
        jobs = [await supervisor.submit(target, log, "key", gate.port) for _ in range(8)]
        await gate.arrived()
        await waiting(supervisor, 7)
        gate.open()
        assert len({await job.result() for job in jobs}) == 1
        statistics = supervisor.statistics().cache
    assert computed(log) == ["key"]
    assert (statistics.entries, statistics.computed, statistics.misses, statistics.hits) == (1, 1, 1, 7)


@KINDS
async def test_when_the_computer_is_killed_the_next_one_computes(log: str, target: Any) -> None:
    async with Gate() as gate, Supervisor(workers=3) as supervisor:
        first = await supervisor.submit(target, log, "key", gate.port)
        (standing,) = await gate.arrived()
        others = [await supervisor.submit(target, log, "key", gate.port) for _ in range(2)]
        await waiting(supervisor, 2)
        os.kill(standing.pid, signal.SIGKILL)
        arrivals = await gate.arrived(2)
        assert arrivals[1].pid != standing.pid
        with pytest.raises(JobCrashed):
            await first.result()
        gate.open()
        assert {await job.result() for job in others} == {f"of {arrivals[1].pid}"}
    assert computed(log) == ["key"] * 2


async def test_each_computer_is_killed_but_the_last(log: str) -> None:
    count = 6
    async with Gate() as gate, Supervisor(workers=count) as supervisor:
        jobs = [await supervisor.submit(caching.look_up_at_gate, log, "key", gate.port) for _ in range(count)]
        await gate.arrived()
        await waiting(supervisor, count - 1)
        for number in range(1, count):
            arrivals = await gate.arrived(number)
            os.kill(arrivals[-1].pid, signal.SIGKILL)
        await gate.arrived(count)
        gate.open()
        outcomes = [await job.outcome() for job in jobs]
    assert sorted(str(outcome.status) for outcome in outcomes) == ["crashed"] * (count - 1) + ["succeeded"]
    assert computed(log) == ["key"] * count


@KINDS
@ISOLATIONS
async def test_when_the_computer_is_cancelled_the_next_one_computes(log: str, target: Any, isolation: Any) -> None:
    # Long before the cancelled one would have to be killed: inline nothing ends what stands at a gate in a thread.
    async with Gate() as gate, Supervisor(workers=2, isolation=isolation, grace=30) as supervisor:
        first = await supervisor.submit(target, log, "key", gate.port, "first")
        await gate.arrived()
        second = await supervisor.submit(target, log, "key", gate.port, "second")
        await waiting(supervisor, 1)
        first.cancel()
        await gate.arrived(2)
        gate.open()
        assert await second.result()
        with pytest.raises(JobCancelled):
            await first.result()
    assert computed(log) == ["key"] * 2


async def test_a_failure_is_never_kept_and_the_next_ones_compute_one_after_the_other(log: str) -> None:
    async with Gate() as gate, Supervisor(workers=4) as supervisor:
        jobs = [
            await supervisor.submit(caching.fail, log, "key", gate.port, "gate"),
            *[await supervisor.submit(caching.fail, log, "key", gate.port, "gate") for _ in range(2)],
        ]
        for number in range(1, 4):
            assert len(await gate.arrived(number)) == number
            await waiting(supervisor, 3 - number)
            assert computed(log) == ["key"] * number
            gate.let("gate")
        for job in jobs:
            with pytest.raises(JobFailed, match="OurError: .*as it is") as failed:
                await job.result()
            assert failed.value.error.type.endswith("OurError")
        assert await supervisor.run(caching.look_up, log, "key", 1) == 1
        assert supervisor.statistics().cache.computed == 1


async def test_an_exception_is_the_callers_unchanged(log: str) -> None:
    async with Supervisor(workers=1) as supervisor:
        assert await supervisor.run(caching.fail_by_stop_iteration) == "StopIteration"


@ISOLATIONS
async def test_a_wait_ends_with_its_job(log: str, isolation: Any) -> None:
    async with Gate() as gate, Supervisor(workers=4, isolation=isolation, grace=30) as supervisor:
        first = await supervisor.submit(caching.look_up_at_gate, log, "key", gate.port)
        await gate.arrived()
        for target in (caching.look_up, caching.look_up_async):
            job = await supervisor.submit(target, log, "key")
            await waiting(supervisor, 1)
            job.cancel()
            with pytest.raises(JobCancelled):
                await asyncio.wait_for(job.result(), 20)
            with pytest.raises(JobTimedOut):
                await asyncio.wait_for(supervisor.run(Job(target, args=(log, "key"), timeout=0.2)), 20)
        assert not supervisor._link.engine.cache._flights._waiting  # type: ignore[union-attr]
        gate.open()
        await first.result()
    assert computed(log) == ["key"]


# Many keys


@pytest.mark.parametrize("target", [caching.many, caching.many_async])
@ISOLATIONS
async def test_what_is_there_is_found_and_the_rest_is_computed_in_one_call(
    log: str, target: Any, isolation: Any
) -> None:
    async with Supervisor(workers=1, isolation=isolation) as supervisor:
        assert await supervisor.run(target, log, [3, 1]) == ["value of 3", "value of 1"]
        expected = [f"value of {key}" for key in [1, 2, 3, 2, 4]]
        assert await supervisor.run(target, log, [1, 2, 3, 2, 4]) == expected
        assert await supervisor.run(target, log, []) == []
    assert computed(log) == ["[3, 1]", "[2, 4]"]


async def test_keys_of_others_are_waited_for_when_the_own_ones_are_there(log: str) -> None:
    async with Gate() as gate, Supervisor(workers=2) as supervisor:
        first = await supervisor.submit(caching.many_at_gate, log, [1, 2], gate.port, "first")
        await gate.arrived()
        second = await supervisor.submit(caching.many_at_gate, log, [2, 3], gate.port, "second")
        await gate.arrived(2)
        assert computed(log) == ["[1, 2]", "[3]"]
        gate.let("second")
        await waiting(supervisor, 1)
        assert supervisor.statistics().cache.entries == 1
        gate.let("first")
        assert await first.result() == ["first 1", "first 2"]
        assert await second.result() == ["first 2", "second 3"]


async def test_keys_of_a_dead_one_are_computed_together(log: str) -> None:
    async with Gate() as gate, Supervisor(workers=2) as supervisor:
        first = await supervisor.submit(caching.many_at_gate, log, list(range(50)), gate.port, "first")
        (standing,) = await gate.arrived()
        second = await supervisor.submit(caching.many, log, list(range(60)))
        await waiting(supervisor, 1)
        os.kill(standing.pid, signal.SIGKILL)
        assert await second.result() == [f"value of {key}" for key in range(60)]
        assert (await first.outcome()).status == "crashed"
    assert computed(log)[1:] == [str(list(range(50, 60))), str(list(range(50)))]


async def test_more_keys_than_go_into_one_question(log: str) -> None:
    keys = [f"key {number}" for number in range(10_000)]
    async with Supervisor(workers=2) as supervisor:
        both = [await supervisor.submit(caching.many, log, keys) for _ in range(2)]
        for job in both:
            assert await job.result() == [f"value of {key}" for key in keys]
        assert supervisor.statistics().cache.entries == len(keys)
        assert supervisor.statistics().cache.computed == len(keys)


# Circles


async def test_jobs_that_would_wait_for_each_other_go_on(log: str) -> None:
    async with Gate() as gate, Supervisor(workers=2) as supervisor:
        one = await supervisor.submit(caching.cross, log, "a", "b", gate.port)
        two = await supervisor.submit(caching.cross, log, "b", "a", gate.port)
        await gate.arrived(2)
        gate.let("a")
        await waiting(supervisor, 1)
        gate.open()
        async with asyncio.timeout(DEADLINE):
            assert (await one.result(), await two.result()) == ("a(b(a alone))", "b(a alone)")
    assert sorted(computed(log)) == ["a", "b"]


async def test_a_sync_function_in_an_async_job_does_not_stop_the_one_it_waits_for(log: str) -> None:
    async with Gate() as gate, Supervisor(workers=1, concurrency=2) as supervisor:
        first = await supervisor.submit(caching.look_up_at_gate_async, log, "key", gate.port)
        await gate.arrived()
        async with asyncio.timeout(DEADLINE):
            assert await supervisor.run(caching.look_up_from_async, log, "key") == "value"
        gate.open()
        await first.result()


async def test_inline_a_sync_function_in_an_async_job_is_refused(log: str) -> None:
    async with Supervisor(workers=1, isolation="inline") as supervisor:
        with pytest.raises(JobFailed, match="would block the event loop"):
            await supervisor.run(caching.look_up_from_async, log, "key")


@pytest.mark.parametrize("target", [caching.in_threads, caching.in_tasks])
async def test_threads_and_tasks_of_one_job_compute_once(log: str, target: Any) -> None:
    async with Supervisor(workers=1) as supervisor:
        async with asyncio.timeout(DEADLINE):
            assert len(set(await supervisor.run(target, log, "key", 8))) == 1
    assert computed(log) == ["key"]


# Values


@ISOLATIONS
async def test_values_come_back_as_they_were(isolation: Any) -> None:
    values: list[Any] = [
        None,
        True,
        0,
        -1.5,
        1e300,
        10**30,
        "",
        'é\u2028\0"\\',
        "\ud800",
        [],
        {},
        {"b": [1, {"a": None}], "a": 2},
    ]
    values += ["x" * 100_000, ["é" * 50_000]]
    async with Supervisor(workers=1, isolation=isolation) as supervisor:
        assert await supervisor.run(caching.exact, values) == [True] * len(values)
        assert await supervisor.run(caching.tuples_and_bytes) == ["[1, [[2]]]"] * 2 + [r"b'\x00\xff'"] * 2 + ["b''"] * 2


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("value", "TypeError: cache('wrong'): the value of key 1: value.a[0]: builtins.object is not a JSON type"),
        ("key", "TypeError: cache('wrong'): key: has the key 1; JSON keys are strings"),
        ("keys", "TypeError: cache('wrong'): keys[1]: builtins.set is not a JSON type"),
        ("count", "ValueError: cache('wrong'): the function returned 1 values for 2 keys"),
        ("awaitable", "TypeError: the function returned an awaitable: give the cache an `async def`"),
        ("no function", "TypeError: the cache takes a function that computes what is missing, not int"),
        ("number", "TypeError: cache('wrong'): the value of key 1: value: Exceeds the limit"),
    ],
)
async def test_what_is_wrong_is_said(what: str, problem: str) -> None:
    async with Supervisor(workers=1) as supervisor:
        assert (await supervisor.run(caching.wrongly, what)).startswith(problem)
        assert supervisor.statistics().cache.entries == 0
        assert len(supervisor._link.engine.cache._flights) == 0  # type: ignore[union-attr]


@ISOLATIONS
async def test_ten_megabytes_are_computed_once_and_kept_once(log: str, isolation: Any) -> None:
    size = 10_000_000
    async with Supervisor(workers=2, isolation=isolation) as supervisor:
        found = await asyncio.gather(*(supervisor.run(caching.large, log, "key", size) for _ in range(4)))
        assert found == [found[0]] * 4 and found[0][0] == size
        for key in ("one", "two"):
            assert await supervisor.run(caching.large_text, log, key, size) == size
        statistics = supervisor.statistics().cache
        assert size * 3 <= statistics.bytes < size * 3 + 10_000, "the same text under two keys is kept once"
        folder = Path(supervisor._link.engine._folder)  # type: ignore[union-attr]
        assert len(list((folder / "cache").iterdir())) == 3  # two values, and the folder where children write
    assert computed(log) == ["key", "one", "two"]
    assert not folder.exists()


async def test_what_is_too_large_for_a_frame_is_a_file(log: str) -> None:
    async with Supervisor(workers=1, max_message_bytes=2048) as supervisor:
        for _ in range(2):
            assert await supervisor.run(caching.large_text, log, "key", 5000) == 5000
        assert len(await supervisor.run(caching.many, log, [0] * 3 + list(range(20)))) == 23
    assert len(computed(log)) == 2


async def test_a_file_that_somebody_removed_is_made_again(log: str) -> None:
    async with Supervisor(workers=1) as supervisor:
        await supervisor.run(caching.large, log, "key", 100_000)
        folder = Path(supervisor._link.engine._folder) / "cache"  # type: ignore[union-attr]
        for path in folder.iterdir():
            if path.is_file():
                path.unlink()
        assert (await supervisor.run(caching.large, log, "key", 100_000))[0] == 100_000
        assert (await supervisor.run(caching.large, log, "key", 100_000))[0] == 100_000
        assert supervisor.statistics().cache.entries == 1
    assert computed(log) == ["key"] * 2


async def test_nothing_of_a_killed_childs_half_written_value_stays(log: str) -> None:
    async with Gate() as gate, Supervisor(workers=1) as supervisor:
        job = await supervisor.submit(caching.look_up_at_gate, log, "key", gate.port)
        (standing,) = await gate.arrived()
        incoming = Path(supervisor._link.engine.cache._store.files.incoming)  # type: ignore[union-attr]
        (fence,) = supervisor._link.engine.pool.workers[0].leases.held  # type: ignore[union-attr]
        (incoming / f"{fence}-1-0.value").write_bytes(b"half")
        os.kill(standing.pid, signal.SIGKILL)
        assert (await job.outcome()).status == "crashed"
        await until(lambda: not list(incoming.iterdir()))


# Bounds


@ISOLATIONS
async def test_what_was_used_longest_ago_goes_first(log: str, isolation: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "orchestrator")
    async with Supervisor(workers=1, isolation=isolation, cache_bytes=300_000) as supervisor:
        await supervisor.run(caching.repeat, log, list(range(50)), 1000)
        await supervisor.run(caching.repeat, log, [0], 1000)
        await supervisor.run(caching.repeat, log, list(range(50, 1000)), 1000)
        statistics = supervisor.statistics().cache
        assert statistics.entries == (300_000 - 1002) // 512
        assert statistics.bytes <= 300_000
        before = len(computed(log))
        await supervisor.run(caching.repeat, log, list(range(999, 500, -1)), 1000)
        assert len(computed(log)) == before
        held = len(supervisor._link.engine.cache._values)  # type: ignore[union-attr]
        assert held == 1, "one value, however many keys"
    evicted = [record for record in caplog.records if record.message.startswith("cache.evicted")]
    assert sum(record.orchestrator["entries"] for record in evicted) == 1000 - statistics.entries  # type: ignore[attr-defined]


async def test_files_go_with_their_entries(log: str) -> None:
    async with Supervisor(workers=1, cache_bytes=1_000_000) as supervisor:
        for key in range(20):
            await supervisor.run(caching.large_text, log, key, 50_000 + key)
        folder = Path(supervisor._link.engine._folder) / "cache"  # type: ignore[union-attr]
        await until(lambda: sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) <= 1_000_000)
        assert supervisor.statistics().cache.entries == 9


async def test_a_value_that_is_too_old_is_computed_anew(log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(_cache, "time", SimpleNamespace(time=lambda: clock.now))
    async with Supervisor(workers=1, cache_age=60) as supervisor:
        for now, times in ((1000, 1), (1059, 1), (1060, 2), (1100, 2), (1119, 2), (1120, 3)):
            clock.now = now
            await supervisor.run(caching.look_up, log, "key")
            assert len(computed(log)) == times
        assert supervisor.statistics().cache.entries == 1


async def test_a_value_larger_than_the_cache_is_used_and_said_once(log: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Supervisor(workers=2, cache_bytes=100_000) as supervisor:
        jobs = [await supervisor.submit(caching.large, log, "key", 200_000) for _ in range(3)]
        assert [(await job.result())[0] for job in jobs] == [200_000] * 3
        assert supervisor.statistics().cache.entries == 0
    assert computed(log) == ["key"] * 3
    assert len([record for record in caplog.records if "cache.value_refused" in record.message]) == 1


# Everything at once


@pytest.mark.parametrize("seed", [1, 2])
async def test_under_random_kills_and_cancels_every_value_is_right_and_hardly_any_is_computed_twice(
    log: str, tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    keys = 60
    async with Supervisor(workers=4, cache=tmp_path / "cache.db", cache_bytes=10_000_000) as supervisor:
        retry = RetryPolicy(attempts=50, on="crash", backoff=0.001)
        jobs = []
        for _ in range(400):
            target = random.choice([caching.nested, caching.nested, caching.nested_async, caching.look_up_large])
            jobs.append(await supervisor.submit(Job(target, args=(log, random.randrange(keys)), retry=retry)))
        ended = 0
        for number, job in enumerate(jobs):
            if number % 20 == 10:
                pids = [worker.pid for worker in supervisor.statistics().workers if worker.pid is not None]
                ended += 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(random.choice(pids), signal.SIGKILL)
            if number % 20 == 19:
                ended += 1
                jobs[min(number + 5, 399)].cancel()
            async with asyncio.timeout(DEADLINE):
                outcome = await job.outcome()
            if str(outcome.status) != "cancelled":
                assert outcome.status == "succeeded", outcome.error
                assert outcome.value == caching.expected(
                    *jobs[number].job.args[1:], large="large" in str(job.job.target)
                )
        cache = supervisor._link.engine.cache  # type: ignore[union-attr]
        assert (len(cache._flights), cache._flights._calls, cache._flights._waiting) == (0, {}, {})
        assert not cache._landing
        statistics = supervisor.statistics().cache
        assert statistics.entries <= 2 * keys
    times = Counter(computed(log))
    # A death or a cancel may cost the computations that it ends: an outer one, and those within.
    assert times.total() <= len(times) + 4 * ended, times
