"""A program with a Streamlit page as its service: prints its pid and the page's address, and goes on until killed."""

import sys
import threading

from orchestrator_adapters.streamlit import streamlit_service

from orchestrator import BlockingSupervisor

if __name__ == "__main__":
    with BlockingSupervisor(workers=1) as supervisor, supervisor.service(streamlit_service(sys.argv[1])) as service:
        service.wait_ready()
        print(service.pid, service.url, flush=True)
        threading.Event().wait()
