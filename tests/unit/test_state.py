"""The tables of lives: whatever they name can be reached, what ends ends, and an impossible step tells its story."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import _state
from orchestrator._service_runner import Runner
from orchestrator._state import JOB, SERVICE, WORKER, IllegalStep, Life, Table, step
from orchestrator._worker import Worker

TABLES: Mapping[str, tuple[Table, str]] = {
    "worker": (WORKER, "down"),
    "job": (JOB, "queued"),
    "service": (SERVICE, "waiting"),
}
each = pytest.mark.parametrize(("table", "start"), TABLES.values(), ids=TABLES.keys())


def reachable(table: Table, start: str) -> set[str]:
    found, new = {start}, [start]
    while new:
        state = new.pop()
        for (origin, _), (target, _) in table.items():
            if origin == state and target not in found:
                found.add(target)
                new.append(target)
    return found


@each
def test_every_entry_can_be_reached(table: Table, start: str) -> None:
    states = reachable(table, start)
    assert {origin for origin, _ in table} <= states
    assert {target for target, _ in table.values()} == states | ({start} if start in states else set())


def test_every_state_of_a_worker_leads_back_to_no_child() -> None:
    for state in {origin for origin, _ in WORKER}:
        assert "down" in reachable(WORKER, state)


def test_every_state_of_a_job_leads_to_its_one_end() -> None:
    states = {origin for origin, _ in JOB}
    for state in states:
        assert "settled" in reachable(JOB, state)
    assert "settled" not in states, "nothing comes after the outcome"


def test_any_job_can_be_cancelled_or_expire_before_its_end() -> None:
    for state in {origin for origin, _ in JOB}:
        assert (state, "cancelled") in JOB
        assert (state, "expired") in JOB


def test_a_worker_whose_child_lives_can_always_be_killed_and_die() -> None:
    for state in ("starting", "ready", "stopping", "dying"):
        assert WORKER[state, "kill"].state == "dying"
        assert WORKER[state, "died"].state == "down"


def test_any_service_can_be_stopped_and_nothing_but_a_start_brings_it_back() -> None:
    states = {origin for origin, _ in SERVICE}
    for state in states - {"stopping", "stopped"}:
        assert SERVICE[state, "stop"].state in ("stopping", "stopped")
    down = {state for (origin, event), (state, _) in SERVICE.items() if origin == "stopped" and event != "start"}
    assert down == {"waiting", "failed"}
    for state in ("stopping", "stopped", "failed"):
        assert {step.state for (origin, _), step in SERVICE.items() if origin == state} & {
            "ready",
            "unhealthy",
        } == set()


def test_a_service_whose_process_lives_can_always_be_killed_and_die() -> None:
    for state in ("starting", "ready", "unhealthy", "restarting", "stopping"):
        assert "kill" in SERVICE[state, "kill"].effects
        assert (state, "died") in SERVICE


def test_nothing_is_spawned_while_a_process_lives() -> None:
    for (state, _), (_, effects) in SERVICE.items():
        if "spawn" in effects:
            assert (state, "kill") not in SERVICE


def test_services_know_how_to_do_what_their_table_asks() -> None:
    effects = {effect for _, effects in SERVICE.values() for effect in effects}
    assert effects
    for effect in effects:
        assert callable(getattr(Runner, f"_{effect}", None)), effect


def test_workers_know_how_to_do_what_their_table_asks() -> None:
    effects = {effect for _, effects in WORKER.values() for effect in effects}
    assert effects
    for effect in effects:
        assert callable(getattr(Worker, f"_{effect}", None)), effect


@each
def test_what_the_table_does_not_say_is_refused(table: Table, start: str) -> None:
    states = {origin for origin, _ in table} | {target for target, _ in table.values()}
    events = {event for _, event in table} | {"nonsense"}
    for state in states:
        for event in events:
            if (state, event) in table:
                assert step(table, state, event) == table[state, event]
            else:
                with pytest.raises(IllegalStep, match=f"'{event}' cannot happen in state '{state}'"):
                    step(table, state, event)


def test_an_illegal_step_tells_the_story_so_far() -> None:
    life = Life(WORKER, "worker w1", "down")
    with pytest.raises(IllegalStep, match=r"^worker w1: 'ready' cannot happen in state 'down'\. So far: nothing yet$"):
        life.step("ready", 0.0)
    life.step("start", 1.0)
    life.step("ready", 1.25)
    with pytest.raises(IllegalStep) as told:
        life.step("start", 2.0)
    assert str(told.value) == (
        "worker w1: 'start' cannot happen in state 'ready'. So far: 1.000 start -> starting; 1.250 ready -> ready"
    )
    assert life.state == "ready", "a refused step changes nothing"


@each
@given(data=st.data())
def test_any_walk_stays_in_the_table_and_remembers_its_end(table: Table, start: str, data: st.DataObject) -> None:
    life = Life(table, "walk", start)
    walked = []
    for moment in range(data.draw(st.integers(0, 60))):
        events = sorted(event for origin, event in table if origin == life.state)
        if not events:
            break
        event = data.draw(st.sampled_from(events))
        target, effects = table[life.state, event]
        assert life.step(event, float(moment)) == effects
        assert life.state == target
        walked.append(f"{moment:.3f} {event} -> {target}")
    with pytest.raises(IllegalStep) as told:
        life.step("nonsense", 0.0)
    assert str(told.value).endswith("So far: " + ("; ".join(walked[-20:]) or "nothing yet"))


def test_no_table_is_left_out() -> None:
    found = [name for name in vars(_state) if name.isupper()]
    assert sorted(found) == ["JOB", "SERVICE", "WORKER"]
