"""A Streamlit page as a service: a child of its own that may crash, leak and be restarted."""

from __future__ import annotations

import ast
import os
import sys
import tokenize
import warnings
from typing import TYPE_CHECKING, Any, Literal

from orchestrator import HttpProbe, Service
from orchestrator.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TARGET = "orchestrator_adapters.streamlit._serve:serve"
_HEALTH = "/_stcore/health"


def streamlit_service(
    script: str | os.PathLike[str],
    *,
    name: str = "ui",
    args: Sequence[str] = (),
    port: int | Literal["auto"] = "auto",
    options: Mapping[str, Any] | None = None,
    check: bool = False,
    **service: Any,
) -> Service:
    """Return the service that serves a Streamlit page, from source or in a frozen app.

    Nothing of Streamlit is imported here. The child serves the page as `streamlit run` does, without opening a browser
    and without watching its files, and stops within a second.

    Args:
        script: Path of the page. A relative one is looked for beside the main script (in a frozen app, in its bundle),
            then, from source, in the current folder.
        name: What the service is called.
        args: What the page finds in `sys.argv[1:]`.
        port: `"auto"` for a free one, or a number.
        options: More options of `streamlit run` by their names in its configuration: `{"theme.base": "dark"}`.
        check: Run the page once at each start. The service is ready only when that went well, and a page that fails
            ends its child: its error is the reason that the service gives. Otherwise the service is ready as soon as
            the server is, whatever the page does.
        service: Options of `Service`, such as `health`, `restart`, `max_rss`, `depends_on` and `env`.

    Raises:
        ConfigurationError: If there is no such page, or it has a syntax error.
    """
    path = _find(os.fspath(script))
    _check_syntax(path)
    given: dict[str, Any] = {"ready": "message" if check else HttpProbe(_HEALTH, status=(200,)), **service}
    kwargs = {"script": path, "options": dict(options or {}), "args": [*args], "check": check}
    return Service(name, target=_TARGET, kwargs=kwargs, port=port, **given)


def _find(script: str) -> str:
    """Return the absolute path of a page."""
    if os.path.isabs(script):
        folders = [""]
    elif bundle := getattr(sys, "_MEIPASS", None):
        folders = [str(bundle)]
    else:
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        folders = [os.path.dirname(os.path.abspath(main))] if main else []
        folders.append(os.path.dirname(sys.executable) if getattr(sys, "frozen", False) else os.getcwd())
    for folder in folders:
        path = os.path.normpath(os.path.join(folder, script))
        if os.path.isfile(path):
            return path
    where = "" if folders == [""] else f" in {' or '.join(dict.fromkeys(folders))}"
    hint = ""
    if getattr(sys, "frozen", False):
        hint = "; name it in the key pages of [tool.orchestrator.pyinstaller] in the pyproject.toml beside the app"
    raise ConfigurationError("script", f"there is no file {script!r}{where}{hint}")


def _check_syntax(path: str) -> None:
    """Refuse a page that can never run: its server would be well all the same."""
    try:
        with tokenize.open(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(file.read(), path)
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        line = getattr(error, "lineno", None)
        place = path if line is None else f"{path}, line {line}"
        raise ConfigurationError("script", f"{place}: {getattr(error, 'msg', None) or error}") from None
