"""The version of the package, and of the code that is running."""

import subprocess
from pathlib import Path


__version__ = "0.1.0"


def code_version() -> str:
    """Return the commit of the checkout that the package is run from, or the version of the installed package."""
    folder = Path(__file__).parents[2]
    installed = f"hf_dvflnet {__version__}"
    if not (folder / ".git").exists():
        return installed
    git = subprocess.run(  # noqa: S603
        ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return git.stdout.strip() or installed
