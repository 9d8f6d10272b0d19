"""What an app in one file does about its loader, on each system."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import _frozen, _onefile

DEADLINE = 30.0


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "_MEIabc"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "library").write_text("")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "_MEIPASS", str(folder), raising=False)
    monkeypatch.delenv(_onefile.LOADER, raising=False)
    return folder


def test_a_loader_is_a_parent_that_is_no_start_of_the_app(
    monkeypatch: pytest.MonkeyPatch, unpacked: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert _onefile.loader_of("1 2") == os.getppid()
    assert _onefile.loader_of(f"1 {os.getppid()}") is None
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path / "_internal"))
    assert _onefile.loader_of("") is None
    monkeypatch.delattr(sys, "_MEIPASS")
    assert _onefile.loader_of("") is None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_on_linux_it_is_the_same_file(monkeypatch: pytest.MonkeyPatch, unpacked: Path) -> None:
    monkeypatch.setattr(sys, "executable", os.path.realpath(f"/proc/{os.getppid()}/exe"))
    assert _onefile.loader_of("") == os.getppid()
    monkeypatch.setattr(sys, "executable", str(unpacked / "lib" / "library"))
    assert _onefile.loader_of("") == 0  # the first start, and its parent is somebody else: it was inherited
    assert _onefile.loader_of("5") is None  # started by a shell, say, that the app has started
    monkeypatch.setattr(sys, "executable", str(unpacked / "gone"))
    assert _onefile.loader_of("") is None

    def samefile(one: str, other: str) -> bool:
        raise PermissionError(13, "of another user, such as the first process", one)

    monkeypatch.setattr(os.path, "samefile", samefile)
    assert _onefile.loader_of("") == 0 and _onefile.loader_of("5") is None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_parent_that_has_loaded_python_from_there_is_the_app(monkeypatch: pytest.MonkeyPatch, unpacked: Path) -> None:
    monkeypatch.setattr(os, "getppid", os.getpid)
    monkeypatch.setattr(sys, "executable", os.path.realpath("/proc/self/exe"))
    assert _onefile.loader_of("") == os.getpid()
    library = unpacked / "lib" / "library"
    library.write_bytes(b"code")
    with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        assert _onefile.loader_of("") is None


def test_an_app_whose_loader_is_gone_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(Ended):
        _onefile.die_with_loader(0)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells it")
def test_the_app_dies_with_its_loader() -> None:
    # The loader: starts what asks to die with it, and is killed.
    inner = (
        "from orchestrator import _onefile; import os, sys\n"
        "_onefile.die_with_loader(os.getppid()); print('set', flush=True); sys.stdin.read()"
    )
    loader = "import subprocess, sys; inner = sys.argv[1]\nsubprocess.run([sys.executable, '-c', inner])\n"
    read, write = os.pipe()  # held open by nobody but the inner one, so that its end is seen
    try:
        with subprocess.Popen(
            [sys.executable, "-c", loader, inner], stdin=subprocess.PIPE, stdout=write, pass_fds=()
        ) as process:
            os.close(write)
            write = -1
            with open(read, "rb", closefd=False) as said:
                assert said.readline() == b"set\n"
                process.kill()
                assert process.wait(DEADLINE) == -9
                assert said.read() == b""  # its stdin is still open, so it did not end by itself
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)


def test_elsewhere_a_thread_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    _onefile._end_after(lambda pid: False, 7)
    assert not ended
    _onefile._end_after(lambda pid: pid == 7, 7)
    assert ended == [_onefile._EXIT_LOADER_GONE]


class Kqueue:
    KQ_FILTER_PROC, KQ_EV_ADD, KQ_NOTE_EXIT = -5, 1, 0x80000000

    def __init__(self, error: type[OSError] | None = None) -> None:
        self.error = error
        self.asked: list[object] = []

    def kqueue(self) -> Kqueue:
        return self

    def kevent(self, *words: int) -> tuple[int, ...]:
        return words

    def control(self, events: list[object], count: int, timeout: float | None) -> None:
        if self.error is not None:
            raise self.error
        assert timeout is None
        self.asked += events


def test_macos_is_told_of_the_exit() -> None:
    system = Kqueue()
    assert _onefile._wait_for_exit_by_kqueue(7, system)
    assert system.asked == [(7, -5, 1, 0x80000000)]
    assert _onefile._wait_for_exit_by_kqueue(7, Kqueue(ProcessLookupError))
    assert not _onefile._wait_for_exit_by_kqueue(7, Kqueue(PermissionError))


class Kernel32:
    def __init__(self, handle: int | None, waited: int = 0) -> None:
        self.calls: list[tuple[object, ...]] = []

        def opened(*words: object) -> int | None:
            self.calls.append(words)
            return handle

        def wait(*words: object) -> int:
            self.calls.append(words)
            return waited

        def set_folder(folder: object) -> int:
            self.calls.append((folder,))
            return 1

        self.OpenProcess = opened
        self.WaitForSingleObject = wait
        self.SetDllDirectoryW = set_folder


def test_windows_waits_for_the_process() -> None:
    system = Kernel32(44)
    assert _onefile._wait_for_exit_on_windows(7, system)
    assert system.calls == [(0x00100000, False, 7), (44, 0xFFFFFFFF)]
    assert not _onefile._wait_for_exit_on_windows(7, Kernel32(None))
    assert not _onefile._wait_for_exit_on_windows(7, Kernel32(44, waited=0xFFFFFFFF))


def test_windows_keeps_its_dll_folder_to_itself(monkeypatch: pytest.MonkeyPatch, unpacked: Path) -> None:
    added: list[str] = []
    monkeypatch.setattr(os, "add_dll_directory", added.append, raising=False)
    system = Kernel32(None)
    _onefile.leave_library_folder(system)
    assert added == [str(unpacked)] and system.calls == [(None,)]
    monkeypatch.delattr(sys, "_MEIPASS")
    _onefile.leave_library_folder(system)
    assert len(added) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no file that is in use")
def test_a_guardian_removes_what_a_killed_loader_left(monkeypatch: pytest.MonkeyPatch, unpacked: Path) -> None:
    _onefile.remove_unpacked()
    assert unpacked.exists()  # nobody knows of a loader
    monkeypatch.setenv(_onefile.LOADER, str(os.getpid()))
    _onefile.remove_unpacked()
    assert unpacked.exists()  # it lives, and will do so itself
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait(DEADLINE)
    monkeypatch.setenv(_onefile.LOADER, str(dead.pid))
    monkeypatch.setattr(sys, "_MEIPASS", str(unpacked.parent))
    _onefile.remove_unpacked()
    assert unpacked.exists()  # no folder of a loader's
    monkeypatch.setattr(sys, "_MEIPASS", str(unpacked))
    _onefile.remove_unpacked()
    assert not unpacked.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_zombie_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.read() == b""
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert _onefile._is_gone(process.pid)
    finally:
        process.wait(DEADLINE)
        process.stdout.close()
    assert not _onefile._is_gone(os.getpid())


def test_only_a_start_with_a_loader_is_bound(monkeypatch: pytest.MonkeyPatch, unpacked: Path) -> None:
    bound: list[str] = []

    def loader_of(starts: str) -> int | None:
        bound.append(starts)
        return 5 if starts == "12" else None

    monkeypatch.setattr(_onefile, "loader_of", loader_of)
    monkeypatch.setattr(_onefile, "die_with_loader", lambda loader: bound.append("bound"))
    monkeypatch.setattr(sys, "argv", ["app"])
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", "0")
    for starts in ("11", "12"):
        monkeypatch.setattr(_frozen, "_armed", False)
        monkeypatch.setenv(_frozen.STARTS, starts)
        _frozen.freeze_support()
    assert bound == ["11", "12", "bound"]
    monkeypatch.delattr(sys, "_MEIPASS")
    monkeypatch.setattr(_frozen, "_armed", False)
    _frozen.freeze_support()
    assert len(bound) == 3
