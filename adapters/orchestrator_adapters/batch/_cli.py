"""`orchestrator batch`: the commands and their options; every problem of a user is one sentence and an exit code."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from orchestrator_adapters.batch._errors import BatchError
from orchestrator_adapters.batch._progress import MODES

app = typer.Typer(
    name="batch",
    help="Run a function over every record of a table: resumable, within limits, in order.",
    no_args_is_help=True,
)

DATA, RUN, KEEPING = "Data", "How it runs", "What is kept"

Target = Annotated[
    str,
    typer.Option("--target", metavar="MODULE:FUNCTION", help="Called with each record.", rich_help_panel=DATA),
]
Input = Annotated[
    str,
    typer.Option("--input", "-i", metavar="FILE|-", help=".jsonl, .csv or .parquet; .gz too.", rich_help_panel=DATA),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="FILE|-", help="Gets what the target returned, in order.", rich_help_panel=DATA
    ),
]
InputFormat = Annotated[
    str | None,
    typer.Option("--input-format", metavar="FORMAT", help="Where the name does not tell.", rich_help_panel=DATA),
]
OutputFormat = Annotated[
    str | None,
    typer.Option("--output-format", metavar="FORMAT", help="Where the name does not tell.", rich_help_panel=DATA),
]
ParamsFile = Annotated[
    str | None,
    typer.Option(
        "--params", metavar="FILE", help="params.yaml: sections multiprocessing and limits.", rich_help_panel=RUN
    ),
]
InChildren = Annotated[
    bool | None,
    typer.Option(
        "--multiprocessing/--no-multiprocessing",
        help="Run in children, or in this process; goes before `enabled` in the params.",
        rich_help_panel=RUN,
    ),
]
MaxFailures = Annotated[
    int | None,
    typer.Option(metavar="N", help="So many may fail; one more ends the run.", rich_help_panel=RUN),
]
Classify = Annotated[
    str | None,
    typer.Option(metavar="MODULE:FUNCTION", help="Gives an error its failure class, or None.", rich_help_panel=RUN),
]
Secret = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="A variable that children get and nobody is shown. Repeatable.", rich_help_panel=RUN
    ),
]
Progress = Annotated[
    str, typer.Option(metavar="auto|bar|log|none", help="How to show it on stderr.", rich_help_panel=RUN)
]
Failed = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Gets the records that failed; failed.jsonl beside the output.", rich_help_panel=KEEPING
    ),
]
Metrics = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Gets the numbers; metrics.json beside the output.", rich_help_panel=KEEPING),
]
Name = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Of the run; made of output and target.", rich_help_panel=KEEPING),
]
Folder = Annotated[str, typer.Option(metavar="FOLDER", help="Where runs keep their journals.", rich_help_panel=KEEPING)]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget what an earlier run did.", rich_help_panel=KEEPING)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OneRun = Annotated[
    str | None, typer.Argument(metavar="[NAME]", show_default=False, help="Of the run; needed where there are several.")
]
SomeRun = Annotated[str | None, typer.Argument(metavar="[NAME]", show_default=False, help="Of one run; all of them.")]
RunsFolder = Annotated[str, typer.Option("--folder", metavar="FOLDER", help="Where runs keep their journals.")]


@app.command()
def run(
    target: Target,
    input: Input,
    output: Output = None,
    params: ParamsFile = None,
    input_format: InputFormat = None,
    output_format: OutputFormat = None,
    multiprocessing: InChildren = None,
    max_failures: MaxFailures = None,
    classify: Classify = None,
    secret: Secret = None,
    progress: Progress = "auto",
    failed: Failed = None,
    metrics: Metrics = None,
    name: Name = None,
    folder: Folder = ".orchestrator",
    fresh: Fresh = False,
) -> int:
    """Run the target for every record; the same command again goes on where an earlier one ended.

    Ctrl-C once finishes what runs, twice cancels it, three times kills.
    Exit code: 0 all succeeded, 1 some did not, 2 wrong usage, 75 try again, 130 interrupted.
    """

    def body() -> int:
        if progress not in MODES:
            raise BatchError(f"--progress: {progress!r} is not known; use {', '.join(MODES[:-1])} or {MODES[-1]}")
        from orchestrator_adapters.batch._batch import Batch
        from orchestrator_adapters.batch._command import command_again, run_batch

        batch = Batch(
            target,
            input,
            output,
            params=params,
            name=name,
            folder=folder,
            failed=failed,
            metrics=metrics,
            max_failures=max_failures,
            classify=classify,
            secrets=secret or (),
            multiprocessing=multiprocessing,
            progress=progress,
            fresh=fresh,
            input_format=input_format,
            output_format=output_format,
        )
        batch.command = command_again(sys.orig_argv)
        return run_batch(batch)

    return _told(body)


@app.command()
def check(
    target: Target,
    input: Input,
    output: Output = None,
    params: ParamsFile = None,
    input_format: InputFormat = None,
    output_format: OutputFormat = None,
    multiprocessing: InChildren = None,
    classify: Classify = None,
    secret: Secret = None,
    failed: Failed = None,
    metrics: Metrics = None,
    name: Name = None,
    folder: Folder = ".orchestrator",
    as_json: AsJson = False,
) -> int:
    """Check everything that `run` with these options needs, without sending a request.

    Exit code: 0 every check passed, 1 one did not.
    """

    def body() -> int:
        from orchestrator_adapters.batch._checks import Wanted, run_checks

        return run_checks(
            Wanted(
                target=target,
                source=input,
                sink=output,
                params=params,
                input_format=input_format,
                output_format=output_format,
                multiprocessing=multiprocessing,
                classify=classify,
                secrets=tuple(secret or ()),
                failed=failed,
                metrics=metrics,
                name=name,
                folder=Path(folder),
            ),
            as_json=as_json,
        )

    return _told(body)


@app.command()
def status(name: SomeRun = None, folder: RunsFolder = ".orchestrator", as_json: AsJson = False) -> int:
    """Say how runs stand: their records by state, and the command that goes on."""

    def body() -> int:
        from orchestrator_adapters.batch._runs import folders, run_folder, state_of

        root = Path(folder)
        states = [state_of(path) for path in (folders(root) if name is None else [run_folder(root, name)])]
        if as_json:
            typer.echo(json.dumps({"runs": [state.as_json() for state in states]}, indent=2, ensure_ascii=False))
        else:
            typer.echo("\n".join(line for state in states for line in state.lines()) or f"no runs in {folder}")
        return 0

    return _told(body)


@app.command("retry-failed")
def retry_failed(
    name: OneRun = None,
    folder: RunsFolder = ".orchestrator",
    classes: Annotated[
        list[str] | None, typer.Option("--class", metavar="CLASS", help="Only failures of this class. Repeatable.")
    ] = None,
) -> int:
    """Make the failed records of a run pending again, with all their attempts; the next `run` runs them."""

    def body() -> int:
        from orchestrator_adapters.batch import _runs

        count, state = _runs.retry_failed(_runs.run_folder(Path(folder), name), classes or ())
        typer.echo(f"{state.name}: {count:,} failed {'record is' if count == 1 else 'records are'} pending again.")
        if count:
            typer.echo(f"Run them: {state.command or 'give the command of this run again'}")
        return 0

    return _told(body)


@app.command()
def export(
    name: OneRun = None,
    folder: RunsFolder = ".orchestrator",
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE|-", help="Where to.")] = "-",
    output_format: Annotated[
        str | None, typer.Option("--output-format", metavar="FORMAT", help="Where the name does not tell.")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="The records that failed, and why.")] = False,
) -> int:
    """Write the results that a run has so far, in the order of the records, whether it is finished or not."""

    def body() -> int:
        from orchestrator_adapters.batch import _runs

        count = _runs.export(_runs.run_folder(Path(folder), name), output, output_format, failed=failed)
        if output != "-":
            what = "failed record" if failed else "result"
            typer.echo(f"{count:,} {what}{'' if count == 1 else 's'} written to {output}", err=True)
        return 0

    return _told(body)


def _told(body: Callable[[], int]) -> int:
    """Run a command from the current folder, and tell what is wrong as the other commands do."""
    folder = str(Path.cwd())
    # Targets are found there, as with `python -m`; children take their `sys.path` from this process.
    if not sys.flags.safe_path and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return body()
    except BatchError as error:
        text = str(error)
        typer.echo(f"Error: {text}{'' if text.endswith(('.', '?')) else '.'}", err=True)
        return error.exit_code
