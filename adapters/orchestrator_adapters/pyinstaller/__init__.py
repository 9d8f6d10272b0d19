"""PyInstaller: hooks that freeze an app together with what its children need, found by PyInstaller itself."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator_adapters.pyinstaller._bundle import trim
    from orchestrator_adapters.pyinstaller._streamlit import collect_streamlit

__all__ = ("collect_streamlit", "get_hook_dirs", "trim")

# In a frozen app this package only unpacks: what works with PyInstaller is not there.
_HOMES = {"collect_streamlit": "_streamlit", "trim": "_bundle"}


def get_hook_dirs() -> list[str]:
    """Return the folder of our hooks; PyInstaller asks for it through its entry point `pyinstaller40`."""
    import os

    return [os.path.join(os.path.dirname(os.path.abspath(__file__)), "hooks")]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'orchestrator_adapters.pyinstaller' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"orchestrator_adapters.pyinstaller.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
