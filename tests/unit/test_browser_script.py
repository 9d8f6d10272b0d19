"""How the scripts find a browser and ffmpeg, and what they do on a machine that has none; apt-get is a fake."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake programs are scripts of a POSIX shell")


def load_browser_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scripts_browser", SCRIPTS / "_browser.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_browser = load_browser_script()


class Machine:
    """A machine with nothing on it but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.log = folder / "apt-get.log"
        self.said: list[str] = []
        self.environment = {"PATH": str(self.bin), "HOME": str(folder / "home")}

    def program(self, path: Path | str, text: str = "") -> str:
        file = self.bin / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        file.chmod(0o755)
        return str(file)

    def apt_get(self, then: str) -> None:
        note = f'echo "$DEBIAN_FRONTEND $*" >>"{self.log}"'
        self.program("apt-get", f"{note}\ncase $* in *install*) {then};; esac")

    def installs(self) -> str:
        """What a fake apt-get does that brings the packages it is asked for."""
        made = f'/bin/cp /bin/sh "{self.bin}"/$name'
        return f"for name in chromium ffmpeg; do case $* in *$name*) {made};; esac; done"

    def provide(self, *, may_install: bool = True) -> tuple[str | None, str | None]:
        found: tuple[str | None, str | None] = _browser.provide(
            self.said.append, self.environment, may_install=may_install
        )
        return found

    def commands(self) -> list[str]:
        return self.log.read_text("utf-8").splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_is_there_is_used_and_nothing_is_said_or_installed(machine: Machine) -> None:
    machine.apt_get("exit 1")
    browser, ffmpeg = machine.program("chromium"), machine.program("ffmpeg")
    assert machine.provide() == (browser, ffmpeg)
    assert (machine.said, machine.commands()) == ([], [])


def test_the_order_is_the_variable_then_playwrights_own_then_path(machine: Machine) -> None:
    last = machine.program("google-chrome")
    assert _browser.find(machine.environment).browser == last
    first = machine.program("chromium")
    assert _browser.find(machine.environment).browser == first
    cache = machine.folder / "home" / ".cache" / "ms-playwright"
    if sys.platform == "darwin":
        cache = machine.folder / "home" / "Library" / "Caches" / "ms-playwright"
    machine.program(cache / "chromium-999" / "chrome-linux" / "chrome")
    own = machine.program(cache / "chromium-1000" / "chrome-linux" / "chrome")
    assert _browser.find(machine.environment).browser == own
    machine.environment["PLAYWRIGHT_BROWSERS_PATH"] = str(machine.folder / "empty")
    assert _browser.find(machine.environment).browser == first
    machine.environment["ORCHESTRATOR_BROWSER"] = machine.program("mine")
    assert _browser.find(machine.environment).browser == machine.environment["ORCHESTRATOR_BROWSER"]


def test_a_variable_that_names_no_program_is_an_error(machine: Machine) -> None:
    machine.program("chromium")
    machine.environment["ORCHESTRATOR_BROWSER"] = "/no/browser"
    with pytest.raises(SystemExit, match="ORCHESTRATOR_BROWSER=/no/browser is no program"):
        machine.provide()


def test_what_is_missing_is_installed_after_an_update_and_said(machine: Machine) -> None:
    machine.apt_get(machine.installs())
    assert machine.provide() == (str(machine.bin / "chromium"), str(machine.bin / "ffmpeg"))
    update, install = machine.commands()
    assert update.startswith("noninteractive ") and update.endswith(" update")
    assert install.endswith(" install --yes --no-install-recommends chromium ffmpeg")
    assert machine.said == ["Installing Debian's chromium and ffmpeg with apt-get, for what drives a real browser"]


def test_only_what_is_missing_is_installed(machine: Machine) -> None:
    machine.apt_get(machine.installs())
    chrome = machine.program("google-chrome-stable")
    assert machine.provide() == (chrome, str(machine.bin / "ffmpeg"))
    assert machine.commands()[-1].endswith(" --no-install-recommends ffmpeg")


def test_whoever_may_not_install_is_told_what_to_install(machine: Machine) -> None:
    machine.apt_get(machine.installs())
    assert machine.provide(may_install=False) == (None, None)
    assert machine.commands() == []
    (said,) = machine.said
    assert said.startswith("There is no browser (Chromium or Chrome) and no ffmpeg (only videos need it). Install it, ")
    assert "playwright install" in said and said.endswith("; or let ORCHESTRATOR_BROWSER name one.")


def test_an_installation_that_fails_says_why_and_what_to_do(machine: Machine) -> None:
    machine.apt_get("echo 'Reading package lists...'; echo 'E: Unable to locate package chromium'; exit 100")
    assert machine.provide() == (None, None)
    _, why, what = machine.said
    assert why.endswith(": E: Unable to locate package chromium (exit code 100)")
    assert "playwright install" in what


def test_an_index_that_cannot_be_fetched_does_not_matter_when_the_packages_come(machine: Machine) -> None:
    machine.apt_get(machine.installs())
    script = machine.bin / "apt-get"
    script.write_text(script.read_text("utf-8") + "\ncase $* in *update*) exit 100;; esac\n", "utf-8")
    assert None not in machine.provide()
    assert len(machine.said) == 1


def test_an_installation_that_hangs_is_given_up(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_browser, "INSTALL_DEADLINE", 0.2)
    machine.program("apt-get", "exec /bin/sleep 60")
    assert machine.provide() == (None, None)
    assert machine.said[1] == "apt-get could not install chromium and ffmpeg: it was not done after 0.2 s"
