"""Jobs whose browser is killed while they open pages."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from browsing import browsers


def kill_soon(delay: float) -> None:
    threading.Timer(delay, os.kill, (browsers()[0], signal.SIGKILL)).start()


def open_pages(context: Any, delay: float) -> None:
    kill_soon(delay)
    while True:
        context.new_page().close()


async def open_pages_async(context: Any, delay: float) -> None:
    kill_soon(delay)
    while True:
        await (await context.new_page()).close()
