"""A page that is served as a service: says which process it is, and does what its address asks for."""

import os
import sys
import time

import paging
import streamlit as st
from orchestrator_adapters.playwright import BrowserJob

from orchestrator import BlockingSupervisor


@st.cache_resource
def own_supervisor() -> BlockingSupervisor:
    return BlockingSupervisor(workers=1, name="own").open()


st.write(f"process {os.getpid()}")
st.text_input("Note", key="note")
st.button("Again")
st.write(f"arguments {sys.argv[1:]}, theme {st.get_option('theme.base')}")
st.write(f"the note is {st.session_state.note}")
match st.query_params.get("do"):
    case "job":
        with BlockingSupervisor(workers=1) as supervisor:
            st.write(f"the job says {supervisor.run(paging.double, 21)}")
    case "browser":
        with BlockingSupervisor(workers=1) as supervisor:
            st.write(f"the title is {supervisor.run(BrowserJob(paging.title, args=(st.query_params['at'],)))}")
    case "keep":
        own_supervisor().submit(paging.steps, st.query_params["at"])
        st.write("the job is on its way")
    case "sleep":
        time.sleep(600)
