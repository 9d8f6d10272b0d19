"""Whatever a job writes, wherever: it is an event of the right job, and never corrupts or stalls anything."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import dying
import pytest
import talking

from orchestrator import JobHandle, Supervisor

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fork, or a C library")


async def logs_of(handle: JobHandle) -> list[tuple[str, str]]:
    """Return (stream, text) of a job's lines; the job must succeed."""
    found = [(event.stream, event.text) async for event in handle.events() if event.kind == "log"]
    await handle.result()
    return found


async def logs(target: Any, *args: Any) -> tuple[Any, list[tuple[str, str]]]:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(target, *args)
        found = await logs_of(handle)
        assert await supervisor.run(dying.size_of, "abc") == 3
        assert supervisor.statistics().restarts == 0
        return await handle.result(), found


async def test_prints_are_events() -> None:
    value, found = await logs(talking.print_things)
    assert value == "printed"
    assert found == [("stdout", "one two"), ("stderr", "to stderr"), ("stdout", "no newline")]


@pytest.mark.parametrize("fd", [1, 2])
async def test_raw_writes_are_events(fd: int) -> None:
    value, found = await logs(talking.write_fd, fd, "first\nsecond\nunfinished")
    assert value == "written"
    assert [text for _, text in found][:2] == ["first", "second"]


@posix
async def test_c_puts_is_an_event() -> None:
    value, found = await logs(talking.put_by_c, "by C")
    assert value == "put" and ("stderr", "by C") in found


@posix
async def test_fake_frames_are_text() -> None:
    value, found = await logs(talking.fake_frames)
    assert value == "true"
    assert sum('"faked"' in text for _, text in found) == 20


async def test_a_grandchild_s_output_is_an_event() -> None:
    value, found = await logs(talking.have_grandchild_print, "hello from below")
    assert value == 0
    texts = [text for _, text in found]
    assert "hello from below" in texts and "err hello from below" in texts


@posix
async def test_a_grandchild_that_never_stops_printing_stalls_nothing() -> None:
    async with Supervisor(workers=1) as supervisor:
        pid = await supervisor.run(talking.leave_grandchild_printing, 0)
        for number in range(50):
            assert await supervisor.run(dying.size_of, "x" * number) == number
        os.kill(pid, 0)  # it still prints
        child = supervisor.statistics().workers[0].pid
        assert child is not None
        os.kill(child, signal.SIGKILL)
        assert await supervisor.run(dying.pid) != child  # its exit was seen although the pipes are held open


async def test_a_flood_of_stderr_stalls_nothing() -> None:
    size = 100 * 1000 * 1000
    async with Supervisor(workers=2) as supervisor:
        flood = await supervisor.submit(talking.flood_stderr, size)
        for number in range(20):
            assert await supervisor.run(dying.size_of, "x" * number) == number
        assert await flood.result() == size
        events = [event async for event in flood.events()]
        assert len(events) <= 1_100
        dropped = sum(event.dropped for event in events if event.kind == "log")
        assert dropped > 500_000
        assert supervisor.statistics().dropped_log_lines > 500_000
        assert supervisor.statistics().restarts == 0


async def test_a_flood_of_prints_is_bounded() -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(talking.flood_prints, 100_000)
        assert await handle.result() == 100_000
        events = [event async for event in handle.events()]
        texts = [event.text for event in events if event.kind == "log"]
        assert len(texts) <= 1_000
        assert events[-1].kind == "state" and events[-1].state == "succeeded"


async def test_a_flood_without_newlines_is_bounded() -> None:
    value, found = await logs(talking.flood_without_newline, 20 * 2**20)
    assert value == 20 * 2**20
    assert len(found) <= 1_000
    assert max(len(text) for _, text in found) <= 129 * 1024


async def test_logging_and_warnings_are_events_with_their_level() -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(talking.use_logging)
        events = [event async for event in handle.events() if event.kind == "log"]
    records = [event for event in events if event.stream == "logging"]
    assert [(event.level, event.text.splitlines()[0], event.logger) for event in records] == [
        ("warning", "look out", "app.part"),
        ("info", "all well", "app.part"),
        ("error", "it broke", "app.part"),
    ]
    assert "KeyError: 'lost'" in records[2].text + str(dict(records[2].fields))
    told = [event for event in events if event.stream == "warnings"]
    assert any("mind this" in event.text for event in told)
    assert all(event.attempt == 1 for event in events)
    assert not [event for event in events if event.stream == "stderr" and "look out" in event.text]  # not told twice


async def test_child_log_carries_fields() -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(talking.say, "words")
        [event] = [event async for event in handle.events() if event.kind == "log"]
    assert (event.text, event.stream, event.level, dict(event.fields)) == ("words", "log", "warning", {"page": 3})


async def test_lines_of_concurrent_async_jobs_go_to_their_own() -> None:
    async with Supervisor(workers=1, concurrency=5) as supervisor:
        handles = [await supervisor.submit(talking.print_async, f"job{number}", 20) for number in range(5)]
        for number, handle in enumerate(handles):
            found = await logs_of(handle)
            assert [text for stream, text in found if stream == "stdout"] == [f"job{number} {i}" for i in range(20)]
            assert [text for stream, text in found if stream == "logging"] == [
                f"job{number} logs {i}" for i in range(20)
            ]


async def test_lines_of_jobs_in_a_row_go_to_their_own() -> None:
    async with Supervisor(workers=1) as supervisor:
        for _ in range(20):
            await supervisor.run(talking.say, "learn")
        handles = [await supervisor.submit(talking.say, f"number {number}") for number in range(60)]
        for number, handle in enumerate(handles):
            assert await logs_of(handle) == [("log", f"number {number}")]


async def test_a_thread_s_print_arrives() -> None:
    _, found = await logs(talking.print_from_thread, "from a thread")
    assert any(text == "from a thread" for _, text in found)


@posix
async def test_a_fork_in_a_job_corrupts_nothing() -> None:
    status, found = await logs(talking.fork_in_job)
    assert status == 0
    assert any(text == "from the copy" for _, text in found)


@posix
@pytest.mark.parametrize("target", [talking.fork_and_return, talking.fork_and_raise])
async def test_a_copy_that_returns_from_the_job_answers_nothing(target: Any) -> None:
    value, _ = await logs(target)
    assert value == "the child's result"


async def test_stdin_of_a_job_is_empty() -> None:
    assert (await logs(talking.read_stdin))[0] == ""


async def test_replaced_and_closed_streams() -> None:
    assert (await logs(talking.replace_streams))[0] == "into my own\n"
    assert (await logs(talking.close_streams))[0] == "closed"


async def test_bytes_and_odd_characters() -> None:
    value, found = await logs(talking.print_bytes)
    assert value == "ok"
    assert any("raw" in text for _, text in found) and any("surrogate null" in text for _, text in found)
    # What a terminal would have shown in the end.
    assert found[-1] == ("stdout", "100 %")


async def test_streams_look_as_programs_expect() -> None:
    (tty, encoding, _), _ = await logs(talking.is_a_tty)
    assert tty is False and encoding == "utf-8"
