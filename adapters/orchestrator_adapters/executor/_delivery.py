"""The thread that unpickles results, settles futures and calls their callbacks: none of it holds children up."""

from __future__ import annotations

import concurrent.futures.process
import contextlib
import logging
import pickle
import sys
import threading
from binascii import a2b_base64
from concurrent.futures.process import BrokenProcessPool
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from orchestrator.exceptions import OrchestratorError
from orchestrator_adapters.executor import _messages
from orchestrator_adapters.executor._errors import CallUnreadable, InitializerFailed


class _RemoteTraceback(Exception):
    """The cause of an exception that was raised in a child: its traceback there."""

    def __init__(self, trace: str) -> None:
        super().__init__(trace)
        self.tb = trace

    def __str__(self) -> str:
        return self.tb


# Programs know that of the standard library.
RemoteTraceback: Any = getattr(concurrent.futures.process, "_RemoteTraceback", _RemoteTraceback)

if TYPE_CHECKING:
    from orchestrator_adapters.executor._call import Call
    from orchestrator_adapters.executor._messages import Answer

    End = Answer | BaseException

# Also of an exception that lets nobody change it.
_SET_CAUSE = BaseException.__dict__["__cause__"].__set__

_logger = logging.getLogger("concurrent.futures")  # where the standard library tells of callbacks that raise


class Delivery:
    """Delivers answers and printed lines, in the order in which they came.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[tuple[Call, End] | tuple[int, str] | None] = SimpleQueue()
        # Lines handed over and lines printed, each counted by one thread alone.
        self._said = self._printed = 0
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def answer(self, call: Call, end: End) -> None:
        """Settle a future soon; at once, and without waking a thread, if that can't hold up who calls this."""
        if (
            type(end) is list
            and end[0] in _messages.HARMLESS
            and self._said == self._printed
            and call.settle_quietly(_messages.read_value(end))
        ):
            return
        self._queue.put((call, end))

    def said(self, fd: int, text: str) -> None:
        """Print soon what a call printed."""
        self._said += 1
        self._queue.put((fd, text))

    def finish(self) -> None:
        """End the thread when all is delivered."""
        self._queue.put(None)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                if isinstance(item[1], str):
                    try:
                        _print(item[0], item[1])
                    finally:
                        self._printed += 1
                else:
                    _settle(item[0], item[1])
            except BaseException as error:  # a callback that calls exit, say: the others still wait
                _logger.exception("a callback of a future raised")
                if not isinstance(item[1], str):
                    item[0].settle(error=CallUnreadable(f"its end could not be told: {error!r:.500}"))
            del item  # neither a future nor its result lives on here while nothing comes


def _print(fd: int, text: str) -> None:
    stream = sys.stdout if fd == 1 else sys.stderr
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):  # closed, or it cannot show these characters
            stream.write(text)
            stream.flush()


def _settle(call: Call, end: End) -> None:
    if isinstance(end, BaseException):
        call.settle(error=_translated(end))
    elif end[0] in _messages.VALUES:
        try:
            value = _messages.read_value(end)
        except BaseException as error:  # what is in a pickle is user code, and may even call exit
            problem = CallUnreadable(f"the result could not be rebuilt here: {type(error).__name__}: {error}")
            problem.__cause__ = error
            call.settle(error=problem)
        else:
            call.settle(value)
    else:
        call.settle(error=read_error(end))


def read_error(answer: Answer) -> BaseException:
    """Return the exception that an answer carries, with its traceback in the child as its cause."""
    try:
        error, trace, why = pickle.loads(a2b_base64(answer[1]))
    except BaseException as problem:
        unreadable = CallUnreadable(f"the call raised what could not be rebuilt here: {problem!r:.500}")
        unreadable.__cause__ = problem
        return unreadable
    cause = RemoteTraceback(f'\n"""\n{trace}"""')
    last = trace.strip().rpartition("\n")[2]
    if answer[0] == _messages.NOT_INITIALIZED:
        error = InitializerFailed(f"the initializer failed: {last}")
    elif answer[0] == _messages.UNREADABLE:
        error = CallUnreadable(f"the call could not be rebuilt in the child: {last}")
    elif error is None:
        error = CallUnreadable(f"the call raised {last} (which could not be pickled: {why})")
    found: BaseException = error
    _SET_CAUSE(found, cause)
    return found


def _translated(error: BaseException) -> BaseException:
    """Return what a user of the standard library's pool expects in place of an error of ours."""
    if isinstance(error, BrokenProcessPool) or not isinstance(error, OrchestratorError):
        return error
    found = BrokenProcessPool(str(error))
    found.__cause__ = error
    return found
