"""Compares ways to draw an ordered pair by networks and judges that did not draw it.

    ifttn bench drawing --results results --seeds 0 1 --csv ways.csv

Each way draws every action of the embedded data set with the networks of splits 1 and 2. The network of split 3 and the
panel of judges are the witnesses. The floor of a way is what it draws from a network of random weights. Every share has
Wilson's interval of 95 % over pairs: the two snippets of a pair count as one observation.

Ways that only this comparison needs are here, not in `ifttn.insight`. Shapes: as in `ifttn.insight.canvases`.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, mse_loss

from ifttn.bench.clock import Clock, PrintedTable, one_core, use_one_core
from ifttn.bench.options import UNTRAINED_WAYS
from ifttn.data import diagnostic
from ifttn.data.catalogue import read_split
from ifttn.data.samples import whole_snippets
from ifttn.data.store import Store
from ifttn.experiment.runs import Run
from ifttn.experiment.significance import wilson
from ifttn.experiment.study import Places
from ifttn.files import write_whole
from ifttn.insight.canvases import Canvas, Pixels
from ifttn.insight.deepdraw import DrawingStep, draw_best, drawn_pairs
from ifttn.insight.drawing_settings import DRAWING_PRESETS, STARTS, Octave, Settings, preset_for
from ifttn.insight.embedded.denoiser import denoiser_file, load_denoiser, train_denoiser
from ifttn.insight.embedded.ring_judges import FactorJudges
from ifttn.insight.order import Frames, order_report
from ifttn.model.network import Network, normalise

DATASET = "embedded-ucf"
REAL_VIDEOS = 16
"""Training videos of an action, among whose frames photographs are sought."""
PAIRS_AT_ONCE = 16
COLUMNS = {
    "apart": lambda report: report["apart gap"] > 0,
    "panel": lambda report: report.margin > 0,
    "scene": lambda report: report.scene,
    "balls": lambda report: report.balls,
    "photographs": lambda report: report.photographs,
    "p(A,B)": lambda report: report["own p(A,B)"],
}
"""Column -> the value of each pair, in 0..1. "apart" and "panel": whether the witness finds the order. "scene", "balls"
and "photographs": the share of the two snippets that show the right scene, show both balls, resemble a real frame.
"p(A,B)": the probability of the action by the networks that draw."""

Way = Callable[[Sequence[Network], Sequence[tuple[int, int]]], tuple[DrawingStep, ...]]


class Waves(Canvas):
    """Fourier canvas with decorrelated colours (Olah et al. 2017; Lucent). Adam changes spectra that fall as 1/f. The
    covariance of real colours and motions decorrelates the channels, and a sigmoid keeps the values in the box."""

    def __init__(self, *of: Any, real: Mapping[str, Float[Tensor, "N _ H W"]]) -> None:
        self.real = real
        super().__init__(*of)

    def start(self) -> None:
        """Start from small amplitudes."""
        height, width = self.size
        frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
        self.fall = 1 / frequency.clamp_min(1 / width)
        self.colours = {modality: _colours(self.real[modality]) for modality in self.seen.modalities}
        self.leaves = [self._leaf(len(mean)).requires_grad_() for mean, _ in self.colours.values()]
        self.adam = torch.optim.Adam(self.leaves)

    def _leaf(self, channels: int) -> Float[Tensor, "B M _ H V 2"]:
        return 0.01 * self.noise(self.seen.snippets, channels, self.size[0], self.size[1] // 2 + 1, 2)

    def _spectrum(self, leaf: Tensor, modality: str) -> Tensor:
        return torch.view_as_complex(leaf) * self.fall

    def _decoded(self) -> dict[str, Float[Tensor, "B M _ H W"]]:
        decoded = {}
        for leaf, (modality, (mean, root)) in zip(self.leaves, self.colours.items(), strict=True):
            z = torch.fft.irfft2(self._spectrum(leaf, modality), s=self.size, norm="ortho")
            varied, centre = torch.einsum("cd,bmdhw->bmchw", root, z) / 255, mean[:, None, None] / 255
            decoded[modality] = 255 * torch.sigmoid(centre.logit() + varied / (centre * (1 - centre)))
        return decoded

    def crops(self, sigma: float) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The amplitudes, by which the objective is differentiated, and the crops."""
        self.place_crops()
        return self.leaves, {modality: self.cut(canvas) for modality, canvas in self._decoded().items()}

    def step(self, gradients: Sequence[Tensor], step_size: float, sigma: float) -> None:
        """One step of Adam."""
        for leaf, gradient in zip(self.leaves, gradients, strict=True):
            leaf.grad = -gradient
        self.adam.param_groups[0]["lr"] = step_size
        self.adam.step()

    def images(self) -> dict[str, Tensor]:
        """The images that have these spectra."""
        with torch.no_grad():
            return self._decoded()


class Phases(Waves):
    """MACO (Fel et al. 2023): only phases are drawn. The magnitudes are the mean magnitudes of real snippets."""

    def start(self) -> None:
        """Start from random phases."""
        super().start()
        self.magnitudes = {}
        for modality, (mean, root) in self.colours.items():
            z = torch.einsum("cd,ndhw->nchw", torch.linalg.inv(root), self.real[modality] - mean[:, None, None])
            self.magnitudes[modality] = torch.fft.rfft2(z, norm="ortho").abs().mean(0)

    def _leaf(self, channels: int) -> Float[Tensor, "B M _ H V"]:
        return 3 * self.noise(self.seen.snippets, channels, self.size[0], self.size[1] // 2 + 1)

    def _spectrum(self, leaf: Tensor, modality: str) -> Tensor:
        return torch.polar(self.magnitudes[modality].expand_as(leaf), leaf)


class Accentuated(Pixels):
    """Changes a real pair (after Hamblin et al. 2024): the drawing starts from a training pair of any action."""

    def __init__(self, *of: Any, start: Mapping[str, Float[Tensor, "B 2 _ H W"]]) -> None:
        self.real = start
        super().__init__(*of)

    def start(self) -> None:
        """Start from the real pair."""
        self.pixels = {modality: self.real[modality].clone() for modality in self.seen.modalities}


class Stimulus(Pixels):
    """After LEAPS (Stergiou and Deligiannis 2023): a penalty keeps the features of a second network near those of a
    real pair of the action, and both snippets near the same scene. The means and deviations of features are over both
    snippets together, so that they do not contain the order."""

    def __init__(self, *of: Any, second: Network, stimulus: Mapping[str, Float[Tensor, "B 2 _ H W"]]) -> None:
        self.second = second
        with torch.no_grad():
            self.wanted = _statistics(second, stimulus)
        super().__init__(*of)

    def penalty(self, crops: dict[str, Float[Tensor, "B M _ h w"]]) -> Tensor:
        """The distance of the statistics, plus the distance between the two blurred snippets."""
        apart = torch.zeros(())
        for found, wanted in zip(_statistics(self.second, crops), self.wanted, strict=True):
            apart = apart + mse_loss(found, wanted, reduction="sum") / wanted.square().mean() / wanted.shape[1]
        coarse = avg_pool2d(crops["rgb"].flatten(0, 1), 16).unflatten(0, (-1, 2)) / 64
        return 10 * (apart + coarse.diff(dim=1).square().mean((1, 2, 3, 4)).sum())


def _statistics(network: Network, snippets: Mapping[str, Float[Tensor, "B 2 _ _ _"]]) -> list[Float[Tensor, "B _"]]:
    """Means and deviations of the features of each level of each stream, over both snippets together."""
    found = []
    for modality in network.settings.modalities:
        for features in network.streams[modality](normalise(snippets[modality].flatten(0, 1), modality)).values():
            both = features.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2)
            found.append(torch.cat([both.mean(2), both.std(2)], 1))
    return found


def _colours(real: Float[Tensor, "N C H W"]) -> tuple[Float[Tensor, " C"], Float[Tensor, "C C"]]:
    """The mean of each channel, and the square root of the covariance of channels."""
    pixels = real.movedim(1, -1).flatten(0, -2)
    values, vectors = torch.linalg.eigh(torch.cov(pixels.T) + torch.eye(pixels.shape[1]))
    return pixels.mean(0), vectors @ values.sqrt().diag() @ vectors.T


class Contest:
    """The trained networks and real snippets of a study, the ways to draw, and the judges."""

    def __init__(self, results: Path) -> None:
        self.places = Places(results)
        runs = [Run.of(self.places.runs, DATASET, split, "if-ttn") for split in (1, 2, 3)]
        self.split, self.preset = read_split(self.places.data(DATASET), 1), runs[0].preset()
        *self.networks, self.apart = [run.fitting(self.split.actions).network("cpu") for run in runs]
        self.modalities = self.apart.settings.modalities
        store = Store(self.places.store(DATASET, runs[0].identity["preset"]))
        snippets = [whole_snippets(store, v, self.modalities, self.preset.segments) for v in self.split.train]
        self.real = {modality: torch.stack([each[modality] for each in snippets]) for modality in self.modalities}
        self.labels = np.array([video.label for video in self.split.train])
        self.panel = FactorJudges(diagnostic.factors(self.places.data(DATASET)), self.split.actions)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.random = Network(self.apart.settings).eval()

    def frames(self, action: int) -> Frames:
        """Real frames of an action."""
        return Frames.of(self.real["rgb"][self.labels == action][:REAL_VIDEOS])

    def pairs(self, subjects: Sequence[tuple[int, int]], *, own: bool) -> dict[str, Float[Tensor, "B 2 _ H W"]]:
        """For each subject, the middle pair of a training video: of the same action if `own`, else of any action."""
        rng = np.random.default_rng([int(own), *(seed for _, seed in subjects)])
        every = np.arange(len(self.labels))
        chosen = [rng.choice(every[self.labels == action] if own else every) for action, _ in subjects]
        return {modality: real[chosen, 1:3].float() for modality, real in self.real.items()}

    def way(self, name: str) -> Way:
        """The function that draws for a row of the table. A row with fewer training steps trains its denoiser here."""
        if name == "published":
            return partial(draw_best, settings=preset_for(self.preset.size), head="ttn")
        if name in UNTRAINED_WAYS:
            return partial(self._without_training, name, preset_for(self.preset.size))
        if name == "default":
            denoiser = load_denoiser(denoiser_file(self.places.runs, DATASET, 1, self.modalities))
        else:
            denoiser = train_denoiser(self.real, steps=int(name.split("-")[1]), progress=True)
        settings = DRAWING_PRESETS["tiny-denoised"]
        return partial(draw_best, settings=settings, head="fused", denoiser=denoiser, starts=STARTS)

    def _without_training(
        self, name: str, blur: Settings, networks: Sequence[Network], subjects: Sequence[tuple[int, int]]
    ) -> tuple[DrawingStep, ...]:
        """Draw for the late fusion by a way of this file."""
        some = {modality: real[::8].flatten(0, 1).float() for modality, real in self.real.items()}
        # Lucent's jitter, and an eighth to a quarter of its steps, because our frames have an eighth of its pixels.
        octaves = (Octave(3 * blur.octaves[-1].steps, blur.octaves[-1].canvas, (0.0, 0.0), (0.05, 0.05)),)
        adam = Settings(blur.crop, octaves, "contrast", blur.aspect, 8.0, 0.1, 10.0)
        settings, kind = {
            "fourier": (adam, partial(Waves, real=some)),
            "maco": (adam, partial(Phases, real=some)),
            "accentuation": (blur, partial(Accentuated, start=self.pairs(subjects, own=False))),
            "leaps": (blur, partial(Stimulus, second=self.networks[1], stimulus=self.pairs(subjects, own=True))),
        }[name]
        return draw_best(networks, subjects, settings, head="fused", kind=kind)

    def report(self, way: Way, networks: Sequence[Network], seeds: Sequence[int]) -> pd.DataFrame:
        """`order_report` of all actions from these seeds, with the seconds of one core per pair."""
        subjects, clock, reports = list(product(range(len(self.split.actions)), seeds)), Clock("cpu"), []
        for batch in (subjects[first : first + PAIRS_AT_ONCE] for first in range(0, len(subjects), PAIRS_AT_ONCE)):
            began = clock.now()
            drawn = way(networks, batch)
            seconds = (clock.now() - began) / len(batch)
            pairs = drawn_pairs(self.apart, batch, drawn)
            own = {str(number): network for number, network in enumerate(networks)}
            report = order_report(pairs, own, {"3": self.apart}, frames=self.frames, panel=self.panel)
            reports.append(report.assign(seconds=seconds))
        return pd.concat(reports, ignore_index=True)


def run(o: argparse.Namespace) -> int:
    """Print the table, row by row."""
    use_one_core()
    contest = Contest(o.results)
    seeds = ", ".join(map(str, o.seeds))
    print(f"{one_core()}; drawn by the networks of splits 1 and 2, apart: that of split 3; seeds {seeds}")
    heads = (*COLUMNS, "core-s a pair", "floor: apart", "floor: panel")
    table, reports, clock = PrintedTable("way", "training", *heads, first=16, width=19), [], Clock("cpu")
    for name in o.ways:
        began = clock.now()
        way = contest.way(name)
        minutes = (clock.now() - began) / 60
        training = "the study's" if name == "default" else f"{minutes:.1f} min" if "denoiser" in name else "none"
        drawn = contest.report(way, contest.networks, o.seeds)
        floor = contest.report(way, [contest.random], o.seeds[:1])
        cells = [_share(of(drawn)) for of in COLUMNS.values()]
        below = [_share(COLUMNS[column](floor)) for column in ("apart", "panel")]
        table.row(name, training, *cells, f"{drawn.seconds.mean():.2f}", *below)
        reports += [drawn.assign(way=name, weights="trained"), floor.assign(way=name, weights="random")]
        if o.csv:
            write_whole(o.csv, pd.concat(reports).to_csv(index=False).encode())
    return 0


def _share(values: pd.Series) -> str:
    low, high = wilson(float(values.sum()), len(values))
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"
