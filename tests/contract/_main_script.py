"""A program's main script, loaded by a child as `__mp_main__`."""

from orchestrator.child import _target

print("main script runs; loading is", _target.loading_main)
loads = 0


class MainError(Exception):
    pass


def of_main() -> list[object]:
    global loads
    loads += 1
    return [__name__, loads, _target.loading_main]


def fail() -> None:
    raise MainError


if __name__ == "__main__":
    raise SystemExit("a child must never run this")
