"""The command's work: check what was asked for, open the output, run, with signals and last words on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.exceptions import ConfigurationError
from orchestrator_adapters.publisher._jobs import RETRY
from orchestrator_adapters.publisher._pins import read_pins
from orchestrator_adapters.publisher._profile import load_profile
from orchestrator_adapters.publisher._run import FAILED, INTERRUPTED, Run, RunError, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType
    from typing import TextIO

    from orchestrator_adapters.playwright import ArtifactPolicy, BrowserOptions
    from orchestrator_adapters.publisher._profile import Profile

# Each is a browser: a machine with more of them is a data centre.
_MOST_WORKERS = 64
# What options of a browser are called on the command line, where that is another name.
_OPTIONS = {"endpoint": "--attach"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of the command, as they were given."""

    pins: str
    profile: str
    url: str | None
    proxy: str | None
    workers: int
    dry_run: bool
    timeout: float
    retries: int
    executable: str | None
    headed: bool
    user_data_dir: Path | None
    attach: str | None
    journal: Path | None
    output: Path | None
    artifacts: Path | None
    report: Path | None
    quiet: bool


def run_command(request: Request) -> int:
    """Run the command and return its exit code.

    Raises:
        OrchestratorError: If nothing can be published, saying why.
    """
    _check(request)
    profile = load_profile(request.profile).with_site(url=request.url, proxy=request.proxy)
    missing = [name for name in profile.variables if not os.environ.get(name)]
    if missing and request.user_data_dir is None and request.attach is None:
        names = " and ".join(missing)
        raise RunError(f"{names}: not set in the environment, and {profile.source} logs in with what it has")
    given = [name for name in profile.secrets if os.environ.get(name)]
    rows = list(read_pins(request.pins, profile))
    settings = Settings(
        pins=rows,
        profile=profile,
        browser=_browser(request, profile),
        workers=request.workers,
        dry_run=request.dry_run,
        journal=_journal(request),
        timeout=request.timeout,
        retry=replace(RETRY, attempts=request.retries + 1),
        artifacts=_artifacts(request),
        # Who looks pins up with a browser of its own uses the same one.
        env={} if request.executable is None else {"ORCHESTRATOR_BROWSER": request.executable},
        secrets=tuple(given),
    )
    say = _say_nothing if request.quiet else _say
    with _log_shown(), _output(request.output) as stream:

        def write(row: dict[str, Any]) -> None:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            stream.flush()

        return asyncio.run(_run(settings, write, say, request.report))


async def _run(
    settings: Settings, write: Callable[[dict[str, Any]], None], say: Callable[[str], None], report: Path | None
) -> int:
    run = Run(settings, write, say, keep=report is not None)
    with _interrupts(run.interrupt):
        code = await run.execute()
    if report is not None:
        from orchestrator_adapters.playwright import write_report

        try:
            write_report(report, run.outcomes, title=f"Pins for {settings.profile.url}")
        except OSError as error:
            _say(f"Error: --report: {str(report)!r} cannot be written: {error.strerror or error}.")
            code = code or FAILED
        else:
            say(f"report: {report}")
    return code


def _check(request: Request) -> None:
    if not 1 <= request.workers <= _MOST_WORKERS:
        raise RunError(f"--workers: must be from 1 to {_MOST_WORKERS}, not {request.workers}")
    if not request.timeout > 0:
        raise RunError(f"--timeout: must be greater than 0, not {request.timeout:g}")
    if request.retries < 0:
        raise RunError(f"--retries: must be at least 0, not {request.retries}")
    if request.user_data_dir is not None and request.attach is not None:
        raise RunError("--user-data-dir: contradicts --attach; a browser that runs has its profile open")
    if request.user_data_dir is not None and request.workers > 1:
        raise RunError("--user-data-dir: a profile can be opened by one browser at a time; add --workers 1")
    if request.dry_run and request.journal is not None:
        raise RunError("--journal: has no meaning for --dry-run, which does nothing that could be done twice")
    for option, path in (("--output", request.output), ("--journal", request.journal), ("--report", request.report)):
        if path is None:
            continue
        if path.is_dir() or not path.absolute().parent.is_dir():
            problem = "is a folder" if path.is_dir() else "is in a folder that does not exist"
            raise RunError(f"{option}: {str(path)!r} {problem}; name a file in an existing one")
        if os.path.abspath(path) == os.path.abspath(request.pins):
            raise RunError(f"{option}: {str(path)!r} is the table of pins; name another file")


def _browser(request: Request, profile: Profile) -> BrowserOptions:
    from orchestrator_adapters.playwright import BrowserOptions

    mode = "cdp" if request.attach is not None else "persistent" if request.user_data_dir is not None else "launch"
    options: dict[str, Any] = {"mode": mode, "headless": not request.headed, "downloads": False}
    if request.attach is not None:
        options["endpoint"] = request.attach
    elif request.executable is not None:
        options["executable"] = request.executable
    if request.user_data_dir is not None:
        options["user_data_dir"] = request.user_data_dir
    if profile.proxy is not None:
        options["proxy"] = profile.proxy
    try:
        return BrowserOptions(**options)
    except ConfigurationError as error:
        name = error.field.removeprefix("browser.")
        option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
        raise RunError(f"{option}: {error.args[0].removeprefix(f'{error.field}: ')}") from None


def _journal(request: Request) -> Any:
    from orchestrator import Journal

    # Who was published a year ago must not be published again.
    return None if request.journal is None else Journal(request.journal, keep=None)


def _artifacts(request: Request) -> ArtifactPolicy | None:
    if request.artifacts is None:
        return None
    from orchestrator_adapters.playwright import ArtifactPolicy

    # No trace: it would hold the password that is typed.
    return ArtifactPolicy(folder=request.artifacts, trace="off", screenshot="only-on-failure")


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        stream = path.open("w", encoding="utf-8")
    except OSError as error:
        raise RunError(f"--output: {str(path)!r} cannot be written: {error.strerror or error}") from error
    with stream:
        yield stream


def _say(line: str) -> None:
    # Nobody reads any more: no reason to leave pins half published.
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)  # noqa: T201  a command talks to a person


def _say_nothing(line: str) -> None:
    pass


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        said = getattr(record, "orchestrator", {})
        event = record.getMessage().partition(" ")[0]
        # What becomes of a pin is told with the pin.
        if not event.startswith("job."):
            reason = said.get("reason") or said.get("error") or said.get("text") or ""
            _say(f"{event}: {' '.join(str(reason).split())[:300]}" if reason else event)


@contextlib.contextmanager
def _log_shown() -> Iterator[None]:
    """Show the library's warnings among the lines of the run."""
    logger = logging.getLogger("orchestrator")
    handler = _Lines(logging.WARNING)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


@contextlib.contextmanager
def _interrupts(received: Callable[[int, str], None]) -> Iterator[None]:
    """Count Ctrl-C and SIGTERM while the context is open; the third kills."""
    loop = asyncio.get_running_loop()
    count = 0

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count >= 3:
            # The loop may be what is stuck. Our guardian sees that we are gone, and kills what the children started.
            os._exit(INTERRUPTED)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the run is over
            loop.call_soon_threadsafe(received, count, signal.Signals(number).name)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)
    # A signal that our parent had us ignore, as a shell does with the Ctrl-C of a background command, stays ignored.
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
