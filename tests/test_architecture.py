"""Holds the layout: which module may import which, what stays pure, and what no file of the tree may contain."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ROOTS = (ROOT / "orchestrator", ROOT / "adapters", ROOT / "scripts")
MODULES = sorted((ROOT / "orchestrator").rglob("*.py"))
ADAPTERS = sorted((ROOT / "adapters").rglob("*.py"))


class Row(NamedTuple):
    """What one module, or one package with all its modules, may import at run time beside the standard library."""

    modules: frozenset[str]  # of orchestrator; a package's own modules are always allowed
    packages: frozenset[str]  # from elsewhere


def row(modules: str = "", *, packages: str = "") -> Row:
    return Row(frozenset(modules.split()), frozenset(packages.split()))


VALUES = "_events _models _statistics exceptions"
ENGINE = "anyio msgspec psutil structlog"

# Arrows point down: a module imports only from rows above its own. Imports under TYPE_CHECKING do not count, for they
# never happen. Only the command line may import typer and rich, only _gate aiolimiter.
TABLE = {
    # What children import too: the standard library, and msgspec when a target's annotations ask for it.
    "_wire": row(),
    "_child_files": row(),
    "child": row("_wire", packages="msgspec"),
    "_killset_process": row(),
    "_killset_linux": row("_killset_process"),
    "_killset_psutil": row("_killset_process", packages="psutil"),
    "_killset": row("_killset_process _killset_linux _killset_psutil"),
    "_leftovers": row("_killset child"),
    "_onefile": row("child"),
    "_guardian_main": row("_killset _leftovers _onefile child"),
    # Pure: no clock, no I/O.
    "exceptions": row(),
    "_events": row(),
    "_fixture": row("exceptions _wire"),
    "_models": row("exceptions _events _fixture", packages="msgspec"),
    "_statistics": row("_models"),
    "_state": row(VALUES),
    "_policy": row(VALUES),
    "_progress": row(VALUES),
    "_liveness": row(),
    "_resources": row(),
    # Frozen apps: who is a child, what keeps an app from starting itself for ever, where it says what is wrong.
    "_freezer": row(),
    "desktop": row("_freezer"),
    "_remedies": row("_freezer desktop"),
    "_frozen": row("child _guardian_main _freezer _onefile _remedies", packages="psutil"),
    "_guards": row("exceptions child _frozen"),
    "_handshake": row("exceptions _frozen"),
    "_first_start": row("exceptions"),
    "_python": row("exceptions _guards"),
    # One concept each: options, targets, bytes, one effect of the system.
    "_journal": row(VALUES),
    "_service_spec": row(VALUES),
    "_port": row(packages="psutil"),
    "_probes": row("_port _service_spec"),
    "_options": row(f"{VALUES} _wire _journal"),
    "_targets": row(f"{VALUES} child"),
    "_codec": row(f"{VALUES} _wire _child_files _targets child", packages="msgspec"),
    "_frames": row("_models _wire", packages="msgspec"),
    "_logs": row("_freezer _remedies"),
    "_units": row(VALUES),
    "_line": row(),
    "_window": row(),
    "_adaptive": row(),
    "_gate": row(f"{VALUES} _units _line _window _adaptive", packages="aiolimiter"),
    "_grant": row(),
    "_ticket": row("_grant"),
    "_limits": row(f"{VALUES} _units _adaptive _gate _ticket"),
    "_faults": row("exceptions"),
    "_store_rows": row(),
    "_store_batch": row("_store_rows"),
    "_store_schema": row(),
    "_store_payloads": row(),
    "_database": row("exceptions _store_payloads", packages="psutil"),
    "_store_file": row("exceptions _journal _store_schema _store_payloads _database"),
    "_store_writes": row("_faults _store_rows _store_batch _store_payloads _store_file"),
    "_store_retention": row("_store_payloads _store_file"),
    "_store_run": row("_store_rows _store_payloads _store_file _store_retention", packages="psutil"),
    "_store_thread": row(
        "exceptions _faults _journal _store_rows _store_batch _store_file _store_writes _store_retention _store_run"
    ),
    "_store": row(f"{VALUES} _journal _store_rows _store_batch _store_file _store_run _store_thread"),
    "_journal_file": row("exceptions _journal _store_rows _store_payloads _store_file"),
    "_cache_index": row(),
    "_cache_flights": row(),
    "_cache_file": row("exceptions _database _cache_index"),
    "_cache_store": row("_cache_index _cache_file"),
    "_cache": row("_statistics _cache_index _cache_flights _cache_file _cache_store"),
    "_persist": row(packages="anyio"),
    "_lifelines": row(),
    "_pipes": row("_lifelines", packages="anyio"),
    "_stderr": row(),
    "_stacks": row(),
    "_launch": row("exceptions _wire child _frozen _guards _python _remedies _killset_process", packages="psutil"),
    # A child, and one without a process.
    "_jobobject": row("_wire"),
    "_secrets": row("exceptions child"),
    "_recipe": row("exceptions _targets _jobobject _secrets"),
    "_spawn": row("exceptions", packages="anyio"),
    "_guardian": row("exceptions _persist _handshake _launch _killset _pipes _spawn", packages="anyio"),
    "_child_process": row(
        "exceptions _wire _child_files _handshake _first_start _launch _killset _pipes _spawn _stderr _recipe child",
        packages="anyio",
    ),
    "_foreign_child": row("exceptions _launch _killset _recipe _child_process _stderr"),
    "_inline": row("exceptions _wire _child_process _stderr child"),
    # The engine.
    "_archive": row(f"{VALUES} _fixture _codec _store_rows child", packages="msgspec"),
    "_record": row(f"{VALUES} _state"),
    "_owners": row(),
    "_guarded_loop": row(),
    "_blame": row("_policy _record"),
    "_attempt": row("_killset _liveness"),
    "_leases": row("_wire _attempt"),
    "_hearing": row("_wire _child_files _frames _stacks"),
    "_health": row("_child_files _liveness _resources _stacks"),
    "_memory": row("_killset", packages="psutil"),
    "_pings": row("_liveness"),
    "_worker": row(
        f"{VALUES} _wire _state _frames _spawn _child_process _inline _attempt _leases _liveness _health _hearing"
    ),
    "_queue": row("exceptions _record"),
    "_permits": row("exceptions"),
    "_artifacts": row("_events"),
    "_talk": row(f"{VALUES} _artifacts _frames _permits child"),
    "_spill": row("exceptions _codec"),
    "_verdicts": row("exceptions"),
    "_effects": row(f"{VALUES} _frames _codec _policy _targets _faults _store_rows _archive _verdicts"),
    "_jobs": row(f"{VALUES} _artifacts _blame _frames _codec _policy _record _spill _verdicts _effects"),
    "_durable": row(
        f"{VALUES} _frames _codec _targets _faults _store _store_rows _archive _record _verdicts _effects _jobs",
    ),
    "_pool": row("exceptions _models _policy _memory _pings _resources _worker _verdicts"),
    "_service_history": row("_events _service_spec"),
    "_service_address": row("exceptions _port"),
    "_service_watch": row("_liveness _probes _service_spec", packages="anyio"),
    "_service_run": row("_models _wire"),
    "_service_hearing": row("_frames _wire"),
    "_service_plan": row(f"{VALUES} _wire _codec _targets _foreign_child _service_spec child"),
    "_service_runner": row(
        f"{VALUES} _state _policy _liveness _resources _spawn _health _child_process _service_address _service_hearing "
        "_service_history _service_run _service_spec _service_watch"
    ),
    "_services": row("exceptions _child_process _foreign_child _memory _service_runner"),
    "_recovery": row("exceptions _leftovers _store"),
    "_engine": row(
        f"{VALUES} _wire _options _targets _logs _guarded_loop _limits _cache _journal _persist _child_process _inline "
        "_record _queue _permits _talk _jobs _durable _recovery _pool _services _guardian _recipe _secrets _spawn",
        packages="anyio",
    ),
    # How callers reach it.
    "_spawn_loop": row(),
    "_link": row(f"{VALUES} _options _persist _record _spawn _engine _spawn_loop"),
    "_ring": row("_events"),
    "_calls": row("_models _record"),
    "_handle": row(f"{VALUES} _persist _record _link _ring _calls"),
    "_submission": row(f"{VALUES} _options _targets _codec _record _units _service_plan _service_spec"),
    "_stream": row("_events _models _handle _submission"),
    "_map": row(f"{VALUES} _record _link _handle _submission"),
    "_service_view": row("exceptions"),
    "_service": row("exceptions _models _persist _service_view"),
    "_supervisor": row(
        f"{VALUES} _wire _options _persist _launch _remedies _spawn _record _engine _link _handle _submission _map "
        "_stream _service"
    ),
    # Ways in.
    "_blocking_handle": row(f"{VALUES} _record _link _ring _calls"),
    "_blocking_map": row(f"{VALUES} _record _link _submission _blocking_handle"),
    "_blocking_service": row("exceptions _models _service_view"),
    "blocking": row(
        f"{VALUES} _launch _remedies _spawn _link _submission _supervisor "
        "_blocking_handle _blocking_map _blocking_service"
    ),
    "testing": row(f"{VALUES} _wire _state _supervisor blocking", packages=ENGINE),
    "config": row(VALUES, packages="msgspec"),
    "cli": row(
        f"{VALUES} _progress _logs _freezer desktop _python _launch _journal _journal_file _archive _codec _targets "
        "_supervisor config",
        packages=f"{ENGINE} rich typer",
    ),
    "__main__": row("cli"),
    # Its names come from a map, when they are first asked for.
    "__init__": row(),
}

PURE = (
    "_cache_flights",
    "_cache_index",
    "exceptions",
    "_events",
    "_fixture",
    "_models",
    "_statistics",
    "_state",
    "_policy",
    "_progress",
    "_liveness",
    "_resources",
    "_adaptive",
    "_line",
    "_units",
    "_window",
)
IMPURE_MODULES = frozenset(
    "anyio asyncio concurrent ctypes fcntl io logging multiprocessing os pathlib queue secrets select selectors shutil "
    "signal socket sqlite3 ssl structlog subprocess sys tempfile threading time urllib".split()
)
IMPURE_CALLS = frozenset({"open", "print", "input"})

MOST_LINES = 500
MOST_README_LINES = 120
# Names that say nothing about what a module is for.
EMPTY_NAMES = frozenset("base common helper helpers manager managers util utils".split())

# Written in pieces, so that this file does not contain what it looks for.
REGISTRIES = ("pypi", "pythonhosted", "npmjs", "deb.debian", "security.debian", "anaconda")
FOREIGN = re.compile(
    "|".join(
        [
            r"\.\./" + "shared",
            "/work" + "/",
            "/root" + "/",
            *(re.escape(f"{name}.org") for name in REGISTRIES),
            r"index-url[\s=]+\S*:",
        ]
    )
)


def module_name(path: Path) -> str:
    """Return the row of a file: its own name, or that of its package."""
    return path.relative_to(ROOT / "orchestrator").with_suffix("").parts[0]


def identify(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, leaving out what stands under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield other
                yield from runtime_nodes(other)
        else:
            yield node
            yield from runtime_nodes(node)


def imported(nodes: Iterator[ast.AST], path: Path) -> Iterator[str]:
    """Yield the dotted names that imports ask for: `from a import b` gives `a.b`."""
    package = path.relative_to(ROOT).parent.parts
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            yield from (".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_arrows_point_down(path: Path) -> None:
    name = module_name(path)
    assert name in TABLE, f"add a row for {name!r} to TABLE in {identify(Path(__file__))}, saying what it may import"
    allowed = TABLE[name]
    for dotted in imported(runtime_nodes(parse(path)), path):
        top, _, rest = dotted.partition(".")
        if top == "orchestrator":
            target = rest.partition(".")[0] or "__init__"
            assert target in {*allowed.modules, name}, f"{identify(path)} may not import orchestrator.{target}"
        elif top not in sys.stdlib_module_names:
            assert top in allowed.packages, f"{identify(path)} may not import {top}"


def test_table_has_no_arrow_up() -> None:
    above: set[str] = set()
    for name, allowed in TABLE.items():
        assert allowed.modules <= above, f"{name} imports from below it: {sorted(allowed.modules - above)}"
        above.add(name)


@pytest.mark.parametrize("path", [path for path in MODULES if module_name(path) in PURE], ids=identify)
def test_pure_modules_have_no_clock_and_no_io(path: Path) -> None:
    nodes = list(runtime_nodes(parse(path)))
    tops = {dotted.partition(".")[0] for dotted in imported(iter(nodes), path)}
    assert not tops & IMPURE_MODULES
    calls = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not calls & IMPURE_CALLS


@pytest.mark.parametrize("path", ADAPTERS, ids=identify)
def test_adapters_use_public_names_only(path: Path) -> None:
    for dotted in imported(ast.walk(parse(path)), path):
        top, *parts = dotted.split(".")
        if top == "orchestrator":
            assert not any(part.startswith("_") for part in parts), f"{identify(path)} imports the private {dotted}"


@pytest.mark.parametrize("path", [*MODULES, *ADAPTERS], ids=identify)
def test_only_spawn_opens_processes(path: Path) -> None:
    if path.name == "_spawn.py":
        return
    for node in ast.walk(parse(path)):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else [name]
        assert "open_process" not in names, f"{identify(path)}: only _spawn.py calls open_process"


@pytest.mark.parametrize("folder", [*SOURCE_ROOTS, ROOT / "tests"], ids=identify)
def test_modules_are_short_named_and_explained(folder: Path) -> None:
    for path in folder.rglob("*.py"):
        assert (ast.get_docstring(parse(path)) or "").strip(), f"{identify(path)}: say in a docstring what it is for"
        for part in path.relative_to(ROOT).with_suffix("").parts:
            assert part.strip("_") not in EMPTY_NAMES, f"{identify(path)}: name it after what it is for"
        lines = len(path.read_text("utf-8").splitlines())
        assert lines <= MOST_LINES or folder not in SOURCE_ROOTS, f"{identify(path)} has {lines} lines"


def test_readme_is_short_and_goes_with_the_package() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= MOST_README_LINES
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project.get("readme") == "README.md"


def test_adapters_folder_is_no_package() -> None:
    # As one it would overwrite a well-known package of that name when it is installed.
    assert not (ROOT / "adapters" / "__init__.py").exists()


def test_nothing_names_a_registry_or_a_place_on_one_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.decode().split("\0")):
        try:
            text = (ROOT / name).read_text("utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue  # a picture, or a file that is being moved
        found = FOREIGN.search(text)
        assert not found, f"{name} contains {found and found.group()!r}"
