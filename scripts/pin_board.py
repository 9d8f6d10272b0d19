"""Serve a pin board on this machine: a web application to publish pins to, with the faults of real sites."""

import _venv

_venv.enter("demo")

import argparse
import signal
import sys
import threading
from typing import Any

from _pin_board import PASSWORD, USERNAME, PinBoard


def main() -> int:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="pin_board.py", description=__doc__, epilog=f"Log in as {USERNAME} with the password {PASSWORD}."
    )
    share: dict[str, Any] = {"type": float, "default": 0.0, "metavar": "SHARE"}
    parser.add_argument("--port", type=int, default=8123, help="0 for any free port; by default %(default)s")
    parser.add_argument("--errors", **share, help="share of the pages that fail with status 500, such as 0.1")
    parser.add_argument("--lost-answers", **share, help="share of the publishes that fail after the pin is stored")
    parser.add_argument("--rate", type=rate, metavar="N[/S]", help="take N pins in S seconds (10), else status 429")
    parser.add_argument(
        "--duplicates", choices=("allow", "refuse"), default="allow", help="pins that are there already"
    )
    parser.add_argument("--late", type=float, default=0.4, metavar="S", help="fields of the form come within S seconds")
    parser.add_argument("--slow", type=float, default=0.0, metavar="S", help="pages take up to S seconds")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    given = vars(parser.parse_args())
    number, per = given.pop("rate") or (None, 10.0)
    ends = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ends.set())
    try:
        board = PinBoard(rate=number, per=per, **given)
    except OSError as error:
        print(f"Error: cannot listen on port {given['port']}: {error.strerror}; try --port 0", file=sys.stderr)
        return 1
    with board:
        print(board.url, flush=True)
        while not ends.wait(0.5):  # Windows acts on signals only between waits
            pass
        counted = board.stats()
    print(f"{counted['published']} pins published, {len(counted['twice'])} of them twice", file=sys.stderr)
    return 0


def rate(text: str) -> "tuple[int, float]":
    """Read `20` or `20/5`: so many in so many seconds."""
    number, _, per = text.partition("/")
    return int(number), float(per or 10)


if __name__ == "__main__":
    sys.exit(main())
