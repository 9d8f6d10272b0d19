"""Deaths are charged to the job, refunded when it was the environment, and told to who keeps count elsewhere."""

from __future__ import annotations

from typing import Any

from orchestrator import Job
from orchestrator._blame import Blame
from orchestrator._codec import Payload
from orchestrator._logs import Logger
from orchestrator._record import NOBODY, Record
from orchestrator._targets import Target


class Desk:
    """Jobs that run, one attempt each, as the engine counts them."""

    def __init__(self, count: int) -> None:
        self.jobs = {
            number: Record(number, Job("m:f"), Target("m:f", None), Payload(b"", b""), NOBODY)
            for number in range(count)
        }
        self.told: list[int] = []
        self.blame = Blame(self.jobs, Logger("test"), lambda record: self.told.append(record.id))

    def dies(self, *numbers: int, tried: bool = False) -> None:
        for number in numbers:
            record = self.jobs[number]
            record.attempts += 1
            if not self.blame.charge(record, 0.0, tried=tried):
                record.attempts -= 1

    def of(self, name: str) -> list[Any]:
        return [getattr(record, name) for record in self.jobs.values()]


def test_a_job_that_dies_among_others_that_live_is_charged() -> None:
    desk = Desk(3)
    for _ in range(3):
        desk.dies(1)
        desk.blame.ended()
    assert desk.of("deaths") == [0, 3, 0] and desk.of("attempts") == [0, 3, 0]
    assert [desk.blame.is_given_up(record) for record in desk.jobs.values()] == [False, True, False]
    assert desk.told == []


def test_in_doubt_attempts_are_refunded_and_deaths_stand_when_others_live() -> None:
    desk = Desk(5)
    desk.dies(0, 1, 2, 3)
    assert desk.of("attempts") == [0] * 5 and desk.of("deaths") == [1, 1, 1, 1, 0]
    assert desk.told == [0, 1], "the one that died last is told of by who charged it"
    desk.blame.ended()
    desk.dies(0, 1, 2)
    assert not desk.blame.guard.doubt, "they are known to die"
    assert desk.of("attempts") == [1, 1, 1, 0, 0] and desk.of("deaths") == [2, 2, 2, 1, 0]


def test_when_it_is_the_environment_nothing_stands() -> None:
    desk = Desk(8)
    desk.dies(0, 1, 2)
    desk.dies(7, tried=True)
    desk.dies(6, tried=True)
    assert desk.blame.guard.environment
    assert desk.of("deaths") == [0] * 8 and desk.of("attempts") == [0] * 8
    assert desk.of("forgiven") == [1, 1, 1, 0, 0, 0, 1, 1]
    assert set(desk.told) == {0, 1, 2, 7}
    desk.dies(5, tried=True)
    assert (desk.jobs[5].deaths, desk.jobs[5].forgiven, desk.jobs[5].attempts) == (0, 1, 0)


def test_forgiving_has_an_end() -> None:
    desk = Desk(3)
    desk.dies(0, 1, 2)
    rounds = 0
    while not all(desk.blame.is_given_up(record) for record in desk.jobs.values()):
        desk.dies(rounds % 3, tried=True)
        rounds += 1
    assert rounds == 9 and desk.of("attempts") == [0, 0, 0]


def test_who_is_settled_meanwhile_is_not_refunded() -> None:
    desk = Desk(4)
    desk.dies(0, 1)
    gone = desk.jobs.pop(0)
    desk.dies(2)
    assert gone.attempts == 1 and desk.of("attempts") == [0, 0, 0]
