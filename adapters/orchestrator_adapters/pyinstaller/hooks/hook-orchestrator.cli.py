"""The command line imports its commands when they are called."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("orchestrator.cli")
