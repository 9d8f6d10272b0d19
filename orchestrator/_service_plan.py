"""From what a service's author wrote to what can be started: target found, arguments coded, script read."""

from __future__ import annotations

import ast
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator import _codec, _wire
from orchestrator._foreign_child import find_program
from orchestrator._models import Job
from orchestrator.child._target import wanted
from orchestrator.exceptions import ConfigurationError, PayloadError, TargetError

if TYPE_CHECKING:
    from orchestrator._options import Options
    from orchestrator._service_spec import Service
    from orchestrator._targets import Target, Targets

# Stand-ins for what is known later, to see whether arguments fit.
_ANY_PORT = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What is started, again and again.

    Attributes:
        service: What its author wrote.
        order: What a child of ours is told; None for a foreign program.
    """

    service: Service
    order: dict[str, Any] | None

    @property
    def name(self) -> str:
        return self.service.name

    def order_for(self, port: int | None) -> dict[str, Any]:
        """Return what the child is told, with the port that the service has."""
        assert self.order is not None
        offered = {} if port is None else {"port": port, "host": self.service.host}
        order = {**self.order, "offered": offered}
        if "script" in order:
            order["args"] = [self._filled(word, port) for word in order["args"]]
        return order

    def command_for(self, port: int | None) -> list[str]:
        """Return the command of a foreign program."""
        return [self._filled(os.fspath(word), port) for word in self.service.argv or ()]

    def environment_for(self, port: int | None) -> dict[str, str | None]:
        """Return what is set in its environment, or removed."""
        found: dict[str, str | None] = {} if port is None else {"PORT": str(port)}
        for name, value in self.service.env.items():
            found[name] = None if value is None else self._filled(value, port)
        return found

    def _filled(self, text: str, port: int | None) -> str:
        # Not str.format: other braces, as of JSON, are the author's own.
        return text if port is None else text.replace("{port}", str(port)).replace("{host}", self.service.host)


def plan(service: Service, options: Options, targets: Targets) -> Plan:
    """Return what a supervisor with these options starts for a service.

    Raises:
        ConfigurationError: If there is no such program or script, or that cannot be Python; names file and line.
        TargetError: If the target cannot be run in a child, or the arguments do not fit it.
        PayloadError: If an argument cannot travel exactly.
    """
    if options.isolation == "inline":
        raise ConfigurationError(f"service {service.name!r}", "is a process of its own; there are none with 'inline'")
    if service.target is not None:
        return Plan(service, _target_order(service, targets.resolve(service.target), options.max_message_bytes))
    if service.script is not None:
        base = service.cwd or options.cwd
        return Plan(service, _script_order(service, base, same_python=options.command is None))
    program = os.fspath((service.argv or ("",))[0])
    env = {**(options.env or {}), **service.env}
    if "{" not in program and find_program(program, env, service.cwd or options.cwd) is None:
        problem = f"there is no program {program!r}" + ("" if os.path.dirname(program) else " on PATH")
        raise ConfigurationError(f"service {service.name!r}: argv", problem)
    return Plan(service, None)


def _target_order(service: Service, target: Target, largest: int) -> dict[str, Any]:
    if target.is_generator:
        raise TargetError(f"{target.label} is a generator, and a service is no list of values: write a function")
    offered: dict[str, Any] = {}
    if service.port is not None and target.function is not None:
        places = {"port": _ANY_PORT, "host": service.host}
        offered = wanted(target.function, service.args, service.kwargs, places)
    job = Job(service.target, args=service.args, kwargs=service.kwargs)  # type: ignore[arg-type]
    payload = _codec.encode_job(job, target, service.args, {**service.kwargs, **offered}, largest)
    if payload.callbacks:
        raise PayloadError("args", "a service cannot call back: nobody waits for it")
    order: dict[str, Any] = _wire.decode_json(str(b"{" + payload.head + payload.body + b"}", "utf-8"))
    for name in offered:
        del order["kwargs"][name]  # the child gives it the real ones
    return order


def _script_order(service: Service, base: str | os.PathLike[str] | None, *, same_python: bool) -> dict[str, Any]:
    path = _find_script(str(service.script), base)
    field = f"service {service.name!r}: script"
    if path is None:
        raise ConfigurationError(field, f"there is no file {str(service.script)!r}")
    try:
        with open(path, "rb") as file:
            source = file.read()
        if same_python:
            ast.parse(source, path)
    except OSError as error:
        raise ConfigurationError(field, f"cannot be read: {error}") from None
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        said = error.msg if isinstance(error, SyntaxError) else error
        raise ConfigurationError(field, f"{path}{line}: {type(error).__name__}: {said}") from None
    return {"script": path, "args": list(service.args)}


def _find_script(script: str, base: str | os.PathLike[str] | None) -> str | None:
    """Return the absolute path of a script: from the folder that it will run in, or of a frozen app's own files."""
    folders = ["" if base is None else os.fspath(base)]
    bundle = getattr(sys, "_MEIPASS", None)
    if bundle:
        folders.append(bundle)
    for folder in folders:
        path = os.path.abspath(os.path.join(folder, script))
        if os.path.isfile(path):
            return path
    return None
