"""Run the measurements, each in a process of its own, peers interleaved, everything bounded and cleaned up."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import uuid
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _bench_procs as procs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _bench_lines import Line

PACKAGES = ("anyio", "aiomultiprocess", "loky", "pebble", "trio", "trio-parallel", "uvloop", "subprocess-orchestrator")

Runs = dict[str, dict[str, list[dict[str, Any]]]]
"""Line → peer → what each repeat yielded: its figures, or `{"problem": …}`."""


def run_lines(
    lines: Sequence[Line], peers: Sequence[str], repeats: int, quick: bool, say: Callable[[str], None]
) -> Runs:
    """Run every line: in each repeat all peers take their turn, and each repeat begins with another peer.

    So whatever else the machine does meanwhile hits all peers alike.
    """
    runs: Runs = {}
    for line in lines:
        taking_part = [peer for peer in line.peers if not peers or peer in peers]
        found = runs[line.name] = {peer: [] for peer in taking_part}
        for repeat in range(max(1, round(repeats * line.weight)) if taking_part else 0):
            turn = repeat % len(taking_part)
            for peer in taking_part[turn:] + taking_part[:turn]:
                figures = run_once(line, peer, line.sizes | (line.quick if quick else {}))
                found[peer].append(figures)
                say(f"{line.name} #{repeat + 1} {peer}: {_brief(figures)}")
    return runs


def run_once(line: Line, peer: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """Run one measurement; whatever it leaves behind is killed by process id and noted."""
    mark = uuid.uuid4().hex
    child = Path(__file__).with_name("_bench_child.py")
    request = json.dumps({"line": line.name, "peer": peer, "sizes": sizes})
    process = subprocess.Popen(
        [sys.executable, str(child), request],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, procs.MARK: mark},
        start_new_session=True,  # Ctrl-C is the driver's to answer
    )
    problem = ""
    try:
        output, errors = process.communicate(timeout=line.timeout)
    except subprocess.TimeoutExpired:
        problem = f"not done after {line.timeout:g} s"
        procs.kill([process.pid])
        output, errors = "", ""
    finally:
        left = [pid for pid in procs.marked(mark) + procs.marked(mark + "-victim") if pid != process.pid]
        left = procs.wait_gone(left, 3)
        procs.kill([process.pid, *left] if process.poll() is None else left)
    process.wait()
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    answers = [text for text in output.splitlines() if text.startswith("RESULT ")]
    if not answers:
        return {"problem": problem or (errors.strip().splitlines() or ["no answer"])[-1][:300]}
    figures: dict[str, Any] = json.loads(answers[-1].removeprefix("RESULT "))
    return figures | ({"left_behind": len(left)} if left else {})


def medians(runs: Sequence[dict[str, Any]], key: str) -> tuple[float | None, int]:
    """Return the median of a figure over its repeats, and in how many of them it came to be.

    A repeat in which something never happened counts as worse than any other; so the median is None when half did.
    """
    values = sorted(run[key] for run in runs if run.get(key) is not None)
    missing = len(runs) - len(values)
    if not values or missing * 2 >= len(runs):
        return None, len(values)
    return statistics.median(values), len(values)


def machine() -> dict[str, Any]:
    """Describe what the figures were measured on."""
    import psutil

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "packages": versions,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _brief(figures: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.6g}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items()
    )
