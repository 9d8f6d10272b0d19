"""What `orchestrator_adapters.executor` imports when it is first asked for."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("orchestrator_adapters.executor")
