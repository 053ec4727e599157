"""Scores videos with a network, with their snippets in order and in other orders.

Shapes: N videos, K segments, S = N * K snippets, A actions.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ifttn.data.augmentation import test_crops
from ifttn.data.batch import Batch
from ifttn.data.loading import batches
from ifttn.data.samples import SnippetDataset
from ifttn.experiment.processes import Machine
from ifttn.experiment.scores import Scores
from ifttn.memory import Pieces
from ifttn.model.backbone import Pyramid
from ifttn.model.folding import folded
from ifttn.model.network import Scorer, undisturbed

SHUFFLE = 5
"""Seed of the wrong orders."""


@torch.inference_mode()
def evaluate(
    network: Scorer,
    dataset: SnippetDataset,
    actions: Sequence[str],
    *,
    batch: int,
    workers: int = 0,
    machine: Machine | None = None,
    orders: bool = False,
) -> Scores:
    """Score every video of a data set. The scores of a head are means over its votes and over fixed views.

    The views of a batch are computed one after another, so that each video is decoded once and memory does not depend
    on the number of views. A batch that does not fit into memory is split into smaller ones.

    Args:
        network: the mode of every module is restored at the end.
        dataset: without random crops; its views are scored.
        actions: the names of the scores' columns.
        batch: videos at once, unless the machine has a smaller micro-batch.
        workers: processes that load batches.
        machine: precision and micro-batch, as in training.
        orders: also compute READINGS, on one view. Only the part after the streams is computed again.

    Raises:
        IfttnError: a single video does not fit into memory.
    """
    machine, device = machine or Machine(), str(next(network.parameters()).device)
    dtype = machine.dtype(device)
    network = folded(network, dtype) if network.foldable and dtype != torch.float32 else network
    row = {video.name: index for index, video in enumerate(dataset.videos)}
    sums: dict[str, dict[str, Float[np.ndarray, "N A"]]] = {}

    def add_scores(names: Sequence[str], reading: str, logits: Mapping[str, Tensor]) -> None:
        for head, x in logits.items():
            total = sums.setdefault(reading, {}).setdefault(head, np.zeros((len(row), x.shape[1]), np.float32))
            total[[row[name] for name in names]] += x.numpy() / np.float32(1 if reading else dataset.crops)

    settings = dataset.store.settings
    centre = dataset.views.index(test_crops(settings.height, settings.width, dataset.size, 1)[0])
    pieces = Pieces(min(batch, machine.micro_batch or batch), "video")
    rows = [range(first, min(first + pieces.most, len(row))) for first in range(0, len(row), pieces.most)]
    keys = [[(view, index) for index in part] for part in rows for view in range(dataset.crops)]
    with undisturbed(network):
        for own, examples in zip(keys, batches(dataset, keys, device, workers), strict=True):
            score = partial(_score, network, machine, examples, orders and own[0][0] == centre)
            for names, found in pieces(score, len(own)):
                for reading, logits in found.items():
                    add_scores(names, reading, logits)
    labels = np.array([video.label for video in dataset.videos])
    return Scores(tuple(row), labels, tuple(actions), sums.pop(""), sums)


def _score(
    network: Scorer, machine: Machine, examples: Batch, orders: bool, part: slice
) -> tuple[Sequence[str], Mapping[str, Mapping[str, Tensor]]]:
    """Score some videos. Returns their names, and reading ("" or one of READINGS) -> head -> logits on the host."""
    names, inputs = examples.names[part], {m: x[part] for m, x in examples.inputs.items()}
    segments = next(iter(inputs.values())).shape[1]
    with machine.autocast(str(next(network.parameters()).device)):
        pyramids = network.pyramids(inputs)
        found = {"": network.read(pyramids, segments).logits}
        if orders:
            backwards = np.tile(np.arange(segments)[::-1], (len(names), 1))
            shuffled = np.stack([wrong_order(name, segments) for name in names])
            found["one view"] = found[""]
            for reading, order in (("reversed", backwards), ("shuffled", shuffled)):
                found[reading] = network.read(_reordered(pyramids, order), segments).logits
    # One transfer, so that the device waits for the host only once.
    there = iter(torch.stack([x.float() for heads in found.values() for x in heads.values()]).cpu())
    return names, {reading: {head: next(there) for head in heads} for reading, heads in found.items()}


def wrong_order(video: str, segments: int) -> Int[np.ndarray, " K"]:
    """A wrong order of a video's snippets. It is the same in every run and for every network."""
    rng, right = np.random.default_rng((SHUFFLE, *video.encode())), np.arange(segments)
    order = right
    while segments > 1 and (order == right).all():
        order = rng.permutation(segments)
    return order


def _reordered(pyramids: Mapping[str, Pyramid], orders: Int[np.ndarray, "N K"]) -> dict[str, Pyramid]:
    """The pyramids of S snippets, where the snippets of each video are reordered.

    A stream sees one snippet at a time, so its features are not computed again.
    """
    videos, segments = orders.shape
    places = torch.from_numpy((np.arange(videos)[:, None] * segments + orders).ravel())
    return {m: {level: x[places.to(x.device)] for level, x in pyramid.items()} for m, pyramid in pyramids.items()}
