"""The measurements: each runs once, for one peer, in a process of its own, and prints its figures."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import _bench_jobs
import _bench_procs as procs
from _bench_lines import FLOOR
from _bench_peers import PEERS, Peer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Figures = dict[str, float | None]
TOO_LONG = 60.0  # jobs that are meant to be killed sleep this long


def main() -> None:
    """Run the measurement that the command line names and print one line of JSON."""
    request = json.loads(sys.argv[1])
    figures = measure(request["line"], request["peer"], request["sizes"])
    finish(figures)


def finish(figures: Figures) -> NoReturn:
    """Print the figures and end, with every process below this one."""
    print("RESULT " + json.dumps(figures), flush=True)
    procs.kill(procs.descendants(os.getpid()))
    os._exit(0)


def measure(line: str, peer: str, sizes: dict[str, Any]) -> Figures:
    """Run one measurement."""
    if line == "victim":
        run(peer, 1, lambda pool: _be_victim(pool, bool(sizes["busy"])))
    if line == "start" and peer == FLOOR:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        return {"first": time.perf_counter() - started}
    if line == "start":
        return start(peer)
    if line.startswith("orphan"):
        return orphan(peer, **sizes)
    if line in ("rows", "rows-journal"):
        return rows(**sizes)
    if line.startswith("journal"):
        import _bench_journal  # here, for what it imports would be counted by the lines about starts and memory

        found: Figures = getattr(_bench_journal, line.replace("-", "_"))(**sizes)
        return found
    if line == "cache":
        import _bench_cache

        return _bench_cache.cache(**sizes)
    if line in ("browser", "publisher"):
        import _bench_browser

        drive: Callable[..., Figures] = getattr(_bench_browser, line)
        return drive(**sizes)
    if line in ("service", "frozen"):
        import _bench_service

        watch: Callable[..., Figures] = getattr(_bench_service, line)
        return watch(**sizes)
    if line == "limit":
        return limit(peer, **sizes)
    if line.startswith("payload"):
        text = "x" * int(sizes["size"])
        return run(peer, 1, lambda pool: round_trips(pool, _bench_jobs.echo, [text] * int(sizes["jobs"])))
    if line.startswith("cancel"):
        options = {"grace": sizes["grace"]} if "grace" in sizes and peer == "ours" else {}
        target = getattr(_bench_jobs, sizes["target"])
        return run(peer, 1, lambda pool: cancel(pool, target, float(sizes["bound"])), **options)
    if line == "noop":
        return run(peer, sizes["workers"], lambda pool: noop(pool, sizes["jobs"], sizes["window"]))
    if line == "round-trip":
        return run(peer, 1, lambda pool: round_trips(pool, _bench_jobs.noop, list(range(sizes["jobs"]))))
    if line == "crash":
        return run(peer, 1, lambda pool: crash(pool, sizes["bound"]))
    if line == "spare":
        return run(peer, 1, lambda pool: crash_with_spare(pool, sizes["bound"]), spares=1)
    if line == "neighbours":
        return run(peer, 4, lambda pool: neighbours(pool, sizes["bound"]))
    if line == "idle-crash":
        return run(peer, 1, lambda pool: idle_crash(pool, sizes["bound"]))
    if line == "memory":
        return run(peer, 1, memory)
    if line == "idle":
        return run(peer, sizes["workers"], lambda pool: idle(pool, sizes["seconds"]))
    raise ValueError(f"no measurement is called {line!r}")


def run(peer: str, workers: int, body: Callable[[Peer], Awaitable[Figures]], **options: Any) -> Figures:
    """Open a pool on its own kind of loop, warm it, and run `body` in it; closing it is bounded, not measured."""
    import anyio

    kind = PEERS[peer]

    async def inside() -> Figures:
        pool = kind(workers, **options)
        await pool.open()
        await warm(pool)
        figures = await body(pool)
        # Some pools never finish closing once a child of theirs was killed, and block the loop while they try.
        patience = threading.Timer(5, finish, [figures])
        patience.daemon = True
        patience.start()
        await pool.close()
        patience.cancel()
        return figures

    return anyio.run(inside, backend=kind.backend, backend_options={"use_uvloop": True} if kind.use_uvloop else {})


async def warm(pool: Peer) -> list[int]:
    """Run jobs until every worker of the pool has answered; return their process ids."""
    import anyio

    seen: set[int] = set()

    async def one() -> None:
        seen.add(await pool.call(_bench_jobs.hold, 0.05 if pool.workers < 10 else 0.5))

    with anyio.fail_after(60):
        while len(seen) < pool.workers:
            async with anyio.create_task_group() as group:
                for _ in range(pool.workers):
                    group.start_soon(one)
    return sorted(seen)


async def noop(pool: Peer, jobs: int, window: int) -> Figures:
    """Measure how many jobs a second go through, and what each costs the parent."""
    await pool.burst(_bench_jobs.noop, 500, window)
    started, used = time.perf_counter(), time.process_time()
    await pool.burst(_bench_jobs.noop, jobs, window)
    return {"rate": jobs / (time.perf_counter() - started), "parent_cpu": (time.process_time() - used) / jobs}


async def round_trips(pool: Peer, target: Callable[..., Any], arguments: list[Any]) -> Figures:
    """Measure single jobs, one after the other."""
    times = []
    for argument in [*arguments[:20], *arguments]:  # the first ones warm caches and are not counted
        started = time.perf_counter()
        answer = await pool.call(target, argument)
        times.append(time.perf_counter() - started)
        if answer != argument:
            raise AssertionError("the answer is not what was sent")
    times = sorted(times[min(20, len(arguments)) :])
    return {"p50": statistics.median(times), "p99": times[min(len(times) - 1, int(len(times) * 0.99))]}


def start(peer: str) -> Figures:
    """Measure from making a pool to its first result, in a fresh process; importing the pool is timed by itself."""
    import anyio

    kind = PEERS[peer]
    figures: Figures = {}

    async def inside() -> None:
        began = time.perf_counter()
        pool = kind(1)
        imported = time.perf_counter()
        await pool.open()
        await pool.call(_bench_jobs.noop, 1)
        figures.update(first=time.perf_counter() - imported, imports=imported - began)
        with anyio.move_on_after(3):
            await pool.close()

    anyio.run(inside, backend=kind.backend)
    return figures


async def until_started(path: Path) -> list[int]:
    """Wait until a job has said that it runs; return the process ids it gave."""
    import anyio

    with anyio.fail_after(20):
        while not (pids := _said(path)):  # noqa: ASYNC110  a child of any pool can write a file, but set no event
            await anyio.sleep(0.002)
    return pids


def _said(path: Path) -> list[int]:
    return [int(pid) for pid in path.read_text("ascii").split()] if path.exists() else []


async def next_answer(pool: Peer, bound: float) -> tuple[float | None, int]:
    """Submit jobs until one is answered, making a new pool when the old one is lost; return when, and the failures."""
    import anyio

    failures = 0
    with anyio.move_on_after(bound):
        while True:
            try:
                await pool.call(_bench_jobs.noop, 1)
                return time.perf_counter(), failures
            except Exception as error:
                failures += 1
                if pool.is_fatal(error):
                    await pool.open()
                await anyio.sleep(0.0001)  # a pool that refuses at once must not keep the bound from coming true
    return None, failures


async def crash(pool: Peer, bound: float) -> Figures:
    """Kill the child of a running job; measure until its caller knows and until another job is answered."""
    import anyio

    told: list[float] = []
    known = anyio.Event()

    async def doomed(path: Path) -> None:
        try:
            await pool.call(_bench_jobs.hold, TOO_LONG, str(path))
        except Exception as error:
            told.append(time.perf_counter())
            if pool.is_fatal(error):
                await pool.open()
            known.set()

    with tempfile.TemporaryDirectory() as folder:
        async with anyio.create_task_group() as group:
            group.start_soon(doomed, Path(folder, "started"))
            (pid,) = await until_started(Path(folder, "started"))
            killed = time.perf_counter()
            procs.kill([pid])
            with anyio.move_on_after(bound):
                await known.wait()
            answered, _ = await next_answer(pool, bound)
            group.cancel_scope.cancel()
    return {
        "error": told[0] - killed if told else None,
        "replaced": answered - killed if told and answered else None,
    }


async def crash_with_spare(pool: Peer, bound: float) -> Figures:
    """Kill a child when another one is kept ready; measure until that is in place, and until it has answered."""
    import anyio

    def workers() -> Any:
        supervisor: Any = getattr(pool, "supervisor", None)  # only ours has spares
        return supervisor.statistics().workers

    with anyio.fail_after(bound):
        while all(worker.state != "spare" for worker in workers()):  # noqa: ASYNC110  nothing tells
            await anyio.sleep(0.002)
        pid = await pool.call(_bench_jobs.hold, 0)
        killed = time.perf_counter()
        procs.kill([pid])
        while workers()[0].pid == pid or workers()[0].state != "ready":  # noqa: ASYNC110  nothing tells
            await anyio.sleep(0.0002)
        ready = time.perf_counter()
        answered, _ = await next_answer(pool, bound)
    return {"ready": ready - killed, "replaced": answered - killed if answered else None}


async def neighbours(pool: Peer, bound: float) -> Figures:
    """Kill one of four busy children; count the jobs that fail beside the one that ran in it."""
    import anyio

    failed: list[int] = []

    async def one(number: int, path: Path) -> None:
        try:
            await pool.call(_bench_jobs.hold, 1.0 if number else TOO_LONG, str(path))
        except Exception:
            failed.append(number)

    with tempfile.TemporaryDirectory() as folder, anyio.move_on_after(bound):
        async with anyio.create_task_group() as group:
            paths = [Path(folder, str(number)) for number in range(pool.workers)]
            for number, path in enumerate(paths):
                group.start_soon(one, number, path)
            pids = [await until_started(path) for path in paths]
            procs.kill(pids[0])
            await anyio.sleep(1.5)
            group.cancel_scope.cancel()
    return {"failed": len([number for number in failed if number])}


async def idle_crash(pool: Peer, bound: float) -> Figures:
    """Kill a child that has nothing to do; measure until the next job is answered."""
    pid = await pool.call(_bench_jobs.hold, 0)
    time.sleep(0.05)  # noqa: ASYNC251  the pool must not run while its child dies: the next job is submitted at once
    killed = time.perf_counter()
    procs.kill([pid])
    answered, failures = await next_answer(pool, bound)
    return {"replaced": answered - killed if answered else None, "failed": failures}


async def cancel(pool: Peer, target: Callable[..., Any], bound: float) -> Figures:
    """Cancel a running job; measure until nothing of it is left."""
    import anyio

    returned: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "started")

        async def one() -> None:
            try:
                await pool.call(target, TOO_LONG, str(path))
            finally:
                returned.append(time.perf_counter())

        async with anyio.create_task_group() as group:
            group.start_soon(one)
            child, *helpers = await until_started(path)
            await anyio.sleep(0.05)
            began = time.perf_counter()
            group.cancel_scope.cancel()
    # A pool that reports the end keeps its child; the next job must then be answered by it at once.
    watched = list(helpers) if pool.reports_end and procs.alive(child) else [child, *helpers]
    gone = returned[0]
    while left := [pid for pid in watched if procs.alive(pid)]:
        await anyio.sleep(0.0005)
        gone = time.perf_counter()
        if gone > began + bound:
            procs.kill(left)
            return {"gone": None}
    if child not in watched:
        with anyio.fail_after(0.5):
            await pool.call(_bench_jobs.noop, 1)
    return {"gone": gone - began}


def orphan(peer: str, busy: bool, bound: float) -> Figures:
    """Kill the process that owns a pool; measure how long anything it started lives on."""
    mark = os.environ[procs.MARK] + "-victim"
    request = json.dumps({"line": "victim", "peer": peer, "sizes": {"busy": busy}})
    victim = subprocess.Popen(
        [sys.executable, sys.argv[0], request],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, procs.MARK: mark},
    )
    try:
        assert victim.stdout is not None
        if victim.stdout.readline() != "READY\n":
            raise AssertionError("the victim did not come up")
        others = sorted({*procs.descendants(victim.pid), *procs.marked(mark)} - {victim.pid})
        killed = time.perf_counter()
        victim.kill()
        left = procs.wait_gone(others, bound)
        return {"life": None if left else time.perf_counter() - killed}
    finally:
        victim.kill()
        procs.kill(procs.marked(mark))
        victim.wait()


async def _be_victim(pool: Peer, busy: bool) -> Figures:
    import anyio

    with tempfile.TemporaryDirectory() as folder:
        async with anyio.create_task_group() as group:
            if busy:
                group.start_soon(pool.call, _bench_jobs.hold, TOO_LONG, str(Path(folder, "started")))
                await until_started(Path(folder, "started"))
            print("READY", flush=True)
            await anyio.sleep(TOO_LONG)
    return {}


async def memory(pool: Peer) -> Figures:
    """Compare an idle child with an interpreter that does nothing."""
    import anyio

    (pid,) = await warm(pool)
    await anyio.sleep(0.5)
    with subprocess.Popen(  # noqa: ASYNC220  nothing else runs on this loop
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as bare:
        assert bare.stdout is not None
        bare.stdout.readline()
        floor = procs.uss(bare.pid)
        helpers = [other for other in procs.descendants(os.getpid()) if other not in (pid, bare.pid)]
        figures: Figures = {
            "above": procs.uss(pid) - floor,
            "uss": procs.uss(pid),
            "helpers": sum(procs.uss(other) for other in helpers),
        }
        bare.kill()
    return figures


async def idle(pool: Peer, seconds: float) -> Figures:
    """Measure what children that have nothing to do cost."""
    import anyio

    children = procs.descendants(os.getpid())
    await anyio.sleep(1)
    before, theirs, began = time.process_time(), sum(map(procs.cpu, children)), time.perf_counter()
    await anyio.sleep(seconds)
    after, theirs_after, elapsed = time.process_time(), sum(map(procs.cpu, children)), time.perf_counter() - began
    return {"cpu": 100 * (after - before) / elapsed, "children": 100 * (theirs_after - theirs) / elapsed}


def limit(peer: str, workers: int, rate: float, per: float, seconds: float) -> Figures:
    """Run jobs under one limit in several children; look at when they really ran."""
    from orchestrator import Job, Limit

    bound = Limit("api", rate=rate, per=per)

    async def body(pool: Any) -> Figures:
        job = Job(_bench_jobs.moment, limits={"api": 1})
        async with pool.supervisor.map(job, range(int(rate * seconds / per))) as outcomes:
            times = sorted([outcome.result() async for outcome in outcomes])
        windows = [sum(1 for other in times[at:] if other < began + per) for at, began in enumerate(times)]
        used = (len(times) - 1) / (times[-1] - times[0]) / (rate / per)
        return {"used": 100 * used, "most": max(windows)}

    return run(peer, workers, body, limits=[bound])


def rows(rows: int, workers: int, *, journal: bool = False) -> Figures:
    """Send rows through the command line; sample the parent's memory four times a second."""
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "rows.jsonl"), Path(folder, "outcomes.jsonl")
        with source.open("w", encoding="ascii") as file:
            file.writelines(f"{number}\n" for number in range(rows))
        command = [sys.executable, "-m", "orchestrator", "run", str(source), "--target", "_bench_jobs:noop"]
        command += ["--workers", str(workers), "--progress", "none", "-o", str(result)]
        command += ["--journal", str(Path(folder, "journal"))] if journal else []
        here = str(Path(__file__).parent)
        began = time.perf_counter()
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": here}) as process:
            samples = []
            while process.poll() is None:
                samples.append(procs.rss(process.pid))
                time.sleep(0.25 if rows > 100_000 else 0.05)
        elapsed = time.perf_counter() - began
        with result.open(encoding="utf-8") as file:
            written = sum(1 for line in file if '"succeeded"' in line)
        if process.returncode or written != rows:
            raise AssertionError(f"exit code {process.returncode}, {written} of {rows} rows succeeded")
    settled = samples[max(1, len(samples) // 10) : -1] or samples
    return {"rate": rows / elapsed, "drift": max(settled) - settled[0], "peak": max(samples)}
