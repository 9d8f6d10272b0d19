"""What importing job code for models costs, and what is said when a client is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

CLIENTS = {"google", "openai", "httpx", "httpx2", "pydantic", "jsonschema"}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_client_is_imported_before_the_first_call() -> None:
    loaded = python("import sys, orchestrator_adapters.gemini, orchestrator_adapters.openai; print(*sys.modules)")
    assert "orchestrator_adapters.openai" in loaded.split()
    assert not CLIENTS & set(loaded.split())


@pytest.mark.parametrize(("api", "package"), [("gemini", "google.genai"), ("openai", "openai")])
@pytest.mark.parametrize("call", ["{api}.generate('x', model='m')", "asyncio.run({api}.aio.generate('x', model='m'))"])
def test_a_client_that_is_missing_is_named_with_its_extra(api: str, package: str, call: str) -> None:
    code = f"""
import asyncio, os, sys
from orchestrator_adapters import {api}

sys.modules[{package!r}] = None
os.environ["{api.upper()}_API_KEY"] = "a-key-of-no-use"
try:
    {call.format(api=api)}
except ImportError as error:
    print(error)
"""
    assert f"subprocess-orchestrator[{api}]" in python(code)


def test_the_key_is_taken_without_the_line_end_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator_adapters.llm import Refused
    from orchestrator_adapters.llm._clients import secret

    monkeypatch.setenv("A_KEY", "abcdef\n")
    assert secret("A_KEY") == "abcdef"
    monkeypatch.setenv("A_KEY", " \n")
    with pytest.raises(Refused, match="A_KEY is not set"):
        secret("A_KEY")
