"""Where bytes of an output end up: a file that appears when it is whole, a device, or stdout."""

from __future__ import annotations

import os
import stat
import sys
import zlib
from abc import ABC, abstractmethod
from typing import IO, TYPE_CHECKING, BinaryIO

from orchestrator_adapters.batch._errors import USAGE, BatchError, from_os_error, reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_adapters.batch._source import Source

_GZIP = 31  # zlib's word for "a gzip header, and the largest window"


class Place(ABC):
    """A place for the bytes of one output; every method may block.

    Attributes:
        name: What people call it.
        folder: Where temporary files of this output go; None for the system's.
        is_live: Whether bytes are out as soon as they are written.
    """

    name: str
    folder: str | None = None
    is_live = True

    @abstractmethod
    def check(self) -> None:
        """Raise BatchError if it can be seen that nothing can be written there; changes nothing."""

    @abstractmethod
    def open(self) -> BinaryIO:
        """Return a stream for the bytes, from the first on."""

    @abstractmethod
    def commit(self) -> None:
        """Put what was written in its place, durably."""

    @abstractmethod
    def abort(self) -> None:
        """Remove what was not committed."""


class FilePlace(Place):
    """A file: written beside its place and put there by `commit`, so that nobody ever sees a part of it.

    A link to a file is followed, unless that file is read-only, as those in DVC's cache are: then the link is replaced.
    What is there and no file, such as a device or a named pipe, is written to directly.

    Args:
        path: The file.
        source: Where the records come from, which may not be the same file.
    """

    def __init__(self, path: str, source: Source | None = None) -> None:
        self.name = path
        self._path = path
        self._source = source
        self._partial = ""
        self._mode: int | None = None
        self._file: BinaryIO | None = None

    def check(self) -> None:
        try:
            self._check()
        except OSError as error:
            raise from_os_error(f"the output {self.name!r} cannot be written", error) from error
        except ValueError:
            raise BatchError(f"the output {self.name!r} cannot be written: no path has a NUL character") from None

    def _check(self) -> None:
        self._path = self._target()
        folder, name = os.path.split(self._path)
        folder = folder or os.curdir
        status = _status(self._path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise BatchError(f"the output {self.name!r} is a folder; name a file in it")
        if not os.path.isdir(folder):
            what = "is no folder" if os.path.exists(folder) else "does not exist; make it first"
            raise BatchError(f"the output {self.name!r} cannot be written: the folder {folder!r} {what}")
        if self._source is not None and self._source.path is not None and status is not None:
            source = _status(self._source.path)
            if source is not None and os.path.samestat(source, status) and stat.S_ISREG(status.st_mode):
                raise BatchError(f"the output {self.name!r} is the file that the records come from; name another")
        self.is_live = status is not None and not stat.S_ISREG(status.st_mode)
        self._mode = None if status is None else stat.S_IMODE(status.st_mode)
        if self.is_live:
            if not os.access(self._path, os.W_OK):
                raise BatchError(f"the output {self.name!r} may not be written by this user")
            return
        self.folder = folder
        self._partial = os.path.join(folder, f".{name}.partial")
        if os.path.isdir(self._partial):
            raise BatchError(f"the output {self.name!r} cannot be written: {self._partial!r} is a folder in its way")
        if not os.access(folder, os.W_OK | os.X_OK):
            why = "is on a read-only file system" if _is_read_only(folder) else "may not be written by this user"
            raise BatchError(f"the output {self.name!r} cannot be written: the folder {folder!r} {why}")

    def _target(self) -> str:
        if not os.path.islink(self.name):
            return self.name
        target = os.path.realpath(self.name)
        status = _status(target)
        is_kept = status is not None and stat.S_ISREG(status.st_mode) and not status.st_mode & 0o222
        return self.name if is_kept else target

    def open(self) -> BinaryIO:
        if self.is_live:
            self._file = open(self._path, "wb", buffering=0)  # noqa: SIM115  commit or abort closes it
        else:
            _unlink(self._partial)  # of a run that was killed
            self._file = open(self._partial, "xb")  # noqa: SIM115
        return self._file

    def commit(self) -> None:
        assert self._file is not None
        self._file.flush()
        if not self.is_live:
            os.fsync(self._file.fileno())
            if self._mode is not None:
                os.chmod(self._partial, self._mode)
        self._file.close()
        if not self.is_live:
            os.replace(self._partial, self._path)
            _sync_folder(self.folder or os.curdir)
        self._file = None

    def abort(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        _close(file)
        if not self.is_live:
            _unlink(self._partial)


class StdoutPlace(Place):
    """The standard output of this process."""

    name = "stdout"

    def check(self) -> None:
        try:
            os.fstat(1)
        except OSError as error:
            raise BatchError(f"stdout cannot be written: {reason(error)}", USAGE) from error

    def open(self) -> BinaryIO:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.setmode(1, os.O_BINARY)
        if sys.stdout is not None:
            sys.stdout.flush()  # what was printed before comes before
        return open(1, "wb", buffering=0, closefd=False)

    def commit(self) -> None: ...

    def abort(self) -> None: ...


def writer(file: IO[bytes], *, gzip: bool) -> tuple[Callable[[bytes], None], Callable[[], None]]:
    """Return what writes bytes to a stream as a whole, and what ends them; compressed if asked for.

    Compressed bytes carry no name and no time: the same results are the same file.
    """

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = file.write(view)
            if written is None:
                _wait_for_room(file)
            else:
                view = view[written:]

    if not gzip:
        return write, lambda: None
    compressor = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    return lambda data: write(compressor.compress(data)), lambda: write(compressor.flush())


def _wait_for_room(file: IO[bytes]) -> None:
    """Wait until a full pipe takes more that somebody made non-blocking, as npm does with those it shares."""
    if sys.platform != "win32":
        import select

        poll = select.poll()
        poll.register(file, select.POLLOUT)
        poll.poll()


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _is_read_only(folder: str) -> bool:
    if sys.platform == "win32":
        return False
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _close(file: BinaryIO) -> None:
    try:
        file.close()
    except OSError:
        pass  # what it could not write is not wanted any more


def _sync_folder(folder: str) -> None:
    if sys.platform == "win32":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # it may be written and not read
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some file systems cannot; the file itself is safe
    finally:
        os.close(descriptor)
