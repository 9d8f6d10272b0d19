"""Runs before the app's own first line: in a child it never returns."""

from orchestrator import freeze_support

freeze_support()
