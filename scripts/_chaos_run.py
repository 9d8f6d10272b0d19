"""The course of the chaos run: starts the host, lets faults happen, starts it again, and watches what is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from bisect import insort
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from _chaos_faults import Fault, Found, Strikes, look, point_of, schedule
from _chaos_host import EXIT_AGAIN
from _chaos_jobs import FOLDER, TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable

# Promise 4: nothing outlives a supervisor for longer.
OUTLIVED = 3.0
# A guardian that was started so lately need not watch yet.
_ARMING = 3.0
# Longer than the slowest thing that a host does between two outcomes, with all that is done to it.
_STALLED = 60.0
_LOOK = 0.1
_PAUSE = 0.01
# What cannot be done because a host is just starting is done after this.
_LATER = 0.3
# Files are the last that goes.
_FILES = 1.0


class Run:
    """One run.

    Args:
        seed: What all follows from.
        jobs: How many.
        seconds: How long faults happen; then what was submitted is finished.
        workers: Of each host.
        pace: How much more often than usual faults happen.
        folder: Where all files are.
        say: Prints a line.

    Attributes:
        violations: What did not hold.
        strikes: What was done.
        lives: Lives of the host so far.
        seconds: How long it took.
    """

    def __init__(
        self,
        *,
        seed: int,
        jobs: int,
        seconds: float,
        workers: int,
        pace: float,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self.violations: list[str] = []
        self.strikes = Strikes()
        self.lives = 0
        self.seconds = 0.0
        self._seed, self._jobs, self._workers = seed, jobs, workers
        self._until = seconds
        self._pending = schedule(seed, seconds, pace)
        self._folder = folder
        self._say = say
        self._run = f"{os.getpid()}-{seed}-{time.time():.0f}"
        self._began = time.monotonic()
        self._host: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._fault = ""  # ORCHESTRATOR_FAULT of this life
        self._opened = False
        self._ended_by = ""  # which fault is to end this life, if one is
        self._replaced = False  # whether its first guardian was killed
        self._swept: list[str] = []  # lives of which something may be left until the next one is open
        self._guarded_since: float | None = None
        self._lost_guardian: float | None = None
        self._looked = 0.0
        self._size, self._moved = 0, time.monotonic()
        self._awake: float | None = None
        (folder / "told").touch()
        (folder / "vitals").touch()
        (folder / "tmp").mkdir()

    @property
    def _token(self) -> str:
        return f"{self._run}/{self.lives}"

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def go(self) -> None:
        """Run it to its end."""
        try:
            self._start()
            while self._step():
                wait = min(
                    self._pending[0].at - self._elapsed if self._pending else 1.0,
                    self.strikes.next_event() - time.monotonic(),
                    _PAUSE,
                )
                time.sleep(max(0.0, wait))
        finally:
            self.strikes.let_go_on(all_of_them=True)
            if self._host is not None and self._host.poll() is None:
                self._host.kill()
                self._host.wait()
            self.seconds = self._elapsed
        self._expect_nothing(self._run, "at the end", _FILES)
        self._expect_no_files("at the end")

    def _start(self) -> None:
        self.lives += 1
        self._fault = point_of(self._seed, self.lives) if self._elapsed < self._until else ""
        env = {**os.environ, FOLDER: str(self._folder), TOKEN: f"{self._token}/", "TMPDIR": str(self._folder / "tmp")}
        env.pop("ORCHESTRATOR_FAULT", None)
        if self._fault:
            env["ORCHESTRATOR_FAULT"] = self._fault
        program = str(Path(__file__).with_name("_chaos_host.py"))
        numbers = {"seed": self._seed, "life": self.lives, "jobs": self._jobs, "workers": self._workers}
        options = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
        with (self._folder / "stderr").open("ab") as stderr:
            self._host = subprocess.Popen(
                [sys.executable, program, str(self._folder), *options], env=env, stderr=stderr, stdin=subprocess.DEVNULL
            )
        self._started = self._moved = time.monotonic()
        self._opened = False
        self._guarded_since = self._lost_guardian = self._awake = None
        self._replaced = False
        self._tell(f"life {self.lives} of the host", f"pid {self._host.pid} {self._fault}")

    def _tell(self, what: str, whom: str) -> None:
        self._say(f"{self._elapsed:7.2f} s  {what:<28}{whom}")

    def _step(self) -> bool:
        """Do what is due; returns whether the run goes on."""
        assert self._host is not None
        code = self._host.poll()
        if code is not None:
            return self._ended(code)
        if self._host.pid in self.strikes.let_go_on():
            self._awake = time.monotonic()
        self._watch()
        while self._pending and self._pending[0].at <= self._elapsed:
            self._strike(self._pending.pop(0), self._host.pid)
        if self._elapsed > self._until:
            (self._folder / "stop").touch()
        if time.monotonic() - self._moved > _STALLED:
            self._violated(f"no outcome came for {_STALLED:g} s; the stacks are in the file stderr")
            if sys.platform != "win32":
                self._host.send_signal(signal.SIGUSR1)
                time.sleep(1)
            return False
        return True

    def _strike(self, fault: Fault, host: int) -> None:
        if not self._opened and fault.name != "host killed":
            # There is nobody yet.
            insort(self._pending, fault._replace(at=self._elapsed + _LATER))
            return
        whom = self.strikes.strike(fault, self._token, host)
        if whom is None:
            return
        self._tell(fault.name, whom)
        if fault.name == "guardian killed":
            self._lost_guardian, self._guarded_since, self._replaced = time.monotonic(), None, True
        elif fault.name == "host and guardian killed":
            self._guarded_since = None
        if fault.name.startswith("host") and "killed" in fault.name:
            self._fault = ""
            self._ended_by = fault.name

    def _watch(self) -> None:
        """Look whether the host is open, has a guardian, and gets on."""
        assert self._host is not None
        size = (self._folder / "told").stat().st_size
        now = time.monotonic()
        if size != self._size:
            self._size, self._moved = size, now
            if self._awake is not None:
                self.strikes.tallies["host stopped for a while"].recoveries.append(now - self._awake)
                self._awake = None
        if now - self._looked < _LOOK:
            return
        self._looked = now
        if not self._opened and self._last_opened() == self.lives:
            self._opened = True
            if self.lives > 1:
                self.strikes.count("host started again")
                self.strikes.tallies["host started again"].recoveries.append(now - self._started)
            for token in self._swept:
                self._expect_nothing(token, "when the next host was open", 0.0)
            self._swept.clear()
        if self._guarded_since is None and any(role == "guardian" for _, role in look(self._token, self._host.pid)):
            self._guarded_since = now
            if self._lost_guardian is not None:
                self.strikes.tallies["guardian killed"].recoveries.append(now - self._lost_guardian)
                self._lost_guardian = None

    def _last_opened(self) -> int:
        """Return which life was the last that opened its supervisor."""
        with (self._folder / "vitals").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().splitlines()
        for line in reversed(lines):
            if line.startswith(b'["opened"'):
                return int(json.loads(line)[2])
        return 0

    def _ended(self, code: int) -> bool:
        """See to what a host left, and start the next one if there is more to do."""
        ended, by, self._ended_by = time.monotonic(), self._ended_by, ""
        if code in (0, EXIT_AGAIN):
            self._expect_nothing(self._token, "when the host had ended", _FILES)
            self._expect_no_files("when the host had ended")
            if code == 0:
                return False
        elif code != -9:
            self._violated(f"the host ended with code {code} in life {self.lives}; look at the file stderr")
            return False
        else:
            if not by and ":kill" not in self._fault:
                self._violated(f"somebody else killed life {self.lives} of the host; for want of memory?")
                return False
            if not by:
                by = f"host killed itself at {self._fault.partition(':')[0]}"
                self.strikes.count(by)
                self._tell(by, f"after {ended - self._started:.1f} s")
            self._account_for(by, ended)
        self._start()
        return True

    def _account_for(self, by: str, ended: float) -> None:
        # The first guardian watches before there is a child; one that takes the place of another may not yet.
        since = self._guarded_since
        guarded = since is not None and (not self._replaced or ended - since > _ARMING)
        while (left := look(self._token)) and time.monotonic() - ended < OUTLIVED:
            time.sleep(_PAUSE)
        if since is None and not left:
            self._forget_empty_folders()
        if not left:
            self.strikes.tallies[by].recoveries.append(time.monotonic() - ended)
            if guarded:
                self._expect_no_files(f"after life {self.lives}")
        elif guarded:
            self._violated(f"{_names(left)} outlived life {self.lives} of the host by {OUTLIVED:g} s")
        else:
            self._tell("left for the next host", _names(left))
            self._swept.append(self._token)

    def _forget_empty_folders(self) -> None:
        """Remove what a host leaves that is killed in its first moments: before it had a guardian, and any journal."""
        for folder, _, _ in os.walk(self._folder / "tmp", topdown=False):
            if folder != str(self._folder / "tmp"):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)

    def _expect_nothing(self, token: str, when: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while left := look(token):
            if time.monotonic() >= until:
                self._violated(f"{_names(left)} was left {when}")
                for process, _ in left:
                    try:
                        process.kill()  # of ours alone: it has the run's own word in its environment
                    except psutil.NoSuchProcess:
                        pass
                return
            time.sleep(_PAUSE)

    def _expect_no_files(self, when: str) -> None:
        until = time.monotonic() + _FILES
        while left := sorted(path.name for path in (self._folder / "tmp").iterdir()):
            if time.monotonic() >= until:
                self._violated(f"{', '.join(left)} was left in the temporary folder {when}")
                return
            time.sleep(_PAUSE)

    def _violated(self, text: str) -> None:
        self.violations.append(text)
        self._tell("VIOLATION", text)


def _names(left: list[Found]) -> str:
    return ", ".join(f"{role} {process.pid}" for process, role in left)
