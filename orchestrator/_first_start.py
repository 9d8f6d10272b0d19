"""Watch the first start of a frozen app that is to be a child, until it has said hello or is known to be none."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from orchestrator.exceptions import LaunchError

if TYPE_CHECKING:
    from anyio.abc import Process

    from orchestrator._handshake import Trial
    from orchestrator._pipes import Pipes
    from orchestrator._stderr import StderrReader

# Of what a start of the app says that is no child: bytes of its output, lines of its complaints.
_SHOWN = 200
_LAST_LINES = 5
_LONGEST_COMPLAINT = 1000


class FirstStart:
    """A start of the app that is on trial.

    Args:
        trial: Whose end lets others be started.
        timeout: Seconds that it has for saying hello.
    """

    def __init__(self, trial: Trial, timeout: float) -> None:
        self._trial = trial
        self._timeout = timeout
        # What it did instead of saying hello; empty when it did.
        self._verdict: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def said_hello(self) -> None:
        """It is a child."""
        if not self._verdict.done():
            self._verdict.set_result("")

    def is_foreign(self, data: bytes) -> bool:
        """Return whether what it wrote on the protocol's pipe is not of the protocol: it is no child then."""
        if not self._verdict.done() and not data.startswith(b"{"):
            self._verdict.set_result(f"its first output was {data[:_SHOWN]!r}")
        return not self._verdict.cancelled() and self._verdict.done() and bool(self._verdict.result())

    def cancel(self) -> None:
        """Watch it no longer: it was killed on purpose."""
        self._verdict.cancel()

    async def watch(self, process: Process, pipes: Pipes, stderr: StderrReader) -> bool:
        """Wait for its hello; False when it was killed on purpose.

        Raises:
            LaunchError: If it did something else.
        """
        ended = asyncio.ensure_future(process.wait())
        try:
            either: set[asyncio.Future[Any]] = {self._verdict, ended}
            await asyncio.wait(either, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                await pipes.drain()  # it may have said something at last
            if self._verdict.cancelled():
                return False
            if not self._verdict.done():
                self._verdict.set_result(
                    f"it {_end_of(ended.result())} without a hello"
                    if ended.done()
                    else f"it did not say hello within {self._timeout:g} s"
                )
            if not self._verdict.result():
                self._trial.passed()
                return True
            stderr.flush()
            said = "\n".join(stderr.tail()[-_LAST_LINES:])[-_LONGEST_COMPLAINT:]
            problem = f"the app ran instead of its child: {self._verdict.result()}"
            problem += f", and its last words were:\n{said}\n" if said else ""
            if ended.done() and ended.result() < 0:
                raise LaunchError(problem)  # somebody killed it: that proves nothing
            raise self._trial.failed(problem)
        finally:
            ended.cancel()


def _end_of(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
