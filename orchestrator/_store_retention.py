"""Forget old jobs a slice at a time, with their files, and give the space back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator._store_payloads import remove_unused

if TYPE_CHECKING:
    from orchestrator._store_file import JournalDatabase

# Jobs of one transaction: a few milliseconds, which is how long commits wait for it.
SLICE = 500
# Pages given back with them: more than their rows had, and few enough to move at once.
_PAGES = 200
_DEFAULT_KEEP = 7 * 86_400.0
_OLD = "id BETWEEN ? AND ? AND settled < ? AND (status <> 'quarantined' OR discarded IS NOT NULL)"

# Numbers and fences are never used again, also when everything that had them is forgotten.
LAST_JOB = "store.last_job"
LAST_FENCE = "store.last_fence"
_MARKS = f"""
INSERT INTO meta SELECT * FROM (
    SELECT '{LAST_JOB}', coalesce(max(id), 0) FROM jobs UNION ALL
    SELECT '{LAST_FENCE}', coalesce(max(fence), 0) FROM attempts
) WHERE true ON CONFLICT DO UPDATE SET value=max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))
"""


class Retention:
    """One walk over the jobs that are older than the bound.

    Jobs have growing numbers and are settled after they were made. So the walk ends at the first slice that was made
    within the bound, and needs no index by time.

    Args:
        database: The journal.
        keep: Seconds for which settled jobs are kept, or None.
        now: Wall clock.
    """

    def __init__(self, database: JournalDatabase, keep: float | None, now: float) -> None:
        self._database = database
        self._bound = None if keep is None else now - keep
        self._births_bound = now - (_DEFAULT_KEEP if keep is None else keep)
        self._place = 0
        self._marked = False
        # Listed before anything is looked at: files that a batch makes meanwhile are not among them.
        self._files = database.payloads.names()

    def step(self) -> bool:
        """Forget one slice; return whether there is more to do.

        Raises:
            sqlite3.Error: If the disk does not take it; the slice is tried again.
        """
        if self._bound is not None and self._slice(self._bound):
            return True
        connection = self._database.connection
        connection.execute("DELETE FROM births WHERE ended < ?", (self._births_bound,))
        connection.execute(
            "DELETE FROM runs WHERE started < ? AND number < (SELECT max(number) FROM runs) "
            "AND id NOT IN (SELECT run FROM births)",
            (self._births_bound,),
        )
        if self._files:
            remove_unused(connection, self._database.payloads, self._files)
        return False

    def _slice(self, bound: float) -> bool:
        connection = self._database.connection
        first = connection.execute("SELECT min(id) FROM jobs WHERE id > ?", (self._place,)).fetchone()[0]
        if first is None:
            return False
        last = first + SLICE - 1
        made = connection.execute("SELECT min(created) FROM jobs WHERE id BETWEEN ? AND ?", (first, last)).fetchone()[0]
        if made >= bound:
            return False
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not self._marked:
                # What is forgotten was settled before the bound, so it is below these.
                connection.execute(_MARKS)
            deleted = connection.execute(f"DELETE FROM jobs WHERE {_OLD}", (first, last, bound)).rowcount
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._place = last
        self._marked = True
        if deleted:
            # A script, for it returns once: the statement alone would return for every page.
            connection.executescript(f"PRAGMA incremental_vacuum({_PAGES})")
        return True
