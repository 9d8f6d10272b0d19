"""What a handle of a service tells of this moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.exceptions import SupervisorClosed

if TYPE_CHECKING:
    from orchestrator._models import DeathCertificate
    from orchestrator._service_plan import Plan
    from orchestrator._service_runner import Runner
    from orchestrator._statistics import ServiceStatistics


class ServiceView:
    """The attributes that async and blocking handles share; they may be read from any thread."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._runner: Runner | None = None

    def __repr__(self) -> str:
        state = "new" if self._runner is None else self._runner.state
        return f"<Service {self.name!r} {state}>"

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
            raise SupervisorClosed(f"service {self.name!r} has not begun; enter it first: `with` or `async with`")
        return self._runner
