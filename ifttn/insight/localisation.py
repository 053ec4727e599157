"""Where do maps lie? The paper's sentence about Figure 6, "the spatial network focuses on the scene, the temporal one
on the motion, IF-TTN on the objects and their track", as numbers beside what chance and what habit would score.

Shapes: N videos of K snippets, V votes, R regions, H x W pixels, h x w cells.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, UInt8
from pytorch_grad_cam.metrics.road import ROADMostRelevantFirst
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from ifttn.data import diagnostic, sampling
from ifttn.data.loading import whole_snippets
from ifttn.data.store import Store
from ifttn.insight.cam import STRIDE, Finer, OneTensor, class_activation_maps, on_pixels, stack
from ifttn.model.network import Network
from ifttn.vocabulary import Video


@dataclass(frozen=True)
class Example:
    """A video's snippets, and where the things are that a map may lie on."""

    inputs: Mapping[str, Tensor]
    """Per modality (K, C, H, W) in 0..255, whole frames."""
    action: int
    regions: Mapping[str, Bool[np.ndarray, "K H W"]]


def embedded_regions(row: pd.Series, segments: int, size: tuple[int, int]) -> dict[str, Bool[np.ndarray, "K H W"]]:
    """Red ball, blue ball, both, and background, on the frames of a video's test snippets.

    Args:
        row: of the embedded data set's plan (`diagnostic.factors`).
        segments: K.
        size: height and width of the stored frames.
    """
    frames, _ = sampling.snippet_indices(sampling.centre_starts(int(row.frames), segments), int(row.frames))
    masks = diagnostic.ball_masks(row)[frames]  # (K, 2, h, w)
    balls = np.stack(
        [
            [cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) >= 0.5 for mask in each]
            for each in masks
        ]
    )
    both = np.asarray(balls.any(1))
    return {"red ball": balls[:, 0], "blue ball": balls[:, 1], "balls": both, "background": ~both}


def moving_regions(motion: UInt8[np.ndarray, "K C H W"], share: float = 0.2) -> dict[str, Bool[np.ndarray, "K H W"]]:
    """Where no mask is known: the `share` of each frame that moves fastest, or less where less moves; and the rest."""
    fields = motion.astype(np.float32) - 128
    speed = np.hypot(fields[:, 0::2].mean(1), fields[:, 1::2].mean(1))
    fast = (speed > 0) & (speed >= np.quantile(speed, 1 - share, axis=(1, 2), keepdims=True))
    return {"moving": fast, "still": ~fast}


def measure(maps: Float[np.ndarray, "V H W"], region: Bool[np.ndarray, "V H W"]) -> tuple[float, float]:
    """Pointing game and energy of a video: share of maps whose highest pixel lies in the region, and share of positive
    evidence that does, over the frames that show the region; without positive evidence in any of them, NaN."""
    positive = np.maximum(maps, 0)
    tops = positive.reshape(len(maps), -1).argmax(1)
    found = positive.any((1, 2)) & region.any((1, 2))
    if not found.any():
        return np.nan, np.nan
    hits = region.reshape(len(maps), -1)[np.arange(len(maps)), tops]
    energy = (positive * region).sum((1, 2))[found] / positive.sum((1, 2))[found]
    return float(hits[found].mean()), float(energy.mean())


@dataclass(frozen=True)
class Localisation:
    """A row for each video, head, method and region."""

    rows: pd.DataFrame
    """Columns head, method, region, pointing, energy, area."""
    seed: int = 0

    def table(self, draws: int = 1000) -> pd.DataFrame:
        """Means over videos, and bootstrap intervals of 95 % over videos; `area` is what a level map would score."""
        rng = np.random.default_rng(self.seed)
        rows = []
        for key, of in self.rows.groupby(["head", "method", "region"], sort=False):
            row = dict(zip(("head", "method", "region"), cast(tuple, key), strict=True))
            row |= {"videos": len(of), "area": of.area.mean()}
            for measured in ("pointing", "energy"):
                values = of[measured].dropna().to_numpy()
                row[measured] = values.mean() if len(values) else np.nan
                low, high = _bootstrap(values, draws, rng)
                row |= {f"{measured} low": low, f"{measured} high": high}
            rows.append(row)
        return pd.DataFrame(rows).set_index(["head", "region", "method"])


def _bootstrap(values: Float[np.ndarray, " N"], draws: int, rng: np.random.Generator) -> tuple[float, float]:
    if not len(values):
        return np.nan, np.nan
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def localise(
    network: Network, examples: Iterable[Example], *, finer: Sequence[Finer] = (1, 4), seed: int = 0
) -> Localisation:
    """Pointing game and energy of every head's maps for the true action, beside a random map and a centre Gaussian.

    The one map of a pair is scored on both frames that it stands for; so are its baselines.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for example in examples:
        size = _size(example.inputs)
        batch, action = _asked(network, example)
        maps = {f"CAM, every {STRIDE // f} px": _maps(network, batch, action, size, f) for f in finer}
        votes = {head: len(of) for head, of in maps[next(iter(maps))].items()}
        maps["random map"] = {head: _random(count, size, rng) for head, count in votes.items()}
        maps["centre Gaussian"] = {head: np.repeat(_centre(size)[None], count, 0) for head, count in votes.items()}
        for method, of_heads in maps.items():
            for head, of in of_heads.items():
                rows += [
                    {"head": head, "method": method, "region": name, "area": _area(region)}
                    | dict(zip(("pointing", "energy"), _over_frames(of, region), strict=True))
                    for name, region in example.regions.items()
                ]
    return Localisation(pd.DataFrame(rows), seed)


def _asked(
    network: Network, example: Example, chosen: slice = slice(None)
) -> tuple[dict[str, Float[Tensor, "1 _ _ H W"]], Int[Tensor, "1 1"]]:
    """A video's snippets and its action, on the network's device."""
    device = next(network.parameters()).device
    batch = {m: x[None, chosen].float().to(device) for m, x in example.inputs.items()}
    return batch, torch.tensor([[example.action]], device=device)


def _size(inputs: Mapping[str, Tensor]) -> tuple[int, int]:
    """Height and width."""
    height, width = next(iter(inputs.values())).shape[-2:]
    return height, width


def _maps(
    network: Network, batch: Mapping[str, Tensor], action: Int[Tensor, "1 1"], size: tuple[int, int], finer: Finer
) -> dict[str, Float[np.ndarray, "V H W"]]:
    maps = class_activation_maps(network, batch, action, finer=finer)
    return {head: on_pixels(of[0, :, 0], size, STRIDE / finer).cpu().numpy() for head, of in maps.items()}


def _area(region: Bool[np.ndarray, "K H W"]) -> float:
    """The region's share of the frames that show it; NaN where none does."""
    shares = region.mean((1, 2))
    return float(shares[shares > 0].mean()) if region.any() else np.nan


def _over_frames(maps: Float[np.ndarray, "V H W"], region: Bool[np.ndarray, "K H W"]) -> tuple[float, float]:
    """A map a snippet, or a map a pair on its earlier and on its later frame."""
    if len(maps) == len(region):
        return measure(maps, region)
    return measure(np.concatenate([maps, maps]), np.concatenate([region[:-1], region[1:]]))


def _random(count: int, size: tuple[int, int], rng: np.random.Generator) -> Float[np.ndarray, "V H W"]:
    """As smooth as the finest map, and of no meaning."""
    cells = torch.from_numpy(rng.random((count, *(-(-side // 8) for side in size)), np.float32))
    return on_pixels(cells, size, 8.0).numpy()


def _centre(size: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    """A Gaussian of a quarter of each side: where photographers put things."""
    rows, columns = (np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (side / 4)) ** 2) for side in size)
    return (rows[:, None] * columns[None]).astype(np.float32)


def road(
    network: Network,
    examples: Iterable[Example],
    *,
    percentiles: Sequence[int] = (50, 80),
    finer: Finer = 4,
    seed: int = 0,
) -> pd.DataFrame:
    """Remove and debias (Rong et al. 2022, of the package grad-cam): what the action's logit loses with what is marked.

    The middle pair of a video for a temporal head, its first snippet for a stream; the pixels above a percentile of the
    map are filled from their surroundings, in all planes alike. A map that finds the evidence loses more than a random
    one. Columns head, method, percentile, change (of the logit); a row an example.
    """
    rng, rows = np.random.default_rng(seed), []
    for example in examples:
        for head in network.heads:
            pair = head in network.temporal_heads
            middle = (len(next(iter(example.inputs.values()))) - 1) // 2
            chosen = slice(middle, middle + 1 + pair)
            rows += _road(network, head, example, chosen, (percentiles, finer, rng))
    return pd.DataFrame(rows)


def _road(network: Network, head: str, example: Example, chosen: slice, how: tuple) -> list[dict]:
    percentiles, finer, rng = how
    batch, action = _asked(network, example, chosen)
    size = _size(batch)
    adapter = OneTensor(network, head, segments=chosen.stop - chosen.start)
    stacked, target = stack(network, batch), ClassifierOutputTarget(example.action)
    maps = {"CAM": _maps(network, batch, action, size, finer)[head], "random map": _random(1, size, rng)}
    rows = []
    for method, of in maps.items():
        for percentile in percentiles:
            # The imputer adds noise from the global generator, and hands tensors to functions of numpy.
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "__array_wrap__ must accept", DeprecationWarning)
                torch.manual_seed(0)
                change = ROADMostRelevantFirst(percentile)(stacked, of, [target], adapter)
            rows.append(
                {"head": head, "method": method, "percentile": percentile, "change": float(np.asarray(change)[0])}
            )
    return rows


def cascade(network: Network, examples: Sequence[Example], *, finer: Finer = 4, seed: int = 0) -> pd.DataFrame:
    """Sanity check (Adebayo et al. 2018): weights made random from the classifiers downwards must change the maps.

    Returns:
        Rows: how far down weights are random. Columns: per head, the mean rank correlation of the maps with those of
        the trained network, over examples and votes; 1 is the same map, 0 another one. The network is restored.
    """
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    trained = [_of(network, example, finer) for example in examples]
    rows = {}
    try:
        for name, parts in _downwards(network):
            for part in parts:
                _randomise(part, generator)
            now = [_of(network, example, finer) for example in examples]
            rows[name] = {
                head: float(np.mean([_likeness(a[head], b[head]) for a, b in zip(trained, now, strict=True)]))
                for head in network.heads
            }
    finally:
        network.load_state_dict(kept)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("random from the top down to")


def _of(network: Network, example: Example, finer: Finer) -> dict[str, Float[np.ndarray, "V h w"]]:
    batch, action = _asked(network, example)
    maps = class_activation_maps(network, batch, action, finer=finer)
    return {head: of[0, :, 0].cpu().numpy() for head, of in maps.items()}


def _downwards(network: Network) -> list[tuple[str, list[nn.Module]]]:
    bodies = [*network.temporal.values(), *network.streams.values()]
    levels = [
        (
            f"level {level}",
            [getattr(body, f"layer{level - 1}") for body in bodies if hasattr(body, f"layer{level - 1}")],
        )
        for level in (5, 4, 3, 2)
    ]
    return [("classifier", list(network.heads.values())), *levels]


def _randomise(part: nn.Module, generator: torch.Generator) -> None:
    """Every weight tensor keeps its values and loses their places."""
    with torch.no_grad():
        for weight in part.parameters():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))


def _likeness(a: Float[np.ndarray, "V h w"], b: Float[np.ndarray, "V h w"]) -> float:
    """Spearman's rank correlation, mean over maps."""
    ranks = [np.argsort(np.argsort(of.reshape(len(of), -1), 1), 1).astype(float) for of in (a, b)]
    centred = [rank - rank.mean(1, keepdims=True) for rank in ranks]
    norm = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    return float(((centred[0] * centred[1]).sum(1) / np.maximum(norm, 1e-12)).mean())


def examples_of(
    store: Store, videos: Sequence[Video], modalities: Sequence[str], segments: int, plan: pd.DataFrame | None = None
) -> Iterator[Example]:
    """Whole frames of videos with their regions: the balls' where a plan of the embedded set knows them, else motion's.

    Each is read when it is asked for: the test videos of UCF101 together would take 34 GB.

    Args:
        store: prepared, with the videos.
        videos: which.
        modalities: of the network; the second is its motion.
        segments: K.
        plan: `diagnostic.factors` of the embedded set.
    """
    for video in videos:
        inputs = whole_snippets(store, video, modalities, segments)
        size = _size(inputs)
        if plan is None:
            regions = moving_regions(inputs[modalities[-1]].numpy())
        else:
            regions = embedded_regions(plan.loc[video.name], segments, size)
        yield Example(inputs, video.label, regions)
