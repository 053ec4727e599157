"""Figures, tables and panels for notebooks.

`lab.open()` gives a notebook a study or the published run, and `lab.quick_study()` the command that trains a study.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lab.shelf

RESULTS = os.environ.get("IFTTN_RESULTS", "../results")
"""Where the notebooks find the study, or write it."""
NOTEBOOK_PRESET = os.environ.get("IFTTN_PRESET", "tiny")
"""Of the notebooks' study."""
VIDEOS = int(os.environ.get("IFTTN_VIDEOS", 960))
"""In the embedded data set of the notebooks."""


def open(folder: Path | str = RESULTS) -> "lab.shelf.Shelf":
    """The data sets, videos, runs and tables of a study, by default of the one beside the notebooks.

    Where none is trained there, it opens the published run, which comes with the project. A line says which one it is.
    """
    from lab.opening import open_study  # not above: `ifttn --help` imports this room, and needs no torch

    return open_study(Path(folder))


def quick_study() -> list[str]:
    """Arguments of `ifttn.cli.main` that train what the notebooks show, where it is not trained yet."""
    options = {"preset": NOTEBOOK_PRESET, "videos": VIDEOS, "out": RESULTS}
    return ["reproduce", "--quick", "--brief", *(f"--{name}={value}" for name, value in options.items())]
