"""`orchestrator batch run`: one batch with its log lines, its signals and its last words on standard error."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING

from orchestrator_adapters.batch._errors import RESUMABLE
from orchestrator_adapters.batch._log_lines import show_log
from orchestrator_adapters.batch._progress import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from orchestrator_adapters.batch._batch import Batch

INTERRUPTED = 130


def run_batch(batch: Batch) -> int:
    """Run a batch in a process that is ours alone, and return its exit code.

    Raises:
        BatchError: If it cannot begin.
    """
    show_log()
    # Standard output is for results: what a handler prints in this process is shown as what children print.
    with interrupts(batch), contextlib.redirect_stdout(_Printed()) as printed:
        report = asyncio.run(batch.run())
        printed.end_line()
    say(report.summary())
    if report.exit_code in (INTERRUPTED, RESUMABLE):
        say("The same command goes on from here.")
    return report.exit_code


class _Printed(io.TextIOBase):
    """Shows whole lines that are printed."""

    def __init__(self) -> None:
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            say(line)
        return len(text)

    def end_line(self) -> None:
        """Show what was printed without the end of its line."""
        if self._rest:
            self.write("\n")


def command_again(words: Sequence[str]) -> str:
    """Return what to type to go on with a run, from the words that started this process.

    `--fresh` is left out: it would forget the run.
    """
    at = next((at for at, word in enumerate(words) if word == "batch"), 0)
    return shlex.join(["orchestrator", *(word for word in words[at:] if word != "--fresh")])


@contextlib.contextmanager
def interrupts(batch: Batch) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the batch: once when what runs is finished, twice soon, three times at once."""
    count = 0

    def received(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count >= 3:
            # The loop may be what is stuck. Our guardian sees that we are gone and kills what the children started.
            with contextlib.suppress(OSError):
                if os.isatty(2):
                    os.write(2, b"\r\n\x1b[?25h")
            os._exit(INTERRUPTED)
        batch.interrupt(signal.Signals(number).name)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)
    # A signal that our parent had us ignore, as a shell does with the Ctrl-C of a background command, stays ignored.
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, received)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
