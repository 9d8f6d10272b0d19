"""The page of the app: takes pictures of web sites, each in a job with a browser of its own."""

import os
import signal

import jobs
import streamlit as st
from orchestrator_adapters.playwright import BrowserJob
from orchestrator_adapters.streamlit import get_supervisor, run_with_progress

st.set_page_config(page_title="Page pictures", page_icon="📷")
st.title("Page pictures")
url = st.text_input("Address", "https://example.org")
outcome = run_with_progress(
    BrowserJob(jobs.look, args=(url,), timeout=60),
    key="look",
    label="Taking a picture",
    start=st.button("Take a picture", type="primary"),
    supervisor=get_supervisor(workers=1),
)
if outcome is not None and outcome.succeeded:
    st.subheader(outcome.value.title)
    st.caption(f"{outcome.value.links} links")
    st.image(outcome.value.picture)

with st.sidebar:
    st.caption(f"This page is served by process {os.getpid()}. The app's window is another one: try it.")
    if st.button("Crash this page"):
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
