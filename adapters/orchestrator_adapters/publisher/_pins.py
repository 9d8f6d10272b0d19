"""Pins as rows of a table: read one by one, each with a key and a mark; a bad row is told and left out."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from orchestrator_adapters.publisher._errors import PinsError, PublishError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from orchestrator_adapters.publisher._profile import Profile

COLUMNS = ("title", "description", "board", "link", "image", "id")
_CONTENT = COLUMNS[:-1]
# A hundred million pins would have to be published before two marks are the same by chance.
_MARK_BYTES = 8


@dataclass(frozen=True, slots=True)
class Pin:
    """One pin.

    Attributes:
        title: Never empty.
        description: Or empty.
        board: Name of the board it goes to, or empty.
        link: Where it leads, or empty.
        image: Path of the file to upload, or empty.
        id: The caller's own name for it, or empty.
        line: Where it stands in its table, from 1.
        folder: From where a relative path of an image counts; the current folder if it is empty.
    """

    title: str
    description: str = ""
    board: str = ""
    link: str = ""
    image: str = ""
    id: str = ""
    line: int = 0
    folder: str = ""

    @property
    def key(self) -> str:
        """What the pin is known by: its id, or a hash of the row. A pin with the same key is the same pin."""
        return self.id or self.mark

    @property
    def mark(self) -> str:
        """What makes it possible to find the pin again on the site: 16 letters and digits, of its id or its row."""
        text = json.dumps([self.id] if self.id else [getattr(self, name) for name in _CONTENT])
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_MARK_BYTES).hexdigest()

    @property
    def image_path(self) -> str:
        """Where the image lies, as a whole path; empty without an image."""
        return os.path.abspath(os.path.join(self.folder, self.image)) if self.image else ""

    def as_json(self) -> dict[str, str]:
        """Return what a child needs to know."""
        content = {name: getattr(self, name) for name in _CONTENT}
        return {"key": self.key, "mark": self.mark, **content, "image": self.image_path}


@dataclass(frozen=True, slots=True)
class PinProblem:
    """A row that is no pin, and why.

    Attributes:
        line: Where it stands, from 1.
        problem: One sentence, without the line.
        failure_class: `row`, or `image` if the image is missing.
        title: Of the row, as far as it has one.
    """

    line: int
    problem: str
    failure_class: str = "row"
    title: str = ""


def read_pins(path: str | os.PathLike[str], profile: Profile | None = None) -> Iterator[Pin | PinProblem]:
    """Read the pins of a CSV file with a header, or of JSON lines (`.jsonl`), in their order.

    Images are looked for from the folder of the table.

    Args:
        path: The file.
        profile: Of the site they are for: a row that it cannot take is a problem.

    Raises:
        PinsError: When the first row is asked for, if the file cannot be read or its header says nothing of a title.
    """
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8-sig", newline="") as stream:
            rows = _json_rows(stream) if name.endswith((".jsonl", ".ndjson")) else _csv_rows(stream, name)
            yield from _checked(rows, os.path.dirname(os.path.abspath(name)), profile)
    except OSError as error:
        raise PinsError(f"{name}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise PinsError(f"{name}: is not UTF-8: {error.reason} at byte {error.start:,} of a part of it") from None
    except csv.Error as error:
        raise PinsError(f"{name}: is not CSV: {error}") from None


def _csv_rows(stream: Iterable[str], name: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    reader = csv.reader(stream, strict=True)
    header = [cell.strip().lower() for cell in next(reader, [])]
    if "title" not in header:
        raise PinsError(f"{name}: the first line must name the columns, title among them, not {','.join(header)!r:.80}")
    unknown = [cell for cell in header if cell not in COLUMNS]
    if unknown:
        raise PinsError(f"{name}: has a column {unknown[0]!r}; known are {', '.join(COLUMNS)}")
    twice = [cell for cell in header if header.count(cell) > 1]
    if twice:
        raise PinsError(f"{name}: has two columns {twice[0]!r}")
    while True:
        line = reader.line_num + 1
        cells = next(reader, None)
        if cells is None:
            return
        if not cells:
            continue
        if len(cells) != len(header):
            yield line, f"has {len(cells)} {'cell' if len(cells) == 1 else 'cells'}, and the header {len(header)}"
        else:
            yield line, dict(zip(header, cells, strict=True))


def _json_rows(stream: Iterable[str]) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    for line, text in enumerate(stream, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            yield line, f"is not JSON: {error}"
            continue
        if not isinstance(row, dict):
            yield line, "is no JSON object"
            continue
        wrong = next((key for key in row if key not in COLUMNS), None)
        if wrong is not None:
            yield line, f"has {wrong!r}; known are {', '.join(COLUMNS)}"
            continue
        bad = next((key for key, value in row.items() if value is not None and not isinstance(value, str)), None)
        yield line, row if bad is None else f"has a {bad} that is no string: {row[bad]!r:.60}"


def _checked(
    rows: Iterator[tuple[int, Mapping[str, Any] | str]], folder: str, profile: Profile | None
) -> Iterator[Pin | PinProblem]:
    keys: dict[str, int] = {}
    titles: dict[str, int] = {}
    by_title = profile is not None and profile.finds_by_title
    for line, row in rows:
        if isinstance(row, str):
            yield PinProblem(line, row)
            continue
        cells = {name: (row.get(name) or "").strip() for name in COLUMNS}
        plain = Pin(line=line, folder=folder, **cells)
        title = plain.title
        found = _problem(plain, profile)
        if found is None and plain.key in keys:
            what = "it has its id" if plain.id else "everything in it is the same"
            found = f"is the pin of line {keys[plain.key]}: {what}", "row"
        if found is None and by_title and title in titles:
            found = f"has the title of line {titles[title]}, and this profile finds pins by their title", "row"
        if found is not None:
            yield PinProblem(line, *found, title)
            continue
        keys[plain.key] = titles[title] = line
        yield plain


def _problem(pin: Pin, profile: Profile | None) -> tuple[str, str] | None:
    """Return why a row is no pin, and the class of that."""
    if not pin.title:
        return "has no title", "row"
    if pin.link:
        try:
            fits = urlsplit(pin.link).scheme in ("http", "https")
        except ValueError:
            fits = False
        if not fits:
            return f"has a link that does not start with http:// or https://: {pin.link[:60]!r}", "row"
    if profile is not None:
        for name in ("description", "board", "link", "image"):
            if getattr(pin, name) and profile.get("form", name) is None:
                return f"has a {name}, and the form of {profile.source} has no field for it", "row"
        if profile.get("mark", "field") == "link" and not pin.link:
            return f"has no link, into which {profile.source} puts the mark by which a pin is found again", "row"
    if pin.image:
        path = pin.image_path
        if not os.path.isfile(path):
            what = "is no file" if os.path.exists(path) else "is not there"
            return f"its image {pin.image!r} {what}", "image"
        if not os.access(path, os.R_OK):
            return f"its image {pin.image!r} may not be read", "image"
    return None


def marked(pin: Mapping[str, str], profile: Profile) -> dict[str, str]:
    """Return what to fill in: the pin's own values, with its mark where the profile wants it."""
    values = {name: pin.get(name, "") for name in _CONTENT}
    field, mark = profile.get("mark", "field"), pin["mark"]
    if field == "link" and values["link"]:
        parts = urlsplit(values["link"])
        query = f"{parts.query}&" if parts.query else ""
        values["link"] = urlunsplit(parts._replace(query=f"{query}{profile.get('mark', 'parameter')}={mark}"))
    elif field == "description":
        values["description"] = f"{values['description']} [{mark}]".strip()
    return values


def row_of(pin: Pin | Mapping[str, Any]) -> dict[str, str]:
    """Return a pin as a child needs it, whichever way it was given.

    Raises:
        PublishError: If it has no title, or a value that is no string.
    """
    if isinstance(pin, Pin):
        return pin.as_json()
    if "mark" in pin and "key" in pin:
        return dict(pin)
    wrong = next((name for name, value in pin.items() if name not in COLUMNS or not isinstance(value, str)), None)
    if wrong is not None:
        known = ", ".join(COLUMNS)
        raise PublishError(f"a pin has {wrong!r}: {pin[wrong]!r:.60}; it may have {known}, all of them strings")
    if not pin.get("title"):
        raise PublishError(f"a pin has no title: {dict(pin)!r:.100}")
    return Pin(**pin).as_json()
