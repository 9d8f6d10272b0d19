"""The secrets of one supervisor: where their values come from, each time a child is started."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.child._redact import Redactor, too_short
from orchestrator.exceptions import LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class NoSecret(LaunchError):
    """Raised when a value cannot be had: no child can be started then, of whatever kind."""


class Secrets:
    """Reads what children get over their pipe, and nobody else gets to see.

    Args:
        given: Names of environment variables; or values, and functions that return them, by name.
        log: Logs an event.
        timeout: Seconds that the functions have.

    Attributes:
        names: Names of the environment variables that children have them in.
    """

    def __init__(
        self,
        given: Sequence[str] | Mapping[str, str | Callable[[], str]],
        log: Callable[..., None],
        timeout: float,
    ) -> None:
        self.names = tuple(given)
        self._values: dict[str, str] = {}
        self._functions: dict[str, Callable[[], str]] = {}
        for name in given:
            # The environment is read now, and not when it may have changed.
            value = given[name] if isinstance(given, Mapping) else os.environ[name]
            if isinstance(value, str):
                self._values[name] = value
            else:
                self._functions[name] = value
        self._are_set_here = not isinstance(given, Mapping)
        self._redactor: tuple[dict[str, str], Redactor] | None = None
        self._log = log
        self._timeout = timeout
        self._short: set[str] = set()
        self._replaced: dict[str, tuple[str | None, str]] = {}  # what was there, and what is

    async def read(self) -> dict[str, str]:
        """Return the values as they are now.

        Raises:
            NoSecret: If a function does not return one; what it raised is not told, for it may hold the value.
        """
        values = dict(self._values)
        if self._functions:
            values |= await self._call()
        short = {name for name, value in values.items() if too_short(value)} - self._short
        if short:
            self._short |= short
            reason = "they are too short to be told from other text, and stay in what jobs print and raise"
            self._log("secret.left_readable", "warning", names=sorted(short), reason=reason)
        return {name: values[name] for name in self.names}

    def redactor(self, values: dict[str, str]) -> Redactor:
        """Return what takes these values out of texts; made anew only when they change: a key file takes a while."""
        if self._redactor is None or self._redactor[0] != values:
            self._redactor = values, Redactor(values)
        return self._redactor[1]

    async def _call(self) -> dict[str, str]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[dict[str, str]] = loop.create_future()

        def settle(found: dict[str, str], problem: str) -> None:
            if answer.done():
                return
            if problem:
                answer.set_exception(NoSecret(problem))
            else:
                answer.set_result(found)

        def work() -> None:
            found, problem = _results(self._functions)
            try:
                loop.call_soon_threadsafe(settle, found, problem)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

        # A thread of its own, which nobody has to wait for: a keyring may ask a person.
        threading.Thread(target=work, name="orchestrator secrets", daemon=True).start()
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            names = ", ".join(self._functions)
            raise NoSecret(f"secrets: no value of {names} within start_timeout={self._timeout:g} s") from None

    def set_here(self, values: Mapping[str, str]) -> None:
        """Have the values in this process's own environment, where jobs without a process look for them."""
        for name, value in () if self._are_set_here else values.items():
            if os.environ.get(name) != value:
                before, _ = self._replaced.get(name, (os.environ.get(name), ""))
                self._replaced[name] = before, value
                os.environ[name] = value

    def restore(self) -> None:
        """Have this process's environment as it was."""
        for name, (before, value) in self._replaced.items():
            if os.environ.get(name) != value:
                continue  # the host has set it since
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before
        self._replaced.clear()


def _results(functions: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, str], str]:
    """Call functions; return what they returned, or else what is wrong."""
    found: dict[str, str] = {}
    for name, function in functions.items():
        try:
            value = function()
        except BaseException as error:
            return {}, f"secrets: the function for {name} raised {type(error).__qualname__}{_place(error)}"
        if not isinstance(value, str) or not value or "\0" in value:
            what = "an empty string" if value == "" else "a null character" if isinstance(value, str) else None
            return {}, f"secrets: the function for {name} returned {what or type(value).__name__}, and no text"
        found[name] = value
    return found, ""


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
