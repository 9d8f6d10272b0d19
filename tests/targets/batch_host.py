"""A script that runs a batch, to be killed or interrupted from outside: `python batch_host.py JSON`."""

from __future__ import annotations

import dataclasses
import json
import sys

from orchestrator_adapters.batch import Batch


def main() -> int:
    options = json.loads(sys.argv[1])
    target, source, sink = options.pop("target"), options.pop("source"), options.pop("sink", None)
    report = Batch(target, source, sink, progress="none", **options).run_blocking()
    print(json.dumps(dataclasses.asdict(report)))
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
