"""Ctrl-C in every wait of a sync caller: what it ends, what it leaves alone, and that nothing hangs after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chores
import doors
import pytest

import orchestrator
from orchestrator import BlockingSupervisor, callback

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to a thread")
LONG = 30
LIBRARY = os.path.dirname(orchestrator.__file__)


@pytest.fixture
def door() -> Iterator[doors.Door]:
    with doors.Door() as door:
        yield door


@pytest.fixture(params=["process", "inline"])
def supervisor(request: pytest.FixtureRequest) -> Iterator[BlockingSupervisor]:
    with BlockingSupervisor(workers=1, isolation=request.param, grace=0.3, queue_size=1) as supervisor:
        yield supervisor
    statistics = supervisor.statistics()
    assert statistics.submitted == sum(statistics.settled.values())


def _is_inside(ident: int) -> bool:
    """Return whether a thread is in the library, in something that waits."""
    frame: Any = sys._current_frames()[ident]
    waits = frame.f_code.co_name in ("wait", "call_many", "show") or {"acquire", "join"} & {*frame.f_code.co_names}
    while frame is not None:
        if os.path.dirname(frame.f_code.co_filename) == LIBRARY:
            return bool(waits)
        frame = frame.f_back
    return False


class interrupted:  # noqa: N801 - used like a function
    """Press Ctrl-C in the main thread when something has happened and that thread waits."""

    def __init__(self, happened: Callable[[], object], times: int = 1) -> None:
        self._thread = threading.Thread(target=self._press, args=(happened, times))
        self._over = False

    def _press(self, happened: Callable[[], object], times: int) -> None:
        happened()
        main = threading.main_thread().ident or 0
        for number in range(times):
            time.sleep(0.02 * number)  # for the one before to be acted on
            while not _is_inside(main):  # nothing tells when a thread begins to wait
                time.sleep(0.001)
                if self._over:
                    return
            signal.pthread_kill(main, signal.SIGINT)

    def __enter__(self) -> None:
        self._raises = pytest.raises(KeyboardInterrupt)
        self._raises.__enter__()
        self._thread.start()

    def __exit__(self, *error: object) -> bool:
        self._over = True
        self._thread.join(LONG)
        return bool(self._raises.__exit__(*error))


def test_during_run_it_cancels_the_job(supervisor: BlockingSupervisor, door: doors.Door) -> None:
    with interrupted(door.wait):
        supervisor.run(doors.stand_and_report, door.port)
    # It is over by the time the caller hears of it.
    statistics = supervisor.statistics()
    assert (statistics.running, statistics.settled) == (0, {"cancelled": 1})
    assert supervisor.run(chores.same, 1) == 1


def test_during_a_callback_it_cancels_the_job(supervisor: BlockingSupervisor) -> None:
    called = threading.Event()
    calls: list[int] = []

    def show(number: int) -> None:
        calls.append(number)
        called.set()
        threading.Event().wait(LONG)

    with interrupted(called.wait):
        supervisor.run(doors.call_many, callback(show), 1_000_000)
    assert supervisor.statistics().settled == {"cancelled": 1}
    assert calls == [0]


@pytest.mark.parametrize("wait", ["result", "outcome", "events"])
def test_during_a_wait_for_a_handle_it_leaves_the_job_alone(
    supervisor: BlockingSupervisor, door: doors.Door, wait: str
) -> None:
    handle = supervisor.submit(doors.stand, door.port, "done")
    with interrupted(door.wait):
        if wait == "events":
            list(handle.events())
        else:
            getattr(handle, wait)()
    assert handle.state == "running"
    door.open()
    assert handle.result(LONG) == "done"


def test_during_a_map_it_cancels_what_is_left(supervisor: BlockingSupervisor, door: doors.Door) -> None:
    outcomes = supervisor.map(doors.stand_and_report, [door.port] * 5)
    with interrupted(door.wait):
        next(outcomes)
    assert list(outcomes) == []
    outcomes.close()
    statistics = supervisor.statistics()
    assert (statistics.queued, statistics.running) == (0, 0)
    assert set(statistics.settled) == {"cancelled"}


def test_during_a_stream_it_may_be_read_on(supervisor: BlockingSupervisor, door: doors.Door) -> None:
    with supervisor.stream(doors.yield_after_door, door.port) as items:
        assert next(items) == "first"
        with interrupted(door.wait):
            next(items)
        door.open()
        assert next(items) == "second"
        with pytest.raises(StopIteration):
            next(items)


def test_during_submit_to_a_full_queue(supervisor: BlockingSupervisor, door: doors.Door) -> None:
    running = supervisor.submit(doors.stand, door.port, "done")
    door.wait()
    waiting = supervisor.submit(chores.same, 1)
    for ask in (supervisor.submit, supervisor.run):
        with interrupted(lambda: None):
            ask(chores.same, 2)
    door.open()
    assert (running.result(LONG), waiting.result(LONG)) == ("done", 1)
    assert supervisor.run(chores.same, 3) == 3
    assert supervisor.statistics().submitted == 3


@pytest.mark.parametrize("end", ["close", "drain", "with"])
def test_while_jobs_are_waited_for(door: doors.Door, end: str) -> None:
    supervisor = BlockingSupervisor(workers=1, grace=0.3).open()
    handle = supervisor.submit(doors.stand_and_report, door.port)
    with interrupted(door.wait):
        if end == "with":
            with _closing(supervisor):
                pass
        else:
            getattr(supervisor, end)()
    if end == "drain":
        assert handle.state == "running"
        handle.cancel()
        supervisor.close()
    assert handle.outcome().status == "cancelled"
    assert supervisor.statistics().state == "closed"


class _closing:  # noqa: N801 - used like a function
    """The end of a `with` statement around a supervisor that is open already."""

    def __init__(self, supervisor: BlockingSupervisor) -> None:
        self._supervisor = supervisor

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self._supervisor.__exit__(*error)


def test_again_and_again_while_it_closes(door: doors.Door) -> None:
    supervisor = BlockingSupervisor(workers=1, grace=1).open()
    handle = supervisor.submit(doors.stand_deaf, door.port)
    # The first ends the wait for jobs, the second the wait for their cancels; the third ends another such wait.
    with interrupted(door.wait, times=2):
        supervisor.close()
    assert supervisor.statistics().state == "draining"
    with interrupted(lambda: None):
        supervisor.close()
    supervisor.close()
    assert handle.outcome().status == "cancelled"
    assert supervisor.statistics().state == "closed"


FUZZ = """
    import os, random, signal, sys, threading, time
    import chores, doors
    from orchestrator import BlockingSupervisor, callback

    rounds, isolation, seed = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    chance = random.Random(seed)
    go, went = threading.Semaphore(0), threading.Semaphore(0)

    def press():
        while True:
            go.acquire()
            if over:
                return
            time.sleep(chance.random() ** 2 * 0.01)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            went.release()

    def use(supervisor, number):
        match number % 6:
            case 0:
                supervisor.run(chores.same, number)
            case 1:
                supervisor.run(doors.call_many, callback(seen.append), 30)
            case 2:
                with supervisor.map(chores.same, range(30)) as outcomes:
                    list(outcomes)
            case 3:
                with supervisor.stream(chores.count_to, 30) as items:
                    list(items)
            case 4:
                list(supervisor.submit(chores.count_to, 30).events())
            case 5:
                with BlockingSupervisor(workers=1, isolation=isolation, grace=0.3, name="inner") as inner:
                    inner.run(chores.same, number)

    over = False
    seen = []
    interrupts = 0
    presser = threading.Thread(target=press)
    presser.start()
    supervisor = BlockingSupervisor(workers=2, isolation=isolation, grace=0.3, queue_size=4).open()
    for number in range(rounds):
        pressed = False
        try:
            go.release()
            pressed = True
            for again in range(100):
                use(supervisor, number)
            went.acquire()
        except KeyboardInterrupt:
            interrupts += 1
            while not went.acquire(timeout=10):
                raise SystemExit("pressed without a trace")
        supervisor.run(chores.same, number)
    over = True
    go.release()
    presser.join()
    supervisor.drain()
    statistics = supervisor.statistics()
    assert statistics.submitted == sum(statistics.settled.values()), statistics
    supervisor.close()
    # An inner one whose closing was interrupted too is closed when the program ends.
    print("interrupts", interrupts)
"""


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_at_random_moments(isolation: str, tmp_path: Path) -> None:
    script = tmp_path / "fuzz.py"
    script.write_text(textwrap.dedent(FUZZ))
    targets = str(Path(doors.__file__).parent)
    ran = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(script), "60", isolation, str(time.time_ns())],
        env={**os.environ, "PYTHONPATH": targets},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert int(ran.stdout.split("interrupts")[1]) > 30
    assert "Traceback" not in ran.stderr, ran.stderr
