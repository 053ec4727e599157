"""Figures, tables and panels for notebooks.

`lab.open()` gives a notebook the results of a study, and `lab.quick_study()` the command that makes them.
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
    """The data sets, videos, runs and tables of a study, by default of the one beside the notebooks."""
    from lab.shelf import Shelf  # not above: `ifttn --help` imports this room, and needs no torch

    return Shelf(folder)


def quick_study(results: "lab.shelf.Shelf") -> list[str]:
    """Arguments of `ifttn.cli.main` that train what the notebooks show, where it is not trained yet."""
    options = {"preset": NOTEBOOK_PRESET, "videos": VIDEOS, "out": results.places.root}
    return ["reproduce", "--quick", "--brief", *(f"--{name}={value}" for name, value in options.items())]
