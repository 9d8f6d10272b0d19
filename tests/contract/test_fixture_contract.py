"""What a fixture gives a job, and what it is told: in real children, with a fixture that needs no browser."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import desks
import pytest

from orchestrator import BlockingSupervisor, Fixture, Job, Supervisor
from orchestrator.exceptions import ConfigurationError, JobFailed, TargetError

DESK = Fixture("desks:desk", {"lamp": True})
WARM = Fixture("desks:desk", {"leave_loop": True}, flavour="warm-desk")


@pytest.mark.parametrize("target", [desks.facts, desks.facts_async, "desks:facts", "desks:facts_async"])
async def test_it_is_the_first_argument_and_knows_its_call(target: Any) -> None:
    async with Supervisor(workers=1) as supervisor:
        job = Job(target, args=(1, "two"), kwargs={"three": 3}, fixture=DESK, key="one")
        found = await supervisor.run(job)
    is_async = "async" in str(target)
    expected = {"open": True, "args": [1, "two"], "kwargs": {"three": 3}, "options": {"lamp": True}}
    expected |= {"job": 1, "key": "one", "attempt": 1, "is_async": is_async, "ended_by": None}
    assert {name: found[name] for name in expected} == expected
    assert found["function"] == ("facts_async" if is_async else "facts")


@pytest.mark.parametrize("target", [desks.pages, desks.pages_async])
async def test_it_is_held_while_a_generator_is_drained(target: Any) -> None:
    async with Supervisor(workers=1) as supervisor:
        found = await supervisor.run(Job(target, args=(3,), fixture=DESK))
        assert found == [{"number": number, "open": True} for number in range(3)]
        streamed = [item async for item in supervisor.stream(Job(target, args=(2,), fixture=DESK))]
        assert [item["number"] for item in streamed] == [0, 1]


async def test_arguments_after_it_travel_by_their_annotations() -> None:
    async with Supervisor(workers=1) as supervisor:
        job = Job(desks.due, args=(date(2026, 2, 27),), kwargs={"more": 2}, fixture=DESK)
        assert await supervisor.run(job) == date(2026, 3, 1)
        text = replace(job, args=("2026-02-27", "3"), kwargs={}, convert="text")
        assert await supervisor.run(text) == date(2026, 3, 2)


async def test_methods_get_it_after_self() -> None:
    job = Job("desks:Office.greet", args=("Ada",), init={"name": "Bob"}, fixture=DESK)
    async with Supervisor(workers=1) as supervisor:
        assert await supervisor.run(job) == "Bob greets Ada at the desk, True"


async def test_what_its_end_raises_is_the_jobs_error() -> None:
    async with Supervisor(workers=1) as supervisor:
        with pytest.raises(JobFailed) as caught:
            await supervisor.run(Job(desks.raises_key_error, fixture=DESK))
        assert caught.value.error is not None
        assert caught.value.error.type == "desks.DeskBroken"
        assert caught.value.error.cause is not None and caught.value.error.cause.type == "KeyError"
        with pytest.raises(JobFailed, match="no desk today"):
            await supervisor.run(Job(desks.facts, fixture=Fixture("desks:fails")))
        with pytest.raises(JobFailed, match="nowhere"):
            await supervisor.run(Job(desks.facts, fixture=Fixture("desks:nowhere")))


async def test_flavours_never_mix() -> None:
    async with Supervisor(workers=1) as supervisor:
        warm = await supervisor.run(Job(desks.facts, fixture=WARM))
        again = await supervisor.run(Job("desks:facts", fixture=WARM))
        assert warm["loop"] and again["loop"] and warm["pid"] == again["pid"]
        assert supervisor.statistics().workers[0].flavour == "warm-desk"
        plain = await supervisor.run(desks.plain_facts)
        assert not plain["loop"] and plain["pid"] != warm["pid"]
        assert (await supervisor.run(Job(desks.facts, fixture=DESK)))["pid"] == plain["pid"]
        by_name = await supervisor.run(Job("desks:facts", fixture=WARM))
        assert by_name["loop"] and by_name["pid"] != plain["pid"]
        assert await supervisor.run(desks.async_pid) not in (plain["pid"], by_name["pid"])
        asynchronous = await supervisor.run(Job(desks.facts_async, fixture=WARM))
        assert asynchronous["pid"] not in (plain["pid"], by_name["pid"])
        assert supervisor.statistics().restarts == 0


async def test_many_of_all_flavours_at_once() -> None:
    async with Supervisor(workers=2) as supervisor:
        jobs = [
            Job(desks.facts, fixture=WARM),
            Job("desks:facts", fixture=WARM),
            Job(desks.facts, fixture=DESK),
            Job(desks.plain_facts),
            Job(desks.facts_async, fixture=WARM),
        ] * 6
        found = await asyncio.gather(*map(supervisor.run, jobs))
    assert [value["loop"] for value in found] == [True, True, False, False, True] * 6


def test_a_call_that_does_not_fit_is_refused_at_once() -> None:
    with BlockingSupervisor(workers=1) as supervisor:
        with pytest.raises(TargetError, match="due"):
            supervisor.run(Job(desks.due, fixture=DESK))
        with pytest.raises(TargetError, match="positional"):
            supervisor.run(Job(desks.keyword_only, fixture=DESK))
        with pytest.raises(TargetError, match="positional"):
            supervisor.run(Job(desks.nothing, fixture=DESK))
        # The same function without a fixture takes one argument more.
        with pytest.raises(TargetError, match="day"):
            supervisor.run(desks.due, date(2026, 2, 27))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (lambda: Fixture("no_module"), "fixture.function"),
        (lambda: Fixture(desks.desk), "fixture.function"),  # type: ignore[arg-type]
        (lambda: Fixture("desks:desk", []), "fixture.options"),  # type: ignore[arg-type]
        (lambda: Fixture("desks:desk", {"when": date(2026, 1, 1)}), "fixture.options.when"),
        (lambda: Fixture("desks:desk", flavour="async"), "fixture.flavour"),
        (lambda: Fixture("desks:desk", flavour="Two Words"), "fixture.flavour"),
        (lambda: Job(desks.facts, fixture="desks:desk"), "job.fixture"),  # type: ignore[arg-type]
    ],
)
def test_wrong_options_are_named(wrong: Any, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        wrong()
    assert caught.value.field == field


def test_inline_there_is_none() -> None:
    with BlockingSupervisor(workers=1, isolation="inline") as supervisor:
        with pytest.raises(TargetError, match="isolation='inline'"):
            supervisor.run(Job(desks.facts, fixture=DESK))
        assert supervisor.run(desks.plain_facts)["loop"] is False


@dataclass(frozen=True, slots=True)
class DeskJob(Job):
    """A job of an adapter's own, as they make them."""

    lamp: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fixture", Fixture("desks:desk", {"lamp": self.lamp}))
        Job.__post_init__(self)


async def test_a_subclass_of_job_is_a_job_everywhere() -> None:
    async with Supervisor(workers=1) as supervisor:
        template = DeskJob(desks.facts, timeout=60, lamp=True)
        assert (await supervisor.run(replace(template, args=(1,), lamp=False)))["options"] == {"lamp": False}
        async with supervisor.map(template, "abc", ordered=True) as outcomes:
            found = [outcome.result() async for outcome in outcomes]
        assert [value["args"] for value in found] == [["a"], ["b"], ["c"]]
        assert all(value["options"] == {"lamp": True} for value in found)
        handle = await supervisor.submit(template)
        assert handle.job is template
        await handle.outcome()


def test_it_works_for_hosts_without_a_loop() -> None:
    with BlockingSupervisor(workers=1) as supervisor:
        assert supervisor.run(Job(desks.facts, fixture=WARM))["loop"]
        with supervisor.map(Job("desks:facts", fixture=WARM), range(3), ordered=True) as outcomes:
            assert [outcome.result()["args"] for outcome in outcomes] == [[0], [1], [2]]
        assert [item["number"] for item in supervisor.stream(Job(desks.pages, args=(2,), fixture=DESK))] == [0, 1]
        assert supervisor.run(Job(desks.facts_async, args=(1,), fixture=DESK))["is_async"]
