"""Opens the study beside a notebook, or the published run if that study has no trained network."""

import json
from pathlib import Path

from ifttn.experiment import published
from ifttn.experiment.results import PUBLISHED
from lab.progress import StudyBar
from lab.shelf import Shelf

OPENABLE = ("if-ttn", "mv-if-ttn")
"""Recipes: a study with a trained network of one of these is opened."""


def open_study(folder: Path) -> Shelf:
    """Open the study in a folder, or else the published run, which is unpacked beside it; print which one it is.

    Raises:
        IfttnError: the published run is damaged, or cannot be written.
    """
    bar = StudyBar(brief=True)
    if found := [path for recipe in OPENABLE for path in folder.glob(f"runs/*/split*/{recipe}/weights.safetensors")]:
        bar.end(f"Study: {len(found)} complete networks are trained in {folder}.")
        return Shelf(folder)
    root = folder.parent / "published"
    for share in published.unpack(root):
        bar.update(share, ["videos of the published run"])
    shelf = Shelf(root)
    (network, scores), *_ = json.loads((root / PUBLISHED).read_text())["scores"].items()
    split = shelf.split(published.DATASET, 1)
    here = len(split.train) + len(split.test)
    bar.end(
        f"Published run: {network} of {published.DATASET}, preset {published.PRESET}, which was not trained on this "
        f"machine. Its top-1 accuracy is {100 * scores['top-1 as kept']:.1f} % on {scores['test videos']} test videos. "
        f"{here} of the {here + len(split.missing)} videos are here. `make reproduce` trains your own study in about "
        "45 minutes; this cell then opens it.",
        {"how it was made": root / PUBLISHED},
    )
    return shelf
