"""The sources of all figures of a run: networks, real frames, and the factors of the embedded data set."""

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ifttn.data import diagnostic
from ifttn.data.samples import whole_snippets
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.recipes import find
from ifttn.experiment.runs import Run
from ifttn.experiment.scores import late_fusion
from ifttn.experiment.work import Work
from ifttn.insight.drawing_settings import usual_recipe
from ifttn.insight.embedded.ring_judges import FactorJudges
from ifttn.insight.order import Frames
from ifttn.model.network import Network
from ifttn.vocabulary import IfttnError, Video
from lab import figures


class Drawn(NamedTuple):
    """A figure, and its table if it has one, before they are written to files."""

    name: str
    title: str
    caption: str
    figure: figures.Figure
    table: pd.DataFrame | None = None


class Sources:
    """The sources of all figures of a run: networks, real frames, and the factors of the embedded data set."""

    def __init__(self, work: Work, run: Run, full: bool) -> None:
        self.work, self.run, self.full = work, run, full
        self.network = run.network(work.device)
        self.modalities = self.network.settings.modalities
        self.preset = find(work.preset, PRESETS, "preset")
        self.segments = self.preset.segments
        self.actions = work.split.actions
        self.factors: pd.DataFrame | None = None
        with suppress(IfttnError):  # only the embedded data set has factors
            self.factors = diagnostic.factors(work.split.test[0].path.parents[1])
        self.where = f"{run.folder.name} on {work.split.dataset}, split {work.split.number}, preset {work.preset}"
        others = dict(self._networks_of_other_splits())
        helper = dict(list(others.items())[:-1][:1])  # the first of two other networks helps to draw
        self.drawing = {f"split {work.split.number}": self.network, **helper}
        self.apart = {name: network for name, network in others.items() if name not in helper}
        self.witnesses = self.apart or self.drawing
        split = work.split
        self.recipe = usual_recipe(
            work.runs, split.dataset, split.number, self.modalities, self.preset.size, work.device
        )
        self.shown = spread_couples(len(self.actions), 4)
        """Actions in Figures 1 and 7."""
        self.middle = (self.segments - 1) // 2
        """First snippet of the pair around the middle of a video."""
        self._frames: tuple[int, Frames] | None = None

    def _networks_of_other_splits(self) -> Iterator[tuple[str, Network]]:
        for split in sorted({1, 2, 3} - {self.work.split.number}):
            other = Run.of(self.work.runs, self.work.split.dataset, split, self.run.folder.name)
            if other.finished:
                yield f"split {split}", other.fitting(self.actions).network(self.work.device)

    def snippets(self, video: Video) -> dict[str, Tensor]:
        """The test snippets of a video as whole frames of each modality: (K, C, H, W)."""
        snippets = whole_snippets(self.work.store, video, self.modalities, self.segments)
        return {modality: x.to(self.work.device) for modality, x in snippets.items()}

    def frames(self, action: int, videos: int = 16) -> Frames:
        """Training frames of an action and their times. Only the frames of the last action stay in memory."""
        if self._frames is None or self._frames[0] != action:
            self._frames = None
            own = [video for video in self.work.split.train if video.label == action][:videos]
            self._frames = action, Frames.of(torch.stack([self.snippets(video)["rgb"] for video in own]))
        return self._frames[1]

    @cached_property
    def panel(self) -> FactorJudges | None:
        """Judges of form, balls and scene, for the embedded data set."""
        return None if self.factors is None else FactorJudges(self.factors, self.actions, self.work.device)

    def fused_scores(self) -> Float[np.ndarray, "N A"]:
        """The late fusion of the run's scores of test videos."""
        return late_fusion(self.run.scores().heads)


def as_images(planes: Tensor) -> UInt8[np.ndarray, "_ H W 3"]:
    """Planes (_, 3, H, W) in 0..255 -> images."""
    return planes.clamp(0, 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def spread_couples(actions: int, count: int) -> list[int]:
    """Couples of neighbouring actions, spread over the list. In embedded sets, a couple differs only in order."""
    first = [2 * round(x) for x in np.linspace(0, max(0, actions // 2 - 1), max(1, count // 2))]
    return sorted({action for each in first for action in (each, each + 1) if action < actions})
