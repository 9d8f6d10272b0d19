"""Jobs that take and return values of all sorts."""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import math
import pathlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: float = 0.0
    when: datetime.datetime | None = None


@dataclass
class Shape:
    points: list[Point]
    color: Color = Color.RED
    names: dict[int, str] = field(default_factory=dict)


class Pin(msgspec.Struct):
    title: str
    tags: set[str] = set()


def echo(value: Any) -> Any:
    return value


async def echo_async(value: Any) -> Any:
    return value


def take_point(value: Point) -> Point:
    assert type(value) is Point
    return Point(value.x + 1, value.y, value.when)


def take_shape(value: Shape) -> Shape:
    assert type(value) is Shape and all(type(point) is Point for point in value.points)
    return value


def take_pin(value: Pin) -> Pin:
    assert type(value) is Pin
    return value


def take_datetime(value: datetime.datetime) -> datetime.datetime:
    assert type(value) is datetime.datetime
    return value


def take_date(value: datetime.date) -> datetime.date:
    return value


def take_delta(value: datetime.timedelta) -> datetime.timedelta:
    assert type(value) is datetime.timedelta
    return value


def take_uuid(value: uuid.UUID) -> uuid.UUID:
    assert type(value) is uuid.UUID
    return value


def take_decimal(value: decimal.Decimal) -> decimal.Decimal:
    assert type(value) is decimal.Decimal
    return value


def take_path(value: pathlib.Path) -> pathlib.Path:
    assert isinstance(value, pathlib.Path)
    return value


def take_enum(value: Color) -> Color:
    assert type(value) is Color
    return value


def take_bytes(value: bytes) -> bytes:
    assert type(value) is bytes
    return value


def take_set(value: set[int]) -> set[int]:
    assert type(value) is set
    return value


def take_tuples(value: dict[str, list[tuple[int, str]]]) -> dict[str, list[tuple[int, str]]]:
    assert all(type(item) is tuple for items in value.values() for item in items)
    return value


def take_tuple(value: tuple[int, str]) -> tuple[int, str]:
    assert type(value) is tuple
    return value


def take_keys(value: dict[int, str]) -> dict[int, str]:
    assert all(type(key) is int for key in value)
    return value


def take_float(value: float) -> float:
    assert type(value) is float
    return value


def take_optional(value: Point | None = None) -> Point | None:
    return value


def take_many(*values: Any, key: Any = None, **more: Any) -> Any:
    return [list(values), key, more]


def sum_of(values: list[int]) -> Any:
    return [sum(values), type(values).__name__]


def return_tuple() -> list[int]:
    return (1, 2)  # type: ignore[return-value]


def return_object() -> Any:
    return object()


def return_nested() -> Any:
    return {"pins": [1, {"when": datetime.datetime(2026, 1, 2)}]}


def return_nan() -> Any:
    return math.nan


def one(value: int) -> int:
    return value


def keyword_only(*, value: int) -> int:
    return value


def swallow(**kwargs: Any) -> list[str]:
    return sorted(kwargs)


class Greeter:
    """A class whose instance the child builds."""

    def __init__(self, name: str, mark: str = "!") -> None:
        self.name = name
        self.mark = mark

    def greet(self, word: str) -> str:
        return f"{word} {self.name}{self.mark}"

    async def greet_async(self, word: str) -> str:
        return self.greet(word)

    @staticmethod
    def double(value: int) -> int:
        return 2 * value

    @classmethod
    def made_by(cls, word: str) -> str:
        return f"{cls.__name__} {word}"


def make_closure(number: int) -> Callable[[], int]:
    def closure() -> int:
        return number

    return closure


a_lambda = lambda: 1  # noqa: E731  what is refused
a_partial = functools.partial(one, 1)


def _wrap(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return ["wrapped", function(*args, **kwargs)]

    return wrapper


@_wrap
def decorated(value: int) -> int:
    return value


not_callable = 5


class Teller:
    """Keeps a function that its maker gave it."""

    def __init__(self, progress_callback: Callable[[int], None]) -> None:
        self._tell = progress_callback

    def tell(self, count: int) -> str:
        for number in range(count):
            self._tell(number)
        return "told"


def all_sorts(first: datetime.datetime, *rest: datetime.datetime, **prices: decimal.Decimal) -> str:
    kinds = {type(price).__name__ for price in prices.values()}
    return f"{type(first).__name__} {sum(type(item) is datetime.datetime for item in rest)} {' '.join(kinds)}".strip()


def _decorated(function: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> str:
        return function(*args, **kwargs)

    return inner


@_decorated
def wrapped(first: datetime.datetime, *rest: datetime.datetime) -> str:
    return all_sorts(first, *rest)
