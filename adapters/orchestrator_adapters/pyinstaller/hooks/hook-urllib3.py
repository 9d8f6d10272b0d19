"""urllib3 looks for other ways to speak TLS and to decompress, and does without them."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_submodules, is_module_satisfies

if is_module_satisfies("urllib3-future"):  # takes urllib3's name, and imports its modules in ways of its own
    hiddenimports = collect_submodules("urllib3")
# A copy of backports that setuptools has for itself would bring all of setuptools.
excludedimports = ["backports", "backports.zstd", "cryptography", "OpenSSL"]
