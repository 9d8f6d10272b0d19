"""Hosts of all kinds that run the same job: `python pins_host.py KIND URL PINS`; prints what came back as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from orchestrator import BlockingSupervisor, Job, Supervisor, callback

TARGET = "pins.publisher:Publisher.publish"

CELL = """
from orchestrator import BlockingSupervisor, Job, callback

with BlockingSupervisor(workers=1) as supervisor:
    job = Job(TARGET, init={"site": URL}, args=(PINS,), kwargs={"progress_callback": callback(note)})
    ids = supervisor.run(job)
"""

APP = """
import streamlit as st
from orchestrator import BlockingSupervisor, Job, callback

@st.cache_resource
def get():
    return BlockingSupervisor(workers=1).open()

bar = st.progress(0.0)
seen = []

def note(done, total, title):
    seen.append([done, total, title])
    bar.progress(done / total, title)

job = Job(TARGET, init={"site": URL}, args=(PINS,), kwargs={"progress_callback": callback(note)})
st.session_state.answer = {"ids": get().run(job), "progress": seen}
get().close()
"""


async def cannot(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError


class NoSubprocesses(asyncio.SelectorEventLoop):
    """As Windows' selector loop is, which hosts ask for in the name of tornado."""

    _make_subprocess_transport = cannot


@contextlib.contextmanager
def old_policy() -> Iterator[None]:
    """Install what Streamlit up to 1.56 and Jupyter's server install on Windows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)

        class Policy(asyncio.DefaultEventLoopPolicy):
            _loop_factory = NoSubprocesses

        asyncio.set_event_loop_policy(Policy())
    yield


def job(url: str, pins: list[Any], note: Callable[..., None]) -> Job:
    return Job(TARGET, init={"site": url}, args=(pins,), kwargs={"progress_callback": callback(note)})


def direct(url: str, pins: list[Any]) -> dict[str, Any]:
    """Call it as the host itself, and say how that ended."""
    import gc

    from pins.publisher import Publisher

    seen: list[Any] = []
    try:
        ids = Publisher(url).publish(pins, progress_callback=lambda *call: seen.append(call))
    except BaseException as error:
        found = {"error": type(error).__name__, "text": str(error)}
        del error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Playwright drops half-made
            gc.collect()
        return found
    return {"ids": ids, "progress": seen}


def blocking(url: str, pins: list[Any]) -> dict[str, Any]:
    seen: list[Any] = []
    here = threading.get_ident()

    def note(*call: Any) -> None:
        assert threading.get_ident() == here, "a user interface may be touched by its own thread only"
        seen.append(call)

    with BlockingSupervisor(workers=1) as supervisor:
        return {"ids": supervisor.run(job(url, pins, note)), "progress": seen}


async def awaited(url: str, pins: list[Any]) -> dict[str, Any]:
    seen: list[Any] = []
    async with Supervisor(workers=1) as supervisor:
        return {"ids": await supervisor.run(job(url, pins, lambda *call: seen.append(call))), "progress": seen}


async def notebook(url: str, pins: list[Any]) -> dict[str, Any]:
    """Run a cell as ipykernel does: its code is sync, and the thread's loop runs beneath it."""
    seen: list[Any] = []
    cell = {"__name__": "__main__", "URL": url, "PINS": pins, "TARGET": TARGET, "note": lambda *call: seen.append(call)}
    exec(compile(CELL, "<ipython-input-1>", "exec"), cell)
    return {"ids": cell["ids"], "progress": seen}


async def direct_in_loop(url: str, pins: list[Any]) -> dict[str, Any]:
    return direct(url, pins)


def streamlit(url: str, pins: list[Any]) -> dict[str, Any]:
    """Run a script in the thread that Streamlit makes for it."""
    from streamlit.testing.v1 import AppTest

    given = f"URL, PINS, TARGET = {url!r}, {pins!r}, {TARGET!r}\n"
    app = AppTest.from_string(given + APP, default_timeout=120).run()
    assert not app.exception, app.exception
    answer = app.session_state.answer
    assert isinstance(answer, dict)
    return answer


def main(kind: str, url: str, path: str) -> None:
    print("the host's main module ran", file=sys.stderr)
    with open(path, encoding="utf-8") as file:
        pins = json.load(file)
    way, _, loops = kind.partition("-")
    with old_policy() if loops == "old" else contextlib.nullcontext():
        found: Any = globals()[way](url, pins)
        if asyncio.iscoroutine(found):
            found = asyncio.run(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
