"""Which function a job means, which ones no child could find, and whether the arguments fit."""

from __future__ import annotations

import functools
import math
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import codable
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import callback
from orchestrator._targets import Target, Targets, main_of_host
from orchestrator.child._target import find
from orchestrator.exceptions import TargetError


def refusal(target: Any) -> str:
    with pytest.raises(TargetError) as refused:
        Targets().resolve(target)
    return str(refused.value)


@pytest.mark.parametrize(
    ("function", "reference", "kind"),
    [
        (codable.plain, "codable:plain", "sync"),
        (codable.coroutine, "codable:coroutine", "async"),
        (codable.generator, "codable:generator", "generator"),
        (codable.async_generator, "codable:async_generator", "async_generator"),
        (codable.Owner.of_class, "codable:Owner.of_class", "sync"),
        (codable.Owner.of_nobody, "codable:Owner.of_nobody", "sync"),
        (len, "builtins:len", "sync"),
        (math.floor, "math:floor", "sync"),
    ],
)
def test_functions(function: Any, reference: str, kind: str) -> None:
    target = Targets().resolve(function)
    assert (target.reference, target.kind) == (reference, kind)
    assert target.is_async == kind.startswith("async")
    assert target.is_generator == kind.endswith("generator")
    assert target.function == function


def test_each_is_resolved_once() -> None:
    targets = Targets()
    assert targets.resolve(codable.plain) is targets.resolve(codable.plain)
    assert targets.resolve("codable:plain") is targets.resolve("codable:plain")
    assert targets.resolve("codable:plain") is not targets.resolve(codable.plain)


def test_strings_are_not_imported() -> None:
    # A module that nothing imports, and whose inside only importing it could tell.
    sys.modules.pop("this", None)
    target = Targets().resolve("this.inside:Thing.method")
    assert (target.reference, target.function, target.kind) == ("this.inside:Thing.method", None, None)
    assert "this" not in sys.modules
    target.learn("async")
    target.learn("sync")
    assert target.kind == "async", "what the child found out first"


def test_a_module_that_nobody_can_import() -> None:
    assert "there is no module 'no_such_module' on sys.path" in refusal("no_such_module.inside:function")
    assert Targets(same_modules=False).resolve("no_such_module:function"), "children may have it"


def test_annotations_of_all_kinds_of_parameters() -> None:
    def function(a: int, *rest: str, b: float, **more: bytes) -> None: ...

    target = Target("module:function", function)
    hints = [target.hint_of(place) for place in (0, 1, 7, "a", "b", "c")]
    assert hints == [int, str, str, int, float, bytes]


@pytest.mark.parametrize(
    "reference", ["", "a", "a:", ":b", "a b:c", "a:b c", "a:1b", "1a:b", "a:b()", "a..b:c", "a:b:c", "a:b\n"]
)
def test_strings_of_another_form(reference: str) -> None:
    assert "is not of the form package.module:function" in refusal(reference)


def test_dotted_path_is_understood() -> None:
    assert "did you mean package.module:function?" in refusal("package.module.function")


@given(st.text(max_size=30))
def test_any_string_is_a_target_or_refused(reference: str) -> None:
    told = ""
    try:
        found = Targets().resolve(reference).reference
    except TargetError as error:
        told = str(error)
    refusals = ("form", "__main__", "there is no module")
    assert any(text in told for text in refusals) if told else found == reference


def test_what_a_child_could_not_find() -> None:
    def inner() -> None: ...

    class Callable:
        def __call__(self) -> None: ...

    assert "a lambda has no name" in refusal(lambda: None)
    assert "defined inside a function" in refusal(inner)
    assert "is an object, not a function" in refusal(Callable())
    assert "is a partial; pass the function 'plain'" in refusal(functools.partial(codable.plain, 1))
    assert "is a callback" in refusal(callback(codable.plain))
    assert 'Job("codable:Owner.method", init={…})' in refusal(codable.Owner().method)
    assert "bound to an object" in refusal([].append)
    assert "is not the function that was given" in refusal(codable.original)


def test_function_of_a_module_that_is_gone() -> None:
    function = types.FunctionType(codable.plain.__code__, {}, "gone")
    function.__module__ = "a_module_that_is_gone"
    assert "which is not imported here" in refusal(function)


def main_function(monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> Any:
    main = types.ModuleType("__main__")
    vars(main).update(attributes)
    monkeypatch.setitem(sys.modules, "__main__", main)

    def job() -> None: ...

    job.__module__, job.__qualname__ = "__main__", "job"
    main.job = job  # type: ignore[attr-defined]
    return job


def test_function_of_the_main_script(monkeypatch: pytest.MonkeyPatch) -> None:
    job = main_function(monkeypatch, __file__=__file__, __spec__=None)
    assert Targets().resolve(job).reference == "__mp_main__:job"
    assert Targets().resolve("__main__:job").reference == "__mp_main__:job"
    assert main_of_host("job") == {"path": __file__}


def test_function_of_a_module_run_with_m(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = types.SimpleNamespace(name="package.tool")
    main_function(monkeypatch, __file__="package/tool.py", __spec__=spec)
    assert main_of_host("job") == {"name": "package.tool"}


def test_main_that_no_child_may_load(monkeypatch: pytest.MonkeyPatch) -> None:
    job = main_function(monkeypatch, __spec__=None)
    assert "typed in or comes from python -c" in refusal(job)
    job = main_function(monkeypatch, __file__=__file__, __spec__=None)
    zipped = main_function(monkeypatch, __file__="app.pyz/__main__.py", __spec__=None)
    assert "no file of its own" in refusal(zipped)
    job = main_function(monkeypatch, __file__=__file__, __spec__=None)
    with monkeypatch.context() as frozen:
        frozen.setattr(sys, "frozen", True, raising=False)
        assert "main script of a frozen app" in refusal(job) and "move job to a module" in refusal(job)
    with monkeypatch.context() as notebook:
        notebook.setattr("builtins.__IPYTHON__", True, raising=False)
        assert "IPython or a notebook" in refusal(job)
    with monkeypatch.context() as page:
        page.setitem(sys.modules, "streamlit", types.ModuleType("streamlit"))
        runtime = types.ModuleType("streamlit.runtime")
        runtime.exists = lambda: True  # type: ignore[attr-defined]
        page.setitem(sys.modules, "streamlit.runtime", runtime)
        assert "in a Streamlit script" in refusal(job)
        runtime.exists = lambda: False  # type: ignore[attr-defined]
        assert Targets().resolve(job)


# Arguments


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (codable.bare, (1,), {}),
        (codable.bare, (1, 2, 3, 4), {}),
        (codable.bare, (), {"a": 1, "x": 2}),
        (codable.positional, (1, 2), {}),
        (codable.keyword, (), {"a": 1}),
        (len, ("x",), {}),
        (print, (1, 2), {"sep": ""}),
    ],
)
def test_fitting_calls(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    Targets().resolve(function).check_call(args, kwargs)


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "told"),
    [
        (codable.bare, (), {}, "missing a required argument: 'a'"),
        (codable.positional, (1,), {}, "missing a required"),
        (codable.positional, (1, 2, 3), {}, "too many positional"),
        (codable.keyword, (1,), {}, "too many positional"),
        (codable.keyword, (), {}, "missing a required"),
        (codable.plain, (), {"z": 1}, "unexpected keyword argument 'z'"),
        (codable.plain, (1,), {"a": 2}, "multiple values"),
    ],
)
def test_calls_that_do_not_fit(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], told: str) -> None:
    with pytest.raises(TargetError, match=told) as refused:
        Targets().resolve(function).check_call(args, kwargs)
    assert f"codable:{function.__name__}(" in str(refused.value)


def test_option_of_the_job_among_the_arguments() -> None:
    with pytest.raises(TargetError, match=r"options of a job live on Job: Job\(plain, timeout=…\)"):
        Targets().resolve(codable.plain).check_call((), {"timeout": 3})
    Targets().resolve(codable.with_timeout).check_call(("x",), {"timeout": 3})
    with pytest.warns(UserWarning, match=r"run\(Job\(swallows, timeout=…\)\)"):
        Targets().resolve(codable.swallows).warn_of_options({"timeout": 3})


def test_a_named_target_takes_anything() -> None:
    Targets().resolve("codable:plain").check_call((1, 2, 3), {"z": 1})


def test_hints() -> None:
    target = Targets().resolve(codable.typed)
    assert target.hint_of(0) == target.hint_of("pin")
    assert target.hint_of(99) is None and target.hint_of("nobody") is None
    assert Targets().resolve(codable.bare).has_hints is False


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_slowness_counts_at_once_and_quickness_slowly(times: list[float]) -> None:
    target = Target("codable:plain", None)
    for seconds in times:
        before = target.seconds
        target.learn_time(seconds)
        assert target.seconds is not None
        assert target.seconds >= seconds - 1e-9, "never taken for quicker than it just was"
        if before is not None:
            assert target.seconds <= max(before, seconds) + 1e-9


def test_a_module_that_another_thread_is_importing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_by_two.py").write_text(
        "import orchestrator_test_gates as gates\ngates.begun.set()\nassert gates.go.wait(20)\ndef work(): ...\n"
    )
    gates: Any = types.ModuleType("orchestrator_test_gates")
    gates.begun, gates.go = threading.Event(), threading.Event()
    monkeypatch.setitem(sys.modules, gates.__name__, gates)
    monkeypatch.syspath_prepend(str(tmp_path))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(find, "imported_by_two:work")
        assert gates.begun.wait(20)
        second = threads.submit(find, "imported_by_two:work")
        # It failed at once before; a moment is all that a wait can be shown by.
        assert not wait([second], timeout=0.2).done
        gates.go.set()
        assert first.result(20).kind == second.result(20).kind == "sync"
    del sys.modules["imported_by_two"]
