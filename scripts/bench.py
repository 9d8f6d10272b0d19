"""Measure the project side by side with other process pools and say which budgets are met."""

import _venv

_venv.enter("bench", ".venv-bench")

import argparse
import compileall
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import _browser
from _bench_driver import machine, run_lines
from _bench_lines import LINES
from _bench_peers import PEERS
from _bench_report import legend, table, verdicts

DEFAULT = _venv.ROOT / ".bench" / "results.json"


def main() -> int:
    """Run what the command line asks for, print the table, write the results file."""
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__)
    names = [line.name for line in LINES]
    parser.add_argument("--only", action="append", choices=names, metavar="LINE", help="one of: " + ", ".join(names))
    parser.add_argument(
        "--peer", action="append", choices=list(PEERS), metavar="PEER", help="ours and these peers only"
    )
    parser.add_argument("--repeats", type=int, default=0, help="repeats of each line, default 5, with --quick 3")
    parser.add_argument("--quick", action="store_true", help="smaller sizes: a few minutes in all, and rougher figures")
    parser.add_argument("--json", type=Path, default=DEFAULT, metavar="FILE", help="where the results go")
    parser.add_argument("--show", type=Path, metavar="FILE", help="measure nothing, print the table of a results file")
    options = parser.parse_args()
    if options.repeats < 0:
        parser.error("--repeats must be at least 1")
    if options.show:
        report(json.loads(options.show.read_text("utf-8")))
        return 0
    lines = [line for line in LINES if (line.name in options.only if options.only else not line.asked)]
    peers = ["ours", "python -c pass", *options.peer] if options.peer else []
    if any(line.browser for line in lines):
        _browser.provide()
    # pip compiled the peers when it installed them; this project is installed in place, so the same is done here.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for folder in ("orchestrator", "scripts"):
        compileall.compile_dir(_venv.ROOT / folder, quiet=1)
    began = time.monotonic()
    repeats = options.repeats or (3 if options.quick else 5)
    runs = run_lines(lines, peers, repeats, options.quick, lambda text: print(text, file=sys.stderr, flush=True))
    results: dict[str, Any] = {"machine": machine(), "repeats": repeats, "quick": options.quick, "runs": runs}
    results["seconds"] = round(time.monotonic() - began)
    if not options.json.parent.exists():
        options.json.parent.mkdir(parents=True)
        if options.json == DEFAULT:  # a folder that git passes over, wherever it is asked
            (options.json.parent / ".gitignore").write_text("*\n", "utf-8")
    options.json.write_text(json.dumps(results, indent=1), "utf-8")
    report(results)
    print(f"\nResults are in {options.json}; the run took {results['seconds']} s.", file=sys.stderr)
    return 0


def report(results: dict[str, Any]) -> None:
    """Print a run."""
    runs = results["runs"]
    print(json.dumps(results["machine"]), end="\n\n")
    print(table(runs), end="\n\n")
    print(legend(runs), end="\n\n")
    for verdict in verdicts(runs):
        print(verdict)


if __name__ == "__main__":
    sys.exit(main())
