"""A function over a table: every record through a handler in supervised children, resumable (lazy public names)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator_adapters.batch._batch import Batch
    from orchestrator_adapters.batch._errors import BatchError
    from orchestrator_adapters.batch._report import Report

__all__ = ("Batch", "BatchError", "Report")

# A handler's child imports nothing of this package, and `--help` of the command line should not pay for a pipeline.
_HOMES = {"Batch": "_batch", "BatchError": "_errors", "Report": "_report"}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'orchestrator_adapters.batch' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"orchestrator_adapters.batch.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
