"""Imported ahead of all jobs."""
