"""Large files travel compressed, and are unpacked once, whole or not at all, in a place where they can be used."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from orchestrator_adapters.pyinstaller import _packing, _unpacking


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose driver is packed; it takes 1 MB to be worth it here."""
    monkeypatch.setattr(_packing, "_SMALLEST", 1_000_000)
    node = tmp_path / "node"
    node.write_bytes(b"\x7fELF" + b"driver " * 200_000)
    other = tmp_path / "other"
    other.write_text("other")
    entries = [
        ("playwright/driver/node", str(node), "BINARY"),
        ("playwright/driver/package/cli.js", str(other), "DATA"),
    ]
    packed = _packing.pack(entries, tmp_path / "work")
    assert {name for name, _, _ in packed} >= {"playwright/driver/package/cli.js", "orchestrator-packed/packed.json"}
    assert "playwright/driver/node" not in {name for name, _, _ in packed}
    for name, source, _ in packed:
        (tmp_path / "bundle" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bundle" / name).write_bytes(Path(source).read_bytes())
    assert sum(path.stat().st_size for path in (tmp_path / "bundle").rglob("*") if path.is_file()) < 10_000
    return tmp_path / "bundle"


def test_the_driver_is_unpacked_once_for_each_user(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setattr(_unpacking.sys, "platform", "linux")
    monkeypatch.setenv(_unpacking.VARIABLE, "")
    _unpacking.unpack("playwright._impl._driver", str(bundle))
    program = Path(_unpacking.os.environ[_unpacking.VARIABLE])
    assert program.read_bytes() == (tmp_path / "node").read_bytes()
    assert program.is_relative_to(tmp_path / "cache") and program.stat().st_mode & 0o700 == 0o700
    before = program.stat().st_mtime_ns
    monkeypatch.setenv(_unpacking.VARIABLE, "")
    _unpacking.unpack("playwright._impl._driver", str(bundle))
    assert program.stat().st_mtime_ns == before
    assert [path.name for path in program.parent.iterdir()] == [program.name]


def test_what_somebody_chose_is_left_alone(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_unpacking.VARIABLE, "/usr/bin/node")
    _unpacking.unpack("playwright._impl._driver", str(bundle))
    assert _unpacking.os.environ[_unpacking.VARIABLE] == "/usr/bin/node"


def test_a_bundle_without_packed_files_is_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_unpacking.VARIABLE, raising=False)
    _unpacking.unpack("playwright._impl._driver", str(tmp_path))
    _unpacking.unpack("numpy", str(tmp_path))
    assert _unpacking.VARIABLE not in _unpacking.os.environ


def archive(folder: Path, data: bytes) -> dict[str, str]:
    (folder / "file").write_bytes(data)
    return {"file": _packing._pack(folder / "file", folder / "archives").name}


def test_half_a_file_of_an_earlier_start_is_replaced(tmp_path: Path) -> None:
    files = archive(tmp_path, b"whole " * 1000)
    used: list[str] = []
    _unpacking.provide(files, str(tmp_path / "archives"), [str(tmp_path / "place")], used.extend)
    Path(used[0]).write_bytes(b"whole")
    _unpacking.provide(files, str(tmp_path / "archives"), [str(tmp_path / "place")], used.extend)
    assert used[0] == used[1] and Path(used[1]).read_bytes() == b"whole " * 1000


def test_a_place_where_it_cannot_be_used_is_not_the_last(tmp_path: Path) -> None:
    files = archive(tmp_path, b"data")
    (tmp_path / "a-file").write_text("")
    places = [str(tmp_path / "a-file"), str(tmp_path / "noexec"), str(tmp_path / "good")]
    used: list[str] = []

    def use(paths: Sequence[str]) -> None:
        if "noexec" in paths[0]:
            raise OSError("failed to map segment from shared object")
        used.extend(paths)

    _unpacking.provide(files, str(tmp_path / "archives"), places, use)
    assert Path(used[0]).is_relative_to(tmp_path / "good")
    with pytest.raises(OSError, match=r"could not unpack a part of itself in .*a-file.*noexec.*failed to map"):
        _unpacking.provide(files, str(tmp_path / "archives"), places[:2], use)


def test_starts_at_the_same_time_find_it_whole(tmp_path: Path) -> None:
    data = b"0123456789" * 300_000
    files = archive(tmp_path, data)
    found: list[bytes] = []
    begin = threading.Barrier(8)

    def start() -> None:
        begin.wait()
        _unpacking.provide(
            files, str(tmp_path / "archives"), [str(tmp_path / "place")], lambda paths: found.append(read(paths[0]))
        )

    def read(path: str) -> bytes:
        return Path(path).read_bytes()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [data] * 8


def test_the_place_is_the_users_folder_for_what_can_be_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_unpacking.sys, "platform", "linux")
    assert _unpacking.folders({"XDG_CACHE_HOME": "/c"})[0] == "/c/orchestrator/unpacked"
    monkeypatch.setenv("HOME", "/home/me")
    assert _unpacking.folders({"XDG_CACHE_HOME": "relative"})[0] == "/home/me/.cache/orchestrator/unpacked"
    monkeypatch.setattr(_unpacking.sys, "platform", "darwin")
    assert _unpacking.folders({})[0] == "/home/me/Library/Caches/orchestrator/unpacked"
    monkeypatch.setattr(_unpacking.sys, "platform", "win32")
    assert _unpacking.folders({"LOCALAPPDATA": "/l"})[0] == "/l/orchestrator/unpacked"


@pytest.mark.skipif(sys.platform == "win32", reason="everybody has a folder of their own there")
def test_what_somebody_else_could_have_written_is_not_run(tmp_path: Path) -> None:
    files = archive(tmp_path, b"data")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    used: list[str] = []
    _unpacking.provide(files, str(tmp_path / "archives"), [str(shared), str(tmp_path / "own")], used.extend)
    assert Path(used[0]).is_relative_to(tmp_path / "own")
    assert Path(used[0]).parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(OSError, match="somebody else"):
        _unpacking.provide(files, str(tmp_path / "archives"), [str(shared)], used.extend)


def test_the_next_build_takes_what_an_earlier_one_has_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setattr(_unpacking.sys, "platform", "linux")
    kept = _packing.archives_folder(tmp_path / "work")
    assert kept == tmp_path / "cache" / "orchestrator" / "packed"
    (tmp_path / "file").write_bytes(b"data" * 1000)
    first = _packing._pack(tmp_path / "file", kept)
    before = first.stat().st_ino
    old = kept / "old.xz"
    old.write_text("")
    _unpacking.os.utime(old, (0, 0))
    assert _packing.archives_folder(tmp_path / "work") == kept and not old.exists()
    assert _packing._pack(tmp_path / "file", kept) == first and first.stat().st_ino == before
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a-file"))
    assert _packing.archives_folder(tmp_path / "work") == tmp_path / "work"
