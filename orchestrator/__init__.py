"""Run Python jobs in supervised child interpreters (lazy public names)."""
