"""What a user may ask of `orchestrator run`, checked: a problem is one sentence that names option and remedy."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from orchestrator._models import Limit, RetryPolicy
from orchestrator.exceptions import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.cli._journal import RunJournal

_NAME = r"[^\W\d]\w*"
_TARGET = re.compile(rf"{_NAME}(\.{_NAME})*:{_NAME}(\.{_NAME})*")
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)?(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


class UsageProblem(Exception):
    """Raised when the command line, or what it names, is wrong; the message is all the user sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Everything `orchestrator run` was asked to do, checked.

    Attributes:
        source: The input file, or None for standard input.
        format: `jsonl` or `csv`.
        target: What plain rows are given to, or None when each line describes a job.
        output: The file for outcomes, or None for standard output.
        append: Add to what `output` has.
        max_failures: End the run at so many jobs that did not succeed.
        journal: What makes the run resumable.
        row_limits: Limits of which each plain row takes one unit.
    """

    source: Path | None = None
    format: str = "jsonl"
    target: str | None = None
    output: Path | None = None
    append: bool = False
    ordered: bool = False
    workers: int | None = None
    concurrency: int = 1
    limits: tuple[Limit, ...] = ()
    row_limits: tuple[str, ...] = ()
    timeout: float | None = None
    retry: RetryPolicy | None = None
    max_failures: int | None = None
    progress: str = "auto"
    preload: tuple[str, ...] = ()
    cwd: Path | None = None
    python: str | None = None
    max_rss: int | None = None
    memory_limit: int | None = None
    hang_timeout: float | None = None
    log_level: str = "info"
    debug: bool = False
    journal: RunJournal | None = None


def parse_duration(text: str, option: str) -> float:
    """Return the seconds that `90`, `1.5s`, `500ms`, `2m` or `1h` name."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not text.strip():
        raise UsageProblem(
            f"{option}: {text!r} is not a duration; write seconds or a unit, such as 30, 500ms, 2m or 1h."
        )
    seconds = float(match[1] or 1) * _UNITS[match[2] or "s"]
    if seconds <= 0:
        raise UsageProblem(f"{option}: a duration must be greater than zero, not {text!r}.")
    return seconds


def parse_size(text: str, option: str) -> int:
    """Return the bytes that `2G`, `500M` or `1.5GiB` name; units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    size = 0 if match is None else int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
    if size <= 0:
        raise UsageProblem(f"{option}: {text!r} is not an amount of memory; write bytes or a unit, such as 500M or 2G.")
    return size


def parse_limit(text: str) -> Limit:
    """Return the limit that `NAME=RATE/PER[:CONCURRENCY]` or `NAME=:CONCURRENCY` describes."""
    form = "write NAME=RATE/PER[:CONCURRENCY], such as api=50/1s:6, or NAME=:6 for a concurrency alone"
    name, equals, bound = text.partition("=")
    rate_text, colon, concurrency_text = bound.partition(":")
    if not equals or not name.strip() or not (rate_text or concurrency_text) or (colon and not concurrency_text):
        raise UsageProblem(f"--limit: {text!r} is not a limit; {form}.")
    rate, per, concurrency = None, 1.0, None
    if rate_text:
        number, slash, per_text = rate_text.partition("/")
        if not slash:
            raise UsageProblem(f"--limit: {text!r} has a rate but no period; add one, such as {name}={number}/1s.")
        if not _NUMBER.fullmatch(number.strip()) or float(number) <= 0:
            raise UsageProblem(
                f"--limit: the rate of {text!r} must be a number greater than zero, not {number!r}; {form}."
            )
        rate, per = float(number), parse_duration(per_text, f"--limit {name}")
    if concurrency_text:
        if not concurrency_text.strip().isdecimal() or int(concurrency_text) < 1:
            problem = f"must be a whole number of at least 1, not {concurrency_text!r}"
            raise UsageProblem(f"--limit: the concurrency of {text!r} {problem}; {form}.")
        concurrency = int(concurrency_text)
    try:
        return Limit(name.strip(), rate=rate, per=per, concurrency=concurrency)
    except ConfigurationError as error:
        raise UsageProblem(f"--limit: {error}.") from error


def parse_limits(texts: list[str]) -> tuple[Limit, ...]:
    """Return all limits; a name may be given once."""
    limits: dict[str, Limit] = {}
    for text in texts:
        limit = parse_limit(text)
        if limit.name in limits:
            raise UsageProblem(f"--limit: {limit.name!r} is given twice; put rate and concurrency into one.")
        limits[limit.name] = limit
    return tuple(limits.values())


def target_problem(target: str) -> str | None:
    """Return what is wrong with the form of a target, with the remedy, or None."""
    if _TARGET.fullmatch(target) and not target.partition(":")[0].endswith(".py"):
        return None
    remedy = 'write "package.module:function" or "package.module:Class.method"'
    module, colon, function = target.partition(":")
    dotted = module.removesuffix(".py").replace("/", ".").replace("\\", ".").strip(".")
    if colon and dotted != module:
        remedy = f'write the module as it is imported, "{dotted}:{function}"'
    elif not colon and re.fullmatch(rf"{_NAME}(\.{_NAME})+", target):
        remedy = f'a colon parts the module from the function: "{":".join(target.rsplit(".", 1))}"'
    return f"{target!r} is not a target; {remedy}"


def check_source(file: str | None, format_name: str | None, target: str | None) -> tuple[Path | None, str]:
    """Return the input file (None for standard input) and its format."""
    if file in (None, "-") and sys.stdin is None:
        raise UsageProblem("FILE: standard input is closed; name a file of jobs.")
    if file is None and sys.stdin is not None and sys.stdin.isatty():
        raise UsageProblem("FILE: there is no input; name a file of jobs, or - to read standard input.")
    source = None if file in (None, "-") else Path(str(file))
    if format_name not in (None, "jsonl", "csv"):
        raise UsageProblem(f"--format: {format_name!r} is not known; use jsonl or csv.")
    if source is not None:
        if not source.exists():
            raise UsageProblem(f"FILE: {str(source)!r} does not exist; name an existing file, or - for standard input.")
        if source.is_dir():
            raise UsageProblem(f"FILE: {str(source)!r} is a folder; name a file with one job a line.")
        if not os.access(source, os.R_OK):
            raise UsageProblem(f"FILE: {str(source)!r} cannot be read; change its permissions or name another file.")
    kind = format_name or ("csv" if source is not None and source.suffix.lower() == ".csv" else "jsonl")
    if kind == "csv" and target is None:
        raise UsageProblem("--target: rows of CSV need it; add --target package.module:function.")
    return source, kind


def check_output(
    output: Path | None, source: Path | None, *, append: bool, overwrite: bool, kept: bool = False
) -> None:
    """Refuse an output that cannot be written, or that would destroy the input or earlier outcomes."""
    if output is None:
        if append or overwrite:
            raise UsageProblem(f"{'--append' if append else '--overwrite'}: is for a file; add --output FILE.")
        if sys.stdout is None:
            raise UsageProblem("--output: standard output is closed; name a file for outcomes.")
        return
    if append and overwrite:
        raise UsageProblem("--append and --overwrite contradict each other; give one of them.")
    if output.is_dir():
        raise UsageProblem(f"--output: {str(output)!r} is a folder; name a file in it.")
    if not output.parent.is_dir():
        raise UsageProblem(f"--output: the folder {str(output.parent)!r} does not exist; make it first.")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise UsageProblem(f"--output: {str(output)!r} cannot be written; change permissions or name another file.")
    if not output.is_file():
        return
    if source is not None and output.samefile(source):
        raise UsageProblem("--output: is the input file; name another one.")
    if output.stat().st_size and not append and not overwrite:
        remedy = "keep what it has with --append, or replace it with --overwrite"
        if kept:
            remedy = "the journal's last run wrote to another; replace it, with all outcomes so far, by --overwrite"
        raise UsageProblem(f"--output: {str(output)!r} is not empty; {remedy}.")


def check_python(python: str | None) -> str | None:
    """Return the path of the interpreter that children are to run."""
    if python is None:
        return None
    found = shutil.which(python)
    if found is None:
        raise UsageProblem(
            f"--python: {python!r} is not a program that can be run; give the path of a Python interpreter."
        )
    return str(Path(found).absolute())
