"""A real child on raw pipes: how its jobs and itself end, by request, by accident and by force."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from orchestrator import _wire
from tests.contract import _child_jobs
from tests.contract._raw_child import DEADLINE, Frame, RawChild, raw_child

JOBS = "_child_jobs"
SOURCE = Path(_child_jobs.__file__)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="drives the child by POSIX means")


@pytest.fixture
def child(tmp_path: Path) -> Iterator[RawChild]:
    with raw_child(tmp_path) as started:
        yield started


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(SOURCE.read_text().splitlines(), 1) if text in line)


def wait_for_end_of(pids: list[int], seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    for pid in pids:
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"{pid} still runs"
            time.sleep(0.005)


def hang(child: RawChild, target: str) -> int:
    """Start a job that hangs, and wait until it does."""
    fence = child.job(f"{JOBS}:{target}")
    child.logged("log", "here")
    return fence


# Cancel


@pytest.mark.parametrize("target", ["sleep_and_say", "spin", "tidy_up", "nap_async"])
def test_a_cancelled_job_ends_at_once_and_the_child_goes_on(child: RawChild, target: str) -> None:
    arguments = [600] if target == "nap_async" else []
    for _ in range(3):
        child.frames.clear()
        fence = child.job(f"{JOBS}:{target}", *arguments)
        child.logged("log", "here")
        began = time.monotonic()
        child.send({"type": "cancel", "fence": fence})
        answer = child.outcome(fence)
        assert time.monotonic() - began < 1
        assert answer["cancelled"] is True and answer["error"]["traceback"] == ""
        assert answer["error"]["type"] in (
            "orchestrator.child._scope.JobCancelled",
            "asyncio.exceptions.CancelledError",
        )
        assert ("tidied up" in [frame["text"] for frame in child.all_of("log")]) == (target == "tidy_up")
    if target != "nap_async":
        assert "traceback" not in child.run(f"{JOBS}:modules"), "a cancel is to be quick: it imports nothing"


def test_what_a_job_makes_of_its_cancel_is_told(child: RawChild) -> None:
    fence = hang(child, "swallow")
    child.send({"type": "cancel", "fence": fence})
    assert child.outcome(fence)["value"] == "swallowed"
    child.frames.clear()
    fence = hang(child, "convert_cancel")
    child.send({"type": "cancel", "fence": fence})
    answer = child.outcome(fence)
    assert answer["error"]["type"] == "ValueError" and "cancelled" not in answer


def test_a_cancel_is_raised_once(child: RawChild) -> None:
    fence = hang(child, "ignore_cancel")
    child.send({"type": "cancel", "fence": fence})
    child.logged("log", "ignored")
    child.send({"type": "cancel", "fence": fence}, {"type": "ping", "seq": 1})
    child.of_type("pong", seq=1)
    assert not child.all_of("error")


def test_a_job_is_cancelled_while_its_module_is_imported(child: RawChild, tmp_path: Path) -> None:
    release = tmp_path / "release"
    loop = f"while not os.path.exists({str(release)!r}): time.sleep(0.001)"
    (tmp_path / "slow_module.py").write_text(
        f"print('importing')\nimport os, time\n{loop}\ndef f(wait): time.sleep(wait)\n"
    )
    child.run(f"{JOBS}:add", 1, 2)
    child.job(f"{JOBS}:add_path", str(tmp_path))
    fence = child.job("slow_module:f", 600)
    child.logged("stdout", "importing")
    child.send({"type": "cancel", "fence": fence, "stack": True})
    child.of_type("log", stream="stack")
    release.touch()  # whether an import is broken off is another matter
    assert child.outcome(fence)["cancelled"] is True
    assert child.run("slow_module:f", 0) is None


def test_a_job_that_has_not_started_is_returned_instead(child: RawChild) -> None:
    running = hang(child, "sleep_and_say")
    waiting = [child.job(f"{JOBS}:add", 1, 2) for _ in range(3)]
    child.send({"type": "cancel", "fence": waiting[1]})
    assert child.of_type("returned") == {"type": "returned", "asked": [waiting[1]], "fences": [waiting[1]]}
    child.send({"type": "cancel", "fence": running})
    assert child.outcome(waiting[2])["value"] == 3
    assert child.outcome(waiting[0])["value"] == 3
    assert len(child.all_of("result")) == 2


def test_a_cancel_of_what_is_over_changes_nothing(child: RawChild) -> None:
    assert child.run(f"{JOBS}:add", 1, 2) == 3
    child.send({"type": "cancel", "fence": 1}, {"type": "cancel", "fence": 77})
    assert child.of_type("returned", asked=[77])["fences"] == []
    assert child.run(f"{JOBS}:add", 1, 2) == 3


def test_jobs_are_taken_back_from_the_front_job_on(child: RawChild) -> None:
    running = hang(child, "sleep_and_say")
    fences = [child.job(f"{JOBS}:add", number, 0) for number in range(10)]
    child.send({"type": "recall", "fences": [running, *fences[2:], 99]})
    assert child.of_type("returned")["fences"] == fences[2:]
    child.send({"type": "cancel", "fence": running})
    assert child.outcome(fences[1])["value"] == 1
    assert child.run(f"{JOBS}:add", 1, 2) == 3
    assert [frame["fence"] for frame in child.all_of("result")] == [*fences[:2], fences[-1] + 1]


# Where it hangs


def stack_lines(child: RawChild) -> list[tuple[str, int, str]]:
    text = child.of_type("log", stream="stack")["text"]
    return [(path, int(line), name) for path, line, name in re.findall(r'  File "(.*)", line (\d+), in (.*)\n', text)]


@pytest.mark.parametrize(
    ("target", "last", "source"),
    [
        ("sleep_and_say", "sleep_and_say", ""),
        ("hang_in_a_task", "sleep", "# line of the hang"),
        ("hang_in_a_generator", "sleep", "# line of the hang"),
        ("block_the_loop", "block_the_loop", "# line of the block"),
        ("with_permit", "with_permit", ""),
    ],
)
def test_a_cancel_can_ask_where_the_job_is(child: RawChild, target: str, last: str, source: str) -> None:
    arguments = ["api"] if target == "with_permit" else []
    fence = child.job(f"{JOBS}:{target}", *arguments)
    if target == "with_permit":
        child.of_type("acquire")
    else:
        child.logged("log", "here")
    child.send({"type": "cancel", "fence": fence, "stack": True})
    lines = stack_lines(child)
    assert lines[0][0] == str(SOURCE) and lines[0][2] == target, "from user code inwards"
    assert lines[-1][2] == last
    assert not [path for path, _, _ in lines if "/orchestrator/child/" in path]
    if source:
        assert (str(SOURCE), line_of(source)) in [(path, line) for path, line, _ in lines]
    if target != "block_the_loop":
        answer = child.outcome(fence)
        order = [frame["type"] for frame in child.frames if frame.get("stream") == "stack" or frame is answer]
        assert order == ["log", "error"]


def test_the_stack_is_written_to_a_file_even_by_who_lets_nobody_else_run(child: RawChild) -> None:
    hang(child, "hold_gil")
    stack = child.temp / _wire.STACK_FILE
    deadline = time.monotonic() + DEADLINE
    while "in hold_gil" not in stack.read_text():  # it may not have got there when it said so
        assert time.monotonic() < deadline
        os.kill(child.process.pid, signal.SIGUSR2)
        time.sleep(0.02)
    child.send({"type": "ping", "seq": 1})
    assert child.process.poll() is None


def test_the_stack_is_written_to_a_file_when_a_job_outlives_its_time(child: RawChild) -> None:
    path = child.temp / "dump"
    child.job(f"{JOBS}:hold_gil", dump_after=2.0, dump_file=str(path))
    deadline = time.monotonic() + DEADLINE
    while not path.exists() or "in hold_gil" not in path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_dump_of_a_job_that_is_quick_enough(child: RawChild) -> None:
    path = child.temp / "dump"
    assert child.outcome(child.job(f"{JOBS}:add", 1, 2, dump_after=60, dump_file=str(path)))["value"] == 3
    assert path.read_text() == ""


# Processes of a cancelled job


def test_processes_of_resources_are_named_when_a_job_is_cancelled(child: RawChild) -> None:
    fence = child.job(f"{JOBS}:hold_resource_and_hang")
    kept, stray = child.of_type("item")["value"]
    child.send({"type": "cancel", "fence": fence})
    answer = child.outcome(fence)
    assert answer["cancelled"] is True and answer["keep"] == [kept]
    assert psutil.pid_exists(stray)
    child.close_stdin()
    assert child.end() == _wire.EXIT_PARENT_GONE
    wait_for_end_of([kept, stray])


def test_nothing_is_named_where_there_is_nothing_to_keep(child: RawChild) -> None:
    fence = hang(child, "sleep_and_say")
    child.send({"type": "cancel", "fence": fence})
    assert "keep" not in child.outcome(fence)


# Async children


def test_async_jobs_run_at_the_same_time(child: RawChild) -> None:
    fences = [child.job(f"{JOBS}:meet", 3, kind="async") for _ in range(3)]
    assert [child.outcome(fence)["value"] for fence in fences] == [3, 3, 3]
    assert [(frame["fence"], frame["flavour"], frame["kind"]) for frame in child.all_of("started")] == [
        (fence, "async", "async") for fence in fences
    ]
    assert sorted(frame["fence"] for frame in child.all_of("log", stream="stdout")) == fences, "each print is its job's"
    assert child.stop() == 0


def test_an_async_job_is_cancelled_before_its_first_step(child: RawChild) -> None:
    first = child.job(f"{JOBS}:nap_async", 600)
    child.logged("log", "here")
    frame = child.job_frame(f"{JOBS}:nap_async", 600, kind="async")
    child.send(frame, {"type": "cancel", "fence": frame["fence"]}, {"type": "cancel", "fence": first})
    assert child.outcome(frame["fence"])["cancelled"] is True
    assert child.outcome(first)["cancelled"] is True
    assert child.run(f"{JOBS}:nap_async", 0) == "woke"


def test_a_job_of_unknown_kind_goes_back_from_a_child_of_the_other_flavour(child: RawChild) -> None:
    assert child.run(f"{JOBS}:add", 1, 2) == 3
    fence = child.job(f"{JOBS}:nap_async", 0)
    assert child.of_type("returned") == {"type": "returned", "asked": [fence], "fences": [fence], "kind": "async"}
    assert child.run(f"{JOBS}:add", 1, 2) == 3


def test_a_sync_job_of_unknown_kind_goes_back_from_an_async_child(child: RawChild) -> None:
    assert child.run(f"{JOBS}:nap_async", 0) == "woke"
    fence = child.job(f"{JOBS}:add", 1, 2)
    assert child.of_type("returned")["kind"] == "sync"
    assert fence not in [frame["fence"] for frame in child.all_of("started")]
    assert child.fail("no_such_module:f")["error"]["type"] == "ModuleNotFoundError"
    assert child.run(f"{JOBS}:nap_async", 0) == "woke"


# Stop, and the end of the parent


def test_a_stop_lets_what_is_there_finish(child: RawChild) -> None:
    running = hang(child, "wait_for_stop")
    waiting = child.job(f"{JOBS}:add", 1, 2)
    assert child.stop() == 0
    assert child.outcome(running)["value"] == "stopped"
    assert child.outcome(waiting)["value"] == 3
    assert child.frames[-1] == {"type": "bye"}


def test_a_stop_of_an_idle_or_async_child(child: RawChild, tmp_path: Path) -> None:
    child.of_type("ready")
    assert child.stop() == 0
    with raw_child(tmp_path) as other:
        fence = other.job(f"{JOBS}:nap_async", 0.05)
        other.logged("log", "here")
        assert other.stop() == 0
        assert other.outcome(fence)["value"] == "woke"


@pytest.mark.parametrize("target", ["", "add", "sleep_and_say", "spin", "nap_async"])
def test_the_end_of_stdin_ends_it_within_a_second(child: RawChild, target: str) -> None:
    child.of_type("ready")
    if target == "add":
        child.run(f"{JOBS}:add", 1, 2)  # from now on the main thread reads
    elif target:
        child.job(f"{JOBS}:{target}", *([600] if target == "nap_async" else []))
        child.logged("log", "here")
    began = time.monotonic()
    child.close_stdin()
    assert child.end() == _wire.EXIT_PARENT_GONE
    assert time.monotonic() - began < 1


def test_what_the_child_started_ends_with_it(child: RawChild) -> None:
    pids = [child.run(f"{JOBS}:spawn", own_session) for own_session in (False, True)]
    assert all(map(psutil.pid_exists, pids))
    child.close_stdin()
    assert child.end() == _wire.EXIT_PARENT_GONE
    wait_for_end_of(pids, 1)


def test_it_ends_when_nobody_reads_its_frames(child: RawChild) -> None:
    child.of_type("ready")
    assert child.process.stdout
    child.process.stdout.close()
    child.job(f"{JOBS}:add", 1, 2)
    assert child.process.wait(DEADLINE) == _wire.EXIT_PARENT_GONE


def test_it_ends_when_a_job_closes_its_pipes(child: RawChild) -> None:
    child.job(f"{JOBS}:close_all_fds")
    assert child.end() == _wire.EXIT_PROTOCOL


# Forks


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("exit", 3), ("raise", 1), ("_exit", 4)])
def test_a_forked_copy_speaks_for_nobody(child: RawChild, how: str, code: int) -> None:
    assert child.run(f"{JOBS}:fork", how) == code
    assert child.run(f"{JOBS}:add", 1, 2) == 3
    assert {frame["type"] for frame in child.frames} == {"hello", "ready", "started", "result"}
    if how != "_exit":
        child.on_stderr(b"print of the copy\nheld by the copy")


# Sent ahead


def test_after_a_kill_it_is_known_which_jobs_ran(tmp_path: Path) -> None:
    for round_ in range(5):
        with raw_child(tmp_path) as child:
            frames = [child.job_frame(f"{JOBS}:nap", 0.001, kind="sync") for _ in range(64)]
            child.send(*frames)
            child.outcome(frames[round_ * 7]["fence"])
            child.process.kill()
            assert child.end() == -signal.SIGKILL
            answered = [frame["fence"] for frame in child.all_of("result")]
            assert answered == [frame["fence"] for frame in frames][: len(answered)], "in order, without a gap"
            noted = int((child.temp / _wire.RUNNING_FILE).read_text())
            # It died in that job or, having answered it, before it began the next.
            assert noted in (answered[-1], answered[-1] + 1)


def test_the_child_notes_what_it_runs(child: RawChild) -> None:
    child.of_type("ready")
    assert int((child.temp / _wire.RUNNING_FILE).read_text()) == 0
    child.run(f"{JOBS}:add", 1, 2)
    fence = child.job(f"{JOBS}:die_by", int(signal.SIGSEGV))
    assert child.end() == -signal.SIGSEGV
    assert (child.temp / _wire.RUNNING_FILE).read_bytes().split(b"\n")[0].strip() == b"%d" % fence
    child.on_stderr(b"Fatal Python error: Segmentation fault")


def test_bursts_recalls_pings_and_cancels_keep_the_order(child: RawChild) -> None:
    """Every way in which the two threads hand stdin to each other, many times."""

    def is_answer(frame: Frame, fence: int) -> bool:
        if frame["type"] == "returned":
            return bool(frame["fences"] == [fence])
        return frame["type"] in ("result", "error") and frame["fence"] == fence

    for round_ in range(60):
        naps = [(0, 0, 0.003, 0.0005)[n % 4] for n in range(round_ % 9 + 1)]
        burst = [child.job_frame(f"{JOBS}:nap", seconds, kind="sync") for seconds in naps]
        fences = [frame["fence"] for frame in burst]
        child.send(*burst, {"type": "ping", "seq": round_}, {"type": "recall", "fences": fences[5:]})
        if round_ % 3 == 0:
            child.send({"type": "cancel", "fence": fences[-1]})
        child.of_type("pong", seq=round_)
        returned = child.of_type("returned", asked=fences[5:])["fences"]
        for fence in fences:
            if fence not in returned:
                child.wait(partial(is_answer, fence=fence))
    ran = [frame["fence"] for frame in child.frames if frame["type"] in ("result", "error")]
    assert ran == sorted(ran) and len(ran) == len(set(ran))
    assert child.stop() == 0
