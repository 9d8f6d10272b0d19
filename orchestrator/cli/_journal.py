"""A run's journal: which run it is of, how another input differs, and which outcomes the output has already."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator import _archive, _codec
from orchestrator._journal import Journal
from orchestrator._journal_file import JournalFile
from orchestrator._targets import Target
from orchestrator.cli._options import RunOptions, UsageProblem
from orchestrator.cli._records import HeaderProblem, RecordReader
from orchestrator.cli._rows import InvalidLine, JobBuilder
from orchestrator.exceptions import OrchestratorError

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.cli._records import Content, Record

# Under this name the journal has what its run is of.
META = "run"
_LINE = re.compile(rb'\{"line":(\d+),')
_SHOWN = 200
_CHUNK = 2**20


def identity_of(line: int) -> str:
    """Return what the journal knows a line by; in the order of the lines, so that its index grows at its end."""
    return f"line {line:012}"


class LineSet:
    """A set of line numbers, a bit each: a million of them are 125 kB."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, line: int) -> None:
        """Add a line."""
        at = line >> 3
        if at >= len(self._bits):
            self._bits.extend(bytes(max(at + 1 - len(self._bits), len(self._bits))))
        self._bits[at] |= 1 << (line & 7)

    def __contains__(self, line: int) -> bool:
        at = line >> 3
        return at < len(self._bits) and bool(self._bits[at] >> (line & 7) & 1)

    def __bool__(self) -> bool:
        return any(self._bits)


@dataclass(slots=True)
class RunJournal:
    """The journal of one run.

    Attributes:
        journal: For the supervisor.
        about: What the run is of, for the journal.
        written: Lines whose outcomes the output has.
        goes_on: The output has outcomes of this run: more are added.
    """

    journal: Journal
    about: str
    written: LineSet = field(default_factory=LineSet)
    goes_on: bool = False


def prepare(options: RunOptions, path: Path, durability: str, *, resume: bool, overwrite: bool) -> RunJournal:
    """Look at a journal before anything starts: a new one, or one of this very run.

    Args:
        options: What to run.
        path: The journal's file.
        durability: As `Journal` takes it.
        resume: There must be one.
        overwrite: The output is to be written anew.

    Raises:
        UsageProblem: If it is of another run, or missing; says how they differ.
        JournalError: If it cannot be opened.
    """
    journal = Journal(path, durability=durability, keep=None)  # type: ignore[arg-type]
    about = _about(options)
    run = RunJournal(journal, json.dumps(about))
    if not path.exists():
        if resume:
            raise UsageProblem(f"--resume: there is no journal {str(path)!r}; leave --resume out to begin a run.")
        return run
    with JournalFile(path, create=True) as file:
        stored = file.meta(META)
        if stored is None:
            if file.counts():
                problem = f"{str(path)!r} is the journal of a program, not of `orchestrator run`"
                raise UsageProblem(f"--journal: {problem}; name another file.")
            return run  # it was killed before it had read anything
        _compare(path, json.loads(stored), about, options, file)
        output, same = options.output, json.loads(stored).get("output") == about["output"]
        if output is not None and output.is_file() and same and not overwrite:
            run.goes_on = True
            unfinished = {identity for identity in file.open_identities() if identity is not None}
            run.written = _read_output(output, unfinished)
    return run


def _about(options: RunOptions) -> dict[str, Any]:
    output = None if options.output is None else str(options.output.absolute())
    about: dict[str, Any] = {"target": options.target, "format": options.format, "output": output}
    if options.source is not None and options.source.is_file():
        digest = hashlib.sha256()
        with options.source.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            about["size"] = file.tell()
        about["sha256"] = digest.hexdigest()
    return about


def _compare(path: Path, stored: dict[str, Any], about: dict[str, Any], options: RunOptions, file: JournalFile) -> None:
    """Raise UsageProblem if the journal is of another run."""
    differences = [
        f"its {name} was {stored.get(name)!r}, now it is {about[name]!r}"
        for name in ("target", "format")
        if stored.get(name) != about[name]
    ]
    if not differences and stored.get("sha256") != about.get("sha256"):
        differences.append(_difference(stored, about, options, file))
    if differences:
        raise UsageProblem(
            f"--journal: {str(path)!r} is of another run: {'; '.join(differences)}. "
            "Restore what it was, or name another journal and output for a new run."
        )


def _difference(stored: dict[str, Any], about: dict[str, Any], options: RunOptions, file: JournalFile) -> str:
    """Return in words how the input differs from the one that the journal is of."""
    if "sha256" not in stored:
        return "its input was not a file, now it is one"
    if "sha256" not in about:
        return "its input was a file, now it is not"
    assert options.source is not None
    builder = JobBuilder(options)
    found: list[str] = []

    def look(batch: list[Record]) -> bool:
        for line, content in batch:
            before = file.call_of(identity_of(line))
            if before is not None:
                now = _call(builder, content)
                if now is None or now[0] != before[0]:
                    is_now = "what is no job" if now is None else _short(now[1])
                    found.append(f"line {line} of its input was {_short(before[1])}, now it is {is_now}")
                    return False
        return True

    descriptor = os.open(options.source, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        RecordReader(
            descriptor, options.format, look, on_header=lambda names: setattr(builder, "columns", names)
        ).read()
    except HeaderProblem as problem:
        return f"its input was another: now {problem}"
    finally:
        os.close(descriptor)
    sizes = f"its input had {stored['size']:,} bytes, now it has {about['size']:,}"
    return found[0] if found else f"{sizes} (no line that was accepted so far differs)"


def _call(builder: JobBuilder, content: Content) -> tuple[bytes, bytes] | None:
    try:
        job, args, kwargs = builder.build(content)
        payload = _codec.encode_job(job, Target(str(job.target), None), args, kwargs, 2**62)
    except (InvalidLine, OrchestratorError):
        return None
    return _archive.fingerprint(payload), payload.body


def _short(body: bytes) -> str:
    text = "{" + body.decode("utf-8", "backslashreplace") + "}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _read_output(output: Path, unfinished: set[str]) -> LineSet:
    """Return the lines whose outcomes a file has; cuts off what was half written when the run died.

    Outcomes of lines that are to be run again, because somebody released them, are taken out.
    """
    written = LineSet()
    end = 0
    outdated = False
    with output.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            found = _LINE.match(line)
            if found is None:
                problem = f"line {number} of {str(output)!r} is no outcome of a run"
                raise UsageProblem(f"--output: {problem}; --overwrite writes all outcomes anew, from the journal.")
            end += len(line)
            if identity_of(int(found[1])) in unfinished:
                outdated = True
            else:
                written.add(int(found[1]))
    if end < output.stat().st_size:
        os.truncate(output, end)
    if outdated:
        _rewrite(output, unfinished)
    return written


def _rewrite(output: Path, without: set[str]) -> None:
    with tempfile.NamedTemporaryFile(dir=output.parent, prefix=f".{output.name}.", delete=False) as copy:
        try:
            with output.open("rb") as file:
                for line in file:
                    found = _LINE.match(line)
                    if found is None or identity_of(int(found[1])) not in without:
                        copy.write(line)
            copy.flush()
            os.fsync(copy.fileno())
            shutil.copymode(output, copy.name)
            os.replace(copy.name, output)
        except BaseException:
            os.unlink(copy.name)
            raise


def with_journal(
    options: RunOptions, path: Path | None, durability: str, *, resume: bool, overwrite: bool
) -> RunOptions:
    """Return the options with the journal that they ask for.

    Raises:
        UsageProblem: If it is of another run, or missing.
        JournalError: If it cannot be opened.
    """
    if path is None:
        if resume:
            raise UsageProblem("--resume: is for a run with a journal; add --journal FILE.")
        return options
    if options.append:
        raise UsageProblem("--append: contradicts --journal, which knows what the output has; leave it out.")
    if path.is_dir() or not path.absolute().parent.is_dir():
        problem = "is a folder" if path.is_dir() else "is in a folder that does not exist"
        raise UsageProblem(f"--journal: {str(path)!r} {problem}; name a file in an existing one.")
    for name, other in (("the input", options.source), ("the output", options.output)):
        if other is not None and other.absolute() == path.absolute():
            raise UsageProblem(f"--journal: {str(path)!r} is {name}; name another file.")
    run = prepare(options, path, durability, resume=resume, overwrite=overwrite)
    return replace(options, journal=run, append=run.goes_on)
