"""The faults of the chaos run: which ones, when, at whom, all from the seed; and the processes they strike."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import psutil
from _chaos_jobs import TOKEN

_MARKER = b"\0ORCHESTRATOR_MARKER="
_GUARDIAN = "orchestrator-guardian"
Role = Literal["host", "child", "guardian", "stray"]

# How often a minute, in a run of the usual length.
RATES = {
    "child killed": 24,
    "child terminated": 8,
    "child stopped for a while": 6,
    "stray killed": 6,
    "guardian killed": 3,
    "host stopped for a while": 2,
    "host killed": 3,
    "host and guardian killed": 1,
}
# Later the host is left alone: one long life shows whether it grows.
_HOST_UNTIL = 0.6
_LETHAL = ("host killed", "host and guardian killed")
# Where a life may end by itself, with how many passes before; the disk that is full once is one of them.
_POINTS = ("C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C14")
_RARE = {"C3": 40, "C4": 40, "C6": 40, "C7": 40, "C14": 30}
# What jobs do by themselves.
_HARM = {
    "garbage": "job wrote garbage and forgeries",
    "flood": "job flooded both its outputs",
    "stray": "job left a stubborn stray",
    "hang": "job hung, with a stray",
    "leave": "job ended its child",
    "poison": "job ended every child",
}


class Fault(NamedTuple):
    """One fault: when, in seconds from the start; which; whom of those there are; and for how long."""

    at: float
    name: str
    whom: float
    seconds: float


def schedule(seed: int, seconds: float, pace: float = 1.0) -> list[Fault]:
    """Return the faults of a run, in order.

    Args:
        seed: What all follows from.
        seconds: How long faults happen.
        pace: How much more often than usual.
    """
    random_ = random.Random(f"{seed}/faults")
    found = []
    for name, rate in RATES.items():
        until = seconds * (_HOST_UNTIL if name in _LETHAL else 1.0)
        found += [
            Fault(random_.uniform(0.5, until), name, random_.random(), random_.uniform(0.05, 1.5))
            for _ in range(max(1, round(rate * pace * until / 60)))
        ]
    return sorted(found)


def point_of(seed: int, life: int) -> str:
    """Return the value of ORCHESTRATOR_FAULT for a life of the host, or nothing."""
    random_ = random.Random(f"{seed}/life/{life}")
    if life == 1 or random_.random() < 0.5:
        return ""
    if random_.random() < 0.3:
        return f"C12:errno=28:{random_.randint(5, 50)}"
    point = random_.choice(_POINTS)
    return f"{point}:kill:{random_.randint(1, _RARE.get(point, 400))}"


class Found(NamedTuple):
    """One process of a life."""

    process: psutil.Process
    role: Role


def look(token: str, host: int | None = None) -> list[Found]:
    """Return the processes of a run (`RUN`), or of one life (`RUN/LIFE`); zombies do not count."""
    wanted = f"\0{TOKEN}={token}/".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                environment = b"\0" + file.read()
            if wanted not in environment:
                continue
            process = psutil.Process(int(name))
            found.append(Found(process, _role(process, environment, host)))
        except (OSError, psutil.Error):
            continue  # it ended meanwhile, or is another user's
    return found


def _role(process: psutil.Process, environment: bytes, host: int | None) -> Role:
    if process.pid == host:
        return "host"
    if _MARKER not in environment:
        # A child between fork and exec still has its parent's environment, and its command.
        return "guardian" if _GUARDIAN in process.cmdline() else "host"
    return "child" if process.ppid() == host else "stray"


@dataclass
class Tally:
    """What one kind of fault did.

    Attributes:
        count: How often it was done.
        recoveries: Seconds until all was well again, one for each time it was seen.
    """

    count: int = 0
    recoveries: list[float] = field(default_factory=list)


class Strikes:
    """Does what the schedule says, to processes of this run alone, and remembers whom it struck.

    Attributes:
        tallies: By name of the fault.
        struck: When children were killed or terminated, by pid.
        guardian_lost: When the guardian was killed last.
    """

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {name: Tally() for name in RATES}
        self.struck: dict[int, float] = {}
        self.guardian_lost = float("-inf")
        self._stopped: list[tuple[float, psutil.Process]] = []

    def count(self, name: str) -> None:
        """Count a fault."""
        self.tallies.setdefault(name, Tally()).count += 1

    def count_job(self, kind: str) -> None:
        """Count what a job of this kind does to its child."""
        if kind in _HARM:
            self.count(_HARM[kind])

    def strike(self, fault: Fault, token: str, host: int) -> str | None:
        """Do it; returns at whom, or None if there is nobody."""
        roles: dict[str, list[psutil.Process]] = {"child": [], "guardian": [], "stray": [], "host": []}
        for process, role in look(token, host):
            roles[role].append(process)
        whom = fault.name.split()[0]
        candidates = sorted(roles[whom], key=lambda each: each.pid) if whom != "host" else [psutil.Process(host)]
        if not candidates:
            return None
        process = candidates[int(fault.whom * len(candidates))]
        try:
            self._do(fault, process, roles)
        except psutil.NoSuchProcess:
            return None
        self.count(fault.name)
        return f"{whom} {process.pid}"

    def _do(self, fault: Fault, process: psutil.Process, roles: dict[str, list[psutil.Process]]) -> None:
        if fault.name.endswith("stopped for a while"):
            process.suspend()
            self._stopped.append((time.monotonic() + fault.seconds, process))
            return
        if fault.name == "host and guardian killed":
            # The guardian first, at once followed by the host: nobody is left to clean up.
            for guardian in roles["guardian"]:
                guardian.kill()
            self.guardian_lost = time.monotonic()
        if fault.name == "guardian killed":
            self.guardian_lost = time.monotonic()
        if process in roles["child"]:
            self.struck[process.pid] = time.time()
        if fault.name.endswith("terminated"):
            process.terminate()
        else:
            process.kill()

    def let_go_on(self, *, all_of_them: bool = False) -> list[int]:
        """Continue whoever was stopped for long enough, and return their pids."""
        now = time.monotonic()
        going = []
        for when, process in [*self._stopped]:
            if all_of_them or when <= now:
                self._stopped.remove((when, process))
                try:
                    process.resume()
                except psutil.NoSuchProcess:
                    continue
                going.append(process.pid)
        return going

    def next_event(self) -> float:
        """Return when somebody is to go on, on the clock of `time.monotonic`."""
        return min((when for when, _ in self._stopped), default=float("inf"))
