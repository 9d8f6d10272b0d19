"""Finds the job that a call on a page means: the one that runs already, the one that ended, or a new one."""

from __future__ import annotations

import hashlib
import json
import pickle
import uuid
from typing import TYPE_CHECKING, Any

import streamlit as st

from orchestrator import Job, callback
from orchestrator.exceptions import ConfigurationError, OrchestratorError
from orchestrator_adapters.streamlit._bar import bar
from orchestrator_adapters.streamlit._server import get_supervisor, held, remember
from orchestrator_adapters.streamlit._watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator import BlockingSupervisor


class Forgotten(Exception):
    """The job ended so long ago that its result is not kept any more."""


def job_of(target: Callable[..., Any] | str | Job, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job:
    """Return the job of a call."""
    if not isinstance(target, Job):
        return Job(target, args=args, kwargs=kwargs)
    if args or kwargs:
        raise ConfigurationError("job", "has its arguments already; run_with_progress(job) takes no more")
    return target


def name_of(job: Job) -> str:
    """Return what a page calls the job by default."""
    target = job.target if isinstance(job.target, str) else getattr(job.target, "__qualname__", "job")
    return target.rpartition(":")[2]


class Session:
    """How one call on a page knows its job.

    Without a key the call is known by its target and arguments, and its job is forgotten once it has returned: as with
    any function, the next call runs it anew. With a key the job is known by that, and remembered.
    """

    def __init__(self, job: Job, key: str | None, *, shared: bool) -> None:
        self._kept = held()
        self._job = job
        self._shared = shared
        self._is_named = key is not None
        self._name = f"orchestrator.{key if key is not None else _digest(job)}"

    def find(
        self, label: str | None, *, start: bool | None, supervisor: BlockingSupervisor | None
    ) -> tuple[Watch | None, bool]:
        """Return the job's watch, or None if there is none to show; and whether it was started just now.

        Raises:
            Forgotten: It ended, and its result was dropped.
        """
        identity = self._identity()
        with self._kept.lock:
            known = identity in self._kept.watches
            watch = None if identity is None else self._kept.watches.get(identity)
        if watch is not None and (start is not True or not watch.is_over):
            watch.attach(self._job)
            return watch, False
        if start is False:
            if known:
                raise Forgotten
            return None, False
        if known and watch is None and start is None:
            raise Forgotten
        return self._start(label, supervisor), True

    def _start(self, label: str | None, supervisor: BlockingSupervisor | None) -> Watch:
        watch = Watch(uuid.uuid4().hex, label or name_of(self._job))
        # First the note, then the job: Streamlit may interrupt this page where it writes the note, and a job that
        # nobody has a note of would be started a second time.
        self._note(watch.identity)
        remember(self._kept, watch.identity, watch)
        try:
            watch.start(supervisor or get_supervisor(), self._job)
        except OrchestratorError as error:
            watch.refuse(error)
            self._drop(watch)  # who corrects the mistake gets another try
        except BaseException:
            self._drop(watch)
            raise
        return watch

    def _identity(self) -> str | None:
        if self._shared:
            with self._kept.lock:
                return self._kept.shared.get(self._name)
        found = st.session_state.get(self._name)
        return found if isinstance(found, str) else None

    def _note(self, identity: str) -> None:
        if self._shared:
            with self._kept.lock:
                self._kept.shared[self._name] = identity
        else:
            st.session_state[self._name] = identity

    def _drop(self, watch: Watch) -> None:
        with self._kept.lock:
            self._kept.watches.pop(watch.identity, None)

    def returned(self, watch: Watch) -> None:
        """Note that a job that is over was shown to its end."""
        if not self._is_named:
            self._drop(watch)


def _digest(job: Job) -> str:
    """Return what a call without a key is known by."""
    target = job.target if isinstance(job.target, str) else f"{job.target.__module__}:{name_of(job)}"
    try:
        values = json.dumps([list(job.args), dict(job.kwargs), job.init], sort_keys=True, default=_stable)
    except (TypeError, ValueError, AttributeError, pickle.PicklingError):
        raise ConfigurationError(
            "key", "is needed here: the arguments cannot be recognised when the page runs again"
        ) from None
    return hashlib.sha256(f"{target} {values}".encode()).hexdigest()


def _stable(value: Any) -> str:
    if isinstance(value, callback | bar):
        return "callback"
    return pickle.dumps(value).hex()
