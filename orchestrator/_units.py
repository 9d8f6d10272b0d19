"""What can be asked of limits: the bounds behind each name, and whether a request can ever be granted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from orchestrator.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator._models import Limit


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one gate keeps: a limit's own units, or one of its dimensions.

    Attributes:
        name: `api`, or of a dimension `api.tokens`.
        limit: Name of the limit.
    """

    name: str
    limit: str
    rate: float | None = None
    per: float = 1.0
    burst: float | None = None
    concurrency: int | None = None


def bounds_of(limit: Limit) -> list[Bounds]:
    """Return the bounds of a limit, its own first."""
    own = Bounds(limit.name, limit.name, limit.rate, cast("float", limit.per), limit.burst, limit.concurrency)
    others = [
        Bounds(f"{limit.name}.{name}", limit.name, found["rate"], found["per"], found.get("burst"))
        for name, found in limit.dimensions.items()
    ]
    return [own, *others]


class Catalogue:
    """All bounds of one supervisor, by name.

    Raises:
        ConfigurationError: When two limits, or a limit and a dimension, have the same name.
    """

    def __init__(self, limits: Iterable[Limit]) -> None:
        self.bounds: dict[str, Bounds] = {}
        for limit in limits:
            self._add(limit)

    def _add(self, limit: Limit) -> None:
        for bounds in bounds_of(limit):
            if bounds.name in self.bounds:
                raise ConfigurationError("limits", f"has two limits named {bounds.name!r}")
            self.bounds[bounds.name] = bounds

    def change(self, limit: Limit) -> None:
        """Put a limit in the place of the one of its name.

        Raises:
            ConfigurationError: If there is none, or it has other dimensions.
        """
        mine = [bounds.name for bounds in self.bounds.values() if bounds.limit == limit.name]
        if not mine:
            raise ConfigurationError("limit.name", self._unknown(limit.name))
        new = bounds_of(limit)
        if {bounds.name for bounds in new} != set(mine):
            raise ConfigurationError(f"limit {limit.name!r}: dimensions", "cannot be added or removed while it is used")
        self.bounds.update({bounds.name: bounds for bounds in new})

    def dimensions(self, name: str) -> list[str]:
        """Return the names of a limit's dimensions, without its own name."""
        return [key[len(name) + 1 :] for key, bounds in self.bounds.items() if bounds.limit == name and key != name]

    def expand(self, units: Mapping[str, Any], where: str) -> dict[str, float]:
        """Return the units of each gate of a request; who takes of a dimension takes one unit of its limit too.

        Raises:
            ConfigurationError: Naming `{where}.{name}`, when there is no such limit or it can't give that much.
        """
        found: dict[str, float] = {}
        for name, count in units.items():
            bounds = self.bounds.get(name)
            if bounds is None:
                raise ConfigurationError(f"{where}.{name}", self._unknown(name))
            self._check(bounds, count, f"{where}.{name}")
            found.setdefault(bounds.limit, 1.0)
            found[name] = count
        return found

    def _unknown(self, name: str) -> str:
        known = f"known are {', '.join(sorted(self.bounds))}" if self.bounds else "the supervisor has no limits"
        return f"there is no limit {name!r}; {known}"

    @staticmethod
    def _check(bounds: Bounds, units: object, field: str) -> None:
        if isinstance(units, bool) or not isinstance(units, int | float) or not 0 < units < math.inf:
            raise ConfigurationError(field, f"must be a number of units greater than 0, not {units!r}")
        for bound, what in ((bounds.concurrency, "concurrency"), (bounds.rate, "rate")):
            if bound is not None and units > bound:
                problem = f"{units:g} units can never be granted: limit {bounds.name!r} has {what}={bound:g}"
                raise ConfigurationError(field, problem)
