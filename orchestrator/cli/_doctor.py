"""`orchestrator doctor`: look, start one child for real, and print one screen."""

from __future__ import annotations

import json
import os
import shlex
import time
from dataclasses import asdict
from importlib import metadata

import anyio
import typer

from orchestrator.cli import _checks
from orchestrator.cli._checks import Check
from orchestrator.cli._console_log import configure_logging
from orchestrator.exceptions import OrchestratorError

# Far more than a start takes on a slow machine, and less than a person waits.
CHILD_DEADLINE = 60.0
_MARKS = {"ok": ("ok", "green"), "failed": ("FAIL", "red"), "note": ("note", "yellow")}


def run_doctor(*, workers: int | None = None, as_json: bool = False) -> int:
    """Run every check, print what was found and return the exit code.

    Args:
        workers: Children that are to run at once; one per CPU.
        as_json: Print one JSON object instead of lines.
    """
    # What goes wrong is in the lines below; what a child says on its way is in `run --debug`.
    configure_logging(lambda _line: None, "critical")
    checks = anyio.run(run_checks, workers or os.cpu_count() or 1, backend="asyncio")
    ok = all(check.status != "failed" for check in checks)
    if as_json:
        described = [{key: value for key, value in asdict(check).items() if value is not None} for check in checks]
        typer.echo(json.dumps({"ok": ok, "version": _version(), "checks": described}, indent=2))
    else:
        _print(checks, ok)
    return 0 if ok else 1


async def run_checks(workers: int) -> list[Check]:
    """Return every check, in the order in which a person reads them."""
    command = check_command()
    return [
        _checks.check_python(),
        _checks.check_package(),
        _checks.check_dependencies(),
        command,
        *check_candidates(),
        *([] if command.status == "failed" else [await check_child()]),
        _checks.check_loop(),
        _checks.check_files(workers),
        _checks.check_temp(),
        _checks.check_log_folder(),
        *_checks.installed_checks(),
    ]


def check_command() -> Check:
    """Say which command starts a child here, and why."""
    from orchestrator import _launch

    try:
        launch = _launch.describe()
    except OrchestratorError as error:
        problem, _, advice = str(error).partition("; ")
        if os.environ.get(_launch.COMMAND):
            advice = f"correct or unset {_launch.COMMAND}"
        else:
            advice = advice or f"set {_launch.COMMAND} to the path of a Python interpreter"
        return Check(name="command", status="failed", detail=problem, remedy=advice)
    # The program that `-c` takes is ours and the same everywhere; a person wants to see which Python.
    words = ["…" if word == _launch.BOOT else shlex.quote(word) for word in launch.command]
    return Check(name="command", status="ok", detail=f"{' '.join(words)}: {launch.reason}")


def check_candidates() -> list[Check]:
    """Say of every other Python that could have been chosen why it was not."""
    from orchestrator import _freezer, _python

    if _freezer.is_frozen() or os.environ.get(_python.COMMAND):
        return []  # nobody looked for one
    found = _python.examine()
    chosen = next((each for each in found if not each.lack), None)
    paths: dict[str, list[str]] = {}  # what several lack, said once
    for each in found:
        if each is not chosen:
            path = f"{each.path or 'none'} ({each.source})"
            paths.setdefault(each.lack or "would do as well, and comes later", []).append(path)
    detail = "; ".join(f"{', '.join(those)}: {lack}" for lack, those in paths.items())
    return [Check(name="other pythons", status="ok", detail=detail)] if detail else []


async def check_child() -> Check:
    """Start one child and run one job in it."""
    from orchestrator._models import RestartPolicy
    from orchestrator._supervisor import Supervisor

    begin = time.perf_counter()
    try:
        with anyio.fail_after(CHILD_DEADLINE):
            # A person waits: the first failure is the answer.
            async with Supervisor(1, name="doctor", restart=RestartPolicy(max_restarts=0)) as supervisor:
                pid = await supervisor.run("os:getpid")
                first = time.perf_counter() - begin
    except TimeoutError:
        problem, said = f"no answer within {CHILD_DEADLINE:.0f} s", ""
    except OrchestratorError as error:
        certificate = getattr(error, "certificate", None)
        problem = str(error if certificate is None else certificate).partition("\n")[0]
        said = certificate.stderr[-1] if certificate is not None and certificate.stderr else ""
    else:
        if pid == os.getpid():
            problem = "the job ran in this very process"
            return Check(name="child", status="failed", detail=problem, remedy="report this bug")
        whole = time.perf_counter() - begin
        detail = f"started and ran a job in {first:.2f} s, gone after {whole:.2f} s"
        return Check(name="child", status="ok", detail=detail)
    if said and said not in problem:
        problem = f"{problem}; it said: {said}"
    return Check(name="child", status="failed", detail=problem, remedy=_child_remedy())


def _child_remedy() -> str:
    from orchestrator import _launch

    if os.environ.get(_launch.COMMAND):
        oldest = ".".join(map(str, _checks.OLDEST))
        return f"let {_launch.COMMAND} name a Python {oldest} or newer, or unset it"
    return "see what it does: echo 5 | orchestrator run --target math:factorial --debug"


def _version() -> str:
    try:
        return metadata.version(_checks.DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "not installed"


def _print(checks: list[Check], ok: bool) -> None:
    typer.secho(f"{_checks.DISTRIBUTION} {_version()}", bold=True)
    for check in checks:
        mark, colour = _MARKS[check.status]
        typer.echo(f"{typer.style(f'{mark:<5}', fg=colour)} {check.name:<13} {check.detail}")
        if check.remedy is not None:
            typer.echo(f"{'':<19} remedy: {check.remedy}")
    failed = sum(check.status == "failed" for check in checks)
    if ok:
        typer.secho("This host can run children.", bold=True)
    else:
        typer.secho(f"{failed} {'check' if failed == 1 else 'checks'} failed: see the remedies.", bold=True)
