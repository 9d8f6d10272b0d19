"""What must hold after the chaos run: read from the journal, from what jobs noted, and from what the host was told."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import _chaos_jobs
from _chaos_host import digest
from _chaos_jobs import EXIT_ONCE, EXIT_POISON, KINDS

from orchestrator._store_file import open_journal
from orchestrator._store_payloads import outsourced

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from _chaos_faults import Strikes

# What jobs do to their own children, beside exiting with a code of theirs.
_REASONS = ("timeout", "cancelled", "protocol")
# None of these may ever be logged.
_NEVER = (
    "worker.frames_mishandled",
    "supervisor.failed",
    "supervisor.cancel_took_long",
    "worker.kill_failed",
    "child.survived",
    "journal.closed_unwritten",
)
MB = 2**20
# Of one life, once it is warm (caches are full, and the first large results have come): what is no leak for sure, for
# the heap breathes with large results; and the descriptors that come and go with children.
GROWTH = 5 * MB
_PER = 10_000
_DESCRIPTORS = 4
_WARM = 2_000
# A shorter life says nothing.
_LEAST_JOBS = 5_000
_SHOWN = 3


class Check(NamedTuple):
    """One thing that must hold."""

    holds: bool
    text: str


class Stored(NamedTuple):
    """One job of the journal."""

    key: str
    id: int
    status: str | None
    value: Any
    digest: str
    deaths: int


class Told(NamedTuple):
    """One outcome that a host was told."""

    key: str
    status: str
    digest: str
    id: int
    life: int


class Books:
    """All that was written down in one run.

    Args:
        folder: The run's.
        seed: The run's.
        lives: How many the host had.
    """

    def __init__(self, folder: Path, seed: int, lives: int) -> None:
        self.seed, self.lives = seed, lives
        self.told = [Told(*line[:5]) for line in _lines(folder / "told")]
        self.accepted = [line for line in _lines(folder / "accepted") if line[0] != "refused"]
        self.vitals = [*_lines(folder / "vitals")]
        self.events = [*_lines(folder / "events")]
        self.stderr = (folder / "stderr").read_text("utf-8", "replace")
        self.ran: dict[str, list[tuple[int, int]]] = defaultdict(list)  # by key: life and fence
        self.published: Counter[str] = Counter()
        for line in (folder / "notes").read_text("utf-8").splitlines():
            what, key, *rest = line.split()
            if what == "ran":
                self.ran[key].append((int(rest[0]), int(rest[1])))
            else:
                self.published[key] += 1
        self.attempts: dict[int, list[tuple[int, str, str | None]]] = defaultdict(list)
        database = open_journal(str(folder / "journal"), "power", create=False)
        try:
            read = database.connection.execute
            self.jobs: dict[int, Stored] = {}
            # A cancelled job gives its key away: there may be another one of that key, and only then.
            self.by_key: dict[str, list[Stored]] = defaultdict(list)
            for number, key, status, value, deaths, files in read(
                "SELECT id, key, status, value, deaths, files FROM jobs ORDER BY id"
            ).fetchall():
                if files is not None:
                    (value,) = outsourced(database.payloads, files, value=value)
                found = None if value is None else json.loads(value)
                self.jobs[number] = job = Stored(key, number, status, found, digest(found), deaths)
                self.by_key[key].append(job)
            self.rows = read("SELECT count(*) FROM jobs").fetchone()[0]
            for job, fence, state, outcome in read(
                "SELECT job, fence, state, outcome FROM attempts ORDER BY job, fence"
            ).fetchall():
                self.attempts[job].append((fence, state, outcome))
            self.births = read("SELECT count(*) FROM births").fetchone()[0]
            self.unburied = read("SELECT count(*) FROM births WHERE ended IS NULL").fetchone()[0]
        finally:
            database.close()


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def check(books: Books, strikes: Strikes) -> list[Check]:
    """Return what was looked at, and whether it held."""
    return [
        *_conservation(books),
        *_outcomes(books),
        *_effects(books),
        *_executions(books),
        *_children(books, strikes),
        *_size(books),
    ]


def _none(found: Iterable[str], held: str, broken: str) -> Check:
    wrong = [*found]
    if not wrong:
        return Check(True, held)
    shown = ", ".join(wrong[:_SHOWN]) + (", …" if len(wrong) > _SHOWN else "")
    return Check(False, f"{len(wrong)} {broken}: {shown}")


def _conservation(books: Books) -> Iterator[Check]:
    statuses = Counter(job.status or "open" for job in books.jobs.values())
    text = " + ".join(f"{count:,} {status}" for status, count in statuses.most_common())
    yield Check(
        sum(statuses.values()) == books.rows and not statuses["open"],
        f"{books.rows:,} jobs accepted = {text} + {statuses['open']} open",
    )
    missing = {line[0] for line in books.accepted} - books.by_key.keys()
    twice = [key for key, jobs in books.by_key.items() if any(job.status != "cancelled" for job in jobs[:-1])]
    yield _none(twice, f"{len(books.by_key):,} keys have one job each, unless it was cancelled", "keys have two jobs")
    yield _none(missing, f"every one of {len(books.accepted):,} acknowledged submits is there", "submits were lost")


def _outcomes(books: Books) -> Iterator[Check]:
    changed = []
    for told in books.told:
        stored = books.jobs.get(told.id)
        if stored is None or (told.key, told.status, told.digest) != (stored.key, stored.status, stored.digest):
            changed.append(f"{told.key} told {told.status} in life {told.life}, journal {stored and stored.status}")
    again = len(books.told) - len({told.id for told in books.told})
    yield _none(
        changed,
        f"{len(books.told):,} outcomes were told, {again:,} of them again, and all are what the journal has",
        "outcomes were changed or lost",
    )
    yield _none(
        _unexpected(books), "every job ended as its kind may end, with its own value", "jobs ended as they may not"
    )
    yield _none(_stale(books), "every value is that of the job's last lease", "values are of a lease that had ended")


def _unexpected(books: Books) -> Iterator[str]:
    for job in books.jobs.values():
        key = job.key
        name, _, number = key.partition("-")
        cancelled = any(
            _chaos_jobs.is_cancelled(_chaos_jobs.chance(books.seed, life, int(number)))
            for life in range(1, books.lives + 1)
        )
        allowed = KINDS[name].ends | ({"cancelled", "indeterminate"} if cancelled else set())
        if job.status not in allowed or (job.status == "quarantined" and job.deaths != 3):
            yield f"{key} {job.status} after {job.deaths} deaths"
        elif job.status == "succeeded" and job.value[0] != int(number):
            yield f"{key} with the value {job.value!r:.60}"


def _stale(books: Books) -> Iterator[str]:
    for job in books.jobs.values():
        if job.status == "succeeded":
            last = books.attempts[job.id][-1] if books.attempts[job.id] else None
            if last != (job.value[1], "ended", "succeeded"):
                yield f"{job.key} has fence {job.value[1]}, its last attempt {last}"


def _effects(books: Books) -> Iterator[Check]:
    twice = [key for key, count in books.published.items() if count > len(books.by_key[key])]
    never = [
        job.key
        for job in books.jobs.values()
        if job.key.startswith(("publish-", "reconciled-"))
        and job.status == "succeeded"
        and not books.published[job.key]
    ]
    made = sum(books.published.values())
    yield _none([*twice, *never], f"{made:,} outside effects were made, each once", "effects were made twice or never")
    once = [key for key, lives in books.ran.items() if key.startswith("once-") and len(lives) > len(books.by_key[key])]
    count = sum(key.startswith("once-") for key in books.ran)
    yield _none(once, f"{count:,} at_most_once jobs ran, each once", "at_most_once jobs ran twice")


def _executions(books: Books) -> Iterator[Check]:
    told_in: dict[str, int] = {}
    for told in reversed(books.told):
        told_in[told.key] = told.life
    wrong, repeated, total = [], 0, 0
    for key, ran in books.ran.items():
        jobs = books.by_key[key]
        begun = sum(state != "returned" for job in jobs for _, state, _ in books.attempts[job.id])
        lost = books.lives - 1  # with its host, a lease may be lost that the journal did not know yet
        repeated += len(ran) - 1
        total += len(ran)
        if len(set(ran)) < len(ran):
            wrong.append(f"{key} ran twice with one lease")
        elif len(ran) > begun + lost:
            wrong.append(f"{key} ran {len(ran)} times for {begun} attempts")
        elif len(jobs) == 1 and max(ran)[0] > told_in.get(key, books.lives):
            wrong.append(f"{key} ran in life {max(ran)[0]}, its outcome was told in life {told_in[key]}")
        elif key.startswith("poison-") and len(ran) > 3 * len(jobs) + lost:
            wrong.append(f"{key} ran {len(ran)} times")
    yield _none(
        wrong,
        f"{total:,} executions, {repeated:,} of them repeated: none without a new lease, none after its outcome",
        "jobs ran more often than they may",
    )


def _children(books: Books, strikes: Strikes) -> Iterator[Check]:
    died = [event for event in books.events if event["event"] == "worker.child_died"]
    strange = [
        f"child {event['pid']} {event['reason']} {event['exit_code'] or event['signal']}"
        for event in died
        if event["pid"] not in strikes.struck
        and event["reason"] not in _REASONS
        and event["exit_code"] not in (EXIT_ONCE, EXIT_POISON)
    ]
    yield _none(strange, f"{len(died):,} children died, every one for a known reason", "children died of nothing known")
    yield Check(
        not books.unburied, f"{books.births:,} children are in the journal, {books.unburied} of them without an end"
    )
    bad = Counter(event["event"] for event in books.events if event["event"] in _NEVER)
    yield _none(bad, "nothing was logged that says that a promise was broken", "kinds of log events say of a bug")
    complaints = [line for line in books.stderr.splitlines() if line.startswith(("Traceback", "Fatal", "Exception"))]
    yield _none(complaints, "no host wrote an exception to stderr", "exceptions were written to stderr")


def _size(books: Books) -> Iterator[Check]:
    lives: dict[int, list[list[Any]]] = defaultdict(list)
    for line in books.vitals:
        if line[0] == "alive":
            lives[line[2]].append(line)
    longest = max(lives.values(), key=lambda each: each[-1][3], default=[])
    warm = [line for line in longest if line[3] >= _WARM]
    quarter = max(1, len(warm) // 4)
    first, last = warm[:quarter], warm[-quarter:]
    jobs = int(median(line[3] for line in last) - median(line[3] for line in first)) if warm else 0
    if jobs < _LEAST_JOBS:
        yield Check(True, "memory and descriptors: not judged, no life of the host was long enough")
        return
    growth = median(line[4] for line in last) - median(line[4] for line in first)
    most_growth = GROWTH * max(1.0, jobs / _PER)
    yield Check(
        growth < most_growth,
        f"the longest life grew by {growth / MB:.1f} MiB in {jobs:,} jobs (at most {most_growth / MB:.1f}), "
        f"beside {longest[-1][6] / MB:.1f} MiB of the journal's pages",
    )
    grown = min(line[5] for line in last) - min(line[5] for line in first)
    most = max(line[5] for line in longest)
    yield Check(grown <= _DESCRIPTORS, f"and by {grown} file descriptors, of which it had {most} at most")


def note_recoveries(books: Books, strikes: Strikes) -> None:
    """Add what the host's own log tells: until a killed child's worker had another one that was ready, say."""
    waiting: dict[tuple[int, str], float] = {}
    for event in books.events:
        place = event["life"], event.get("worker", "")
        match event["event"]:
            case "worker.child_died" if event["pid"] in strikes.struck:
                waiting[place] = strikes.struck[event["pid"]]
            case "worker.child_ready" if place in waiting:
                strikes.tallies["child killed"].recoveries.append(event["at"] - waiting.pop(place))
            case "journal.stalled":
                strikes.count("disk refused a commit")
                waiting[place] = event["at"]
            case "journal.recovered" if place in waiting:
                strikes.tallies["disk refused a commit"].recoveries.append(event["at"] - waiting.pop(place))
