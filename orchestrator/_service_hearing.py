"""What a child of a service writes, turned into what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import _frames, _wire

if TYPE_CHECKING:
    from orchestrator._child_process import Child
    from orchestrator._service_runner import Runner
    from orchestrator._talk import Talk

# As of a worker's child: so many lines that are no frames show that user code writes where it must not.
_BAD_FRAMES = 10


class ServiceHearing:
    """Hears one child, through the protocol and through its pipes."""

    def __init__(self, runner: Runner, child: Child, talk: Talk) -> None:
        self._runner = runner
        self._child = child
        self._talk = talk
        self._greeted = False
        self._bad_frames = 0

    def received(self, lines: list[bytes]) -> None:
        """Act on lines of the protocol."""
        for line in lines:
            try:
                frame = _frames.decode(line)
            except _frames.BadFrame as error:
                self._misheard(line, str(error))
                continue
            match frame:
                case _frames.Logged():
                    if frame.stream == "stderr":
                        self._child.stderr.note(frame.text)
                    self._wrote(frame)
                case _frames.Hello():
                    self._greet(frame)
                case _frames.Ready() if self._greeted:
                    self._runner.runs()
                case _frames.Serving() if self._greeted:
                    self._runner.serves()
                case _frames.Bye() if frame.reason:
                    self._runner.explain(frame.reason)
                case _:
                    continue

    def _greet(self, frame: _frames.Hello) -> None:
        if frame.version != _wire.VERSION:
            self._runner.misbehave(f"it speaks version {frame.version} of the protocol, not {_wire.VERSION}")
        elif frame.nonce != self._child.nonce:
            self._runner.misbehave("its hello is not an answer to ours")
        else:
            self._greeted = True
            self._child.said_hello(frame.pid)

    def _misheard(self, line: bytes, problem: str) -> None:
        self._bad_frames += 1
        head = self._child.stderr.redact(line[:200].decode("utf-8", "backslashreplace"))
        self._runner.log("child.sent_bad_frame", "warning", head=head)
        if self._bad_frames == _BAD_FRAMES:
            self._runner.misbehave(f"it wrote {_BAD_FRAMES} bad frames, the last one: {head!r} ({problem})")

    def printed(self, lines: list[str], dropped: int, stream: str) -> None:
        """Pass on lines that came through a pipe."""
        for line in lines:
            self._wrote(_frames.Logged(text=line, stream=stream, dropped=dropped))
            dropped = 0
        if dropped:
            self._wrote(_frames.Logged(text="", stream=stream, dropped=dropped))

    def _wrote(self, frame: _frames.Logged) -> None:
        runner = self._runner
        runner.history.push(self._talk.event_of(frame, runner.generation))
        fields = {"service": runner.name, "generation": runner.generation, "pid": self._child.pid}
        self._talk.write(frame, fields)
