"""The sections of a `params.yaml` that belong to others, as JSON for handlers: pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator_adapters.batch._params_file import Document, Path


def other_sections(document: Document, own: tuple[str, ...]) -> dict[str, Any]:
    """Return every section but `own`.

    Dates and times become ISO texts, keys that are no texts become texts, as in JSON. A section with anything else that
    JSON has no form for is left out with a warning: it may well be of no concern to the handler.
    """
    found: dict[str, Any] = {}
    for name, value in document.value.items():
        if name in own:
            continue
        try:
            found[_key_text(name)] = _plain(value, (name,))
        except _Unfit as problem:
            document.warn(problem.path, f"{problem}, so handlers get no section {_key_text(name)!r}")
        except RecursionError:
            document.warn((name,), f"contains itself, so handlers get no section {_key_text(name)!r}")
    return found


class _Unfit(Exception):
    """Raised for what JSON has no form for.

    Args:
        path: Where it stands.
        problem: What it is.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(problem)
        self.path = path


def _plain(value: Any, path: Path) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Unfit(path, f"is {value}, which JSON has no form for")
        return value
    if isinstance(value, Mapping):
        found = {_key_text(key): _plain(part, (*path, key)) for key, part in value.items()}
        if len(found) < len(value):
            raise _Unfit(path, "has two keys that are the same text")
        return found
    if isinstance(value, list | tuple):
        return [_plain(part, (*path, index)) for index, part in enumerate(value)]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise _Unfit(path, f"is a {type(value).__name__}, which JSON has no form for")


def _key_text(key: Any) -> str:
    if key is None:
        return "null"
    return str(key).lower() if isinstance(key, bool) else str(key)
