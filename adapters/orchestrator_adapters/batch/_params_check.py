"""Check what a `params.yaml` says, key by key, and say where what is wrong stands."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from orchestrator import Limit
from orchestrator.exceptions import ConfigurationError
from orchestrator_adapters.batch._errors import BatchError
from orchestrator_adapters.batch._params import Multiprocessing, Params
from orchestrator_adapters.batch._params_file import Document, Path, from_mapping, read_file
from orchestrator_adapters.batch._params_other import other_sections

SECTIONS = ("multiprocessing", "limits")
# Keys of a limit are the fields of `orchestrator.Limit`; its name is the key it stands under.
LIMIT_KEYS = tuple(part.name for part in fields(Limit) if part.name != "name")
# The supervisor's own bound; told here, where the key and its line are known.
_MOST_WORKERS = 10_000
DIMENSION_KEYS = ("rate", "per", "burst")
_KEYS = tuple(part.name for part in fields(Multiprocessing))


def check_params(source: str | os.PathLike[str] | Mapping[str, Any]) -> Params:
    """Return what a file or a mapping says.

    Raises:
        BatchError: If something in it is wrong.
    """
    if not isinstance(source, Mapping | str | os.PathLike):
        raise BatchError(f"params must be the path of a YAML file or a mapping, not a {type(source).__name__}")
    document = from_mapping(source) if isinstance(source, Mapping) else read_file(os.fspath(source))
    given = document.value
    for name in given:
        close = difflib.get_close_matches(str(name), SECTIONS, n=1, cutoff=0.8)
        if name not in SECTIONS and close:
            document.warn((name,), f"is not read by the batch; did you mean {close[0]!r}?")
    multiprocessing = _Multiprocessing(document).check(_section(document, "multiprocessing"))
    limits = tuple(_limit(document, name, value) for name, value in _section(document, "limits").items())
    other = other_sections(document, SECTIONS)
    _contradictions(document, multiprocessing, limits, _section(document, "multiprocessing"))
    return Params(
        multiprocessing=multiprocessing,
        limits=limits,
        other=other,
        warnings=tuple(document.warnings),
        path=document.path,
    )


def _section(document: Document, name: str) -> Mapping[Any, Any]:
    value = document.value.get(name)
    if value is None:  # absent, or a key with nothing behind it
        return {}
    if not isinstance(value, Mapping):
        raise document.error((name,), f"must be a mapping of keys to values, not {_shown(value)}")
    return value


class _Multiprocessing:
    """Checks one section.

    Args:
        document: Where it stands.
    """

    def __init__(self, document: Document) -> None:
        self._document = document

    def check(self, given: Mapping[Any, Any]) -> Multiprocessing:
        """Return the section with its defaults."""
        for key in given:
            _known(self._document, ("multiprocessing", key), key, _KEYS)
        settings: dict[str, Any] = {
            key: getattr(self, f"_{key}", self._count)(key, value) for key, value in given.items()
        }
        return Multiprocessing(**settings)

    def _wrong(self, key: str, problem: str) -> BatchError:
        return self._document.error(("multiprocessing", key), problem)

    def _count(self, key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(key, f"must be a whole number of at least 1, not {_shown(value)}{_number_hint(value)}")
        return value

    def _enabled(self, key: str, value: Any) -> bool:
        if not isinstance(value, bool):
            hint = " (YAML 1.2 knows only true and false)" if isinstance(value, str) else ""
            raise self._wrong(key, f"must be true or false, not {_shown(value)}{hint}")
        return value

    def _worker_count(self, key: str, value: Any) -> int:
        if value == "auto":
            return _usable_cpus()
        if isinstance(value, str):
            raise self._wrong(
                key, f"must be a whole number of at least 1, or auto, not {_shown(value)}{_number_hint(value)}"
            )
        count = self._count(key, value)
        if count > _MOST_WORKERS:
            raise self._wrong(key, f"must be at most {_MOST_WORKERS}, not {value}; each is a process")
        return count

    def _optional_seconds(self, key: str, value: Any) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self._wrong(key, f"must be a number of seconds above 0, not {_shown(value)}{_number_hint(value)}")
        return float(value)

    _task_timeout = _start_timeout = _optional_seconds

    def _max_tasks_per_child(self, key: str, value: Any) -> int | None:
        return None if value is None else self._count(key, value)

    def _memory_limit(self, key: str, value: Any) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 16 * 2**20:
            problem = f"must be a whole number of bytes of at least {16 * 2**20} (16 MiB), not {_shown(value)}"
            raise self._wrong(key, problem + _number_hint(value))
        return value

    def _fallback(self, key: str, value: Any) -> str:
        value = "none" if value is None else value
        if value not in ("in_process", "none"):
            raise self._wrong(key, f"must be in_process or none, not {_shown(value)}")
        return str(value)

    def _retry_budget(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            problem = f"must be a share of the records, such as 0.2, not {_shown(value)}{_number_hint(value)}"
            raise self._wrong(key, problem)
        return float(value)

    def _secrets(self, key: str, value: Any) -> tuple[str, ...]:
        value = [] if value is None else value
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self._wrong(key, f"must be a list of names of environment variables, not {_shown(value)}")
        for name in value:
            if not isinstance(name, str) or not name or "=" in name or "\0" in name:
                raise self._wrong(key, f"must be a list of names of environment variables; {_shown(name)} is none")
        return tuple(value)


def _limit(document: Document, name: Any, value: Any) -> Limit:
    path = ("limits", name)
    if not isinstance(name, str) or not name:
        raise document.error(path, f"the name of a limit must be a text; write {str(name)!r} in quotes")
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        raise document.error(path, f"must be a mapping with {', '.join(LIMIT_KEYS)}, not {_shown(value)}")
    for key in value:
        _known(document, (*path, key), key, LIMIT_KEYS)
    dimensions = value.get("dimensions")
    for dimension, part in dimensions.items() if isinstance(dimensions, Mapping) else ():
        for key in part if isinstance(part, Mapping) else ():
            _known(document, (*path, "dimensions", dimension, key), key, DIMENSION_KEYS)
    _check_numbers(document, path, value)
    try:
        return Limit(name, **value)
    except ConfigurationError as error:
        raise document.error(*_at_key(path, str(error).removeprefix(f"limit {name!r}: "))) from None


def _at_key(path: Path, text: str) -> tuple[Path, str]:
    """Split what `Limit` says (`dimensions['tokens']: rate: must be…`) into a key path and what is wrong there."""
    while found := re.match(r"(\w+)(?:\['(.+?)'\])?: ", text):
        path = (*path, *filter(None, found.groups()))
        text = text[found.end() :]
    return path, text


def _check_numbers(document: Document, path: Path, value: Mapping[Any, Any]) -> None:
    for key, number in value.items():
        if isinstance(number, Mapping):
            _check_numbers(document, (*path, key), number)
        elif isinstance(number, str | bool) or (isinstance(number, float) and not math.isfinite(number)):
            raise document.error((*path, key), f"must be a number, not {_shown(number)}{_number_hint(number)}")


def _known(document: Document, path: Path, key: Any, known: Sequence[str]) -> None:
    if key not in known:
        close = difflib.get_close_matches(str(key), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        raise document.error(path, f"there is no such key; {hint}")


def _contradictions(
    document: Document, settings: Multiprocessing, limits: Sequence[Limit], given: Mapping[Any, Any]
) -> None:
    def warn(key: str, problem: str) -> None:
        document.warn(("multiprocessing", key), problem)

    workers, requests = settings.worker_count, settings.max_concurrent_requests
    at_once = workers * settings.per_worker_concurrency
    # Of defaults nobody is warned: only what somebody wrote can have been meant otherwise.
    if settings.enabled and given.keys() & {"worker_count", "per_worker_concurrency", "max_concurrent_requests"}:
        # The default pair, written out, is meant: handlers may hold several permits at once.
        usual = Multiprocessing()
        is_usual = (workers, requests) == (usual.worker_count, usual.max_concurrent_requests)
        if at_once < requests and "max_concurrent_requests" in given and not is_usual:
            product = f"worker_count × per_worker_concurrency is {at_once}"
            warn("max_concurrent_requests", f"{requests} is never reached by one request a record, for {product}")
        if requests < workers:
            warn("max_concurrent_requests", f"{requests} leaves {workers - requests} of {workers} workers idle")
    for limit in limits:
        if limit.concurrency is not None and limit.concurrency > requests:
            document.warn(
                ("limits", limit.name, "concurrency"),
                f"{limit.concurrency} is never reached, for max_concurrent_requests is {requests}",
            )
    for key in ("task_queue_size", "result_queue_size"):
        size = getattr(settings, key)
        if settings.enabled and size < workers and given.keys() & {key, "worker_count"}:
            warn(key, f"{size} is less than worker_count, {workers}: workers wait for each other")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return repr(value)[:60]


def _number_hint(value: Any) -> str:
    try:
        number = float(value) if isinstance(value, str | float) else None
    except ValueError:
        return ""
    if number is None or not math.isfinite(number) or number != int(number):
        return "; write the number without quotes" if isinstance(value, str) and number is not None else ""
    return f"; write {int(number)}"


def _usable_cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return (len(affinity(0)) if affinity is not None else os.cpu_count()) or 1
