"""A batch: whatever order things are told in and however they are cut into transactions, the rows are the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journalling import attempt, birth, job, outcome, tables

from orchestrator._store_batch import LARGE, Batch, BirthRow
from orchestrator._store_file import JournalDatabase, open_journal
from orchestrator._store_rows import Known, StoredEffect
from orchestrator._store_writes import write

# What happens, in the order in which it is told: numbers are small, so that much of it meets.
NUMBERS = st.integers(1, 4)
WORDS = st.sampled_from(["a", "b"])
LONG = f'"{"x" * (LARGE + 1)}"'
CALLS = st.one_of(
    st.tuples(st.just("attempt"), NUMBERS, st.integers(1, 3), st.sampled_from(["leased", "started", "ended"])),
    st.tuples(st.just("effect"), NUMBERS, WORDS, st.sampled_from(["begun", "done", "undone"])),
    st.tuples(
        st.just("settle"), NUMBERS, st.sampled_from(["1", "2", "long"]), st.sampled_from(["succeeded", "failed"])
    ),
    st.tuples(st.just("update"), NUMBERS, st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.just("born"), WORDS),
    st.tuples(st.just("buried"), WORDS, st.sampled_from([None, "{}"])),
    st.tuples(st.just("meta"), WORDS, WORDS),
)
STEPS = st.lists(
    st.one_of(CALLS, CALLS, CALLS, st.tuples(st.just("submit"), st.sampled_from([None, "one", "two"]), st.booleans())),
    max_size=40,
)


def told(batch: Batch, step: tuple[Any, ...], numbers: list[int]) -> None:
    """Tell a batch one thing, as the store does."""
    kind, *rest = step
    if kind == "submit":
        identity, large = rest
        numbers.append(len(numbers) + 1)
        batch.submit(
            job(
                numbers[-1],
                identity=identity,
                created=1.0,
                **({"body": b'"args":[' + LONG.encode() + b"]"} if large else {}),
            )
        )
    elif kind == "attempt":
        number, fence, state = rest
        batch.attempt(attempt(number, number * 10 + fence, state=state))
    elif kind == "effect":
        number, key, phase = rest
        batch.effect(StoredEffect(number, key, phase, number, None))
    elif kind == "settle":
        number, value, status = rest
        batch.settle(number, outcome(LONG if value == "long" else value, status=status, deaths=number), 5.0)
    elif kind == "update":
        number, attempts, deaths = rest
        batch.update(number, attempts, deaths, deaths > 1)
    elif kind == "born":
        child = birth(rest[0])
        names = ("marker", "name", "worker", "generation", "pid", "started", "temp")
        batch.births.append(BirthRow(*(getattr(child, name) for name in names)))
    elif kind == "buried":
        batch.bury(*rest)
    else:
        batch.meta[rest[0]] = rest[1]


def written(folder: Path, name: str, steps: list[Any], ends: Callable[[int], bool]) -> Any:
    """Return what a journal holds after these steps, of which each for which `ends` says so ends a transaction."""
    database = open_journal(str(folder / name), "none")
    try:
        known: dict[int, Known] = {}
        numbers: list[int] = []
        batch = Batch()
        for place, step in enumerate(steps):
            told(batch, step, numbers)
            if ends(place):
                known.update(write(database, batch, "run", 9.0))
                batch = Batch()
        known.update(write(database, batch, "run", 9.0))
        # What was known had its outcome or not at that moment; which job it was does not change.
        same = {number: (each.id, each.hash) for number, each in known.items()}
        return tables(database.connection), same, len(steps) - len(known)
    finally:
        database.close()


def sensible(steps: list[Any]) -> list[Any]:
    """Leave out what is told of a job or a child before anybody told that it is there."""
    jobs, born, kept = 0, set(), []
    for step in steps:
        kind, first = step[:2]
        jobs += kind == "submit"
        if kind == "born":
            born.add(first)
        if (first in born) if kind == "buried" else not isinstance(first, int) or first <= jobs:
            kept.append(step)
    return kept


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, cuts=st.sets(st.integers(0, 40)))
def test_cutting_changes_nothing(tmp_path: Path, steps: list[Any], cuts: set[int]) -> None:
    folder = tmp_path / "journals"
    folder.mkdir()
    try:
        steps = sensible(steps)
        one_by_one = written(folder, "naive", steps, lambda _: True)
        assert written(folder, "whole", steps, lambda _: False) == one_by_one
        assert written(folder, "cut", steps, cuts.__contains__) == one_by_one
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def database(tmp_path: Path) -> Any:
    opened = open_journal(str(tmp_path / "j.db"), "none")
    yield opened
    opened.close()


@pytest.mark.parametrize("count", [1, 2, 5, 17, 1023, 1024, 1025, 3000])
def test_any_number_of_rows(database: JournalDatabase, count: int) -> None:
    batch = Batch()
    for number in range(1, count + 1):
        batch.submit(job(number, identity=f"row {number}"))
        batch.attempt(attempt(number))
    assert write(database, batch, "run", 1.0) == {}
    again = Batch()
    for number in range(1, count + 1):
        again.submit(job(number + count, identity=f"row {number}"))
        again.settle(number, outcome(str(number)), 2.0)
    known = write(database, again, "run", 1.0)
    assert {number: found.id for number, found in known.items()} == {n + count: n for n in range(1, count + 1)}
    assert all(found.settled == outcome(str(found.id)) for found in known.values())
    total = database.connection.execute("SELECT count(*), count(status), sum(value) FROM jobs").fetchone()
    assert total == (count, count, count * (count + 1) // 2)


def test_a_batch_takes_a_bounded_number_of_bytes() -> None:
    batch = Batch()
    number = 0
    while not batch.is_full:
        number += 1
        batch.submit(job(number, body=b"x" * 10_000))
    assert 300 < number < 500


def test_what_no_column_takes_is_made_storable(database: JournalDatabase) -> None:
    batch = Batch()
    batch.submit(job(1, key="\udcff", identity="\ud800", priority=2**80))
    batch.settle(1, outcome('"\udcff"'), 1.0)
    with pytest.raises((UnicodeError, OverflowError)):
        write(database, batch, "run", 1.0)
    batch.repair()
    write(database, batch, "run", 1.0)
    row = database.connection.execute("SELECT key, identity, priority, value FROM jobs").fetchone()
    assert row == ("\\udcff", "\\ud800", 2**63 - 1, '"\\udcff"')


def test_an_empty_batch_is_no_transaction(database: JournalDatabase) -> None:
    assert Batch().is_empty
    assert write(SimpleNamespace(connection=None, payloads=None), Batch(), "run", 1.0) == {}  # type: ignore[arg-type]
