"""When a child counts as suspect, or as hung: its silence decides, and never a stall of our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# What is to be done about a child: ask it for a sign of life, give it no more jobs, look once more before it is taken
# for hung, kill it.
Verdict = Literal["ping", "suspect", "doubt", "hang"]

# A time bound that runs out this late was held up by something here: what its child said meanwhile may be unread.
_LATE = 0.05
# Seconds of a stall after which whatever was measured across it says nothing.
_LAG = 2.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often children are asked, and how long they may be silent; seconds.

    Attributes:
        ping: Between two pings: often enough for three of them to be missed before anything is said of a child, and
            rare enough for a hundred idle children to cost nothing that can be felt.
        suspect: Of silence, after which a child gets no more jobs.
        confirm: Between the two looks that a kill needs.
        lag: How late a look may be before it is our own loop that stalled; the same for a sleep of the machine.
    """

    ping: float = 5.0
    suspect: float = 15.0
    confirm: float = 0.5
    lag: float = _LAG

    def within(self, hang_timeout: float | None) -> Pace:
        """Return a quicker pace for a bound that this one is too slow for."""
        if hang_timeout is None or hang_timeout >= self.suspect + self.ping:
            return self
        share = hang_timeout / (self.suspect + self.ping)
        return Pace(self.ping * share, self.suspect * share, self.confirm * share, self.lag * share)


class Pulse:
    """One child's signs of life.

    Attributes:
        heard: When it last said anything, or since when its silence counts.
        asked: A ping awaits its answer: one is enough, for pipes lose nothing.
        suspect: It gets no more jobs until it says something.
        doubted: When its silence was first taken for a hang.
    """

    __slots__ = ("asked", "doubted", "heard", "suspect")

    def __init__(self, now: float) -> None:
        self.suspect = False
        self.restart(now)

    def restart(self, now: float) -> None:
        """Count its silence from now on."""
        self.heard = now
        self.asked = False
        self.doubted: float | None = None


class Watch:
    """Looks at children from time to time, and says of each what is to be done; the caller has the clock.

    Args:
        pace: How often, and how long.
        hang_timeout: Seconds of silence after which a child is to be killed, or None for never.
    """

    def __init__(self, pace: Pace, hang_timeout: float | None) -> None:
        self.pace = pace
        self.hang_timeout = hang_timeout
        self._due: float | None = None
        self._slept = 0.0

    def begin(self, now: float, slept: float) -> None:
        """Note when the next look is due, and how long the machine has slept so far."""
        self._due = now
        self._slept = slept

    def amnesty(self, now: float, slept: float) -> str | None:
        """Return why no silence up to now may be held against anybody, or None.

        Args:
            now: The clock, on which the look was due.
            slept: Seconds that the machine has slept since it was started.
        """
        late = 0.0 if self._due is None else now - self._due
        asleep, self._slept = slept - self._slept, slept
        if late > self.pace.lag:
            return f"the supervisor's own loop stood still for {late:.1f} s"
        if asleep > self.pace.lag:
            return f"the machine slept for {asleep:.1f} s"
        return None

    def judge(self, pulse: Pulse, now: float) -> Verdict | None:
        """Return what is to be done about a child."""
        pace = self.pace
        silence = now - pulse.heard
        if self.hang_timeout is not None and silence >= self.hang_timeout:
            if pulse.doubted is None:
                pulse.doubted = now
                return "doubt"
            return "hang" if now - pulse.doubted >= pace.confirm else None
        if not pulse.suspect and silence >= pace.suspect:
            pulse.suspect = True
            return "suspect"
        # The answer to the last ping came a moment after it was sent.
        if not pulse.asked and silence >= pace.ping / 2:
            pulse.asked = True
            return "ping"
        return None

    def next_look(self, pulses: list[Pulse], now: float) -> float:
        """Return when to look again, and remember it."""
        due = now + self.pace.ping
        for pulse in pulses:
            if pulse.doubted is not None:
                due = min(due, pulse.doubted + self.pace.confirm)
                continue
            if not pulse.suspect:
                due = min(due, pulse.heard + self.pace.suspect)
            if self.hang_timeout is not None:
                due = min(due, pulse.heard + self.hang_timeout)
        self._due = max(due, now + 0.001)
        return self._due


def is_late(late: float) -> bool:
    """Return whether frames should be read before a time bound, run out `late` seconds ago, is held against a job."""
    return late > _LATE


def is_stall(late: float) -> bool:
    """Return whether a bound on silence, run out `late` seconds ago, says nothing: we did not listen."""
    return late > _LAG
