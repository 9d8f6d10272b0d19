"""The main thread of a service: one target or script, as an ordinary interpreter would run it, until it ends."""

from __future__ import annotations

import _signal
import os
import sys
import time
from _thread import get_ident, start_new_thread

from orchestrator.child import _scope
from orchestrator.child._invoke import prepare
from orchestrator.child._scope import Scope
from orchestrator.child._target import wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.child._runtime import Runtime


def run(runtime: Runtime) -> int:
    """Run the service to its end, and return the exit code that it asked for."""
    order = runtime.init["service"]
    _scope.service = scope = Scope(0, runtime)
    ending = _Ending(runtime)
    runtime.end_service = ending.begin
    code: object = 0
    try:
        if not runtime.stopping:  # else the stop came before there was anything to end
            if order.get("script"):
                _run_script(order)
            else:
                _run_target(runtime, scope, order)
    except SystemExit as error:
        code = error.code
    try:
        # As at the end of any program: threads that are no daemons, servers perhaps, are waited for.
        threading: Any = sys.modules.get("threading")
        if threading is not None:
            threading._shutdown()
    except SystemExit as error:
        code = error.code
    ending.is_over()
    if runtime.stopping:
        return 0
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


def _run_target(runtime: Runtime, scope: Scope, order: dict[str, Any]) -> None:
    target = runtime.find(order)
    if target.kind in ("generator", "async_generator"):
        raise TypeError(f"{order['target']} is a generator, and a service is no list of values: write a function")
    function, args, kwargs = prepare(order, target, scope)
    if order.get("offered"):
        kwargs = {**wanted(function, args, kwargs, order["offered"]), **kwargs}
    value: Any = function(*args, **kwargs)
    if hasattr(value, "__await__"):
        import asyncio

        asyncio.run(_awaited(value))


async def _awaited(value: Any) -> Any:
    return await value


def _run_script(order: dict[str, Any]) -> None:
    path = order["script"]
    module = type(sys)("__main__")
    module.__file__ = path
    module.__dict__["__cached__"] = None
    sys.modules["__main__"] = module
    sys.argv[:] = [path, *order["args"]]
    sys.path.insert(0, os.path.dirname(path))
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    exec(code, module.__dict__)


class _Ending:
    """Has the main thread end when the supervisor asks for it, or somebody sends SIGTERM.

    What the service installs itself for SIGTERM, as servers do, is called instead.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._main = get_ident()
        self._heard = False
        # As in any interpreter: jobs are ended by signals, services are not.
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        if sys.platform != "win32":
            _signal.signal(_signal.SIGUSR1, _signal.SIG_DFL)
        self._handler = self._on_signal
        _signal.signal(_signal.SIGTERM, self._handler)

    def begin(self) -> None:
        """Ask for the end, on the reader thread."""
        self._raise()
        start_new_thread(self._repeat, ())

    def is_over(self) -> None:
        """Ask no more: the service has ended."""
        self._heard = True
        _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)

    def _on_signal(self, signum: int, frame: Any) -> None:
        self._heard = True
        self._runtime.end_main()

    def _raise(self) -> None:
        if sys.platform == "win32":
            from _thread import interrupt_main

            interrupt_main(_signal.SIGTERM)
        else:
            _signal.pthread_kill(self._main, _signal.SIGTERM)

    def _repeat(self) -> None:
        """Repeat the signal until it was heard.

        One that arrives after the interpreter looked for signals and before a blocking call begins does not interrupt
        that call. A handler of the service's own is called once only: a second signal may mean more to it.
        """
        wait = 0.01
        while not self._heard and _signal.getsignal(_signal.SIGTERM) == self._handler:
            time.sleep(wait)
            wait = min(2 * wait, 0.2)
            if not self._heard:
                self._raise()
