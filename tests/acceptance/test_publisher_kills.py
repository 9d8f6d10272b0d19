"""Pins are published while browsers, drivers, pages and children are killed at random: each is there once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from orchestrator_adapters.publisher import publish_job
from pin_boards import PinBoard
from pin_tables import ACCOUNT, children_of, each_once, make_pins, process_of, profile_of

from orchestrator import Limit, Outcome, Supervisor

pytestmark = pytest.mark.usefixtures("browser_path")

KINDS = ("child", "driver", "browser", "page")


class Killer:
    """Kills a process of a supervisor's children at each of some moments, counted in pins that are done.

    Args:
        pins: How many there are.
        kills: How many of them go with a kill; never two at the same pin.
        seed: Of the moments and the victims.
    """

    def __init__(self, pins: int, kills: int, seed: int) -> None:
        self._random = random.Random(seed)
        # None in the last quarter: what is not there to be killed at its moment still finds one.
        self._moments = sorted(self._random.sample(range(1, pins - pins // 4), kills))
        # Each kind in turn, in an order of chance.
        self._kinds = [KINDS[number % len(KINDS)] for number in range(kills)]
        self._random.shuffle(self._kinds)
        self.killed: Counter[str] = Counter()

    def look(self, supervisor: Supervisor, done: int) -> None:
        """Kill what is due after so many pins; what is not there to be killed now is due after the next one."""
        while self._moments and self._moments[0] <= done:
            if not self._kill(supervisor, self._kinds[0]):
                return
            del self._moments[0], self._kinds[0]

    def _kill(self, supervisor: Supervisor, kind: str) -> bool:
        children = children_of(supervisor)
        self._random.shuffle(children)
        for child in children:
            victim = process_of(child, kind)
            if victim is not None:
                try:
                    victim.kill()
                except psutil.NoSuchProcess:
                    continue
                self.killed[kind] += 1
                return True
        return False


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def board() -> Iterator[PinBoard]:
    with PinBoard(errors=0.02, lost_answers=0.05, seed=11) as made:
        yield made


async def publish_and_kill(board: PinBoard, folder: Path, count: int, kills: int, seed: int) -> None:
    profile = profile_of(board)
    pins = make_pins(folder, count)
    killer = Killer(count, kills, seed)
    done: list[Outcome] = []
    limits = [Limit("publish", concurrency=2)]
    async with Supervisor(workers=2, secrets=profile.secrets, limits=limits) as supervisor:
        async with supervisor.map(publish_job(pin, profile, limit="publish") for pin in pins) as outcomes:
            async for outcome in outcomes:
                done.append(outcome)
                killer.look(supervisor, len(done))
        retries = supervisor.statistics().retries
    assert killer.killed.total() == kills, f"{killer.killed} of {kills}"
    wrong = [f"{outcome.key}: {outcome.status}: {outcome.error}" for outcome in done if not outcome.succeeded]
    assert not wrong, "\n".join(wrong)
    ids = each_once(board, pins)
    assert {outcome.key: outcome.value["id"] for outcome in done} == ids
    assert {outcome.value["status"] for outcome in done} <= {"published", "found"}
    print(f"{count} pins, killed {dict(killer.killed)}, {retries} retries, {board.stats()}")


async def test_a_few_pins_and_three_kills(board: PinBoard, tmp_path: Path) -> None:
    await publish_and_kill(board, tmp_path, count=12, kills=3, seed=5)


@pytest.mark.browser
@pytest.mark.parametrize("seed", [1])
async def test_300_pins_and_30_kills(board: PinBoard, tmp_path: Path, seed: int) -> None:
    await publish_and_kill(board, tmp_path, count=300, kills=30, seed=seed)
