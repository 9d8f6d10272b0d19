"""In an app this package only unpacks; the rest works with PyInstaller, which is no part of apps."""

from __future__ import annotations

excludedimports = [
    "PyInstaller",
    "orchestrator_adapters.pyinstaller._bundle",
    "orchestrator_adapters.pyinstaller._streamlit",
]
