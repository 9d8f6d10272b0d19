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

# Far more than a start takes on a slow machine, and less than a person waits.
CHILD_DEADLINE = 60.0
_MARKS = {"ok": ("ok", "green"), "failed": ("FAIL", "red"), "note": ("note", "yellow")}


def run_doctor(*, workers: int | None = None, as_json: bool = False) -> int:
    """Run every check, print what was found and return the exit code.

    Args:
        workers: Children that are to run at once; one per CPU.
        as_json: Print one JSON object instead of lines.
    """
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
    return [
        _checks.check_python(),
        _checks.check_package(),
        _checks.check_dependencies(),
        check_command(),
        await check_child(),
        _checks.check_loop(),
        _checks.check_files(workers),
        _checks.check_temp(),
        _checks.check_browser(),
    ]


def check_command() -> Check:
    """Say which command starts a child here, and why."""
    from orchestrator import _launch
    from orchestrator.exceptions import LaunchError

    try:
        launch = _launch.describe()
    except LaunchError as error:
        return Check(name="command", status="failed", detail=str(error), remedy="set ORCHESTRATOR_CHILD_COMMAND")
    return Check(name="command", status="ok", detail=f"{shlex.join(launch.command)}: {launch.reason}")


async def check_child() -> Check:
    """Start one child and run one job in it."""
    from orchestrator._supervisor import Supervisor
    from orchestrator.exceptions import OrchestratorError

    begin = time.perf_counter()
    try:
        with anyio.fail_after(CHILD_DEADLINE):
            async with Supervisor(1, name="doctor") as supervisor:
                pid = await supervisor.run("os:getpid")
                first = time.perf_counter() - begin
    except TimeoutError:
        return Check(
            name="child",
            status="failed",
            detail=f"no answer within {CHILD_DEADLINE:.0f} s",
            remedy="look at what the child does: orchestrator run --debug",
        )
    except OrchestratorError as error:
        return Check(name="child", status="failed", detail=str(error), remedy=_child_remedy(error))
    if pid == os.getpid():
        return Check(name="child", status="failed", detail="the job ran in this very process", remedy="report this bug")
    whole = time.perf_counter() - begin
    detail = f"started and ran a job in {first:.2f} s, gone after {whole:.2f} s"
    return Check(name="child", status="ok", detail=detail)


def _child_remedy(error: Exception) -> str:
    certificate = getattr(error, "certificate", None)
    if certificate is not None and certificate.stderr:
        return f"the child said: {certificate.stderr[-1]}"
    return "look at what the child does: orchestrator run --debug"


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
