"""What Streamlit reads at run time beside the modules that it imports by statements."""

from __future__ import annotations

# Imported from within functions by name, or by the code that Streamlit makes of a page.
_HIDDEN = (
    "streamlit.runtime.scriptrunner.magic_funcs",
    "streamlit.web.bootstrap",
)
# Command line, its test bench, and what it is developed with.
_UNUSED = ("streamlit.testing", "streamlit.web.cli", "streamlit.__main__", "streamlit.hello")


def collect_streamlit() -> tuple[list[tuple[str, str]], list[str]]:
    """Return the files and hidden imports of Streamlit, for a hook or a spec file.

    Our own hook for Streamlit does this by itself; a spec file needs it only where hooks are turned off.
    """
    from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

    files = [*collect_data_files("streamlit"), *copy_metadata("streamlit")]
    modules = collect_submodules("streamlit", filter=_is_used)
    return files, [*dict.fromkeys([*_HIDDEN, *modules])]


def _is_used(name: str) -> bool:
    return not any(name == unused or name.startswith(f"{unused}.") for unused in _UNUSED)
