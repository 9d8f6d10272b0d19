"""All services of one supervisor: who depends on whom, in which order they are stopped, how large they are."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator._child_process import Child
from orchestrator._foreign_child import ForeignChild
from orchestrator._memory import OFTEN, Sampler
from orchestrator._service_runner import Runner
from orchestrator.exceptions import ConfigurationError, SupervisorClosed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator._guarded_loop import GuardedLoop
    from orchestrator._killset import Identity
    from orchestrator._logs import Logger
    from orchestrator._pool import Pool
    from orchestrator._recipe import Recipe
    from orchestrator._service_plan import Plan
    from orchestrator._statistics import ServiceStatistics
    from orchestrator._talk import Talk


class Services:
    """The services, by name, in the order in which they were begun.

    Args:
        loop: The engine's loop.
        logger: Where lines go.
        start_soon: Runs a coroutine in the engine's task group.
        pool: Knows of memory that ran out, and of processes that could not be killed.
        talk: Passes on lines of children.
        recipe: What the supervisor's children are started with.

    Attributes:
        closing: None is started any more.
    """

    def __init__(
        self,
        loop: GuardedLoop,
        logger: Logger,
        start_soon: Callable[..., None],
        pool: Pool,
        talk: Talk,
        recipe: Recipe,
    ) -> None:
        self.closing = False
        self.loop = loop
        self.guarded = loop.guarded
        self.start_soon = start_soon
        self.talk = talk
        self.log = logger.log
        self.ran_out_of_memory = pool.ran_out_of_memory
        self.in_thread: Callable[..., Awaitable[Any]] = recipe.in_thread
        self._pool = pool
        self._recipe = recipe
        self._name = ""
        self._runners: dict[str, Runner] = {}
        self._sampler: Sampler | None = None

    # What the handles ask for

    async def add(self, plan: Plan) -> Runner:
        """Begin a service.

        Raises:
            ConfigurationError: If there is one of its name, or none that it depends on.
            SupervisorClosed: If none is started any more.
        """
        if self.closing:
            raise SupervisorClosed("the supervisor is closing; it starts no service")
        if plan.name in self._runners:
            raise ConfigurationError("service.name", f"there is a service {plan.name!r} already")
        for name in plan.service.depends_on:
            if name not in self._runners:
                known = ", ".join(map(repr, self._runners)) or "none"
                problem = f"there is no service {name!r} yet; there are: {known}"
                raise ConfigurationError(f"service {plan.name!r}: depends_on", problem)
        runner = Runner(plan, self, [self._runners[name] for name in plan.service.depends_on])
        self._runners[plan.name] = runner
        if plan.service.max_rss is not None:
            self._weigh()
        await runner.begin()
        return runner

    async def stop(self, plan: Plan) -> None:
        """Stop a service; before it those that depend on it."""
        runner = self._find(plan)
        if runner is not None:
            await self._stop(runner)

    async def remove(self, plan: Plan) -> None:
        """Stop a service for good; afterwards its name and its port are free."""
        runner = self._find(plan)
        if runner is None:
            return
        await self._stop(runner)
        if self._find(plan) is not None:
            del self._runners[plan.name]
            runner.close()

    def _find(self, plan: Plan) -> Runner | None:
        runner = self._runners.get(plan.name)
        return runner if runner is not None and runner.plan is plan else None

    async def stop_all(self) -> None:
        """Stop all, each after those that depend on it; none is started any more."""
        self.closing = True
        await asyncio.gather(*(self._stop(runner) for runner in [*self._runners.values()]))

    async def _stop(self, runner: Runner) -> None:
        users = [other for other in self._runners.values() if runner in other.dependencies]
        if users:
            await asyncio.gather(*map(self._stop, users))
        runner.ask_to_stop()
        await runner.until(lambda: runner.life.state == "stopped")

    # What the engine asks for

    def kill(self) -> None:
        """Kill all, at once; none is started any more."""
        self.closing = True
        for runner in self._runners.values():
            runner.kill()

    def kill_now(self) -> None:
        """Kill all processes without waiting: this one is about to end."""
        self.closing = True
        for runner in self._runners.values():
            runner.kill_now()

    def end(self) -> None:
        """Let go of ports, threads and readers."""
        self.closing = True
        for runner in self._runners.values():
            runner.close()
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler.join()

    def statistics(self) -> tuple[ServiceStatistics, ...]:
        """Return a snapshot of each."""
        return tuple(runner.statistics() for runner in [*self._runners.values()])

    # What the runners ask for

    def moved(self, runner: Runner) -> None:
        """A service is in another state: those that wait for it may go on."""
        for other in self._runners.values():
            if runner in other.dependencies:
                self.loop.call_soon(other.consider)
                other.wake()

    def make_child(self, runner: Runner, port: int | None) -> Child:
        """Return the child that is started next."""
        plan = runner.plan
        name = f"{runner.name}-{runner.generation}"
        recipe = replace(self._recipe, env={**(self._recipe.env or {}), **plan.environment_for(port)})
        if plan.service.cwd is not None:
            recipe.cwd = str(plan.service.cwd)
        if plan.order is None:
            recipe.command = plan.command_for(port)
            return ForeignChild(name, recipe, runner)
        recipe.init = {**recipe.init, "preload": [], "service": plan.order_for(port)}
        return Child(name, recipe, runner)

    def survived(self, runner: Runner, pids: tuple[int, ...]) -> None:
        """Some processes of a service could not be killed."""
        self._pool.survivors.extend(pids)
        self.log("child.survived", "error", service=runner.name, pids=list(pids))

    # Memory

    def _weigh(self) -> None:
        if self._sampler is None:
            self._sampler = Sampler(self.loop, self._roots, lambda runner, memory: runner.weighed(memory), OFTEN)
            self._sampler.start("orchestrator-services-memory")

    def _roots(self) -> list[tuple[Runner, Identity]]:
        found = [(runner, runner.child.killset) for runner in self._runners.values() if runner.child is not None]
        return [(runner, killset.root) for runner, killset in found if killset is not None]
