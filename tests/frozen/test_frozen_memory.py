"""A frozen app's service that leaks is restarted on the same URL, and the main process does not grow with it."""

from __future__ import annotations

from pathlib import Path

from freezing import Builder
from frozen_desks import FILES, get, open_desk

BOUND = 200 * 2**20
LEAK = 60  # MiB a page
FLAT = 20 * 2**20


def test_a_leaking_service_is_restarted_and_main_stays_flat(build: Builder, tmp_path: Path) -> None:
    with open_desk(build(FILES, "--onedir", "--windowed"), tmp_path, TEST_MAX_RSS=str(BOUND)) as desk:
        url, before = desk.state()["url"], []
        for _ in range(3):
            state = desk.ready()
            before.append(state["rss"])
            for _ in range(40):
                try:
                    get(f"{url}leak/{LEAK}" if url.endswith("/") else f"{url}/leak/{LEAK}", 10)
                except OSError:
                    break  # it was killed while it answered
                if desk.state()["service"] != state["service"]:
                    break
            now = desk.ready(instead_of=state["service"])
            assert now["url"] == url
            assert get(url, 30)["pid"] == now["service"]
            print(f"restart {now['restarts']}: main has {now['rss'] / 2**20:.0f} MiB; {now['reason']}")
        assert now["restarts"] == 3
        assert now["rss"] < before[0] + FLAT
        assert desk.quit() == 0
