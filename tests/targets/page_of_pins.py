"""A Streamlit page that publishes pins with a class that knows nothing of it, as PAGE_WAY says."""

import json
import os

import streamlit as st
from orchestrator_adapters.streamlit import bar, progress_fragment, run_with_progress

from orchestrator import Job

way = os.environ["PAGE_WAY"]
pins = json.loads(os.environ["PAGE_PINS"])
job = Job(
    os.environ["PAGE_TARGET"],
    init={"site": os.environ["PAGE_BOARD"]},
    args=(pins,),
    kwargs={"progress_callback": bar()},
)
st.title("Pins")
start = st.button("Publish")
if way == "fragment":
    outcome = progress_fragment(job, key="publish", label="Publishing", start=start)
note = st.text_input("Note")  # below what does not wait, above what waits
st.write(f"The note is {note or 'empty'}.")
if way != "fragment":
    outcome = run_with_progress(job, key="publish", label="Publishing", start=start, on_rerun=way)
if outcome is not None:
    st.write(f"It {outcome.status}: {json.dumps(outcome.value)}")
