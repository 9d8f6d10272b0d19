"""How the app `apps/naive.py` is frozen, by an author who has not heard of our hooks."""

from __future__ import annotations

from pathlib import Path

APPS = Path(__file__).parents[1] / "frozen" / "apps"
NAIVE = {
    "app.py": (APPS / "naive.py").read_text("utf-8"),
    "chores_of_app.py": (APPS / "chores_of_app.py").read_text("utf-8"),
    "count_starts.py": (APPS / "count_starts.py").read_text("utf-8"),
}
# What such an author would find out alone: that names which are imported late have to be named.
NAIVE_OPTIONS = [
    "--runtime-hook=count_starts.py",
    *("--collect-submodules=orchestrator", "--collect-submodules=anyio", "--copy-metadata=subprocess-orchestrator"),
]
