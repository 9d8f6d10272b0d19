"""`orchestrator batch check`: look at all that a run needs, in one real child, without sending a request."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import os
import re
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from orchestrator import RestartPolicy, Supervisor
from orchestrator.exceptions import JobCrashed, JobError, JobFailed, OrchestratorError
from orchestrator_adapters.batch._errors import BatchError
from orchestrator_adapters.batch._params import Params, load_params
from orchestrator_adapters.batch._sink import open_sink
from orchestrator_adapters.batch._sink_place import FilePlace
from orchestrator_adapters.batch._source import open_source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator_adapters.batch._source import Source

Status = Literal["ok", "failed", "note"]

# More than a start and an import take on a slow machine, less than a person waits.
CHILD_DEADLINE = 60.0
# Fresh limits grant at once; a limit that ramps up may take its time.
PERMIT_DEADLINE = 10.0
PROBE = "orchestrator_adapters.batch._probe"
_MARKS = {"ok": ("ok", "green"), "failed": ("FAIL", "red"), "note": ("note", "yellow")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a run would be asked to do."""

    target: str
    source: str
    sink: str | None = None
    params: str | None = None
    input_format: str | None = None
    output_format: str | None = None
    multiprocessing: bool | None = None
    classify: str | None = None
    secrets: tuple[str, ...] = ()
    failed: str | None = None
    metrics: str | None = None
    name: str | None = None
    folder: Path = Path(".orchestrator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found about one thing.

    Attributes:
        name: What was looked at.
        status: `ok`, `failed`, or `note` for what a run survives.
        detail: What was found.
        remedy: What to do about it.
    """

    name: str
    status: Status
    detail: str
    remedy: str | None = None


def run_checks(wanted: Wanted, *, as_json: bool) -> int:
    """Run every check, print what was found and return the exit code."""
    # What goes wrong is in the lines below.
    logging.getLogger("orchestrator").addHandler(logging.NullHandler())
    logging.getLogger("orchestrator").propagate = False
    checks = asyncio.run(look(wanted))
    failed = sum(check.status == "failed" for check in checks)
    if as_json:
        described = [{key: value for key, value in asdict(check).items() if value is not None} for check in checks]
        typer.echo(json.dumps({"ok": not failed, "checks": described}, indent=2))
        return 1 if failed else 0
    for check in checks:
        mark, colour = _MARKS[check.status]
        typer.echo(f"{typer.style(f'{mark:<5}', fg=colour)} {check.name:<9} {check.detail}")
        if check.remedy is not None:
            typer.echo(f"{'':<15} remedy: {check.remedy}")
    last = f"{failed} {'check' if failed == 1 else 'checks'} failed." if failed else "The batch can run."
    typer.secho(last, bold=True)
    return 1 if failed else 0


async def look(wanted: Wanted) -> list[Check]:
    """Return every check, in the order in which a person reads them."""
    params, checks = _params(wanted)
    multiprocessing = params.multiprocessing
    if wanted.multiprocessing is not None:
        params = replace(params, multiprocessing=replace(multiprocessing, enabled=wanted.multiprocessing))
    secrets, values = _secrets(dict.fromkeys((*params.multiprocessing.secrets, *wanted.secrets)))
    return [
        *checks,
        *secrets,
        *await _in_a_child(wanted, params, values),
        *_classify(wanted),
        *_folders(wanted),
        await _input(wanted),
    ]


def _params(wanted: Wanted) -> tuple[Params, list[Check]]:
    if wanted.params is None:
        return Params(), [Check(name="params", status="ok", detail="none named: the defaults")]
    try:
        params = load_params(wanted.params)
    except BatchError as error:
        return Params(), [Check(name="params", status="failed", detail=str(error))]
    said = params.multiprocessing
    detail = f"{wanted.params}: {said.worker_count} children" if said.enabled else f"{wanted.params}: no children"
    detail += f", at most {said.max_concurrent_requests} requests at once"
    notes = [Check(name="params", status="note", detail=warning) for warning in params.warnings]
    return params, [Check(name="params", status="ok", detail=detail), *notes]


def _secrets(names: dict[str, None]) -> tuple[list[Check], list[str]]:
    checks = []
    for name in names:
        if name not in os.environ:
            remedy = f"export {name}=…, in the shell that starts the run"
            checks.append(Check(name="secret", status="failed", detail=f"{name} is not set", remedy=remedy))
        elif not os.environ[name].strip():
            remedy = f"give {name} a value"
            checks.append(Check(name="secret", status="failed", detail=f"{name} is set and empty", remedy=remedy))
        else:
            checks.append(Check(name="secret", status="ok", detail=f"{name} is set"))
    return checks, [name for name in names if name in os.environ]


async def _in_a_child(wanted: Wanted, params: Params, secrets: list[str]) -> list[Check]:
    inline = not params.multiprocessing.enabled
    checks: list[Check] = []
    try:
        async with asyncio.timeout(CHILD_DEADLINE), _supervisor(params, secrets) as supervisor:
            where = "in this process" if inline else "in a child"
            checks.append(await _target(supervisor, wanted.target, where))
            checks += [await _limit(supervisor, limit.name) for limit in params.limits]
    except TimeoutError:
        detail = f"no answer within {CHILD_DEADLINE:.0f} s"
        checks.append(Check(name="child", status="failed", detail=detail, remedy="see orchestrator doctor"))
    except OrchestratorError as error:
        detail = str(error).partition("\n")[0]
        if not inline and params.multiprocessing.fallback == "in_process":
            remedy = "see orchestrator doctor; until then records run in this process"
            checks.append(Check(name="child", status="note", detail=detail, remedy=remedy))
            params = replace(params, multiprocessing=replace(params.multiprocessing, enabled=False))
            checks += await _in_a_child(wanted, params, secrets)
        else:
            checks.append(Check(name="child", status="failed", detail=detail, remedy="see orchestrator doctor"))
    return checks


@contextlib.asynccontextmanager
async def _supervisor(params: Params, secrets: list[str]) -> AsyncIterator[Supervisor]:
    # A person waits: the first failure is the answer.
    async with Supervisor(
        1,
        name="check",
        limits=params.limits,
        params=params.other,
        isolation="process" if params.multiprocessing.enabled else "inline",
        secrets=secrets,
        restart=RestartPolicy(max_restarts=0),
    ) as supervisor:
        yield supervisor


async def _target(supervisor: Supervisor, target: str, where: str) -> Check:
    form = 'name it as "package.module:function"'
    module, colon, function = target.partition(":")
    if not colon or not module or not function:
        return Check(name="target", status="failed", detail=f"{target!r} is not a target", remedy=form)
    try:
        found = await supervisor.run(f"{PROBE}:describe", target)
    except JobError as error:
        detail = f"{target}: {_what_happened(error)}"
        return Check(name="target", status="failed", detail=detail, remedy=_import_remedy(module))
    if found["problem"] is not None:
        remedy = "a target takes one record and returns what becomes of it"
        return Check(name="target", status="failed", detail=f"{target}: {found['problem']}", remedy=remedy)
    return Check(name="target", status="ok", detail=f"{target}, {found['kind']}, imported {where}")


def _what_happened(error: JobError) -> str:
    """Return why a probe failed in one line, with the place in the code of the user."""
    if isinstance(error, JobCrashed):
        return f"its child died: {error.certificate}".partition("\n")[0]
    if not isinstance(error, JobFailed):
        return str(error).partition("\n")[0]
    text = f"{error.error.type}: {error.error.message}".partition("\n")[0]
    places = [
        f"{path}, line {line}"
        for path, line in re.findall(r'File "([^"]+)", line (\d+)', error.error.traceback)
        if not path.startswith("<") and Path(path).parent != Path(__file__).parent
    ]
    return f"{text} ({places[-1]})" if places and "importlib" not in places[-1] else text


def _import_remedy(module: str) -> str:
    return f"is {module} in the current folder ({Path.cwd()}), and can it be imported there?"


async def _limit(supervisor: Supervisor, name: str) -> Check:
    try:
        await supervisor.run(f"{PROBE}:take_permit", name, PERMIT_DEADLINE)
    except JobError as error:
        detail = f"{name}: {_what_happened(error)}"
        return Check(name="limit", status="failed", detail=detail, remedy="see its rate and burst in the params")
    return Check(name="limit", status="ok", detail=f"{name} grants permits")


def _classify(wanted: Wanted) -> list[Check]:
    if wanted.classify is None:
        return []
    module, _, path = wanted.classify.partition(":")
    try:
        function = importlib.import_module(module)
        for name in path.split("."):
            function = getattr(function, name)
    except Exception as error:
        detail = f"{wanted.classify}: {type(error).__name__}: {error}"
        return [Check(name="classify", status="failed", detail=detail, remedy=_import_remedy(module))]
    if not callable(function):
        return [Check(name="classify", status="failed", detail=f"{wanted.classify} cannot be called")]
    return [Check(name="classify", status="ok", detail=wanted.classify)]


def _folders(wanted: Wanted) -> list[Check]:
    checks = [_writable("folder", wanted.folder)]
    if wanted.sink is not None:
        checks.append(_output(wanted))
    for name, file in (("failed", wanted.failed), ("metrics", wanted.metrics)):
        if file is not None:
            checks.append(_writable(name, Path(file).parent, Path(file)))
    return checks


def _output(wanted: Wanted) -> Check:
    assert wanted.sink is not None
    source = _source(wanted)
    try:
        sink = open_sink(wanted.sink, format=wanted.output_format, source=source)
        if sink.path is None:
            return Check(name="output", status="ok", detail=sink.name)
        place = FilePlace(sink.path, source)
        place.check()
    except BatchError as error:
        return Check(name="output", status="failed", detail=str(error))
    if place.is_live:
        return Check(name="output", status="ok", detail=f"{sink.path}, which is no file: written as results come")
    return _writable("output", Path(place.folder or os.curdir), Path(sink.path))


def _source(wanted: Wanted) -> Source | None:
    with contextlib.suppress(BatchError):
        return None if wanted.source == "-" else open_source(wanted.source, format=wanted.input_format)
    return None


def _writable(name: str, folder: Path, file: Path | None = None) -> Check:
    shown = str(folder if file is None else file)
    if file is not None and file.is_dir():
        return Check(name=name, status="failed", detail=f"{shown} is a folder", remedy="name a file in it")
    # Of a folder that is not there yet, the nearest one above it that is: the run makes the rest.
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        # Permissions do not tell of a read-only or full file system; a file does.
        with tempfile.TemporaryFile(dir=place) as trial:
            trial.write(b"\0" * 4096)
            trial.flush()
    except OSError as error:
        remedy = "change its permissions, make room, or name another place"
        return Check(name=name, status="failed", detail=f"{place}: {error.strerror}", remedy=remedy)
    return Check(name=name, status="ok", detail=f"{shown} can be written")


async def _input(wanted: Wanted) -> Check:
    if wanted.source == "-":
        return Check(name="input", status="note", detail="standard input is not read by a check")
    rows = bad = 0
    first = ""
    try:
        source = open_source(wanted.source, format=wanted.input_format)
        async with contextlib.aclosing(source.__aiter__()) as records:
            async for row in records:
                rows += 1
                if row.problem is not None:
                    bad += 1
                    first = first or f"{source.name}, {row.place}: {row.problem}"
    except BatchError as error:
        return Check(name="input", status="failed", detail=str(error))
    if bad:
        detail = f"{bad:,} of {rows:,} records are bad, the first at {first}"
        remedy = "correct them, or let them fail: the others run"
        return Check(name="input", status="failed", detail=detail, remedy=remedy)
    return Check(name="input", status="ok", detail=f"{source.name}: {rows:,} {'record' if rows == 1 else 'records'}")
