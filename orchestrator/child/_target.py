"""Find the function that a job names, and what kind of function it is."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

# Code flags, from `inspect`, which is too dear to import in every child.
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200
_VARARGS, _VARKEYWORDS = 0x04, 0x08

MAIN = "__mp_main__"

# True while a child loads its parent's main script: a supervisor opened then would start the program anew, for ever.
loading_main = False


class Target:
    """A function to run.

    Attributes:
        function: What to call; of a method, the plain function found on the class.
        kind: `sync`, `async`, `generator` or `async_generator`.
        owner: The class to build an instance of first, or None.
        name: What the method is called on that class.
        given: How many leading parameters do not get their arguments from the caller.
    """

    def __init__(
        self, function: Callable[..., Any], owner: type | None = None, name: str = "", *, given: int = 0
    ) -> None:
        self.function = function
        self.name = name
        self.owner = owner
        self.given = given
        self.kind = kind_of(function)
        self._hints: dict[str, Any] | None = None
        self._beside: Target | None = None

    @property
    def is_async(self) -> bool:
        return self.kind in ("async", "async_generator")

    @property
    def beside_fixture(self) -> Target:
        """The same target, when a fixture gives it its first argument."""
        if self._beside is None:
            self._beside = Target(self.function, self.owner, self.name, given=1)
        return self._beside

    @property
    def hints(self) -> dict[str, Any]:
        """Resolved annotations by parameter name, `return` included."""
        if self._hints is None:
            if getattr(self.function, "__annotations__", None):
                from orchestrator.child._typed import hints_of

                self._hints = hints_of(self.function)
            else:
                self._hints = {}
        return self._hints

    def parameter_names(self) -> tuple[str, ...]:
        """Names of the positional parameters, without `self` of a method and what a fixture gives."""
        code = self._code()
        if code is None:
            return ()
        bound = 1 if self.owner is not None or getattr(self.function, "__self__", None) is not None else 0
        return tuple(code.co_varnames[bound + self.given : code.co_argcount])

    def _code(self) -> Any:
        """Return the code whose parameters callers see: that of what a decorator wraps."""
        function: Any = self.function
        for _ in range(100):
            inner = getattr(function, "__wrapped__", None)
            if inner is None:
                break
            function = inner
        return getattr(function, "__code__", None)

    def hint_at(self, index: int) -> Any:
        """Return the annotation of a positional argument, or None; of `*args` for those that have no name."""
        names = self.parameter_names()
        return self.hints.get(names[index] if index < len(names) else self._rest()[0])

    def hint_for(self, name: str) -> Any:
        """Return the annotation of a keyword argument, or None; of `**kwargs` for a name of no parameter."""
        code = self._code()
        if code is None or name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
            return self.hints.get(name)
        return self.hints.get(self._rest()[1])

    def _rest(self) -> tuple[str, str]:
        """Return what `*args` and `**kwargs` are called; empty when there is no such parameter."""
        code = self._code()
        if code is None:
            return "", ""
        names = code.co_varnames[code.co_argcount + code.co_kwonlyargcount :]
        has_args = bool(code.co_flags & _VARARGS)
        has_kwargs = bool(code.co_flags & _VARKEYWORDS)
        return names[0] if has_args else "", names[has_args] if has_kwargs else ""


def kind_of(function: Callable[..., Any]) -> str:
    """Return `sync`, `async`, `generator` or `async_generator`."""
    function = getattr(function, "__func__", function)
    while getattr(function, "__code__", None) is None and hasattr(function, "func"):  # functools.partial
        function = function.func
    code = getattr(function, "__code__", None)
    if code is None:
        code = getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004 - not whether: which
    flags = 0 if code is None else code.co_flags
    if flags & _ASYNC_GENERATOR:
        return "async_generator"
    if flags & _COROUTINE:
        return "async"
    return "generator" if flags & _GENERATOR else "sync"


def find(reference: str) -> Target:
    """Return the target that `module:function` or `module:Class.method` names.

    Raises:
        ImportError: If the module cannot be imported (whatever else it raises passes as it is).
        AttributeError: If it has no such attribute.
        TypeError: If that is not callable.
    """
    module_name, _, path = reference.partition(":")
    module = sys.modules.get(module_name)
    # Inline several threads may want a module at once: one that another thread is still importing is waited for.
    if module is None or getattr(getattr(module, "__spec__", None), "_initializing", False):
        # Not importlib: importing it costs, and __import__ is all that is needed here.
        __import__(module_name)
        module = sys.modules[module_name]
    owner: Any = None
    found: Any = module
    for name in path.split("."):
        owner, found = found, getattr(found, name)
    if not callable(found):
        raise TypeError(f"{reference} is {type(found).__name__}, not a function")
    if isinstance(owner, type) and not isinstance(found, type):
        raw = next((kind.__dict__[name] for kind in owner.__mro__ if name in kind.__dict__), None)
        if not isinstance(raw, staticmethod | classmethod):
            return Target(found, owner, name)
    return Target(found)


def load_main(main: dict[str, Any]) -> None:
    """Load the parent's main script or `-m` module once, as `__mp_main__`, so that its guard stays false."""
    global loading_main
    # By its name: multiprocessing, once imported, has the child's own program under this one.
    if getattr(sys.modules.get(MAIN), "__name__", "") == MAIN:
        return
    if not main:
        raise ImportError("the program that started this child has no main script that could be loaded here")
    import types

    module = types.ModuleType(MAIN)
    if main.get("name"):
        from importlib.util import find_spec

        spec = find_spec(main["name"])
        if spec is None or spec.loader is None:
            raise ImportError(f"the main module {main['name']} cannot be found")
        code = spec.loader.get_code(main["name"])  # type: ignore[attr-defined]
        module.__spec__, module.__package__, module.__file__ = spec, spec.parent, spec.origin
    else:
        with open(main["path"], "rb") as file:
            code = compile(file.read(), main["path"], "exec")
        module.__file__ = main["path"]
    before = sys.modules.get("__main__")
    sys.modules["__main__"] = sys.modules[MAIN] = module
    loading_main = True
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[MAIN]
        if before is not None:
            sys.modules["__main__"] = before
        raise
    finally:
        loading_main = False


def wanted(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], offered: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a function takes of what it is offered: for parameters of those names that nobody has given."""
    import inspect

    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [name for name, each in parameters.items() if each.kind in positional][: len(args)]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: value
        for name, value in offered.items()
        if name in parameters and parameters[name].kind in named and name not in given and name not in kwargs
    }
