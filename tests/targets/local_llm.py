"""The local model server of scripts/, for tests and for targets that children import."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.append(str(SCRIPTS))

from _llm_faults import Fault, gemini_refusal, openai_refusal  # noqa: E402 - where they are was said above
from _llm_quota import Quota  # noqa: E402
from _llm_server import KEY, ModelServer  # noqa: E402

__all__ = ("KEY", "Fault", "ModelServer", "Quota", "configure", "gemini_refusal", "openai_refusal", "served", "stats")


@contextmanager
def served(**options: Any) -> Iterator[str]:
    """Run the server as a process of its own, so that it counts undisturbed; yields its address."""
    command = [sys.executable, str(SCRIPTS / "_llm_server.py"), "--config", json.dumps(options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        # Leaving Popen closes its standard input, with which it ends, and waits.


def stats(url: str, what: str = "stats") -> Any:
    with urlopen(f"{url}/{what}", timeout=60) as reply:
        return json.load(reply)


def configure(url: str, **options: Any) -> None:
    with urlopen(Request(f"{url}/configure", json.dumps(options).encode()), timeout=60) as reply:
        reply.read()
