"""How the public API looks to a type checker: right calls pass, wrong ones are errors; checked, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, assert_type

from orchestrator import (
    BlockingSupervisor,
    Job,
    JobHandle,
    Journal,
    Limit,
    Outcome,
    RestartPolicy,
    RetryPolicy,
    Supervisor,
    callback,
    child,
    freeze_support,
)
from orchestrator.exceptions import (
    JobCrashed,
    JobError,
    JobFailed,
    JobIndeterminate,
    JobTimedOut,
    JournalError,
    JournalInUse,
    OrchestratorError,
    PayloadError,
)
from orchestrator.testing import nothing_left


def scrape(url: str, depth: int = 1) -> dict[str, int]:
    return {url: depth}


async def fetch(url: str) -> bytes:
    return url.encode()


def crawl(seed: str) -> Iterator[str]:
    yield seed


def show(done: int) -> None: ...


def is_posted(key: str | None, url: str, depth: int = 1) -> bool | None:
    return None


async def jobs() -> AsyncIterator[Job]:
    yield Job(scrape)


async def right_calls() -> None:
    async with Supervisor() as supervisor:
        assert_type(supervisor, Supervisor)
        assert_type(await supervisor.run(scrape, "http://…", depth=2), Any)
        await supervisor.run(fetch, "http://…")
        await supervisor.run("package.module:function", 1, key="value")
        await supervisor.run(
            Job(scrape, args=("http://…",), timeout=30, retry=RetryPolicy(attempts=3), limits={"api": 1})
        )
        await supervisor.run(scrape, progress_callback=callback(show, latest=True))
        handle = await supervisor.submit(scrape, "http://…")
        assert_type(handle, JobHandle)
        assert_type(handle.id, int)
        assert_type(handle.key, str | None)
        assert_type(handle.state, str)
        assert_type(handle.job, Job)
        assert_type(await handle.outcome(), Outcome)
        assert_type(await handle.result(), Any)
        handle.cancel()
        async for event in handle.events():
            assert_type(event.kind, Literal["progress", "log", "item", "artifact", "state"])
            if event.kind == "progress":
                assert_type(event.done, float)
            elif event.kind == "log":
                assert_type(event.text, str)
                assert_type(event.fields, Mapping[str, Any])
        async with supervisor.map(scrape, ["a", "b"], ordered=True) as outcomes:
            async for outcome in outcomes:
                assert_type(outcome, Outcome)
                assert_type(outcome.index, int | None)
                assert_type(outcome.error, OrchestratorError | None)
                assert_type(outcome.succeeded, bool)
        async for outcome in supervisor.map([Job(scrape), Job(fetch)]):
            outcome.result()
        async for outcome in supervisor.map(jobs()):
            outcome.result()
        async for item in supervisor.stream(crawl, "seed"):
            assert_type(item, Any)
        statistics = supervisor.statistics()
        assert_type(statistics.settled, Mapping[str, int])
        assert_type(statistics.workers[0].pid, int | None)
        await supervisor.scale(3)
        await supervisor.drain()
    async with nothing_left():
        pass


def right_options() -> None:
    Supervisor(
        4,
        name="x",
        concurrency=2,
        limits=[Limit("api", rate=60, per=timedelta(minutes=1), concurrency=6)],
        isolation="inline",
        env={"A": "1", "B": None},
        secrets=["KEY"],
        cwd=".",
        preload=("json",),
        restart=RestartPolicy(backoff=timedelta(seconds=1)),
        grace=timedelta(seconds=1),
        on_exit="cancel",
        max_rss=2**30,
        memory_limit=2**31,
        max_age=timedelta(hours=1),
        hang_timeout=timedelta(minutes=1),
        spares=1,
        journal=Journal("runs.db", durability="power", keep=timedelta(days=30)),
    )
    BlockingSupervisor(journal=Journal(Path("runs.db"), keep=None))
    Job(scrape, effects="external", reconcile=is_posted)
    Job(scrape, effects="external", reconcile="package.module:function")
    Job("m:C.method", init={"a": 1}, effects="external", convert="json", priority=2, key="k")
    RetryPolicy(on=ValueError)
    RetryPolicy(on=["timeout", OSError])


def right_blocking_calls() -> None:
    with BlockingSupervisor(workers=2) as supervisor:
        assert_type(supervisor.run(scrape, "http://…"), Any)
        handle = supervisor.submit(Job(scrape))
        assert_type(handle.outcome(timeout=3), Outcome)
        handle.result(timeout=None)
        for event in handle.events():
            assert_type(event.kind, Literal["progress", "log", "item", "artifact", "state"])
        with supervisor.map(scrape, ["a"]) as outcomes:
            for outcome in outcomes:
                assert_type(outcome, Outcome)
        for item in supervisor.stream(crawl, "seed"):
            assert_type(item, Any)
        supervisor.scale(2)


def right_child_calls() -> None:
    child.progress(1, 2, "half")
    child.log("text", level="warning", page=3)
    with child.permit("api", weight=2):
        pass
    effect = child.effect_begin("post")
    assert_type(effect.done, bool)
    assert_type(effect.ref, Any)
    child.effect_done("post", ref={"id": 1})
    assert_type(child.stop_requested(), bool)
    assert_type(child.resource("client", dict[str, int]), dict[str, int])


async def right_cache() -> None:
    async def compute() -> list[float]:
        return [0.1]

    async def compute_many(keys: list[str]) -> list[bytes]:
        return [key.encode() for key in keys]

    cache = child.cache("embeddings")
    assert_type(cache.get_or_compute("key", lambda: [0.1]), list[float])
    assert_type(await cache.get_or_compute({"model": "small"}, compute), list[float])
    assert_type(cache.get_many(["a", "b"], lambda keys: [len(key) for key in keys]), list[int])
    assert_type(await cache.get_many(["a", "b"], compute_many), list[bytes])
    Supervisor(cache="cache.db", cache_bytes=2**30, cache_age=3600)


def right_exceptions(error: JobError) -> None:
    assert_type(error.attempts, int)
    if isinstance(error, JobFailed):
        assert_type(error.error.traceback, str)
    if isinstance(error, JobCrashed):
        assert_type(error.certificate.stderr, tuple[str, ...])
    if isinstance(error, JobTimedOut):
        assert_type(error.stack, str)
    if isinstance(error, JobIndeterminate):
        assert_type(error.effect, str | None)
    in_use: JournalError = JournalInUse("runs.db", "is in use")
    assert_type(in_use.path, str)
    assert_type(PayloadError("args[0]", "…").path, str)
    freeze_support()


async def wrong_calls(supervisor: Supervisor, blocking: BlockingSupervisor) -> None:
    supervisor.run(scrape)  # type: ignore[unused-coroutine]
    await supervisor.run()  # type: ignore[call-arg]
    await supervisor.run(3)  # type: ignore[arg-type]
    await supervisor.run(target=scrape)  # type: ignore[call-arg]
    await supervisor.scale("2")  # type: ignore[arg-type]
    for _ in supervisor.stream(crawl):  # type: ignore[attr-defined]
        pass
    for _ in supervisor.map(scrape, []):  # type: ignore[attr-defined]
        pass
    with supervisor:  # type: ignore[attr-defined]
        pass
    async with blocking:  # type: ignore[attr-defined]
        pass
    handle = await supervisor.submit(scrape)
    await handle.cancel()  # type: ignore[func-returns-value, misc]
    supervisor.map(3)  # type: ignore[arg-type]
    supervisor.map([3])  # type: ignore[list-item]


def wrong_options() -> None:
    Supervisor(workers="2")  # type: ignore[arg-type]
    Supervisor(worker_count=2)  # type: ignore[call-arg]
    Supervisor(2, "name")  # type: ignore[call-arg]
    Supervisor(isolation="thread")  # type: ignore[arg-type]
    Supervisor(on_exit="kill")  # type: ignore[arg-type]
    Supervisor(limits=["api"])  # type: ignore[list-item]
    Supervisor(env={"A": 1})  # type: ignore[dict-item]
    Job(scrape, timeout="3")  # type: ignore[arg-type]
    Job(scrape, effects="none")  # type: ignore[arg-type]
    Job(scrape, retry=3)  # type: ignore[arg-type]
    Job(scrape, effects="external", reconcile=True)  # type: ignore[arg-type]
    Supervisor(journal="runs.db")  # type: ignore[arg-type]
    Supervisor(memory_limit="2G")  # type: ignore[arg-type]
    Journal("runs.db", "power")  # type: ignore[call-arg]
    Journal("runs.db", durability="disk")  # type: ignore[arg-type]
    Supervisor(cache=True)  # type: ignore[arg-type]
    child.cache("a").get_or_compute("key", 3)  # type: ignore[call-overload]
    child.effect_begin(3)  # type: ignore[arg-type, unused-awaitable]
    Job()  # type: ignore[call-arg]
    Job(scrape).timeout = 3  # type: ignore[misc]
    Limit(3)  # type: ignore[arg-type]
    RetryPolicy(on=3)  # type: ignore[arg-type]
    callback(3)  # type: ignore[arg-type]
