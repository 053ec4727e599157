"""Scores of test videos, and the arithmetic on them: consensus, late fusion, accuracy and how sure we are.

Every cell of a table and every plot is arithmetic on saved scores. Shapes: N videos, K segments, A actions.
"""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from ifttn.data.snippets import SnippetDataset, loader
from ifttn.model.network import Network
from ifttn.vocabulary import IfttnError


@dataclass(frozen=True)
class Scores:
    """What each head said of each video: raw scores, before any softmax (TSN's practice)."""

    videos: tuple[str, ...]
    labels: Int[np.ndarray, " N"]
    actions: tuple[str, ...]
    heads: Mapping[str, Float[np.ndarray, "N A"]]

    def save(self, path: Path) -> None:
        """Write one .npz, whole or not at all."""
        content = io.BytesIO()
        arrays: dict[str, Any] = {"videos": self.videos, "labels": self.labels, "actions": self.actions}
        arrays.update({f"head:{name}": scores for name, scores in self.heads.items()})
        np.savez(content, **arrays)
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(content.getvalue())
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            heads = {key.removeprefix("head:"): file[key] for key in file.files if key.startswith("head:")}
            return cls(tuple(file["videos"].tolist()), file["labels"], tuple(file["actions"].tolist()), heads)


@torch.inference_mode()
def evaluate(
    network: Network, dataset: SnippetDataset, actions: Sequence[str], *, batch: int, crops: int, workers: int = 0
) -> Scores:
    """Scores of every video of a data set of fixed views: mean over votes and views, each head by itself.

    Views come one after another, so that memory does not grow with them.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    sums: dict[str, dict[str, torch.Tensor]] = {head: {} for head in network.heads}
    labels: dict[str, int] = {}
    for view in range(crops):
        for examples in loader(dataset, batch, view=view, shuffle=False, workers=workers):
            output = network({m: x.to(device, non_blocking=True) for m, x in examples.inputs.items()})
            labels.update(zip(examples.names, examples.labels.tolist(), strict=True))
            for head, logits in output.logits.items():
                for name, row in zip(examples.names, logits.float().cpu(), strict=True):
                    sums[head][name] = sums[head].get(name, torch.zeros_like(row)) + row / crops
    network.train(was_training)
    videos = tuple(labels)
    return Scores(
        videos,
        np.array([labels[name] for name in videos]),
        tuple(actions),
        {head: torch.stack([rows[name] for name in videos]).numpy() for head, rows in sums.items()},
    )


def late_fusion(parts: Sequence[tuple[Scores, Mapping[str, float]]]) -> Float[np.ndarray, "N A"]:
    """Weighted sum of raw scores over heads and runs, in the order of the first part's videos.

    Raises:
        IfttnError: the parts speak of different videos or actions, or a head is not there.
    """
    first = parts[0][0]
    total = np.zeros((len(first.videos), len(first.actions)))
    for scores, weights in parts:
        if set(scores.videos) != set(first.videos) or scores.actions != first.actions:
            raise IfttnError(
                "late fusion needs scores of the same videos and actions: these come from different splits"
            )
        row = {video: index for index, video in enumerate(scores.videos)}
        order = [row[video] for video in first.videos]
        for head, weight in weights.items():
            if head not in scores.heads:
                raise IfttnError(f"no head {head!r} among these scores: choose from {', '.join(scores.heads)}")
            total += weight * scores.heads[head][order]
    return total


def top1(scores: Float[np.ndarray, "N A"], labels: Int[np.ndarray, " N"]) -> float:
    """Share of videos whose highest score is right, in 0..1."""
    return float((scores.argmax(1) == labels).mean())


def mean_class_accuracy(scores: Float[np.ndarray, "N A"], labels: Int[np.ndarray, " N"]) -> float:
    """Mean over classes of the share of its videos that are right, in 0..1 (the measure of TSN's code)."""
    right = scores.argmax(1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def wilson(correct: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in 0..1."""
    share, spread = correct / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / total + spread / (4 * total))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def factor_accuracy(
    scores: Float[np.ndarray, "N A"],
    labels: Int[np.ndarray, " N"],
    factors: Mapping[str, Int[np.ndarray, " A"]],
) -> dict[str, float]:
    """Per factor, the share of videos whose predicted action has the right value of it.

    Args:
        scores: of N videos.
        labels: of N videos.
        factors: per factor, its value for each action.
    """
    predicted = scores.argmax(1)
    return {name: float((values[predicted] == values[labels]).mean()) for name, values in factors.items()}
