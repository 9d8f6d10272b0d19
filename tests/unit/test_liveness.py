"""When silence makes a child suspect or hung, on a clock that the test moves."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator._liveness import Pace, Pulse, Watch, is_late, is_stall

PACE = Pace()
ANSWER = 0.01  # seconds that a healthy child takes to answer


@dataclass
class World:
    """A supervisor with one child, simulated second by second.

    Attributes:
        frozen: When the child says nothing, from and to.
        stalls: When the supervisor's own loop stands still, from and to; frames wait meanwhile.
        told: What was said of the child, and when.
    """

    hang_timeout: float | None = None
    frozen: list[tuple[float, float]] = field(default_factory=list)
    stalls: list[tuple[float, float]] = field(default_factory=list)
    naps: list[tuple[float, float]] = field(default_factory=list)  # when the machine sleeps: (at, for how long)
    told: list[tuple[float, str]] = field(default_factory=list)

    def run(self, until: float) -> list[tuple[float, str]]:
        watch = Watch(PACE, self.hang_timeout)
        pulse = Pulse(0.0)
        slept = 0.0
        naps = sorted(self.naps)
        watch.begin(0.0, slept)
        due = watch.next_look([pulse], 0.0)
        answer: float | None = None
        while True:
            if answer is not None and answer <= due:
                now = self._awake(answer)
                answer = None
                if pulse.suspect:
                    pulse.suspect = False
                    self.told.append((now, "cleared"))
                pulse.restart(now)
                continue
            now = self._awake(due)
            if answer is not None and answer <= now:
                due = now  # the loop stood still: what came meanwhile is read first
                continue
            if now > until:
                return self.told
            while naps and naps[0][0] <= now:
                slept += naps.pop(0)[1]
            reason = watch.amnesty(now, slept)
            if reason is not None:
                self.told.append((now, "amnesty"))
                pulse.restart(now)
            verdict = watch.judge(pulse, now)
            if verdict == "ping":
                answer = self._thawed(now) + ANSWER
            elif verdict is not None:
                self.told.append((now, verdict))
            if verdict == "hang":
                return self.told
            due = watch.next_look([pulse], now)

    def _awake(self, at: float) -> float:
        for start, end in sorted(self.stalls):
            if start <= at < end:
                at = end
        return at

    def _thawed(self, at: float) -> float:
        for start, end in sorted(self.frozen):
            if start <= at + ANSWER and at < end:
                at = end
        return at


def words(told: list[tuple[float, str]]) -> list[str]:
    return [word for _, word in told]


FOREVER = float("inf")


@given(st.floats(6, 100))
def test_a_frozen_child_is_suspect_within_sixteen_seconds_and_killed_within_sixty_one(start: float) -> None:
    told = World(60.0, frozen=[(start, FOREVER)]).run(1_000)
    assert words(told) == ["suspect", "doubt", "hang"]
    # Heard from last up to one ping before it froze.
    assert start + 15 - 5.1 <= told[0][0] <= start + 16
    assert start + 60 - 5.1 <= told[1][0] and told[2][0] <= start + 61
    assert told[2][0] - told[1][0] >= PACE.confirm


@given(st.floats(6, 100))
def test_without_hang_timeout_nobody_is_killed(start: float) -> None:
    assert words(World(None, frozen=[(start, FOREVER)]).run(10_000)) == ["suspect"]


@given(st.floats(6, 100), st.floats(25, 50))
def test_one_that_goes_on_in_time_is_cleared(start: float, length: float) -> None:
    told = World(60.0, frozen=[(start, start + length)]).run(1_000)
    assert words(told) == ["suspect", "cleared"]
    assert told[1][0] == pytest.approx(start + length, abs=0.1)


def test_one_that_speaks_between_the_two_looks_lives() -> None:
    watch, pulse = Watch(PACE, 20.0), Pulse(0.0)
    watch.begin(0.0, 0.0)
    assert watch.judge(pulse, 20.0) == "doubt"
    assert watch.next_look([pulse], 20.0) == 20.5
    pulse.restart(20.2)
    assert watch.judge(pulse, 20.5) is None


spans = st.lists(st.tuples(st.floats(0, 300), st.floats(0.1, 120)), max_size=5).map(
    lambda found: [(start, start + length) for start, length in found]
)


@given(spans, st.lists(st.tuples(st.floats(0, 300), st.floats(0, 100_000)), max_size=3))
def test_a_child_that_answers_is_never_suspected_whatever_stalls(
    stalls: list[tuple[float, float]], naps: list[tuple[float, float]]
) -> None:
    told = World(20.0, stalls=stalls, naps=naps).run(600)
    assert set(words(told)) <= {"amnesty"}


@given(spans, spans, st.sampled_from([20.0, 60.0]))
def test_a_kill_needs_that_much_silence_while_somebody_listened(
    frozen: list[tuple[float, float]], stalls: list[tuple[float, float]], timeout: float
) -> None:
    told = World(timeout, frozen=frozen, stalls=stalls).run(600)
    if words(told)[-1:] == ["hang"]:
        at = told[-1][0]
        last_amnesty = max((when for when, word in told if word == "amnesty"), default=0.0)
        assert at - last_amnesty >= timeout
        assert words(told)[-2] == "doubt"
        frozen_for = sum(min(end, at) - start for start, end in frozen if start < at)
        assert frozen_for + PACE.ping + 0.1 >= timeout


def test_a_stalled_loop_is_an_amnesty() -> None:
    told = World(20.0, frozen=[(8, 50)], stalls=[(9, 39)]).run(100)
    assert words(told)[0] == "amnesty"
    assert "hang" not in words(told) and "doubt" not in words(told)


def test_a_sleep_of_the_machine_is_an_amnesty() -> None:
    assert words(World(20.0, naps=[(12.0, 3600.0)]).run(60)) == ["amnesty"]
    assert words(World(20.0, naps=[(12.0, 1.0)]).run(60)) == []


def test_one_ping_waits_for_its_answer_at_a_time() -> None:
    watch, pulse = Watch(PACE, None), Pulse(0.0)
    watch.begin(0.0, 0.0)
    assert [watch.judge(pulse, float(now)) for now in (1, 5, 10, 14)] == [None, "ping", None, None]
    pulse.restart(14.5)
    assert [watch.judge(pulse, float(now)) for now in (15, 20)] == [None, "ping"]


def test_looks_are_as_rare_as_pings_while_all_is_well() -> None:
    watch, pulses = Watch(PACE, 60.0), [Pulse(100.0) for _ in range(100)]
    assert watch.next_look(pulses, 100.0) == 105.0
    pulses[7].heard = 86.0
    assert watch.next_look(pulses, 100.0) == 101.0
    pulses[7].suspect = True
    assert watch.next_look(pulses, 100.0) == 105.0
    pulses[7].heard = 43.0
    assert watch.next_look(pulses, 100.0) == 103.0


def test_bounds_that_run_out_late() -> None:
    assert not is_late(float("-inf")) and not is_late(0.01)
    assert is_late(0.1) and not is_stall(0.1)
    assert is_late(2.1) and is_stall(2.1)


def test_a_short_bound_has_a_quicker_pace() -> None:
    pace = Pace()
    assert pace.within(None) is pace
    assert pace.within(60.0) is pace
    quick = pace.within(2.0)
    assert quick.ping + quick.suspect == pytest.approx(2.0)
    assert quick.lag < pace.lag
