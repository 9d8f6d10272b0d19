"""What PyInstaller cannot see of `orchestrator`: names that are imported when they are first asked for."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_submodules, copy_metadata

hiddenimports = collect_submodules("orchestrator")
datas = copy_metadata("subprocess-orchestrator")
