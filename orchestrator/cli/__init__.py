"""The command line: `orchestrator run` and `orchestrator doctor`; nothing in the library imports it."""

from __future__ import annotations

__all__ = ("main",)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What follows the program's name; `sys.argv[1:]` when left out.
    """
    # Imported here, so that `import orchestrator.cli` costs nothing and tests can reach its modules alone.
    from orchestrator.cli._app import run_app

    return run_app(arguments)
