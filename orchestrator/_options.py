"""The options of a supervisor, checked before anything starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, Literal, TypedDict

from orchestrator import _wire
from orchestrator._journal import Journal
from orchestrator._models import Limit, RestartPolicy, Seconds, seconds, whole
from orchestrator.exceptions import ConfigurationError

# Each is a process: no machine runs more, and a slip of the keyboard must not fill the memory.
_MOST_WORKERS = 10_000
# On a busy machine a healthy child may be silent for most of a second.
_LEAST_HANG_TIMEOUT = 1.0
# No child is smaller: with less than this every one would be killed, or replaced after every job.
_LEAST_MEMORY = 16 * 2**20
# Some hundred thousand embeddings or answers; a desktop machine does not miss it.
CACHE_BYTES = 256 * 2**20
# Less would hardly hold one value.
_LEAST_CACHE = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `Supervisor` and `BlockingSupervisor` take; their docstrings say what each means."""

    workers: int | None = None
    name: str = "supervisor"
    concurrency: int = 1
    limits: Iterable[Limit] = ()
    max_permits: int | None = None
    isolation: Literal["process", "inline"] = "process"
    fallback: Literal["inline"] | None = None
    queue_size: int = 10_000
    command: Sequence[str] | None = None
    env: Mapping[str, str | None] | None = None
    env_allow: Sequence[str] | None = None
    secrets: Sequence[str] | Mapping[str, str | Callable[[], str]] = field(default=(), repr=False)
    cwd: str | os.PathLike[str] | None = None
    preload: Sequence[str] = ()
    params: Mapping[str, Any] | None = None
    max_jobs: int | None = None
    max_age: Seconds | None = None
    max_rss: int | None = None
    memory_limit: int | None = None
    hang_timeout: Seconds | None = None
    spares: int = 0
    journal: Journal | None = None
    cache: str | os.PathLike[str] | None = None
    cache_bytes: int = CACHE_BYTES
    cache_age: Seconds | None = None
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    grace: Seconds = 2.0
    start_timeout: Seconds = 60.0
    on_exit: Literal["drain", "cancel"] = "drain"
    max_message_bytes: int = _wire.MAX_MESSAGE_BYTES

    def __post_init__(self) -> None:
        self._set("workers", os.cpu_count() or 1 if self.workers is None else whole(self.workers, "workers", minimum=0))
        if not isinstance(self.name, str) or not self.name or not self.name.isprintable():
            raise ConfigurationError("name", f"must be a non-empty printable string, not {self.name!r}")
        if self.workers is not None and self.workers > _MOST_WORKERS:
            raise ConfigurationError("workers", f"must be at most {_MOST_WORKERS:,}, not {self.workers:,}")
        if not self.workers and self.isolation == "inline":
            raise ConfigurationError("workers", "must be at least 1 with isolation='inline', which has no services")
        whole(self.concurrency, "concurrency", minimum=1)
        whole(self.queue_size, "queue_size", minimum=1)
        whole(self.max_message_bytes, "max_message_bytes", minimum=1024)
        if self.max_jobs is not None:
            whole(self.max_jobs, "max_jobs", minimum=1)
        if self.max_permits is not None:
            whole(self.max_permits, "max_permits", minimum=1)
        self._check_resources()
        self._set("grace", seconds(self.grace, "grace", exclusive=False))
        self._set("start_timeout", seconds(self.start_timeout, "start_timeout"))
        _one_of(self.isolation, "isolation", ("process", "inline"))
        if self.fallback not in ("inline", None):
            raise ConfigurationError("fallback", f"must be 'inline' or None, not {self.fallback!r}")
        _one_of(self.on_exit, "on_exit", ("drain", "cancel"))
        if not isinstance(self.restart, RestartPolicy):
            raise ConfigurationError("restart", f"must be a RestartPolicy, not {self.restart!r}")
        if self.journal is not None and not isinstance(self.journal, Journal):
            raise ConfigurationError("journal", f"must be a Journal, such as Journal({str(self.journal)!r})")
        self._check_cache()
        self._check_limits()
        for name in ("preload", "env_allow", "command"):
            self._check_strings(name)
        self._check_secrets()
        if self.env is not None and not isinstance(self.env, Mapping):
            raise ConfigurationError("env", f"must be a mapping of strings, not {type(self.env).__name__}")
        for key, value in (self.env or {}).items():
            if not isinstance(key, str) or not key or "=" in key or "\0" in key:
                raise ConfigurationError("env", f"has the name {key!r}, which no environment can hold")
            if value is not None and (not isinstance(value, str) or "\0" in value):
                raise ConfigurationError(f"env[{key!r}]", f"must be a string, or None to remove it, not {value!r}")
        self._check_params()
        self._check_cwd()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_resources(self) -> None:
        whole(self.spares, "spares", minimum=0)
        if self.spares > _MOST_WORKERS:
            raise ConfigurationError("spares", f"must be at most {_MOST_WORKERS:,}, not {self.spares:,}")
        if self.max_age is not None:
            self._set("max_age", seconds(self.max_age, "max_age"))
        for name in ("max_rss", "memory_limit"):
            bound = getattr(self, name)
            if bound is None:
                continue
            if isinstance(bound, bool) or not isinstance(bound, int):
                raise ConfigurationError(name, f"must be a whole number of bytes, such as 2 * 2**30, not {bound!r}")
            if bound < _LEAST_MEMORY:
                raise ConfigurationError(name, f"is in bytes and must be at least {_LEAST_MEMORY:,}, not {bound:,}")
        if self.max_rss is not None and self.memory_limit is not None and self.max_rss >= self.memory_limit:
            problem = f"must be below memory_limit={self.memory_limit:,}, or no child is ever replaced for it"
            raise ConfigurationError("max_rss", problem)
        if self.hang_timeout is not None:
            bound = seconds(self.hang_timeout, "hang_timeout")
            if bound is not None and bound < _LEAST_HANG_TIMEOUT:
                problem = f"must be at least {_LEAST_HANG_TIMEOUT:g} s, not {bound:g}"
                raise ConfigurationError("hang_timeout", f"{problem}: a healthy child may be silent for so long")
            self._set("hang_timeout", bound)

    def _check_cache(self) -> None:
        whole(self.cache_bytes, "cache_bytes", minimum=_LEAST_CACHE)
        if self.cache_age is not None:
            self._set("cache_age", seconds(self.cache_age, "cache_age"))
        if self.cache is not None:
            try:
                path = os.fspath(self.cache)
            except TypeError:
                raise ConfigurationError("cache", f"must be the path of a file, not {self.cache!r}") from None
            if not isinstance(path, str) or not path or "\0" in path:
                raise ConfigurationError("cache", f"must be the path of a file, not {path!r}")
            # A change of the working directory must not move it.
            self._set("cache", os.path.abspath(path))

    def _check_limits(self) -> None:
        if isinstance(self.limits, Limit | str | Mapping) or not isinstance(self.limits, Iterable):
            raise ConfigurationError("limits", "takes a list of Limit")
        limits = tuple(self.limits)
        for index, limit in enumerate(limits):
            if not isinstance(limit, Limit):
                raise ConfigurationError(f"limits[{index}]", f"must be a Limit, not {limit!r}")
        names: set[str] = set()
        for index, limit in enumerate(limits):
            for name in (limit.name, *(f"{limit.name}.{dimension}" for dimension in limit.dimensions)):
                if name in names:
                    raise ConfigurationError(f"limits[{index}]", f"is a second limit named {name!r}")
                names.add(name)
        self._set("limits", limits)

    def _check_strings(self, name: str) -> None:
        value = getattr(self, name)
        if value is None:
            return
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            shown = type(value).__name__ if name == "secrets" else repr(value)  # it may be a secret itself
            raise ConfigurationError(name, f"must be a list of strings, not {shown}")
        values = tuple(os.fspath(part) if isinstance(part, os.PathLike) else part for part in value)
        for index, part in enumerate(values):
            if not isinstance(part, str) or not part or "\0" in part:
                raise ConfigurationError(f"{name}[{index}]", f"must be a non-empty string, not {part!r}")
        if name == "command" and not values:
            raise ConfigurationError("command", "is empty; give the path of a Python interpreter")
        self._set(name, values)

    def _check_params(self) -> None:
        if self.params is not None and not isinstance(self.params, Mapping):
            raise ConfigurationError("params", f"must be a mapping, not {type(self.params).__name__}")
        params = dict(self.params or {})
        problem = _wire.find_inexact(params, "params")
        if problem is not None:
            raise ConfigurationError(*problem)
        text = _wire.encode_json(params)
        if len(text) > self.max_message_bytes:
            size = f"{len(text)} bytes are more than max_message_bytes={self.max_message_bytes}"
            raise ConfigurationError("params", size)
        self._set("params", _wire.decode_json(text))  # as they are now, whatever the caller does with them later

    def _check_secrets(self) -> None:
        """Check names and values; no message holds a value, nor what is no name, for it may be one."""
        if isinstance(self.secrets, Mapping):
            self._set("secrets", dict(self.secrets))
        else:
            self._check_strings("secrets")
        for index, name in enumerate(self.secrets):
            if not isinstance(name, str) or not name.isidentifier():
                raise ConfigurationError(f"secrets[{index}]", "is not the name of an environment variable")
            if self.env is not None and name in self.env:
                raise ConfigurationError("secrets", f"names {name!r}, which env= sets too")
            if not isinstance(self.secrets, Mapping):
                if name not in os.environ:
                    raise ConfigurationError("secrets", f"names {name!r}, which is not set in the environment")
                continue
            value = self.secrets[name]
            if value is None or value == "":
                raise ConfigurationError(f"secrets[{name!r}]", "has no value: is the variable that it comes from set?")
            if (not isinstance(value, str) and not callable(value)) or iscoroutinefunction(value):
                problem = f"must be a string or a plain function that returns one, not {type(value).__name__}"
                raise ConfigurationError(f"secrets[{name!r}]", problem)
            if isinstance(value, str) and "\0" in value:
                raise ConfigurationError(f"secrets[{name!r}]", "contains a null character")

    def _check_cwd(self) -> None:
        if self.cwd is None:
            return
        try:
            path = Path(self.cwd)
        except TypeError:
            raise ConfigurationError("cwd", f"must be a path, not {self.cwd!r}") from None
        if not path.is_dir():
            raise ConfigurationError("cwd", f"{str(path)!r} is not a folder")
        self._set("cwd", str(path.absolute()))


class OptionsDict(TypedDict, total=False):
    """The options of a supervisor but `workers`, for the signature of a class that passes them on."""

    name: str
    concurrency: int
    limits: Iterable[Limit]
    max_permits: int | None
    isolation: Literal["process", "inline"]
    fallback: Literal["inline"] | None
    queue_size: int
    command: Sequence[str] | None
    env: Mapping[str, str | None] | None
    env_allow: Sequence[str] | None
    secrets: Sequence[str] | Mapping[str, str | Callable[[], str]]
    cwd: str | os.PathLike[str] | None
    preload: Sequence[str]
    params: Mapping[str, Any] | None
    max_jobs: int | None
    max_age: Seconds | None
    max_rss: int | None
    memory_limit: int | None
    hang_timeout: Seconds | None
    spares: int
    journal: Journal | None
    cache: str | os.PathLike[str] | None
    cache_bytes: int
    cache_age: Seconds | None
    restart: RestartPolicy | None
    grace: Seconds
    start_timeout: Seconds
    on_exit: Literal["drain", "cancel"]
    max_message_bytes: int


def _one_of(value: object, name: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(name, f"must be {' or '.join(map(repr, choices))}, not {value!r}")
