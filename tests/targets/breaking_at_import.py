"""A module whose import ends the process, when it is told to."""

from __future__ import annotations

import os
import sys

if os.environ.get("BREAKS_AT_IMPORT"):
    print("no luck", file=sys.stderr, flush=True)
    os._exit(78)
