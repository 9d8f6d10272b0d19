"""What other pools of processes were deadlocked or broken by: deaths, large data, threads and ends, all at once."""

from __future__ import annotations

import concurrent.futures
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import executing
import misbehaving
import pytest
from misbehaving import DEADLINE, until_gone, until_written
from orchestrator_adapters.executor import CallCrashed, OrchestratorExecutor

from orchestrator import RestartPolicy
from orchestrator.testing import nothing_left

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the ways to die are those of POSIX systems")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with nothing_left():
        yield


def works(executor: OrchestratorExecutor) -> bool:
    return list(executor.map(executing.add, range(4), timeout=DEADLINE)) == [1, 2, 3, 4]


def in_threads(*what: Callable[[], object]) -> None:
    """Run all at the same time, and wait for their ends."""
    with concurrent.futures.ThreadPoolExecutor(len(what)) as threads:
        for done in [threads.submit(each) for each in what]:
            done.result(DEADLINE)


# Deaths while other things go on


def die_among_others(count: int, threads: int) -> None:
    with OrchestratorExecutor(1) as executor:

        def submit(thread: int) -> None:
            target: Any = executing.exit_at_once if thread % 2 else partial(executing.add, thread)
            for future in [executor.submit(target) for _ in range(count)]:
                error = future.exception(DEADLINE)
                assert isinstance(error, CallCrashed) if thread % 2 else future.result() == thread + 1

        in_threads(*(partial(submit, thread) for thread in range(threads)))
        assert works(executor)


def test_calls_go_on_while_each_child_dies_of_its_call() -> None:
    die_among_others(4, 4)


@pytest.mark.soak
def test_calls_go_on_while_hundreds_of_children_die_of_theirs() -> None:
    die_among_others(25, 8)


def die_at_random(count: int, seed: int) -> None:
    dice = random.Random(seed)
    size = 5_000_000
    with OrchestratorExecutor(2) as executor:
        futures = [executor.submit(misbehaving.give_and_die, size, dice.uniform(0, 0.1)) for _ in range(count)]
        for future in futures:
            error = future.exception(DEADLINE)
            assert isinstance(error, CallCrashed) if error else future.result() == b"x" * size
        # The two children may still have such a thread, and those that come after them have none.
        errors = [executor.submit(misbehaving.nap, 1, 0.05).exception(DEADLINE) for _ in range(5)]
        assert [type(error) for error in errors if error] in ([], [CallCrashed], [CallCrashed] * 2)


def test_a_child_may_die_while_a_large_result_is_on_its_way() -> None:
    die_at_random(6, 1)


@pytest.mark.soak
def test_hundreds_of_children_that_die_while_large_results_are_on_their_way() -> None:
    for seed in range(5):
        die_at_random(40, seed)


@pytest.mark.parametrize("count", [2, 13])
def test_children_that_die_in_the_same_moment_cost_a_call_each(count: int, tmp_path: Path) -> None:
    with OrchestratorExecutor(count) as executor:
        futures = [executor.submit(misbehaving.die_meanwhile, str(tmp_path / "pids")) for _ in range(count)]
        queued = [executor.submit(executing.add, number) for number in range(10)]
        pids = until_written(tmp_path / "pids", count)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        errors = [future.exception(DEADLINE) for future in futures]
        assert {error.certificate.pid for error in errors if isinstance(error, CallCrashed)} == set(pids)  # type: ignore[union-attr]
        assert [future.result(DEADLINE) for future in queued] == list(range(1, 11))


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV"])
def test_who_kills_a_child_from_outside_is_told(name: str, tmp_path: Path) -> None:
    with OrchestratorExecutor(1) as executor:
        future = executor.submit(misbehaving.die_meanwhile, str(tmp_path / "pid"))
        queued = executor.submit(executing.add, 1)
        [pid] = until_written(tmp_path / "pid")
        os.kill(pid, getattr(signal, name))
        error = future.exception(DEADLINE)
        assert isinstance(error, CallCrashed) and error.certificate is not None
        assert (error.certificate.signal, error.certificate.pid) == (name, pid) and name in str(error)
        assert queued.result(DEADLINE) == 2


def test_a_child_that_was_stopped_and_then_killed_is_replaced() -> None:
    with OrchestratorExecutor(1) as executor:
        for _ in range(2):
            pid = executor.submit(executing.pid).result(DEADLINE)
            os.kill(pid, signal.SIGSTOP)
            future = executor.submit(executing.pid)
            os.kill(pid, signal.SIGKILL)
            error = future.exception(DEADLINE)
            assert isinstance(error, CallCrashed) if error else future.result() != pid
        assert works(executor)


def test_the_exit_code_of_a_child_is_in_the_text_of_the_error() -> None:
    with OrchestratorExecutor(1) as executor:
        for code in (3, 255):
            error = executor.submit(misbehaving.exit_with, code).exception(DEADLINE)
            assert isinstance(error, CallCrashed) and error.certificate is not None
            assert error.certificate.exit_code == code and f"code {code}" in str(error)


# Children that are replaced after some calls


def have_one_call_each(count: int) -> None:
    with OrchestratorExecutor(2, max_tasks_per_child=1) as executor:
        pids = [future.result(DEADLINE) for future in [executor.submit(executing.pid) for _ in range(count)]]
    assert len(pids) == count
    assert all(one != next_one for one, next_one in zip(pids, pids[2:], strict=False))
    assert len(set(pids)) == count


def test_children_of_one_call_never_hang() -> None:
    have_one_call_each(12)


@pytest.mark.soak
def test_hundreds_of_children_of_one_call_never_hang() -> None:
    have_one_call_each(200)


def test_shutdown_waits_for_calls_that_wait_for_the_next_child() -> None:
    executor = OrchestratorExecutor(2, max_tasks_per_child=2)
    futures = [executor.submit(executing.add, number) for number in range(10)]
    executor.shutdown(wait=True)
    assert [future.result(0) for future in futures] == list(range(1, 11))


def test_calls_that_wait_when_a_child_dies_of_its_last_call_are_not_stranded(tmp_path: Path) -> None:
    with OrchestratorExecutor(1, max_tasks_per_child=2) as executor:
        first = executor.submit(executing.hold, str(tmp_path))
        last = executor.submit(executing.exit_at_once)
        queued = [executor.submit(executing.add, number) for number in range(5)]
        (tmp_path / "go").touch()
        assert first.result(DEADLINE) == "running"
        assert isinstance(last.exception(DEADLINE), CallCrashed)
        assert [future.result(DEADLINE) for future in queued] == list(range(1, 6))


# Initializers


def test_an_initializer_that_hangs_breaks_the_executor(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    with OrchestratorExecutor(
        1,
        initializer=misbehaving.hang_at_start,
        initargs=(str(starts),),
        start_timeout=1,
        restart=RestartPolicy(backoff=0.1, max_restarts=1),
    ) as executor:
        futures = [executor.submit(executing.add, number) for number in range(3)]
        assert all(isinstance(future.exception(DEADLINE), BrokenProcessPool) for future in futures)
        # On a machine that is too busy, none comes as far as to its initializer.
        until_gone([int(line) for line in starts.read_text("ascii").split()] if starts.exists() else [])


def test_what_waits_for_an_initializer_can_be_ended(tmp_path: Path) -> None:
    for kill in (True, False):
        path = tmp_path / str(kill)
        executor = OrchestratorExecutor(
            1, initializer=misbehaving.hang_at_start, initargs=(str(path),), grace=0, kill_running=True
        )
        future = executor.submit(executing.add, 1)
        pids = until_written(path)
        if kill:
            executor.kill_workers()
            assert isinstance(future.exception(DEADLINE), BrokenProcessPool)
        else:
            assert future.cancel()
            executor.shutdown()
        until_gone(pids)


def test_an_initializer_may_print_and_start_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    helpers = tmp_path / "helpers"
    with OrchestratorExecutor(
        1, initializer=misbehaving.start_a_helper, initargs=(str(helpers),), max_tasks_per_child=2
    ) as executor:
        children = [executor.submit(executing.pid).result(DEADLINE) for _ in range(3)]
        assert [children.count(pid) for pid in dict.fromkeys(children)] == [2, 1]
        started = until_written(helpers, 2)
        until_gone(started[:1])  # it has gone with its child
    assert capsys.readouterr().out == "starting a helper\n" * 2


def test_each_executor_has_the_environment_it_was_given() -> None:
    with OrchestratorExecutor(1, env={"LANE": "left"}) as left, OrchestratorExecutor(1, env={"LANE": "right"}) as right:
        found = [executor.submit(os.getenv, "LANE").result(DEADLINE) for executor in (left, right, left)]
    assert found == ["left", "right", "left"] and "LANE" not in os.environ


# Many threads, and ends


def hammer(threads: int, rounds: int) -> None:
    with OrchestratorExecutor(2, kill_running=True, grace=0.05) as executor:

        def use(seed: int) -> None:
            dice = random.Random(seed)
            for number in range(rounds):
                futures = [executor.submit(misbehaving.nap, number, dice.choice((0, 0.002))) for _ in range(3)]
                dice.choice(futures).cancel()
                for future in futures:
                    try:
                        assert future.result(DEADLINE) == number
                    except concurrent.futures.CancelledError:
                        assert future.cancelled()
                assert sum(future.cancelled() for future in futures) <= 1

        in_threads(*(partial(use, seed) for seed in range(threads)))
        assert works(executor)


def test_many_threads_submit_cancel_and_wait() -> None:
    hammer(8, 15)


@pytest.mark.soak
def test_many_threads_submit_cancel_and_wait_for_long() -> None:
    hammer(8, 500)


def submit_a_mixture(executor: OrchestratorExecutor, folder: Path) -> list[concurrent.futures.Future[Any]]:
    """Return futures of calls that run, crash, wait, were cancelled, and, with `kill_running`, were ended."""
    ended = executor.submit(misbehaving.hold, str(folder), "ended")
    running = executor.submit(misbehaving.hold, str(folder), "running")
    until_written(folder / "ended.pid")
    until_written(folder / "running.pid")
    ended.cancel()
    crashing = [executor.submit(executing.exit_at_once) for _ in range(3)]
    queued = [executor.submit(executing.add, number) for number in range(5)]
    cancelled = executor.submit(executing.add, 1)
    cancelled.cancel()
    return [ended, running, *crashing, *queued, cancelled]


@pytest.mark.parametrize(("threads", "kill_running"), [(1, False), (2, True)])
def test_shutdown_from_other_threads_ends_a_mixture(threads: int, kill_running: bool, tmp_path: Path) -> None:
    executor = OrchestratorExecutor(2, kill_running=kill_running, grace=0)
    futures = submit_a_mixture(executor, tmp_path)
    in_threads(*[executor.shutdown] * threads, (tmp_path / "go").touch)
    assert [future.done() for future in futures] == [True] * len(futures)
    ended, running, *rest = futures
    assert ended.cancelled() == kill_running and running.result() == "running"
    assert [type(future.exception()) for future in rest[:3]] == [CallCrashed] * 3
    assert [future.result() for future in rest[3:8]] == [1, 2, 3, 4, 5]
    assert rest[8].cancelled() or rest[8].result() == 2


@pytest.mark.parametrize("kill_running", [False, True])
def test_a_program_may_end_with_a_mixture(kill_running: bool, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            from pathlib import Path
            import executing
            import misbehaving
            from orchestrator_adapters.executor import OrchestratorExecutor

            if __name__ == "__main__":
                here = Path.cwd()
                executor = OrchestratorExecutor(2, kill_running={kill_running}, grace=0)
                ended, running = [executor.submit(misbehaving.hold, str(here), name) for name in ("ended", "running")]
                for name in ("ended", "running"):
                    misbehaving.until_written(here / (name + ".pid"))
                ended.cancel()
                futures = [executor.submit(executing.exit_at_once) for _ in range(3)]
                futures += [executor.submit(executing.note, str(here / "noted")) for _ in range(20)]
                futures[-1].cancel()
                executor.shutdown(wait=False)
                if not {kill_running}:
                    (here / "go").touch()
            """
        ),
        "utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    if not kill_running:
        assert (tmp_path / "noted").read_text("ascii") == "x" * 19
