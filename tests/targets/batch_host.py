"""A script that runs a batch, to be killed or interrupted from outside: `python batch_host.py JSON`."""

from __future__ import annotations

import dataclasses
import json
import sys

from orchestrator_adapters.batch import Batch, BatchError


def main() -> int:
    options = json.loads(sys.argv[1])
    fullness = options.pop("fullness", None)
    if fullness is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (fullness, fullness))  # no file grows beyond it, as on a full disk
    target, source, sink = options.pop("target"), options.pop("source"), options.pop("sink", None)
    try:
        report = Batch(target, source, sink, progress="none", **options).run_blocking()
    except BatchError as error:
        print(json.dumps({"reason": str(error), "raised": True}))
        return error.exit_code
    print(json.dumps(dataclasses.asdict(report)))
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
