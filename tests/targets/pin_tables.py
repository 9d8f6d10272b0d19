"""Pins and their pictures for tests of the publisher, and processes of a supervisor's children to be killed."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import psutil
from orchestrator_adapters.publisher import Pin, Profile, load_profile
from pin_boards import PASSWORD, USERNAME, PinBoard, picture

from orchestrator import Supervisor

BOARDS = ("Gardens", "Kitchens", "Reading", "Travel", "Workshops")
ACCOUNT = {"PIN_BOARD_USERNAME": USERNAME, "PIN_BOARD_PASSWORD": PASSWORD}
COLUMNS = ("title", "description", "board", "link", "image")


def make_pins(folder: Path, count: int) -> list[Pin]:
    """Make so many pins with one picture."""
    (folder / "picture.png").write_bytes(picture(7, 32, 40))
    return [
        Pin(
            f"Pin {number}",
            f"number {number}",
            BOARDS[number % len(BOARDS)],
            f"https://pins.example/{number}",
            "picture.png",
            line=number + 2,
            folder=str(folder),
        )
        for number in range(count)
    ]


def make_table(folder: Path, count: int) -> Path:
    """Write so many pins as CSV; returns the file."""
    path = folder / "pins.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows([getattr(pin, name) for name in COLUMNS] for pin in make_pins(folder, count))
    return path


def profile_of(board: PinBoard, **lookup: object) -> Profile:
    """Return the local profile for a board, with changes of its lookup."""
    profile = load_profile("local").with_site(url=board.url)
    return Profile({**profile.data, "lookup": {**profile.data["lookup"], **lookup}}) if lookup else profile


def each_once(board: PinBoard, pins: list[Pin]) -> dict[str, str]:
    """Assert that a board has each pin, and none twice; returns their ids by key."""
    links = [pin["link"] for pin in board.pins()]
    count = {pin.key: sum(link.endswith(f"mark={pin.mark}") for link in links) for pin in pins}
    assert count == dict.fromkeys(count, 1)
    assert len(links) == len(pins)
    assert board.twice() == []
    return {pin.key: str(found["id"]) for pin in pins for found in board.pins(mark=pin.mark)}


def children_of(supervisor: Supervisor) -> list[psutil.Process]:
    """Return the children that a supervisor says it has, each of them a child of this process."""
    pids = [worker.pid for worker in supervisor.statistics().workers if worker.pid is not None]
    found = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if process.ppid() == os.getpid():
                found.append(process)
        except psutil.NoSuchProcess:
            pass
    return found


def process_of(child: psutil.Process, kind: str) -> psutil.Process | None:
    """Return a process of a kind: `child`, its `driver`, `browser`, or a `page` of that; None if it has none now."""
    if kind == "child":
        return child
    try:
        for process in child.children(recursive=True):
            if _kind(process) == kind:
                return process
    except psutil.Error:
        pass
    return None


def _kind(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return ""
    if "run-driver" in command:
        return "driver"
    if "--remote-debugging-pipe" in command and "--type=" not in command:
        return "browser"
    return "page" if "--type=renderer" in command else ""
