"""A runtime hook of tests: notes each start of the app before anything else of it runs, and ends what would be a storm.

A start that lives too briefly for a watcher outside is counted all the same.
"""

import os
import sys

_folder = os.environ.get("TEST_STARTS")
if _folder:
    with open(os.path.join(_folder, str(os.getpid())), "w", encoding="utf-8") as _note:
        _note.write("\n".join(sys.argv))
    if len(os.listdir(_folder)) > int(os.environ.get("TEST_MOST_STARTS", "8")):
        os._exit(99)
