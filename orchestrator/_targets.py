"""Which function a job means: how a child finds it, what kind it is, and whether arguments fit its signature."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
import re
import sys
import warnings
from typing import TYPE_CHECKING, Any

from orchestrator._models import Job, callback
from orchestrator.child._target import MAIN, kind_of
from orchestrator.child._typed import hints_of
from orchestrator.exceptions import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator._fixture import Fixture

_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
# Of children whose main thread has nothing in it that any sync function could mind.
PLAIN = "plain"
_OPTIONS = frozenset(Job.__dataclass_fields__) - {"target", "args", "kwargs"}


class Target:
    """A resolved target; one per function and supervisor, so it also remembers how quick its jobs are.

    Attributes:
        reference: `module:function` as the child imports it.
        function: The function, or None when it was named by a string: then it is not imported here.
        kind: `sync`, `async`, `generator`, `async_generator`, or None while unknown.
        flavour: Of the children that can run it; while the kind is unknown, as if it were sync.
        lane: What tells its jobs from those for other children.
        seconds: How long its jobs ran lately, or None before the first one.
        asks_for_permits: Its jobs ask for permits while they run.
        job: The job with no options, for calls that have none.
    """

    __slots__ = (
        "_least",
        "_most",
        "_names",
        "_rest",
        "_signature",
        "asks_for_permits",
        "flavour",
        "function",
        "has_hints",
        "hints",
        "job",
        "kind",
        "lane",
        "reference",
        "seconds",
    )

    def __init__(
        self, reference: str, function: Callable[..., Any] | None, *, flavour: str = PLAIN, fixture: bool = False
    ) -> None:
        self.reference = reference
        self.function = function
        self.kind: str | None = None
        self.flavour = flavour
        self.lane = f"any {flavour}"
        if function is not None:
            self._is_of(kind_of(function))
        self.seconds: float | None = None
        self.asks_for_permits = False
        self.job = Job(reference if function is None else function)
        self.hints: dict[str, Any] = {}
        self._signature: inspect.Signature | None = None
        self._names: tuple[str, ...] = ()
        self._rest = ("", "")  # names of `*args` and `**kwargs`
        # Bounds of a call with positional arguments only, which needs no closer look.
        self._least, self._most = 0, -1
        if function is not None:
            self._read_signature(function, given=1 if fixture else 0)
        self.has_hints = bool(self.hints)

    def _is_of(self, kind: str) -> None:
        self.kind = kind
        if self.is_async:
            self.flavour = "async"
        self.lane = self.flavour

    def _read_signature(self, function: Callable[..., Any], *, given: int) -> None:
        try:
            self._signature = inspect.signature(function)
        except (ValueError, TypeError):
            return  # some builtins have none: their own error will come back from the child
        if given:
            self._signature = _without_first(self._signature, self.label)
        self.hints = hints_of(function)
        kinds = inspect.Parameter
        positional = [
            parameter
            for parameter in self._signature.parameters.values()
            if parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
        ]
        self._names = tuple(parameter.name for parameter in positional)
        for parameter in self._signature.parameters.values():
            if parameter.kind is kinds.VAR_POSITIONAL:
                self._rest = (parameter.name, self._rest[1])
            elif parameter.kind is kinds.VAR_KEYWORD:
                self._rest = (self._rest[0], parameter.name)
        rest = [parameter for parameter in self._signature.parameters.values() if parameter not in positional]
        if not any(parameter.kind is kinds.KEYWORD_ONLY and parameter.default is kinds.empty for parameter in rest):
            self._least = sum(parameter.default is kinds.empty for parameter in positional)
            self._most = len(positional)

    @property
    def label(self) -> str:
        """The reference as its author knows it: children call the main script by another name."""
        return self.reference.replace(MAIN, "__main__", 1)

    @property
    def is_async(self) -> bool:
        return self.kind in ("async", "async_generator")

    @property
    def is_generator(self) -> bool:
        return self.kind in ("generator", "async_generator")

    def learn(self, kind: str) -> bool:
        """Note the kind of a target that was named by a string; the child found it out. Return whether it fits."""
        if self.kind is None:
            self._is_of(kind)
        return self.kind == kind

    def learn_time(self, seconds: float) -> None:
        """Note how long a job ran: slowness counts at once, quickness slowly."""
        known = self.seconds
        self.seconds = seconds if known is None or seconds > known else known + (seconds - known) * 0.2

    def hint_of(self, place: int | str) -> Any:
        """Return the annotation of the argument at a position or of a name, or None."""
        if isinstance(place, int):
            name = self._names[place] if place < len(self._names) else self._rest[0]
        else:
            name = place if self._signature and place in self._signature.parameters else self._rest[1]
        return self.hints.get(name)

    def check_call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise TargetError when the arguments do not fit."""
        if not kwargs and self._least <= len(args) <= self._most:
            return
        if self._signature is None:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            text = f"{self.label}{self._signature}: {error}"
            wrong = [name for name in kwargs if name in _OPTIONS and name not in self._signature.parameters]
            if wrong:
                text += f"; options of a job live on Job: Job({self.reference.rpartition(':')[2]}, {wrong[0]}=…)"
            raise TargetError(text) from None

    def warn_of_options(self, kwargs: Mapping[str, Any]) -> None:
        """Warn when the caller seems to mean an option of the job, which is not what the target gets."""
        if self._signature is None:
            return
        for name in kwargs:
            if name in _OPTIONS and name not in self._signature.parameters:
                warnings.warn(
                    f"{name}= goes to {self.label} as an argument; "
                    f"if the job's option is meant, write run(Job({self.reference.rpartition(':')[2]}, {name}=…))",
                    stacklevel=4,
                )


def _without_first(signature: inspect.Signature, label: str) -> inspect.Signature:
    """Return the signature as the caller sees it, to whom the fixture's argument is none of his business."""
    parameters = list(signature.parameters.values())
    kinds = inspect.Parameter
    first = parameters[0].kind if parameters else None
    if first in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD):
        return signature.replace(parameters=parameters[1:])
    if first is kinds.VAR_POSITIONAL:
        return signature
    raise TargetError(f"{label}{signature} takes no positional argument; its fixture gives it the first one")


class Targets:
    """Resolves targets, once each.

    Args:
        same_modules: Whether children have the modules that this process has: a name of none is refused at once.
    """

    def __init__(self, *, same_modules: bool = True) -> None:
        self._known: dict[Any, Target] = {}
        self._same_modules = same_modules

    def resolve(self, target: Callable[..., Any] | str, fixture: Fixture | None = None) -> Target:
        """Return the target; what takes its first argument from a fixture is another one.

        Raises:
            TargetError: If a child could not find or should not run it; the message says what to do.
        """
        if fixture is not None:
            return self._beside(fixture, target)
        try:
            return self._known[target]
        except (KeyError, TypeError):
            found = self._from_string(target) if isinstance(target, str) else _from_function(target)
        if len(self._known) > 10_000:
            self._known.clear()  # somebody makes functions or names without end: only speed is lost
        try:
            self._known[target] = found
        except TypeError:
            return found  # an unhashable callable
        return found

    def _beside(self, fixture: Fixture, target: Callable[..., Any] | str) -> Target:
        plain = self.resolve(target)
        flavour = fixture.flavour or PLAIN
        key = plain, flavour
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Target(plain.reference, plain.function, flavour=flavour, fixture=True)
        return found

    def _from_string(self, reference: str) -> Target:
        if _REFERENCE.fullmatch(reference) is None:
            hint = ""
            if ":" not in reference and "." in reference:
                module, _, name = reference.rpartition(".")
                hint = f"; did you mean {module}:{name}?"
            raise TargetError(f"target {reference!r} is not of the form package.module:function{hint}")
        module, _, path = reference.partition(":")
        if module == "__main__":
            main_of_host(reference)
            return Target(f"{MAIN}:{path}", None)
        if self._same_modules:
            _check_exists(module, reference)
        return Target(reference, None)


def _check_exists(module: str, reference: str) -> None:
    """Refuse a module that nobody can import; what is inside a package, only importing it could tell."""
    top = module.partition(".")[0]
    if top in sys.modules:
        return
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return  # an importer of its own kind: the child will see
    if found is None:
        raise TargetError(f"target {reference!r}: there is no module {top!r} on sys.path; is its folder missing there?")


def _from_function(function: Callable[..., Any]) -> Target:
    if isinstance(function, functools.partial):
        raise TargetError(
            f"{function!r} is a partial; pass the function {getattr(function.func, '__name__', function.func)!r} "
            "and give the arguments to run() or Job"
        )
    if isinstance(function, callback):
        raise TargetError("the target is a callback(…); that wraps arguments, the target is a plain function")
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__qualname__", None)
    module = getattr(function, "__module__", None) or (owner.__name__ if inspect.ismodule(owner) else None)
    if name is None:
        raise TargetError(f"{function!r} is an object, not a function; a child can only import functions by their name")
    if owner is not None and not inspect.ismodule(owner) and not isinstance(owner, type):
        kind = type(owner)
        if kind.__module__ == "builtins" or module is None:
            raise TargetError(f"{function!r} is bound to an object that a child does not have; write a function for it")
        raise TargetError(
            f"{name} is bound to an object that a child does not have; let the child build one: "
            f'Job("{kind.__module__}:{name}", init={{…}})'
        )
    if "<lambda>" in name:
        raise TargetError(f"a lambda has no name that a child could import (in {module}); write a function with def")
    if "<locals>" in name:
        raise TargetError(
            f"{name} of {module} is defined inside a function, so a child cannot import it; "
            "move it to the top level of its module"
        )
    if module is None:
        raise TargetError(f"{function!r} does not say which module it is from; name it: 'package.module:function'")
    if module == "__main__":
        main_of_host(name)
        return Target(f"{MAIN}:{name}", function)
    _check_importable(function, module, name)
    return Target(f"{module}:{name}", function)


def _check_importable(function: Callable[..., Any], module: str, name: str) -> None:
    found: Any = sys.modules.get(module)
    if found is None:
        raise TargetError(f"{name} says it is from module {module}, which is not imported here")
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not function and getattr(found, "__func__", found) is not getattr(function, "__func__", function):
        raise TargetError(
            f"{module}:{name} is not the function that was given (decorated, replaced or deleted?); "
            "a child would run what has that name; name the one you mean: 'package.module:function'"
        )


def main_of_host(name: str) -> dict[str, str]:
    """Return how a child loads this program's main module: `{"name": …}` of a `-m` run, else `{"path": …}`.

    Raises:
        TargetError: When the main module cannot be loaded a second time, or must not be.
    """
    main = sys.modules["__main__"]
    advice = f"move {name} to a module of its own and import it"
    if getattr(sys, "frozen", False):
        raise TargetError(f"{name} is in the main script of a frozen app, which children cannot load; {advice}")
    if "streamlit" in sys.modules and _under_streamlit():
        raise TargetError(f"{name} is in a Streamlit script, which a child would run as a whole; {advice}")
    if hasattr(sys.modules.get("builtins"), "__IPYTHON__"):
        raise TargetError(f"{name} is defined in IPython or a notebook, which children cannot import; {advice}")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name and spec.name != "__main__":
        return {"name": spec.name}
    # Python takes the script's `__file__` away when it has run it; what loaded it still knows.
    path = getattr(main, "__file__", None) or getattr(getattr(main, "__loader__", None), "path", None)
    if not path or path.startswith("<"):
        raise TargetError(f"{name} was typed in or comes from python -c, so a child cannot import it; {advice}")
    if not os.path.isfile(path):
        raise TargetError(f"{name} is in a main script that is no file of its own ({path}); {advice}")
    return {"path": path}


def _under_streamlit() -> bool:
    runtime = sys.modules.get("streamlit.runtime")
    exists = getattr(runtime, "exists", None)
    return bool(exists is not None and exists())
