"""A page that publishes pins: upload a table and its pictures, and watch; `streamlit_pins.py` serves it."""

import csv
import io
import os
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pin_jobs
import streamlit as st
from orchestrator_adapters.playwright import ArtifactPolicy, BrowserJob
from orchestrator_adapters.publisher import Pin, PinsError, ProfileError, load_profile, read_pins
from orchestrator_adapters.streamlit import get_supervisor, run_with_progress

from orchestrator import RetryPolicy

if TYPE_CHECKING:
    from streamlit.runtime.uploaded_file_manager import UploadedFile


@st.cache_resource
def uploads() -> "tempfile.TemporaryDirectory[str]":
    """A folder for what is uploaded, until the server ends."""
    return tempfile.TemporaryDirectory(prefix="pins-", dir=os.environ.get("PINS_FOLDER"))


def save(table: "UploadedFile", pictures: "list[UploadedFile]") -> Path:
    """Put the uploaded files into a folder of this session, pictures beside the table, and return the table's path."""
    folder = Path(uploads().name, st.session_state.setdefault("folder", uuid.uuid4().hex))
    folder.mkdir(exist_ok=True)
    for picture in pictures:
        (folder / Path(picture.name).name).write_bytes(picture.getvalue())
    text = table.getvalue().decode("utf-8-sig", "replace")
    rows = list(csv.reader(io.StringIO(text)))
    place = [cell.strip().lower() for cell in rows[0]].index("image") if rows and "image" in text.lower() else None
    for row in rows[1:]:
        if place is not None and place < len(row):
            row[place] = Path(row[place]).name  # browsers upload files without their folders
    with open(folder / "pins.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "pins.csv"


st.set_page_config(page_title="Publish pins", page_icon="📌")
st.title("Publish pins")
site = st.sidebar.text_input("Profile", os.environ.get("PINS_PROFILE", "local"))
url = st.sidebar.text_input("Address of the board", os.environ.get("PINS_URL", "http://127.0.0.1:8123"))
sample = os.environ.get("PINS_SAMPLE")
uploaded = st.file_uploader("Table of pins (CSV: title, description, board, link, image)", type="csv")
pictures = st.file_uploader("Their pictures", type=["png", "jpg", "jpeg", "gif", "webp"], accept_multiple_files=True)
table = save(uploaded, pictures) if uploaded else None
if table is None and sample and st.toggle("Take the sample table"):
    table = Path(sample)

rows = []
try:
    profile = load_profile(site).with_site(url=url)
    if table is not None:
        rows = list(read_pins(table, profile))
except (ProfileError, PinsError) as error:
    st.error(str(error))
    st.stop()
pins = [row for row in rows if isinstance(row, Pin)]
for problem in rows:
    if not isinstance(problem, Pin):
        st.warning(f"Line {problem.line}: {problem.problem}")
if pins:
    st.caption(f"{len(pins)} pins are ready to be published on {url}.")

outcome = run_with_progress(
    BrowserJob(
        pin_jobs.publish_all,
        args=([pin.as_json() for pin in pins], profile.data),
        artifacts=ArtifactPolicy(live=0.5, folder=Path(uploads().name, "artifacts")),
        # A child that is killed midway: another one asks the board which pin is there, and goes on.
        effects="external",
        reconcile="orchestrator_adapters.publisher:is_published",
        retry=RetryPolicy(attempts=3, on=("crash", "BrowserError", "SiteFailed")),
    ),
    key="publish",
    label="Publishing",
    start=st.button("Publish", type="primary", disabled=not pins),
    supervisor=get_supervisor(workers=2, secrets=profile.secrets),
)
if outcome is not None and outcome.succeeded:
    st.dataframe(outcome.value, hide_index=True, column_config={"url": st.column_config.LinkColumn()})
