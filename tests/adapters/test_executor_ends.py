"""How executors end: shut down, cancelled, killed, dropped, forked, at the end of the program. Nothing is ever left."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import executing
import psutil
import pytest
from orchestrator_adapters.executor import OrchestratorExecutor

from orchestrator.testing import nothing_left

DEADLINE = 60


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with nothing_left():
        yield


def until_written(path: Path) -> str:
    """Wait for a file that a process writes: nobody could tell of it."""
    end = time.monotonic() + DEADLINE
    while not (path.exists() and path.read_text("ascii")):
        assert time.monotonic() < end, f"{path} was never written"
        time.sleep(0.01)
    return path.read_text("ascii")


# shutdown


def test_shutdown_waits_for_what_was_submitted() -> None:
    executor = OrchestratorExecutor(2)
    futures = [executor.submit(executing.add, number) for number in range(50)]
    executor.shutdown()
    assert [future.result(0) for future in futures] == list(range(1, 51))
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(executing.add, 1)
    executor.shutdown()


def test_shutdown_without_waiting_ends_when_all_is_done(tmp_path: Path) -> None:
    executor = OrchestratorExecutor(1)
    held = executor.submit(executing.hold, str(tmp_path))
    queued = [executor.submit(executing.add, number) for number in range(5)]
    executor.shutdown(wait=False)
    assert not held.done()
    (tmp_path / "go").touch()
    assert held.result(DEADLINE) == "running"
    assert [future.result(DEADLINE) for future in queued] == [1, 2, 3, 4, 5]


def test_shutdown_may_cancel_what_no_child_has(tmp_path: Path) -> None:
    executor = OrchestratorExecutor(2)
    held = executor.submit(executing.hold, str(tmp_path))
    until_written(tmp_path / "running")
    queued = [executor.submit(executing.hold, str(tmp_path), f"{number}") for number in range(50)]
    executor.shutdown(wait=False, cancel_futures=True)
    (tmp_path / "go").touch()
    _, not_done = concurrent.futures.wait([held, *queued], DEADLINE)
    assert not not_done
    assert held.result(0) == "running"
    ran = [future for future in queued if not future.cancelled()]
    assert len(ran) <= 2  # one for the other child, one to be at hand
    assert all(future.exception(0) is None for future in ran)


def test_an_executor_that_never_ran_anything_ends_at_once() -> None:
    threads = threading.active_count()
    with OrchestratorExecutor(3):
        assert threading.active_count() == threads
    assert list(OrchestratorExecutor(3).map(executing.add, [])) == []


def test_a_call_that_fails_to_pickle_after_shutdown_was_asked_for_ends_too() -> None:
    with OrchestratorExecutor(2) as executor:
        assert executor.submit(executing.add, 1).result(DEADLINE) == 2
        future = executor.submit(executing.size, executing.AtPickle("error"))  # type: ignore[arg-type]
        executor.shutdown(wait=False)
        assert isinstance(future.exception(DEADLINE), ValueError)


def test_a_crash_after_shutdown_was_asked_for_is_told(tmp_path: Path) -> None:
    executor = OrchestratorExecutor(1)
    held = executor.submit(executing.hold, str(tmp_path))
    crashed = executor.submit(executing.exit_at_once)
    executor.shutdown(wait=False)
    (tmp_path / "go").touch()
    assert isinstance(crashed.exception(DEADLINE), BrokenProcessPool) and held.result(DEADLINE)


def test_a_dropped_executor_has_its_calls_done() -> None:
    executor = OrchestratorExecutor(2)
    results = executor.map(executing.add, range(20))
    del executor
    gc.collect()
    assert list(results) == list(range(1, 21))


# cancel


def test_a_call_that_waits_can_be_cancelled_and_one_that_runs_cannot(tmp_path: Path) -> None:
    with OrchestratorExecutor(1) as executor:
        held = executor.submit(executing.hold, str(tmp_path))
        until_written(tmp_path / "running")
        waiting = [executor.submit(executing.add, number) for number in range(5)]
        assert waiting[-1].cancel() and waiting[-1].cancelled()
        assert concurrent.futures.wait(waiting[-1:], DEADLINE).done == {waiting[-1]}
        assert not held.cancel() and held.running()
        (tmp_path / "go").touch()
        assert held.result(DEADLINE) == "running"
        assert [future.result(DEADLINE) for future in waiting[:-1]] == [1, 2, 3, 4]


def test_with_kill_running_a_call_that_runs_is_killed(tmp_path: Path) -> None:
    with OrchestratorExecutor(1, kill_running=True, grace=0) as executor:
        held = executor.submit(executing.hold, str(tmp_path))
        child = psutil.Process(int(until_written(tmp_path / "running")))
        told = threading.Event()
        held.add_done_callback(lambda _: told.set())
        assert held.cancel() and held.cancelled() and told.wait(DEADLINE)
        assert concurrent.futures.wait([held], DEADLINE).done == {held}
        assert held.cancel()
        child.wait(DEADLINE)
        assert executor.submit(executing.add, 1).result(DEADLINE) == 2
        with pytest.raises(concurrent.futures.CancelledError):
            held.result(DEADLINE)


def test_kill_workers_breaks_what_is_there(tmp_path: Path) -> None:
    executor = OrchestratorExecutor(1, grace=0)
    held = executor.submit(executing.hold, str(tmp_path))
    waiting = [executor.submit(executing.add, number) for number in range(5)]
    until_written(tmp_path / "running")
    executor.kill_workers()
    for future in (held, *waiting):
        assert isinstance(future.exception(DEADLINE), BrokenProcessPool)
    with pytest.raises(RuntimeError):
        executor.submit(executing.add, 1)


def test_kill_workers_right_after_the_first_call_waits_for_nobody(tmp_path: Path) -> None:
    executor = OrchestratorExecutor(1, grace=0)
    futures = [executor.submit(executing.hold, str(tmp_path)) for _ in range(5)]
    executor.kill_workers()
    assert all(isinstance(future.exception(DEADLINE), BrokenProcessPool) for future in futures)


# The end of the program


def run(script: str, folder: Path, *, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, in a process of its own; whatever it leaves behind, `nothing_left` finds."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(script), "utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(path)], env=environment, cwd=folder, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == code, done.stderr
    return done


def test_the_program_ends_when_running_and_queued_calls_are_done(tmp_path: Path) -> None:
    done = run(
        """
        import time
        from orchestrator_adapters.executor import OrchestratorExecutor

        def tell(number):
            time.sleep(0.1)
            print("call", number)

        if __name__ == "__main__":
            executor = OrchestratorExecutor(2)
            for number in range(10):
                executor.submit(tell, number)
        """,
        tmp_path,
    )
    assert sorted(done.stdout.splitlines()) == [f"call {number}" for number in range(10)]
    assert done.stderr == ""


def test_with_kill_running_the_end_of_the_program_waits_for_nobody(tmp_path: Path) -> None:
    run(
        """
        import sys
        from pathlib import Path
        import executing
        from orchestrator_adapters.executor import OrchestratorExecutor

        if __name__ == "__main__":
            executor = OrchestratorExecutor(1, kill_running=True, grace=0)
            futures = [executor.submit(executing.hold, ".", str(number)) for number in range(20)]
            while not Path("0").exists():
                pass
        """,
        tmp_path,
    )
    assert not (tmp_path / "5").exists()


def test_with_kill_running_the_program_may_end_before_anything_began(tmp_path: Path) -> None:
    run(
        """
        import executing
        from orchestrator_adapters.executor import OrchestratorExecutor

        if __name__ == "__main__":
            executor = OrchestratorExecutor(2, kill_running=True, grace=0)
            for number in range(20):
                executor.submit(executing.hold, ".", str(number))
        """,
        tmp_path,
    )


def test_an_executor_of_which_no_future_is_left_holds_no_program_up(tmp_path: Path) -> None:
    done = run(
        """
        import atexit
        from orchestrator_adapters.executor import OrchestratorExecutor

        @atexit.register
        def too_late():
            try:
                executor.submit(id, None)
            except RuntimeError as error:
                print(error)

        if __name__ == "__main__":
            executor = OrchestratorExecutor(2)
            print(executor.submit(abs, -1).result())
        """,
        tmp_path,
    )
    assert done.stdout.splitlines() == ["1", "cannot schedule new futures after interpreter shutdown"]


def test_an_initializer_may_be_in_the_main_script(tmp_path: Path) -> None:
    done = run(
        """
        from orchestrator_adapters.executor import OrchestratorExecutor

        KEPT = []

        class Thing:
            name = "a thing"

        def keep(thing):
            KEPT.append(thing.name)

        def kept():
            return KEPT

        if __name__ == "__main__":
            with OrchestratorExecutor(1, initializer=keep, initargs=(Thing(),)) as executor:
                print(executor.submit(kept).result(), KEPT)
        """,
        tmp_path,
    )
    assert done.stdout == "['a thing'] []\n"


def test_a_script_without_a_guard_starts_itself_once_and_says_why(tmp_path: Path) -> None:
    done = run(
        """
        from orchestrator_adapters.executor import OrchestratorExecutor

        print("once more")

        def call():
            return 1

        with OrchestratorExecutor(1) as executor:
            print(executor.submit(call).result())
        """,
        tmp_path,
        code=1,
    )
    assert done.stdout.count("once more") <= 2
    assert '__name__ == "__main__"' in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_copy_refuses_and_ends(tmp_path: Path) -> None:
    done = run(
        """
        import os, sys
        from orchestrator_adapters.executor import OrchestratorExecutor

        if __name__ == "__main__":
            with OrchestratorExecutor(1) as executor:
                assert executor.submit(abs, -1).result() == 1
                pid = os.fork()
                if not pid:
                    try:
                        executor.submit(abs, -1)
                    except RuntimeError as error:
                        print(error, flush=True)
                    sys.exit()
                os.waitpid(pid, 0)
                print(executor.submit(abs, -2).result())
        """,
        tmp_path,
    )
    assert "forked copy" in done.stdout and done.stdout.endswith("2\n")


# Many


def open_and_close(count: int) -> None:
    for number in range(count):
        with OrchestratorExecutor(1) as executor:
            if number % 4 != 3:  # one that was never used
                assert executor.submit(executing.add, number).result(DEADLINE) == number + 1


def test_executors_opened_and_closed_leave_nothing() -> None:
    open_and_close(8)


@pytest.mark.soak
def test_a_thousand_executors_opened_and_closed_leave_nothing() -> None:
    open_and_close(1_000)
