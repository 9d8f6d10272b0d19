"""Whatever a job raises arrives as text with its traceback, and its child lives on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import dying
import hostile
import pytest
import pytest_asyncio

from orchestrator import Supervisor
from orchestrator.exceptions import JobFailed, PayloadError


@pytest_asyncio.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    async with Supervisor(workers=1) as supervisor:
        pid = await supervisor.run(dying.pid)
        yield supervisor
        assert await supervisor.run(dying.pid) == pid


async def failure(supervisor: Supervisor, target: Any) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await supervisor.run(target)
    error = caught.value
    assert error.__cause__ is None or "hostile" not in type(error.__cause__).__module__
    assert str(error)
    assert f"in {target.__name__}" in error.error.traceback or target in (hostile.raise_recursive,)
    assert error.error.traceback in str(error)
    return error


@pytest.mark.parametrize(
    ("target", "kind", "words"),
    [
        (hostile.raise_bad_str, "hostile.BadStr", ""),
        (hostile.raise_exiting_str, "hostile.ExitingStr", ""),
        (hostile.raise_bad_class, "BadClass", "of no module"),
        (hostile.raise_bad_notes, "hostile.BadNotes", "with odd notes"),
        (hostile.raise_bad_dict, "hostile.BadDict", "guarded"),
        (hostile.raise_needs_two, "hostile.NeedsTwo", "only one"),
        (hostile.raise_surrogates, "ValueError", "lone"),
        (hostile.raise_base, "BaseException", "base"),
        (hostile.raise_generator_exit, "GeneratorExit", ""),
        (hostile.raise_cancelled, "asyncio.exceptions.CancelledError", "my own"),
        (hostile.raise_stop_iteration, "StopIteration", "5"),
        (hostile.raise_local_class, "hostile.raise_local_class.<locals>.Local", "of a function"),
        (hostile.raise_self_caused, "ValueError", "ring"),
        (hostile.raise_deep_causes, "RuntimeError", "level 2999"),
        (hostile.hide_traceback, "ValueError", "no trace"),
        (hostile.bad_syntax, "SyntaxError", "made_up.py"),
        (hostile.raise_recursive, "RecursionError", "maximum recursion depth"),
    ],
)
async def test_hostile_exceptions_arrive(supervisor: Supervisor, target: Any, kind: str, words: str) -> None:
    error = await failure(supervisor, target)
    assert error.error.type == kind
    assert words in error.error.message


async def test_a_huge_message_is_cut(supervisor: Supervisor) -> None:
    error = await failure(supervisor, hostile.raise_huge)
    assert 1_000 < len(error.error.message) < 100_000
    assert len(str(error)) < 1_000_000
    assert "raise_huge" in str(error)


async def test_notes_causes_and_groups(supervisor: Supervisor) -> None:
    noted = await failure(supervisor, hostile.raise_noted)
    assert noted.error.notes == ("first note", "second note")
    assert "second note" in noted.error.traceback
    caused = await failure(supervisor, hostile.raise_caused)
    assert caused.error.cause is not None
    assert (caused.error.cause.type, caused.error.cause.message) == ("KeyError", "'missing'")
    assert "direct cause" in caused.error.traceback
    handled = await failure(supervisor, hostile.raise_in_context)
    assert handled.error.cause is not None and handled.error.cause.type == "KeyError"
    assert "During handling" in handled.error.traceback
    group = await failure(supervisor, hostile.raise_group)
    assert group.error.type == "ExceptionGroup"
    for words in ("left", "inner", "TypeError: deep"):
        assert words in group.error.traceback


async def test_status_codes_are_data(supervisor: Supervisor) -> None:
    error = await failure(supervisor, hostile.raise_http)
    assert error.error.data == {"status_code": 429}
    assert error.error.bases[0] == "hostile.HttpError"
    assert "Exception" in error.error.bases or len(error.error.bases) >= 1


async def test_async_jobs_too() -> None:
    async with Supervisor(workers=1) as supervisor:
        group = await failure(supervisor, hostile.raise_task_group)
        assert group.error.type == "ExceptionGroup"
        assert "LookupError: two" in group.error.traceback
        own = await failure(supervisor, hostile.raise_cancelled_async)
        assert own.error.type == "asyncio.exceptions.CancelledError"
        assert supervisor.statistics().settled == {"failed": 2}


async def test_generators_too(supervisor: Supervisor) -> None:
    error = await failure(supervisor, hostile.yield_and_raise)
    assert error.error.message == "after two"
    with pytest.raises((PayloadError, JobFailed), match="object"):
        await supervisor.run(hostile.yield_unsendable)


async def test_the_traceback_begins_in_user_code(supervisor: Supervisor) -> None:
    error = await failure(supervisor, hostile.raise_caused)
    assert "orchestrator/child" not in error.error.traceback.replace("\\", "/")
