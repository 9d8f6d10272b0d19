"""PyInstaller: hooks that freeze an app together with what its children need, found by PyInstaller itself."""

from __future__ import annotations

from pathlib import Path

__all__ = ("get_hook_dirs",)


def get_hook_dirs() -> list[str]:
    """Return the folder of our hooks; PyInstaller asks for it through its entry point `pyinstaller40`."""
    return [str(Path(__file__).with_name("hooks"))]
