"""Children that die: each death breaks the future of one call, with its certificate, and nothing else."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import executing
import pytest
from orchestrator_adapters.executor import CallCrashed, CallUnreadable, OrchestratorExecutor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the ways to die are those of POSIX systems")

DEADLINE = 60


@pytest.fixture(scope="module")
def executor() -> Iterator[OrchestratorExecutor]:
    with OrchestratorExecutor(2) as made:
        yield made


def works(executor: OrchestratorExecutor) -> bool:
    return executor.submit(executing.add, 1).result(DEADLINE) == 2


CRASHES: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("segfault in the call", (executing.segfault,)),
    ("os._exit in the call", (executing.exit_at_once,)),
    ("libc exit in the call", (executing.libc_exit,)),
    ("SIGKILL in the call", (executing.kill_itself,)),
    ("segfault when the call is rebuilt", (executing.size, executing.AtUnpickle("segfault"))),
    ("os._exit when the call is rebuilt", (executing.size, executing.AtUnpickle("os._exit"))),
    ("libc exit when the call is rebuilt", (executing.size, executing.AtUnpickle("libc exit"))),
    ("segfault when the result is pickled", (executing.make, "pickle", "segfault")),
    ("os._exit when the result is pickled", (executing.make, "pickle", "os._exit")),
    ("libc exit when the result is pickled", (executing.make, "pickle", "libc exit")),
    ("segfault when a value is collected", (executing.make_and_drop, "segfault")),
    ("os._exit when a value is collected", (executing.make_and_drop, "os._exit")),
)

FAILURES: tuple[tuple[str, tuple[Any, ...], type[BaseException]], ...] = (
    ("error in the call", (executing.fail, "no"), ValueError),
    ("sys.exit in the call", (executing.sys_exit,), SystemExit),
    ("error when the call is pickled", (executing.size, executing.AtPickle("error")), ValueError),
    ("error when the call is rebuilt", (executing.size, executing.AtUnpickle("error")), CallUnreadable),
    ("sys.exit when the call is rebuilt", (executing.size, executing.AtUnpickle("sys.exit")), CallUnreadable),
    ("error when the result is pickled", (executing.make, "pickle", "error"), ValueError),
    ("sys.exit when the result is pickled", (executing.make, "pickle", "sys.exit"), SystemExit),
    ("error when the result is rebuilt", (executing.make, "unpickle", "error"), CallUnreadable),
    ("sys.exit when the result is rebuilt", (executing.make, "unpickle", "sys.exit"), CallUnreadable),
)


@pytest.mark.parametrize("call", [call for _, call in CRASHES], ids=[name for name, _ in CRASHES])
def test_a_crash_breaks_its_own_future(executor: OrchestratorExecutor, call: tuple[Any, ...]) -> None:
    error = executor.submit(*call).exception(DEADLINE)
    assert isinstance(error, CallCrashed) and isinstance(error, BrokenProcessPool)
    assert error.certificate is not None and error.certificate.pid
    assert works(executor)


@pytest.mark.parametrize(("call", "kind"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_a_failure_fails_its_own_future(
    executor: OrchestratorExecutor, call: tuple[Any, ...], kind: type[BaseException]
) -> None:
    assert type(executor.submit(*call).exception(DEADLINE)) is kind
    assert works(executor)


@pytest.mark.parametrize("call", [call for _, call in CRASHES], ids=[name for name, _ in CRASHES])
def test_a_crash_of_what_a_callback_submits_breaks_its_own_future(
    executor: OrchestratorExecutor, call: tuple[Any, ...]
) -> None:
    submitted: concurrent.futures.Future[Any] = concurrent.futures.Future()
    first = executor.submit(executing.add, 1)
    first.add_done_callback(lambda _: submitted.set_result(executor.submit(*call)))
    assert isinstance(submitted.result(DEADLINE).exception(DEADLINE), CallCrashed)
    assert works(executor)


def test_the_certificate_says_what_is_known(executor: OrchestratorExecutor) -> None:
    error = executor.submit(executing.kill_itself).exception(DEADLINE)
    assert isinstance(error, CallCrashed) and error.certificate is not None
    assert error.certificate.signal == "SIGKILL" and "kill_itself" in str(error) and "SIGKILL" in str(error)
    assert error.certificate.stderr == ("last words",)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is CallCrashed and copy.certificate == error.certificate


def test_what_a_function_that_prints_says_before_it_crashes_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with OrchestratorExecutor(1) as executor:
        for number in range(4):
            executor.submit(executing.say_and, number, "return").result(DEADLINE)
        assert isinstance(executor.submit(executing.say_and, 4, "die").exception(DEADLINE), CallCrashed)
    assert capsys.readouterr().out == "line 0\nline 1\nline 2\nline 3\nline 4\n"


def test_neighbours_do_not_notice(executor: OrchestratorExecutor, tmp_path: Path) -> None:
    held = executor.submit(executing.hold, str(tmp_path))
    crashed = executor.submit(executing.segfault)
    queued = [executor.submit(executing.add, number) for number in range(20)]
    assert isinstance(crashed.exception(DEADLINE), CallCrashed)
    assert [future.result(DEADLINE) for future in queued] == list(range(1, 21))
    (tmp_path / "go").touch()
    assert held.result(DEADLINE) == "running"


def learn_that_it_is_quick(executor: OrchestratorExecutor, folder: Path) -> None:
    for _ in range(20):
        assert executor.submit(executing.note_or, str(folder / "warm")).result(DEADLINE) == ""


def test_of_quick_calls_that_go_together_only_the_one_that_dies_breaks(
    executor: OrchestratorExecutor, tmp_path: Path
) -> None:
    learn_that_it_is_quick(executor, tmp_path)
    paths = [tmp_path / str(number) for number in range(300)]
    deadly = {10, 50, 51, 200}
    futures = [
        executor.submit(executing.note_or, str(path), "die" if number in deadly else "")
        for number, path in enumerate(paths)
    ]
    for number, future in enumerate(futures):
        assert isinstance(future.exception(DEADLINE), CallCrashed) == (number in deadly)
    assert [path.read_text("ascii") for number, path in enumerate(paths) if number not in deadly] == ["x"] * 296
    assert works(executor)


def test_quick_calls_do_not_wait_behind_one_that_turns_out_slow(executor: OrchestratorExecutor, tmp_path: Path) -> None:
    learn_that_it_is_quick(executor, tmp_path)
    paths = [tmp_path / str(number) for number in range(300)]
    held = [executor.submit(executing.note_or, str(tmp_path), "hold")]
    futures = [executor.submit(executing.note_or, str(path)) for path in paths]
    # It ends only when they have ended.
    assert [future.result(DEADLINE) for future in futures] == [""] * 300
    assert not held[0].done()
    (tmp_path / "go").touch()
    assert held[0].result(DEADLINE) == "hold"
    assert [path.read_text("ascii") for path in paths] == ["x"] * 300


@pytest.mark.parametrize(("kind", "error"), [("frozen", executing.Frozen), ("unprintable", CallUnreadable)])
def test_of_quick_calls_that_go_together_only_the_one_with_a_hostile_exception_fails(
    executor: OrchestratorExecutor, kind: str, error: type[BaseException]
) -> None:
    for _ in range(20):
        assert executor.submit(executing.maybe_raise).result(DEADLINE) == ""
    kinds = [kind if number % 40 == 10 else "" for number in range(200)]
    futures = [executor.submit(executing.maybe_raise, each) for each in kinds]
    for each, future in zip(kinds, futures, strict=True):
        found = future.exception(DEADLINE)
        assert (found is None) if not each else (type(found) is error and found.__cause__ is not None)
        assert kind != "unprintable" or not each or ("Unprintable" in str(found) and "pickled" in str(found))


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_calls_that_all_crash_crash_once_each_and_soon(count: int, tmp_path: Path) -> None:
    with OrchestratorExecutor(2) as executor:
        paths = [str(tmp_path / str(number)) for number in range(count)]
        futures = [executor.submit(executing.note_and_exit, path) for path in paths]
        for future in futures:
            assert isinstance(future.exception(DEADLINE), CallCrashed)
        assert works(executor)
    assert [Path(path).read_text("ascii") for path in paths] == ["x"] * count


def test_an_idle_child_that_is_killed_costs_nobody_a_call(executor: OrchestratorExecutor) -> None:
    pids = {executor.submit(executing.pid).result(DEADLINE) for _ in range(20)}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    # One may have been on its way to a child that was not known to be dead yet.
    outcomes = [executor.submit(executing.add, number) for number in range(20)]
    concurrent.futures.wait(outcomes, DEADLINE)
    assert sum(future.exception(0) is not None for future in outcomes) <= len(pids)
    assert works(executor)


def test_a_crash_among_the_chunks_of_a_map_costs_its_chunk(executor: OrchestratorExecutor) -> None:
    results = executor.map(executing.happen, ["os._exit"] * 4, chunksize=2)
    with pytest.raises(CallCrashed):
        next(results)
    assert list(executor.map(executing.add, range(10), chunksize=3)) == list(range(1, 11))


def test_a_crash_while_much_is_being_sent_blocks_nobody(executor: OrchestratorExecutor) -> None:
    data = b"x" * 5_000_000
    futures = [executor.submit(executing.size, data) for _ in range(3)]
    crashed = [executor.submit(executing.exit_at_once) for _ in range(2)]
    assert [future.result(DEADLINE) for future in futures] == [len(data)] * 3
    assert all(isinstance(future.exception(DEADLINE), CallCrashed) for future in crashed)


def test_an_initializer_that_kills_its_child_once_costs_no_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = tmp_path / "starts"
    with OrchestratorExecutor(1, initializer=executing.die_at_start, initargs=(str(starts), 1)) as executor:
        assert executor.submit(executing.add, 1).result(DEADLINE) == 2
    assert starts.read_text("ascii") == "xx"
    assert capsys.readouterr().out == "starting\n"


def test_an_initializer_that_kills_each_child_is_told_after_a_few(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    with OrchestratorExecutor(2, initializer=executing.die_at_start, initargs=(str(starts), 1000)) as executor:
        futures = [executor.submit(executing.add, number) for number in range(100)]
        errors = [future.exception(DEADLINE) for future in futures]
        assert all(isinstance(error, BrokenProcessPool) and not isinstance(error, CallCrashed) for error in errors)
        assert "no such device" in str(errors[0]) and "7" in str(errors[0])
        with pytest.raises(BrokenProcessPool):
            executor.submit(executing.add, 1).result(DEADLINE)
    assert 2 <= len(starts.read_text("ascii")) <= 12
