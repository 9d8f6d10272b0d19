"""The commands and their options; turns every user error into one sentence and an exit code."""

import io
import os
import sys
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated, cast

import typer

from orchestrator._models import RetryPolicy
from orchestrator.cli._journal import with_journal
from orchestrator.cli._options import (
    RunOptions,
    UsageProblem,
    check_output,
    check_python,
    check_source,
    parse_duration,
    parse_limits,
    parse_size,
    target_problem,
)
from orchestrator.cli._quarantine import quarantine
from orchestrator.exceptions import ConfigurationError, JournalError, JournalInUse, OrchestratorError

COMMANDS_GROUP = "orchestrator.commands"
DISTRIBUTION = "subprocess-orchestrator"
# click before typer 0.17 and typer's own copy of it since: the base of what they raise for a wrong command line.
_CommandLineError = cast("type[Exception]", typer.BadParameter.__mro__[2])

app = typer.Typer(
    name="orchestrator",
    help="Run Python jobs in supervised child interpreters.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(quarantine)
# EX_TEMPFAIL of sysexits.h: the same command will work when the other supervisor has ended.
_JOURNAL_IN_USE = 75


def run_app(arguments: list[str] | None) -> int:
    """Run the command line and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    _occupy_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character shows its number: no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    try:
        _add_installed_commands()
        code = app(given or ["--help"], prog_name="orchestrator", standalone_mode=False)
        return 2 if not given else code if isinstance(code, int) else 0
    except UsageProblem as problem:
        return _fail(str(problem), 2)
    except ConfigurationError as error:
        field = error.field if error.field.isupper() else f"--{error.field.replace('_', '-')}"  # a variable's name
        return _fail(f"{field}: {error.args[0].removeprefix(f'{error.field}: ')}.", 2)
    except JournalError as error:
        return _fail(f"{error}.", _JOURNAL_IN_USE if isinstance(error, JournalInUse) else 1)
    except OrchestratorError as error:
        return _fail(f"{error}\nRun `orchestrator doctor` to see what this host lacks.", 1)
    except _CommandLineError as error:
        message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        if not message:
            return 2  # a group without a command: its help is already there
        return _fail(f"{message}; see `{_command_path(error)} --help`.", getattr(error, "exit_code", 2))
    except (KeyboardInterrupt, typer.Abort):
        return 130
    finally:
        _close_stdout()


def _occupy_standard_descriptors() -> None:
    """Keep what we open off a standard descriptor that was closed: outcomes would be written into it."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            return


def _fail(message: str, code: int) -> int:
    typer.echo(f"Error: {message}", err=True)
    return code


def _command_path(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return "orchestrator" if context is None else str(context.command_path)


def _close_stdout() -> None:
    """Keep Python from complaining at exit that whoever read our output is gone."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _add_installed_commands() -> None:
    """Add what other distributions offer: a function becomes a command, a `typer.Typer` a group of them."""
    known = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    for point in metadata.entry_points(group=COMMANDS_GROUP):
        if point.name in known:
            continue
        try:
            command = point.load()
        except Exception as error:
            typer.echo(f"Warning: the command {point.name!r} ({point.value}) cannot be loaded: {error}", err=True)
            continue
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=point.name)
        else:
            app.command(point.name)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"orchestrator {metadata.version(DISTRIBUTION)}")
        raise typer.Exit


def _print_schema(wanted: bool) -> None:
    if wanted:
        typer.echo(resources.files("orchestrator.cli").joinpath("job.schema.json").read_text("utf-8"), nl=False)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run Python jobs in supervised child interpreters."""


INPUT, CHILDREN, JOBS, OUTPUT = "Input", "Children", "Jobs", "Output"


@app.command()
def run(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE|-", help="JSON lines or CSV; - or nothing reads standard input.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="MODULE:FUNCTION",
            help="What to call with each row. Without it each line describes a job.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="jsonl|csv", help="csv for a .csv file, else jsonl.", rich_help_panel=INPUT),
    ] = None,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            callback=_print_schema,
            is_eager=True,
            help="Print the JSON schema of a job description.",
            rich_help_panel=INPUT,
        ),
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", "-w", help="Children at once; one per CPU.", rich_help_panel=CHILDREN)
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", help="Jobs at once in a child, if async.", rich_help_panel=CHILDREN)
    ] = 1,
    preload: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE", help="Import it before the first job. Repeatable.", rich_help_panel=CHILDREN),
    ] = None,
    cwd: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where children run.", rich_help_panel=CHILDREN)
    ] = None,
    python: Annotated[
        str | None, typer.Option(metavar="PATH", help="Interpreter of children; this one.", rich_help_panel=CHILDREN)
    ] = None,
    max_rss: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Replace a child above it between jobs: 500M.", rich_help_panel=CHILDREN),
    ] = None,
    memory_limit: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Kill a child above it: 2G.", rich_help_panel=CHILDREN)
    ] = None,
    hang_timeout: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Kill a child silent for it: 1m.", rich_help_panel=CHILDREN)
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIMIT",
            help="NAME=RATE/PER[:CONCURRENCY], such as api=50/1s:6, or api=:6; for all children together. Repeatable.",
            rich_help_panel=JOBS,
        ),
    ] = None,
    limit_rows: Annotated[
        bool,
        typer.Option(
            "--limit-rows/--no-limit-rows",
            help="With --target, each row takes one unit of every limit; not if the target asks for permits itself.",
            rich_help_panel=JOBS,
        ),
    ] = True,
    timeout: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Bound on one attempt: 30, 500ms, 2m.", rich_help_panel=JOBS)
    ] = None,
    retries: Annotated[
        int, typer.Option(help="Further attempts after an error, crash or timeout.", rich_help_panel=JOBS)
    ] = 0,
    max_failures: Annotated[
        int | None, typer.Option(metavar="N", help="Stop when N jobs did not succeed.", rich_help_panel=JOBS)
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            "--journal",
            metavar="FILE",
            help="Keep the run there: after a crash the same command goes on, and nothing finished is run again.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="With --journal: it must be there.", rich_help_panel=OUTPUT)
    ] = False,
    durability: Annotated[
        str,
        typer.Option(
            metavar="power|process|none",
            help="What the journal survives: loss of power, death of this process, or neither.",
            rich_help_panel=OUTPUT,
        ),
    ] = "process",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="For outcomes; stdout.", rich_help_panel=OUTPUT),
    ] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add to a file that has outcomes.", rich_help_panel=OUTPUT)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that has outcomes.", rich_help_panel=OUTPUT)
    ] = False,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Write outcomes in the order of the input.", rich_help_panel=OUTPUT)
    ] = False,
    progress: Annotated[
        str, typer.Option(metavar="auto|bar|log|none", help="How to show it on stderr.", rich_help_panel=OUTPUT)
    ] = "auto",
    log_level: Annotated[
        str,
        typer.Option(
            metavar="debug|info|warning|error",
            help="Least level of log lines, what children print included.",
            rich_help_panel=OUTPUT,
        ),
    ] = "info",
    debug: Annotated[
        bool, typer.Option("--debug", help="Log launch commands, frames and states.", rich_help_panel=OUTPUT)
    ] = False,
) -> int:
    """Run one job for each line of FILE and write one outcome for each, as JSON lines.

    Ctrl-C once finishes what was read, twice cancels it, three times kills.
    Exit code: 0 all succeeded, 1 some did not, 2 wrong usage, 130 interrupted.
    """
    for option, value in (("--workers", workers), ("--concurrency", concurrency), ("--max-failures", max_failures)):
        _at_least(option, value, 1)
    _at_least("--retries", retries, 0)
    _one_of("--progress", progress, ("auto", "bar", "log", "none"))
    _one_of("--log-level", log_level, ("debug", "info", "warning", "error"))
    if target is not None and (problem := target_problem(target)) is not None:
        raise UsageProblem(f"--target: {problem}.")
    source, kind = check_source(file, format, target)
    if cwd is not None and not cwd.is_dir():
        raise UsageProblem(f"--cwd: {str(cwd)!r} is not a folder; name an existing one.")
    _one_of("--durability", durability, ("power", "process", "none"))
    limits = parse_limits(limit or [])
    options = RunOptions(
        source=source,
        format=kind,
        target=target,
        output=output,
        append=append,
        ordered=ordered,
        workers=workers,
        concurrency=concurrency,
        limits=limits,
        row_limits=tuple(bound.name for bound in limits) if limit_rows else (),
        timeout=None if timeout is None else parse_duration(timeout, "--timeout"),
        retry=RetryPolicy(attempts=retries + 1, on="any") if retries else None,
        max_failures=max_failures,
        progress=progress,
        preload=tuple(preload or ()),
        cwd=cwd,
        python=check_python(python),
        max_rss=None if max_rss is None else parse_size(max_rss, "--max-rss"),
        memory_limit=None if memory_limit is None else parse_size(memory_limit, "--memory-limit"),
        hang_timeout=None if hang_timeout is None else parse_duration(hang_timeout, "--hang-timeout"),
        log_level="debug" if debug else log_level,
    )
    options = with_journal(options, journal, durability, resume=resume, overwrite=overwrite)
    check_output(output, source, append=options.append, overwrite=overwrite, kept=journal is not None)
    if debug:
        # Read when the library starts a supervisor; children inherit it.
        os.environ["ORCHESTRATOR_DEBUG"] = "1"
    from orchestrator.cli._run import run as run_batch

    return run_batch(options)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", "-w", help="Check for so many children; one per CPU.")
    ] = None,
) -> int:
    """Check whether this host can run children, and say what to do where it cannot.

    Exit code: 0 every check passed, 1 one did not.
    """
    _at_least("--workers", workers, 1)
    from orchestrator.cli._doctor import run_doctor

    return run_doctor(workers=workers, as_json=as_json)


def _at_least(option: str, value: int | None, minimum: int) -> None:
    if value is not None and value < minimum:
        raise UsageProblem(f"{option}: must be a whole number of at least {minimum}, not {value}.")


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageProblem(f"{option}: {value!r} is not known; use {', '.join(known[:-1])} or {known[-1]}.")
