"""The worked example runs as its page says, and what is killed in it goes on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "llm_batch.py"

# It makes an environment of its own first, which takes half a minute.
pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(os.environ.get("ORCHESTRATOR_VENV") == "none", reason="it needs packages of its own"),
]


def test_one_command_kills_a_run_goes_on_and_finds_what_it_made(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--folder", str(tmp_path), "--records", "900", "--kill"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in (tmp_path / "enriched.jsonl").read_text("utf-8").splitlines()]
    asked = [json.loads(line) for line in (tmp_path / "emoji.jsonl").read_text("utf-8").splitlines()]
    assert [record["emoji"] for record in records] == [record["emoji"] for record in asked] and len(records) == 900
    assert all(len(record["vector"]) == 64 and record["uses"] for record in records)
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert metrics["successful"] == 900 and metrics["resumed"] >= 250
    counted = re.search(r"requests (\d+), answered (\d+), refused", done.stdout)
    # What was under way when the run was killed was asked for again.
    assert counted and 900 <= int(counted[2]) <= 906 and metrics["usage_requests"] <= int(counted[1])
    peak = re.search(r"at most (\d+) of 100 requests in any 1 s, never more than (\d+) requests", done.stdout)
    assert peak and int(peak[1]) <= 100 and int(peak[2]) <= 6
    assert "is near" in done.stdout
