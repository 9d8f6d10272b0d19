"""Somebody's own app, which knows nothing of child processes."""
