"""Measures how much of the evidence in class activation maps is on a region. It tests the paper's sentence on Figure 6,
"the spatial network focuses on the scene, the temporal one on the motion, IF-TTN on the objects and their track",
against a random map and a centred map.

Shapes: K snippets, V votes, H x W pixels, h x w cells.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, UInt8
from pytorch_grad_cam.metrics.road import ROADMostRelevantFirst
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy.stats import bootstrap, spearmanr
from torch import Tensor, nn

from ifttn.data.samples import whole_snippets
from ifttn.data.store import Store
from ifttn.insight.cam import STRIDE, Finer, OneTensor, class_activation_maps, on_pixels, stack
from ifttn.insight.embedded.balls import ball_regions
from ifttn.model.network import Network
from ifttn.vocabulary import Video

HeadMaps = dict[str, Float[np.ndarray, "V H W"]]
"""The maps of each head for one video, on pixels."""


@dataclass(frozen=True)
class Example:
    """The snippets of a video, and the regions that maps are compared with."""

    inputs: Mapping[str, Tensor]
    """Whole frames of each modality: (K, C, H, W) in 0..255."""
    action: int
    regions: Mapping[str, Bool[np.ndarray, "K H W"]]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame."""
        height, width = next(iter(self.inputs.values())).shape[-2:]
        return height, width

    def on_device_of(
        self, network: Network, snippets: slice = slice(None)
    ) -> tuple[dict[str, Float[Tensor, "1 _ _ H W"]], Int[Tensor, "1 1"]]:
        """Some of the snippets, and the action, on the device of the network."""
        device = next(network.parameters()).device
        batch = {m: x[None, snippets].float().to(device) for m, x in self.inputs.items()}
        return batch, torch.tensor([[self.action]], device=device)


def examples_of(
    store: Store, videos: Sequence[Video], modalities: Sequence[str], segments: int, factors: pd.DataFrame | None = None
) -> Iterator[Example]:
    """Whole frames of videos with their regions: the balls if the factors of the embedded set are known, else motion.

    Videos are read one by one, because the test videos of UCF101 together would take 34 GB.

    Args:
        store: the store that holds the videos.
        videos: the videos to read.
        modalities: those of the network; the last one is motion.
        segments: K.
        factors: `diagnostic.factors` of the embedded set.
    """
    for video in videos:
        inputs = whole_snippets(store, video, modalities, segments)
        motion = inputs[modalities[-1]].numpy()
        if factors is None:
            regions = moving_regions(motion)
        else:
            regions = ball_regions(factors.loc[video.name], segments, motion.shape[-2:])
        yield Example(inputs, video.label, regions)


def moving_regions(motion: UInt8[np.ndarray, "K C H W"], share: float = 0.2) -> dict[str, Bool[np.ndarray, "K H W"]]:
    """The `share` of each frame that moves fastest (less if less moves), and the rest of the frame."""
    fields = motion.astype(np.float32) - 128
    speed = np.hypot(fields[:, 0::2].mean(1), fields[:, 1::2].mean(1))
    fast = (speed > 0) & (speed >= np.quantile(speed, 1 - share, axis=(1, 2), keepdims=True))
    return {"moving": fast, "still": ~fast}


def pointing_and_energy(maps: Float[np.ndarray, "V H W"], region: Bool[np.ndarray, "V H W"]) -> tuple[float, float]:
    """The share of maps whose highest pixel lies in the region, and the share of positive evidence in the region.

    Both are means over the frames that show the region and have positive evidence; NaN if there are none.
    """
    positive = np.maximum(maps, 0)
    counted = positive.any((1, 2)) & region.any((1, 2))
    if not counted.any():
        return np.nan, np.nan
    tops = positive.reshape(len(maps), -1).argmax(1)
    hits = region.reshape(len(maps), -1)[np.arange(len(maps)), tops]
    energy = (positive * region).sum((1, 2))[counted] / positive.sum((1, 2))[counted]
    return float(hits[counted].mean()), float(energy.mean())


def localise(network: Network, examples: Iterable[Example], *, finer: Sequence[Finer] = (1, 4)) -> pd.DataFrame:
    """Pointing game and energy of every head's maps for the true action, of a random map and of a centred Gaussian.

    The single map of a pair is compared with both of its frames; so are the random and the centred map.

    Returns:
        One row for each video, head, method and region, with the columns pointing, energy, and area (the region's share
        of the frames that show it). `localisation_table` takes their means.
    """
    rng, rows = np.random.default_rng(0), []
    for example in examples:
        batch, action = example.on_device_of(network)
        maps = {f"CAM, every {STRIDE // f} px": _pixel_maps(network, batch, action, f) for f in finer}
        votes = {head: len(of_head) for head, of_head in next(iter(maps.values())).items()}
        centre = _centre_map(example.size)
        maps["random map"] = {head: _random_maps(count, example.size, rng) for head, count in votes.items()}
        maps["centre Gaussian"] = {head: np.repeat(centre, count, 0) for head, count in votes.items()}
        for method, of_heads in maps.items():
            for head, of_head in of_heads.items():
                rows += [
                    {"head": head, "method": method, "region": name} | _compared(of_head, region)
                    for name, region in example.regions.items()
                ]
    return pd.DataFrame(rows)


def _compared(maps: Float[np.ndarray, "V H W"], region: Bool[np.ndarray, "K H W"]) -> dict[str, float]:
    shares = region.mean((1, 2))
    area = shares[shares > 0].mean() if region.any() else np.nan
    if len(maps) < len(region):  # the map of a pair belongs to its earlier and its later frame
        maps, region = np.concatenate([maps, maps]), np.concatenate([region[:-1], region[1:]])
    pointing, energy = pointing_and_energy(maps, region)
    return {"area": float(area), "pointing": pointing, "energy": energy}


def localisation_table(rows: pd.DataFrame, *, draws: int = 1000) -> pd.DataFrame:
    """Means of `localise` over videos, with bootstrap intervals of 95 %. A constant map would score `area`."""
    rng, means = np.random.default_rng(0), []
    for key, group in rows.groupby(["head", "method", "region"], sort=False):
        row = dict(zip(("head", "method", "region"), cast(tuple, key), strict=True))
        row |= {"videos": len(group), "area": group.area.mean()}
        for measure in ("pointing", "energy"):
            values = group[measure].dropna().to_numpy()
            low, high = _interval(values, draws, rng)
            row |= {measure: group[measure].mean(), f"{measure} low": low, f"{measure} high": high}
        means.append(row)
    return pd.DataFrame(means).set_index(["head", "region", "method"])


def _interval(values: Float[np.ndarray, " N"], draws: int, rng: np.random.Generator) -> tuple[float, float]:
    if len(values) < 2:
        return (values[0], values[0]) if len(values) else (np.nan, np.nan)
    return bootstrap((values,), np.mean, n_resamples=draws, method="percentile", rng=rng).confidence_interval


def _pixel_maps(network: Network, batch: Mapping[str, Tensor], action: Int[Tensor, "1 1"], finer: Finer) -> HeadMaps:
    height, width = next(iter(batch.values())).shape[-2:]
    maps = class_activation_maps(network, batch, action, finer=finer)
    return {head: on_pixels(m[0, :, 0], (height, width), STRIDE / finer).cpu().numpy() for head, m in maps.items()}


def _random_maps(count: int, size: tuple[int, int], rng: np.random.Generator) -> Float[np.ndarray, "V H W"]:
    """Random maps that are as smooth as the finest map."""
    cells = torch.from_numpy(rng.random((count, *(-(-side // 8) for side in size)), np.float32))
    return on_pixels(cells, size, 8.0).numpy()


def _centre_map(size: tuple[int, int]) -> Float[np.ndarray, "1 H W"]:
    """A Gaussian whose deviation is a quarter of each side, because photographers put things in the centre."""
    rows, columns = (np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (side / 4)) ** 2) for side in size)
    return (rows[:, None] * columns[None])[None].astype(np.float32)


def road(
    network: Network, examples: Iterable[Example], *, percentiles: Sequence[int] = (50, 80), finer: Finer = 4
) -> pd.DataFrame:
    """Remove and debias (ROAD; Rong et al. 2022; package grad-cam): the change of the logit without the marked pixels.

    A temporal head is tested on the middle pair of a video, a stream on the first snippet of this pair. The pixels
    above a percentile of the map are filled from their surroundings in all planes. Without the evidence, the logit
    falls more than without random pixels. Columns: head, method, percentile, change (of the logit).
    """
    rng, rows = np.random.default_rng(0), []
    for example in examples:
        middle = (len(next(iter(example.inputs.values()))) - 1) // 2
        for head in network.heads:
            snippets = slice(middle, middle + 1 + (head in network.temporal_heads))
            batch, action = example.on_device_of(network, snippets)
            adapter = OneTensor(network, head, segments=snippets.stop - snippets.start)
            stacked = stack(network, batch)
            cam = _pixel_maps(network, batch, action, finer)[head]
            for method, maps in {"CAM": cam, "random map": _random_maps(1, example.size, rng)}.items():
                for percentile in percentiles:
                    change = _road_change(adapter, stacked, maps, example.action, percentile)
                    rows.append({"head": head, "method": method, "percentile": percentile, "change": change})
    return pd.DataFrame(rows)


def _road_change(
    adapter: OneTensor, stacked: Tensor, maps: Float[np.ndarray, "1 H W"], action: int, percentile: int
) -> float:
    # The package adds noise from the global generator, and passes tensors to functions of numpy.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array_wrap__ must accept", DeprecationWarning)
        torch.manual_seed(0)
        change = ROADMostRelevantFirst(percentile)(stacked, maps, [ClassifierOutputTarget(action)], adapter)
    return float(np.asarray(change)[0])


def cascade(network: Network, examples: Sequence[Example], *, finer: Finer = 4) -> pd.DataFrame:
    """Sanity check (Adebayo et al. 2018): if weights are shuffled from the classifiers downwards, the maps must change.

    The network is restored at the end.

    Returns:
        One row for each level down to which weights are shuffled, one column per head: Spearman's rank correlation of
        the maps with those of the trained network (mean over examples and votes).
    """
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    trained = [_cell_maps(network, example, finer) for example in examples]
    rows = {}
    try:
        for name, parts in _from_the_top(network):
            for part in parts:
                _shuffle_weights(part, generator)
            shuffled = [_cell_maps(network, example, finer) for example in examples]
            pairs = list(zip(trained, shuffled, strict=True))
            rows[name] = {
                head: float(np.mean([_likeness(a[head], b[head]) for a, b in pairs])) for head in network.heads
            }
    finally:
        network.load_state_dict(kept)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("random from the top down to")


def _cell_maps(network: Network, example: Example, finer: Finer) -> dict[str, Float[np.ndarray, "V h w"]]:
    maps = class_activation_maps(network, *example.on_device_of(network), finer=finer)
    return {head: of_head[0, :, 0].cpu().numpy() for head, of_head in maps.items()}


def _from_the_top(network: Network) -> Iterator[tuple[str, list[nn.Module]]]:
    yield "classifier", list(network.heads.values())
    bodies = [*network.temporal.values(), *network.streams.values()]
    for level in (5, 4, 3, 2):
        layer = f"layer{level - 1}"
        yield f"level {level}", [getattr(body, layer) for body in bodies if hasattr(body, layer)]


def _shuffle_weights(part: nn.Module, generator: torch.Generator) -> None:
    """Shuffle the values of every weight tensor in place."""
    with torch.no_grad():
        for weight in part.parameters():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))


def _likeness(a: Float[np.ndarray, "V h w"], b: Float[np.ndarray, "V h w"]) -> float:
    """Mean rank correlation of the maps; 0 for a constant map."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "An input array is constant")
        each = [spearmanr(x.ravel(), y.ravel()) for x, y in zip(a, b, strict=True)]
    return float(np.nan_to_num([cast(Any, result).statistic for result in each]).mean())
