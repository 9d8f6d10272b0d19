"""In a frozen app: unpack what the bundle has compressed, once for each user, when it is first needed."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# In the bundle.
FOLDER = "orchestrator-packed"
LIST = "packed.json"
# Of Playwright: where it looks for its driver's program before it looks beside itself.
VARIABLE = "PLAYWRIGHT_NODEJS_PATH"
_PIECE = 1 << 20
# What the libraries were loaded as: they stay loaded as long as the process.
_loaded: list[object] = []


def unpack(module: str, bundle: str) -> None:
    """Make ready what a module needs that is about to be imported; nothing if the bundle has it as it is.

    Args:
        module: Its name.
        bundle: Where the app's files are.

    Raises:
        OSError: If there is no folder that it could be unpacked in and used from; the message says where it was tried.
    """
    import json

    try:
        with open(os.path.join(bundle, FOLDER, LIST), encoding="utf-8") as file:
            group = json.load(file).get(module)
    except OSError:
        return
    if group is None or (group["kind"] == "program" and os.environ.get(VARIABLE)):
        return
    use = _start_with if group["kind"] == "program" else _load
    provide(group["files"], os.path.join(bundle, FOLDER), folders(os.environ), use)


def provide(
    files: Mapping[str, str], archives: str, places: Sequence[str], use: Callable[[Sequence[str]], None]
) -> None:
    """Unpack files beside each other and use them, in the first place where both work.

    Args:
        files: Names of the files, and of their archives.
        archives: The folder of the archives.
        places: Folders to unpack in.
        use: What to do with their paths; raises OSError if it cannot be done there.

    Raises:
        OSError: If it worked nowhere.
    """
    problems = []
    # Libraries find each other beside themselves, so each set of them has a folder.
    identity = _identity(files)
    for place in places:
        folder = os.path.join(place, identity)
        try:
            claim(place)
            claim(folder)
            paths = [_whole(os.path.join(archives, archive), folder, name) for name, archive in files.items()]
            use(paths)
        except OSError as error:  # no room, no rights, or nothing may be run from there
            problems.append(f"{folder}: {error}")
        else:
            return
    raise OSError(f"this app could not unpack a part of itself in {'; nor in '.join(problems)}")


def folders(environment: Mapping[str, str]) -> list[str]:
    """Return where to unpack: the user's folder for what can be made again, else one among the temporary files."""
    import tempfile

    if sys.platform == "win32":
        places = [environment.get("LOCALAPPDATA")]
        user = ""  # whose folder for temporary files it is
    else:
        caches = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
        places = [environment.get("XDG_CACHE_HOME"), os.path.expanduser(caches)]
        user = f"-{os.geteuid()}"
    found = [os.path.join(place, "orchestrator", "unpacked") for place in places if place and os.path.isabs(place)]
    return [*found, os.path.join(tempfile.gettempdir(), f"unpacked-by-orchestrator{user}")]


def claim(folder: str) -> None:
    """Make a folder of the user's own; what another user could write is not run."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if sys.platform != "win32":
        state = os.lstat(folder)
        if state.st_uid != os.geteuid() or state.st_mode & 0o022:
            raise PermissionError(f"{folder!r} belongs to, or may be written by, somebody else")


def _identity(files: Mapping[str, str]) -> str:
    import hashlib

    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:20]


def _whole(archive: str, folder: str, name: str) -> str:
    """Return the path of an unpacked file, unpacking it unless that was done before."""
    path = os.path.join(folder, name)
    size = int(os.path.basename(archive).removesuffix(".xz").rpartition("-")[2])
    if not _has_size(path, size):
        try:
            _unpack(archive, path)
        except OSError:
            if not _has_size(path, size):  # on Windows nobody replaces a program that another process has started
                raise
    return path


def _has_size(path: str, size: int) -> bool:
    try:
        return os.stat(path).st_size == size
    except OSError:
        return False


def _unpack(archive: str, path: str) -> None:
    import lzma
    import tempfile

    descriptor, new = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with open(descriptor, "wb") as target, lzma.open(archive) as source:
            while piece := source.read(_PIECE):
                target.write(piece)
        os.chmod(new, 0o700)
        os.replace(new, path)  # in one step: another process finds all of it or nothing
    except BaseException:
        os.unlink(new)
        raise


def _start_with(paths: Sequence[str]) -> None:
    os.environ[VARIABLE] = paths[0]


def _load(paths: Sequence[str]) -> None:
    import ctypes

    _loaded.extend([ctypes.CDLL(path) for path in paths])
