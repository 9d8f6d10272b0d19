"""Calls of all kinds with cancels at random moments, held against a model of what is to become of each."""

from __future__ import annotations

import concurrent.futures
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import misbehaving
import pytest
from misbehaving import DEADLINE
from orchestrator_adapters.executor import CallCrashed, OrchestratorExecutor

from orchestrator.testing import nothing_left

KINDS = {"value": 40, "raise": 10, "print": 15, "large": 5, "nap": 15, "swallow": 2, "crash": 4}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with nothing_left():
        yield


class Plan:
    """One thread's calls, and what is seen of them.

    Args:
        executor: Where they run.
        folder: Each call that begins adds a byte to a file of its own.
        first: The number of the first call.
    """

    def __init__(self, executor: OrchestratorExecutor, folder: Path, first: int, *, may_end: bool) -> None:
        self._executor = executor
        self._folder = folder
        self._first = first
        self._may_end = may_end
        self._dice = random.Random(first)
        self._told: Counter[int] = Counter()
        self._kinds: dict[int, str] = {}
        self._futures: dict[int, concurrent.futures.Future[object]] = {}
        self._cancelled: set[int] = set()

    def run(self, count: int) -> None:
        for number in range(self._first, self._first + count):
            [kind] = self._dice.choices(list(KINDS), list(KINDS.values()))
            self._kinds[number] = kind
            path = str(self._folder / str(number))
            future = self._futures[number] = self._executor.submit(misbehaving.do, kind, number, path)
            future.add_done_callback(lambda _, number=number: self._told.update([number]))  # type: ignore[misc]
            act = self._dice.random()
            some = self._dice.choice(list(self._futures))
            if act < 0.1:
                self._cancel(some)
            elif act < 0.15:
                self._cancel(number)
            elif act < 0.2:
                concurrent.futures.wait([self._futures[some]], DEADLINE)
        assert concurrent.futures.wait(self._futures.values(), DEADLINE).not_done == set()

    def _cancel(self, number: int) -> None:
        future = self._futures[number]
        was_done = future.done() and not future.cancelled()
        if future.cancel():
            assert not was_done
            self._cancelled.add(number)

    def check(self, printed: Counter[str]) -> None:
        """Hold what is seen against what was to be; when the executor is closed, so that all has been told."""
        assert self._told == Counter(self._futures.keys())
        for number, future in self._futures.items():
            kind = self._kinds[number]
            path = self._folder / str(number)
            begun = len(path.read_bytes()) if path.exists() else 0
            assert future.cancelled() == (number in self._cancelled)
            if future.cancelled():
                assert begun <= self._may_end
                continue
            assert begun == 1
            error = future.exception(0)
            if kind == "raise":
                assert type(error) is ValueError and str(error) == str(number)
            elif kind == "crash":
                assert isinstance(error, CallCrashed) and error.certificate is not None
                assert error.certificate.exit_code == number % 100 + 1
            elif kind == "large":
                assert future.result(0) == number.to_bytes(4, "big") * 100_000
            else:
                assert error is None and future.result(0) == number
                assert printed[str(number)] == (kind == "print")


def run_a_mixture(
    count: int, seed: int, folder: Path, capsys: pytest.CaptureFixture[str], *, kill_running: bool, threads: int = 3
) -> None:
    with OrchestratorExecutor(2, kill_running=kill_running, grace=0.02) as executor:
        plans = [
            Plan(executor, folder, (seed * threads + number) * 1_000_000, may_end=kill_running)
            for number in range(threads)
        ]
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(partial(plan.run, count)) for plan in plans]:
                done.result()
        assert executor.submit(misbehaving.nap, 1, 0).result(DEADLINE) == 1
    printed = Counter(capsys.readouterr().out.split())
    for plan in plans:
        plan.check(printed)
    assert set(printed.values()) <= {1}


@pytest.mark.parametrize("kill_running", [False, True])
def test_each_call_of_a_mixture_ends_as_it_is_to(
    kill_running: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_a_mixture(80, 1, tmp_path, capsys, kill_running=kill_running)


@pytest.mark.soak
@pytest.mark.parametrize("kill_running", [False, True])
def test_each_call_of_a_large_mixture_ends_as_it_is_to(
    kill_running: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(2, 6):
        run_a_mixture(400, seed, tmp_path, capsys, kill_running=kill_running)
