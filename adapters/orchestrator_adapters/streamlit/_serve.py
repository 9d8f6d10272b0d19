"""Serves a Streamlit page from the main thread of a child: what `streamlit run` does, without its command line."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from orchestrator.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a server that nobody sits in front of needs, and why.
FLAGS: Mapping[str, Any] = {
    "server.headless": True,  # opens no browser, and asks for no e-mail address on its first start
    "server.fileWatcherType": "none",  # a service is restarted, not edited while it runs
    "server.runOnSave": False,
    "browser.gatherUsageStats": False,
    "logger.enableRich": False,  # tracebacks are lines of a log, not pictures for a terminal
    "logger.hideWelcomeMessage": True,  # the supervisor says where it listens; unknown to old versions
    "global.developmentMode": False,  # in a frozen app Streamlit takes itself for a checkout, and refuses a port
}


def serve(
    script: str,
    port: int,
    host: str = "127.0.0.1",
    options: dict[str, Any] | None = None,
    args: list[str] | None = None,
    check: bool = False,
) -> None:
    """Serve a page until the process is asked to stop, with SIGTERM or SIGINT; then return within a second.

    Must be called on the main thread, for Streamlit installs signal handlers.

    Args:
        script: Path of the page.
        port: Where to listen.
        host: Address to listen on.
        options: More options of `streamlit run` by their names there, such as `theme.base`.
        args: What the page finds in `sys.argv` after its own path.
        check: Whether the page is run once before the service is said to be ready.

    Raises:
        ConfigurationError: If there is no such script, or the installed Streamlit does not know an option.
        RuntimeError: If the page was to be checked, and failed; its traceback was logged.
    """
    path = os.path.abspath(script)
    if not os.path.isfile(path):
        raise ConfigurationError("script", f"there is no file {path!r}")
    from streamlit import config
    from streamlit.web import bootstrap

    # Newer versions look there for .streamlit/config.toml and secrets, beside the page.
    config._main_script_path = path
    chosen = {**(options or {}), "server.port": port, "server.address": host}
    if check:
        chosen["server.scriptHealthCheckEnabled"] = True
    given = _flags(chosen, config._config_options_template)
    bootstrap.load_config_options(given)
    first_run = _start_first_run(port, host, str(chosen.get("server.baseUrlPath") or "")) if check else None
    try:
        bootstrap.run(path, False, list(args or ()), given)
    finally:
        if first_run is not None and first_run.problem:
            # In the place of whatever ended the server: that is what the first run asked for.
            raise RuntimeError(f"{path}: {first_run.problem}") from None


def _start_first_run(port: int, host: str, base: str) -> Any:
    from orchestrator_adapters.streamlit._first_run import FirstRun

    first_run = FirstRun(host, port, base)
    first_run.start()
    return first_run


def _flags(chosen: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return options under the names that Streamlit gives to flags: with underscores."""
    for name in chosen:
        if name not in known:
            version = sys.modules["streamlit"].__version__
            raise ConfigurationError(f"options[{name!r}]", f"is no option of Streamlit {version}")
    flags = {name: value for name, value in FLAGS.items() if name in known} | {**chosen}
    return {name.replace(".", "_"): value for name, value in flags.items()}
