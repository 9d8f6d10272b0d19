"""`orchestrator quarantine`: what becomes of the jobs that were given up because they kill children."""

import json
import sys
from dataclasses import asdict
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli._options import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator._journal_file import JournalFile, QuarantinedJob

quarantine = typer.Typer(
    name="quarantine",
    help="Look at jobs that were given up because they kill children, and decide what becomes of them.",
    no_args_is_help=True,
)

Journal = Annotated[Path, typer.Argument(metavar="JOURNAL", help="The journal's file; no supervisor may be using it.")]
Some = Annotated[list[int] | None, typer.Argument(metavar="ID", help="Numbers of jobs, as `list` shows them.")]
One = Annotated[int, typer.Argument(metavar="ID", help="Number of a job, as `list` shows it.")]
All = Annotated[bool, typer.Option("--all", help="All that are in quarantine.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_WIDTH = 72


@quarantine.command("list")
def list_jobs(journal: Journal, as_json: AsJson = False) -> int:
    """List the jobs in quarantine, and count the others."""
    with _open(journal) as file:
        jobs, counts = [*file.quarantined()], file.counts()
    if as_json:
        _print_json({"counts": counts, "quarantined": [_brief(job) for job in jobs]})
        return 0
    for job in jobs:
        name = "" if job.key is None else f" {job.key!r}"
        typer.echo(f"{job.id:>8}{name}  {job.target}  {_deaths(job)}, {_when(job.settled)}  {_reason(job)}")
    typer.echo(", ".join(f"{count} {status}" for status, count in counts.items()) or "no jobs")
    return 0


@quarantine.command()
def show(journal: Journal, id: One, as_json: AsJson = False) -> int:
    """Show one job: what it was called with, how its children died, and what the last one said."""
    with _open(journal) as file:
        job = file.job(id)
    if as_json:
        _print_json(_whole(job))
        return 0
    call = {name: value for name, value in job.call.items() if name not in ("target", "kind")}
    lines = [
        f"job {job.id}" + ("" if job.key is None else f" {job.key!r}") + f": {job.target}",
        f"  called with  {_short(call)}",
        f"  accepted     {_when(job.created)}",
        f"  quarantined  {_when(job.settled)}, {_deaths(job)}",
    ]
    if job.discarded is not None:
        lines.append(f"  discarded    {_when(job.discarded)}")
    lines.append(f"  effects      {job.effects}" + "".join(f"; {each['key']}: {each['phase']}" for each in job.begun))
    lines.append(f"  reason       {_reason(job)}")
    lines += [f"  death {number}      {_death(each)}" for number, each in enumerate(job.certificates, 1)]
    if job.stderr:
        lines += ["  last lines of stderr:", *(f"    {line}" for line in job.stderr)]
    typer.echo("\n".join(lines))
    return 0


@quarantine.command()
def release(journal: Journal, ids: Some = None, every: All = False) -> int:
    """Give jobs all their attempts again: the next run with this journal begins with them."""
    with _open(journal) as file:
        chosen = _choose(file, ids, every)
        file.release(chosen)
    then = f": the next run with this journal takes {_them(chosen)} up" if chosen else ""
    typer.echo(f"Released {_count(chosen)}{then}.")
    return 0


@quarantine.command()
def discard(journal: Journal, ids: Some = None, every: All = False) -> int:
    """Give jobs up for good."""
    with _open(journal) as file:
        chosen = _choose(file, ids, every)
        file.discard(chosen)
    typer.echo(f"Discarded {_count(chosen)}.")
    return 0


@quarantine.command()
def export(
    journal: Journal,
    ids: Some = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="A new file; stdout.")] = None,
) -> int:
    """Write all that is known of jobs (of all in quarantine, if none is named) as JSON."""
    with _open(journal) as file:
        jobs = [file.job(number) for number in ids] if ids else [*file.quarantined()]
    text = json.dumps({"versions": _versions(), "jobs": [_whole(job) for job in jobs]}, indent=2)
    if output is None:
        typer.echo(text)
        return 0
    try:
        with output.open("x", encoding="utf-8") as target:
            target.write(text + "\n")
    except FileExistsError:
        raise UsageProblem(f"--output: {str(output)!r} exists; name a new file.") from None
    except OSError as error:
        raise UsageProblem(f"--output: {str(output)!r} cannot be written: {error.strerror}.") from None
    typer.echo(f"Wrote {_count(jobs)} to {output}.")
    return 0


def _open(journal: Path) -> "JournalFile":
    from orchestrator._journal_file import JournalFile

    return JournalFile(journal)


def _choose(file: "JournalFile", ids: list[int] | None, every: bool) -> list[int]:
    if bool(ids) == every:
        raise UsageProblem("name the jobs, or all of them with --all, and not both.")
    return [job.id for job in file.quarantined()] if every else [*dict.fromkeys(ids or ())]


def _brief(job: "QuarantinedJob") -> dict[str, Any]:
    return {
        "id": job.id,
        "key": job.key,
        "target": job.target,
        "deaths": job.deaths,
        "quarantined": job.settled,
        "reason": _reason(job),
    }


def _whole(job: "QuarantinedJob") -> dict[str, Any]:
    return {**asdict(job), "stderr": job.stderr}


def _versions() -> dict[str, str]:
    return {"orchestrator": metadata.version("subprocess-orchestrator"), "python": sys.version}


def _reason(job: "QuarantinedJob") -> str:
    return " ".join(str(job.error.get("message", "")).split())


def _deaths(job: "QuarantinedJob") -> str:
    return "1 death" if job.deaths == 1 else f"{job.deaths} deaths"


def _death(certificate: dict[str, Any]) -> str:
    if certificate.get("signal"):
        end = f"killed by {certificate['signal']}"
    else:
        end = f"exited with code {certificate.get('exit_code')}"
    detail = certificate.get("detail")
    return f"child {certificate.get('pid')} {end}" + (f": {detail}" if detail else "")


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}… ({len(text)} characters; `show --json` has all)"


def _count(jobs: "Iterable[object]") -> str:
    number = len([*jobs])
    return "1 job" if number == 1 else f"{number} jobs"


def _them(jobs: list[int]) -> str:
    return "it" if len(jobs) == 1 else "them"


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
