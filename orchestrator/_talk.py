"""What running jobs say: progress, items, calls, requests for permits, lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator import _artifacts, _frames
from orchestrator._events import Item, Log, Progress
from orchestrator._permits import Permits
from orchestrator.child._scope import CALLS_AHEAD

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator._attempt import Attempt
    from orchestrator._cache import Cache
    from orchestrator._effects import Effects
    from orchestrator._limits import Limits
    from orchestrator._logs import Logger
    from orchestrator._record import Record
    from orchestrator._worker import Worker

# Names that a log event of ours has already.
# Names that a line's own fields cannot have in the log: ours, and parameters of the logging functions themselves.
_TAKEN = frozenset(
    (
        "event",
        "level",
        "service",
        "text",
        "stream",
        "exc_info",
        "stack_info",
        "supervisor",
        "self",
        "method_name",
        "positional_args",
    )
)


class Talk:
    """Passes on what the jobs of one supervisor say while they run.

    Args:
        limits: What permits come from.
        logger: Where lines go.
        effects: Hears of outside effects.
        cache: Answers what jobs ask of the cache.

    Attributes:
        dropped_lines: Lines that children dropped because there were too many.
    """

    def __init__(self, limits: Limits, logger: Logger, effects: Effects, cache: Cache) -> None:
        self.dropped_lines = 0
        self._bounds_calls = True
        self._permits = Permits(limits)
        self._logger = logger
        self._effects = effects
        self._cache = cache

    def told(self, attempt: Attempt, frame: _frames.Frame) -> None:
        """Act on what a running attempt says."""
        record, listener = attempt.record, attempt.record.listener
        number = record.attempts
        match frame:
            case _frames.Progressed():
                attempt.heard()
                record.progress = Progress(done=frame.done, total=frame.total, text=frame.text, attempt=number)
                listener.event(record, record.progress)
            case _frames.Used():
                record.use(frame.counts)
            case _frames.Emitted():
                if record.target.is_generator and record.gather and not record.read:
                    record.items.append(frame.value)
                else:
                    listener.event(record, Item(value=frame.value, attempt=number), owed=record.read)
                if not record.read:
                    self.credit(record, 1)
            case _frames.Called():
                listener.called(record, frame.index, frame.args, frame.kwargs)
                if not self._bounds_calls or not record.payload.callbacks:
                    self.credit(record, 1, calls=True)
            case _frames.Made():
                _artifacts.named(attempt, frame)
            case _frames.Acquire():
                self._permits.asked(attempt, frame)
            case _frames.Release():
                self._permits.given_back(attempt, frame)
            case _frames.EffectBegin():
                self._effects.begun(attempt, frame)
            case _frames.EffectDone():
                self._effects.done(attempt, frame)
            case _frames.Cache():
                self._cache.heard(attempt, frame)

    def read(self, record: Record) -> None:
        """From here on somebody reads the job's events, and its items wait for that."""
        record.gather = False
        gathered, record.items = record.items, []
        for value in gathered:
            record.listener.event(record, Item(value=value, attempt=record.attempts))
        record.read = True

    def stop_reading(self, record: Record, owed: int) -> None:
        """From here on nobody reads the job's events: it waits for no reader, nor for `owed` items that it has sent."""
        record.read = False
        if owed:
            self.credit(record, owed)

    def let_calls_go(self, records: Iterable[Record]) -> None:
        """Let no job wait for its calls any more: who would make them waits for the job."""
        if self._bounds_calls:
            self._bounds_calls = False
            for record in records:
                if record.payload.callbacks:
                    self.credit(record, CALLS_AHEAD, calls=True)

    def credit(self, record: Record, count: int, *, calls: bool = False) -> None:
        """Let the job send so many items (or calls of callbacks) more."""
        attempt = (record.leader or record).attempt
        if attempt is not None:
            frame: dict[str, Any] = {"type": "credit", "fence": attempt.fence, "n": count}
            attempt.worker.send({**frame, "calls": True} if calls else frame)

    def logged(self, worker: Worker, attempt: Attempt | None, frame: _frames.Logged) -> None:
        """Pass a line on: to the log, and to the reader of its job's events."""
        record = None if attempt is None else attempt.record
        fields: dict[str, Any] = {"worker": worker.name, "generation": worker.generation}
        fields["pid"] = None if worker.child is None else worker.child.pid
        if record is not None:
            fields.update(job=record.id, key=record.job.key, attempt=record.attempts)
            listener = record.listener
            if listener.wants_events:
                listener.event(record, self.event_of(frame, record.attempts))
        self.write(frame, fields)

    @staticmethod
    def event_of(frame: _frames.Logged, attempt: int) -> Log:
        """Return a line as the event that a reader gets."""
        return Log(
            text=frame.text,
            stream=frame.stream,
            level=frame.level,
            logger=frame.logger,
            dropped=frame.dropped,
            fields=frame.fields,
            attempt=attempt,
        )

    def write(self, frame: _frames.Logged, fields: dict[str, Any]) -> None:
        """Log a line of a child; `fields` say whose it is."""
        self.dropped_lines += frame.dropped
        if frame.logger is not None:
            fields["logger"] = frame.logger
        if frame.dropped:
            fields["dropped"] = frame.dropped
        said = {name: value for name, value in frame.fields.items() if name not in fields and name not in _TAKEN}
        self._logger.log("child.line_written", frame.level, stream=frame.stream, text=frame.text, **fields, **said)
