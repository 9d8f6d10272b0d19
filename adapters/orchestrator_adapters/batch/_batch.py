"""A function over a table, as scripts and the command line start it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import threading
from collections.abc import Mapping
from hashlib import blake2b
from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestrator.exceptions import ConfigurationError
from orchestrator_adapters.batch._accounts import Snapshot
from orchestrator_adapters.batch._errors import BatchError
from orchestrator_adapters.batch._exports import check_place
from orchestrator_adapters.batch._log_lines import warnings_shown
from orchestrator_adapters.batch._params import load_params
from orchestrator_adapters.batch._progress import MODES, display_for
from orchestrator_adapters.batch._run import Run, Settings
from orchestrator_adapters.batch._sink import open_sink
from orchestrator_adapters.batch._source import open_source
from orchestrator_adapters.batch._target import check_named, file_hash, label_of
from orchestrator_adapters.batch._work import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from orchestrator_adapters.batch._params import Params
    from orchestrator_adapters.batch._progress import Mode
    from orchestrator_adapters.batch._report import Report
    from orchestrator_adapters.batch._sink import Sink
    from orchestrator_adapters.batch._source import Source

# Ctrl-C is seen between two pieces of a wait.
_PIECE = 0.2


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
        secrets: Names of variables that children get over their pipe, or a mapping of names to values or callbacks;
            beside those that `params` names.
        multiprocessing: Goes before `enabled` in `params`: False runs the records in this process.
        progress: `bar`, `log`, `none`, or `auto` for bars on a terminal and lines elsewhere.
        fresh: Forget what an earlier run of this name did.
        input_format: When the name of the source does not tell.
        output_format: When the name of the sink does not tell.

    Attributes:
        command: What to type to go on with the run; `orchestrator batch status` tells it.

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
        if not callable(target) and not (isinstance(target, str) and ":" in target):
            raise BatchError(f"the target is a function or its name, 'package.module:function', not {target!r}")
        if max_failures is not None and (
            isinstance(max_failures, bool) or not isinstance(max_failures, int) or max_failures < 0
        ):
            raise BatchError(f"max_failures is a whole number of at least 0, not {max_failures!r}")
        if progress not in MODES:
            raise BatchError(f"progress is one of {', '.join(MODES)}, not {progress!r}")
        self._target = target
        self._source = source
        self._sink = sink
        self._params = params
        self._name = name
        self._folder = os.path.abspath(folder)
        self._failed = failed
        self._metrics = metrics
        self._max_failures = max_failures
        self._classify = classify
        self._secrets = secrets
        self._multiprocessing = multiprocessing
        self._progress = progress
        self._fresh = fresh
        self._formats = input_format, output_format
        self._run: Run | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._interrupts: list[str] = []
        self.command: str | None = None

    @property
    def name(self) -> str:
        """What the run is called: its folder is `<folder>/batch/<name>`."""
        return self._name or run_name(self._target, self._source, self._sink, self._folder)

    async def run(self) -> Report:
        """Run to the end and return what it came to.

        Cancelling it cancels what runs and leaves nothing behind; the same call goes on later.

        Raises:
            BatchError: If the run cannot begin; its `exit_code` says whether trying again can help.
        """
        body = asyncio.create_task(self._execute(), name="orchestrator batch")
        try:
            return await asyncio.shield(body)
        except asyncio.CancelledError:
            # What the run owns is put away before anybody hears of the end, however often we are told to hurry.
            body.cancel()
            while not body.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([body])
            if not body.cancelled():
                body.exception()
            raise

    async def _execute(self) -> Report:
        if self._run is not None:
            raise BatchError("this batch was run already; make a new one to run it again")
        if isinstance(self._target, str):
            check_named(self._target)
        params = load_params(self._params)
        source = open_source(self._source, format=self._formats[0])
        sink = open_sink(self._sink, format=self._formats[1], source=source)
        settings = self._settings(params, source, sink)
        display = display_for(self._progress, self.snapshot)
        self._loop = asyncio.get_running_loop()
        self._run = run = Run(settings, source, sink, display.say)
        async with display:
            for warning in params.warnings:
                display.say(f"warning: {warning}")
            for why in self._interrupts:
                run.interrupt(why)
            try:
                with warnings_shown():
                    return await run.execute()
            except ConfigurationError as error:
                raise BatchError(str(error)) from error

    def _settings(self, params: Params, source: Source, sink: Sink) -> Settings:
        name = self.name
        if not name or name in (".", "..") or not name.isprintable() or any(each in name for each in "/\\:"):
            raise BatchError(f"name {name!r} cannot be that of a folder")
        folder = os.path.join(self._folder, "batch", name)
        beside = folder if sink.path is None else os.path.dirname(os.path.abspath(sink.path))
        in_children = params.multiprocessing.enabled if self._multiprocessing is None else self._multiprocessing
        secrets = all_secrets(self._secrets, params.multiprocessing.secrets)
        settings = Settings(
            name=name,
            folder=folder,
            plan=Plan(self._target, params, in_children, secrets, os.path.join(self._folder, "cache.db")),
            facts={
                "target": label_of(self._target),
                "params": params.other,
                "handler": file_hash(self._target),
                "source": source.name,
                "output": sink.path,
                "command": self.command,
            },
            failed=os.path.abspath(self._failed or os.path.join(beside, "failed.jsonl")),
            failed_always=self._failed is not None,
            metrics=os.path.abspath(self._metrics or os.path.join(beside, "metrics.json")),
            max_failures=self._max_failures,
            classify=self._loaded_classify(),
            fresh=self._fresh,
        )
        _check_files(settings, source, sink)
        # What was asked for by name; the others are beside the output, which is checked by itself.
        for what, given, path in (
            ("failed", self._failed, settings.failed),
            ("metrics", self._metrics, settings.metrics),
        ):
            if given is not None:
                check_place(what, path)
        return settings

    def _loaded_classify(self) -> Callable[[Any], str | None] | None:
        named = self._classify
        if not isinstance(named, str):
            return named
        module, _, path = named.partition(":")
        try:
            found: Any = import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
        except Exception as error:
            raise BatchError(f"classify {named!r} cannot be imported: {type(error).__name__}: {error}") from error
        if not callable(found):
            raise BatchError(f"classify {named!r} is no function")
        return found  # type: ignore[no-any-return]

    def run_blocking(self) -> Report:
        """Do what `run` does, from code that is not async; on a thread of its own where an event loop runs."""
        if asyncio._get_running_loop() is None and "trio" not in sys.modules:
            return asyncio.run(self.run())
        return _on_a_thread(self.run)

    def interrupt(self, why: str = "SIGINT") -> None:
        """Stop soon: the first call lets finish what runs, the second cancels it. Any thread, or a signal handler.

        The report has the exit code 130.
        """
        run, loop = self._run, self._loop
        if run is None or loop is None:
            self._interrupts.append(why)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: the run is over
            loop.call_soon_threadsafe(run.interrupt, why)

    def snapshot(self) -> Snapshot:
        """Return where the run is."""
        return Snapshot() if self._run is None else self._run.snapshot()


def all_secrets(
    given: Sequence[str] | Mapping[str, str | Callable[[], str]], named: Sequence[str]
) -> Sequence[str] | Mapping[str, str | Callable[[], str]]:
    """Return the secrets of the caller and those that the params name."""
    if not isinstance(given, Mapping):
        return tuple(dict.fromkeys((*named, *given)))
    missing = [name for name in named if name not in given and name not in os.environ]
    if missing:
        raise BatchError(f"secrets: the environment variable {missing[0]} is not set; set it, or do not name it")
    return {**{name: os.environ[name] for name in named if name not in given}, **given}


def run_name(target: Callable[..., Any] | str, source: Any, sink: Any, folder: str) -> str:
    """Return the name of a run: what it makes, or what it is made of, with a few digits that tell alike names apart."""
    if isinstance(sink, str | os.PathLike) and os.fspath(sink) != "-":
        path = os.fspath(sink)
        shown, told = os.path.basename(path).partition(".")[0], _place(path, folder)
    else:
        label = label_of(target)
        shown = label.rpartition(":")[2].rpartition(".")[2]
        told = f"{label} {_place(os.fspath(source), folder) if isinstance(source, str | os.PathLike) else ''}"
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", shown).strip("-")[:40] or "batch"
    return f"{slug}-{blake2b(told.encode(), digest_size=3).hexdigest()}"


def _place(path: str, folder: str) -> str:
    """Return where a file is, seen from the folder of the project, so that a project may move."""
    try:
        return os.path.relpath(path, os.path.dirname(folder)).replace(os.sep, "/")
    except ValueError:  # on another drive
        return os.path.abspath(path)


def _check_files(settings: Settings, source: Source, sink: Sink) -> None:
    """Hold that the files a run writes are different ones, and that none of them is its input."""
    taken: dict[str, str] = {}
    for what, path in (
        ("the input", source.path),
        ("the output", sink.path),
        ("failed", settings.failed),
        ("metrics", settings.metrics),
    ):
        if path is None:
            continue
        real = os.path.normcase(os.path.realpath(path))
        if real in taken:
            raise BatchError(f"{what} would be written to {path!r}, which is {taken[real]}; name another file")
        if os.path.isdir(real):
            raise BatchError(f"{what}: {path!r} is a folder; name a file")
        taken[real] = what


def _on_a_thread(run: Callable[[], Coroutine[Any, Any, Report]]) -> Report:
    """Run a coroutine function on a thread with a loop of its own, and wait so that Ctrl-C ends it."""
    loop: asyncio.AbstractEventLoop | None = None
    task: asyncio.Task[Report] | None = None
    started, ended = threading.Event(), threading.Event()
    result: list[Report] = []
    problem: list[BaseException] = []

    async def main() -> Report:
        nonlocal loop, task
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        started.set()
        return await run()

    def work() -> None:
        try:
            result.append(asyncio.run(main()))
        except BaseException as error:
            problem.append(error)
        finally:
            started.set()
            ended.set()

    thread = threading.Thread(target=work, name="orchestrator batch")
    thread.start()
    try:
        # In pieces: on Windows Ctrl-C does not end a wait for a lock.
        while not ended.wait(_PIECE):
            pass
    except BaseException:
        started.wait()
        if loop is not None and task is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        thread.join()
    if problem:
        raise problem[0]
    return result[0]
