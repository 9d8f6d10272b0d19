"""Kill, stop, flood and corrupt a run of many jobs at random moments, from a seed, and check that nothing was lost."""

import _venv

_venv.enter("runtime")

import argparse
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

from _chaos_check import Books, Check, check, note_recoveries
from _chaos_faults import Strikes
from _chaos_jobs import KINDS, plan
from _chaos_run import Run


def main() -> int:
    """Run it and return 0 if everything held, else 1."""
    parser = argparse.ArgumentParser(prog="chaos.py", description=__doc__)
    parser.add_argument("--seed", type=int, help="what all follows from; by default a new one")
    parser.add_argument("--jobs", type=int, default=20_000, metavar="N", help="submit N jobs (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=3.0, metavar="M", help="for M minutes (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="of each host (default: %(default)s)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the figures to a JSON file, too")
    parser.add_argument("--quick", action="store_true", help="a short run with all kinds of faults")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        sys.exit("Error: chaos.py finds the processes it may strike through /proc: run it on Linux.")
    seed = random.randrange(10**6) if options.seed is None else options.seed
    pace = 1.0
    if options.quick:
        options.jobs, options.minutes, pace = min(options.jobs, 2_500), 0.25, 4.0
    arguments = f"--seed {seed} --jobs {options.jobs} --minutes {options.minutes:g} --workers {options.workers}"
    again = f"python scripts/chaos.py {f'--quick --seed {seed}' if options.quick else arguments}"
    print(f"{again}\n", flush=True)

    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    run = Run(
        seed=seed,
        jobs=options.jobs,
        seconds=options.minutes * 60,
        workers=options.workers,
        pace=pace,
        folder=folder,
        say=lambda line: print(line, flush=True),
    )
    run.go()
    books = Books(folder, seed, run.lives)
    note_recoveries(books, run.strikes)
    for number in range(len({line[0] for line in books.accepted})):
        run.strikes.count_job(plan(seed, number)[0])
    checks = [*check(books, run.strikes), *(Check(False, text) for text in run.violations)]
    if not run.violations:
        checks.append(Check(True, f"{run.lives} lives of the host: no process and no file was left by any of them"))
    _show(run.strikes)
    print()
    for holds, text in checks:
        print(f"  {'ok  ' if holds else 'FAIL'}  {text}")
    held = all(each.holds for each in checks)
    print(f"\n{len(books.jobs):,} jobs in {run.seconds:.0f} s, {run.lives} lives of the host. ", end="")
    if options.report is not None:
        options.report.write_text(json.dumps(_figures(again, run, checks), indent=1) + "\n", "utf-8")
    if held:
        shutil.rmtree(folder)
        print("Everything held.")
        return 0
    print(f"Not everything held.\nThe journal and all notes are in {folder}\nAgain: {again}")
    return 1


def _show(strikes: Strikes) -> None:
    print(f"\n  {'fault':<32}{'times':>7}   all well again after (slowest)")
    for name, tally in strikes.tallies.items():
        slowest = f"{max(tally.recoveries):.2f} s, seen {len(tally.recoveries)} times" if tally.recoveries else ""
        print(f"  {name:<32}{tally.count:>7}   {slowest}".rstrip())


def _figures(command: str, run: Run, checks: "list[Check]") -> "dict[str, object]":
    return {
        "command": command,
        "seconds": round(run.seconds, 1),
        "lives": run.lives,
        "faults": {
            name: {"count": tally.count, "recoveries": [round(each, 3) for each in sorted(tally.recoveries)]}
            for name, tally in run.strikes.tallies.items()
        },
        "checks": [{"holds": each.holds, "text": each.text} for each in checks],
        "kinds": {name: kind.share for name, kind in KINDS.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
