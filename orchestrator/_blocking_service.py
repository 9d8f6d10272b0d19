"""A service as sync code holds it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from orchestrator._models import Seconds, seconds
from orchestrator._service_view import ServiceView
from orchestrator.exceptions import SupervisorClosed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from orchestrator._link import EngineThread
    from orchestrator._service_plan import Plan
    from orchestrator._service_spec import ServiceEvent

__all__ = ("BlockingService",)


class BlockingService(ServiceView):
    """One service of a `BlockingSupervisor`; a context manager: entering begins the service, leaving stops it.

    Where no `with` statement fits, call `open` and `close`. Its attributes tell of this moment; every method may be
    called from any thread.
    """

    def __init__(self, thread: EngineThread, plan: Plan) -> None:
        super().__init__(plan)
        self._thread = thread

    def open(self) -> Self:
        """Begin the service, or have it wait for what it depends on; returns itself. See `ServiceHandle`.

        Raises:
            ConfigurationError: If the supervisor has a service of this name, or not all that this one depends on.
            SupervisorClosed: If the supervisor takes no more services.
        """
        if self._runner is not None:
            raise SupervisorClosed(f"service {self.name!r} was begun already; ask the supervisor for another")
        try:
            self._runner = self._thread.wait(self._thread.engine.serve, lambda services: services.add(self._plan))
        except BaseException:
            self.close()  # nobody would have it
            raise
        return self

    def close(self) -> None:
        """Stop the service for good; returns when nothing is left of it, and its name and port are free."""
        with contextlib.suppress(SupervisorClosed):
            self._thread.wait(self._thread.engine.serve, lambda services: services.remove(self._plan))

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait_ready(self, timeout: Seconds | None = None) -> None:
        """Return when the service is ready.

        Args:
            timeout: Seconds.

        Raises:
            ServiceFailed: If it is failed or stopped, or waits for one that is.
            TimeoutError: If it is not ready in time; it goes on starting.
        """
        self._thread.wait(self._begun().wait_ready_within, seconds(timeout, "timeout", exclusive=False))

    def restart(self) -> None:
        """Stop the service's child and start another, on the same port; one that has failed is tried again.

        Returns when the old one is gone and the new one begins.

        Raises:
            SupervisorClosed: If the supervisor is closing.
        """
        self._thread.wait(self._begun().restart)

    def stop(self) -> None:
        """Stop the service, after those that depend on it; `restart` starts it again."""
        self._begun()
        self._thread.wait(self._thread.engine.serve, lambda services: services.stop(self._plan))

    def events(self) -> Iterator[ServiceEvent]:
        """Yield what happens to the service from its beginning, until it is left: changes of state, and its lines.

        Of lines the last thousand are kept for who comes late or is slow. Any number of readers may read.
        """
        history = self._begun().history
        seen = 0
        while True:
            try:
                found = self._thread.wait(history.read, seen)
            except SupervisorClosed:
                return
            for number, event in found:
                seen = number
                yield event
            if not found:
                return
