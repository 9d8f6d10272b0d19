"""pyarrow's C code imports modules of pyarrow; its tests and their packages are not for apps."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_data_files, collect_dynamic_libs, collect_submodules

# For other programs, or to measure.
_OTHERS = ("_pyarrow_cpp_tests", "benchmark", "cffi", "conftest", "cuda", "jvm")


def _is_wanted(name: str) -> bool:
    parts = name.split(".")
    return "tests" not in parts and parts[-1] not in _OTHERS


hiddenimports = collect_submodules("pyarrow", filter=_is_wanted)
datas = collect_data_files("pyarrow", excludes=["include/**", "src/**", "tests/**"])
binaries = collect_dynamic_libs("pyarrow")
excludedimports = ["pytest", "hypothesis"]
