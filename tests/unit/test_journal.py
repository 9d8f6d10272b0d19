"""What a journal may be given; nothing touches the disk before it is opened."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Journal
from orchestrator.exceptions import ConfigurationError


def test_a_journal_is_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal("runs.db", durability="power", keep=timedelta(days=1))
    assert journal == Journal(tmp_path / "runs.db", durability="power", keep=86_400)
    assert journal.path == str(tmp_path / "runs.db")
    assert Journal("x").durability == "process"
    assert Journal("x", keep=None).keep is None
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"path": ""}, "journal.path"),
        ({"path": "a\0b"}, "journal.path"),
        ({"path": 3}, "journal.path"),
        ({"path": b"bytes"}, "journal.path"),
        ({"path": "x", "durability": "some"}, "journal.durability"),
        ({"path": "x", "keep": 0}, "journal.keep"),
        ({"path": "x", "keep": -1}, "journal.keep"),
        ({"path": "x", "keep": "week"}, "journal.keep"),
    ],
)
def test_what_cannot_be_is_named(options: Any, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Journal(**options)
    assert caught.value.field == field
