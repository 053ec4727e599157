"""How drawings are made (octaves, objective, jitter), a preset for each size of network, and the usual recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from ifttn.insight.embedded.denoiser import Denoiser, denoiser_file, load_denoiser
from ifttn.vocabulary import IfttnError


@dataclass(frozen=True)
class Octave:
    """Steps on one size of canvas. Blur and step size change linearly from their first value to their second; the
    noise of a denoiser changes linearly in its cube root."""

    steps: int
    canvas: int
    """Height of the canvas (px)."""
    sigma: tuple[float, float]
    """Standard deviation of the blur after a step (px), 0 for none. With a denoiser: standard deviation of the noise
    that a step removes, where real values have `denoiser.SPREAD`."""
    step_size: tuple[float, float]
    """Mean change of a pixel by a step, before box and blur (levels of 255). With a
    denoiser: weight of the network's gradient, where 1 is Bayes' rule."""


@dataclass(frozen=True)
class Settings:
    """How a drawing is made. The fields after `octaves` are not part of DeepDraw as published, and off by default."""

    crop: int
    """Side of the crop (px) that the network sees of a larger canvas."""
    octaves: tuple[Octave, ...]
    objective: Literal["logit", "contrast", "log-probability"] = "logit"
    """The objective: the action's logit, or the logit minus the log-sum-exp of the others, or of all logits."""
    aspect: float = 1.0
    """Width over height of a canvas."""
    shift: float = 0.0
    """Jitter: before each forward pass the crop is moved by up to this many pixels ..."""
    zoom: float = 0.0
    """... enlarged or reduced by up to this share ..."""
    turn: float = 0.0
    """... and turned by up to this many degrees, the same for all snippets and modalities."""
    denoised: bool = False
    """A denoiser replaces box and blur: from noise alone to something like a real pair, guided by the network
    (classifier guidance: Dhariwal & Nichol 2021; its gradient through the denoiser: Chung et al. 2023)."""


DRAWING_PRESETS: Mapping[str, Settings] = {
    # Whole frames of the embedded set, seen by crops as in training. Its actions share factors, so that their logits
    # rise together: the logit alone would draw what half of the actions share. Jitter is as strong as a real frame
    # bears, the blur no wider than a ring is thick, and the steps end while the judges of form see a clear form.
    "tiny": Settings(
        64,
        (Octave(40, 72, (1.5, 1.0), (12.0, 8.0)),),
        objective="contrast",
        aspect=4 / 3,
        shift=8.0,
        zoom=0.3,
        turn=40.0,
    ),
    # The gradient of the probability fades once the network is sure, so that the denoiser can repair what the network
    # spoilt. No jitter is needed: the denoiser leaves no pattern that fools the network.
    "tiny-denoised": Settings(
        64,
        (Octave(32, 72, (8.0, 0.1), (200.0, 200.0)),),
        objective="log-probability",
        aspect=4 / 3,
        denoised=True,
    ),
    # The published recipe with half its steps and half its pixels.
    "small": Settings(112, (Octave(95, 112, (1.25, 0.6), (11.0, 11.0)), Octave(225, 134, (0.7, 0.4), (6.0, 3.0)))),
    # auduno/deepdraw, deepdraw.ipynb, cell 7: the published recipe that needs no auxiliary classifiers.
    "paper": Settings(224, (Octave(190, 224, (2.5, 0.78), (11.0, 11.0)), Octave(450, 269, (0.936, 0.4), (6.0, 3.0)))),
}


STARTS = 5
"""Starts of a drawing through a denoiser, of which the networks that draw and the denoiser choose (`draw_best`)."""


def preset_for(crop: int) -> Settings:
    """The preset for networks that were trained on crops of this side (px).

    Raises:
        IfttnError: there is none.
    """
    for settings in DRAWING_PRESETS.values():
        if settings.crop == crop:
            return settings
    raise IfttnError(f"no preset of drawing for crops of {crop} px: choose from {', '.join(DRAWING_PRESETS)}")


class DrawingRecipe(NamedTuple):
    """How Figures 1 and 7 draw a pair."""

    settings: Settings
    denoiser: Denoiser | None
    head: str
    starts: int


def usual_recipe(
    runs: Path, dataset: str, split: int, modalities: Sequence[str], crop: int, device: str = "cpu"
) -> DrawingRecipe:
    """Through the denoiser of a split if it is trained, else by DeepDraw as published.

    Through a denoiser the late fusion is drawn, because TTN subtracts the scene away.

    Args:
        runs: folder of all runs, of which `dataset` and `split` name some.
        modalities: of the network.
        crop: side of the crops that it was trained on (px).
        device: of the network.

    Raises:
        IfttnError: no preset of drawing has such crops.
    """
    file = denoiser_file(runs, dataset, split, modalities)
    if not file.exists():
        return DrawingRecipe(preset_for(crop), None, "ttn", 1)
    return DrawingRecipe(DRAWING_PRESETS["tiny-denoised"], load_denoiser(file, device), "fused", STARTS)
