"""What gives a job's target its first argument, and stays around the call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator import _wire
from orchestrator.exceptions import ConfigurationError

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_FLAVOUR = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Fixture:
    """What a job's target gets as its first argument: a browser's page, say, that is opened and closed around the call.

    For authors of adapters. In the child `function` is called with an `orchestrator.child.Call`, and returns a context
    manager (an asynchronous one if the target is async), whose `__enter__` returns the first argument.

    Args:
        function: `"package.module:function"`, which the child can import.
        options: What the function is told, as JSON values; `call.options` in the child.
        flavour: What it makes of the main thread of a child, by a name of its own, if it leaves there what other sync
            jobs cannot stand (a running event loop, say): such a child gets jobs of the same flavour only. Async
            targets run in async children, whatever this says.
    """

    function: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    flavour: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.function, str) or _FUNCTION.fullmatch(self.function) is None:
            problem = f"must be of the form package.module:function, not {self.function!r:.200}"
            raise ConfigurationError("fixture.function", problem)
        if not isinstance(self.options, Mapping):
            raise ConfigurationError("fixture.options", f"must be a mapping, not {type(self.options).__name__}")
        object.__setattr__(self, "options", dict(self.options))
        found = _wire.find_inexact(self.options, "fixture.options")
        if found is not None:
            raise ConfigurationError(*found)
        if self.flavour is not None:
            if not isinstance(self.flavour, str) or _FLAVOUR.fullmatch(self.flavour) is None:
                problem = f"must be a name such as 'warm-model', not {self.flavour!r:.200}"
                raise ConfigurationError("fixture.flavour", problem)
            if self.flavour in ("plain", "async", "any"):
                raise ConfigurationError("fixture.flavour", f"must be a name of its own, not {self.flavour!r}")
