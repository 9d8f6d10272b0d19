"""One service: one process after the other on the same port, as its table says."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from orchestrator import _liveness, _state
from orchestrator._child_process import Child, Exit
from orchestrator._health import DUMP_TIME, read_stack
from orchestrator._policy import ServiceGuard
from orchestrator._resources import megabytes
from orchestrator._service_address import Address
from orchestrator._service_hearing import ServiceHearing
from orchestrator._service_history import History
from orchestrator._service_run import Run
from orchestrator._service_spec import ServiceState
from orchestrator._service_watch import Watch
from orchestrator._spawn import NoSpawn
from orchestrator._statistics import ServiceStatistics
from orchestrator.exceptions import ConfigurationError, LaunchError, SelfSpawnError, ServiceFailed, SupervisorClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator._models import DeathCertificate
    from orchestrator._service_plan import Plan
    from orchestrator._services import Services

# What nobody outside has to tell apart: between two processes, and on the way down to come up again.
_SEEN_AS = {"down": "backoff", "restarting": "stopping"}
# For reading what came while something held up our loop.
_READ_TIME = 0.1


class Runner:
    """One service of a supervisor, on the engine's loop.

    Args:
        plan: What is started.
        house: The supervisor's services.
        dependencies: Those that must be ready before it is started.

    Attributes:
        reason: Why it is in its state; empty where there is nothing to explain.
        generation: How often it was started.
        history: What happened to it.
    """

    def __init__(self, plan: Plan, house: Services, dependencies: Sequence[Runner]) -> None:
        self.plan = plan
        self.name = plan.name
        self.dependencies = dependencies
        self.life = _state.Life(_state.SERVICE, f"service {plan.name}", "waiting")
        self.reason = ""
        self.generation = 0
        self.restarts = 0
        self.child: Child | None = None
        self.last_death: DeathCertificate | None = None
        self.history = History()
        self._spec = plan.service
        self._house = house
        self._loop = house.loop
        self._guard = ServiceGuard(self._spec.restart, random.random)
        self._address = Address(self._spec.host, self._spec.port, house.in_thread)
        self._watch: Watch | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._asked = False  # somebody wants it started again: that is no failure of its own
        self._closed = self._doomed = False
        self._run = Run(0.0)

    # Looking

    @property
    def state(self) -> str:
        return _SEEN_AS.get(self.life.state, self.life.state)

    @property
    def is_ready_now(self) -> bool:
        return self.life.state in ("ready", "unhealthy")

    def statistics(self) -> ServiceStatistics:
        return ServiceStatistics(
            name=self.name,
            state=self.state,
            reason=self.reason,
            pid=None if self.child is None else self.child.pid,
            host=self._spec.host,
            port=self._address.port,
            url=self._address.url,
            generation=self.generation,
            restarts=self.restarts,
            last_death=self.last_death,
        )

    def _lacking(self) -> str:
        """Return what it must wait for, as a sentence; empty when there is nothing."""
        for other in self.dependencies:
            if not other.is_ready_now:
                why = f", {other.reason}" if other.reason else ""
                return f"it depends on {other.name!r}, which is {other.state}{why}"
        return ""

    def hopeless(self) -> ServiceFailed | None:
        """Return the error for who waits for it to be ready, if it will not be by itself."""
        if self.life.state in ("failed", "stopped"):
            return ServiceFailed(self.name, self.state, self.reason, self.last_death)
        for other in self.dependencies if self.life.state == "waiting" else ():
            problem = other.hopeless()
            if problem is not None:
                return ServiceFailed(self.name, "waiting", self._lacking(), problem.certificate)
        return None

    # Waiting

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, which changes only with its state or its reason, or it is closed."""
        while not holds() and not self._closed:
            waiter = self._loop.create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    async def wait_ready(self) -> None:
        """Return when it is ready.

        Raises:
            ServiceFailed: If it will not be.
        """
        await self.until(lambda: self.life.state == "ready" or self.hopeless() is not None)
        problem = self.hopeless()
        if problem is not None:
            raise problem
        if self.life.state != "ready":
            raise ServiceFailed(self.name, "stopped", "the supervisor was closed", self.last_death)

    async def wait_ready_within(self, bound: float | None) -> None:
        """As `wait_ready`, but raise TimeoutError after so many seconds, which says what it is doing instead."""
        try:
            async with asyncio.timeout(bound):
                await self.wait_ready()
        except TimeoutError:
            why = self.reason or self._run.problem
            text = f"service {self.name!r} is not ready after {bound:g} s, but {self.state}{why and ': '}{why}"
            raise TimeoutError(text) from None

    # Moving

    def _step(self, event: str, reason: str = "") -> None:
        """Take a step of its life, do what that asks for, and tell."""
        before = self.state
        effects = self.life.step(event, self._loop.time())
        state = self.state
        if state != before or reason:
            self.reason = reason
        if state != before:
            self.history.push(ServiceState(previous=before, state=state, reason=self.reason))
        for effect in effects:
            getattr(self, f"_{effect}")()
        self._changed()

    def _changed(self) -> None:
        """Tell who waits for it."""
        self.wake()
        self._house.moved(self)

    def wake(self) -> None:
        """Have those who wait look again."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def begin(self) -> None:
        """Start it, or have it wait for what it depends on."""
        before = self.life.state
        problem = await self._address.reserve()
        if self.life.state != before or self._closed:
            return  # it was stopped meanwhile
        if problem:
            self._fail(problem)
        else:
            self._start()

    def consider(self) -> None:
        """Start it if it only waited for what it depends on."""
        if self.life.state == "waiting" and self._address.is_there:
            self._start()

    def _start(self) -> None:
        """Start it if what it depends on is ready."""
        self._disarm()
        lacking = self._lacking()
        if not lacking:
            self._step("start")
        elif self.life.state != "waiting":
            self._step("hold", lacking)
        elif self.reason != lacking:
            self.reason = lacking
            self._changed()

    def _fail(self, reason: str) -> None:
        self._step("fail", reason)
        self.log("service.failed", "error", reason=reason)

    # One process

    def _spawn(self) -> None:
        self.generation += 1
        self.restarts += self.generation > 1
        self._run = Run(self._loop.time())
        if self._spec.ready == "message":
            self._run.problem = "it has not called child.ready()"
        self._asked = False
        self._house.start_soon(self._live)

    async def _live(self) -> None:
        """Start a process and stay with it until nothing of it is left."""
        # Here, where what it raises, a fault of ours, ends the engine, and leaves nobody waiting.
        child = self.child = self._house.make_child(self, self._address.port)
        self._hearing = ServiceHearing(self, child, self._house.talk)
        try:
            await self._address.lend()
            await child.start()
        except (NoSpawn, LaunchError, ConfigurationError) as error:
            self._run.cause = self._run.cause or "start"
            self._run.detail = str(error)
            self._house.guarded(self.died, child, Exit(None, None))
            self._buried(child, final=isinstance(error, NoSpawn | SelfSpawnError | ConfigurationError))
            return
        self.log("service.started", pid=child.pid, port=self._address.port)
        if self.life.state != "starting":  # stopped while it was being spawned
            child.kill()
        else:
            self._wait_for_start(cast("float", self._spec.start_timeout))
            self._watch = Watch(self._spec, self._address, self)
            self._house.start_soon(self._watch.run)
            if self.plan.order is None:
                self.runs()
        await child.live()
        self._buried(child)

    def runs(self) -> None:
        """Its process runs: that is all there is to wait for, if nobody is asked and it says nothing."""
        if self._spec.ready is None and self._spec.port is None:
            self.is_ready()

    def serves(self) -> None:
        """Its child says that it is ready."""
        if self._spec.ready == "message":
            self.is_ready()

    def _wait_for_start(self, bound: float) -> None:
        self._disarm()
        self._timer = self._loop.call_later(bound, self._start_too_long, self._loop.time() + bound)

    def _start_too_long(self, due: float) -> None:
        bound = cast("float", self._spec.start_timeout)
        late = self._loop.time() - due
        if _liveness.is_late(late):
            # What held us up held up the questions too: it may be ready.
            self._wait_for_start(bound if _liveness.is_stall(late) else _READ_TIME)
            return
        last = f"; {self._run.problem}" if self._run.problem else ""
        self._kill_unwell("start", f"it was not ready within {bound:g} s{last}")

    def _kill_for(self, cause: str, detail: str) -> None:
        self._run.cause, self._run.detail = cause, detail
        self._step("kill", detail)

    def _kill_unwell(self, cause: str, detail: str) -> None:
        """Kill it for not answering, once it had the time to write down where it is."""
        if self._doomed or self.child is None:
            return  # one bad answer may follow the other more quickly than that
        self._doomed = True
        self.child.dump_stack()
        self._loop.call_later(DUMP_TIME, self._kill_dumped, self.child, cause, detail)

    def _kill_dumped(self, child: Child, cause: str, detail: str) -> None:
        self._doomed = False
        if child is self.child and self.life.state in ("starting", "unhealthy"):
            self._run.stack = read_stack(child.stack_path())
            self._kill_for(cause, detail)

    # What the watch says

    def not_yet(self, problem: str) -> None:
        """It is not ready: keep why."""
        self._run.problem = problem

    def is_ready(self) -> None:
        """It is ready, whoever found out."""
        if self.life.state == "starting":
            self._step("ready")

    def _welcome(self) -> None:
        self._disarm()
        self._run.ready_at = self._loop.time()
        if self._watch is not None:
            self._watch.began_to_serve()
        took = round(self._run.ready_at - self._run.began, 3)
        self.log(
            "service.ready", pid=None if self.child is None else self.child.pid, port=self._address.port, seconds=took
        )

    def is_well(self) -> None:
        """A health check was answered well."""
        if self.life.state == "unhealthy":
            self._step("well")
            self.log("service.recovered")

    def is_sick(self, problem: str, times: int) -> None:
        """A health check failed, so many times in a row."""
        if not self.is_ready_now or self._spec.health is None:
            return
        self.log("service.unhealthy", "warning", reason=problem, times=times)
        if self.life.state == "ready":
            self._step("sick", problem)
        if times >= self._spec.health.failures:
            checks = f"{times} health checks in a row" if times > 1 else "its health check"
            self._kill_unwell("health", f"{checks} failed: {problem}")

    def weighed(self, memory: int) -> None:
        """Hear how much memory it has with all its descendants."""
        self._run.peak = max(memory, self._run.peak or 0)
        most = self._spec.max_rss
        if most is not None and memory > most and self.is_ready_now:
            detail = f"it had {megabytes(memory)} of memory with its descendants; max_rss is {megabytes(most)}"
            self._run.cause, self._run.detail = "recycled", detail
            self._step("restart", detail)

    # Ending it

    def _ask(self) -> None:
        self._disarm()
        if self._watch is not None:
            self._watch.end()
        if self.child is not None:
            if self.plan.order is None:
                self.child.terminate()
            else:
                self.child.send({"type": "stop"})
        self._timer = self._loop.call_later(cast("float", self._spec.stop), self._ask_no_more)

    def _ask_no_more(self) -> None:
        self.log("service.stop_took_long", "warning", seconds=self._spec.stop)
        self._step("kill")

    def _kill(self) -> None:
        self._disarm()
        if self._watch is not None:
            self._watch.end()
        if self.child is not None:
            self.child.kill()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def ask_to_stop(self) -> None:
        """Stop it, for good unless somebody restarts it."""
        state = self.life.state
        if state in ("stopping", "stopped"):
            return
        self._disarm_backoff()
        self._run.cause = self._run.cause or "stopped"
        self._step("stop", "it was stopped")
        if self.life.state == "stopped":
            self.log("service.stopped")

    def _disarm_backoff(self) -> None:
        if self.life.state == "backoff":
            self._disarm()

    def kill(self) -> None:
        """Kill it, and never start it again: the engine ends."""
        self.ask_to_stop()
        if self.life.state == "stopping" and self.child is not None:
            self._step("kill")

    async def restart(self) -> None:
        """Start it anew, whatever it does; returns when the old process is gone and the next one begins."""
        await self.until(lambda: self.life.state != "stopping")
        generation, state = self.generation, self.life.state
        if self._house.closing:
            raise SupervisorClosed("the supervisor is closing; it starts no service")
        self._asked = True
        self._guard.reset()
        if state in ("starting", "ready", "unhealthy"):
            self._run.cause = "recycled"
            self._step("restart", "somebody asked for a restart")
        elif state == "backoff":
            self._start()
        elif state in ("failed", "stopped"):
            await self.begin()
        await self.until(lambda: self.generation > generation or self.life.state in ("waiting", "failed", "stopped"))

    def close(self) -> None:
        """Let go of its port, and of who reads about it."""
        self._closed = True
        self._disarm()
        self._address.close()
        self.history.close()
        self.wake()

    # Hearing (what `ChildOwner` asks for)

    def received(self, child: Any, lines: list[bytes], oversized: list[bytes]) -> None:
        """Act on lines of the protocol."""
        if child is self.child:
            # From a transport, which would close the pipe for what is raised here, and go on.
            self._house.guarded(self._hearing.received, lines)

    def printed(self, child: Any, lines: list[str], dropped: int, stream: str = "stderr") -> None:
        """Pass on what came through a pipe."""
        self._hearing.printed(lines, dropped, stream)

    def misbehave(self, detail: str) -> None:
        """Kill a child that does not keep to the protocol."""
        if (self.life.state, "kill") in _state.SERVICE:
            self._kill_for("protocol", detail)

    def explain(self, detail: str) -> None:
        """Keep a sentence for the death certificate: the first one, for the others follow from it."""
        self._run.detail = self._run.detail or detail

    def is_freed(self) -> None:
        """Nothing: it is never an inline child."""

    def died(self, child: Any, end: Exit) -> None:
        """Note how the process ended; nothing is started before all of it is gone."""
        self._disarm()
        if self._watch is not None:
            self._watch.end()
            self._watch = None
        run = self._run
        self.last_death = certificate = run.certify(
            self.name, self.generation, child, end, self._house.ran_out_of_memory
        )
        self.child = None
        if not run.is_planned:
            told = {"reason": certificate.reason, "detail": run.detail or None}
            self.log("service.died", "warning", pid=child.pid, exit_code=end.code, signal=end.signal, **told)
        self._step("died", self.reason if run.is_planned else f"it {certificate._end()}")

    def _buried(self, child: Child, *, final: bool = False) -> None:
        """Nothing of the process is left: go on."""
        if child.survivors:
            if self.last_death is not None:
                self.last_death = replace(self.last_death, survivors=child.survivors)
            self._house.survived(self, child.survivors)
        self._address.take_back()
        if self.life.state == "stopping":
            self._step("buried", self.reason)
            self.log("service.stopped")
        elif final:
            self._fail(self._run.detail)
        else:
            self._go_on(child)

    def _go_on(self, child: Child) -> None:
        """Start it again, now or later, or give it up."""
        reason = self.reason
        if self._house.closing:
            self._step("stop", reason)
            self._step("buried", reason)
            return
        delay: float | None = 0.0
        ready_at, now = self._run.ready_at, self._loop.time()
        if not self._asked and not (ready_at is None and self._address.gave_way(child.stderr.tail())):
            delay = self._guard.ended(now, None if ready_at is None else now - ready_at)
        if delay is None:
            times = f"it ended {self._guard.ends} times, most recently: " if self._guard.ends > 1 else ""
            self._fail(f"{times}{reason}")
            return
        self.log("service.restarting", delay=round(delay, 2) or None, reason=reason)
        if delay <= 0:
            self._start()
            return
        self._step("wait", reason)
        self._timer = self._loop.call_later(delay, self._start)

    def kill_now(self) -> None:
        """Kill its process and all that it started, without waiting."""
        if self.child is not None and self.child.killset is not None:
            with contextlib.suppress(OSError):
                self.child.killset.kill_now()

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        self._house.log(event, level, service=self.name, generation=self.generation, **fields)
