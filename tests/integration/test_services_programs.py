"""Services that are scripts, or programs of somebody else."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from service_visits import LONG, ask, lives, restarted, state

from orchestrator import HttpProbe, RestartPolicy, Service, Supervisor
from orchestrator.exceptions import ServiceFailed

pytestmark = pytest.mark.asyncio

SERVER = [sys.executable, "-m", "http.server", "--bind", "{host}", "{port}"]


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    async with Supervisor(workers=0) as opened:
        yield opened


async def test_a_foreign_server_gets_its_port_and_keeps_it(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("hello", "utf-8")
    async with supervisor.service(Service("files", argv=SERVER, cwd=tmp_path, ready=HttpProbe())) as service:
        await service.wait_ready(LONG)
        url, pid = service.url, service.pid
        assert pid is not None and await ask(service, "/page.txt") == "hello"
        assert psutil.Process(pid).cmdline()[-1] == str(service.port)
        psutil.Process(pid).kill()
        await restarted(service)
        assert service.url == url and await ask(service, "/page.txt") == "hello"
    assert service.pid is None


async def test_what_a_foreign_program_prints_is_told(supervisor: Supervisor) -> None:
    code = (
        "import sys, time\n"
        "print('out', flush=True)\n"
        "print('err', file=sys.stderr, flush=True)\n"
        "sys.stdin.read()\n"  # there is nothing in it: this returns at once
        "time.sleep(600)\n"
    )
    async with supervisor.service(Service("talker", argv=[sys.executable, "-c", code], port=None)) as service:
        await service.wait_ready(LONG)
        said = set()
        async with asyncio.timeout(LONG):
            async for event in service.events():
                if event.kind == "log":
                    said.add((event.stream, event.text))
                if len(said) == 2:
                    break
        assert said == {("stdout", "out"), ("stderr", "err")}


async def test_a_foreign_program_that_fails_says_why(supervisor: Supervisor) -> None:
    spec = Service(
        "bad",
        argv=[sys.executable, "-c", "import sys; sys.exit('no licence')"],
        port="auto",
        restart=RestartPolicy(max_restarts=0),
    )
    async with supervisor.service(spec) as service:
        with pytest.raises(ServiceFailed, match="no licence") as failed:
            await service.wait_ready(LONG)
        assert failed.value.certificate is not None and failed.value.certificate.exit_code == 1


async def test_a_foreign_program_with_all_that_it_started_is_gone(supervisor: Supervisor) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    async with supervisor.service(Service("parent", argv=[sys.executable, "-c", code], port=None)) as service:
        await service.wait_ready(LONG)
        async with asyncio.timeout(LONG):
            async for event in service.events():
                if event.kind == "log":
                    grandchild = int(event.text)
                    break
        assert lives(grandchild)
    assert not lives(grandchild)


async def test_secrets_are_not_in_the_environment_of_a_foreign_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "very-secret-value")
    code = (
        "import os; print(os.environ.get('API_KEY'), os.environ.get('OTHER'), flush=True)\nimport time; time.sleep(600)"
    )
    async with Supervisor(workers=0, secrets=["API_KEY"]) as supervisor:
        spec = Service("nosy", argv=[sys.executable, "-c", code], port=None, env={"OTHER": "x"})
        async with supervisor.service(spec) as service, asyncio.timeout(LONG):
            async for event in service.events():
                if event.kind == "log":
                    assert event.text == "None x"
                    break


async def test_a_script_is_the_main_program_of_its_child(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 'from beside'\n", "utf-8")
    script = tmp_path / "server.py"
    script.write_text(
        "import sys, os, json\n"
        "from http.server import BaseHTTPRequestHandler, HTTPServer\n"
        "import beside\n"
        "class Answer(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers()\n"
        "        told = [__name__, __file__, sys.argv, beside.VALUE, sys.modules['__main__'].Answer is Answer]\n"
        "        self.wfile.write(json.dumps(told).encode())\n"
        "if __name__ == '__main__':\n"
        "    HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Answer).serve_forever()\n",
        "utf-8",
    )
    async with supervisor.service(Service("page", script=script, args=["--port={port}", "x"])) as service:
        await service.wait_ready(LONG)
        told = await ask(service)
        assert told == f'["__main__", "{script}", ["{script}", "--port={service.port}", "x"], "from beside", true]'
        first = service.pid
        assert first is not None
        os.kill(first, 9)
        await restarted(service)
        assert await ask(service) == told


async def test_a_script_that_ends_is_started_again(supervisor: Supervisor, tmp_path: Path) -> None:
    script = tmp_path / "short.py"
    script.write_text("import sys\nfrom orchestrator import child\nchild.ready()\nsys.exit(7)\n", "utf-8")
    spec = Service("short", script=script, port=None, ready="message", restart=RestartPolicy(max_restarts=1))
    async with supervisor.service(spec) as service:
        await state(service, "failed")
        assert service.restarts == 1
        assert service.last_death is not None and service.last_death.exit_code == 7
