"""When a service is started again: at once if that is an accident, never in a storm."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from orchestrator import RestartPolicy
from orchestrator._policy import ServiceGuard


def test_the_first_end_of_one_that_was_ready_is_an_accident() -> None:
    guard = ServiceGuard(RestartPolicy(), lambda: 0.5)
    assert guard.ended(10.0, 1.0) == 0.0
    assert guard.ended(12.0, 1.0) == 0.75, "the second one waits: backoff doubled, three quarters of it"
    assert guard.ended(50.0, 37.0) == 0.0, "it did well for half a window: forgotten"


def test_one_that_was_never_ready_waits() -> None:
    guard = ServiceGuard(RestartPolicy(), lambda: 0.0)
    waits = [guard.ended(float(now), None) for now in range(6)]
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, None]
    assert guard.ends == 6
    guard.reset()
    assert guard.ended(6.0, None) == 0.25


def test_slow_failures_are_given_up_too() -> None:
    guard = ServiceGuard(RestartPolicy(), lambda: 0.0)
    assert [guard.ended(now * 100.0, None) for now in range(6)][-1] is None


@given(
    st.lists(st.tuples(st.floats(0.0, 100.0), st.booleans()), min_size=1, max_size=60),
    st.integers(0, 5),
    st.integers(0, 2**16),
)
def test_no_window_sees_a_storm(lives: list[tuple[float, bool]], most: int, seed: int) -> None:
    policy = RestartPolicy(max_restarts=most)
    guard = ServiceGuard(policy, random.Random(seed).random)
    now, starts = 0.0, [0.0]
    for length, ready in lives:
        now += length
        wait = guard.ended(now, length if ready else None)
        if wait is None:
            break
        assert 0.0 <= wait <= 60.0
        now += wait
        starts.append(now)
    for index, start in enumerate(starts):
        # One that lives for half a window is none of a storm: at most two of those fit.
        window = [later for later in starts[index:] if later < start + 30.0]
        assert len(window) <= most + 2
