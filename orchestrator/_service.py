"""What callers hold of a service: an async context manager that begins it, tells of it and stops it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

from orchestrator._models import Seconds, seconds
from orchestrator._persist import outlast
from orchestrator._service_view import ServiceView
from orchestrator.exceptions import SupervisorClosed, WrongContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from orchestrator._link import Link
    from orchestrator._service_plan import Plan
    from orchestrator._service_runner import Runner
    from orchestrator._service_spec import ServiceEvent

__all__ = ("ServiceHandle",)


class ServiceHandle(ServiceView):
    """One service of a supervisor; an async context manager: entering begins the service, leaving stops it.

    Its attributes tell of this moment. It runs, and is started again, whether anybody looks or not.
    """

    def __init__(self, link: Link, plan: Plan) -> None:
        super().__init__(plan)
        self._link = link
        self._loop = asyncio.get_running_loop()

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
        try:
            self._runner = await self._link.ask(self._link.engine.serve, lambda services: services.add(self._plan))
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
        engine = self._link.engine
        removal = asyncio.ensure_future(self._link.ask(engine.serve, lambda services: services.remove(self._plan)))
        with contextlib.suppress(SupervisorClosed):
            await outlast(removal)

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
        bound = seconds(timeout, "timeout", exclusive=False)
        await self._link.ask(self._here().wait_ready_within, bound)

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
        await self._link.ask(self._link.engine.serve, lambda services: services.stop(self._plan))

    async def events(self) -> AsyncIterator[ServiceEvent]:
        """Yield what happens to the service from its beginning, until it is left: changes of state, and its lines.

        Of lines the last thousand are kept for who comes late or is slow. Any number of readers may read.
        """
        runner = self._here()
        seen = 0
        while True:
            try:
                found = await self._link.ask(runner.history.read, seen)
            except SupervisorClosed:
                return
            for number, event in found:
                seen = number
                yield event
            if not found:
                return
