"""Functions whose signatures and annotations tests look at; nobody calls them."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Pin:
    title: str
    when: datetime


def plain(a: Any = None, b: Any = None) -> Any: ...


def bare(a, b=None, *rest, c=1, **others): ...  # type: ignore[no-untyped-def]


def positional(a, b, /): ...  # type: ignore[no-untyped-def]


def keyword(*, a, b=1): ...  # type: ignore[no-untyped-def]


def with_timeout(url: str, timeout: float = 1.0) -> None: ...


def swallows(**kwargs: Any) -> None: ...


def typed(
    pin: Pin | None = None,
    when: datetime | None = None,
    amount: Decimal | None = None,
    path: Path | None = None,
    uid: UUID | None = None,
    colour: Colour | None = None,
    data: bytes | None = None,
    names: set[str] | None = None,
    numbers: dict[int, str] | None = None,
    level: float = 0.0,
    pair: tuple[int, int] | None = None,
) -> list[Pin]:
    return []


def half_annotated(a: Missing, when: datetime) -> None: ...


def called(show: Callable[[int], None], other: Any = None) -> None: ...


async def coroutine() -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Owner:
    def method(self) -> None: ...

    @classmethod
    def of_class(cls) -> None: ...

    @staticmethod
    def of_nobody() -> None: ...


def decorated() -> None: ...


original = decorated


def decorated() -> None: ...  # type: ignore[no-redef]
