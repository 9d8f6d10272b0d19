"""The order in which requests of one limit are served: first come, first served among those of like weight."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

# Requests whose weights are within a factor of two stand in one file; the heads of the files go by turns. A file pays
# for what it gets with its weight to this power: at 1 each would get the same share of the rate, and who asks for eight
# tenths of a window again and again would find it half full every time; at 0 each light one would wait for a heavy one.
_PRICE = 1 / 3


class Line(Generic[T]):
    """Requests that wait.

    In plain order of arrival, whoever needs eight units waits behind each of a thousand that need one. So requests
    stand in files by their weight, and the file that has paid least goes next (start-time fair queueing): one that was
    empty is as far as the others are, not ahead of them. With weights that are alike there is a single file.
    """

    def __init__(self) -> None:
        self._files: dict[int, OrderedDict[T, float]] = {}
        self._paid: dict[int, float] = {}
        self._reached = 0.0  # what the file that was served last had paid
        self._urgent: OrderedDict[T, float] = OrderedDict()
        self._file_of: dict[T, int | None] = {}
        self._next: T | None = None
        self.units: dict[int | None, float] = {}

    def __len__(self) -> int:
        return len(self._file_of)

    def __iter__(self) -> Iterator[T]:
        return iter(self._file_of)

    def add(self, request: T, units: float, *, urgent: bool = False) -> None:
        """Put a request at the end of its file, or behind the urgent ones, which go before all others."""
        if urgent:
            number = None
            self._urgent[request] = units
            self._next = None
        else:
            number = math.frexp(units)[1]
            if number not in self._files:
                self._files[number] = OrderedDict()
                self._paid[number] = max(self._paid.get(number, 0.0), self._reached)
            self._files[number][request] = units
        self._file_of[request] = number
        self.units[number] = self.units.get(number, 0.0) + units

    def head(self) -> T | None:
        """Return who is next; the same until it is taken or leaves, or somebody urgent comes."""
        if self._next is None and self._file_of:
            if self._urgent:
                self._next = next(iter(self._urgent))
            else:
                self._next = next(iter(self._files[min(self._files, key=self._paid.__getitem__)]))
        return self._next

    def leave(self, request: T) -> bool:
        """Forget a request; returns whether it stood here."""
        return request in self._file_of and self._remove(request) >= 0.0

    def pop(self) -> T:
        """Take who is next."""
        request = self.head()
        assert request is not None
        number = self._file_of[request]
        units = self._remove(request)
        if number is not None:
            self._reached = self._paid[number]
            self._paid[number] += units**_PRICE
            if len(self._paid) > 2 * len(self._files) + 8:
                self._paid = {
                    key: paid for key, paid in self._paid.items() if key in self._files or paid > self._reached
                }
        return request

    def ahead_of(self, units: float) -> float:
        """Return the units of those who surely go before a request that comes now."""
        return self.units.get(None, 0.0) + self.units.get(math.frexp(units)[1], 0.0)

    def clear(self) -> None:
        """Forget everybody."""
        self._files.clear()
        self._urgent.clear()
        self._file_of.clear()
        self.units.clear()
        self._next = None

    def _remove(self, request: T) -> float:
        number = self._file_of.pop(request)
        file = self._urgent if number is None else self._files[number]
        units = file.pop(request)
        if file:
            self.units[number] -= units
        else:
            del self.units[number]
            if number is not None:
                del self._files[number]
        if self._next is request:
            self._next = None
        return units
