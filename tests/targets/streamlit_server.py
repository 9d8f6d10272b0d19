"""Serve a Streamlit page as `streamlit run` does; with `--selector-policy` under one as Streamlit set it on Windows."""

from __future__ import annotations

import asyncio
import sys
import warnings
from typing import Any, NoReturn


class SelectorLoop(asyncio.SelectorEventLoop):
    """As Windows' selector loop is: it cannot start processes, and says so with an empty message."""

    async def _make_subprocess_transport(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError


def install_selector_policy() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)

        class SelectorPolicy(asyncio.DefaultEventLoopPolicy):
            def new_event_loop(self) -> asyncio.AbstractEventLoop:
                return SelectorLoop()

        asyncio.set_event_loop_policy(SelectorPolicy())


if __name__ == "__main__":
    if sys.argv[1] == "--selector-policy":
        del sys.argv[1]
        install_selector_policy()
    from streamlit.web.cli import main

    sys.argv = ["streamlit", "run", *sys.argv[1:]]
    main()
