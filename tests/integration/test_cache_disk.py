"""A cache whose disk is full: its values are used, one line says so, and it goes on when there is room again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import caching
import pytest

from orchestrator import Supervisor
from tests.integration.test_journal_disk import small_disk

__all__ = ("small_disk",)


def fill(ballast: Path) -> None:
    """Leave no byte free."""
    size = 2**20
    with ballast.open("wb", buffering=0) as file:
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2


async def test_values_are_used_and_kept_when_there_is_room_again(
    small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = str(tmp_path / "log")
    path = small_disk / "cache.db"
    ballast = small_disk / "ballast"
    async with Supervisor(workers=2, cache=path) as supervisor:
        assert await supervisor.run(caching.look_up, log, "before") == "value"
        fill(ballast)
        for _ in range(2):
            # Small ones are here as long as the process is; large ones are computed each time.
            for key in range(30):
                value = f"{key}" * 5000
                assert await supervisor.run(caching.look_up, log, key, value) == value
            assert await supervisor.run(caching.large_text, log, "large", 400_000) == 400_000
        assert await supervisor.run(caching.look_up, log, "before") == "value"
        times = Counter(Path(log).read_text("utf-8").splitlines())
        assert times == {"before": 1, "large": 2, **{str(key): 1 for key in range(30)}}
        ballast.unlink()
        for _ in range(2):
            assert await supervisor.run(caching.large_text, log, "large", 400_000) == 400_000
            assert await supervisor.run(caching.look_up, log, "after") == "value"
    failed = [record for record in caplog.records if record.message.startswith("cache.write_failed")]
    assert len(failed) == 1
    async with Supervisor(workers=2, cache=path) as supervisor:
        for key in ("before", "after"):
            assert await supervisor.run(caching.look_up, log, key, "another") == "value"
        assert await supervisor.run(caching.large_text, log, "large", 400_000) == 400_000
    times = Counter(Path(log).read_text("utf-8").splitlines())
    assert (times["large"], times["before"], times["after"]) == (3, 1, 1)


async def test_a_full_disk_is_no_reason_to_do_without_what_is_there(small_disk: Path, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    path = small_disk / "cache.db"
    async with Supervisor(workers=1, cache=path) as supervisor:
        await supervisor.run(caching.many, log, list(range(500)))
    fill(small_disk / "ballast")
    for _ in range(2):
        async with Supervisor(workers=1, cache=path, cache_bytes=2**16) as supervisor:
            assert supervisor.statistics().cache.entries == 124
            await supervisor.run(caching.many, log, list(range(400, 500)))
    assert len(Path(log).read_text("utf-8").splitlines()) == 1
