"""What a Streamlit server process keeps for all its sessions and reruns: supervisors, and the jobs that are watched."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from orchestrator import BlockingSupervisor
from orchestrator.exceptions import ConfigurationError, SupervisorClosed

if TYPE_CHECKING:
    from orchestrator_adapters.streamlit._watch import Watch

# Results that nobody may ask for again: a page that ran two hundred jobs more has no use for this one.
_MOST_FINISHED = 200


# Not a module with a file: after an edit Streamlit drops those, and imports them anew.
_PLACE = "_orchestrator_streamlit"


class Held:
    """Data only, for it outlives the module that made it.

    Attributes:
        lock: Guards the rest; may be taken again by its thread, for a collector may release in the midst of anything.
        supervisors: By name, each with the options it was asked for with.
        watches: Jobs by their identity; None for one that was dropped to save memory.
        shared: Identities of jobs that all sessions see, by key.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.supervisors: dict[str, tuple[BlockingSupervisor, dict[str, Any]]] = {}
        self.watches: dict[str, Watch | None] = {}
        self.shared: dict[str, str] = {}


def held() -> Held:
    """Return what this server process keeps."""
    place = sys.modules.setdefault(_PLACE, ModuleType(_PLACE))
    found: Held = vars(place).setdefault("held", Held())
    return found


class _Token:
    """Streamlit's cache has the only reference to it: when that is cleared, the token is gone."""


@st.cache_resource(show_spinner=False)
def _token() -> _Token:
    token = _Token()
    # Streamlit's own `on_release` came long after the oldest version that is supported.
    ending = weakref.finalize(token, release)
    ending.atexit = False  # a supervisor sees to the end of the program itself
    return token


def release() -> None:
    """Close all supervisors, and let the next call open new ones."""
    kept = held()
    with kept.lock:
        found = list(kept.supervisors.values())
        kept.supervisors.clear()
    for supervisor, _ in found:
        _close(supervisor)


def _close(supervisor: BlockingSupervisor) -> None:
    """Close a supervisor that nobody uses any more, on a thread of its own: it may take seconds, anywhere."""
    threading.Thread(target=supervisor.close, name="orchestrator release", daemon=True).start()


def get_supervisor(**options: Any) -> BlockingSupervisor:
    """Return the supervisor of this server process: one for all sessions and reruns, opened when first asked for.

    It is closed, and its jobs are cancelled, when the server stops and when Streamlit's caches are cleared. Do not
    close it yourself, nor use it in a `with` statement: other sessions use it too.

    Args:
        options: Those of `BlockingSupervisor`. Supervisors with different names are different ones. Without any
            options but the name, whichever is open is returned.

    Raises:
        ConfigurationError: If one of that name is open with other options.
        LaunchError: If no child can be started here.
    """
    name = str(options.pop("name", "streamlit"))
    if get_script_run_ctx(suppress_warning=True) is not None:
        _token()  # other threads than a page's have no cache in old versions: there it would be gone at once
    kept = held()
    with kept.lock:
        found = kept.supervisors.get(name)
        if found is not None and not _is_usable(found[0]):
            _close(found[0])
            found = None
        if found is None:
            given = {"on_exit": "cancel", **options}  # a server that is told to stop does not wait for hours
            found = BlockingSupervisor(name=name, **given).open(), options
            kept.supervisors[name] = found
    supervisor, before = found
    different = [key for key in {**before, **options} if _plain(before.get(key)) != _plain(options.get(key))]
    if options and different:
        raise ConfigurationError(
            different[0],
            f"is not what supervisor {name!r} was opened with; clear Streamlit's caches (key C) to open it anew, "
            "or give this one a name of its own: get_supervisor(name=…)",
        )
    return supervisor


def _is_usable(supervisor: BlockingSupervisor) -> bool:
    if type(supervisor) is not BlockingSupervisor:
        return False  # made by a module that was imported anew since: it would not know our jobs
    try:
        return supervisor.statistics().state != "closed"
    except SupervisorClosed:
        return False


def _plain(value: Any) -> Any:
    """Make options comparable: each rerun makes its functions anew."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return getattr(value, "__qualname__", value) if callable(value) else value


def remember(kept: Held, identity: str, watch: Watch) -> None:
    """Keep a job that begins; drops the results of those that ended long ago."""
    with kept.lock:
        kept.watches[identity] = watch
        over = [name for name, each in kept.watches.items() if each is not None and each.is_over]
        for name in over[:-_MOST_FINISHED]:
            kept.watches[name] = None
