"""Find and kill everything a child started.

A kill set starts with the child, the root. A process belongs to it if one of these holds, whatever it is called:

- it descends from a member by its chain of living parents;
- it is in the root's process group, or in a session that a member is or was in (a session is only ever entered by
  descent, so every session of a member except those of this process is the set's own);
- its environment carries the marker of the root's generation (inherited by all that is started, unless they drop it);
- on Windows, it is in the root's Job Object, which `orchestrator._jobobject` describes;
- it was found once, by any of these, and is still the same process.

This process and its ancestors are never members. A process is told from a later one with its number by its start
time; nothing is signalled whose start time differs. Zombies are dead: whoever started them reaps them, never we.
A group or session outlives its leader, and its number stays taken while any member lives; once it was seen empty it is
forgotten. A stranger could only be taken for a member if, between the root's death and the first scan after it, all
the group ended, the number went round and its new owner led a group, started others and ended too.

Cost, on a machine with P processes of which N are younger than the root: `descendants` reads two files for each
descendant and thread, `kill_now` adds three system calls for each; a scan (`members`, each round of `sweep`) reads P
small files, and an environment for each of the N at most once. On Linux a scan of 300 processes takes a few ms.
"""

from __future__ import annotations

import os
import sys
import time

from orchestrator._killset_process import MARKER, Identity, Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from orchestrator._jobobject import JobObject
    from orchestrator._killset_process import System

__all__ = ("MARKER", "Identity", "KillSet", "now")

# A tree is frozen in as many scans as it has processes that start others between two of them: more than one or two
# means a fork bomb, of which each scan stops some; killing begins after this many in any case, and goes on.
_FREEZE_ROUNDS = 20
# The kernel ends a killed process within milliseconds unless it waits for a disk; then look for others this often.
_LOOK_AGAIN = 0.25
# A process that is just starting its program shows no marker: for well below a millisecond, on a busy machine for a
# few. Nobody who shows none for longer is waited for.
_LONGEST_CHANGE = 0.25
_CHANGE_PAUSE = 0.002
# How often a job is looked at that was ended and is not yet empty: ending takes a millisecond or so.
_JOB_PAUSE = 0.002
# Remembered processes are looked over when there are this many, so that a child which starts a million of them one
# after another costs no memory.
_REMEMBERED = 512

_Table = dict[int, Process]

_SYSTEM: System
if sys.platform == "linux":
    from orchestrator._killset_linux import LinuxSystem

    _SYSTEM = LinuxSystem()
else:
    from orchestrator._killset_psutil import PsutilSystem

    _SYSTEM = PsutilSystem()


def now() -> float:
    """Return the time on the clock of `Identity.started`, in seconds; compare it with nothing else."""
    return _SYSTEM.now()


class KillSet:
    """Everything one child started.

    Not thread-safe: one thread at a time. All methods block, for as long as the module says.

    Args:
        pid: The root, right after it was spawned, or later together with `started`.
        marker: Its generation's value of `MARKER`: a word.
        started: When the root started, if that was recorded earlier (by another process, say).
        job_object: What holds the root and all that it starts, on Windows; the kill set closes it.
        system: The operating system; for tests.

    Attributes:
        root: The root's identity.
        job_object: What holds it and all that it starts, on Windows.
    """

    def __init__(
        self,
        pid: int,
        marker: str,
        *,
        started: float | None = None,
        job_object: JobObject | None = None,
        system: System | None = None,
    ) -> None:
        self._system = system or _SYSTEM
        self.job_object = job_object
        self._marker = marker.encode()
        if started is None:
            found = self._system.look(pid)
            # Reaped already: no process can have this identity, but its group and marker may still have members.
            started = self._system.now() if found is None else found.started
        self.root = Identity(pid, started)
        self._remembered = {pid: started}
        self._prune_at = _REMEMBERED
        self._sessions = {pid}
        self._unmarked: dict[int, float] = {}
        self._reaped: int | None = 0  # what the root had heard of ended children when we looked for orphans
        self._changing = False  # whether the last scan saw somebody who may turn out to be a member

    def descendants(self, spare: Collection[int] = ()) -> list[Identity]:
        """Return the living descendants of the root, by walking from parent to child, but not to those in `spare`."""
        root = self._system.look(self.root.pid)
        if root is None or root.identity != self.root:
            return []
        found: dict[int, Process] = {}
        pending = [root.pid]
        while pending:
            parent = pending.pop()
            for pid in self._system.children(parent):
                process = self._system.look(pid)
                # Another parent: it was adopted, or its number changed hands, since the list of children was read.
                if process is not None and process.parent == parent and pid not in found and pid not in spare:
                    found[pid] = process
                    pending.append(pid)
        living = [process.identity for process in found.values() if process.alive]
        self._remembered.update(living)
        if len(self._remembered) > self._prune_at and not self._system.parents_last:
            self._remembered = {pid: at for pid, at in self._remembered.items() if self._exists(Identity(pid, at))}
            self._prune_at = max(_REMEMBERED, 2 * len(self._remembered))
        return living

    def may_have_left(self, moment: float, spare: Collection[int]) -> bool:
        """Return whether something may be there that was started at or after a moment, the root aside.

        Quick where nothing was started. Elsewhere it may be wrong in one way: there may be nothing.

        Args:
            moment: On the clock of `now`.
            spare: Pids that do not count, with their descendants.
        """
        earliest = moment - max(0.02, self._system.tick)
        if any(found.started >= earliest for found in self.descendants(spare)):
            return True
        if self.job_object is not None:
            looks = [self._system.look(pid) for pid in self.job_object.pids() if pid not in spare]
            return any(found is not None and found.started >= earliest for found in looks)
        # No orphan is left by who has had no child: one whose end the root heard of since, or has still to hear of.
        reaped = self._system.reaped(self.root.pid)
        if reaped is None or reaped != self._reaped:
            return True
        looks = [self._system.look(pid) for pid in self._system.children(self.root.pid)]
        return any(found is not None and not found.alive and found.started >= earliest for found in looks)

    def members(self) -> list[Identity]:
        """Return all living members, the root included."""
        return [process.identity for process in self._scan()[0].values()]

    def adopt(self, pid: int) -> None:
        """Put a descendant into the job too: what the root started before it was put in itself is outside.

        Raises:
            OSError: If Windows refuses it.
        """
        if self.job_object is not None:
            self.job_object.assign(pid, lambda: any(found.pid == pid for found in self.descendants()))

    def close(self) -> None:
        """Close the job, if there is one; it may be done again."""
        if self.job_object is not None:
            self.job_object.close()

    def kill_now(self) -> None:
        """Strike the first blow, quickly: kill the root, its group and its descendants; `sweep` finds the others."""
        self.descendants()
        # The group, or the job, first: that is one blow, from which no fork escapes.
        if self.job_object is not None:
            self.job_object.terminate()
        self._system.kill_group(self.root)
        self._system.kill(self.root)
        for pid, started in self._remembered.items():
            self._system.kill(Identity(pid, started))

    def sweep(self, timeout: float) -> tuple[int, ...]:
        """Kill members until none is left, for at most `timeout` seconds, whether the root lives or not.

        Returns:
            The pids that still live: they belong to another user, or wait for a disk.
        """
        return self._empty(lambda members, table: members, timeout, self.job_object)

    def kill_started_since(self, moment: float, keep: Collection[int], timeout: float) -> tuple[int, ...]:
        """Kill what was started at or after a moment; the root is left alone.

        Args:
            moment: On the clock of `now`.
            keep: Pids to leave alone, with their descendants and the sessions and groups that those lead.
            timeout: How long to go on, in seconds.

        Returns:
            The pids that still live.
        """
        earliest = moment - self._system.tick

        def select(members: _Table, table: _Table) -> _Table:
            kept = [table[pid].identity for pid in keep if pid in table and pid != self.root.pid]
            spared = self._closure(kept, table, ())
            return {
                pid: process
                for pid, process in members.items()
                if process.started >= earliest and pid not in spared and process.identity != self.root
            }

        self._reaped = self._system.reaped(self.root.pid)  # before the look: what ends later is looked for next time
        return self._empty(select, timeout)

    def terminate(self) -> None:
        """Ask the root's group to end: SIGTERM; on Windows, which has nothing like it, end the root."""
        self._system.terminate_group(self.root)

    def root_lives(self) -> bool:
        """Return whether the root is still there, perhaps as a zombie that nobody has reaped."""
        return self._exists(self.root)

    # Finding

    def _exists(self, identity: Identity) -> bool:
        """Return whether a process is there, as a zombie perhaps: the sessions that those lead are still theirs."""
        process = self._system.look(identity.pid)
        return process is not None and process.identity == identity

    def _scan(self) -> tuple[_Table, _Table]:
        """Return the living members, and the table of all processes that they were found in."""
        self._changing = False
        table = self._system.table()
        excluded = _ancestry(table)
        foreign = {0, *(table[pid].session for pid in excluded if pid in table)}
        owner = table.get(self.root.pid)
        group = self.root.pid if owner is None or owner.identity == self.root else None
        for session in [*self._sessions]:
            leader = table.get(session)
            if leader is not None and self._remembered.get(session) != leader.started:
                # A leader that we do not know: the session ended, and its number is somebody else's now.
                self._sessions.discard(session)
        youngest = self.root.started - self._system.tick
        dead_too = self._system.parents_last
        fresh = [Identity(pid, at) for pid, at in self._remembered.items() if dead_too or _has(table, pid, at)]
        held = () if self.job_object is None else self.job_object.pids()
        fresh += [table[pid].identity for pid in held if pid in table]
        fresh += [
            process.identity
            for process in table.values()
            if process.group == group or (process.started >= youngest and self._is_marked(process))
        ]
        found: dict[int, float] = {}
        while True:
            # Descent and sessions feed each other until neither adds anybody.
            found.update(self._closure(fresh, table, excluded))
            self._sessions.update(table[pid].session for pid, at in found.items() if _has(table, pid, at))
            self._sessions -= foreign
            fresh = [
                process.identity
                for pid, process in table.items()
                if process.session in self._sessions and pid not in found and pid not in excluded
            ]
            if not fresh:
                break
        # What nobody uses any more may be given to strangers.
        self._sessions &= {process.session for process in table.values()}
        parents = {process.parent for process in table.values()} if dead_too else set()
        self._remembered = {pid: at for pid, at in found.items() if _has(table, pid, at) or pid in parents}
        self._unmarked = {pid: at for pid, at in self._unmarked.items() if _has(table, pid, at)}
        return {pid: table[pid] for pid, at in found.items() if _has(table, pid, at) and table[pid].alive}, table

    def _closure(self, seeds: Iterable[Identity], table: _Table, excluded: Collection[int]) -> dict[int, float]:
        """Return the seeds with all that descends from them, or is in a session or group that one of those leads."""
        followers: dict[Identity, list[Process]] = {}
        for process in table.values():
            parent = self._parent(process, table)
            leaders = [table[pid].identity for pid in (process.session, process.group) if pid in table]
            for identity in leaders if parent is None else [parent, *leaders]:
                followers.setdefault(identity, []).append(process)
        found: dict[int, float] = {}
        pending = [*seeds]
        while pending:
            identity = pending.pop()
            if identity.pid in excluded or found.get(identity.pid) == identity.started:
                continue
            # Of two with the same number, one dead, the living one counts.
            if identity.pid not in found or _has(table, *identity):
                found[identity.pid] = identity.started
            pending += [process.identity for process in followers.get(identity, ())]
        return found

    def _parent(self, process: Process, table: _Table) -> Identity | None:
        owner = table.get(process.parent)
        if not self._system.parents_last:
            return None if owner is None else owner.identity
        # The number may be another's by now: a parent is older than its child.
        latest = process.started + self._system.tick
        if owner is not None and owner.started <= latest:
            return owner.identity
        started = self._remembered.get(process.parent)
        return None if started is None or started > latest else Identity(process.parent, started)

    def _is_marked(self, process: Process) -> bool:
        if not process.alive or self._unmarked.get(process.pid) == process.started:
            return False
        marks = self._system.marks(process)
        if marks is None:
            # Its parent may have been killed while it started it, in a session of its own: the marker is all we have.
            self._changing = self._changing or self._system.is_changing(process)
            return False
        if self._marker in marks:
            return True
        self._unmarked[process.pid] = process.started
        return False

    # Killing

    def _empty(
        self, select: Callable[[_Table, _Table], _Table], timeout: float, job: JobObject | None = None
    ) -> tuple[int, ...]:
        """Kill what `select` chooses of the members until it chooses none, and a job, if given, is empty."""
        end = time.monotonic() + timeout
        patient_until = min(end, time.monotonic() + _LONGEST_CHANGE)
        while True:
            if job is not None:
                self.descendants()  # the last chance to hear of those who are outside the job
                job.terminate()
            victims = self._freeze(select, end)
            held = [] if job is None else job.pids()
            if not victims and not held:
                if not self._changing or time.monotonic() >= patient_until:
                    return ()
                time.sleep(_CHANGE_PAUSE)
                continue
            if self.root.pid in victims:
                self._system.kill_group(self.root)
            for process in victims.values():
                self._system.kill(process.identity)
            until = min(end, time.monotonic() + _LOOK_AGAIN)
            for process in victims.values():
                self._system.wait_gone(process.identity, until - time.monotonic())
            if held:
                # Listed until the kernel has ended them; nothing tells when.
                time.sleep(max(0.0, min(_JOB_PAUSE, until - time.monotonic())))
            if time.monotonic() >= end:
                return tuple(sorted({*select(*self._scan()), *(() if job is None else job.pids())}))

    def _freeze(self, select: Callable[[_Table, _Table], _Table], end: float) -> _Table:
        """Stop what `select` chooses, and look again, until nobody was added: the stopped cannot start any more.

        To kill them as they are found would be to race with those that start others, and to lose the trace of a
        process that a dying one has just started without marker in a session of its own.
        """
        stopped: set[Identity] = set()
        for _ in range(_FREEZE_ROUNDS):
            victims = select(*self._scan())
            fresh = [process.identity for process in victims.values() if process.identity not in stopped]
            if not fresh or self._system.parents_last or time.monotonic() >= end:
                break
            for identity in fresh:
                self._system.stop(identity)
            stopped.update(fresh)
        return victims


def _has(table: _Table, pid: int, started: float) -> bool:
    process = table.get(pid)
    return process is not None and process.started == started


def _ancestry(table: _Table) -> set[int]:
    """Return the pids of this process and its ancestors: they are never to be killed."""
    pid = os.getpid()
    found: set[int] = set()
    while pid not in found:
        found.add(pid)
        process = table.get(pid)
        if process is None:
            break
        pid = process.parent
    return found
