"""What `orchestrator_adapters.publisher` imports when it is first asked for, and the files that it reads."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

hiddenimports = collect_submodules("orchestrator_adapters.publisher", filter=lambda name: not name.endswith("._cli"))
datas = collect_data_files("orchestrator_adapters.publisher")
