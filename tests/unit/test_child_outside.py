"""Job code outside any supervisor: each function of `orchestrator.child` does nothing, or does it here."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator import child
from orchestrator.child import _cache, _scope


@pytest.fixture(autouse=True)
def no_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scope.local_resources, "made", {})


def test_what_it_would_say_goes_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    child.progress(1)
    child.progress(1, 2, "half")
    child.log("a line", level="warning", page=object())
    child.emit(object())
    child.artifact("/no/such/file")
    assert capsys.readouterr() == ("", "")


def test_nobody_asks_it_to_stop() -> None:
    assert child.stop_requested() is False


def test_permits_are_granted_at_once() -> None:
    with child.permit("api") as permit, child.permit("api", weight=10**9):
        permit.throttled(retry_after=60)

    async def ask() -> str:
        async with child.permit("api") as permit:
            permit.throttled(60)
            return "granted"

    assert asyncio.run(ask()) == "granted"
    with pytest.raises(LookupError), child.permit("api"):
        raise LookupError


def test_the_cache_is_a_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cache, "_local", {})
    calls: list[Any] = []

    def compute() -> Any:
        calls.append("one")
        return {"value": [1, 2]}

    def compute_many(keys: list[Any]) -> list[Any]:
        calls.append(keys)
        return [key * 2 for key in keys]

    async def compute_async() -> str:
        calls.append("async")
        return "value"

    cache = child.cache("a")
    first = cache.get_or_compute({"b": 1, "a": 2}, compute)
    first["value"].append("changed by its owner")
    assert cache.get_or_compute({"a": 2, "b": 1}, compute) == {"value": [1, 2]}
    assert child.cache("b").get_or_compute({"a": 2, "b": 1}, compute) == {"value": [1, 2]}
    assert cache.get_many([1, 2, 1], compute_many) == [2, 4, 2]
    assert cache.get_many([3, 2], compute_many) == [6, 4]
    for _ in range(2):
        assert asyncio.run(cache.get_or_compute("key", compute_async)) == "value"
    assert calls == ["one", "one", [1, 2], [3], "async"]
    with pytest.raises(LookupError):
        cache.get_or_compute("other", lambda: {}["none"])
    with pytest.raises(TypeError, match="is not a JSON type"):
        cache.get_or_compute("other", lambda: object())
    assert cache.get_or_compute("other", lambda: b"bytes") == b"bytes"
    with pytest.raises(TypeError, match="the name must be a string"):
        child.cache(1)  # type: ignore[arg-type]


def test_resources_are_kept_for_the_process() -> None:
    made: list[int] = []

    def factory() -> object:
        made.append(threading.get_ident())
        return object()

    first = child.resource("client", factory)
    assert child.resource("client", factory) is first
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(child.resource("client", factory)))
    thread.start()
    thread.join()
    assert found == [first]
    assert len(made) == 1
    assert child.resource("other", factory) is not first


def test_failed_factory_leaves_nothing() -> None:
    def broken() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        child.resource("client", broken)
    assert child.resource("client", lambda: 5) == 5


def test_async_factory_is_awaited_once() -> None:
    made: list[int] = []

    async def factory() -> int:
        await asyncio.sleep(0)
        made.append(1)
        return len(made)

    async def ask() -> list[int]:
        return await asyncio.gather(*(child.resource("client", factory) for _ in range(3)))

    assert asyncio.run(ask()) == [1, 1, 1]


def test_jobs_run_as_plain_functions() -> None:
    import chores
    import doors

    assert chores.emit_some() == "emitted"
    assert chores.progress_often(100) == 100
    assert list(chores.count_to(3)) == [0, 1, 2]
    seen: list[int] = []
    assert doors.call_many(seen.append, 3) == "called"
    assert seen == [0, 1, 2]


def test_job_code_costs_no_imports(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import sys\nfrom orchestrator import child\nchild.progress(1)\nchild.log('x')\n"
        "with child.permit('api'): pass\nchild.resource('r', dict)\n"
        "print(sorted({'asyncio', 'anyio', 'structlog', 'msgspec', 'logging'} & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"
