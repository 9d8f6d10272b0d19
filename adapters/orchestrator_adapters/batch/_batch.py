"""A function over a table, as scripts and the command line start it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_adapters.batch._accounts import Snapshot

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator_adapters.batch._progress import Mode
    from orchestrator_adapters.batch._report import Report


class Batch:
    """Runs a function over every record of a table, in supervised children; the same call again resumes.

    Args:
        target: The handler: a function of one record, or its name as `"package.module:function"`.
        source: A path (`.jsonl`, `.csv`, `.parquet`, each perhaps with `.gz`), `"-"` for stdin, or any iterable or
            async iterable of records.
        sink: A path, `"-"` for stdout, a function of one value, or an object with `write`; None keeps the results in
            the run's journal.
        params: The path of a `params.yaml`, or its content as a mapping.
        name: Of the run: a second one of this name goes on with it. By default made of `sink` and `target`.
        folder: Where runs keep their journals, and the cache its values.
        failed: Where to say which records failed; by default `failed.jsonl` beside the output.
        metrics: Where to write the numbers; by default `metrics.json` beside the output.
        max_failures: Stop when more records than this have failed; up to so many the run counts as a success. By
            default the run goes to its end, and any failure makes the exit code 1.
        classify: A function of an error that returns its failure class, or None for the usual one; or its name.
        secrets: Names of variables that children get over their pipe, or a mapping of names to values or callbacks.
        multiprocessing: Goes before `enabled` in `params`: False runs the records in this process.
        progress: `bar`, `log`, `none`, or `auto` for bars on a terminal and lines elsewhere.
        fresh: Forget what an earlier run of this name did.
        input_format: When the name of the source does not tell.
        output_format: When the name of the sink does not tell.

    Raises:
        BatchError: If something of this is wrong; nothing has been started then.
    """

    def __init__(
        self,
        target: Callable[..., Any] | str,
        source: Any,
        sink: Any = None,
        *,
        params: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        name: str | None = None,
        folder: str | os.PathLike[str] = ".orchestrator",
        failed: str | os.PathLike[str] | None = None,
        metrics: str | os.PathLike[str] | None = None,
        max_failures: int | None = None,
        classify: Callable[..., str | None] | str | None = None,
        secrets: Sequence[str] | Mapping[str, str | Callable[[], str]] = (),
        multiprocessing: bool | None = None,
        progress: Mode = "auto",
        fresh: bool = False,
        input_format: str | None = None,
        output_format: str | None = None,
    ) -> None:
        raise NotImplementedError

    async def run(self) -> Report:
        """Run to the end and return what it came to.

        Cancelling it cancels what runs and leaves nothing behind; the same call goes on later.

        Raises:
            BatchError: If the run cannot begin; its `exit_code` says whether trying again can help.
        """
        raise NotImplementedError

    def run_blocking(self) -> Report:
        """Do what `run` does, from code that is not async; on a thread of its own where an event loop runs."""
        raise NotImplementedError

    def interrupt(self, why: str = "SIGINT") -> None:
        """Stop soon: the first call lets finish what runs, the second cancels it. Any thread, or a signal handler.

        The report has the exit code 130.
        """
        raise NotImplementedError

    def snapshot(self) -> Snapshot:
        """Return where the run is."""
        raise NotImplementedError
