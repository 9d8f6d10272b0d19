"""What a start of a frozen app says, or does not say, and what is made of it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from orchestrator import _frozen, _handshake
from orchestrator._first_start import FirstStart
from orchestrator._pipes import make_pipes
from orchestrator._spawn import spawn
from orchestrator._stderr import StderrReader
from orchestrator.exceptions import LaunchError, SelfSpawnError

DEADLINE = 30.0


@pytest.fixture(autouse=True)
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "app"
    path.write_text("")
    monkeypatch.setattr(_frozen, "executable", lambda: str(path))
    monkeypatch.setattr(_frozen, "_child", False)
    monkeypatch.setattr(_handshake, "_proof", _handshake._Proof())


async def watch(code: str, *, timeout: float = DEADLINE, hello: bytes = b"", kill: bool = False) -> bool:
    """Watch a process that runs `code` and count one that says `hello` as a child."""
    trial = await _handshake.begin()
    assert trial is not None
    first = FirstStart(trial, timeout)
    pipes = make_pipes()
    process = await spawn([sys.executable, "-c", code], pipes, env=os.environ)
    stderr = StderrReader(lambda lines, dropped: None)
    heard = b""

    def hear(data: bytes) -> None:
        nonlocal heard
        if first.is_foreign(data):
            return
        heard += data
        if hello and hello in heard:
            first.said_hello()

    pipes.attach(process, hear, lambda: None, stderr.feed)
    if kill:
        asyncio.get_running_loop().call_soon(first.cancel)
    try:
        return await first.watch(process, pipes, stderr)
    finally:
        trial.end()
        if process.returncode is None:
            process.kill()
        await process.wait()
        await pipes.aclose()


async def test_a_hello_proves_it() -> None:
    code = 'import sys; print(\'{"type": "hello"}\', flush=True); sys.stdin.read()'
    assert await watch(code, hello=b"hello")
    assert _handshake._proof.proved


async def test_a_hello_right_before_the_end_counts() -> None:
    assert await watch('print(\'{"type": "hello"}\', flush=True)', hello=b"hello")


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise SystemExit(3)", "it ended with code 3 without a hello"),
        ("import sys; sys.exit('no display')", "its last words were:\nno display"),
        ("print('Menu:', flush=True); import sys; sys.stdin.read()", "its first output was b'Menu:"),
        ("print('bye')", "its first output was b'bye"),
    ],
)
async def test_anything_else_ends_it_for_good(code: str, problem: str) -> None:
    with pytest.raises(SelfSpawnError) as refused:
        await watch(code)
    assert problem in str(refused.value)
    assert problem in _handshake._proof.failure


async def test_silence_ends_it_for_good() -> None:
    with pytest.raises(SelfSpawnError, match=r"did not say hello within 0.3 s"):
        await watch("import sys; sys.stdin.read()", timeout=0.3)
    assert _handshake._proof.failure


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
async def test_one_that_somebody_killed_proves_nothing() -> None:
    with pytest.raises(LaunchError, match="was ended by SIGKILL") as error:
        await watch("import os; os.kill(os.getpid(), 9)")
    assert not isinstance(error.value, SelfSpawnError)
    assert not _handshake._proof.failure and not _handshake._proof.on_trial


async def test_one_that_is_stopped_on_purpose_is_no_failure() -> None:
    assert not await watch("import sys; sys.stdin.read()", kill=True)
    assert not _handshake._proof.failure and not _handshake._proof.proved
