"""A Streamlit page with a job in steps, a field to rerun it with, and a list of what the callback was told."""

import os

import streamlit as st
from orchestrator_adapters.streamlit import get_supervisor, run_with_progress

get_supervisor(workers=1)
folder = os.environ["PAGE_FOLDER"]
st.title("Steps")
note = st.text_input("Note")
st.write(f"The note is {note or 'empty'}.")
outcome = run_with_progress("paging:steps", folder, key="steps", label="Making steps", start=st.button("Start"))
if outcome is not None:
    st.write(f"It {outcome.status}: {outcome.value}")
st.write("The page has ended.")
