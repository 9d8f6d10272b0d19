"""What callers hold of a service: an async context manager that begins it, tells of it and stops it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

from orchestrator._models import Seconds, seconds
from orchestrator._persist import outlast
from orchestrator.exceptions import SupervisorClosed, WrongContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from orchestrator._link import Link
    from orchestrator._models import DeathCertificate
    from orchestrator._service_plan import Plan
    from orchestrator._service_runner import Runner
    from orchestrator._service_spec import ServiceEvent
    from orchestrator._statistics import ServiceStatistics

__all__ = ("ServiceHandle",)


class ServiceHandle:
    """One service of a supervisor; an async context manager: entering begins the service, leaving stops it.

    Its attributes tell of this moment. It runs, and is started again, whether anybody looks or not.
    """

    def __init__(self, link: Link, plan: Plan) -> None:
        self._link = link
        self._plan = plan
        self._runner: Runner | None = None
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        state = "new" if self._runner is None else self._runner.state
        return f"<Service {self.name!r} {state}>"

    # Beginning and ending

    async def __aenter__(self) -> Self:
        """Begin the service, or have it wait for what it depends on; `wait_ready` waits until it is ready.

        A port that cannot be had makes it `failed`, here and now.

        Raises:
            ConfigurationError: If the supervisor has a service of this name, or not all that this one depends on.
            SupervisorClosed: If the supervisor takes no more services.
        """
        if self._runner is not None:
            raise SupervisorClosed(f"service {self.name!r} was begun already; ask the supervisor for another")
        services = self._link.engine.services
        try:
            self._runner = await self._link.ask(services.add, self._plan)
        except asyncio.CancelledError:
            await self._remove()  # nobody would have it
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._remove()

    async def _remove(self) -> None:
        """Stop it for good, however often this task is cancelled: that takes as long as `stop` says, and a moment."""
        removal = asyncio.ensure_future(self._link.ask(self._link.engine.services.remove, self._plan))
        with contextlib.suppress(SupervisorClosed):
            await outlast(removal)

    # Looking

    @property
    def name(self) -> str:
        """Its name."""
        return self._plan.name

    @property
    def state(self) -> str:
        """`waiting`, `starting`, `ready`, `unhealthy`, `backoff`, `stopping`, `stopped` or `failed`."""
        return self.statistics().state

    @property
    def reason(self) -> str:
        """Why it is in this state, in a sentence; empty where there is nothing to explain."""
        return self.statistics().reason

    @property
    def url(self) -> str | None:
        """Where it is found, the same as long as it lives; None without a port."""
        return self.statistics().url

    @property
    def port(self) -> int | None:
        """Its port, the same as long as it lives."""
        return self.statistics().port

    @property
    def host(self) -> str:
        """The address that it listens on."""
        return self._plan.service.host

    @property
    def pid(self) -> int | None:
        """The process id of its child, while there is one."""
        return self.statistics().pid

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return self.statistics().restarts

    @property
    def last_death(self) -> DeathCertificate | None:
        """How its last child ended."""
        return self.statistics().last_death

    def statistics(self) -> ServiceStatistics:
        """Return a snapshot."""
        return self._begun().statistics()

    def _begun(self) -> Runner:
        if self._runner is None:
            raise SupervisorClosed(f"service {self.name!r} has not begun; use `async with supervisor.service(…)`")
        return self._runner

    def _here(self) -> Runner:
        if asyncio._get_running_loop() is not self._loop:
            raise WrongContext("the service belongs to another event loop or thread; call it there")
        return self._begun()

    # Doing

    async def wait_ready(self, timeout: Seconds | None = None) -> None:
        """Return when the service is ready.

        Args:
            timeout: Seconds.

        Raises:
            ServiceFailed: If it is failed or stopped, or waits for one that is.
            TimeoutError: If it is not ready in time; it goes on starting.
        """
        runner = self._here()
        bound = seconds(timeout, "timeout", exclusive=False)
        try:
            async with asyncio.timeout(bound):
                await self._link.ask(runner.wait_ready)
        except TimeoutError:
            raise TimeoutError(runner.unready(bound or 0.0)) from None

    async def restart(self) -> None:
        """Stop the service's child and start another, on the same port; one that has failed is tried again.

        Returns when the old one is gone and the new one begins.

        Raises:
            SupervisorClosed: If the supervisor is closing.
        """
        await self._link.ask(self._here().restart)

    async def stop(self) -> None:
        """Stop the service, after those that depend on it; `restart` starts it again."""
        self._here()
        await self._link.ask(self._link.engine.services.stop, self._plan)

    async def events(self) -> AsyncIterator[ServiceEvent]:
        """Yield what happens to the service from its beginning, until it is left: changes of state, and its lines.

        Of lines the last thousand are kept for who comes late or is slow. Any number of readers may read.
        """
        runner = self._here()
        seen = 0
        while found := await self._link.ask(runner.history.read, seen):
            for number, event in found:
                seen = number
                yield event
