"""From trained runs to the paper's Figures 1, 6 and 7, their measurements, and the training curves.

This package is above `lab`: it opens runs, calls `ifttn.insight`, and draws with `lab.figures`.
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import torch

from ifttn.data.samples import whole_snippets
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.recipes import RECIPES, find
from ifttn.experiment.results import Results
from ifttn.experiment.reversal_frames import gains_of_order
from ifttn.experiment.study import Places, StudySettings, work_on
from ifttn.experiment.work import Work
from ifttn.files import write_whole
from ifttn.gallery.figure_6 import draw_figures_6
from ifttn.gallery.figures_1_7 import draw_figures_1_7
from ifttn.gallery.sources import Drawn, Sources
from ifttn.insight.drawing_settings import DRAWING_PRESETS
from ifttn.insight.embedded.denoiser import denoiser_file, packed, train_denoiser
from ifttn.vocabulary import IfttnError
from lab import figures, pictures, report
from lab.accuracy_figures import order_lollipops

COMPLETE = ("if-ttn", "mv-if-ttn")
"""Recipes with a complete network. The figures show the first one that is trained."""


def draw_figures(work: Work, out: Path, *, full: bool = False, contours: bool = False) -> list[report.Illustration]:
    """Draw every figure that the trained runs of a split allow. Each is a PNG file with a text file of its caption.

    Args:
        work: a split, its store and its runs.
        out: the folder for the figures, and for CSV files of their numbers.
        full: draw all actions with five seeds even without a denoiser, and measure on all test videos.
        contours: outline the balls of the embedded data set in Figure 6.

    Raises:
        IfttnError: no complete network is trained on this split.
    """
    done = []
    for each in _figures(Sources(work, work.trained(complete_recipe(work)), full), contours):
        png = pictures.figure_png(each.figure)
        write_whole(out / f"{each.name}.png", png)
        write_whole(out / f"{each.name}.txt", f"{each.title}\n{each.caption}\n".encode())
        if each.table is not None:
            write_whole(out / f"{each.name}.csv", each.table.to_csv().encode())
        done.append(report.Illustration(each.title, each.caption, png))
    return done


def load_figures(out: Path) -> list[report.Illustration]:
    """The figures that `draw_figures` wrote."""
    texts = {path.with_suffix(".png"): path.read_text().split("\n") for path in sorted(out.glob("*.txt"))}
    return [report.Illustration(title, caption, png.read_bytes()) for png, (title, caption, _) in texts.items()]


def draw_split(places: Places, dataset: str, split: int, setup: StudySettings) -> None:
    """The step of a study that draws the figures. It does nothing if the networks have not changed since."""
    work, drawn = work_on(places, dataset, split, setup), places.root / "figures" / "drawn.json"
    shown = next((recipe for recipe in COMPLETE if work.run(recipe).tested), "")
    weights = sorted(work.runs.glob(f"{dataset}/*/{shown}/weights.safetensors"))
    weights += sorted(work.run("").folder.glob("denoiser-*.safetensors"))
    hashes = json.dumps({str(path.relative_to(work.runs)): sha256(path.read_bytes()).hexdigest() for path in weights})
    if not (drawn.exists() and drawn.read_text() == hashes):
        draw_figures(work, drawn.parent)
        write_whole(drawn, hashes.encode())


def train_split_denoiser(places: Places, dataset: str, split: int, setup: StudySettings) -> None:
    """The step of a study that trains the denoiser."""
    train_denoiser_on(work_on(places, dataset, split, setup), COMPLETE[0])


def train_denoiser_on(work: Work, recipe: str) -> None:
    """Train the denoiser of a recipe's modalities for Figures 1 and 7, unless it exists.

    Raises:
        IfttnError: the preset does not draw with a denoiser.
    """
    preset = find(work.preset, PRESETS, "preset")
    if preset.size != DRAWING_PRESETS["tiny-denoised"].crop:
        raise IfttnError(
            f"preset {work.preset} does not draw with a denoiser: one of {preset.size} px would take days to train, "
            "and DeepDraw as published works at this size"
        )
    modalities = RECIPES[recipe].modalities
    path = denoiser_file(work.runs, work.split.dataset, work.split.number, modalities)
    if not path.exists():
        snippets = [whole_snippets(work.store, v, modalities, preset.segments) for v in work.split.train]
        real = {m: torch.stack([each[m] for each in snippets]).to(work.device) for m in modalities}
        unfinished = path.with_suffix(".unfinished")
        trained = train_denoiser(real, seed=work.seed, progress=work.progress, unfinished=unfinished)
        write_whole(path, packed(trained))
        unfinished.unlink(missing_ok=True)


def complete_recipe(work: Work) -> str:
    """The first complete recipe that is trained and tested.

    Raises:
        IfttnError: no complete recipe is tested.
    """
    recipe = next((recipe for recipe in COMPLETE if work.run(recipe).tested), None)
    if recipe is None:
        raise IfttnError(
            f"no tested run of {' or '.join(COMPLETE)} in {work.run('').folder}: use `ifttn train if-ttn` first"
        )
    return recipe


def _figures(sources: Sources, contours: bool) -> Iterator[Drawn]:
    yield from draw_figures_1_7(sources)
    yield from draw_figures_6(sources, contours=contours)
    work, run = sources.work, sources.run
    runs = {name: work.run(name) for name in (*RECIPES[run.folder.name].needs, run.folder.name)}
    yield Drawn(
        "training",
        "Training",
        f"Loss of each recipe over its stages ({work.split.dataset}, split {work.split.number}).",
        figures.training_curves({name: each.metrics() for name, each in runs.items()}),
    )
    scores = run.scores()
    yield Drawn(
        "confusion",
        "Confusion of actions",
        f"Late-fused scores of {sources.where}, for the test videos.",
        figures.confusion_figure(sources.fused_scores(), scores.labels, scores.actions),
    )
    gains = gains_of_order(Results(work.runs, work.split.test[0].path.parents[2]), work.split.dataset)
    yield Drawn(
        "actions",
        "Which actions need order",
        f"Accuracy of {run.folder.name} on {work.split.dataset} with snippets in order minus its accuracy with "
        "shuffled snippets, for each action, on all tested splits. Intervals are Newcombe's at 95 %.",
        order_lollipops(gains),
        gains,
    )
