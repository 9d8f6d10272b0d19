"""Turn one record of the input, a job description or a plain row, into a job: pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from orchestrator._models import Job, Limit, RetryPolicy
from orchestrator.cli._options import RunOptions, target_problem
from orchestrator.exceptions import ConfigurationError

JOB_FIELDS = (
    "target",
    "args",
    "kwargs",
    "init",
    "key",
    "timeout",
    "queue_timeout",
    "total_timeout",
    "progress_timeout",
    "retry",
    "limits",
    "priority",
    "effects",
    "reconcile",
)
RETRY_FIELDS = ("attempts", "on", "backoff", "max_backoff", "jitter")


class InvalidLine(Exception):
    """Raised when a record of the input is no job; the message names the field and the remedy."""


# A job, and the arguments it gets: rows of one target share their job, for to make and check one costs more than a row.
Request = tuple[Job, Sequence[Any], Mapping[str, Any]]


class JobBuilder:
    """Builds the jobs of one run.

    Args:
        options: The target of plain rows, and the timeout and the retries of jobs that name none.
    """

    def __init__(self, options: RunOptions) -> None:
        self._target = options.target
        self._limits: Mapping[str, Limit] = {limit.name: limit for limit in options.limits}
        self._defaults: dict[str, Any] = {"timeout": options.timeout, "retry": options.retry}
        if options.target is not None:
            row_options = {**self._defaults, "limits": dict.fromkeys(options.row_limits, 1.0)}
            self._row = Job(options.target, convert="json", **row_options)
            self._cells = Job(options.target, convert="text", **row_options)
        self.columns: list[str] = []

    def build(self, content: bytes | list[str] | InvalidLine) -> Request:
        """Return the job of one record, and its arguments.

        Raises:
            InvalidLine: If the record is no job.
        """
        if isinstance(content, InvalidLine):
            raise content
        if isinstance(content, list):
            return self._from_cells(content)
        try:
            value = msgspec.json.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            reason = str(error).removeprefix("JSON is malformed: ")
            raise InvalidLine(f"the line is not JSON: {reason}") from None
        except RecursionError:
            raise InvalidLine("the line is nested too deeply") from None
        try:
            return self._from_value(value)
        except ConfigurationError as error:
            raise InvalidLine(str(error).removeprefix("job.")) from None

    def _from_cells(self, cells: list[str]) -> Request:
        if len(cells) != len(self.columns):
            raise InvalidLine(f"the row has {len(cells)} cells, the header has {len(self.columns)}")
        return self._cells, (), dict(zip(self.columns, cells, strict=True))

    def _from_value(self, value: Any) -> Request:
        if self._target is None:
            job = self._from_description(value)
            return job, job.args, job.kwargs
        if isinstance(value, dict):
            return self._row, (), value
        return self._row, value if isinstance(value, list) else (value,), {}

    def _from_description(self, value: Any) -> Job:
        if not isinstance(value, dict):
            article = {list: "an array", str: "a string", type(None): "null", bool: "a boolean"}
            kind = article.get(type(value), "a number")
            raise InvalidLine(
                f"a job is a JSON object, not {kind}; for plain rows add --target package.module:function"
            )
        _check_fields(value, JOB_FIELDS, "")
        if not isinstance(value.get("target"), str):
            if "target" in value:
                raise InvalidLine('target: must be a string, "package.module:function"')
            raise InvalidLine(
                "target: is missing; add it, or give plain rows one with --target package.module:function"
            )
        problem = target_problem(value["target"])
        if problem is not None:
            raise InvalidLine(f"target: {problem}")
        # null says the same as leaving the field out, as in the schema.
        fields = {**self._defaults, **{name: field for name, field in value.items() if field is not None}}
        if value.get("retry") is not None:
            fields["retry"] = _retry(value["retry"])
        if fields.get("effects") == "at_most_once" and value.get("retry") is None:
            fields["retry"] = None  # what the command line says is for those that may run twice
        for name in ("kwargs", "init", "limits"):
            if not isinstance(fields.get(name, {}), dict):
                raise InvalidLine(f"{name}: must be an object")
        if not isinstance(fields.get("args", []), list):
            raise InvalidLine("args: must be an array")
        self._check_limits(fields.get("limits", {}))
        return Job(**fields, convert="json")

    def _check_limits(self, units: Mapping[str, Any]) -> None:
        for name in units:
            if name not in self._limits:
                hint = _suggestion(name, list(self._limits)) or f"; define it with --limit {name}=RATE/PER"
                raise InvalidLine(f"limits.{name}: there is no such limit{hint}")


def _retry(value: Any) -> RetryPolicy:
    if not isinstance(value, dict):
        raise InvalidLine('retry: must be an object, such as {"attempts": 3}')
    _check_fields(value, RETRY_FIELDS, "retry.")
    on = value.get("on", "error")
    if not isinstance(on, str) and not (isinstance(on, list) and on and all(isinstance(name, str) for name in on)):
        raise InvalidLine("retry.on: takes error, crash, timeout, any or exception names, one or an array of them")
    if not isinstance(value.get("jitter", True), bool):
        raise InvalidLine("retry.jitter: must be true or false")
    return RetryPolicy(**value)


def _check_fields(value: Mapping[str, Any], known: Sequence[str], prefix: str) -> None:
    for name in value:
        if name not in known:
            hint = _suggestion(name, known) or f"; known are {', '.join(known)}"
            raise InvalidLine(f"{prefix}{name}: is not a field of a job{hint}")


def _suggestion(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
