"""Read a YAML file as DVC does, remembering on which line each key stands."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from orchestrator_adapters.batch._errors import BatchError, reason

Path = tuple[Any, ...]


class Document:
    """A mapping and where its keys stand.

    Args:
        value: The mapping.
        path: The file; None if it is a mapping of a program.
        lines: The line of each key path.

    Attributes:
        warnings: What was noted, in order.
    """

    def __init__(self, value: Mapping[Any, Any], path: str | None, lines: Mapping[Path, int]) -> None:
        self.value = value
        self.path = path
        self.warnings: list[str] = []
        self._lines = lines

    def place(self, path: Path) -> str:
        """Return the file, line and key path of a value, for people."""
        keys = ".".join(str(key) for key in path)
        if self.path is None:
            return f"params: {keys}"
        known = path
        while known and known not in self._lines:
            known = known[:-1]
        line = f", line {self._lines[known]}" if known else ""
        return f"{self.path}{line}: {keys}"

    def error(self, path: Path, problem: str) -> BatchError:
        """Return the exception for what is wrong with a value."""
        return BatchError(f"{self.place(path)}: {problem}")

    def warn(self, path: Path, problem: str) -> None:
        """Note what is allowed and surely not meant."""
        self.warnings.append(f"{self.place(path)}: {problem}")


def from_mapping(value: Mapping[str, Any]) -> Document:
    """Return the document of a mapping that a program made."""
    return Document(value, None, {})


def read_file(path: str) -> Document:
    """Read a file.

    Raises:
        BatchError: If it cannot be read, or is no YAML mapping.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise BatchError(f"{path} cannot be read: {why}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BatchError(f"{path}, line {line}: the file is not UTF-8; save it as UTF-8") from None
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
    except ImportError:
        message = "params.yaml needs the extra 'batch': pip install 'subprocess-orchestrator[batch]'"
        raise BatchError(message) from None
    try:
        node = YAML(typ="safe", pure=True).compose(io.StringIO(text))
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise BatchError(_yaml_problem(path, text, error)) from None
    except RecursionError:
        raise BatchError(f"{path}: the file is nested too deeply") from None
    if value is None:
        return Document({}, path, {})
    if not isinstance(value, Mapping):
        kind = "a list" if isinstance(value, list) else "a single value"
        raise BatchError(f"{path}: must be a mapping of sections, such as 'multiprocessing:', not {kind}")
    lines: dict[Path, int] = {}
    _note_lines(node, (), lines)
    return Document(value, path, lines)


def _yaml_problem(path: str, text: str, error: Any) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = f", line {mark.line + 1}" if mark is not None else ""
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).partition("\n")[0]
    if "'\\t'" in problem:
        problem = "a tab stands where YAML allows only spaces; indent with spaces"
    elif problem.startswith("found duplicate key"):
        name = problem.partition('"')[2].partition('"')[0]
        problem = f"the key {name!r} stands here a second time; a mapping has each key once"
    elif "another document" in problem:
        problem = "a second document begins here ('---'); a file holds one"
    elif getattr(error, "character", None) is not None:
        position = getattr(error, "position", 0)
        line = f", line {text.count(chr(10), 0, position) + 1}"
    return f"{path}{line}: {problem}"


def _note_lines(node: Any, path: Path, lines: dict[Path, int]) -> None:
    value = getattr(node, "value", None)
    if not isinstance(value, list) or len(path) > 3:
        return
    for part in value:
        if isinstance(part, tuple):
            key, child = part
            here = (*path, key.value if isinstance(key.value, str) else None)
            lines[here] = key.start_mark.line + 1
            _note_lines(child, here, lines)
