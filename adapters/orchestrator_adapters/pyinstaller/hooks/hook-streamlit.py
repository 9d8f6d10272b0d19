"""Streamlit reads its version from its metadata and its pages from files, and imports much by name."""

from __future__ import annotations

from orchestrator_adapters.pyinstaller import collect_streamlit

datas, hiddenimports = collect_streamlit()
