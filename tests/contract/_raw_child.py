"""Drives one real child through its three pipes, as any supervisor could, with no supervisor in between."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator import _launch

# Far above what anything here takes; a machine may be busy.
DEADLINE = 20.0
# Another interpreter for the children, to run these tests against it; what needs msgspec there fails without it.
PYTHON = os.environ.get("RAW_CHILD_PYTHON")

Frame = dict[str, Any]


class RawChild:
    """A child and every frame it has sent so far.

    Args:
        folder: Where its temp folder goes.
        init: Members of the init frame; None leaves the frame unsent.
    """

    def __init__(self, folder: Path, init: Frame | None = None, *, flags: tuple[str, ...] = (), **env: str) -> None:
        self.temp = folder / f"child-{secrets.token_hex(4)}"
        self.temp.mkdir()
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        self.process = subprocess.Popen(
            [PYTHON or sys.executable, *flags, "-c", _launch.BOOT, _launch.LABEL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**environment, **env},
            start_new_session=True,
            bufsize=0,
        )
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.nonce = secrets.token_hex(8)
        self.frames: list[Frame] = []
        self.lines: list[bytes] = []  # as they came
        self.stderr = bytearray()
        self._held = b""
        self._out = self.process.stdout.fileno()
        self._fence = 0
        self._drainer = threading.Thread(target=self._drain, daemon=True)
        self._drainer.start()
        paths = [str(Path(__file__).parent), *([] if PYTHON else sys.path)]
        root = str(Path(_launch.__file__).parent.parent)
        body = os.fsencode("\0".join([self.nonce, "+" if PYTHON else "=", root, *paths]))
        self.write(b"%08x" % len(body) + body)
        if init is not None:
            self.start(**init)

    def start(self, **init: Any) -> None:
        self.send({"type": "init", "version": 1, "temp": str(self.temp), **init})

    def write(self, data: bytes) -> None:
        assert self.process.stdin
        view = memoryview(data)
        while view:
            written = self.process.stdin.write(view)
            assert written
            view = view[written:]

    def send(self, *frames: Frame) -> None:
        self.write(b"".join(json.dumps(frame).encode() + b"\n" for frame in frames))

    def job(self, target: str, *args: Any, **members: Any) -> int:
        """Send a job; returns its fence."""
        frame = self.job_frame(target, *args, **members)
        self.send(frame)
        return int(frame["fence"])

    def job_frame(self, target: str, *args: Any, **members: Any) -> Frame:
        self._fence += 1
        head = {"type": "job", "fence": self._fence, "job": self._fence, "attempt": 1}
        return {**head, "target": target, "args": args, **members}

    def _drain(self) -> None:
        assert self.process.stderr
        while data := self.process.stderr.read(65_536):
            self.stderr += data

    def _receive(self, deadline: float) -> bool:
        """Take in more frames; False at the end of the stream."""
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self._out], [], [], left)[0]:
            raise AssertionError(
                f"nothing more came; so far:\n{self.frames[-20:]}\nstderr: {bytes(self.stderr[-2000:])!r}"
            )
        data = os.read(self._out, 65_536)
        *lines, self._held = (self._held + data).split(b"\n")
        self.lines += lines
        self.frames += map(json.loads, lines)
        return bool(data)

    def wait(self, matches: Callable[[Frame], bool]) -> Frame:
        """Return the first frame, from the beginning, that matches; wait for it if need be."""
        deadline = time.monotonic() + DEADLINE
        seen = 0
        while True:
            for frame in self.frames[seen:]:
                if matches(frame):
                    return frame
            seen = len(self.frames)
            if not self._receive(deadline):
                raise AssertionError(
                    f"the child closed the protocol; frames: {self.frames}; stderr: {bytes(self.stderr)!r}"
                )

    def of_type(self, kind: str, **members: Any) -> Frame:
        """Wait for a frame of a type with these members."""
        return self.wait(
            lambda frame: frame["type"] == kind and all(frame.get(name) == value for name, value in members.items())
        )

    def outcome(self, fence: int) -> Frame:
        return self.wait(lambda frame: frame["type"] in ("result", "error") and frame["fence"] == fence)

    def run(self, target: str, *args: Any, **members: Any) -> Any:
        """Run a job that succeeds; returns its value."""
        answer = self.outcome(self.job(target, *args, **members))
        assert answer["type"] == "result", answer
        return answer["value"]

    def fail(self, target: str, *args: Any, **members: Any) -> Frame:
        """Run a job that does not; returns the error frame."""
        answer = self.outcome(self.job(target, *args, **members))
        assert answer["type"] == "error", answer
        return answer

    def all_of(self, kind: str, **members: Any) -> list[Frame]:
        return [
            frame for frame in self.frames
            if frame["type"] == kind and all(frame.get(name) == value for name, value in members.items())
        ]  # fmt: skip

    def logged(self, stream: str, text: str) -> Frame:
        return self.wait(lambda frame: frame["type"] == "log" and frame["stream"] == stream and text in frame["text"])

    def on_stderr(self, text: bytes) -> None:
        """Wait until a text came through the stderr pipe."""
        deadline = time.monotonic() + DEADLINE
        while text not in self.stderr:
            assert time.monotonic() < deadline, bytes(self.stderr[-2000:])
            time.sleep(0.01)

    def end(self) -> int:
        """Wait for the exit, reading what is left; returns the exit code, negative for a signal."""
        deadline = time.monotonic() + DEADLINE
        while self._receive(deadline):
            pass
        return self.process.wait(max(deadline - time.monotonic(), 0.1))

    def stop(self) -> int:
        """Stop it as planned."""
        self.send({"type": "stop"})
        return self.end()

    def close_stdin(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()

    def close(self) -> None:
        """Leave nothing behind, whatever the test did."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self._drainer.join(DEADLINE)
        assert not self._drainer.is_alive(), "something still holds the child's stderr"
        assert self.process.stderr
        self.process.stderr.close()


@contextlib.contextmanager
def raw_child(folder: Path, **init: Any) -> Iterator[RawChild]:
    child = RawChild(folder, init)
    try:
        yield child
    finally:
        child.close()
