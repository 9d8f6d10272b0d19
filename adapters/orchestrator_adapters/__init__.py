"""Adapters that connect orchestrator to other tools, each importing public orchestrator names only."""
