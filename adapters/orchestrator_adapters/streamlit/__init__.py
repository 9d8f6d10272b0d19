"""Jobs in Streamlit pages, with progress, Cancel and reruns; and a page as a service (lazy public names)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator_adapters.streamlit._bar import bar
    from orchestrator_adapters.streamlit._fragment import progress_fragment
    from orchestrator_adapters.streamlit._run import run_with_progress
    from orchestrator_adapters.streamlit._server import get_supervisor
    from orchestrator_adapters.streamlit._service import streamlit_service

__all__ = ("bar", "get_supervisor", "progress_fragment", "run_with_progress", "streamlit_service")

_HOMES = {
    "bar": "_bar",
    "get_supervisor": "_server",
    "progress_fragment": "_fragment",
    "run_with_progress": "_run",
    "streamlit_service": "_service",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'orchestrator_adapters.streamlit' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"orchestrator_adapters.streamlit.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
