"""What running jobs ask of the limits with `child.permit`, and give back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.exceptions import ConfigurationError

if TYPE_CHECKING:
    from orchestrator import _frames
    from orchestrator._attempt import Attempt
    from orchestrator._grant import Grant, Place
    from orchestrator._jobs import Jobs
    from orchestrator._limits import Limits
    from orchestrator._record import Record
    from orchestrator._ticket import TooLate


class Permits:
    """The permits of all running jobs; they belong to the attempt, and go back with its end.

    Args:
        limits: What they come from.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def asked(self, attempt: Attempt, frame: _frames.Acquire) -> None:
        """Ask for a permit on behalf of a job, and answer it when there is one, or none in time."""
        request, worker, record = frame.request, attempt.worker, attempt.record
        wanted = {frame.name: frame.weight}
        wanted.update({f"{frame.name}.{name}": units for name, units in frame.units.items() if units})
        try:
            units = self._limits.check(wanted, "permit")
        except ConfigurationError as error:
            worker.send({"type": "denied", "request": request, "reason": str(error)})
            return
        if attempt.permits is None or attempt.tickets is None:
            attempt.permits, attempt.tickets = {}, {}
        record.target.asks_for_permits = True
        if record.grant is not None:
            # From here on each permit of its own counts. Kept, its place could be the one that these wait for.
            record.grant.leave_place()
        outer = None if frame.inside is None else attempt.permits.get(frame.inside)

        def granted(grant: Grant) -> None:
            if attempt.permits is None or attempt.tickets is None:
                grant.release()  # the attempt ended while it waited
                return
            attempt.tickets.pop(request, None)
            attempt.permits[request] = grant
            grant.limit, grant.outer = frame.name, outer
            answer: dict[str, Any] = {"type": "granted", "request": request}
            if names := self._limits.dimensions(frame.name):
                answer["dimensions"] = names
            worker.send(answer)

        def refused(problem: TooLate | ConfigurationError) -> None:
            ticket = (attempt.tickets or {}).pop(request, None)
            if share is not None if ticket is None else ticket.has_share:
                self._lend(attempt, outer)
            answer = {"type": "denied", "request": request, "reason": str(problem)}
            if not isinstance(problem, ConfigurationError):
                answer["retry_after"] = problem.retry_after
            worker.send(answer)

        share = self._share_of(outer)
        ticket = self._limits.request(
            units,
            granted,
            refused=refused,
            place=share,
            # It would wait for those who wait for what it holds.
            urgent=outer is not None or (record.grant is not None and record.grant.is_of_limits),
            timeout=None if frame.timeout is None else max(0.0, frame.timeout),
        )
        ticket.outer = outer
        if request not in attempt.permits and not ticket.is_over:
            attempt.tickets[request] = ticket

    def given_back(self, attempt: Attempt, frame: _frames.Release) -> None:
        """Take a permit back, or a request for one."""
        ticket = (attempt.tickets or {}).pop(frame.request, None)
        if ticket is not None:
            ticket.cancel()
            if ticket.has_share:
                self._lend(attempt, ticket.outer)
        grant = (attempt.permits or {}).pop(frame.request, None)
        if grant is not None:
            used = {f"{grant.limit}.{name}": units for name, units in frame.used.items() if units >= 0}
            if frame.throttled is None:
                grant.release(used)
            else:
                grant.throttled(max(0.0, frame.throttled), used)
            if grant.has_share:
                self._lend(attempt, grant.outer)

    def _share_of(self, outer: Grant | None) -> Place | None:
        """Return a share of the place of the permit inside which one is asked for: whoever holds that waits for it."""
        if outer is None or outer.place is None or outer.lent:
            return None
        outer.lent = True
        return outer.place.share()

    def _lend(self, attempt: Attempt, outer: Grant | None) -> None:
        """Lend the place of a permit to the next one that was asked for inside it, for the last one is over."""
        if outer is None or outer.place is None:
            return
        outer.lent = False
        for ticket in tuple((attempt.tickets or {}).values()):
            if ticket.outer is outer and ticket.wants_place:
                outer.lent = True
                ticket.share(outer.place)
                return


def settle_unadmitted(jobs: Jobs, record: Record, problem: TooLate | ConfigurationError) -> None:
    """Settle a job that waits: its limits can't be had in time, or never."""
    if isinstance(problem, ConfigurationError):
        jobs.refuse(record, problem)
    else:
        record.retry_after = problem.retry_after
        jobs.expire(record, "queue_timeout")
