"""Jobs of Streamlit pages without a browser: what a call finds, remembers, refuses, and who makes its callbacks."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paging
import pytest

from orchestrator import BlockingSupervisor, Job, callback
from orchestrator.exceptions import ConfigurationError, JobCancelled
from orchestrator.testing import nothing_left

st = pytest.importorskip("streamlit")
from orchestrator_adapters.streamlit import _server, _watch, bar, get_supervisor  # noqa: E402  # noqa: E402
from orchestrator_adapters.streamlit._watch import Watch  # noqa: E402
from streamlit.testing.v1 import AppTest  # noqa: E402

DEADLINE = 60


@pytest.fixture(autouse=True)
def caches_are_cleared() -> Iterator[None]:
    with nothing_left(timeout=DEADLINE):
        yield
        st.cache_resource.clear()
        _server.release()


def page(script: Callable[[], None], **state: Any) -> AppTest:
    """Return a page in a new session, run once."""
    app = AppTest.from_function(script, default_timeout=DEADLINE)
    for name, value in state.items():
        app.session_state[name] = value
    return again(app)


def again(app: AppTest) -> AppTest:
    app.run()
    assert not app.exception, app.exception
    return app


def said(app: AppTest) -> list[str]:
    return [each.value for each in app.markdown]


def pictures(app: AppTest) -> int:
    return len([*app.get("image"), *app.get("imgs")])  # so called by new and old versions


# Values and calls


def test_calls_come_in_order_to_the_thread_of_the_page() -> None:
    def script() -> None:
        import threading

        import streamlit as st
        from orchestrator_adapters.streamlit import run_with_progress

        from orchestrator import callback

        calls, threads = [], set()

        def note(done: int, total: int) -> None:
            calls.append(done)
            threads.add(threading.get_ident())
            st.session_state.share = done / total

        outcome = run_with_progress("paging:count", 2500, progress_callback=callback(note))
        st.session_state.found = outcome.value, calls, threads == {threading.get_ident()}, st.session_state.share

    value, calls, here, share = page(script).session_state.found
    assert value == 2500 and here and share == 1
    assert calls == list(range(1, 2501))


def test_the_bar_follows_a_callback() -> None:
    def script() -> None:
        from orchestrator_adapters.streamlit import bar, run_with_progress

        run_with_progress("paging:count", 7, progress_callback=bar(), label="Counting")

    app = page(script)
    assert app.status[0].label.startswith("Counting: done in ") and app.status[0].state == "complete"
    assert app.get("progress")[0].proto.text == "7 of 7"


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (((3, 12), {}), (3, 12, "")),
        (((3, 12, "Ash Hill"), {}), (3, 12, "Ash Hill")),
        (((0.25,), {}), (0.25, 1.0, "")),
        ((("now", 0.25), {}), (0.25, 1.0, "now")),
        (((5,), {}), (5, None, "")),
        ((("only words",), {}), (0, None, "only words")),
        (({"done": 2, "total": 4, "message": "half"},), (2, 4, "half")),
        (((), {"current": 2, "total": 4}), (2, 4, "")),
        (((True, None), {}), None),
    ],
)
def test_what_a_call_says_to_the_bar(call: Any, place: Any) -> None:
    args, kwargs = call if len(call) == 2 else (call, {})
    assert bar().place(list(args), kwargs) == place


def test_calls_can_be_read_in_ones_own_way() -> None:
    reader = bar(lambda event: None if event == "noise" else (event["n"], 10, event["what"]))
    assert reader.place([{"n": 4, "what": "pin"}], {}) == (4, 10, "pin")
    assert reader.place(["noise"], {}) is None


def test_what_cannot_be_read_is_said() -> None:
    def script() -> None:
        import streamlit as st
        from orchestrator_adapters.streamlit import bar, run_with_progress

        outcome = run_with_progress("paging:count", 3, progress_callback=bar(lambda *_: 1 / 0))
        st.session_state.status = outcome.status

    app = page(script)
    assert app.session_state.status == "succeeded"
    assert app.code[0].value == "what reads the bar raised ZeroDivisionError: division by zero"


def test_an_error_of_a_callback_is_the_pages_and_ends_the_job() -> None:
    def script() -> None:
        from orchestrator_adapters.streamlit import run_with_progress

        from orchestrator import callback

        def note(done: int, total: int) -> None:
            raise LookupError("of the page")

        run_with_progress("paging:count", 3, progress_callback=callback(note), key="count")

    app = AppTest.from_function(script, default_timeout=DEADLINE).run()
    assert [each.value for each in app.exception] == ["of the page"]


# Who is found


def test_a_call_without_a_key_runs_each_time() -> None:
    def script() -> None:
        import streamlit as st
        from orchestrator_adapters.streamlit import run_with_progress

        outcome = run_with_progress("paging:double", 4)
        st.write(f"value {outcome.value}, job {outcome.job_id}")

    app = page(script)
    assert said(app) == ["value 8, job 1"]
    assert said(again(app)) == ["value 8, job 2"]


def test_a_key_remembers_until_it_is_started_again() -> None:
    def script() -> None:
        import streamlit as st
        from orchestrator_adapters.streamlit import run_with_progress

        outcome = run_with_progress("paging:double", 4, key="four", start=st.session_state.start)
        st.write(f"job {outcome and outcome.job_id}")

    app = page(script, start=False)
    assert said(app) == ["job None"]
    for start, job in ((None, 1), (None, 1), (False, 1), (True, 2), (False, 2)):
        app.session_state.start = start
        assert said(again(app)) == [f"job {job}"]
    assert said(page(script, start=False)) == ["job None"], "another session has other jobs"


def test_a_shared_key_is_every_sessions() -> None:
    def script() -> None:
        import streamlit as st
        from orchestrator_adapters.streamlit import run_with_progress

        outcome = run_with_progress("paging:double", 4, key="four", shared=True)
        st.write(f"job {outcome.job_id}")

    assert said(page(script)) == said(page(script)) == ["job 1"]


def test_results_of_long_ago_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def script() -> None:
        import streamlit as st
        from orchestrator_adapters.streamlit import run_with_progress

        for number in range(3):
            run_with_progress("paging:double", number, key=f"key {number}", start=st.session_state.start)

    monkeypatch.setattr(_server, "_MOST_FINISHED", 1)
    app = page(script, start=None)
    assert not app.info
    assert [each.value for each in again(app).info] == ["This job has ended, and its result is not kept any more."]
    app.session_state.start = True
    assert not again(app).info


def test_what_runs_is_found_by_its_arguments(tmp_path: Path) -> None:
    def script() -> None:
        import streamlit as st
        from orchestrator_adapters.streamlit import get_supervisor, run_with_progress

        class Interrupt(BaseException):
            pass

        class Container:
            """Interrupts the page at its first drawing, as Streamlit does."""

            def status(self, *_: object, **__: object) -> None:
                raise Interrupt

        get_supervisor(workers=2)
        found = Container() if st.session_state.interrupt else st
        try:
            outcome = run_with_progress("paging:steps", st.session_state.folder, total=1, container=found)
        except Interrupt:
            st.write("interrupted")
        else:
            st.write(f"job {outcome.job_id}: {outcome.value}")

    app = page(script, interrupt=True, folder=str(tmp_path))
    assert said(again(app)) == ["interrupted"]
    (tmp_path / "step-1").touch()
    app.session_state.interrupt = False
    assert said(again(app)) == ["job 1: 1"]
    assert said(again(app)) == ["job 2: 1"]


@pytest.mark.parametrize("way", ["lambda: 0", "paging.Unpicklable()"])
def test_arguments_that_cannot_be_recognised_need_a_key(way: str) -> None:
    def script() -> None:
        import paging
        import streamlit as st
        from orchestrator_adapters.streamlit import run_with_progress

        from orchestrator.exceptions import ConfigurationError

        try:
            run_with_progress("paging:double", eval(st.session_state.way, {"paging": paging}))
        except ConfigurationError as error:
            st.write(str(error))

    assert said(page(script, way=way)) == [
        "key: is needed here: the arguments cannot be recognised when the page runs again"
    ]


# Refusals


def test_what_cannot_be_run_is_shown_and_tried_again() -> None:
    def script() -> None:
        import paging
        import streamlit as st
        from orchestrator_adapters.streamlit import run_with_progress

        outcome = run_with_progress(paging.double, *st.session_state.numbers, key="double")
        st.write(f"{outcome.status} {outcome.value}")

    app = page(script, numbers=[1, 2])
    assert said(app) == ["failed None"]
    assert app.status[0].label == "double: not started"
    assert "takes 1 positional argument" in app.error[0].value.replace("\\", "") or "too many" in app.error[0].value
    app.session_state.numbers = [4]
    assert said(again(app)) == ["succeeded 8"]


def test_evidence_of_a_failure_is_shown(tmp_path: Path) -> None:
    def script() -> None:
        import streamlit as st
        from orchestrator_adapters.streamlit import run_with_progress

        run_with_progress("paging:fail_with_evidence", st.session_state.picture, key="fail")

    from PIL import Image

    path = tmp_path / "picture.png"
    Image.new("RGB", (20, 10), "teal").save(path)
    app = page(script, picture=str(path))
    assert [each.value for each in app.error] == ["ValueError\\: look at the picture"]
    assert app.code[-1].value == str(path)
    assert pictures(app) == 1
    path.unlink()
    assert pictures(again(app)) == 0, "what is gone is not shown"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"on_rerun": "stop"}, "on_rerun: must be 'keep' or 'cancel', not 'stop'"),
        ({"key": ""}, "key: must be a non-empty string, not ''"),
        ({"shared": True}, "shared: needs a key that all sessions know the job by"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], problem: str) -> None:
    from orchestrator_adapters.streamlit import run_with_progress

    with pytest.raises(ConfigurationError, match=problem):
        run_with_progress(paging.double, 1, **options)


def test_a_job_has_its_arguments_already() -> None:
    from orchestrator_adapters.streamlit import run_with_progress

    with pytest.raises(ConfigurationError, match="takes no more"):
        run_with_progress(Job(paging.double), 1)


# The supervisor


def test_there_is_one_supervisor_for_all() -> None:
    first = get_supervisor(workers=1)
    assert get_supervisor() is first
    assert get_supervisor(workers=1) is first
    found: list[BlockingSupervisor] = []
    thread = threading.Thread(target=lambda: found.append(get_supervisor()))
    thread.start()
    thread.join()
    assert found == [first]
    with pytest.raises(ConfigurationError, match=r"workers: is not what supervisor 'streamlit' was opened with"):
        get_supervisor(workers=2)
    assert get_supervisor(name="other", workers=2) is not first


def test_functions_among_the_options_may_be_made_anew() -> None:
    def opened() -> BlockingSupervisor:
        return get_supervisor(workers=1, secrets={"NAME": lambda: "value"})

    assert opened() is opened()


def test_a_closed_supervisor_is_replaced() -> None:
    first = get_supervisor(workers=1)
    first.close()
    second = get_supervisor(workers=1)
    assert second is not first
    assert second.run(paging.double, 4) == 8


def test_one_of_a_module_that_was_imported_anew_is_replaced() -> None:
    class Earlier(BlockingSupervisor):
        pass

    first = Earlier(workers=1).open()
    _server.held().supervisors["streamlit"] = first, {}
    assert get_supervisor() is not first
    for thread in threading.enumerate():
        if thread.name == "orchestrator release":
            thread.join(DEADLINE)
    assert first.statistics().state == "closed"


def test_clearing_the_caches_cancels_and_closes(tmp_path: Path) -> None:
    def script() -> None:
        from orchestrator_adapters.streamlit import get_supervisor

        get_supervisor(workers=1)

    page(script)
    supervisor = get_supervisor()
    handle = supervisor.submit(paging.steps, str(tmp_path))
    next(event for event in handle.events() if event.kind == "state" and event.state == "running")
    st.cache_resource.clear()
    with pytest.raises(JobCancelled):
        handle.result(DEADLINE)
    assert get_supervisor(workers=1) is not supervisor


# One job, watched


@pytest.fixture
def supervisor() -> Iterator[BlockingSupervisor]:
    with BlockingSupervisor(workers=1) as opened:
        yield opened


def until_over(watch: Watch) -> None:
    snapshot = watch.snapshot()
    while not watch.is_over:
        snapshot = watch.wait(snapshot.version, DEADLINE)


def test_a_call_that_a_rerun_interrupts_is_made_again(supervisor: BlockingSupervisor) -> None:
    class Rerun(BaseException):
        pass

    calls: list[int] = []

    def interrupted(done: int, total: int) -> None:
        if done == 2:
            raise Rerun
        calls.append(done)

    job = Job(paging.count, args=(3, callback(interrupted)))
    watch = Watch("identity", "Counting")
    watch.start(supervisor, job)
    until_over(watch)
    assert watch.snapshot().outcome is None, "calls come before the end"
    with pytest.raises(Rerun):
        watch.make_calls()
    watch.attach(Job(paging.count, args=(3, callback(lambda done, total: calls.append(done)))))
    watch.make_calls()
    assert calls == [1, 2, 3]
    outcome = watch.snapshot().outcome
    assert outcome is not None and outcome.value == 3


def test_calls_that_nobody_takes_do_not_stop_the_job(
    supervisor: BlockingSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_watch, "_ABANDONED", 0.0)
    calls: list[int] = []
    watch = Watch("identity", "Counting")
    watch.start(supervisor, Job(paging.count, args=(2500, callback(lambda done, total: calls.append(done)))))
    until_over(watch)
    watch.make_calls()
    assert calls == list(range(1501, 2501))


def test_only_the_latest_call_waits_if_it_says_so(supervisor: BlockingSupervisor) -> None:
    calls: list[int] = []
    watch = Watch("identity", "Counting")
    note = callback(lambda done, total: calls.append(done), latest=True)
    watch.start(supervisor, Job(paging.count, args=(50, note)))
    until_over(watch)
    watch.make_calls()
    assert calls == [50]


def test_the_package_costs_nothing_until_it_is_used() -> None:
    code = "import sys, orchestrator_adapters.streamlit as a; a.__all__, dir(a); assert 'streamlit' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
