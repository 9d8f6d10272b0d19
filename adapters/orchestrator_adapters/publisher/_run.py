"""One run of the command: look at the site once, then every pin as a job of its own, within a window."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator import Limit, RetryPolicy, Supervisor
from orchestrator.exceptions import (
    JobCancelled,
    JobError,
    JobFailed,
    JobTimedOut,
    JournalInUse,
    OrchestratorError,
    PoolBroken,
    SupervisorClosed,
)
from orchestrator_adapters.publisher._jobs import PARAMS, RETRY, publish_job
from orchestrator_adapters.publisher._outcomes import (
    DONE,
    class_of,
    first_line,
    line_of,
    of_open,
    of_outcome,
    of_pin,
    of_problem,
    summary_of,
)
from orchestrator_adapters.publisher._pins import Pin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator import Journal, Outcome
    from orchestrator_adapters.playwright import ArtifactPolicy, BrowserOptions
    from orchestrator_adapters.publisher._pins import PinProblem
    from orchestrator_adapters.publisher._profile import Profile

FAILED = 1
USAGE = 2
# EX_TEMPFAIL of sysexits.h: the same command later goes on.
RESUMABLE = 75
INTERRUPTED = 130
LIMIT = "publish"
_UNKNOWN = "indeterminate"
_MOST_TITLE = 60
# What a supervisor is given before it is needed: the next pin is there when a child has done with one.
_AHEAD = 2
# So many pins in a row for one of these reasons, and it is not the pins.
_HOPELESS = 3
_ENVIRONMENT = {"unreachable", "navigation", "proxy", "launch_failed", "site"}
# One such failure stands for all pins that follow: the site let us in before, and does not any more.
_FOR_ALL = {"login"}
_LOOK_TIMEOUT = 180.0
# What says nothing of the site, nor of the browser that was asked for.
_LOOK_AGAIN = RetryPolicy(attempts=3, on=("crash", "BrowserDied", "DriverDied", "PageCrashed"))
# Classes of failures that somebody has to do something about; others may pass by themselves.
_WRONG = {"login", "form", "lookup", "proxy", "launch_failed"}
# `LaunchFailed.reason`: these may.
_PASSING = {"profile_locked", "unreachable", "timeout"}


class RunError(OrchestratorError):
    """Raised when nothing can be published.

    Attributes:
        exit_code: 2 if something has to be changed, 75 if the same command may work later.
    """

    def __init__(self, message: str, exit_code: int = USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run is told, checked.

    Attributes:
        pins: Rows of the table, those that are no pins included.
        profile: Of the site.
        browser: Which browser.
        workers: Children at once.
        dry_run: Press no button.
        journal: Where jobs are kept.
        timeout: Seconds for one attempt.
        retry: When to try again.
        artifacts: What is kept of attempts.
        env: Further variables of children.
        secrets: Variables that only children get.
    """

    pins: Sequence[Pin | PinProblem]
    profile: Profile
    browser: BrowserOptions | None = None
    workers: int = 2
    dry_run: bool = False
    journal: Journal | None = None
    timeout: float = 300.0
    retry: RetryPolicy = RETRY
    artifacts: ArtifactPolicy | None = None
    env: dict[str, str | None] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()


class Run:
    """Publishes the pins of one table; for one call of `execute`.

    Args:
        settings: What is to be done.
        write: Takes what became of each pin.
        say: Shows a line to a person.
        keep: Whether all outcomes are wanted at the end.

    Attributes:
        outcomes: Of all jobs, if they are kept.
    """

    def __init__(
        self,
        settings: Settings,
        write: Callable[[dict[str, Any]], None],
        say: Callable[[str], None],
        *,
        keep: bool = False,
    ) -> None:
        self._settings = settings
        self._write = write
        self._say = say
        self._total = len(settings.pins)
        self._told = 0
        self._counts: Counter[str] = Counter()
        self._room = asyncio.Semaphore(_AHEAD * settings.workers)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop: tuple[str, int] | None = None
        self._stopping = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._supervisor: Supervisor | None = None
        self._in_a_row = 0
        self._keep = keep
        self._unwritten = False
        self.outcomes: list[Outcome] = []

    def interrupt(self, times: int, name: str) -> None:
        """End the run: once when the pins that run are done, twice now."""
        if times == 1:
            self._say(f"{name}: finishing the pins that are being published; once more to stop now")
            self._end("interrupted", INTERRUPTED)
        elif self._closing is None:
            self._end("interrupted", INTERRUPTED, now=True)

    def _end(self, reason: str, exit_code: int, *, now: bool = False) -> None:
        if self._stop is None:
            self._stop = reason, exit_code
        self._stopping.set()
        if now and self._closing is None and self._supervisor is not None:
            # What is not done stays open in the journal: that is not so of jobs that are cancelled one by one.
            self._closing = asyncio.create_task(self._supervisor.aclose(), name="publish: stop")

    async def execute(self) -> int:
        """Publish, and return the exit code.

        Raises:
            RunError: If nothing can be published.
        """
        pins = [row for row in self._settings.pins if isinstance(row, Pin)]
        # First, so that where nothing can be published there is one error, and nothing else.
        boards = await self._look() if pins else None
        for row in self._settings.pins:
            if not isinstance(row, Pin):
                self._tell(of_problem(row))
        pins = self._on_boards(pins, boards)
        if self._stop is not None:
            for pin in pins:
                self._tell(of_open(pin))
        elif pins:
            await self._publish(pins)
        self._sum_up()
        if self._stop is not None:
            return self._stop[1]
        return 0 if all(status in DONE for status in self._counts) else FAILED

    # Before the first pin

    async def _look(self) -> list[str] | None:
        """Open the form once, as the pins will; returns the boards that it offers."""
        from orchestrator_adapters.playwright import BrowserJob

        settings = self._settings
        self._say(f"looking at {settings.profile.url}")
        job = BrowserJob(
            "orchestrator_adapters.publisher._jobs:inspect_site",
            args=(settings.profile.data,),
            browser=settings.browser,
            artifacts=settings.artifacts,
            timeout=_LOOK_TIMEOUT,
            retry=_LOOK_AGAIN,
        )
        options: dict[str, Any] = {"name": "look", "workers": 1, "on_exit": "cancel", "env": settings.env}
        async with Supervisor(**options, secrets=settings.secrets) as supervisor:
            looking = asyncio.ensure_future(supervisor.run(job))
            stopped = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait([looking, stopped], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if not looking.done():
                looking.cancel()
            try:
                found: dict[str, Any] = await looking
            except asyncio.CancelledError:
                if self._stop is None:
                    raise
                return None
            except JobCancelled:
                return None
            except JobFailed as error:
                raise RunError(first_line(error.error.message), _code_of(error)) from None
            except JobTimedOut:
                problem = f"{settings.profile.url} did not show its form within {_LOOK_TIMEOUT:g} s"
                raise RunError(problem, RESUMABLE) from None
            except JobError as error:
                raise RunError(first_line(str(error)), RESUMABLE) from None
        boards: list[str] | None = found["boards"]
        return boards

    def _on_boards(self, pins: list[Pin], boards: list[str] | None) -> list[Pin]:
        """Return the pins whose boards there are; what is wrong with the others is told at once."""
        if boards is None:
            return pins
        known = set(boards)
        good = [pin for pin in pins if not pin.board or pin.board in known]
        for pin in pins:
            if pin.board and pin.board not in known:
                names = ", ".join(boards[:10]) + (", …" if len(boards) > 10 else "")
                problem = f"there is no board {pin.board!r}; there are {names}"
                self._tell(of_pin(pin, "invalid", problem, "board"))
        return good

    # The pins

    async def _publish(self, pins: list[Pin]) -> None:
        settings = self._settings
        workers = min(settings.workers, len(pins))
        supervisor = Supervisor(
            workers=workers,
            name="publish",
            secrets=settings.secrets,
            params={PARAMS: settings.profile.data},
            limits=[_limit(settings.profile, workers)],
            journal=settings.journal,
            env=settings.env,
            on_exit="cancel",
        )
        try:
            async with supervisor:
                self._supervisor = supervisor
                try:
                    for pin in pins:
                        await self._enter()
                        if self._stopping.is_set():
                            self._tell(of_open(pin))
                            continue
                        task = asyncio.create_task(self._publish_one(supervisor, pin), name=f"pin {pin.line}")
                        self._tasks.add(task)
                        task.add_done_callback(self._leave)
                    while self._tasks:
                        await asyncio.wait(self._tasks)
                finally:
                    if self._closing is not None:
                        await self._closing
        except JournalInUse as error:
            raise RunError(str(error), RESUMABLE) from None
        finally:
            self._supervisor = None

    async def _enter(self) -> None:
        """Wait for room in the window, or for the end of the run."""
        if self._stopping.is_set():
            return
        room = asyncio.ensure_future(self._room.acquire())
        stopped = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait([room, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in (room, stopped):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await room

    def _leave(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(first_line(str(error)) or type(error).__name__, FAILED, now=True)

    async def _publish_one(self, supervisor: Supervisor, pin: Pin) -> None:
        settings = self._settings
        tries = rounds = 0
        while True:
            tries += 1
            job = publish_job(
                pin,
                dry_run=settings.dry_run,
                limit=LIMIT,
                browser=settings.browser,
                artifacts=settings.artifacts,
                timeout=settings.timeout,
                retry=settings.retry,
                # What failed in an earlier run is tried anew in this one, as a job of its own.
                key=_name(pin) if tries == 1 else f"{_name(pin)} #{tries}",
            )
            try:
                handle = await supervisor.submit(job)
            except (SupervisorClosed, PoolBroken) as error:
                if not isinstance(error, SupervisorClosed):
                    self._break(error)
                self._tell(of_open(pin))
                return
            ran = False
            async for event in handle.events():
                ran = ran or (event.kind == "state" and event.state == "running")
                if event.kind == "log" and event.level in ("warning", "error", "critical"):
                    self._say(f"line {pin.line}: {first_line(event.text)}")
            outcome = await handle.outcome()
            # What ran here had all its attempts. Only what nobody knows is looked at once more.
            rounds += ran
            if outcome.succeeded or not self._may_try_again(outcome) or rounds > (str(outcome.status) == _UNKNOWN):
                break
        if self._keep:
            self.outcomes.append(outcome)
        self._settled(pin, outcome)

    def _may_try_again(self, outcome: Outcome) -> bool:
        """Return whether a pin that did not make it in an earlier run may be tried in this one."""
        status = str(outcome.status)
        if self._stopping.is_set() or outcome.attempts == 0 or class_of(outcome) == "changed":
            return False
        # Where pins can be looked up, the look that comes first decides what nobody knew then.
        return status != _UNKNOWN or self._settings.profile.has("lookup")

    def _settled(self, pin: Pin, outcome: Outcome) -> None:
        row = of_outcome(pin, outcome, withdrawn=self._closing is not None or self._stop is not None)
        self._tell(row)
        if isinstance(outcome.error, PoolBroken):
            self._break(outcome.error)
        failure_class = row.get("failure_class")
        if failure_class in _FOR_ALL and self._stop is None:
            self._end(row["error"], USAGE, now=True)
        self._in_a_row = self._in_a_row + 1 if failure_class in _ENVIRONMENT else 0
        if self._in_a_row >= _HOPELESS and self._stop is None:
            self._end(f"{self._in_a_row} pins in a row could not be published: {row['error']}", RESUMABLE, now=True)

    def _break(self, error: OrchestratorError) -> None:
        self._end(f"{first_line(str(error))}; see `orchestrator doctor`", RESUMABLE, now=True)

    # Telling

    def _tell(self, row: dict[str, Any]) -> None:
        self._told += 1
        self._counts[row["status"]] += 1
        if not self._unwritten:
            try:
                self._write(row)
            except OSError as error:
                self._unwritten = True
                self._end(f"results cannot be written: {error.strerror or error}", FAILED)
        if row["status"] != "open":
            self._say(line_of(row, self._told, self._total))

    def _sum_up(self) -> None:
        self._say(summary_of(self._counts, self._total))
        if self._stop is not None and self._stop[1] != INTERRUPTED:
            self._say(f"stopped: {self._stop[0]}")
        if self._counts["open"] or (self._stop is not None and self._stop[1] in (RESUMABLE, INTERRUPTED)):
            safe = self._settings.journal is not None or self._settings.profile.has("lookup")
            if safe and not self._settings.dry_run:
                self._say("The same command goes on from here.")


def _name(pin: Pin) -> str:
    """Return what a pin's job is called in journals, logs and reports: its id, or something that people can read."""
    return pin.id or f"{pin.title[:_MOST_TITLE]} [{pin.mark}]"


def _limit(profile: Profile, workers: int) -> Limit:
    """Return the limit under which pins are published; without a rate it only pauses when the site says so."""
    if profile.has("rate"):
        return Limit(LIMIT, rate=profile.get("rate", "pins"), per=float(profile.get("rate", "per", 1.0)))
    return Limit(LIMIT, concurrency=workers)


def _code_of(error: JobFailed) -> int:
    data = error.error.data
    found = data.get("failure_class")
    if found == "launch_failed" and data.get("code") in _PASSING:
        return RESUMABLE
    return USAGE if found in _WRONG else RESUMABLE
