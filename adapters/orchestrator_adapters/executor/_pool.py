"""What runs the calls of one executor: a supervisor on an event loop of its own thread, and a thread that delivers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections import deque
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator import Job, Supervisor, callback
from orchestrator.exceptions import JobCrashed
from orchestrator_adapters.executor import _child, _exit, _lot, _messages
from orchestrator_adapters.executor._delivery import Delivery, read_error
from orchestrator_adapters.executor._errors import CallCrashed

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator import Outcome
    from orchestrator_adapters.executor._call import Call
    from orchestrator_adapters.executor._messages import Answer, Message

# Of calls that were quick, 128 are handed over for each that can run, to keep children busy: those that were handed
# over can't be cancelled any more. Of others there is one more than there are workers, as in the standard library.
_QUICK_SHARE = 1 / 128
# So many functions are known to be quick; somebody who makes functions without end loses speed only.
_MOST_KNOWN = 10_000
# Quick calls go in lots, if that many wait: a job costs more than they do. More would make the first wait for long.
_LEAST_LOT, _LARGEST_LOT = 4, 32
# A call whose pickle is longer goes alone: what is long to send is no small call.
_LONG = 4096
# So much is encoded in a thread.
_LARGE = 262_144
# After so many crashes in a row it is found out whether children can do anything at all.
_DOUBTFUL = 2
# Last in the line: there a supervisor looks for a job to try, when those that it tried have died.
_PROBE = Job(_child.probe, priority=-1_000_000_000)


class _Cancellable(Protocol):
    """A job, or what is on its way to become one."""

    def cancel(self) -> object:
        """End it; its calls are told."""


class _Refused:
    """In the place of a job that was not accepted, until its calls have been told."""

    def cancel(self) -> None:
        """Nothing of it runs."""


class Pool:
    """Takes calls from any thread, and keeps all state that outlives the executor's own object.

    Args:
        workers: How many children there may be.
        options: All other options of the supervisor.
        kill_running: Whether a call that runs may be cancelled.

    Attributes:
        broken: Why no call can run any more; empty as long as they can.
    """

    def __init__(self, workers: int, options: dict[str, Any], *, kill_running: bool) -> None:
        self.kill_running = kill_running
        # Not where calls are counted, or ended one by one.
        self._makes_lots = not kill_running and options.get("max_jobs") is None
        self.broken = ""
        self._workers = workers
        self._supervisor = Supervisor(workers, **options)
        self._name = str(options["name"])
        # Reentrant, for the collector may end another executor, or this one, within a call.
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._waiting: deque[Call] = deque()
        self._is_shut = False
        self._thread: threading.Thread | None = None
        self._delivery = Delivery(f"{self._name} delivery")
        self._say = callback(self._delivery.said)
        # From here on on the loop's thread, but for what is said of `_loop`.
        self._loop: asyncio.AbstractEventLoop | None = None  # set and cleared with the lock held; calls wait till then
        self._woken = False
        self._over: asyncio.Event
        self._running: dict[Call, _Cancellable] = {}
        self._taken = 0.0
        self._enough = workers + 0.25  # of calls of which so many are handed over, no more are for the moment
        self._quick: set[str] = set()
        self._printing: set[str] = set()  # of those the ones whose lines are to come at once
        self._crashes = 0
        self._probes: set[asyncio.Task[None]] = set()
        self._problem: Callable[[], BaseException] | None = None
        self._doom = ""  # why all is to be ended, from whichever thread

    # For any thread

    def submit(self, call: Call, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take a call.

        Args:
            call: Its future.
            function: What is called.
            args: With these.
            kwargs: And these.

        Raises:
            BrokenProcessPool: If no call can run any more.
            RuntimeError: If the executor is shut down, the program ends, or this is a forked copy of it.
        """
        self._check()
        try:
            call.message = _messages.write_call(function, args, kwargs)
        except Exception as error:  # of the caller's own values: told as results are, like in the standard library
            call.settle(error=error)
            return
        with self._lock:
            if self._is_shut or self.broken:
                self._check()
            if self._thread is None:
                self._start()
            self._waiting.append(call)
        self._wake()

    def _check(self) -> None:
        if self.broken:
            raise BrokenProcessPool(self.broken)
        if _exit.has_begun():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if os.getpid() != self._pid:
            raise RuntimeError("this process is a forked copy of the one that made the executor; make one here")

    def _start(self) -> None:
        thread = threading.Thread(target=self._main, name=self._name, daemon=True)
        try:
            self._delivery.start()
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is about to end
            self._delivery.finish()
            self.broken = f"the executor could not start: {error}"
            raise BrokenProcessPool(self.broken) from error
        self._thread = thread
        _exit.watch(self)

    def _wake(self) -> None:
        """Have the loop look at what waits; better without the lock, which is the first thing that it would wait for.

        A look that is still to come sees whatever waits by then. A loop that is over, or not there yet, has looked at
        all that there was, or will.
        """
        loop = self._loop
        if loop is not None and not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # closed
                loop.call_soon_threadsafe(self._pump)

    def kill(self, call: Call) -> None:
        """End a call that runs; its future is cancelled already."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._kill, call)

    def break_now(self, reason: str) -> None:
        """End all that runs and waits; every future of it raises BrokenProcessPool with that reason."""
        with self._lock:
            self._is_shut = True
            self._doom = reason
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._break_if_doomed)

    def shutdown(self, *, wait: bool, cancel: bool = False) -> None:
        """Take no more calls, and end when those that were taken are done."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._is_shut = True
            # Before the first child is there nothing is handed over: what children are started for counts as such.
            dropped = list(self._waiting)[self._workers + 1 if self._loop is None else 0 :] if cancel else []
            for _ in dropped:
                self._waiting.pop()
            self._wake()
        for call in dropped:
            call.cancel()
        me = threading.current_thread()
        if not wait or self._thread is None or me in (self._thread, self._delivery.thread):
            return  # a callback that waited for the end of all callbacks would never end
        self._thread.join()
        self._delivery.thread.join()

    def end_now(self) -> None:
        """Cancel what waits, kill what runs, and return when all has ended; of a pool with `kill_running`."""
        self.shutdown(wait=False, cancel=True)
        while self._thread is not None and self._thread.is_alive():
            # Again and again, for one may be on its way from those that wait to those that run.
            for call in [*self._waiting, *self._running]:
                call.cancel()
            self._thread.join(0.1)
        self.shutdown(wait=True)

    # On the thread of the loop

    def _main(self) -> None:
        # Not one of the policy that the host may have set: it must be able to start processes.
        if sys.platform == "win32":
            loop_factory = asyncio.ProactorEventLoop
        else:
            loop_factory = asyncio.SelectorEventLoop
        try:
            with asyncio.Runner(debug=False, loop_factory=loop_factory) as runner:  # it is none of the program's loops
                runner.run(self._live())
        finally:
            self._delivery.finish()
            _exit.forget(self)

    async def _live(self) -> None:
        self._over = asyncio.Event()
        try:
            await self._work()
        except BaseException as error:
            cause = error
            reason = f"the executor could not run its calls: {type(error).__name__}: {error}"
            self._break(reason, lambda: _caused(BrokenProcessPool(reason), cause))
            if self._running:
                await self._over.wait()
        finally:
            with self._lock:
                self._loop = None

    async def _work(self) -> None:
        async with self._supervisor:
            with self._lock:
                self._loop = asyncio.get_running_loop()
            self._break_if_doomed()
            self._pump()
            await self._over.wait()
            with self._lock:
                self._loop = None
            for probe in self._probes:
                probe.cancel()

    def _pump(self) -> None:
        """Hand over as many calls as there is room for."""
        waiting, quick = self._waiting, self._quick
        taken = self._taken
        room = self._workers + 1
        calls = []
        with self._lock:
            self._woken = False
            while waiting:
                call = waiting[0]
                call.share = share = _QUICK_SHARE if call.label in quick else 1.0
                if taken + share > room and call.message is not None:
                    break
                waiting.popleft()
                if call.message is not None:
                    taken += share
                    calls.append(call)
        lot: list[tuple[Call, Message]] = []
        size = min(_LARGEST_LOT, len(calls) // self._workers) if self._makes_lots else 0
        for call in calls:
            message, call.message = call.message, None
            if message is None or not call.begin():
                continue
            self._taken += call.share
            if size < _LEAST_LOT or call.share == 1.0 or len(message) > _LONG:
                self._hand_over(call, message)
                continue
            lot.append((call, message))
            if len(lot) >= size:
                self._hand_over_lot(lot)
                lot = []
        if lot:
            self._hand_over_lot(lot)
        if self._is_shut and not waiting and not self._running:
            self._over.set()

    def _hand_over(self, call: Call, message: Message) -> None:
        # Without a callback a job costs less, and what a quick call prints can wait for its end.
        job: tuple[Any, ...]
        if call.share == 1.0 or call.label in self._printing:
            job = (_child.call, message, self._say)
        elif isinstance(message, str):
            job = (_child.call_quickly, message)
        else:
            job = (_child.call_plainly, *message)
        if len(message) > _LARGE:
            task = self._running[call] = asyncio.create_task(self._hand_over_later(call, job))
            task.add_done_callback(partial(self._handed_over, call))
            return
        try:
            handle = self._running[call] = self._supervisor.submit_nowait(*job)
        except Exception as error:
            self._refuse([call], error)
        else:
            handle.when_done(partial(self._ended, call))

    async def _hand_over_later(self, call: Call, job: tuple[Any, ...]) -> None:
        """Hand over a call that is too large to be encoded while others wait."""
        handle = self._running[call] = await self._supervisor.submit(*job)
        handle.when_done(partial(self._ended, call))

    def _handed_over(self, call: Call, task: asyncio.Task[None]) -> None:
        # Not in the task: one that is cancelled before its first step never takes one.
        if task.cancelled():
            self._ended_with(call, None)
        elif (error := task.exception()) is not None:
            self._ended_with(call, error)

    def _hand_over_lot(self, calls: list[tuple[Call, Message]]) -> None:
        lot = deque(calls)

        def tell(kind: int, what: Any) -> None:
            if kind == _lot.ANSWER:
                self._settle(lot.popleft()[0], what)
            elif kind == _lot.GIVEN_BACK:
                self._hand_over_again([lot.pop() for _ in range(what)])
            else:
                self._delivery.said(kind, what)

        try:
            handle = self._supervisor.submit_nowait(_lot.call_many, [message for _, message in lot], callback(tell))
        except Exception as error:
            self._refuse([call for call, _ in calls], error)
            return
        for call, _ in lot:
            self._running[call] = handle
        handle.when_done(partial(self._lot_ended, lot))

    def _refuse(self, calls: list[Call], error: Exception | None) -> None:
        """Fail calls that were not accepted; soon, for whoever hands over is in the midst of others."""
        for call in calls:
            self._running[call] = _Refused()
            asyncio.get_running_loop().call_soon(self._ended_with, call, error)

    def _hand_over_again(self, calls: list[tuple[Call, Message]]) -> None:
        """Hand over calls that had been handed over and did not begin, each by itself; the last one is the first."""
        for call, message in reversed(calls):
            if self._problem is None:
                self._hand_over(call, message)
            else:
                self._refuse([call], None)

    def _lot_ended(self, lot: deque[tuple[Call, Message]], outcome: Outcome) -> None:
        if not lot:
            return  # it had answered them all
        # Those behind the first have not begun.
        rest = [lot.pop() for _ in range(len(lot) - 1)]
        self._ended_with(lot.popleft()[0], None if outcome.status == "cancelled" else outcome.error)
        self._hand_over_again(rest)

    def _ended(self, call: Call, outcome: Outcome) -> None:
        answer = outcome.value
        if outcome.status != "succeeded":
            self._ended_with(call, None if outcome.status == "cancelled" else outcome.error)
        elif isinstance(answer, list):
            if len(answer) > 2:
                self._printing.add(call.label)
            for fd, line in answer[2:]:
                self._delivery.said(fd, line)
            self._settle(call, answer)
        else:
            self._settle(call, [_messages.QUICK_PLAIN, answer])

    def _ended_with(self, call: Call, error: BaseException | None) -> None:
        """A call ended without an answer: with an error, or because it was cancelled, alone or with everything."""
        if isinstance(error, JobCrashed):
            error = CallCrashed(f"the call of {call.label} crashed: {error.certificate}", error)
        elif error is None and self._problem is not None:
            error = self._problem()
        elif error is None:
            # Settles nothing where it was the future that was cancelled.
            error = BrokenProcessPool(f"the call of {call.label} was ended")
        self._settle(call, error)

    def _settle(self, call: Call, answer: Answer | BaseException) -> None:
        self._learn(call.label, answer)
        # In this order: who waits for the future can go on only when this thread rests.
        self._end(call)
        self._delivery.answer(call, answer)

    def _end(self, call: Call) -> None:
        del self._running[call]
        self._taken -= call.share
        if not self._running:
            self._taken = 0.0  # what rounding has left of it
        if not self._waiting:
            if self._is_shut and not self._running:
                self._over.set()
        # Where lots can be made, there is to be room for some.
        elif not self._running or call.share == 1.0 or not self._makes_lots or self._taken <= self._enough:
            self._pump()

    def _learn(self, label: str, answer: Answer | BaseException) -> None:
        """Note whether calls of a function are quick, and whether calls come to an end at all."""
        if isinstance(answer, CallCrashed):
            self._quick.discard(label)
            self._crashes += 1
            if self._crashes >= _DOUBTFUL and not self._probes:
                probe = asyncio.create_task(self._probe())
                self._probes.add(probe)
                probe.add_done_callback(self._probes.discard)
            return
        if isinstance(answer, BaseException):
            return
        self._crashes = 0
        if answer[0] == _messages.NOT_INITIALIZED:
            if not self.broken:
                self._fail_initializer(answer)
        elif answer[0].islower():
            self._quick.discard(label)
        elif label not in self._quick:
            if len(self._quick) >= _MOST_KNOWN:
                self._quick.clear()
                self._printing.clear()
            self._quick.add(label)

    async def _probe(self) -> None:
        """Have a child do something that cannot fail: when calls keep crashing, it is they, and not their surroundings.

        A supervisor whose jobs all die starts children ever more seldom, until one of them succeeds.
        """
        try:
            await self._supervisor.run(_PROBE)
        except Exception:
            return  # then it is the surroundings
        self._crashes = 0

    def _kill(self, call: Call) -> None:
        running = self._running.get(call)
        if running is not None:
            running.cancel()

    def _fail_initializer(self, answer: Answer) -> None:
        error = read_error(answer)
        _exit.logger.critical("Exception in initializer:", exc_info=error.__cause__)
        self._break(str(error), lambda: read_error(answer))

    def _break_if_doomed(self) -> None:
        reason = self._doom
        if reason:
            self._break(reason, lambda: BrokenProcessPool(reason))

    def _break(self, reason: str, make: Callable[[], BaseException]) -> None:
        """Fail what waits and what runs, and end."""
        with self._lock:
            self.broken = self.broken or reason
            self._is_shut = True
            self._problem = make
            waiting = list(self._waiting)
            self._waiting.clear()
        for call in waiting:
            if call.begin():
                self._delivery.answer(call, make())
        for running in set(self._running.values()):
            running.cancel()
        if not self._running and self._loop is not None:
            self._over.set()


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error
