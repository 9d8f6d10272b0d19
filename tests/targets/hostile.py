"""Jobs that raise what is hard to tell."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

_NOTHING: dict[str, int] = {}


class BadStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class ExitingStr(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class BadClass(Exception):
    __module__ = None  # type: ignore[assignment]


class HttpError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"status {code}")
        self.status_code = code


class NeedsTwo(Exception):
    """Cannot be unpickled: its constructor wants more than its args."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__("only one")


class BadNotes(Exception):
    __notes__ = (object(), 5)  # type: ignore[assignment]


class BadDict(Exception):
    def __getattribute__(self, name: str) -> Any:
        if name in ("__notes__", "code", "status_code", "__cause__", "__context__"):
            raise ValueError(name)
        return super().__getattribute__(name)


def raise_huge() -> NoReturn:
    raise ValueError("x" * 50_000_000)


def raise_recursive(depth: int = 0) -> NoReturn:
    raise_recursive(depth + 1)


def raise_self_caused() -> NoReturn:
    error = ValueError("ring")
    other = KeyError("other")
    error.__cause__ = other
    other.__cause__ = error
    raise error


def raise_deep_causes() -> NoReturn:
    error: BaseException = ValueError("root")
    for number in range(3000):
        following = RuntimeError(f"level {number}")
        following.__cause__ = error
        error = following
    raise error


def raise_bad_str() -> NoReturn:
    raise BadStr


def raise_exiting_str() -> NoReturn:
    raise ExitingStr


def raise_bad_class() -> NoReturn:
    raise BadClass("of no module")


def raise_bad_notes() -> NoReturn:
    raise BadNotes("with odd notes")


def raise_bad_dict() -> NoReturn:
    raise BadDict("guarded")


def raise_needs_two() -> NoReturn:
    raise NeedsTwo(1, 2)


def raise_http() -> NoReturn:
    raise HttpError(429)


def raise_noted() -> NoReturn:
    error = ValueError("noted")
    error.add_note("first note")
    error.add_note("second note")
    raise error


def raise_caused() -> None:
    try:
        _NOTHING["missing"]
    except KeyError as error:
        raise ValueError("while looking") from error


def raise_in_context() -> None:
    try:
        _NOTHING["missing"]
    except KeyError:
        raise ValueError("while handling")  # noqa: B904


def raise_group() -> NoReturn:
    raise ExceptionGroup("many", [ValueError("left"), ExceptionGroup("inner", [TypeError("deep")])])


async def raise_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_fail("one"))
        group.create_task(_fail("two"))


async def _fail(text: str) -> NoReturn:
    raise LookupError(text)


def raise_surrogates() -> NoReturn:
    raise ValueError("lone \ud800 and \x00 and \u2028")


def raise_base() -> NoReturn:
    raise BaseException("base")


def raise_generator_exit() -> NoReturn:
    raise GeneratorExit


def raise_cancelled() -> NoReturn:
    raise asyncio.CancelledError("my own")


async def raise_cancelled_async() -> NoReturn:
    raise asyncio.CancelledError("my own")


def raise_stop_iteration() -> NoReturn:
    raise StopIteration(5)


def yield_and_raise():  # type: ignore[no-untyped-def]
    yield 1
    yield 2
    raise ValueError("after two")


def yield_unsendable():  # type: ignore[no-untyped-def]
    yield 1
    yield object()


def bad_syntax() -> object:
    return compile("def (", "made_up.py", "exec")


def raise_local_class() -> NoReturn:
    class Local(ValueError):
        pass

    raise Local("of a function")


def hide_traceback() -> NoReturn:
    error = ValueError("no trace")
    raise error.with_traceback(None)
