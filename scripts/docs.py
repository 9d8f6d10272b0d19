"""Write what the documentation takes from the code: signatures, docstrings and diagrams; `--check` only compares."""

import _venv

_venv.enter("dev")

import argparse
import dataclasses
import difflib
import importlib
import inspect
import re
import sys
import textwrap
from typing import Any

from orchestrator import _state

PART = re.compile(r"(<!-- from the code: (\w+) (\S+)(?: as (\S+))? -->\n).*?(<!-- end -->)", re.DOTALL)
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$", re.MULTILINE)
ITEM = re.compile(r"^    (\w+): ", re.MULTILINE)
WIDTH = 100
# Methods without an underscore because the engine calls them, not users.
INTERNAL = frozenset({"called", "event", "result_or_cancel", "settled"})


def main() -> int:
    """Bring every page up to date, or with `--check` say which are not."""
    parser = argparse.ArgumentParser(prog="docs.py", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a page is not up to date")
    check = parser.parse_args().check
    old_pages = 0
    for page in sorted((_venv.ROOT / "docs").rglob("*.md")):
        before = page.read_text("utf-8")
        after = PART.sub(lambda found: found[1] + _render(found[2], found[3], found[4] or "") + found[5], before)
        if after == before:
            continue
        old_pages += 1
        name = page.relative_to(_venv.ROOT).as_posix()
        if check:
            print(*difflib.unified_diff(before.splitlines(), after.splitlines(), name, "the code", n=1), sep="\n")
        else:
            page.write_text(after, "utf-8")
            print(f"wrote {name}")
    if check and old_pages:
        print("the pages do not match the code; run: python3 scripts/docs.py")
    return int(check and old_pages > 0)


def _render(kind: str, name: str, shown: str) -> str:
    """Return the text of one part.

    Args:
        kind: `states` (a diagram), `text` (a module's docstring), `file`, `function`, `class`, `value`: a class that
            users never call, or `profile`: the sections and keys of a file.
        name: Of the table, of the module, of the file, or `module:name`.
        shown: How users call it, if not by its name.
    """
    if kind == "states":
        return _diagram(getattr(_state, name))
    if kind == "file":
        file = _venv.ROOT / name
        language = {".py": "python", ".toml": "toml", ".yaml": "yaml"}[file.suffix]
        return f"```{language}\n{file.read_text('utf-8')}```\n"
    module, _, path = name.partition(":")
    thing: Any = importlib.import_module(module)
    if kind == "text":
        return "```text\n" + textwrap.dedent((inspect.getdoc(thing) or "").partition("\n\n")[2]).strip("\n") + "\n```\n"
    thing = getattr(thing, path)
    if kind == "profile":
        return _keys(thing)
    text = _describe(thing) if kind == "value" else _signature(shown or path, thing) + _describe(thing)
    if kind != "function":
        text += "".join(_method(thing, shown or path, name) for name in _public_methods(thing))
    return text


def _public_methods(kind: type) -> list[str]:
    return [
        name
        for name, value in vars(kind).items()
        if (inspect.isfunction(value) or isinstance(value, property)) and not (name.startswith("_") or name in INTERNAL)
    ]


def _method(kind: type, owner: str, name: str) -> str:
    value = inspect.getattr_static(kind, name)
    call = "" if isinstance(value, property) else _signature(name, value)
    return f"\n#### `{owner}.{name}`\n\n{call}{_describe(value)}"


def _signature(name: str, thing: Any) -> str:
    """Return a call as Python writes it, one parameter a line when it is long."""
    found = inspect.signature(thing)
    parameters, shown, star = [], list(found.parameters.values()), False
    for position, each in enumerate(shown):
        if each.name == "self":
            continue
        if each.kind is each.KEYWORD_ONLY and not star:
            parameters.append("*")
        star = star or each.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)
        parameters.append(_parameter(each))
        after = shown[position + 1] if position + 1 < len(shown) else None
        if each.kind is each.POSITIONAL_ONLY and (after is None or after.kind is not each.POSITIONAL_ONLY):
            parameters.append("/")
    is_async = "await " if inspect.iscoroutinefunction(thing) else ""
    returns = None if isinstance(thing, type) else found.return_annotation
    result = "" if returns in (None, "None", found.empty) else f" -> {returns}"
    line = f"{is_async}{name}({', '.join(parameters)}){result}"
    if len(line) > WIDTH:
        line = f"{is_async}{name}(\n" + "".join(f"    {each},\n" for each in parameters) + f"){result}"
    return f"```python\n{line}\n```\n\n"


def _parameter(each: inspect.Parameter) -> str:
    stars = "*" if each.kind is each.VAR_POSITIONAL else "**" if each.kind is each.VAR_KEYWORD else ""
    text = stars + each.name
    if each.annotation is not each.empty:
        text += f": {each.annotation}".replace("'", '"')
    if each.default is not each.empty:
        default = "{}" if "factory" in repr(each.default) else repr(each.default).replace("'", '"')
        if inspect.ismodule(each.default):  # its repr has a path of this machine
            default = each.default.__name__
        text += f" = {default}"
    return text


def _describe(thing: Any) -> str:
    """Return a docstring as Markdown: its sections become lists."""
    text = inspect.getdoc(thing) or ""
    parts = SECTION.split(text)
    lines = [parts[0].strip()]
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        body = body.strip("\n")
        tail = ""
        end = re.search(r"\n\n(?=\S)", body)
        if end is not None:
            body, tail = body[: end.start()], body[end.end() :]
        if ITEM.match(body):
            pieces = ITEM.split(body)[1:]
            named = zip(pieces[::2], pieces[1::2], strict=True)
            body = "\n".join(f"- `{name}`: {_unfold(words)}" for name, words in named)
        else:
            body = _unfold(body)
        lines += [f"{heading}:\n\n{body}" if "- `" in body else f"{heading}: {body}", tail.strip()]
    if dataclasses.is_dataclass(thing) and not {"Args", "Attributes"} & set(parts):
        lines.append("Attributes: " + ", ".join(f"`{field.name}`" for field in dataclasses.fields(thing)) + ".")
    return "\n\n".join(filter(None, lines)) + "\n"


def _unfold(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines())


def _keys(sections: dict[str, dict[str, Any]]) -> str:
    lines = ["| section | key | what it is |", "|---|---|---|"]
    for section, keys in sections.items():
        for name, key in keys.items():
            needed = " (needed)" if key.required else ""
            what = key.what.replace("<", "&lt;")
            lines.append(f"| `[{section}]` | `{name}` | {what}{needed} |")
    return "\n".join([*lines, ""])


def _diagram(table: _state.Table) -> str:
    """Draw a table of `_state` as a mermaid chart; events that lead the same way share an arrow."""
    states = list(dict.fromkeys(state for state, _ in table))
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), step in table.items():
        arrows.setdefault((state, step.state), []).append(event)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {states[0]}"]
    lines += [f"    {start} --> {end}: {', '.join(events)}" for (start, end), events in arrows.items()]
    finals = {step.state for step in table.values()} - set(states)
    lines += [f"    {state} --> [*]" for state in sorted(finals)]
    return "\n".join([*lines, "```", ""])


if __name__ == "__main__":
    sys.exit(main())
