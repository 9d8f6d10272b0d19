"""A worker: a named slot that has one child after the other."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator import _liveness, _state, _wire
from orchestrator._attempt import Attempt
from orchestrator._child_process import Child, Exit
from orchestrator._frames import Logged
from orchestrator._health import Health
from orchestrator._hearing import Hearing
from orchestrator._inline import InlineChild
from orchestrator._leases import Leases
from orchestrator._models import DeathCertificate, Isolation
from orchestrator._spawn import NoSpawn
from orchestrator._statistics import WorkerStatistics
from orchestrator.exceptions import LaunchError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection

    from orchestrator._owners import Desk, Listener, Pool
    from orchestrator._recipe import Recipe
    from orchestrator._record import Record
    from orchestrator._resources import Allowance

# The planned stop's ladder: asked; then stdin closed and SIGTERM; then killed. Ten seconds in all.
_STOP_ASK = 5.0
_STOP_TERM = 3.0
# A child that says again and again that it is still starting is believed for so long in all: ten minutes cover what
# is really loaded, and a start that hangs must end.
_LONGEST_START = 600.0
# For reading what came while something held up our loop.
_READ_TIME = 0.1


class Worker:
    """One slot.

    Attributes:
        flavour: What its child's main thread is set up for; None until the first job decides.
        retiring: It gets no new child, and is dropped when it is down.
        turning: Its child is to be replaced by one of another flavour as soon as it is idle.
        cleaning: Processes that a cancelled job left behind are being killed; no new job until they are gone.
        health: The condition of its child.
        spare: It takes no jobs; its child is kept for another worker's place.
        isolation: What its child, or the last one, is in.
    """

    def __init__(self, name: str, pool: Pool, desk: Desk, talk: Listener, recipe: Recipe, allowance: Allowance) -> None:
        self.name = name
        self.pool = pool
        self.desk = desk
        self.talk = talk
        self.grace = pool.grace
        self.life = _state.Life(_state.WORKER, f"worker {name}", "down")
        self.flavour: str | None = None
        self.generation = 0
        self.restarts = 0
        self.jobs_done = 0
        self.retiring = False
        self.turning = False
        self.cleaning = False
        self.spare = False
        self.child: Child | InlineChild | None = None
        self.leases: Leases | None = None
        self.last_death: DeathCertificate | None = None
        self.start_timer: asyncio.TimerHandle | None = None
        self.isolation: Isolation = "inline" if recipe.inline else "process"
        self._recipe = recipe
        self._allowance = allowance
        self._loop = pool.loop
        self.health = Health(self, None, allowance, self._loop)
        self._reason = ""
        self._detail = ""
        self._timer: asyncio.TimerHandle | None = None
        self._start_began = 0.0
        self._hearing: Hearing | None = None
        self._was_ready = False
        self._outbox: list[bytes] = []
        self._flushing = False
        self._last_child: Child | InlineChild | None = None

    # Looking

    @property
    def state(self) -> str:
        return self.life.state

    @property
    def is_blocked(self) -> bool:
        """Whether its last child, an inline one, was given up and has not left: no other is started before that."""
        return self._last_child in self._recipe.abandoned

    @property
    def last_heard(self) -> str:
        """The type of the last frame that the child sent."""
        return "" if self._hearing is None else self._hearing.last

    @property
    def held(self) -> int:
        return 0 if self.leases is None else len(self.leases)

    def is_open(self) -> bool:
        """Return whether its child takes jobs."""
        return (
            self.life.state == "ready"
            and not self.turning
            and not self.cleaning
            and not self.health.suspect
            and not self.health.use.worn
        )

    @property
    def is_fresh(self) -> bool:
        """Whether its child, or the next one, has been given no job yet."""
        return self.life.state in ("down", "backoff", "starting") or not self.health.use.given

    def takes(self, record: Record) -> bool:
        """Return whether its child may be sent this job now."""
        if not self.is_open() or self.leases is None or (record.is_on_probation and not self.is_fresh):
            return False
        if self.flavour is not None and self.flavour != record.target.flavour:
            return False
        return self.leases.takes(record)

    def slots_for(self, record: Record) -> int:
        """Return how many such jobs could start in its child right now, none of them waiting behind another."""
        if not self.takes(record) or (self.held and self.flavour != "async"):
            return 0
        return self.pool.slots - self.held if record.target.is_async and not record.suspect else 1

    def could_serve(self, record: Record) -> bool:
        """Return whether its child will take such a job sooner or later."""
        if self.life.state in ("down", "backoff", "starting"):
            return not self.retiring and not self.is_blocked
        matches = self.flavour is None or self.flavour == record.target.flavour
        return self.life.state == "ready" and matches and not self.turning

    def statistics(self) -> WorkerStatistics:
        state = self.life.state
        if state == "ready":
            state = "suspect" if self.health.suspect else "busy" if self.held else "spare" if self.spare else "ready"
        return WorkerStatistics(
            name=self.name,
            state="stopping" if state == "dying" else state,
            pid=None if self.child is None else self.child.pid,
            flavour=self.flavour,
            generation=self.generation,
            restarts=self.restarts,
            running=self.held,
            jobs_done=self.jobs_done,
            last_death=self.last_death,
            isolation="inline" if self.child is None and self._recipe.inline else self.isolation,
        )

    # Doing

    def step(self, event: str) -> None:
        """Take a step of its life and do what that asks for."""
        effects = self.life.step(event, self._loop.time())
        if self._recipe.trace is not None:
            self._recipe.trace("worker.stepped", worker=self.name, step=event, state=self.life.state)
        for effect in effects:
            getattr(self, f"_{effect}")()

    def _spawn(self) -> None:
        if self.start_timer is not None:
            self.start_timer.cancel()
            self.start_timer = None
        self.generation += 1
        self.flavour = None
        self.jobs_done = 0
        self._reason = self._detail = ""
        self._was_ready = self.turning = self.cleaning = False
        self._start_began = self._loop.time()
        self._outbox.clear()
        self.isolation = "inline" if self._recipe.inline else "process"
        kind = InlineChild if self._recipe.inline else Child
        self.child = kind(f"{self.name}-{self.generation}", self._recipe, self)
        self.health = Health(self, self.child, self._allowance, self._loop)
        self.leases = Leases(self, self.child, self.pool.slots)
        self._hearing = Hearing(self, self.child, self.leases)
        self.pool.run_child(self, self.child)

    async def run_child(self, child: Child | InlineChild, born: Callable[[Exception | None], None]) -> None:
        """Start the child and stay with it until it is buried.

        Args:
            child: What `_spawn` made.
            born: Called once, when there is a process, or with the reason why there is none.
        """
        try:
            await child.start()
        except (NoSpawn, LaunchError) as error:
            self._reason, self._detail = "start", str(error)
            self.died(child, Exit(None, None))
            born(error)
            return
        born(None)
        if self.life.state == "starting":
            self._wait_for_start(self.pool.start_timeout)
        self.pool.log("worker.child_started", worker=self.name, generation=self.generation, pid=child.pid)
        if self.life.state != "starting":  # stopped or killed while it was being spawned
            child.kill()
        await child.live()
        if child.survivors and self.last_death is not None and self.last_death.pid == child.pid:
            self.last_death = replace(self.last_death, survivors=child.survivors)
        self.pool.child_buried(self, child)

    def _wait_for_start(self, bound: float) -> None:
        self._disarm()
        self._timer = self._loop.call_later(bound, self._start_too_long, self._loop.time() + bound)

    def _start_too_long(self, due: float) -> None:
        late = self._loop.time() - due
        if _liveness.is_late(late):
            # What held us up held up the reading too: it may have said that it is ready.
            self._wait_for_start(self.pool.start_timeout if _liveness.is_stall(late) else _READ_TIME)
            return
        longest = max(_LONGEST_START, self.pool.start_timeout)
        bound = longest if self._loop.time() - self._start_began >= longest else self.pool.start_timeout
        self._detail = f"it was not ready within {bound:g} s"
        self.kill("start")

    def _welcome(self) -> None:
        self._was_ready = True
        self._disarm()
        self.health.begin(watched=self.isolation == "process")
        self.pool.child_ready(self)

    def lease(self, record: Record) -> None:
        """Give the child a job that it `takes`; `flush` sends it."""
        assert self.leases is not None
        record.state = "running"
        record.attempts += 1
        record.isolation = self.isolation
        attempt = record.attempt = Attempt(self.desk.leased(record), record, self, self._loop)
        if self.health.use.give():
            self._loop.call_soon(self.pool.relieve, self)
        if self.flavour is None and record.target.kind is not None:
            self.flavour = record.target.flavour
        frame = self.desk.sending(attempt, self.leases.add(attempt))
        if frame:
            self._outbox.append(frame)

    def flush_soon(self) -> None:
        """Send what was leased in this turn of the loop, at its end."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what was leased."""
        self._flushing = False
        if self._outbox and self.child is not None:
            self.child.deliver(b"".join(self._outbox) if len(self._outbox) > 1 else self._outbox[0])
        self._outbox.clear()

    def send_spilled(self, attempt: Attempt, path: str) -> None:
        """Send the job whose payload is in a file now."""
        if self.leases is not None and attempt.fence in self.leases.held and self.child is not None:
            self.child.deliver(self.leases.spilled(attempt, path))

    def send_bytes(self, frame: bytes) -> None:
        """Send an attempt's frame that had to wait."""
        self._outbox.append(frame)
        self.flush()

    def send(self, frame: dict[str, Any]) -> None:
        """Send a frame, if there is a child; after the jobs that were leased before, which it may be about."""
        if self._outbox:
            self.flush()
        if self.child is not None:
            self.child.send(frame)

    def stop(self) -> None:
        """Stop the child as planned, if there is one."""
        if self.start_timer is not None:
            self.start_timer.cancel()
            self.start_timer = None
        if self.life.state == "backoff":
            self.step("rest")
        elif self.life.state in ("starting", "ready"):
            self._reason = self._reason or "stopped"
            self.step("stop")

    def recycle(self) -> None:
        """Replace the child by a fresh one when there is work for it."""
        if self.life.state == "ready":
            self.pool.relieve(self)
            self._reason = "recycled"
            self.step("stop")

    def retire(self) -> None:
        """Finish what the child has, then be no more."""
        self.retiring = self.turning = True
        if self.life.state == "ready":
            self.settle_down()
        else:
            self.stop()

    def settle_down(self) -> None:
        """Recycle an idle child that has done its share, or that is of the wrong flavour."""
        if (self.health.use.worn or self.turning) and not self.held and not self.cleaning:
            self.recycle()

    def kill(self, reason: str) -> None:
        """Kill the child and all that it started."""
        if self.life.state in ("starting", "ready", "stopping", "dying"):
            self._reason = self._reason if self.life.state == "dying" else reason
            self.step("kill")

    def _ask_to_stop(self) -> None:
        self._disarm()
        self.send({"type": "stop"})
        self._timer = self._loop.call_later(_STOP_ASK, self._stop_harder)

    def _stop_harder(self) -> None:
        self._disarm()
        assert self.child is not None
        self.child.end_input()
        self.child.terminate()
        self._timer = self._loop.call_later(_STOP_TERM, self.kill, self._reason)

    def _kill(self) -> None:
        self._disarm()
        if self.child is not None:
            self.child.kill()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def dump_stack(self) -> None:
        """Have the child write its stack to a file, even if it holds the GIL."""
        if self.child is not None:
            self.child.dump_stack()

    def read_stack(self) -> str:
        """Return what `dump_stack` brought, as a traceback; empty when it brought nothing."""
        return self.health.read_stack()

    def pardon(self) -> None:
        """Hold no silence up to now against the child or its jobs: it was we who did not listen."""
        self.health.pardon()
        for attempt in () if self.leases is None else self.leases.held.values():
            if attempt.begun:
                attempt.heard()

    # Hearing (what `ChildOwner` asks for)

    def received(self, child: Child | InlineChild, lines: list[bytes], oversized: list[bytes]) -> None:
        """Act on lines of the protocol."""
        if child is self.child:
            # From a transport, which would close the pipe for what is raised here, and go on.
            self._loop.guarded(self._hear, lines, oversized)

    def _hear(self, lines: list[bytes], oversized: list[bytes]) -> None:
        if self._hearing is not None:
            health = self.health
            if health.pulse is not None:
                health.spoke(health.pulse)
            self._hearing.received(lines, oversized)
            self.settle_down()
            self.pool.has_room(self)

    def printed(self, child: Child | InlineChild, lines: list[str], dropped: int) -> None:
        """Log what came through the stderr pipe; it is the job's if only one ran."""
        attempt = None
        if child is self.child and self.leases is not None:
            running = [attempt for attempt in self.leases.held.values() if attempt.begun]
            attempt = running[0] if len(running) == 1 else None
        for line in lines:
            self.talk.logged(self, attempt, Logged(text=line, stream="stderr", dropped=dropped))
            dropped = 0
        if dropped:
            self.talk.logged(self, attempt, Logged(text="", stream="stderr", dropped=dropped))

    def is_ready(self) -> None:
        """Take a step, for the child said that it takes jobs."""
        self.step("ready")

    def needs_longer(self) -> None:
        """Wait longer for the child to be ready: it says that it is busy starting."""
        if self.life.state == "starting":
            left = self._start_began + max(_LONGEST_START, self.pool.start_timeout) - self._loop.time()
            self._wait_for_start(max(0.0, min(self.pool.start_timeout, left)))

    def explain(self, detail: str) -> None:
        """Keep a sentence for the death certificate: the first one, for the others follow from it."""
        self._detail = self._detail or detail

    def is_spent(self, reason: str) -> None:
        """Give the child no more jobs, and replace it: what it ran has left something that others cannot stand."""
        self.pool.log("worker.child_spent", worker=self.name, generation=self.generation, reason=reason)
        self.health.wear_out()

    def misbehave(self, detail: str) -> None:
        """Kill a child that does not keep to the protocol."""
        self.explain(detail)
        self.kill("protocol")

    def died(self, child: Child | InlineChild, end: Exit) -> None:
        """Settle what the child leaves behind."""
        self._disarm()
        health = self.health
        health.end()
        assert self.leases is not None
        planned = self.life.state in ("stopping", "dying") and self._reason in ("stopped", "recycled")
        ran, waiting = self.leases.close()
        phase = "stopping" if planned else "starting" if not self._was_ready else "running" if ran else "idle"
        certificate = DeathCertificate(
            worker=self.name,
            generation=self.generation,
            pid=child.pid,
            reason=self._reason_of(child, end),
            exit_code=end.code,
            signal=end.signal,
            uptime=time.monotonic() - child.born,
            phase=phase,
            detail=self._detail,
            last_progress=next((attempt.record.progress for attempt in ran if attempt.record.progress), None),
            stderr=child.stderr.tail(),
            stack=health.stack,
            peak_memory=health.use.peak,
            survivors=child.survivors,
        )
        self.last_death = certificate
        self._last_child = child
        self.child = self.leases = self._hearing = None
        self.flavour = None
        self.step("died")
        for attempt in (*ran, *waiting):
            attempt.over()
        # In front of the line again, in their order.
        for attempt in reversed(waiting):
            self.desk.returned(attempt)
        if ran:
            self.desk.crashed(ran, certificate, child.buried)
        self.pool.child_died(self, certificate, was_ready=self._was_ready, blameless=bool(ran) or planned)

    def _reason_of(self, child: Child | InlineChild, end: Exit) -> str:
        if self._reason:
            return self._reason
        if child.closed_early or end.code == _wire.EXIT_PROTOCOL:
            self._detail = self._detail or "it closed its side of the protocol"
            return "protocol"
        if end.signal == "SIGKILL" and self.pool.ran_out_of_memory():
            self._detail = self._detail or "the kernel killed it for want of memory (its own count says so)"
            return "oom"
        return "signal" if end.signal is not None else "exit"

    def take_back(self, attempt: Attempt) -> None:
        """Drop an attempt that was never sent."""
        if self.leases is not None:
            self.leases.remove(attempt.fence)

    def is_freed(self) -> None:
        """Take other jobs, or make room for a fresh child, after a job went that the child says nothing of."""
        if self.child is not None:
            self.settle_down()
        self.pool.has_room(self)

    async def kill_strays(self, moment: float, keep: Collection[int], timeout: float) -> tuple[int, ...]:
        """Kill what a job left behind in a child that lives on; the child gets no job meanwhile.

        Returns:
            Those that could not be killed.
        """
        child = self.child
        try:
            return () if child is None else await child.kill_started_since(moment, keep, timeout)
        finally:
            if child is self.child:  # another one may be having its own cleaned up
                self.cleaning = False
                self.settle_down()
                self.pool.has_room(self)

    def has_strays(self, moment: float, keep: Collection[int]) -> bool:
        """Return whether the child may have left something that was started since a moment, on the kill set's clock."""
        if self.child is None or self.child.killset is None:
            return False
        # A browser that is kept starts processes of its own whenever it likes: those are none of the job's.
        return self.child.killset.may_have_left(moment, set(keep))
