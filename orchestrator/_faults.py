"""Break on purpose at a named point, as `ORCHESTRATOR_FAULT` says: how tests reach the moments that hardly ever happen.

`ORCHESTRATOR_FAULT=C5:kill` kills this process whenever it passes the point C5, `C5:kill:3` at the third pass only.
`C5:stall` stops there for ever and `C5:stall=2.5` for so many seconds; `C12:errno=28` raises that OSError. Several
are parted by commas. Callers write `if FAULTS: strike("C5")`: without the variable that is one look-up.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from dataclasses import dataclass, field

from orchestrator.exceptions import ConfigurationError

VARIABLE = "ORCHESTRATOR_FAULT"
POINTS = frozenset(f"C{number}" for number in range(1, 15))
_SPEC = re.compile(r"(C\d+):(kill|stall(?:=\d+(?:\.\d+)?)?|errno=\d+)(?::([1-9]\d*))?")
# Longer than any test waits, and short enough for the clock of every system.
_FOR_EVER = 1e6


@dataclass(slots=True)
class Fault:
    """What happens at one point.

    Attributes:
        action: `kill`, `stall` or `errno`.
        argument: Seconds of a stall, or the number of the error.
        only: Which pass it happens at; at every pass when it is None.
        passes: How often the point was passed.
    """

    action: str
    argument: float = 0.0
    only: int | None = None
    passes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def strike(self, point: str) -> None:
        """Pass the point once."""
        with self._lock:
            self.passes += 1
            due = self.only in (None, self.passes)
        if not due:
            return
        if self.action == "kill":
            # Windows has no SIGKILL; what os.kill does there with any other number ends the process just as hard.
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        elif self.action == "stall":
            time.sleep(self.argument)
        else:
            number = int(self.argument)
            raise OSError(number, f"{os.strerror(number)} (asked for by {VARIABLE} at {point})")


def parse(text: str) -> dict[str, Fault]:
    """Return the faults that a value of the variable asks for.

    Raises:
        ConfigurationError: If it cannot be read.
    """
    faults: dict[str, Fault] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = _SPEC.fullmatch(part)
        if found is None or found[1] not in POINTS:
            raise ConfigurationError(
                VARIABLE,
                f"{part!r} is not POINT:ACTION or POINT:ACTION:PASS, with a point from C1 to C14 and kill, stall, "
                "stall=SECONDS or errno=NUMBER",
            )
        action, _, argument = found[2].partition("=")
        number = float(argument) if argument else _FOR_EVER
        faults[found[1]] = Fault(action, number, None if found[3] is None else int(found[3]))
    return faults


FAULTS: dict[str, Fault] = parse(os.environ.get(VARIABLE, ""))


def strike(point: str) -> None:
    """Break here if that was asked for."""
    fault = FAULTS.get(point)
    if fault is not None:
        fault.strike(point)
