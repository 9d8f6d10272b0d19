"""What the engine makes of what a child says: with a real child, and with one that says what no real one would."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import hosting
import pytest

from orchestrator import Job, RestartPolicy, RetryPolicy, Supervisor, _hearing, _pings, _worker
from orchestrator._events import Item, Log, Progress
from orchestrator._liveness import Pace
from orchestrator.exceptions import (
    JobCancelled,
    JobCrashed,
    JobFailed,
    JobTimedOut,
    LaunchError,
    PoolBroken,
    TargetError,
)
from tests.contract._fake_child import FakeChild, Frame

Script = Callable[[FakeChild, Frame], None]
QUICK = RestartPolicy(backoff=0.01, max_backoff=0.02)


def behave(child: FakeChild, frame: Frame) -> None:
    """Do what a good child does with the targets of `hosting`, as far as these tests go."""
    if frame["type"] == "init":
        child.hello()
    elif frame["type"] == "cancel":
        error = {"type": "orchestrator.exceptions.JobCancelled", "message": ""}
        child.say({"type": "error", "fence": frame["fence"], "cancelled": True, "error": error})
    elif frame["type"] == "recall":
        child.say({"type": "returned", "asked": frame["fences"], "fences": []})
    elif frame["type"] == "job":
        fence, name = frame["fence"], frame["target"].partition(":")[2]
        child.running = fence
        if frame["kind"] == "async":
            child.say({"type": "started", "fence": fence})
        if name in ("double", "double_async"):
            child.say(result(frame, 2 * frame["args"][0]))
        elif name == "refuse":
            error = {"type": "ValueError", "message": frame["args"][0], "traceback": "ValueError: …"}
            child.say({"type": "error", "fence": fence, "ms": 1.0, "error": error})
        elif name == "leave":
            child.end(frame["args"][0])
        elif name == "hold":
            child.say({"type": "progress", "fence": fence, "done": 1})
        elif name == "tell":
            child.say(
                {"type": "progress", "fence": fence, "done": 1, "total": 2, "text": "half"},
                {"type": "log", "fence": fence, "text": "a line", "level": "warning", "fields": {"page": 3}},
                {"type": "item", "fence": fence, "value": {"n": 1}},
                result(frame, "told"),
            )


def result(job: Frame, value: Any) -> Frame:
    return {"type": "result", "fence": job["fence"], "ms": 0.1, "value": value}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The children are fakes; `fake.script` is what they do, `fake.made` are those there were."""
    found = SimpleNamespace(script=behave, made=[])

    class Scripted(FakeChild):
        made = found.made

        def script(self, frame: Frame) -> None:
            found.script(self, frame)

    monkeypatch.setattr(_worker, "Child", Scripted)
    return found


@pytest.fixture(params=["real", "fake"])
def either(request: pytest.FixtureRequest) -> None:
    if request.param == "fake":
        request.getfixturevalue("fake")


@contextlib.asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[Supervisor]:
    async with asyncio.timeout(30):
        async with Supervisor(**{"workers": 1, "grace": 0.3, "limits": hosting.LIMITS, **options}) as supervisor:
            yield supervisor


# Either kind of child


async def test_results(either: None) -> None:
    async with opened() as supervisor:
        assert await supervisor.run(hosting.double, 4) == 8
        assert await supervisor.run(hosting.double_async, 4) == 8
        handles = [await supervisor.submit(hosting.double, number) for number in range(300)]
        assert [await handle.result() for handle in handles] == list(range(0, 600, 2))


async def test_errors(either: None) -> None:
    async with opened() as supervisor:
        with pytest.raises(JobFailed, match="ValueError: no way") as failed:
            await supervisor.run(hosting.refuse, "no way")
        assert failed.value.error.type == "ValueError"
        assert (await (await supervisor.submit(hosting.refuse, "x")).outcome()).status == "failed"
        retried = Job(hosting.refuse, args=("x",), retry=RetryPolicy(attempts=3, backoff=0.01))
        assert (await (await supervisor.submit(retried)).outcome()).attempts == 3
        assert supervisor.statistics().retries == 2


async def test_death_while_running(either: None) -> None:
    async with opened() as supervisor:
        with pytest.raises(JobCrashed) as crash:
            await supervisor.run(hosting.leave, 3)
        certificate = crash.value.certificate
        assert (certificate.exit_code, certificate.phase, certificate.generation) == (3, "running", 1)
        assert await supervisor.run(hosting.double, 4) == 8
        assert supervisor.statistics().workers[0].generation == 2


async def test_those_behind_a_death_run_again_uncharged(either: None) -> None:
    async with opened() as supervisor:
        for _ in range(5):  # known to be quick, so that they are sent ahead
            await supervisor.run(hosting.double, 1)
        first = await supervisor.submit(hosting.leave, 3)
        behind = [await supervisor.submit(hosting.double, number) for number in range(20)]
        assert (await first.outcome()).status == "crashed"
        ends = [await handle.outcome() for handle in behind]
        assert [end.value for end in ends] == list(range(0, 40, 2))
        assert [end.attempts for end in ends] == [1] * 20


async def test_events(either: None) -> None:
    async with opened() as supervisor:
        handle = await supervisor.submit(hosting.tell, __file__)
        events = [event async for event in handle.events()]
        assert [event.done for event in events if isinstance(event, Progress)] == [1]
        assert [event.value for event in events if isinstance(event, Item)] == [{"n": 1}]
        assert "a line" in [event.text for event in events if isinstance(event, Log)]


async def test_cancel(either: None) -> None:
    async with opened() as supervisor:
        handle: Any = await hosting.is_running(supervisor, Job(hosting.hold))
        handle.cancel()
        with pytest.raises(JobCancelled):
            await handle.result()
        with pytest.raises(JobTimedOut):
            await supervisor.run(Job(hosting.hold, timeout=0.1))
        assert await supervisor.run(hosting.double, 4) == 8
        # In a plain child that lives on.
        assert supervisor.statistics().workers[0].generation == 1


async def test_params_and_secrets_reach_it(fake: SimpleNamespace) -> None:
    async with opened(params={"a": [1]}) as supervisor:
        assert await supervisor.run(hosting.double, 4) == 8
    assert fake.made[0].recipe.init["params"] == {"a": [1]}
    assert "secrets" not in fake.made[0].recipe.init


# What only a fake says


def on_job(act: Callable[[FakeChild, Frame], None]) -> Script:
    """Return a script that behaves, but for what it does with jobs."""

    def script(child: FakeChild, frame: Frame) -> None:
        (act if frame["type"] == "job" else behave)(child, frame)

    return script


async def test_usage_counts_whatever_becomes_of_the_attempt(fake: SimpleNamespace) -> None:
    def act(child: FakeChild, frame: Frame) -> None:
        used: Frame = {"type": "usage", "fence": frame["fence"], "counts": {"prompt": 2, "output": 0.5}}
        child.say(used, {**used, "counts": {"prompt": 3}}, {**used, "counts": {"prompt": "bad"}})
        if frame["attempt"] < 3:
            child.end(9)  # with all of that unread
        else:
            child.say(result(frame, "done"), {**used, "counts": {"prompt": 1000}})

    fake.script = on_job(act)
    async with opened() as supervisor:
        again = RetryPolicy(attempts=3, on="crash", backoff=0.01)
        outcome = await (await supervisor.submit(Job(hosting.double, args=(1,), retry=again))).outcome()
        assert (outcome.value, outcome.attempts, outcome.isolation) == ("done", 3, "process")
        assert outcome.usage == {"prompt": 15, "output": 1.5}


async def test_frames_of_old_and_unknown_fences_are_dropped(fake: SimpleNamespace) -> None:
    kinds = (
        "result",
        "error",
        "progress",
        "usage",
        "item",
        "log",
        "callback",
        "artifact",
        "started",
        "acquire",
        "effect_begin",
    )
    rest = {
        "value": "wrong",
        "error": {"type": "Wrong"},
        "done": 1,
        "text": "wrong",
        "index": 0,
        "path": "p",
        "name": "door",
    }

    def act(child: FakeChild, frame: Frame) -> None:
        for fence in (frame["fence"] - 1, frame["fence"] + 1, 0, -1, 2**70):
            child.say(*[{"type": kind, "fence": fence, "request": 1, "key": "k", **rest} for kind in kinds])
            child.say({"type": "returned", "asked": [fence], "fences": [fence]})
        behave(child, frame)
        child.say(result(frame, "a second answer"))

    fake.script = on_job(act)
    async with opened() as supervisor:
        for number in range(3):
            handle = await supervisor.submit(hosting.double, number)
            events = [event async for event in handle.events()]
            assert [event for event in events if not hasattr(event, "state") and not isinstance(event, Log)] == []
            outcome = await handle.outcome()
            assert (outcome.value, outcome.attempts) == (2 * number, 1)
        statistics = supervisor.statistics()
        assert statistics.settled == {"succeeded": 3}
        assert statistics.limits[0].held == 0


async def test_unknown_types_and_members_are_ignored(fake: SimpleNamespace) -> None:
    def act(child: FakeChild, frame: Frame) -> None:
        for _ in range(10):
            child.say({"type": "from_the_future", "fence": frame["fence"]}, {"type": "x" * 1000}, {"type": "ping"})
        child.say({**result(frame, 7), "colour": "green", "nested": {"a": [1]}})

    fake.script = on_job(act)
    async with opened() as supervisor:
        assert await supervisor.run(hosting.double, 4) == 7
        assert len(fake.made) == 1


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (
            {"type": "hello", "version": 2, "nonce": "nonce of w1-1", "pid": 1},
            "speaks version 2 of the protocol, not 1",
        ),
        ({"type": "hello", "version": 1, "nonce": "somebody else's", "pid": 1}, "not an answer to ours"),
        ({"type": "ready"}, "ready before hello"),
    ],
)
async def test_wrong_greeting(fake: SimpleNamespace, first: Frame, told: str) -> None:
    def script(child: FakeChild, frame: Frame) -> None:
        if frame["type"] == "init":
            child.say({**first, **({"nonce": child.nonce} if told.startswith("speaks") else {})}, {"type": "ready"})

    fake.script = script
    async with opened(restart=QUICK) as supervisor:
        with pytest.raises(PoolBroken, match="children keep failing to start") as broken:
            await supervisor.run(hosting.double, 4)
        certificate = broken.value.certificate
        assert certificate is not None
        assert (certificate.reason, certificate.phase) == ("protocol", "starting")
        assert told in certificate.detail
        assert not any(frame["type"] == "job" for child in fake.made for frame in child.heard)


async def test_ready_twice_is_a_protocol_error(fake: SimpleNamespace) -> None:
    def act(child: FakeChild, frame: Frame) -> None:
        if len(fake.made) == 1:
            child.say({"type": "ready"})
        else:
            behave(child, frame)

    fake.script = on_job(act)
    async with opened() as supervisor:
        with pytest.raises(JobCrashed, match="ready twice"):
            await supervisor.run(hosting.double, 4)
        assert await supervisor.run(hosting.double, 4) == 8


BAD = [
    b"",
    b"null",
    b"[1]",
    b"{",
    b'{"type": 1}',
    b'{"type":"result"}',
    b'{"type":"result","fence":"x"}',
    b"\xff\xfe",
    b"{}",
]


async def test_two_bad_frames_are_put_up_with(fake: SimpleNamespace) -> None:
    def act(child: FakeChild, frame: Frame) -> None:
        child.say(*BAD[:2])
        behave(child, frame)

    fake.script = on_job(act)
    async with opened() as supervisor:
        assert await supervisor.run(hosting.double, 4) == 8
        assert len(fake.made) == 1


@pytest.mark.parametrize("bad", BAD)
async def test_three_bad_frames_end_the_child(fake: SimpleNamespace, bad: bytes) -> None:
    fake.script = on_job(lambda child, frame: child.say(bad, bad, bad))
    async with opened() as supervisor:
        with pytest.raises(JobCrashed, match="3 bad frames") as crash:
            await supervisor.run(hosting.double, 4)
        assert crash.value.certificate.reason == "protocol"


async def test_silence_at_the_start_is_a_failed_start(fake: SimpleNamespace) -> None:
    fake.script = lambda child, frame: None
    async with opened(start_timeout=0.05, restart=QUICK) as supervisor:
        with pytest.raises(PoolBroken) as broken:
            await supervisor.run(hosting.double, 4)
        assert broken.value.certificate is not None
        assert "not ready within 0.05 s" in broken.value.certificate.detail


async def test_extend_prolongs_the_start(fake: SimpleNamespace) -> None:
    async def slowly(child: FakeChild) -> None:
        for _ in range(6):
            child.say({"type": "extend"})
            await asyncio.sleep(0.1)
        child.hello()

    tasks: list[asyncio.Task[None]] = []

    def script(child: FakeChild, frame: Frame) -> None:
        if frame["type"] == "init":
            tasks.append(asyncio.create_task(slowly(child)))
        else:
            behave(child, frame)

    fake.script = script
    async with opened(start_timeout=0.4) as supervisor:
        assert await supervisor.run(hosting.double, 4) == 8
        assert len(fake.made) == 1


async def test_extend_prolongs_the_start_only_so_far(fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_worker, "_LONGEST_START", 0.5)

    async def for_ever(child: FakeChild) -> None:
        while not child.gone.is_set():
            child.say({"type": "extend"})
            await asyncio.sleep(0.05)

    tasks: list[asyncio.Task[None]] = []

    def script(child: FakeChild, frame: Frame) -> None:
        if frame["type"] == "init":
            tasks.append(asyncio.create_task(for_ever(child)))

    fake.script = script
    async with opened(
        start_timeout=0.2, restart=RestartPolicy(backoff=0.01, max_backoff=0.02, max_restarts=1)
    ) as supervisor:
        began = asyncio.get_running_loop().time()
        with pytest.raises(PoolBroken) as broken:
            await supervisor.run(hosting.double, 4)
        assert asyncio.get_running_loop().time() - began >= 0.9  # two starts
        assert broken.value.certificate is not None
        assert "not ready within 0.5 s" in broken.value.certificate.detail
    await asyncio.gather(*tasks)


async def test_pings_are_sent_to_the_silent_only(fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pings, "PACE", Pace(ping=0.05, suspect=0.5, confirm=0.05))
    answers = [3]

    def script(child: FakeChild, frame: Frame) -> None:
        if frame["type"] == "ping" and answers[0]:
            answers[0] -= 1
            child.say({"type": "pong", "seq": frame["seq"]})
        else:
            behave(child, frame)

    fake.script = script
    async with opened() as supervisor:
        assert await supervisor.run(hosting.double, 4) == 8
        while supervisor.statistics().workers[0].state != "suspect":  # noqa: ASYNC110  nothing else tells
            await asyncio.sleep(0.01)
        pings = [frame["seq"] for frame in fake.made[0].heard if frame["type"] == "ping"]
        assert pings == [1, 2, 3, 4]  # one at a time
        waiting = asyncio.create_task(supervisor.run(hosting.double, 5))
        await asyncio.sleep(0.2)
        assert not waiting.done() and len(fake.made) == 1
        fake.made[0].say({"type": "pong"})
        assert await waiting == 10


async def test_silence_of_a_job_is_ended_by_its_timeout(fake: SimpleNamespace) -> None:
    def script(child: FakeChild, frame: Frame) -> None:
        if frame["type"] not in ("job", "cancel"):
            behave(child, frame)

    fake.script = script
    async with opened(grace=0.05) as supervisor:
        with pytest.raises(JobTimedOut):
            await supervisor.run(Job(hosting.double, args=(1,), timeout=0.05))
        assert [frame["type"] for frame in fake.made[0].heard][:3] == ["init", "job", "cancel"]


async def test_answer_then_death_counts_as_answered(fake: SimpleNamespace) -> None:
    def act(child: FakeChild, frame: Frame) -> None:
        behave(child, frame)
        child.end(9)

    fake.script = on_job(act)
    async with opened(restart=QUICK) as supervisor:
        assert await supervisor.run(hosting.double, 4) == 8


async def test_death_with_jobs_ahead_runs_each_once(fake: SimpleNamespace) -> None:
    ran: list[int] = []

    def act(child: FakeChild, frame: Frame) -> None:
        number = frame["args"][0]
        if child.gone.is_set() or child._end.done():
            return
        ran.append(number)
        if number % 7 == 6:
            child.running = frame["fence"]
            child.end_now(9)  # it dies while it runs this one; what comes after it is never begun
        else:
            child.running = frame["fence"]
            child.say_now(result(frame, number))

    def script(child: FakeChild, frame: Frame) -> None:
        if frame["type"] == "job":
            asyncio.get_running_loop().call_soon(act, child, frame)
        else:
            behave(child, frame)

    fake.script = script
    async with opened(workers=2) as supervisor, supervisor.map(hosting.double, range(100)) as outcomes:
        ends = {outcome.index: str(outcome.status) async for outcome in outcomes}
    assert ends == {number: "crashed" if number % 7 == 6 else "succeeded" for number in range(100)}
    assert sorted(ran) == list(range(100))


@pytest.mark.parametrize("also", ["nothing", "a late answer", "death"])
async def test_returned_jobs_go_elsewhere_uncharged(fake: SimpleNamespace, also: str) -> None:
    given: list[int] = []

    def act(child: FakeChild, frame: Frame) -> None:
        given.append(frame["attempt"])
        if len(given) > 1:
            behave(child, frame)
            return
        child.say({"type": "returned", "asked": [], "fences": [frame["fence"]]})
        if also == "a late answer":
            child.say(result(frame, "late"))
        elif also == "death":
            child.end(1)

    fake.script = on_job(act)
    async with opened(restart=QUICK) as supervisor:
        handle = await supervisor.submit(hosting.double, 4)
        outcome = await handle.outcome()
        assert (outcome.value, outcome.attempts) == (8, 1)
        assert given == [1, 1]
        assert supervisor.statistics().submitted == 1


async def test_job_that_is_returned_while_it_is_cancelled(fake: SimpleNamespace) -> None:
    came = asyncio.Event()

    def script(child: FakeChild, frame: Frame) -> None:
        if frame["type"] == "cancel":
            child.say({"type": "returned", "asked": [], "fences": [frame["fence"]]})
        elif frame["type"] == "job":
            came.set()
        else:
            behave(child, frame)

    fake.script = script
    async with opened() as supervisor:
        handle = await supervisor.submit(hosting.double, 4)
        await came.wait()
        handle.cancel()
        outcome = await handle.outcome()
        assert (outcome.status, outcome.attempts) == ("cancelled", 0)


async def test_answer_that_crosses_the_cancel_is_an_answer(fake: SimpleNamespace) -> None:
    held: list[tuple[FakeChild, Frame]] = []

    def script(child: FakeChild, frame: Frame) -> None:
        if frame["type"] == "job":
            held.append((child, frame))
            child.say({"type": "progress", "fence": frame["fence"], "done": 1})
        elif frame["type"] == "cancel":
            child.say(result(held[-1][1], "done already"))
        else:
            behave(child, frame)

    fake.script = script
    async with opened() as supervisor:
        handle: Any = await hosting.is_running(supervisor, Job(hosting.hold))
        handle.cancel()
        outcome = await handle.outcome()
        assert outcome.status in ("succeeded", "cancelled")
        assert supervisor.statistics().running == 0


async def test_log_fields_may_have_any_name(fake: SimpleNamespace) -> None:
    names = ("self", "event", "level", "text", "stream", "worker", "job", "exc_info", "method_name", "", "a b", "é")

    def act(child: FakeChild, frame: Frame) -> None:
        fields = dict.fromkeys(names, 1)
        child.say({"type": "log", "fence": frame["fence"], "text": "x", "fields": fields, "level": "shouted"})
        behave(child, frame)

    fake.script = on_job(act)
    async with opened() as supervisor:
        handle = await supervisor.submit(hosting.double, 4)
        logs = [event async for event in handle.events() if isinstance(event, Log)]
        assert [log.fields for log in logs] == [dict.fromkeys(names, 1)]
        assert await handle.result() == 8


async def test_host_whose_logging_breaks_loses_nothing(
    fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import logging

    def broken(record: logging.LogRecord) -> bool:
        raise LookupError("the host's own")

    logger = logging.getLogger("orchestrator")
    monkeypatch.setattr(logger, "filters", [broken])
    async with opened() as supervisor:
        with pytest.raises(JobCrashed):
            await supervisor.run(hosting.leave, 3)
        assert await supervisor.run(hosting.double, 4) == 8
    assert "the host's own" in capsys.readouterr().err


async def test_bug_in_here_ends_the_child_and_not_the_jobs(
    fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = _hearing.Hearing._act
    broken = [True]

    def act(self: Any, frame: Any) -> None:
        if type(frame).__name__ == "Progressed" and broken.pop():
            raise ZeroDivisionError("a bug")
        original(self, frame)

    monkeypatch.setattr(_hearing.Hearing, "_act", act)
    async with opened() as supervisor:
        with pytest.raises(JobCrashed, match="ZeroDivisionError: a bug"):
            await supervisor.run(hosting.hold)
        assert await supervisor.run(hosting.double, 4) == 8


async def test_child_that_cannot_be_started(fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(self: FakeChild) -> None:
        raise LaunchError("no such interpreter")

    monkeypatch.setattr(FakeChild, "start", start)
    with pytest.raises(LaunchError, match="no such interpreter"):
        async with opened():
            raise AssertionError("unreachable")


async def test_target_that_is_of_another_kind_in_the_child(fake: SimpleNamespace) -> None:
    def act(child: FakeChild, frame: Frame) -> None:
        child.say({"type": "returned", "asked": [], "fences": [frame["fence"]], "kind": "async"})

    fake.script = on_job(act)
    async with opened() as supervisor, asyncio.timeout(30):
        # Its file was edited after the import here; sent again it would come back for ever.
        with pytest.raises(TargetError, match="is async in a child, and sync here"):
            await supervisor.run(hosting.double, 4)
    assert len([frame for frame in fake.made[0].heard if frame["type"] == "job"]) == 1


async def test_children_are_cleaned_up_one_by_one(fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned = [asyncio.Event(), asyncio.Event()]
    begun = [asyncio.Event(), asyncio.Event()]

    async def clean(child: FakeChild, moment: float, keep: Any, timeout: float) -> tuple[int, ...]:
        number = fake.made.index(child)
        begun[number].set()
        await cleaned[number].wait()
        return ()  # nothing survived

    monkeypatch.setattr(FakeChild, "kill_started_since", clean)

    def act(child: FakeChild, frame: Frame) -> None:
        child.killset = SimpleNamespace(may_have_left=lambda moment, kept: True, kill_now=lambda: None)
        behave(child, frame)

    fake.script = on_job(act)
    async with opened(restart=QUICK) as supervisor, asyncio.timeout(30):
        handles = []
        for number in range(2):
            handles.append(await supervisor.submit(hosting.hold))
            async for event in handles[-1].events():
                if event.kind == "progress":
                    break
            handles[-1].cancel()
            await begun[number].wait()
            if number == 0:
                fake.made[0].end_now(9)
        cleaned[0].set()
        assert (await handles[0].outcome()).status == "cancelled"
        waits = await supervisor.submit(hosting.double, 4)
        state = waits.state
        cleaned[1].set()
        assert state == "queued"
        assert await waits.result() == 8
        assert (await handles[1].outcome()).status == "cancelled"


def test_the_fake_has_what_a_child_has() -> None:
    from orchestrator._child_process import Child

    public = {name for name in dir(Child) if not name.startswith("_")}
    assert public <= set(dir(FakeChild)) | {"unsent"}
