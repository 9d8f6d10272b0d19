"""What a service is, as its author writes it, checked before anything starts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from orchestrator._events import Log
from orchestrator._models import RestartPolicy, Seconds, seconds, whole
from orchestrator.exceptions import ConfigurationError

# It is part of a folder's name, of log lines and of what `ps` shows.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# No interpreter is smaller: with less than this a service would be restarted for ever.
_LEAST_MEMORY = 16 * 2**20
_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """Ask a service by HTTP whether it is well: a GET of `path` must be answered with a good status.

    Args:
        path: What is asked for, with its query perhaps.
        status: The good ones; by default all that are no errors.
        timeout: Seconds for one answer.
        every: Seconds between two questions, as `health`. As `ready` it asks more often: until it is ready somebody
            waits.
        failures: As `health`, so many bad answers in a row have the service killed and restarted.
    """

    path: str = "/"
    status: Collection[int] = range(200, 400)
    # A page that takes longer than two seconds is of no use to a person; one slow answer in thirty seconds is no death.
    timeout: Seconds = 2.0
    every: Seconds = 10.0
    failures: int = 3

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path.startswith("/") or not self.path.isprintable():
            raise ConfigurationError("probe.path", f"must be a path such as '/health', not {self.path!r}")
        statuses = (self.status,) if isinstance(self.status, int) else self.status
        if isinstance(statuses, str) or not isinstance(statuses, Collection) or not statuses:
            raise ConfigurationError("probe.status", f"takes statuses such as (200, 204), not {self.status!r}")
        for status in (statuses[0], statuses[-1]) if isinstance(statuses, range) else statuses:
            whole(status, "probe.status", minimum=100)
        object.__setattr__(self, "status", statuses)
        _check_pace(self)


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """Ask a service whether it takes connections on its port.

    Args:
        timeout: Seconds for one connection.
        every: Seconds between two questions, as `health`; as `ready` it asks more often.
        failures: As `health`, so many failures in a row have the service killed and restarted.
    """

    timeout: Seconds = 2.0
    every: Seconds = 10.0
    failures: int = 3

    def __post_init__(self) -> None:
        _check_pace(self)


Probe = HttpProbe | TcpProbe


def _length(value: Any, name: str, *, exclusive: bool = True) -> float:
    found = seconds(value, name, exclusive=exclusive)
    if found is None:
        raise ConfigurationError(name, "must be a number of seconds or a timedelta, not None")
    return found


def _check_pace(probe: Probe) -> None:
    for name in ("timeout", "every"):
        object.__setattr__(probe, name, _length(getattr(probe, name), f"probe.{name}"))
    whole(probe.failures, "probe.failures", minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """The service moved on.

    Attributes:
        previous: The state before.
        state: The state now.
        reason: Why, in a sentence; empty where there is nothing to explain.
    """

    kind: ClassVar[Literal["state"]] = "state"
    previous: str
    state: str
    reason: str = ""


# Of a service's log lines, `attempt` counts its starts.
ServiceEvent = ServiceState | Log


@dataclass(frozen=True, slots=True)
class Service:
    """A long-lived child with a port perhaps: started, watched, restarted and stopped by a supervisor.

    Exactly one of `target`, `script` and `argv` says what runs.

    Args:
        name: What it is called, among the services of its supervisor.
        target: A function, or its name as `"package.module:function"`, that runs on the main thread of a child until
            the service ends; async ones in an event loop of their own.
        script: Path of a Python script that a child runs as its main program.
        argv: Any program with its arguments.
        args: Positional arguments of the target; for a script, what it finds in `sys.argv[1:]`.
        kwargs: Keyword arguments of the target.
        port: `"auto"` for a free one, a number, or None for a service without one. It stays reserved as long as the
            service is there, so that it comes back on the same one. It is handed over as the target's parameter `port`
            (and `host`) if it has one, as `{port}` and `{host}` in `argv`, in `args` of a script and in `env`, and in
            the environment variable `PORT`.
        host: The address that it listens on.
        ready: When it counts as ready: when a probe is answered well, or, with `"message"`, when it calls
            `child.ready()`. By default a service with a port is ready when it takes connections, another one at once.
        health: A probe that a ready service must go on to answer.
        start_timeout: Seconds that it has for becoming ready.
        restart: When it is started again; a service that ends is, with code 0 too.
        stop: Seconds that it has for ending after it was asked to, by SIGTERM; then it is killed with all that it
            started. (On Windows nobody can ask a foreign program, which is killed at once.)
        max_rss: Restart it when it and its descendants have more bytes of memory than this.
        depends_on: Names of services that must be ready before it is started, and that outlive it.
        env: Environment variables to set (or, with None, to remove), beside those of the supervisor's children.
        cwd: Its working directory, instead of that of the supervisor's children.

    Raises:
        ConfigurationError: If an option has a value that it cannot have.
    """

    name: str
    target: Callable[..., Any] | str | None = field(default=None, kw_only=True)
    script: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    argv: Sequence[str | os.PathLike[str]] | None = field(default=None, kw_only=True)
    args: Sequence[Any] = field(default=(), kw_only=True)
    kwargs: Mapping[str, Any] = field(default_factory=dict, kw_only=True, hash=False)
    port: int | Literal["auto"] | None = field(default="auto", kw_only=True)
    host: str = field(default="127.0.0.1", kw_only=True)
    ready: Probe | Literal["message"] | None = field(default=None, kw_only=True)
    health: Probe | None = field(default=None, kw_only=True)
    start_timeout: Seconds = field(default=60.0, kw_only=True)
    restart: RestartPolicy = field(default_factory=RestartPolicy, kw_only=True)
    stop: Seconds = field(default=5.0, kw_only=True)
    max_rss: int | None = field(default=None, kw_only=True)
    depends_on: Iterable[str] = field(default=(), kw_only=True)
    env: Mapping[str, str | None] = field(default_factory=dict, kw_only=True, hash=False)
    cwd: str | os.PathLike[str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or _NAME.fullmatch(self.name) is None:
            problem = f"must be up to 64 letters, digits, '.', '_' and '-', not {self.name!r:.100}"
            raise ConfigurationError("service.name", problem)
        self._check_program()
        self._check_address()
        self._check_readiness()
        self._set("start_timeout", _length(self.start_timeout, self._field("start_timeout")))
        self._set("stop", _length(self.stop, self._field("stop"), exclusive=False))
        if not isinstance(self.restart, RestartPolicy):
            raise ConfigurationError(self._field("restart"), f"must be a RestartPolicy, not {self.restart!r}")
        if self.max_rss is not None:
            whole(self.max_rss, self._field("max_rss"), minimum=_LEAST_MEMORY)
        self._check_dependencies()
        self._check_environment()
        if self.cwd is not None:
            path = os.path.abspath(os.fspath(self.cwd))
            if not os.path.isdir(path):
                raise ConfigurationError(self._field("cwd"), f"{path!r} is not a folder")
            self._set("cwd", path)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _field(self, name: str) -> str:
        return f"service {self.name!r}: {name}"

    def _check_program(self) -> None:
        given = [name for name in ("target", "script", "argv") if getattr(self, name) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "none"
            raise ConfigurationError(f"service {self.name!r}", f"needs one of target, script and argv; it has {said}")
        if isinstance(self.args, str) or not isinstance(self.args, Sequence):
            raise ConfigurationError(self._field("args"), f"must be a list, not {self.args!r:.100}")
        if self.target is None and self.kwargs:
            raise ConfigurationError(self._field("kwargs"), "are for a target")
        if self.target is not None:
            if not isinstance(self.target, str) and not callable(self.target):
                problem = f"must be a function or its name, not {type(self.target).__name__}"
                raise ConfigurationError(self._field("target"), problem)
            self._set("args", tuple(self.args))
            self._set("kwargs", dict(self.kwargs))
        elif self.script is not None:
            path = os.fspath(self.script)
            if not isinstance(path, str) or not path or "\0" in path:
                raise ConfigurationError(self._field("script"), f"must be the path of a file, not {self.script!r}")
            self._set("script", path)
            self._set("args", self._words(self.args, "args"))
        else:
            if isinstance(self.argv, str) or not isinstance(self.argv, Sequence) or not self.argv:
                problem = f"must be a list of a program and its arguments, not {self.argv!r:.100}"
                raise ConfigurationError(self._field("argv"), problem)
            if self.args:
                raise ConfigurationError(self._field("args"), "belong into argv")
            self._set("argv", self._words(self.argv, "argv"))

    def _words(self, given: Sequence[Any], name: str) -> tuple[str, ...]:
        words = tuple(os.fspath(word) if isinstance(word, os.PathLike) else word for word in given)
        for index, word in enumerate(words):
            if not isinstance(word, str) or "\0" in word:
                raise ConfigurationError(self._field(f"{name}[{index}]"), f"must be a string, not {word!r:.100}")
        return words

    def _check_address(self) -> None:
        port = self.port
        is_number = isinstance(port, int) and not isinstance(port, bool) and 1 <= port <= _LAST_PORT
        if not is_number and port not in ("auto", None):
            problem = f"must be 'auto', a number from 1 to {_LAST_PORT}, or None, not {port!r}"
            raise ConfigurationError(self._field("port"), problem)
        if not isinstance(self.host, str) or not self.host or not self.host.isprintable() or " " in self.host:
            raise ConfigurationError(self._field("host"), f"must be an address such as '127.0.0.1', not {self.host!r}")

    def _check_readiness(self) -> None:
        for name, more in (("ready", ", 'message'"), ("health", "")):
            probe = getattr(self, name)
            if probe is None or (name == "ready" and probe == "message"):
                continue
            if not isinstance(probe, HttpProbe | TcpProbe):
                problem = f"must be a HttpProbe, a TcpProbe{more} or None, not {probe!r:.100}"
                raise ConfigurationError(self._field(name), problem)
            if self.port is None:
                raise ConfigurationError(self._field(name), "needs a port to ask")
        if self.ready == "message" and self.argv is not None:
            raise ConfigurationError(self._field("ready"), "'message' is for Python services; ask another by a probe")

    def _check_dependencies(self) -> None:
        given = self.depends_on
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise ConfigurationError(self._field("depends_on"), f"must be a list of names, not {given!r:.100}")
        names = tuple(found.name if isinstance(found, Service) else found for found in given)
        for name in names:
            if not isinstance(name, str):
                raise ConfigurationError(self._field("depends_on"), f"takes names, not {name!r:.100}")
            if name == self.name:
                raise ConfigurationError(self._field("depends_on"), "names the service itself")
        self._set("depends_on", tuple(dict.fromkeys(names)))

    def _check_environment(self) -> None:
        if not isinstance(self.env, Mapping):
            raise ConfigurationError(self._field("env"), f"must be a mapping of strings, not {self.env!r:.100}")
        for key, value in self.env.items():
            if not isinstance(key, str) or not key or "=" in key or "\0" in key:
                raise ConfigurationError(self._field("env"), f"has the name {key!r}, which no environment can hold")
            if value is not None and (not isinstance(value, str) or "\0" in value):
                problem = "must be a string, or None to remove it"
                raise ConfigurationError(self._field(f"env[{key!r}]"), problem)
        self._set("env", dict(self.env))

    @property
    def probe(self) -> Probe | None:
        """What is asked whether it is ready; None if nobody is."""
        if self.ready == "message":
            return None
        return TcpProbe() if self.ready is None and self.port is not None else self.ready
