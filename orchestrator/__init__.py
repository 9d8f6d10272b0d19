"""Run Python jobs in supervised child interpreters (lazy public names)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator import child, exceptions, testing
    from orchestrator._fixture import Fixture
    from orchestrator._frozen import freeze_support
    from orchestrator._handle import JobHandle
    from orchestrator._journal import Journal
    from orchestrator._models import Job, Limit, Outcome, RestartPolicy, RetryPolicy, callback
    from orchestrator._service_spec import HttpProbe, Service, TcpProbe
    from orchestrator._supervisor import Supervisor
    from orchestrator.blocking import BlockingSupervisor

__all__ = (
    "BlockingSupervisor",
    "Fixture",
    "HttpProbe",
    "Job",
    "JobHandle",
    "Journal",
    "Limit",
    "Outcome",
    "RestartPolicy",
    "RetryPolicy",
    "Service",
    "Supervisor",
    "TcpProbe",
    "callback",
    "child",
    "exceptions",
    "freeze_support",
    "testing",
)

# Children import this module: a name costs nothing until it is asked for.
_HOMES = {
    "BlockingSupervisor": "blocking",
    "Fixture": "_fixture",
    "HttpProbe": "_service_spec",
    "Job": "_models",
    "JobHandle": "_handle",
    "Journal": "_journal",
    "Limit": "_models",
    "Outcome": "_models",
    "RestartPolicy": "_models",
    "RetryPolicy": "_models",
    "Service": "_service_spec",
    "Supervisor": "_supervisor",
    "TcpProbe": "_service_spec",
    "callback": "_models",
    "freeze_support": "_frozen",
    "child": "",
    "exceptions": "",
    "testing": "",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
    from importlib import import_module

    if not home:
        return import_module(f"orchestrator.{name}")
    value = getattr(import_module(f"orchestrator.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
