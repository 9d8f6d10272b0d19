"""The optional package that reads and writes Parquet."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from orchestrator_adapters.batch._errors import BatchError


def load_pyarrow(name: str) -> Any:
    """Return pyarrow, which is imported only when a Parquet file is named.

    Raises:
        BatchError: If it is not installed.
    """
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError as error:
        remedy = "pip install 'subprocess-orchestrator[parquet]'"
        raise BatchError(f"{name} is Parquet, which needs the extra 'parquet': {remedy} ({error})") from None
