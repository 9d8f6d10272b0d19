"""Writes a report of a run: one HTML file with a timeline of attempts, errors, and screenshots within it."""

from __future__ import annotations

import base64
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence  # noqa: TC003  whoever asks for type hints must get them
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator import Outcome  # noqa: TC001  whoever asks for type hints must get them
from orchestrator_adapters.playwright._report_data import Attempt, JobLine, ago, collect, stamp
from orchestrator_adapters.playwright._report_style import SIGNS, STYLE, signed
from orchestrator_adapters.playwright._report_timeline import timeline

# All pictures together; what is more is linked to. Mail servers and browsers take a page of this size.
MOST_PICTURES = 20_000_000
# Each job that succeeded is a line of the table; those with something to show have a section too.
KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def write_report(
    path: str | os.PathLike[str],
    outcomes: Iterable[Outcome],
    *,
    title: str = "Report",
    figures: Mapping[str, Any] | None = None,
) -> Path:
    """Write one HTML file that tells how jobs went; it needs nothing but itself, and asks nobody for anything.

    It has a timeline of the attempts by worker, the jobs in a table, and for each that failed, or left something, its
    error with the child's traceback, its attempts, their screenshots and links to the other files.

    Args:
        path: The file to write.
        outcomes: Of the jobs, in any order.
        title: What it says at its top.
        figures: More to tell at the top, by label: `{"pins on the board": 24}`.

    Returns:
        The path of the file.
    """
    target = Path(path).absolute()
    text = render(collect(outcomes), target.parent, title=title, figures=figures or {}, now=time.time())
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    partial.write_text(text, "utf-8")
    os.replace(partial, target)
    return target


def render(jobs: Sequence[JobLine], folder: Path, *, title: str, figures: Mapping[str, Any], now: float) -> str:
    """Return the page that stands in `folder`."""
    pictures = _Pictures(folder)
    sections = "".join(_section(job, pictures) for job in jobs if _has_something_to_show(job))
    # Nothing is loaded from anywhere, whatever a job's texts say.
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#jobs">Skip to the jobs</a>
<header>
<h1>{escape(title)}</h1>
<p class="soft">Written {stamp(now)}</p>
{_figures(jobs, figures)}
</header>
<main>
<h2 id="timeline">Attempts over time</h2>
{timeline(jobs)}
<h2 id="jobs">Jobs</h2>
{_table(jobs)}
{f'<h2 id="details">Details</h2>{sections}' if sections else ""}
</main>
<footer>{escape(pictures.note())}</footer>
</body>
</html>
"""


def _figures(jobs: Sequence[JobLine], figures: Mapping[str, Any]) -> str:
    counts = Counter(job.status for job in jobs)
    attempts = [attempt for job in jobs for attempt in job.attempts]
    shown: list[tuple[str, str, str]] = [("", str(len(jobs)), "job" if len(jobs) == 1 else "jobs")]
    shown += [(f"is-{name}", str(counts[name]), signed(name)) for name in SIGNS if counts[name]]
    shown.append(("", str(len(attempts)), "attempt" if len(attempts) == 1 else "attempts"))
    retried = sum(len(job.attempts) > 1 for job in jobs)
    if retried:
        shown.append(("", str(retried), "attempted again"))
    starts = [attempt.started for attempt in attempts if attempt.started is not None]
    if starts:
        ends = [attempt.started + attempt.seconds for attempt in attempts if attempt.started is not None]
        shown.append(("", ago(max(ends) - min(starts)), "from first to last"))
    shown += [("", str(value), str(label)) for label, value in figures.items()]
    items = "".join(
        f'<li><b class="{kind}">{escape(value)}</b><span>{escape(label)}</span></li>' for kind, value, label in shown
    )
    return f'<ul class="figures" aria-label="Figures">{items}</ul>'


def _table(jobs: Sequence[JobLine]) -> str:
    if not jobs:
        return '<p class="soft">There are none.</p>'
    rows = "".join(
        f'<tr id="job-{job.place}"><td>{_status(job.status)}</td><td class="label">{_named(job)}</td>'
        f'<td class="number">{len(job.attempts)}</td><td class="number">{escape(ago(job.seconds))}</td>'
        f"<td>{escape(job.worker)}</td><td>{escape(job.failure_class)}</td>"
        f'<td class="text">{escape(job.summary)}</td></tr>'
        for job in jobs
    )
    return (
        '<div class="card wide"><table><caption>All jobs, those that failed first</caption><thead><tr>'
        '<th scope="col">Status</th><th scope="col">Job</th><th scope="col" class="number">Attempts</th>'
        '<th scope="col" class="number">Last ran</th><th scope="col">Worker</th><th scope="col">Failure</th>'
        f'<th scope="col">Error</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _named(job: JobLine) -> str:
    label = escape(job.label)
    return f'<a href="#details-{job.place}">{label}</a>' if _has_something_to_show(job) else label


def _has_something_to_show(job: JobLine) -> bool:
    return job.status != "succeeded" or len(job.attempts) > 1 or any(attempt.files for attempt in job.attempts)


def _section(job: JobLine, pictures: _Pictures) -> str:
    opened = " open" if job.status != "succeeded" else ""
    texts = "".join(f"<h3>{escape(head)}</h3><pre>{escape(text)}</pre>" for head, text in job.details)
    summary = f"<p><strong>{escape(job.summary)}</strong></p>" if job.summary else ""
    attempts = "".join(_attempt(attempt, job, pictures) for attempt in job.attempts)
    count = f"{len(job.attempts)} attempts" if len(job.attempts) != 1 else "1 attempt"
    return (
        f'<article id="details-{job.place}"><details{opened}><summary>{_status(job.status)} '
        f'<strong>{escape(job.label)}</strong><span class="soft">{count}</span></summary>'
        f'<div class="inside">{summary}{texts}{attempts}</div></details></article>'
    )


def _attempt(attempt: Attempt, job: JobLine, pictures: _Pictures) -> str:
    when = f", at {stamp(attempt.started)}" if attempt.started is not None else ""
    where = f", on {attempt.lane}" if attempt.lane else ""
    images = "".join(pictures.show(path, f"{job.label}, attempt {attempt.number}") for path in attempt.pictures)
    others = [path for path in attempt.files if path not in attempt.pictures]
    links = "".join(f"<li>{pictures.link(path)}</li>" for path in others)
    shown = f'<div class="pictures">{images}</div>' if images else ""
    shown += f'<ul class="files">{links}</ul>' if links else ""
    kind = escape(attempt.status)
    return (
        f'<section class="attempt is-{kind}"><h3>Attempt {attempt.number} {_status(attempt.status)}</h3>'
        f'<p class="soft">{escape(ago(attempt.seconds) + when + where)}</p>'
        f"{f'<p>{escape(attempt.text)}</p>' if attempt.text else ''}{shown}</section>"
    )


def _status(status: str) -> str:
    return f'<span class="status is-{escape(status)}">{escape(signed(status))}</span>'


class _Pictures:
    """Puts pictures into the page as long as there is room, and links to all other files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._left = MOST_PICTURES
        self._linked = 0

    def show(self, path: Path, caption: str) -> str:
        """Return a picture, or a link to it."""
        try:
            data = path.read_bytes() if path.stat().st_size <= self._left else None
        except OSError:
            return ""  # pruned meanwhile
        if data is None:
            self._linked += 1
            return f"<p>{self.link(path)}</p>"
        self._left -= len(data)
        inside = base64.b64encode(data).decode("ascii")
        kind = KINDS[path.suffix.lower()]
        text = escape(f"{path.name} of {caption}")
        return (
            f'<figure><img alt="Screenshot: {text}" src="data:{kind};base64,{inside}">'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def link(self, path: Path) -> str:
        """Return a link that holds as long as report and evidence are moved together."""
        try:
            address = quote(Path(os.path.relpath(path, self._folder)).as_posix())
        except ValueError:  # on another drive of Windows
            address = path.as_uri()
        hint = ""
        if path.name in ("trace.zip", "trace"):
            hint = ' <span class="soft">(open it with <code>playwright show-trace</code>)</span>'
        return f'<a href="{escape(address)}">{escape(path.name)}</a>{hint}'

    def note(self) -> str:
        """Return what the foot of the page says."""
        if self._linked:
            return f"{self._linked} pictures are linked to, for the page would be too large with them."
        return "All pictures are within this file."
