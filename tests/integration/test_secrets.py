"""Secrets reach the jobs, and nothing else: no process list, environment block, log, error, journal or file."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any, cast

import pytest
import samples
import secretive

from orchestrator import BlockingSupervisor, Job, Journal, RestartPolicy, Supervisor
from orchestrator._options import Options
from orchestrator.exceptions import ConfigurationError, JobError, LaunchError, PoolBroken

KEY = 'sk-live-7f"quo\\te-ünï-漢字-0123456789'
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
QUICK = RestartPolicy(backoff=0.01, max_backoff=0.02, max_restarts=2)
MARK = "[secret SECRETIVE_KEY]"
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc")


def pieces(text: str) -> list[str]:
    """Return which telling pieces of the secret are in a text, each with what stands around it."""
    found = [piece for piece in ("sk-live", "0123456789", "ünï", "u00fcn", "%C3%BC", "xc3\\xbc") if piece in text]
    return [text[max(0, text.find(piece) - 200) : text.find(piece) + 100] for piece in found]


def all_of(error: BaseException | None) -> str:
    """Return everything that an error says."""
    if error is None:
        return ""
    parts = [str(error), repr(error), "".join(traceback.format_exception(error)), *map(repr, vars(error).values())]
    return "\n".join(parts)


def contents(*folders: Path) -> list[str]:
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return [file.read_bytes().decode("utf-8", "replace") for file in files]


@linux
@pytest.mark.parametrize("isolation", ["process", "inline"])
async def test_nothing_that_a_run_leaves_or_prints_has_it(
    isolation: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DEBUG", "1")
    caplog.set_level(logging.DEBUG, "orchestrator")
    said: list[Any] = []
    texts: list[str] = []
    jobs: list[Any] = [secretive.fail, secretive.return_it, secretive.fail_async]
    if isolation == "process":  # what jobs print here goes where the host's prints go
        jobs += [secretive.tell, secretive.crash]
    secrets: dict[str, Any] = {secretive.NAME: lambda: KEY}
    journal = Journal(tmp_path / "journal.db")
    async with Supervisor(workers=2, secrets=secrets, journal=journal, isolation=isolation) as supervisor:
        assert await supervisor.run(secretive.digest) == DIGEST
        for job in jobs:
            handle = await supervisor.submit(Job(job, key=job.__name__))
            said += [event async for event in handle.events()]
            outcome = await handle.outcome()
            assert outcome.succeeded is (job is secretive.tell)
            texts.append(all_of(outcome.error))
            assert outcome.succeeded or MARK in texts[-1]
        if isolation == "process":
            line, block = await supervisor.run(secretive.look)
            assert "orchestrator-child" in line and "PATH=" in block and secretive.NAME not in block
            texts += [line, block]
        texts += [repr(supervisor.statistics()), repr(supervisor)]
        texts += contents(Path(tempfile.gettempdir()), tmp_path)
    texts += contents(tmp_path)
    assert any(MARK in text for text in contents(tmp_path))
    texts += map(repr, said)
    logged = [record for record in caplog.records if record.name == "orchestrator"]
    texts += [record.getMessage() for record in logged]
    texts += capfd.readouterr()
    assert [around for text in texts for around in pieces(text)] == []
    if isolation == "process":
        streams = {event.stream for event in said if event.kind == "log" and MARK in event.text}
        assert streams >= {"stdout", "stderr", "logging", "warnings", "log"}
        assert any(event.kind == "log" and MARK in repr(event.fields) for event in said)
        frames = [record for record in logged if "child.frame" in record.getMessage()]
        assert any('"type":"init"' in record.getMessage() and MARK in record.getMessage() for record in frames)
        # What came through the stderr pipe of the child that died, as its certificate has it.
        assert any("dying with" in text and MARK in text for text in texts)
    assert any(event.kind == "progress" and MARK in event.text for event in said)


@pytest.mark.parametrize("isolation", ["process", "inline"])
async def test_where_values_come_from(isolation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(secretive.NAME, raising=False)
    threads: list[int] = []

    def ask() -> str:
        threads.append(threading.get_ident())
        return KEY

    for secrets in ({secretive.NAME: KEY}, {secretive.NAME: ask}):
        async with Supervisor(workers=1, secrets=secrets, isolation=isolation) as supervisor:
            assert await supervisor.run(secretive.digest) == DIGEST
        assert secretive.NAME not in os.environ
    assert len(threads) == 1 and threading.get_ident() not in threads
    monkeypatch.setenv(secretive.NAME, KEY)
    async with Supervisor(workers=1, secrets=[secretive.NAME], isolation=isolation) as supervisor:
        assert await supervisor.run(secretive.digest) == DIGEST
    assert os.environ[secretive.NAME] == KEY


async def test_functions_are_asked_for_each_child() -> None:
    values = iter(f"value-number-{number}" for number in range(100))
    async with Supervisor(workers=1, max_jobs=1, secrets={secretive.NAME: lambda: next(values)}) as supervisor:
        found = [await supervisor.run(secretive.digest) for _ in range(3)]
    expected = {hashlib.sha256(f"value-number-{number}".encode()).hexdigest() for number in range(4)}
    assert len(set(found)) == 3 and set(found) <= expected


@pytest.mark.parametrize("isolation", ["process", "inline"])
@pytest.mark.parametrize(
    ("problem", "answer"),
    [("raised ValueError", lambda: int(KEY)), ("an empty string", lambda: ""), ("returned int", lambda: 7)],
)
async def test_functions_that_return_no_value(isolation: Any, problem: str, answer: Any) -> None:
    with pytest.raises(LaunchError, match=problem) as refused:
        await Supervisor(workers=1, secrets={secretive.NAME: answer}, isolation=isolation).__aenter__()
    assert not pieces(all_of(refused.value))


@pytest.mark.parametrize("isolation", ["process", "inline"])
async def test_a_function_that_does_not_return(isolation: Any) -> None:
    gate = threading.Event()

    def wait() -> str:
        gate.wait(30)
        return KEY

    try:
        with pytest.raises(LaunchError, match="within start_timeout"):
            given: dict[str, Any] = {"secrets": {secretive.NAME: wait}, "start_timeout": 0.2}
            await Supervisor(workers=1, isolation=isolation, **given).__aenter__()
        # The next child's may hang as well: a stop does not wait for it.
        calls: list[int] = []
        asked_again = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait_later() -> str:
            calls.append(1)
            if len(calls) == 1:
                return KEY
            loop.call_soon_threadsafe(asked_again.set)
            return wait()

        async with asyncio.timeout(30):
            given = {"secrets": {secretive.NAME: wait_later}, "max_jobs": 1, "on_exit": "cancel"}
            async with Supervisor(workers=1, isolation=isolation, **given) as supervisor:
                await supervisor.run(samples.add, 1, 2)
                await supervisor.submit(samples.add, 1, 2)
                await asked_again.wait()
    finally:
        gate.set()
        for thread in threading.enumerate():
            if thread.name == "orchestrator secrets":
                thread.join(30)


@pytest.mark.parametrize(
    ("secrets", "problem"),
    [
        ({"A": None}, "has no value"),
        ({"A": ""}, "has no value"),
        ({"A": 7}, "must be a string or a plain function"),
        ({"A": "nul\0"}, "null character"),
        ({KEY: "x"}, "not the name"),
        ([KEY], "not the name"),
        (KEY, "list of strings"),
        (["NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE"),
    ],
)
def test_what_cannot_be_a_secret(secrets: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as refused:
        Supervisor(secrets=secrets)
    assert not pieces(str(refused.value))


def test_options_do_not_show_values() -> None:
    assert not pieces(repr(Options(secrets={"A": KEY})))

    async def later() -> str:
        return KEY

    with pytest.raises(ConfigurationError, match="plain function"):
        Supervisor(secrets=cast("Any", {"A": later}))


def test_short_values_are_left_alone_and_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    with BlockingSupervisor(workers=1, secrets={secretive.NAME: "12345", "OTHER": KEY}) as supervisor:
        with pytest.raises(JobError, match="cannot go on with 12345"):
            supervisor.run(secretive.fail)
        supervisor.scale(2)
    (warned,) = [record for record in caplog.records if record.getMessage().startswith("secret.left_readable")]
    assert warned.levelno == logging.WARNING and secretive.NAME in warned.getMessage()
    assert "OTHER" not in warned.getMessage() and "12345" not in warned.getMessage()


@pytest.mark.parametrize("isolation", ["process", "inline"])
async def test_a_start_that_fails_does_not_tell(isolation: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "orchestrator")
    given: dict[str, Any] = {"preload": ["secretive:preload_fails"], "restart": QUICK, "isolation": isolation}
    async with Supervisor(workers=1, secrets={secretive.NAME: KEY}, **given) as supervisor:
        with pytest.raises(PoolBroken, match="no module for") as broken:
            await supervisor.run(samples.add, 1, 2)
        texts = [all_of(broken.value), repr(supervisor.statistics())]
    texts += [record.getMessage() for record in caplog.records]
    assert [around for text in texts for around in pieces(text)] == []
    assert MARK in texts[0]
