"""What a child says: each frame, and what it means for its worker and for the jobs that the child holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import _frames, _wire
from orchestrator._child_files import is_in
from orchestrator._stacks import with_source

if TYPE_CHECKING:
    from orchestrator._child_process import Child
    from orchestrator._inline import InlineChild
    from orchestrator._leases import Leases
    from orchestrator._worker import Worker

# One bad line may be a half-written one of a dying child; three are a child that does not speak the protocol.
_BAD_FRAMES = 3


class Hearing:
    """Hears one child.

    Args:
        worker: Whose child it is.
        child: Who speaks.
        leases: The attempts it holds.

    Attributes:
        last: Type of the last frame.
    """

    def __init__(self, worker: Worker, child: Child | InlineChild, leases: Leases) -> None:
        self._worker = worker
        self._child = child
        self._leases = leases
        self._bad_frames = 0
        self._greeted = False
        self._last: type[_frames.Frame] | None = None

    @property
    def last(self) -> str:
        return "" if self._last is None else str(self._last.__struct_config__.tag)

    def received(self, lines: list[bytes], oversized: list[bytes]) -> None:
        """Act on lines of the protocol."""
        worker = self._worker
        try:
            self._act_on(lines)
        except Exception as error:
            # A bug of ours; without the frames that are lost now the child's jobs would never end.
            worker.pool.log("worker.frames_mishandled", "critical", worker=worker.name, exc_info=error)
            worker.misbehave(f"what it said was mishandled: {type(error).__name__}: {error}")
        for head in oversized:
            self._bad_frame(head, "too long")

    def _act_on(self, lines: list[bytes]) -> None:
        worker = self._worker
        leases = self._leases
        for line in lines:
            try:
                frame = _frames.decode(line)
            except _frames.BadFrame as error:
                self._bad_frame(line, str(error))
                continue
            self._last = frame.__class__ if frame is not None else self._last
            if type(frame) is _frames.Result or type(frame) is _frames.Error:
                if type(frame) is _frames.Result and not self._owns(frame.value_file, frame.typed_file):
                    return
                attempt = leases.remove(frame.fence)
                if attempt is not None:
                    worker.jobs_done += 1
                    worker.desk.answered(attempt, frame)
            elif frame is not None:
                self._act(frame)

    def _owns(self, *paths: str | None) -> bool:
        """Return whether files are the child's own; what lies elsewhere would be read, and removed, for it."""
        for path in paths:
            if path is not None and not is_in(self._child.temp, path):
                self._worker.misbehave(f"it named a file outside its folder: {path[:200]!r}")
                return False
        return True

    def _act(self, frame: _frames.Frame) -> None:
        worker = self._worker
        leases = self._leases
        match frame:
            case _frames.Logged():
                attempt = None if frame.fence is None else leases.held.get(frame.fence)
                if frame.stream == "stack":
                    if attempt is not None:
                        attempt.stack = with_source(frame.text)
                    return
                if frame.stream == "stderr":
                    self._child.stderr.note(frame.text)
                worker.talk.logged(worker, attempt, frame)
            case _frames.Started():
                attempt = leases.held.get(frame.fence)
                if frame.flavour is not None:
                    worker.flavour = frame.flavour
                if attempt is not None:
                    if frame.kind is not None:
                        attempt.record.target.learn(frame.kind)
                    if not attempt.begun:
                        attempt.begin()
                    if frame.called and attempt.record.grant is not None:
                        attempt.record.grant.began()
            case _frames.Returned():
                leases.took_back(frame.asked)
                for fence in frame.fences:
                    attempt = leases.remove(fence)
                    if attempt is not None:
                        attempt.over()
                        worker.desk.returned(attempt, frame.kind)
            case _frames.Spent():
                worker.is_spent(frame.reason)
            case _frames.Hello():
                self._greet(frame)
            case _frames.Ready():
                if not self._greeted:
                    worker.misbehave("it said ready before hello")
                elif worker.state == "ready":
                    worker.misbehave("it said ready twice")
                else:
                    worker.is_ready()
            case _frames.Extend():
                worker.needs_longer()
            case _frames.Bye():
                if frame.reason:
                    worker.explain(frame.reason)
            case _frames.Pong():
                return
            case _:
                attempt = leases.held.get(getattr(frame, "fence", -1))
                if attempt is not None:
                    worker.talk.told(attempt, frame)

    def _greet(self, frame: _frames.Hello) -> None:
        if frame.version != _wire.VERSION:
            self._worker.misbehave(f"it speaks version {frame.version} of the protocol, not {_wire.VERSION}")
        elif frame.nonce != self._child.nonce:
            self._worker.misbehave("its hello is not an answer to ours")
        else:
            self._greeted = True
            self._child.said_hello(frame.pid)

    def _bad_frame(self, line: bytes, problem: str) -> None:
        worker = self._worker
        self._bad_frames += 1
        head = self._child.stderr.redact(line[:200].decode("utf-8", "backslashreplace"))
        worker.pool.log("child.sent_bad_frame", "warning", worker=worker.name, generation=worker.generation, head=head)
        if self._bad_frames == _BAD_FRAMES:
            worker.misbehave(f"it wrote {_BAD_FRAMES} bad frames, the last one: {head!r} ({problem})")
