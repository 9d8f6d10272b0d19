"""A drop-in for `concurrent.futures.ProcessPoolExecutor` on children that survive (lazy public names).

Functions, arguments and results travel as pickles, in this package alone: whoever can write one can run any code where
it is read. Give it only what you would run yourself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator_adapters.executor._errors import CallCrashed, CallUnreadable, InitializerFailed
    from orchestrator_adapters.executor._executor import OrchestratorExecutor

__all__ = ("CallCrashed", "CallUnreadable", "InitializerFailed", "OrchestratorExecutor")

# A child imports nothing of the executor itself, and with it neither asyncio nor multiprocessing.
_HOMES = {
    "CallCrashed": "_errors",
    "CallUnreadable": "_errors",
    "InitializerFailed": "_errors",
    "OrchestratorExecutor": "_executor",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'orchestrator_adapters.executor' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"orchestrator_adapters.executor.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
