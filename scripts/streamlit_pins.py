"""Show the example of a Streamlit app: upload a table of pins, and watch them being published on a local pin board."""

import _venv

_venv.enter("dev")

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from _demo_pins import make_pins
from _pin_board import PASSWORD, USERNAME, PinBoard

PAGE = _venv.ROOT / "scripts" / "streamlit_pins" / "page.py"


def main() -> int:
    """Serve the board and the page until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="streamlit_pins.py", description=__doc__)
    parser.add_argument(
        "--port", type=int, default=8501, help="of the page; 0 for any free port; by default %(default)s"
    )
    parser.add_argument("--pins", type=int, default=24, metavar="N", help="in the sample table, by default %(default)s")
    parser.add_argument(
        "--errors", type=float, default=0.05, metavar="SHARE", help="share of the board's pages that fail"
    )
    parser.add_argument("--headless", action="store_true", help="open no browser to look at the page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pins-") as name, PinBoard(errors=options.errors) as board:
        folder = Path(name)
        environment = {
            **os.environ,
            "PINS_FOLDER": name,
            "PINS_SAMPLE": str(make_pins(folder, options.pins)),
            "PINS_URL": board.url,
            "PIN_BOARD_USERNAME": USERNAME,
            "PIN_BOARD_PASSWORD": PASSWORD,
        }
        command = [sys.executable, "-m", "streamlit", "run", str(PAGE)]
        command += ["--server.port", str(options.port), "--server.address", "127.0.0.1"]
        command += ["--server.headless", str(options.headless).lower(), "--browser.gatherUsageStats", "false"]
        print(f"The board is {board.url}, its user {USERNAME}, the password {PASSWORD}.", flush=True)
        page = subprocess.Popen(command, env=environment)
        # Ctrl-C reaches the page too, SIGTERM only this script.
        signal.signal(signal.SIGTERM, lambda *_: page.terminate())
        while True:
            try:
                return page.wait()
            except KeyboardInterrupt:
                continue


if __name__ == "__main__":
    sys.exit(main())
