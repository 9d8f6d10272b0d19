"""An API key stays between the environment, the child and the provider: nothing that a run leaves or says has it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import asking
import pytest
from local_llm import ModelServer

KEY = "AIzaSecret-5f1b0c77e2_D93"


@pytest.mark.parametrize("where", ["environment", "callback"])
def test_nothing_that_a_run_says_or_leaves_holds_the_key(tmp_path: Path, where: str) -> None:
    program = Path(asking.__file__).with_name("asking_secretly.py")
    temp = tmp_path / "temp"
    temp.mkdir()
    environment = {**os.environ, "ORCHESTRATOR_DEBUG": "1", "TMPDIR": str(temp), "OPENAI_LOG": "debug"}
    if where == "environment":
        environment[asking.KEY] = KEY
    with ModelServer(key=KEY) as server:
        done = subprocess.run(
            [sys.executable, str(program), server.url, str(tmp_path)],
            env=environment,
            cwd=tmp_path,
            input=b"" if where == "environment" else KEY.encode(),
            capture_output=True,
            timeout=120,
            check=False,
        )
        stats = server.stats()
    said = done.stdout + done.stderr
    assert done.returncode == 0, said.decode()
    # It looked where the key could be: requests came with it, and all the places have something to say.
    assert stats["bad_keys"] == 0 and stats["answered"] >= 6 and stats["faults"]["echo"] == 4
    assert all(word in said for word in (b"printed [secret", b"written [secret", b"logged [", b"raised [secret"))
    looked = re.search(rb"looked at (\d+) texts", said)
    assert looked and int(looked.group(1)) >= 20
    assert said.count(b"[secret THE_MODEL_KEY]") >= 4 and b"now it dies" in said and b"send_request_headers" in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    left = {str(path): path.read_bytes() for path in files}
    assert any(b"a fox" in data for data in left.values())
    places = {"output": said, **left}
    assert [name for name, data in places.items() if KEY.encode() in data] == []
