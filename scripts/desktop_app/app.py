"""A desktop app: a window here, its Streamlit page in a child that may crash, browser jobs in children of that."""

from orchestrator import freeze_support

freeze_support()  # first: a child of the frozen app goes no further than this line

import argparse
import logging
import sys

import place
import window
from instance import SingleInstance
from orchestrator_adapters.streamlit import streamlit_service

from orchestrator import BlockingSupervisor, HttpProbe
from orchestrator.desktop import log_folder

NAME = "page-pictures"  # of the log file and the lock: every app needs its own
TITLE = "Page pictures"
# A page leaks what its users make it keep. At this size it is restarted, and the window shows the new one.
MOST_MEMORY = 1024**3

log = logging.getLogger(NAME)


def main() -> int:
    """Run until the window is closed, or a signal asks the app to end."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__)
    parser.add_argument("--window", choices=window.KINDS, help="by default the first of these that works here")
    options = parser.parse_args()
    folder = log_folder()
    folder.mkdir(parents=True, exist_ok=True)
    place.log_to(folder / f"{NAME}.log")
    with SingleInstance(folder, NAME) as instance:
        if not instance.is_first:
            log.info("it runs already: its window comes to the front")
            instance.call_first()
            return 0
        page = streamlit_service(
            "page.py",
            health=HttpProbe("/_stcore/health", every=10, timeout=10, failures=3),
            max_rss=MOST_MEMORY,
            start_timeout=300,  # the first start of a frozen app unpacks what is large, on an old computer too
            options={"client.toolbarMode": "minimal"},
        )
        # The supervisor has no workers: the page has a supervisor of its own for its jobs.
        with BlockingSupervisor(workers=0, name=NAME) as supervisor, supervisor.service(page) as service:
            shown = window.open_window(TITLE, service, options.window)
            instance.on_second_start = shown.show
            place.on_signals(shown.close)
            shown.run()
            log.info("the window is closed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
