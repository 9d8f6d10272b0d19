"""`orchestrator publish`: the command and its options; every problem of a user is one sentence and an exit code."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.exceptions import OrchestratorError

SITE, RUN, KEEPING = "Site", "How it runs", "What is kept"

Pins = Annotated[str, typer.Argument(metavar="PINS", help="A .csv file with a header, or .jsonl: one pin a row.")]
ProfileName = Annotated[
    str,
    typer.Option("--profile", "-p", metavar="FILE|NAME", help="How the site takes pins.", rich_help_panel=SITE),
]
Url = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Address of the site, instead of the profile's.", rich_help_panel=SITE),
]
Proxy = Annotated[str | None, typer.Option(metavar="URL", help="http://user:password@host:port.", rich_help_panel=SITE)]
Workers = Annotated[int, typer.Option("--workers", "-w", help="Browsers at once.", rich_help_panel=RUN)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Fill in everything and publish nothing.", rich_help_panel=RUN)]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", help="For one attempt at a pin.", rich_help_panel=RUN)]
Retries = Annotated[
    int, typer.Option(help="Further attempts after a death or an error of the site.", rich_help_panel=RUN)
]
Executable = Annotated[
    str | None, typer.Option(metavar="PATH", help="The browser; found by itself.", rich_help_panel=RUN)
]
Headed = Annotated[bool, typer.Option("--headed", help="Show the browsers.", rich_help_panel=RUN)]
UserDataDir = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="A browser profile, with its logins; one worker.", rich_help_panel=RUN),
]
Attach = Annotated[
    str | None,
    typer.Option(metavar="URL", help="A running browser, with its logins: http://127.0.0.1:9222.", rich_help_panel=RUN),
]
JournalFile = Annotated[
    Path | None,
    typer.Option(
        "--journal",
        metavar="FILE",
        help="Keep the run there: after a crash the same command goes on.",
        rich_help_panel=KEEPING,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="For results, JSON lines; stdout.", rich_help_panel=KEEPING),
]
Artifacts = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Gets screenshots and consoles of what failed.", rich_help_panel=KEEPING),
]
Report = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Gets a page with all pins and attempts.", rich_help_panel=KEEPING)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what is wrong.", rich_help_panel=KEEPING)]


def publish(
    pins: Pins,
    profile: ProfileName = "local",
    url: Url = None,
    proxy: Proxy = None,
    workers: Workers = 2,
    dry_run: DryRun = False,
    timeout: Timeout = 300.0,
    retries: Retries = 7,
    executable: Executable = None,
    headed: Headed = False,
    user_data_dir: UserDataDir = None,
    attach: Attach = None,
    journal: JournalFile = None,
    output: Output = None,
    artifacts: Artifacts = None,
    report: Report = None,
    quiet: Quiet = False,
) -> int:
    """Publish the pins of a table, each one once: what is there already is found and left alone.

    Ctrl-C once finishes the pins that are being published, twice stops them, three times kills.
    Exit code: 0 all published, 1 some were not, 2 wrong usage, 75 try again, 130 interrupted.
    """
    from orchestrator_adapters.publisher._command import Request, run_command
    from orchestrator_adapters.publisher._run import USAGE, RunError

    request = Request(
        pins=pins,
        profile=profile,
        url=url,
        proxy=proxy,
        workers=workers,
        dry_run=dry_run,
        timeout=timeout,
        retries=retries,
        executable=executable,
        headed=headed,
        user_data_dir=user_data_dir,
        attach=attach,
        journal=journal,
        output=output,
        artifacts=artifacts,
        report=report,
        quiet=quiet,
    )
    try:
        return run_command(request)
    except OrchestratorError as error:
        text = str(error)
        typer.echo(f"Error: {text}{'' if text.endswith(('.', '?')) else '.'}", err=True)
        return error.exit_code if isinstance(error, RunError) else USAGE
