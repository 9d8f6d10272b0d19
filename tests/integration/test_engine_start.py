"""Children that do not start: callers learn why, nothing storms, and a pool that works again is used again."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dying
import preloads
import pytest
import samples

from orchestrator import Job, RestartPolicy, Supervisor
from orchestrator.exceptions import JobCrashed, JobExpired, JobFailed, LaunchError, PoolBroken

QUICK = RestartPolicy(max_restarts=2, backoff=0.01, max_backoff=0.02, window=60, cooldown=0.2)


@dataclass
class Scene:
    """Where a preload counts its starts, and the flag it asks for."""

    starts_file: Path
    flag: Path

    @property
    def env(self) -> dict[str, str]:
        return {"PRELOAD_STARTS": str(self.starts_file), "PRELOAD_FLAG": str(self.flag)}

    @property
    def starts(self) -> int:
        return len(self.starts_file.read_bytes())


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "starts", tmp_path / "flag")


async def test_a_preload_that_raises_breaks_the_pool_and_shows_its_stderr(scene: Scene) -> None:
    preload = ["preloads:fail_without_flag"]
    async with Supervisor(workers=2, preload=preload, env=scene.env, restart=QUICK) as supervisor:
        callers = [asyncio.create_task(supervisor.run(dying.pid)) for _ in range(3)]
        for caller in callers:  # those who wait already
            with pytest.raises(PoolBroken, match="missing libpreload.so.7") as caught:
                await caller
            certificate = caught.value.certificate
            assert certificate is not None and certificate.phase == "starting"
            assert certificate.exit_code == 1
            assert any("the flag is not there" in line for line in certificate.stderr)
        with pytest.raises(PoolBroken, match="the flag is not there"):  # a new one
            await supervisor.run(dying.pid)
        with pytest.raises(PoolBroken):
            await supervisor.submit(dying.pid)
        with pytest.raises(PoolBroken):
            async with supervisor.map(preloads.modules, ["a", "b"]) as outcomes:
                async for _ in outcomes:
                    pass
        statistics = supervisor.statistics()
        assert statistics.state == "broken"
        assert statistics.broken_reason
        assert statistics.submitted == 3 and sum(statistics.settled.values()) == 3
    assert scene.starts <= 2 * (1 + 2)


async def test_a_broken_pool_goes_on_with_the_children_it_has(scene: Scene) -> None:
    scene.flag.touch()
    preload = ["preloads:fail_without_flag"]
    async with Supervisor(workers=2, preload=preload, env=scene.env, restart=QUICK) as supervisor:
        pid = await supervisor.run(dying.pid)
        scene.flag.unlink()
        async with asyncio.timeout(30):
            for _ in range(2):  # one that waited while the pool broke, and a new one
                with pytest.raises(PoolBroken, match="the flag is not there"):  # it needs a child of its own flavour
                    await supervisor.run(samples.add_async, 1, 2)
            assert await supervisor.run(dying.pid) == pid


async def test_a_child_that_exits_in_preload(scene: Scene) -> None:
    async with Supervisor(
        workers=1, preload=["preloads:exit_without_flag"], env=scene.env, restart=QUICK
    ) as supervisor:
        with pytest.raises(PoolBroken, match="bailing out") as caught:
            await supervisor.run(dying.pid)
        assert caught.value.certificate is not None
        assert caught.value.certificate.exit_code == 44


async def test_a_module_that_is_missing_in_preload() -> None:
    async with Supervisor(workers=1, preload=["no_such_module_anywhere"], restart=QUICK) as supervisor:
        with pytest.raises(PoolBroken, match="no_such_module_anywhere"):
            await supervisor.run(dying.pid)


async def test_a_canary_repairs_the_pool(scene: Scene) -> None:
    preload = ["preloads:fail_without_flag"]
    async with Supervisor(workers=3, preload=preload, env=scene.env, restart=QUICK) as supervisor:
        with pytest.raises(PoolBroken):
            await supervisor.run(dying.pid)
        scene.flag.touch()
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await supervisor.run(dying.size_of, "abc") == 3
                    break
                except PoolBroken:
                    await asyncio.sleep(0.05)  # new calls are refused, not held, so only asking again tells
        assert supervisor.statistics().state == "open"
        assert supervisor.statistics().broken_reason is None


async def test_a_broken_pool_does_not_storm(scene: Scene) -> None:
    policy = RestartPolicy(max_restarts=1, backoff=0.01, max_backoff=0.01, window=60, cooldown=60)
    preload = ["preloads:exit_without_flag"]
    async with Supervisor(workers=8, preload=preload, env=scene.env, restart=policy) as supervisor:
        for _ in range(20):
            with pytest.raises(PoolBroken):
                await supervisor.run(dying.pid)
        assert scene.starts <= 5


async def test_early_failures_that_mend_are_not_seen_by_callers(scene: Scene) -> None:
    preload = ["preloads:fail_without_flag"]
    policy = RestartPolicy(max_restarts=50, backoff=0.02, max_backoff=0.05)
    async with Supervisor(workers=1, preload=preload, env=scene.env, restart=policy) as supervisor:
        job = asyncio.create_task(supervisor.run(dying.size_of, "abc"))
        while not scene.starts_file.exists() or scene.starts < 2:  # noqa: ASYNC110  a file tells nobody
            await asyncio.sleep(0.01)
        scene.flag.touch()
        assert await job == 3
        assert supervisor.statistics().restarts >= 1


async def test_a_command_that_does_not_exist() -> None:
    supervisor = Supervisor(workers=1, command=["/no/such/python"])
    with pytest.raises(LaunchError, match="/no/such/python"):
        async with supervisor:
            raise AssertionError("entered")


async def test_a_command_that_is_no_program(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("no program")
    with pytest.raises(LaunchError, match="text"):
        async with Supervisor(workers=1, command=[str(path)]):
            raise AssertionError("entered")


@pytest.mark.skipif(sys.platform == "win32", reason="needs /bin/false")
async def test_a_command_that_exits_at_once() -> None:
    false = next(path for path in ("/bin/false", "/usr/bin/false") if Path(path).exists())
    async with Supervisor(workers=1, command=[false], restart=QUICK) as supervisor:
        with pytest.raises(PoolBroken, match="exited with code 1"):
            await supervisor.run(dying.pid)


@pytest.mark.skipif(sys.platform == "win32", reason="needs /bin/cat")
async def test_a_command_that_speaks_another_language() -> None:
    cat = next(path for path in ("/bin/cat", "/usr/bin/cat") if Path(path).exists())
    async with Supervisor(workers=1, command=[cat], restart=QUICK, start_timeout=20) as supervisor:
        with pytest.raises(PoolBroken):
            await supervisor.run(dying.pid)


async def test_the_given_command_is_used() -> None:
    # Its own flags reach it; our sys.path does not, for it may be another interpreter with packages of its own.
    async with Supervisor(workers=1, command=[sys.executable, "-X", "dev"]) as supervisor:
        assert await supervisor.run("sys:flags.dev_mode.__bool__") is True
        with pytest.raises(JobFailed, match="No module named 'dying'"):
            await supervisor.run(dying.pid)


async def test_a_child_that_never_becomes_ready(scene: Scene) -> None:
    policy = RestartPolicy(max_restarts=0, backoff=0.01, cooldown=60)
    preload = ["preloads:hang"]
    async with Supervisor(workers=1, preload=preload, env=scene.env, restart=policy, start_timeout=1) as supervisor:
        with pytest.raises(PoolBroken, match="not ready within 1 s") as caught:
            await supervisor.run(dying.pid)
        assert caught.value.certificate is not None
        assert caught.value.certificate.phase == "starting"


async def test_children_that_hang_in_preload_count_for_the_whole_pool(scene: Scene) -> None:
    preload = ["preloads:hang"]
    options: Any = {"preload": preload, "env": scene.env, "restart": QUICK, "start_timeout": 0.5}
    async with Supervisor(workers=3, **options) as supervisor:
        for outcome in await asyncio.gather(*(supervisor.run(dying.pid) for _ in range(3)), return_exceptions=True):
            assert isinstance(outcome, PoolBroken)
    # The first start of each worker may be on its way at once; after a failure they are tried one by one.
    assert scene.starts <= 3 + QUICK.max_restarts + 1


async def test_closing_does_not_wait_for_a_child_that_starts(scene: Scene) -> None:
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="of the body"):
        async with Supervisor(workers=1, preload=["preloads:hang"], env=scene.env):
            raise RuntimeError("of the body")
    assert time.monotonic() - start < 4  # a child that is ready is asked, and would have 5 s


async def test_a_queued_job_expires_while_nothing_starts(scene: Scene) -> None:
    async with Supervisor(workers=1, preload=["preloads:hang"], env=scene.env) as supervisor:
        with pytest.raises(JobExpired, match="queue_timeout"):
            await supervisor.run(Job(dying.pid, queue_timeout=0.1))


async def test_preload_happens_before_the_first_job() -> None:
    async with Supervisor(workers=1, preload=["preloads:announce", "colorsys"]) as supervisor:
        assert await supervisor.run(preloads.preloaded) == "yes"
        assert await supervisor.run(preloads.modules, "colorsys", "wave") == [True, False]


async def test_a_temp_folder_that_a_cleaner_removed_is_made_again() -> None:
    async with Supervisor(workers=1) as supervisor:
        folder = Path(await supervisor.run(tempfile.gettempdir)).parent
        shutil.rmtree(folder)
        with pytest.raises(JobCrashed):
            await supervisor.run(os._exit, 3)
        assert Path(await supervisor.run(tempfile.gettempdir)).parent.is_dir()


async def test_a_child_that_gets_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quick = RestartPolicy(max_restarts=0, backoff=0.01, cooldown=60)
    async with Supervisor(workers=1, restart=quick) as supervisor:
        folder = Path(await supervisor.run(tempfile.gettempdir)).parent
        shutil.rmtree(folder)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
        with pytest.raises(JobCrashed):
            await supervisor.run(os._exit, 3)
        with pytest.raises(PoolBroken, match="cannot make a folder"):
            await supervisor.run(tempfile.gettempdir)
