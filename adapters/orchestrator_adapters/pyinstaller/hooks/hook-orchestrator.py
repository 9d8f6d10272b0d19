"""What PyInstaller cannot see of `orchestrator`: names that are imported when they are first asked for."""

from __future__ import annotations

from typing import Any

from orchestrator_adapters.pyinstaller import _app, _bundle
from PyInstaller.utils.hooks import collect_submodules, copy_metadata

# The command line and the help for tests bring packages that an app does not need; one that does imports them.
_OTHERS = ("orchestrator.cli", "orchestrator.__main__", "orchestrator.testing")


def _is_wanted(name: str) -> bool:
    return not name.startswith(_OTHERS)


hiddenimports = [
    *collect_submodules("orchestrator", filter=_is_wanted),
    "orchestrator_adapters.pyinstaller._unpacking",  # and with it its runtime hook
]
datas = copy_metadata("subprocess-orchestrator")


def hook(hook_api: Any) -> None:
    """Add what the app's configuration names, and have the bundle trimmed in the end."""
    analysis = hook_api.analysis
    configuration = _app.configured(analysis.inputs[0])
    files, modules = _app.collect(configuration, analysis.pathex)
    hook_api.add_imports(*modules)
    hook_api.add_datas(files)
    _bundle.finish(analysis, configuration)
