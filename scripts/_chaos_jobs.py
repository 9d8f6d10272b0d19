"""The jobs of the chaos run: what each kind does, and what it notes of itself before and after."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from orchestrator import child

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator import Job

# In the environment of the host and of all that it starts: where they note what they do.
FOLDER = "ORCHESTRATOR_CHAOS_FOLDER"
# Which run, and which life of its host: everything that it starts has this in its environment, and nobody else has.
TOKEN = "ORCHESTRATOR_CHAOS_LIFE"
# With these a job ends its own child: no injected fault, and no accident.
EXIT_ONCE, EXIT_POISON = 41, 42
# Ignores every request to end, in a session of its own, and holds the pipes of who started it.
_STUBBORN = "trap '' TERM INT HUP; echo $$; exec sleep 1000 >&2"
# Between a bracket's begin and end there must be time to be killed in.
_LONGEST_PAUSE = 0.015
_HANG = 0.3


class Kind(NamedTuple):
    """One kind of job.

    Attributes:
        share: How many of 1,000 jobs are of it.
        ends: The statuses that one of them may end with, when children and hosts are killed at any moment.
        effects: As in `Job`.
        timeout: As in `Job`.
        attempts: Of its retry policy; 1 for none.
    """

    share: int
    ends: frozenset[str]
    effects: str = "pure"
    timeout: float | None = None
    attempts: int = 12


_DONE = frozenset(("succeeded", "quarantined"))  # a job whose child was shot three times is given up
_OUTSIDE = frozenset(("succeeded", "indeterminate", "quarantined"))
KINDS = {
    "pure": Kind(720, _DONE),
    "wait": Kind(80, _DONE),
    "publish": Kind(40, _OUTSIDE, "external"),
    "reconciled": Kind(40, _OUTSIDE, "external"),
    "once": Kind(40, frozenset(("succeeded", "indeterminate")), "at_most_once", attempts=1),
    "fail": Kind(30, frozenset(("failed", "quarantined"))),
    "flood": Kind(10, _DONE),
    "large": Kind(12, _DONE),
    "garbage": Kind(10, _DONE, "idempotent"),
    "stray": Kind(10, _DONE, "idempotent"),
    "hang": Kind(4, frozenset(("timed_out", "quarantined")), "idempotent", timeout=_HANG),
    "leave": Kind(3, frozenset(("crashed", "quarantined")), attempts=1),
    "poison": Kind(1, frozenset(("quarantined",)), attempts=12),
}
assert sum(kind.share for kind in KINDS.values()) == 1000


def plan(seed: int, number: int) -> tuple[str, float]:
    """Return the kind of a job and how long it pauses, the same whenever it is asked."""
    random_ = random.Random(f"{seed}/{number}")
    kind = random_.choices([*KINDS], [each.share for each in KINDS.values()])[0]
    # Half of them do not pause at all: those are sent ahead.
    return kind, random_.choice((0.0, random_.uniform(0, _LONGEST_PAUSE)))


def chance(seed: int, life: int, number: int) -> float:
    """Return a number from 0 to 1 that says what the host does with a job beside waiting for it."""
    return random.Random(f"{seed}/{life}/{number}").random()


def is_cancelled(number: float) -> bool:
    """Return whether the host cancels a job of which `chance` said this."""
    return number > 0.995


def key_of(kind: str, number: int) -> str:
    """Return the key that a job has in the journal."""
    return f"{kind}-{number}"


def make(seed: int, number: int) -> Job:
    """Return one job of the run."""
    from orchestrator import Job, RetryPolicy

    name, pause = plan(seed, number)
    kind = KINDS[name]
    return Job(
        _TARGETS[name],
        args=(number, pause),
        key=key_of(name, number),
        effects=kind.effects,  # type: ignore[arg-type]
        timeout=kind.timeout,
        reconcile=is_published if name == "reconciled" else None,
        retry=RetryPolicy(attempts=kind.attempts, on="crash", backoff=0.02) if kind.attempts > 1 else None,
    )


def note(*words: object) -> None:
    """Add a line to what jobs noted; one write, so that it is there whole or not at all."""
    fd = os.open(os.path.join(os.environ[FOLDER], "notes"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(fd)


def _fence() -> int:
    """Return the fence of this attempt: in the value, it tells which attempt an outcome is of."""
    from orchestrator.child import _scope

    scope = _scope.current()
    return 0 if scope is None else scope.fence


def _begin(kind: str, number: int) -> int:
    fence = _fence()
    note("ran", key_of(kind, number), os.environ[TOKEN].split("/")[1], fence)
    return fence


def pure(number: int, pause: float) -> list[int]:
    """Do nothing, or wait."""
    fence = _begin("pure", number)
    time.sleep(pause)
    return [number, fence]


async def wait(number: int, pause: float) -> list[int]:
    """Wait beside others."""
    import asyncio

    fence = _begin("wait", number)
    await asyncio.sleep(pause)
    return [number, fence]


def publish(number: int, pause: float) -> list[int]:
    """Make one outside effect, whichever attempt this is."""
    return _publish("publish", number, pause)


def reconciled(number: int, pause: float) -> list[int]:
    """The same, and it can be looked up."""
    return _publish("reconciled", number, pause)


def _publish(kind: str, number: int, pause: float) -> list[int]:
    fence = _begin(kind, number)
    effect = child.effect_begin("post")
    if not effect.done:
        time.sleep(pause / 2)
        note("published", key_of(kind, number), fence)
        time.sleep(pause / 2)
        child.effect_done("post", number)
    return [number, fence]


def is_published(key: str | None, number: int, pause: float) -> bool:
    """Look the effect up."""
    with open(os.path.join(os.environ[FOLDER], "notes"), encoding="utf-8") as file:
        return any(line.startswith(f"published reconciled-{number} ") for line in file)


def once(number: int, pause: float) -> list[int]:
    """Must not run twice."""
    fence = _begin("once", number)
    time.sleep(pause)
    return [number, fence]


def fail(number: int, pause: float) -> NoReturn:
    """Raise."""
    _begin("fail", number)
    raise ValueError(f"as planned, of {number}")


def flood(number: int, pause: float) -> list[int]:
    """Write more than anybody reads, everywhere."""
    fence = _begin("flood", number)
    for line in range(2000):
        print(f"{number} {line} {'x' * 80}")
    os.write(2, b"y" * 400_000 + b"\n")
    return [number, fence]


def large(number: int, pause: float) -> list[Any]:
    """Return what does not fit into a row, or not into a line."""
    fence = _begin("large", number)
    return [number, fence, f"{number:07d}" * random.Random(number).randrange(10_000, 200_000)]


def garbage(number: int, pause: float) -> list[int]:
    """Say what no child says, then go on."""
    fence = _begin("garbage", number)
    # For jobs that other children run, that nobody runs, and that are over; not for this one.
    forged = [-1, 0, 10**15, *(fence + step for step in range(-20, 21) if step)]
    lines = b"".join(
        b'{"type":"result","fence":%d,"ms":1.0,"value":"forged"}\n'
        b'{"type":"effect_done","fence":%d,"key":"post","ref":1}\n'
        b'{"type":"returned","asked":[%d],"fences":[%d]}\n' % (each, each, each, each)
        for each in forged
    )
    worse = [b"this is no frame\n", b'{"type":"log","text":"\xff\xfe"}\n', b'{"type":"result"}\n', b"[" * 3000 + b"\n"]
    data = memoryview(lines + worse[number % len(worse)])
    fd = _protocol()
    while data:
        data = data[os.write(fd, data) :]
    return [number, fence]


def stray(number: int, pause: float) -> list[int]:
    """Leave a process behind that will not go."""
    fence = _begin("stray", number)
    _leave_one()
    return [number, fence]


def hang(number: int, pause: float) -> None:
    """Take no hint, with a process beside it that takes none either."""
    _begin("hang", number)
    _leave_one()
    while True:
        try:
            time.sleep(1)
        except BaseException:
            continue


def leave(number: int, pause: float) -> None:
    """End the child."""
    _begin("leave", number)
    os._exit(EXIT_ONCE)


def poison(number: int, pause: float) -> None:
    """End every child that runs this."""
    _begin("poison", number)
    os._exit(EXIT_POISON)


_TARGETS: dict[str, Callable[..., Any]] = {
    "pure": pure,
    "wait": wait,
    "publish": publish,
    "reconciled": reconciled,
    "once": once,
    "fail": fail,
    "flood": flood,
    "large": large,
    "garbage": garbage,
    "stray": stray,
    "hang": hang,
    "leave": leave,
    "poison": poison,
}


def _leave_one() -> None:
    process = subprocess.Popen(["sh", "-c", _STUBBORN], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.returncode = 0  # nobody waits for it: not even the destructor, which would complain


def _protocol() -> int:
    """Return the private copy of fd 1: the last pipe above 2 that can be written and not inherited."""
    if sys.platform == "win32":
        raise NotImplementedError
    import fcntl

    found = []
    for fd in range(3, 64):
        try:
            mode = os.fstat(fd).st_mode
            writes = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)
        except OSError:
            continue
        if (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)) and writes and not os.get_inheritable(fd):
            found.append(fd)
    return found[-1]
