"""Programs that end, or fork, with an open supervisor: the interpreter exits in time, quietly, and leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import doors
import pytest

# Grace, two seconds and the stop ladder; a busy machine gets some more.
IN_TIME = 20

HEAD = """
    import os, sys, threading, time
    import chores, doors, gates, hosting
    from orchestrator import BlockingSupervisor, Job, Supervisor, callback
    from orchestrator.exceptions import WrongContext

    isolation = sys.argv[1]

    def mine(number):
        return [number, os.getpid(), __name__]

    def opened(**options):
        return BlockingSupervisor(workers=1, isolation=isolation, grace=0.2, **options).open()
"""


def play(folder: Path, body: str, isolation: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a program and return how it ended; it must end in time."""
    script = folder / "program.py"
    script.write_text(
        textwrap.dedent(HEAD) + 'if __name__ == "__main__":\n' + textwrap.indent(textwrap.dedent(body), "    ")
    )
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, *flags, str(script), isolation],
        env={**os.environ, "PYTHONPATH": str(Path(doors.__file__).parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert time.monotonic() - began < IN_TIME
    return ran


QUIET = {
    "idle": """
        supervisor = opened()
        print(supervisor.run(chores.same, 1))
    """,
    "never-used": """
        supervisor = opened()
        print(1)
    """,
    "dropped": """
        opened().run(chores.same, 1)
        print(1)
    """,
    "running-sync-job": """
        supervisor = opened()
        with doors.Door() as door:
            handle = supervisor.submit(doors.stand_and_report, door.port)
            door.wait()
        print(1)
    """,
    "running-async-job": """
        supervisor = opened()
        handle = supervisor.submit(hosting.hold_async)
        next(event for event in handle.events() if event.kind == "progress")
        print(1)
    """,
    "queued-jobs": """
        supervisor = opened()
        handles = [supervisor.submit(hosting.hold_async) for _ in range(50)]
        print(1)
    """,
    "deaf-sync-job": """
        supervisor = opened()
        door = doors.Door().__enter__()
        handle = supervisor.submit(doors.stand_deaf, door.port)
        door.wait()
        print(1)
    """,
    "deaf-async-job": """
        supervisor = opened()
        door = doors.Door().__enter__()
        handle = supervisor.submit(doors.stand_deaf_async, door.port)
        door.wait()
        print(1)
    """,
    "closed-with-deaf-job": """
        door = doors.Door().__enter__()
        with BlockingSupervisor(
            workers=1, isolation=isolation, grace=0.2, on_exit="cancel"
        ) as supervisor:
            supervisor.submit(doors.stand_deaf, door.port)
            door.wait()
        print(1)
    """,
    "daemon-thread-that-waits": """
        supervisor = opened()
        door = doors.Door().__enter__()
        threading.Thread(target=supervisor.run, args=(hosting.hold_async,), daemon=True).start()
        while not supervisor.statistics().running:
            time.sleep(0.005)
        threading.excepthook = lambda _: None  # it hears of the cancel, or is gone by then
        print(1)
    """,
    "map-and-stream-half-read": """
        supervisor = opened()
        supervisor.scale(2)
        outcomes, items = supervisor.map(chores.same, range(10**9)), supervisor.stream(chores.count_to, 10**9)
        print(next(outcomes).value + 1 + next(items))
    """,
    "unmade-calls": """
        supervisor = opened()
        handle = supervisor.submit(doors.call_many, callback(print), 3000)
        while not supervisor.statistics().running:
            time.sleep(0.005)
        print(1)
    """,
    "exit-in-the-body": """
        with BlockingSupervisor(workers=1, isolation=isolation, grace=0.2) as supervisor:
            handle = supervisor.submit(hosting.hold_async)
            print(1)
            sys.exit(0)
    """,
    "function-of-the-main-script": """
        with BlockingSupervisor(workers=1, isolation=isolation) as supervisor:
            number, pid, name = supervisor.run(mine, 1)
        assert (pid == os.getpid()) == (isolation == "inline")
        assert name == ("__main__" if isolation == "inline" else "__mp_main__")
        print(number)
    """,
}


@pytest.mark.parametrize("isolation", ["process", "inline"])
@pytest.mark.parametrize("body", QUIET.values(), ids=QUIET)
def test_program_ends(tmp_path: Path, body: str, isolation: str) -> None:
    ran = play(tmp_path, body, isolation)
    lines = [line for line in ran.stderr.splitlines() if not line.startswith("worker.child_died ")]
    # A cancel that needed a kill is logged, and a task that heeds nothing is told of by asyncio; nothing else is said.
    allowed = ("Task was destroyed but it is pending!", "task: <Task ")
    assert [line for line in lines if not line.startswith(allowed)] == []
    assert (ran.returncode, ran.stdout) == (0, "1\n")


def test_program_that_fails_tells_only_that(tmp_path: Path) -> None:
    ran = play(
        tmp_path, 'supervisor = opened()\nsupervisor.submit(hosting.hold_async)\nraise LookupError("mine")', "process"
    )
    assert ran.returncode == 1
    assert ran.stderr.count("Traceback") == 1
    assert ran.stderr.rstrip().endswith("LookupError: mine")


FORK = """
    supervisor = opened()
    handle = supervisor.submit(hosting.hold_async)
    done = supervisor.submit(chores.same_async, 1)
    asked = [
        supervisor.statistics, supervisor.drain, supervisor.close, handle.result, handle.outcome, handle.cancel,
        lambda: next(handle.events()), lambda: supervisor.scale(2), lambda: supervisor.run(chores.same, 1),
        lambda: supervisor.submit(chores.same, 1), lambda: supervisor.map(chores.same, [1]),
        lambda: supervisor.stream(chores.count_to, 1),
    ]
    pid = os.fork()
    if not pid:
        wrong = []
        for number, ask in enumerate(asked):
            try:
                ask()
                wrong.append(number)
            except WrongContext as error:
                if "forked copy" not in str(error):
                    wrong.append(error)
        print(wrong, flush=True)
        sys.exit(3)  # with everything that an exit runs
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    # The parent's goes on.
    handle.cancel()
    assert handle.outcome().status == "cancelled"
    assert supervisor.run(chores.same, 2) == 2
    supervisor.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_forked_copy_refuses_everything(tmp_path: Path, isolation: str) -> None:
    # Python 3.12 and later warn of any fork with threads.
    ran = play(tmp_path, FORK, isolation, "-W", "ignore::DeprecationWarning")
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr
    assert "Traceback" not in ran.stderr, ran.stderr
