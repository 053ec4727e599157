"""What a notebook opens: the study beside it, and the published run where no network of that study is trained yet."""

import json
from pathlib import Path

from ifttn.experiment import published
from ifttn.experiment.results import PUBLISHED
from lab.progress import StudyBar
from lab.shelf import Shelf

OPENABLE = ("if-ttn", "mv-if-ttn")
"""A study that has one of these can be looked at."""


def open_study(folder: Path) -> Shelf:
    """The study in a folder, or the published run in the folder `published` beside it. Says in a line which one it is.

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
        f"machine. {scores['top-1 as kept']:.1%} of its {scores['test videos']} test videos are right. Here are {here} "
        f"of the {here + len(split.missing)} videos. `make reproduce` trains it here in about an hour, and then this "
        "opens your study.",
        {"how it was made": root / PUBLISHED},
    )
    return shelf
