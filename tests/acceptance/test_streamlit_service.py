"""A Streamlit page as a service: ready, killed and back at its address, with jobs of its own, stopped, broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_site import Site
from streamlit_visits import DEADLINE, is_alive, until, visitor

from orchestrator import BlockingSupervisor, RestartPolicy
from orchestrator.exceptions import ConfigurationError, ServiceFailed

pytest.importorskip("streamlit")
pytest.importorskip("playwright")
from orchestrator_adapters.streamlit import streamlit_service

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills with POSIX signals")

TARGETS = Path(__file__).parents[1] / "targets"
PAGE = TARGETS / "page_of_a_service.py"
# A child that is killed after this long was not stopped well, on however busy a machine.
PATIENT = 60.0


@pytest.fixture
def visit(browser_path: str) -> Iterator[Any]:
    with visitor(browser_path) as function:
        yield function


@pytest.fixture
def supervisor() -> Iterator[BlockingSupervisor]:
    with BlockingSupervisor(workers=0) as opened:
        yield opened


def expect(page: Any, text: str) -> None:
    try:
        page.get_by_text(text).first.wait_for(state="visible")
    except Exception as error:
        error.add_note(f"the page has:\n{page.inner_text('body')}")
        raise


def status_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
        return int(answer.status)


def test_a_page_is_served_with_its_arguments_and_options(supervisor: BlockingSupervisor, visit: Any) -> None:
    spec = streamlit_service(PAGE, args=["one", "2"], options={"theme.base": "dark"}, stop=PATIENT)
    with supervisor.service(spec) as service:
        service.wait_ready(DEADLINE)
        assert status_of(f"{service.url}/_stcore/health") == 200
        page = visit(service.url)
        expect(page, f"process {service.pid}")
        expect(page, "arguments ['one', '2'], theme dark")
        service.stop()
        assert service.state == "stopped"
        assert service.last_death is not None and service.last_death.exit_code == 0


def test_a_page_with_sessions_that_compute_stops_at_once(supervisor: BlockingSupervisor, visit: Any) -> None:
    with supervisor.service(streamlit_service(PAGE, stop=PATIENT)) as service:
        service.wait_ready(DEADLINE)
        pages = [visit(f"{service.url}/?do=sleep") for _ in range(2)]
        for page in pages:
            expect(page, f"process {service.pid}")
        began = time.monotonic()
        service.stop()
        # It takes 0.2 s with nothing else to do.
        assert time.monotonic() - began < 30
        assert service.last_death is not None and service.last_death.exit_code == 0


def test_a_killed_page_is_back_at_its_address_and_open_pages_connect_again(
    supervisor: BlockingSupervisor, visit: Any
) -> None:
    with supervisor.service(streamlit_service(PAGE)) as service:
        service.wait_ready(DEADLINE)
        url, first = service.url, service.pid
        page = visit(url)
        expect(page, f"process {first}")
        page.get_by_label("Note").fill("still here")
        page.get_by_label("Note").press("Enter")
        expect(page, "the note is still here")
        os.kill(first, signal.SIGKILL)
        until(lambda: service.restarts == 1, "it is started again")
        service.wait_ready(DEADLINE)
        assert service.url == url
        assert service.pid != first
        # Nobody reloads it. It connects again by itself, and is drawn anew when somebody touches it.
        page.get_by_role("button", name="Again").click()
        expect(page, f"process {service.pid}")
        expect(page, "the note is still here")
        assert service.last_death is not None and service.last_death.signal == "SIGKILL"


def test_a_page_has_a_supervisor_of_its_own(supervisor: BlockingSupervisor, visit: Any) -> None:
    with supervisor.service(streamlit_service(PAGE)) as service:
        service.wait_ready(DEADLINE)
        expect(visit(f"{service.url}/?do=job"), "the job says 42")


def test_a_page_runs_a_browser_job(supervisor: BlockingSupervisor, visit: Any) -> None:
    with Site() as site, supervisor.service(streamlit_service(PAGE)) as service:
        service.wait_ready(DEADLINE)
        expect(visit(f"{service.url}/?do=browser&at={site.url}/hello"), "the title is /hello")


@pytest.mark.parametrize("whom", ["host", pytest.param("page", marks=pytest.mark.browser)])
def test_nothing_is_left_when_the_host_or_the_page_is_killed(visit: Any, tmp_path: Path, whom: str) -> None:
    command = [sys.executable, str(TARGETS / "page_serving_host.py"), str(PAGE)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as host:
        try:
            assert host.stdout is not None
            pid, url = host.stdout.readline().split()
            # A worker, with its child, of a supervisor that the page keeps.
            page = visit(f"{url}/?do=keep&at={tmp_path}")
            expect(page, "the job is on its way")
            until(lambda: (tmp_path / "ran").exists(), "the job runs")
            below = psutil.Process(int(pid)).children(recursive=True)
            assert int((tmp_path / "ran").read_text()) in {each.pid for each in below}
            if whom == "page":
                os.kill(int(pid), signal.SIGKILL)
                until(lambda: not any(map(is_alive, below)), "what the page started ends")
            everybody = psutil.Process(host.pid).children(recursive=True)
            host.kill()
            until(lambda: not any(map(is_alive, {*below, *everybody})), "all ends")
        finally:
            host.kill()


# Pages that do not work


def test_a_syntax_error_is_refused_with_its_place(tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("import streamlit as st\nst.write('a' 'b'\n")
    with pytest.raises(ConfigurationError, match=r"page\.py, line 2"):
        streamlit_service(script)
    with pytest.raises(ConfigurationError, match="there is no file 'nowhere.py'"):
        streamlit_service("nowhere.py")


def test_a_page_that_fails_is_ready_or_not_as_one_asks(supervisor: BlockingSupervisor, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("import there_is_no_such_module\n")
    with supervisor.service(streamlit_service(script, name="unchecked")) as service:
        service.wait_ready(DEADLINE)
    spec = streamlit_service(script, check=True, restart=RestartPolicy(max_restarts=1))
    with supervisor.service(spec) as service:
        with pytest.raises(ServiceFailed, match="ModuleNotFoundError: No module named 'there_is_no_such_module'"):
            service.wait_ready(DEADLINE)
        assert service.state == "failed"
        script.write_text("import streamlit as st\n")
        service.restart()
        service.wait_ready(DEADLINE)
        assert status_of(f"{service.url}/_stcore/health") == 200


def test_an_option_that_streamlit_does_not_have_is_named(supervisor: BlockingSupervisor) -> None:
    spec = streamlit_service(PAGE, options={"theme.bass": "deep"}, restart=RestartPolicy(max_restarts=1))
    with supervisor.service(spec) as service, pytest.raises(ServiceFailed, match="theme.bass.*is no option"):
        service.wait_ready(DEADLINE)
