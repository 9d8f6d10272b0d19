"""The evidence of one attempt as far as it is files: what both APIs of Playwright share."""

from __future__ import annotations

import contextvars
import os
import time
from contextlib import suppress
from pathlib import Path  # noqa: TC003  whoever asks for type hints must get them
from typing import Any

from orchestrator import child
from orchestrator_adapters.playwright import _ffmpeg, _folders, _traces
from orchestrator_adapters.playwright._console import Console
from orchestrator_adapters.playwright._live import Live
from orchestrator_adapters.playwright._policy import ArtifactPolicy
from orchestrator_adapters.playwright._retention import MEGABYTE, keeps, pictures, records, too_much

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.child import Call

DAY = 86_400.0
# Seconds that evidence may take in all, by what ended the attempt. Who cancels waits for it; after a timeout the child
# is killed when the grace (2 s by default) is over, and a warm browser is worth more than a picture.
HURRIED = {"cancel": 0.5, "timeout": 0.8}
PICTURES_DEADLINE = 2.0
TRACE_DEADLINE = 10.0
START_DEADLINE = 10.0
# A job that opened a hundred tabs; and the budget is for all pages together.
MOST_PICTURES = 10
# Whoever cancels does not wait until more than this is packed; the trace stays as it was written, which can be opened.
MOST_PACKED_IN_A_HURRY = 5 * MEGABYTE

_pruners: dict[tuple[str, float, float], _folders.Pruner] = {}


class AttemptEvidence:
    """What is recorded of one attempt, and where.

    Args:
        options: An `ArtifactPolicy` as `to_json` gave it.
        call: The attempt.

    Raises:
        LaunchFailed: A video is to be recorded, and there is no ffmpeg.
    """

    def __init__(self, options: dict[str, Any], call: Call) -> None:
        self._policy = policy = ArtifactPolicy.from_json(options)
        self._call = call
        self._attempt = call.attempt
        self._name: str = call.key or str(getattr(call.function, "__name__", "job"))
        self._started = time.time()
        self._folder: Path | None = None
        self._console: Console | None = None
        self._live: Live | None = None
        self._pages: list[Any] = []
        self._traced = records(policy.trace, call.attempt)
        self._filmed = records(policy.video, call.attempt)
        self._claimed: Path | None = None
        self._own = True
        self._stopped = False
        self._trace_name = f"{call.job}-{call.attempt}"
        # Playwright calls listeners in contexts of its own, in which it would not be known whose job this is.
        self._context = contextvars.copy_context()
        if self._filmed:
            _ffmpeg.require()
        if policy.leaves_nothing:
            return
        self._pruner.prune()
        full = (self._traced or self._filmed) and self._pruner.full
        if full:
            self._traced = self._filmed = False
        folder = self.folder
        if policy.console != "off":
            self._console = Console(folder / "console.jsonl")
        if policy.live is not None:
            self._live = Live(folder / "live.jpg", policy.live, self._tell)
        if full:
            self._note(f"no trace or video: this run left more than {policy.max_total_mb:g} MB in {policy.folder}")

    @property
    def folder(self) -> Path:
        """The attempt's folder, made at first use; what else is put there is kept, and is the job's artefact."""
        if self._folder is None:
            self._folder = _folders.make(str(self._policy.folder), self._name, self._call.job, self._attempt)
            self._mark()
            child.artifact(self._folder)
        return self._folder

    def launch_options(self) -> dict[str, Any]:
        """Return what browsers are launched with; the same for all attempts in this process."""
        return {"traces_dir": str(_traces.launch_folder())}

    def context_options(self) -> dict[str, Any]:
        """Return what the attempt's context is made with."""
        return {"record_video_dir": str(self.folder / "video")} if self._filmed else {}

    @property
    def _pruner(self) -> _folders.Pruner:
        policy = self._policy
        folder = os.path.abspath(policy.folder)
        key = (folder, policy.max_total_mb * MEGABYTE, policy.max_age_days * DAY)
        if key not in _pruners:
            _pruners[key] = _folders.Pruner(*key)
        return _pruners[key]

    def _listen(self, context: Any, own: bool) -> None:
        """Hear what the context tells, and know its pages; in a context that is not ours, only those named later."""
        self._own = own
        if not own:
            self._traced = False  # it would record somebody's other tabs
        else:
            if self._console is not None:
                self._console.listen(context, is_context=True)
            for page in context.pages:
                self._know(page)
            context.on("page", self._know)

    def _know(self, page: Any) -> None:
        if any(page is known for known in self._pages):
            return
        self._pages.append(page)
        if self._console is not None:
            self._console.listen_for_crash(page)
            if not self._own:
                self._console.listen(page, is_context=False)
        if not self._own:
            page.on("popup", self._know)
        if self._live is not None:
            self._live.show(page)

    def _note(self, text: str) -> None:
        if self._console is not None:
            self._console.note(text)

    def _tell(self, path: Path) -> None:
        self._context.copy().run(child.artifact, path, path.name)

    def _mark(self, **facts: Any) -> None:
        assert self._folder is not None
        call = self._call
        target = f"{getattr(call.function, '__module__', '')}:{getattr(call.function, '__qualname__', '')}"
        _folders.mark(
            self._folder,
            job=call.job,
            key=call.key,
            attempt=self._attempt,
            target=target,
            started=self._started,
            **facts,
        )

    def _trace_options(self) -> dict[str, Any]:
        """Claim the place for the trace; return how to start it."""
        self._claimed = self.folder / "trace"
        _traces.claim(self._trace_name, self._claimed)
        title = f"{self._name}, job {self._call.job}, attempt {self._attempt}"
        return {"name": self._trace_name, "title": title, "screenshots": True, "snapshots": True, "sources": True}

    def _keeps_trace(self, failed: bool) -> bool:
        return self._claimed is not None and keeps(self._policy.trace, self._attempt, failed)

    def _budget(self, ended_by: str | None) -> tuple[float, float]:
        """Return the seconds for pictures, and for all."""
        if ended_by in HURRIED:
            return HURRIED[ended_by] / 2, HURRIED[ended_by]
        return PICTURES_DEADLINE, PICTURES_DEADLINE + TRACE_DEADLINE

    def _picture_plan(self, failed: bool) -> list[tuple[Any, Path]]:
        """Return of which pages to take a picture, and where it goes."""
        if not pictures(self._policy.screenshot, self._attempt, failed):
            return []
        pages = [page for page in self._pages if not page.is_closed()][-MOST_PICTURES:]
        return [(page, self.folder / f"screenshot-{number}.png") for number, page in enumerate(pages, 1)]

    def _settle(self, error: BaseException | None, ended_by: str | None) -> None:
        """Keep or remove what lies in the folder, now that nobody writes there any more."""
        failed = error is not None
        if self._live is not None:
            self._live.end()
        if self._claimed is not None:
            self._settle_trace(failed, ended_by)
        folder = self._folder
        if folder is not None:
            self._settle_video(folder, failed)
            with suppress(OSError):
                (folder / "live.jpg").unlink(missing_ok=True)
        if self._console is not None:
            self._console.close()
            if self._policy.console == "retain-on-failure" and not failed:
                with suppress(OSError):
                    self._console.path.unlink(missing_ok=True)
        if folder is not None:
            self._settle_folder(folder, error, ended_by)

    def _settle_trace(self, failed: bool, ended_by: str | None) -> None:
        claimed, self._claimed = self._claimed, None
        assert claimed is not None
        keep = keeps(self._policy.trace, self._attempt, failed)
        packed = self._stopped or not keep
        if not packed:
            # The browser or the driver is gone, or had no time to finish: what it wrote so far is a trace all the same.
            place = _traces.place()
            in_a_hurry = ended_by in HURRIED and _folders.size_of(place) > MOST_PACKED_IN_A_HURRY
            if not in_a_hurry:
                with suppress(OSError):
                    _traces.pack_trace(place, self.folder / "trace.zip", name=self._trace_name)
                    packed = True
        _traces.release(self._trace_name, claimed, self._aside, keep=not packed)

    def _aside(self) -> Path:
        """Make a folder for traces of others that were recorded in this attempt's; it is pruned as all others are."""
        folder = _folders.make(str(self._policy.folder), f"side-by-side-{os.getpid()}", self._call.job, self._attempt)
        _folders.mark(folder, started=time.time())
        return folder

    def _settle_video(self, folder: Path, failed: bool) -> None:
        recorded = folder / "video"
        if not self._filmed or not recorded.is_dir():
            return
        with suppress(OSError):
            if keeps(self._policy.video, self._attempt, failed):
                files = sorted(recorded.glob("*.webm"), key=lambda path: path.stat().st_mtime)
                for number, path in enumerate(files, 1):
                    os.replace(path, folder / f"video-{number}.webm")
        _traces.forget(recorded)

    def _settle_folder(self, folder: Path, error: BaseException | None, ended_by: str | None) -> None:
        dropped = self._drop(folder)
        with suppress(OSError):
            _folders.remove_if_bare(folder)
            if not folder.exists():
                return
            size = _folders.size_of(folder)
            failure = None
            if error is not None:
                failure = ended_by or getattr(error, "failure_class", None) or type(error).__name__
            text = str(error).partition("\n")[0] if error is not None else None
            self._mark(ended=time.time(), failure=failure, error=text, size=size, dropped=dropped)
            self._pruner.added(size)
            self._pruner.prune()

    def _drop(self, folder: Path) -> list[str]:
        """Remove what is too much for one attempt; return the names of what that was."""
        kinds: dict[str, list[Path]] = {}
        for path in folder.iterdir() if folder.is_dir() else ():
            kind = "video" if path.suffix == ".webm" else "trace" if path.name.startswith("trace") else "rest"
            kinds.setdefault(kind, []).append(path)
        sizes = {kind: sum(map(_folders.size_of, paths)) for kind, paths in kinds.items()}
        dropped = too_much(sizes, self._policy.max_mb_per_job * MEGABYTE)
        for path in (path for kind in dropped for path in kinds[kind]):
            if path.is_dir():
                _traces.forget(path)
            else:
                path.unlink(missing_ok=True)
        return dropped
