"""Faults on purpose: what the variable asks for happens at that point and pass, and at no other."""

from __future__ import annotations

import errno
import subprocess
import sys
import time

import pytest

from orchestrator import _faults
from orchestrator.exceptions import ConfigurationError


def test_nothing_is_asked_for_here() -> None:
    assert _faults.FAULTS == {}
    _faults.strike("C1")


def test_an_error_at_every_pass_or_at_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_faults, "FAULTS", _faults.parse("C12:errno=28, C8:errno=5:2"))
    for _ in range(2):
        with pytest.raises(OSError, match="asked for by ORCHESTRATOR_FAULT at C12") as caught:
            _faults.strike("C12")
        assert caught.value.errno == errno.ENOSPC
    _faults.strike("C8")
    with pytest.raises(OSError, match="at C8") as caught:
        _faults.strike("C8")
    assert caught.value.errno == errno.EIO
    _faults.strike("C8")
    _faults.strike("C1")


def test_a_stall_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_faults, "FAULTS", _faults.parse("C5:stall=0.05"))
    began = time.monotonic()
    _faults.strike("C5")
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize(
    "text", ["C5", "C15:kill", "C5:kill:0", "C5:explode", "C5:stall=x", "x:kill", "C0:kill", "C5:errno"]
)
def test_a_bad_value_is_one_clear_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match="ORCHESTRATOR_FAULT: '.*' is not POINT:ACTION"):
        _faults.parse(text)


def test_the_variable_is_read_once_and_kills_at_the_third_pass() -> None:
    program = (
        "from orchestrator._faults import FAULTS, strike\n"
        "for number in range(5):\n    print(number, flush=True)\n    if FAULTS: strike('C5')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"ORCHESTRATOR_FAULT": "C5:kill:3", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stdout.split() == ["0", "1", "2"]
    assert done.returncode != 0
