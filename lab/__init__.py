"""Figures, tables and panels for notebooks.

`lab.open()` gives a notebook a study or the published run, and `lab.quick_study()` the command that trains a study.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lab.shelf

RESULTS = os.environ.get("IFTTN_RESULTS", "../results")
"""The folder of the notebooks' study."""
NOTEBOOK_PRESET = os.environ.get("IFTTN_PRESET", "tiny")
"""The preset of that study."""
VIDEOS = int(os.environ.get("IFTTN_VIDEOS", 960))
"""The number of videos in the embedded data set of that study."""


def open(folder: Path | str = RESULTS) -> "lab.shelf.Shelf":
    """Open the study in a folder, or the published run where the folder has no trained network.

    It prints which of the two it opened.
    """
    from lab.opening import open_study  # not above: `ifttn --help` imports this room, and needs no torch

    return open_study(Path(folder))


def quick_study() -> list[str]:
    """Arguments of `ifttn.cli.main` that train what the notebooks show and is not trained yet."""
    return ["reproduce", "--quick", "--brief", f"--preset={NOTEBOOK_PRESET}", f"--videos={VIDEOS}", f"--out={RESULTS}"]
