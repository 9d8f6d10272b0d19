"""A Streamlit page of a job that shows live pictures."""

import os

import streamlit as st
from orchestrator_adapters.streamlit import get_supervisor, progress_fragment, run_with_progress

get_supervisor(workers=1)
show = progress_fragment if os.environ.get("PAGE_WAY") == "fragment" else run_with_progress
outcome = show("paging:pictures", os.environ["PAGE_FOLDER"], key="pictures", label="Pictures")
if outcome is not None:
    st.write(f"It {outcome.status}.")
