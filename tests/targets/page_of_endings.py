"""A Streamlit page whose jobs end badly, each under its button; the jobs are known by their arguments only."""

import os

import paging
import streamlit as st
from orchestrator_adapters.streamlit import get_supervisor, run_with_progress

from orchestrator import Job

get_supervisor(workers=1, grace=0.5)
st.title("Endings")


def here() -> None:
    """Would be run by a child that imports this page."""


jobs = {
    "Fail": Job(paging.fail, args=("not *this* pin",)),
    "Crash": Job(paging.crash),
    "Hang": Job(paging.steps, args=(os.environ["PAGE_FOLDER"],), timeout=0.5),
    "Page": Job(here),
    "Wrong": Job(paging.double, args=(1, 2)),
}
chosen = [name for name in jobs if st.button(name)]
for name in chosen:
    outcome = run_with_progress(jobs[name], label=name)
    st.write(f"{name}: {outcome.status}")
st.write("The page has ended.")
