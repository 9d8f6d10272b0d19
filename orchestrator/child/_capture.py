"""Records of logging and warnings as structured frames, from when user code imports these modules.

Nothing is added to any logger: a handler on the root would turn the user's `basicConfig` into a no-op, and would be
lost to one with `force=True`. Instead the step that hands a record to its handlers sends it first; what the handlers
then write to the child's own stdout and stderr says the same once more, and is dropped.
"""

from __future__ import annotations

import sys
from _thread import get_ident

from orchestrator.child import _scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from orchestrator.child._runtime import Runtime


def install(runtime: Runtime) -> None:
    """Capture what is imported already, and the rest as soon as it is."""
    wanted: dict[str, Callable[[Runtime, Any], None]] = {"logging": _capture_logging, "warnings": _capture_warnings}
    for name in list(wanted):
        module = sys.modules.get(name)
        if module is not None:
            wanted.pop(name)(runtime, module)
    if wanted:
        sys.meta_path.insert(0, _Finder(runtime, wanted))


class _Finder:
    """Lets others find the wanted modules, and acts when they have been loaded; gone when all have been."""

    def __init__(self, runtime: Runtime, wanted: dict[str, Callable[[Runtime, Any], None]]) -> None:
        self._runtime = runtime
        self._wanted = wanted

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in self._wanted:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                # A spec may be asked for and never loaded: nothing is done before the module runs.
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self._loaded)  # type: ignore[assignment]
                return spec
        return None

    def _loaded(self, module: Any) -> None:
        capture = self._wanted.pop(module.__name__, None)
        if not self._wanted and self in sys.meta_path:
            sys.meta_path.remove(self)
        if capture is not None:
            capture(self._runtime, module)


class _Loader:
    """A module's own loader, and what to do after it."""

    def __init__(self, loader: Any, loaded: Callable[[Any], None]) -> None:
        self._loader = loader
        self._loaded = loaded

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        # As if this had never been here: others ask the loader for source, resources and more.
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._loaded(module)


def _capture_logging(runtime: Runtime, logging: Any) -> None:
    hand_on = logging.Logger.callHandlers
    formatter = logging.Formatter()

    def call_handlers(logger: Any, record: Any) -> None:
        try:
            text = record.getMessage()
        except Exception:
            hand_on(logger, record)  # wrong arguments for the text: the handlers say so, on stderr
            return
        if record.exc_info and record.exc_info[0] is not None:
            text = f"{text}\n{formatter.formatException(record.exc_info)}"
        if record.stack_info:
            text = f"{text}\n{record.stack_info}"
        _send(runtime, "logging", record.levelname, record.name, text)
        me = get_ident()
        if me in runtime.muted:  # a handler that logs
            hand_on(logger, record)
            return
        runtime.muted.add(me)
        try:
            hand_on(logger, record)
        finally:
            runtime.muted.discard(me)

    logging.Logger.callHandlers = call_handlers
    if logging.root.level == logging.WARNING and not logging.root.handlers:
        logging.root.setLevel(logging.INFO)


def _capture_warnings(runtime: Runtime, warnings: Any) -> None:
    show = warnings.showwarning

    def show_warning(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: str | None = None
    ) -> None:
        if file is not None:
            show(message, category, filename, lineno, file, line)
            return
        text = f"{filename}:{lineno}: {category.__name__}: {message}"
        _send(runtime, "warnings", "warning", category.__name__, text)

    warnings.showwarning = show_warning


def _send(runtime: Runtime, stream: str, level: Any, logger: Any, text: str) -> None:
    scope = _scope.current()
    fence = None if scope is None else scope.fence
    frame = {"type": "log", "fence": fence, "stream": stream, "level": str(level).lower(), "logger": str(logger)}
    runtime.log({**frame, "text": text})
