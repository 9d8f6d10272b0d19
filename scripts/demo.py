"""Show what children are for: parse the standard library and lose one of them, publish pins and lose a browser.

The first act parses all of Python's standard library in four children, of which one is killed midway. The second act
publishes pins to a board on this machine with real browsers, of which one is killed midway, and leaves a report with
pictures. Without a browser, where none can be installed, it says what to install, and the first act is all.
"""

import _venv

_venv.enter("demo")

import argparse
import json
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import psutil
from _demo_kill import Kill
from _demo_publish import PINS, second_act
from _demo_report import Report
from rich.console import Console

from orchestrator import RetryPolicy
from orchestrator.cli._options import RunOptions
from orchestrator.cli._run import run

WORKERS = 4
DEFAULT = _venv.ROOT / ".demo"
# Not at once, when children still start, and not when most is done.
KILL_AT = 0.4


def main() -> int:
    """Run the demo and return 0 if nothing was lost, 130 if it was interrupted, else 1."""
    parser = argparse.ArgumentParser(
        prog="demo.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, metavar="N", help="parse N files, evenly chosen, instead of all")
    parser.add_argument("--progress", choices=("auto", "bar", "log", "none"), default="auto", help="how to show it")
    parser.add_argument("--pins", type=int, default=PINS, metavar="N", help="publish N pins; 0 leaves that out")
    parser.add_argument("--folder", type=Path, default=DEFAULT, metavar="DIR", help="where the report goes")
    parser.add_argument("--open", action="store_true", help="open the report in your browser at the end")
    options = parser.parse_args()
    root = Path(sysconfig.get_path("stdlib"))
    paths = library(root)
    if options.files is not None:
        paths = paths[:: max(1, len(paths) // max(1, options.files))][: options.files]
    if len(paths) < WORKERS:
        print(f"Error: {root} has {len(paths)} files to parse, and {WORKERS} children need one each.", file=sys.stderr)
        return 1
    version = ".".join(map(str, sys.version_info[:3]))
    console = Console(highlight=False)
    console.print(f"[bold]Parsing the standard library of Python {version}[/]: {len(paths):,} files in", soft_wrap=True)
    console.print(f"{root}", soft_wrap=True)
    console.print(f"{WORKERS} children work on it; one will be killed when {KILL_AT:.0%} is done.\n", soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        code = demonstrate(paths, root, Path(folder), options.progress, console)
    if code == 0 and options.pins > 0:
        code = second_act(options.pins, options.folder, options.progress, console, opens=options.open)
    if code == 0:
        console.print("\nNext: README.md, or `.venv/bin/orchestrator --help`.", soft_wrap=True)
    return code


def demonstrate(paths: "list[str]", root: Path, folder: Path, progress: str, console: Console) -> int:
    """Run one job for each path, as `orchestrator run` does, and show what came of it."""
    source, output = folder / "files.jsonl", folder / "outcomes.jsonl"
    source.write_text("".join(f"{json.dumps(path)}\n" for path in paths), "utf-8")
    kill = Kill(after=int(KILL_AT * len(paths)))
    began = time.perf_counter()
    code = run(
        RunOptions(
            source=source,
            target="_demo_survey:survey",
            output=output,
            workers=WORKERS,
            # A job that ran when its child died runs again only if its policy says so: it might have had effects.
            retry=RetryPolicy(attempts=3, on="crash", backoff=0.1),
            progress=progress,
        ),
        watch=kill.watch,
    )
    seconds = time.perf_counter() - began
    if code == 130:
        print("Interrupted: the demo shows its tables when the run is complete.", file=sys.stderr)
        return code
    held = Report(paths, root, output, kill).print(console)
    left = psutil.Process().children(recursive=True)
    for process in left:
        console.print(f"  FAIL  a process is left: {process}", style="bold red")
    console.print(f"\nDone in {seconds:.1f} s.", soft_wrap=True)
    return 0 if held and not left and code == 0 else 1


def library(root: Path) -> "list[str]":
    """Return every .py file of the standard library; packages that somebody installed are not part of it."""
    found = (path for path in root.rglob("*.py") if not {"site-packages", "dist-packages"} & set(path.parts))
    return sorted(map(str, found))


if __name__ == "__main__":
    sys.exit(main())
