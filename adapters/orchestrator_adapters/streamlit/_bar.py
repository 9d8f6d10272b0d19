"""What a job's own progress callback says, read as a place on the bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

_DONE = ("done", "current", "completed", "index")
_TEXT = ("text", "message", "title", "status")


class Place(NamedTuple):
    """How far a job is; the total is None where nobody knows it."""

    done: float
    total: float | None = None
    text: str = ""

    @property
    def share(self) -> float | None:
        """How much of it is done, 0 to 1."""
        if not self.total or self.total < 0:
            return None
        return min(1.0, max(0.0, self.done / self.total))


@dataclass(frozen=True, slots=True)
class bar:  # noqa: N801  used like a function: progress_callback=bar()
    """Stand for a job's progress callback: what the job calls it with moves the bar of `run_with_progress`.

    Args:
        read: Turns the arguments of a call into `(done, total, text)`; it runs on another thread than the page's, and
            must not draw. By default the first number is what is done, the second the total (a single one of at most
            1 that is no whole number is a share), the first text what is said; names in a dictionary or in keyword
            arguments (`done`, `total`, `text` and the like) go before.
    """

    read: Callable[..., tuple[Any, ...] | None] | None = None

    def place(self, args: list[Any], kwargs: Mapping[str, Any]) -> Place | None:
        """Return where a call puts the bar; None when it says nothing about that."""
        if self.read is None:
            return _understand(args, kwargs)
        found = self.read(*args, **kwargs)
        return None if found is None else _understand(list(found), {})


def _understand(args: list[Any], kwargs: Mapping[str, Any]) -> Place | None:
    named: dict[str, Any] = {}
    for value in args:
        if isinstance(value, Mapping):
            named.update(value)
    named.update(kwargs)
    numbers = [value for value in args if _is_number(value)]
    texts = [value for value in args if isinstance(value, str)]
    done = next((named[name] for name in _DONE if _is_number(named.get(name))), None)
    total = named.get("total")
    text = next((named[name] for name in _TEXT if isinstance(named.get(name), str)), texts[0] if texts else "")
    if done is None and numbers:
        done = numbers.pop(0)
    if not _is_number(total):
        total = numbers[0] if numbers else None
    if done is None:
        return Place(0, None, text) if text else None
    if total is None and isinstance(done, float) and done <= 1:
        total = 1.0
    return Place(done, total, text)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
