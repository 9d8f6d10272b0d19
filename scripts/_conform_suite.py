"""Run the process pool tests of this interpreter's own standard library against the executor.

The tests are imported from the interpreter, never copied. `conform.py` starts this with one that has them.
"""

import _venv

_venv.enter("runtime", ".venv-conformance")

import sys

# In the folder of the scripts `test` is not the standard library's: it comes last. So it does in processes that tests
# start, which read this file too.
sys.path.sort(key=lambda path: path == str(_venv.ROOT / "scripts"))

import faulthandler
import json
import multiprocessing
import time
import unittest
from types import ModuleType
from typing import Any

from orchestrator_adapters.executor import OrchestratorExecutor
from test.test_concurrent_futures import (  # type: ignore[import-not-found]
    test_as_completed,
    test_deadlock,
    test_init,
    test_process_pool,
    test_shutdown,
    test_wait,
)
from test.test_concurrent_futures.util import (  # type: ignore[import-not-found]
    ExecutorMixin,
    create_executor_tests,
)

# What the standard library's own suite runs for each kind of process pool.
MIXINS: tuple[tuple[ModuleType, str], ...] = (
    (test_process_pool, "ProcessPoolExecutorTest"),
    (test_shutdown, "ProcessPoolShutdownTest"),
    (test_deadlock, "ExecutorDeadlockTest"),
    (test_wait, "WaitTests"),
    (test_as_completed, "AsCompletedTests"),
    (test_init, "InitializerMixin"),
    (test_init, "FailingInitializerMixin"),
)
# No test takes half as long on a busy machine: this one hangs, and shows where.
HANGING = 300


class ProcessPoolSpawnMixin(ExecutorMixin):  # type: ignore[misc]
    """Gives the tests our executor; contexts are handed over, as they are to others, and ignored.

    It stands in for the library's mixin of this name, for children look up classes of tests by their names.
    """

    executor_type = OrchestratorExecutor

    def get_context(self) -> Any:
        return multiprocessing.get_context("spawn")


class Result(unittest.TestResult):
    """Notes how each test ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: dict[str, str] = {}
        self._began = 0.0

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().startTest(test)
        self._began = time.monotonic()
        faulthandler.dump_traceback_later(HANGING, exit=True)

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        how = self.ended.setdefault(name_of(test), "passed")
        print(f"{time.monotonic() - self._began:6.2f} s  {name_of(test)}: {how.splitlines()[-1]}", flush=True)

    def addFailure(self, test: unittest.TestCase, error: Any) -> None:  # noqa: N802
        super().addFailure(test, error)
        self.ended[name_of(test)] = self.failures[-1][1].strip()

    def addError(self, test: unittest.TestCase, error: Any) -> None:  # noqa: N802
        super().addError(test, error)
        self.ended[name_of(test)] = self.errors[-1][1].strip()

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, error: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.ended[name_of(test)] = str(error[1])

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self.ended[name_of(test)] = f"skipped: {reason}"


def name_of(test: unittest.TestCase) -> str:
    """Return `module.Mixin.test`."""
    kind = type(test)
    return f"{kind.__module__.rpartition('.')[2]}.{kind.__mro__[1].__name__}.{test._testMethodName}"


def main() -> None:
    """Run the tests that the command line names, or all."""
    _let_scripts_find_it()
    loader = unittest.TestLoader()
    suite = unittest.TestSuite()
    for module, mixin in MIXINS:
        before = dict(vars(module))
        create_executor_tests(vars(module), getattr(module, mixin), executor_mixins=(ProcessPoolSpawnMixin,))
        (case,) = (thing for name, thing in vars(module).items() if before.get(name) is not thing)
        for test in loader.loadTestsFromTestCase(case):
            if not sys.argv[1:] or any(word in name_of(test) for word in sys.argv[1:]):  # type: ignore[arg-type]
                suite.addTest(test)
    result = Result()
    suite.run(result)
    print("RESULT " + json.dumps({"python": sys.version.split()[0], "ended": result.ended}), flush=True)


def _let_scripts_find_it() -> None:
    """Mend the scripts of some tests, which import the executor by its name from where only the library's own are."""
    run = test_shutdown.assert_python_ok
    name = OrchestratorExecutor.__name__
    paths = [str(_venv.ROOT), str(_venv.ROOT / "adapters")]
    ours = f"import sys; sys.path[:0] = {paths}; from orchestrator_adapters.executor import {name}"

    def run_mended(*args: str, **variables: str) -> Any:
        return run(*(arg.replace(f"from concurrent.futures import {name}", ours) for arg in args), **variables)

    test_shutdown.assert_python_ok = run_mended


if __name__ == "__main__":
    main()
