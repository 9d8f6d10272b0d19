"""What trimming leaves out of a bundle, and what it never touches."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from orchestrator_adapters.pyinstaller._stripping import is_loadable, strip
from orchestrator_adapters.pyinstaller._trimming import FEATURES, trim

PACKAGES = "/venv/lib"


def names(*entries: str, **options: object) -> list[str]:
    given = [(name, f"{PACKAGES}/{name}", "DATA") for name in entries]
    return [name for name, _, _ in trim(given, installed=[PACKAGES], **options).kept]  # type: ignore[arg-type]


def test_what_compilers_and_testers_read_is_left_out() -> None:
    kept = ["pandas/_libs/lib.so", "streamlit/static/index.html", "tests.py", "tests/data.csv"]
    left_out = ["pandas/tests/io/data.csv", "numpy/_core/include/numpy/arrayobject.h", "pandas/lib.pyi", "numpy/x.pxd"]
    assert names(*kept, *left_out) == kept


def test_what_is_the_apps_own_stays() -> None:
    own = [("notes/tests/one.txt", "/home/me/app/notes/tests/one.txt", "DATA"), ("a.h", "/home/me/app/a.h", "DATA")]
    assert trim(own, installed=[PACKAGES]).kept == own


def test_unused_parts_of_pyarrow_are_left_out() -> None:
    kept = ["pyarrow/libarrow.so.2600", "pyarrow/lib.so", "pyarrow/libparquet.so.2600", "pyarrow/_fs.so"]
    left_out = [
        "pyarrow/libarrow_flight.so.2600",
        "pyarrow/libarrow_python_flight.so",
        "pyarrow/_flight.cpython-311-x86_64-linux-gnu.so",
        "pyarrow/libarrow_s3.so.2600",
        "pyarrow/_s3fs.so",
        "pyarrow/include/arrow/api.h",
    ]
    assert names(*kept, *left_out) == kept


def test_a_part_that_the_app_uses_stays() -> None:
    flight = next(feature for feature in FEATURES if feature.module == "pyarrow.flight")
    given = ["pyarrow/libarrow_flight.so.2600", "pyarrow/libarrow_s3.so.2600"]
    assert names(*given, uses=lambda feature: feature is flight) == ["pyarrow/libarrow_flight.so.2600"]


def test_patterns_keep_what_trimming_would_take() -> None:
    given = ["pyarrow/libarrow_s3.so.2600", "pandas/tests/data.csv"]
    assert names(*given, keep=["pyarrow/*s3*"]) == ["pyarrow/libarrow_s3.so.2600"]


def test_of_copies_of_a_library_the_linked_one_stays() -> None:
    copies = ["pyarrow/libarrow_python.so", "pyarrow/libarrow_python.so.2600", "pyarrow/libarrow_python.so.2600.1.0"]
    assert names(*copies) == ["pyarrow/libarrow_python.so.2600"]
    # Where there is no other, it is not a copy.
    assert names("pyarrow/libarrow_python.so") == ["pyarrow/libarrow_python.so"]


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("strip") is None, reason="needs binutils")
def test_stripped_libraries_can_be_loaded_and_only_installed_ones_are_stripped(tmp_path: Path) -> None:
    from pyarrow import lib

    library = Path(lib.__file__)
    entries = [("pyarrow/lib.so", str(library), "EXTENSION"), ("own.so", str(library), "EXTENSION")]
    stripped = strip(entries[:1], tmp_path / "copies", [str(library.parent)])
    assert Path(stripped[0][1]).stat().st_size < library.stat().st_size
    assert is_loadable(Path(stripped[0][1]))
    assert strip(entries[1:], tmp_path / "copies", ["/elsewhere"]) == entries[1:]


def test_what_is_cut_short_is_not_loadable(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("#!/bin/sh\n")
    assert not is_loadable(tmp_path / "text")
    if sys.platform == "linux":
        (tmp_path / "short").write_bytes(Path(sys.executable).resolve().read_bytes()[:4096])
        assert not is_loadable(tmp_path / "short")
