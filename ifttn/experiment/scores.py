"""Scores of test videos and the arithmetic on them: late fusion, accuracy, and read-outs of order and of factors.

Every number in a table is arithmetic on saved scores. Shapes: N videos, A actions.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import product
from operator import add
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from ifttn.experiment.significance import wilson
from ifttn.files import write_whole
from ifttn.vocabulary import IfttnError

Logits = TypeVar("Logits")
"""Arrays or tensors."""

OF_PEERS: Mapping[str, float] = {
    "off-rgb": 1.0,
    "off-rgbdiff": 1.5,
    "off-flow": 1.5,
    "accumulated": 0.5,
    "residual": 0.5,
}
"""Weights of the heads that only peers have. A head of OFF has the weight of its stream. CoViAR has the weights of its
release, 2 : 1 : 1 with "rgb"."""
LATE_FUSION: Mapping[str, float] = {
    "rgb": 1.0,
    "flow": 1.5,
    "mv": 1.5,
    "rgbdiff": 1.5,
    "ttn": 1.5,
    "ttn-rgb": 0.75,
    "ttn-flow": 0.75,
    **OF_PEERS,
}
"""The weight of each head's scores, set before any test: TSN's 1 : 1.5, and 1.5 for each head after the streams."""
READINGS = ("one view", "reversed", "shuffled")
"""Scores of the centre view alone: the snippets are in order, from last to first, and in a fixed wrong order. A network
that does not know order gives the same scores in all three."""
TRIED = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Weights that `tune` tries for each head except the first, whose weight is fixed."""


@dataclass(frozen=True)
class Scores:
    """The raw scores of each head for each video, before any softmax (TSN's practice)."""

    videos: tuple[str, ...]
    labels: Int[np.ndarray, " N"]
    actions: tuple[str, ...]
    heads: Mapping[str, Float[np.ndarray, "N A"]]
    """Head -> the mean scores over all views."""
    readings: Mapping[str, Mapping[str, Float[np.ndarray, "N A"]]] = field(default_factory=dict)
    """A name of READINGS -> head -> scores, of the same heads; empty if these were not computed."""
    identity: str = ""
    """`Store.identity` of the videos in the store."""
    short: tuple[str, ...] = ()
    """`shortfalls` of the run; not in the file."""

    def read(self, reading: str) -> "Scores | None":
        """The scores of one of READINGS, or of all views (""). None if they were not computed."""
        if not reading:
            return self
        return replace(self, heads=self.readings[reading]) if reading in self.readings else None

    def save(self, path: Path) -> None:
        """Write an .npz file, completely or not at all."""
        content, named = io.BytesIO(), {"": self.heads, **self.readings}
        about = {"videos": self.videos, "labels": self.labels, "actions": self.actions, "identity": self.identity}
        scores = np.stack([[heads[head] for head in self.heads] for heads in named.values()])
        np.savez(content, **about, readings=[*named], heads=[*self.heads], scores=scores)
        write_whole(path, content.getbuffer())

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            array = {name: file[name] for name in file.files}
        videos, actions, readings, heads = (array[each].tolist() for each in ("videos", "actions", "readings", "heads"))
        named = {name: dict(zip(heads, x, strict=True)) for name, x in zip(readings, array["scores"], strict=True)}
        return cls(tuple(videos), array["labels"], tuple(actions), named.pop(""), named, str(array["identity"]))


def late_fusion(logits: Mapping[str, Logits], weights: Mapping[str, float] | None = None) -> Logits:
    """Late fusion: the weighted sum of the heads' logits.

    Args:
        logits: head -> an array or a tensor.
        weights: head -> weight, for the heads that take part; by default all heads with the weights of LATE_FUSION.

    Raises:
        IfttnError: there is no head of that name.
    """
    weights = {head: LATE_FUSION[head] for head in logits} if weights is None else weights
    if unknown := [head for head in weights if head not in logits]:
        raise IfttnError(f"no head {unknown[0]!r} among these scores: choose from {', '.join(logits)}")
    known: Mapping[str, Any] = logits
    return reduce(add, (weight * known[head] for head, weight in weights.items()))


def scaled_fusion(logits: Mapping[str, Logits]) -> Logits:
    """Late fusion divided by the sum of the weights, so that its softmax is about as confident as that of one head."""
    total: Any = late_fusion(logits)
    return total / sum(LATE_FUSION[head] for head in logits)


class Fused(NamedTuple):
    """Late-fused scores of the test videos of one split."""

    videos: tuple[str, ...]
    labels: Int[np.ndarray, " N"]
    scores: Float[np.ndarray, "N A"]

    def right(self, of_action: Int[np.ndarray, " A"] | None = None) -> Bool[np.ndarray, " N"]:
        """Whether the predicted action is right, or whether a factor has the right value for it."""
        of_action = np.arange(self.scores.shape[1]) if of_action is None else of_action
        return of_action[self.scores.argmax(1)] == of_action[self.labels]


def fuse_runs(parts: Sequence[tuple[Scores, Mapping[str, float]]]) -> Fused:
    """Late fusion over the heads of several runs, in the order of the first run's videos.

    Args:
        parts: scores of a run, and head -> weight.

    Raises:
        IfttnError: the runs have different videos or actions, or a head does not exist.
    """
    first, total = parts[0][0], 0.0
    for scores, weights in parts:
        same = scores.videos == first.videos or set(scores.videos) == set(first.videos)
        if not same or scores.actions != first.actions:
            raise IfttnError(
                "late fusion needs scores of the same videos and actions: these come from different splits"
            )
        fused = late_fusion({head: x.astype(float) for head, x in scores.heads.items()}, weights)
        if scores.videos != first.videos:
            place = {video: number for number, video in enumerate(scores.videos)}
            fused = fused[[place[video] for video in first.videos]]
        total = total + fused
    return Fused(first.videos, first.labels, np.asarray(total))


def top1(scores: Float[np.ndarray, "N A"], labels: Int[np.ndarray, " N"]) -> float:
    """Share of videos whose highest score is right, in 0..1."""
    return float((scores.argmax(1) == labels).mean())


def top5(scores: Float[np.ndarray, "N A"], labels: Int[np.ndarray, " N"]) -> float:
    """Share of videos whose action is among the five highest scores, in 0..1."""
    highest = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    return float((highest == labels[:, None]).any(1).mean())


def mean_class_accuracy(scores: Float[np.ndarray, "N A"], labels: Int[np.ndarray, " N"]) -> float:
    """Mean over classes of the share of the class's videos that are right, in 0..1 (the measure of TSN's code)."""
    right, videos = np.bincount(labels, scores.argmax(1) == labels), np.bincount(labels)
    return float((right[videos > 0] / videos[videos > 0]).mean())


def factor_accuracy(
    scores: Float[np.ndarray, "N A"],
    labels: Int[np.ndarray, " N"],
    factors: Mapping[str, Int[np.ndarray, " A"]],
) -> dict[str, float]:
    """Per factor, the share of videos whose predicted action has the right value.

    Args:
        scores: of N videos.
        labels: of N videos.
        factors: factor -> its value for each action.
    """
    predicted = scores.argmax(1)
    return {name: float((values[predicted] == values[labels]).mean()) for name, values in factors.items()}


def confusion_counts(
    predicted: Int[np.ndarray, " N"], labels: Int[np.ndarray, " N"], actions: int
) -> Int[np.ndarray, "A A"]:
    """How many videos of each action (row) are taken for each action (column)."""
    counts = np.zeros((actions, actions), int)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def per_class(
    scores: Float[np.ndarray, "N A"], labels: Int[np.ndarray, " N"], actions: Sequence[str]
) -> list[dict[str, Any]]:
    """One row for each action that has videos, the worst first.

    Columns: action, videos, right, accuracy and its 95 % interval low and high (all in 0..1), and taken for: the action
    that most of the wrong videos are taken for, with their number.
    """
    counts = confusion_counts(scores.argmax(1), labels, len(actions))
    rows = []
    for label in map(int, np.flatnonzero(counts.sum(1))):
        videos, right = int(counts[label].sum()), int(counts[label, label])
        wrong = np.where(np.arange(len(actions)) == label, 0, counts[label])
        taken = f"{actions[int(wrong.argmax())]} ({wrong.max()})" if wrong.any() else ""
        row = {"action": actions[label], "videos": videos, "right": right, "accuracy": right / videos}
        rows.append(row | dict(zip(("low", "high"), wilson(right, videos), strict=True)) | {"taken for": taken})
    return sorted(rows, key=lambda row: row["accuracy"])


class Tuned(NamedTuple):
    """Late-fusion weights that were chosen on held-out training videos."""

    weights: dict[str, float]
    """Head -> weight."""
    top1: float
    """Accuracy on the held-out videos. It is a little too high, because these videos chose the weights."""
    label: str
    """The text that must be shown with every number from these weights."""


def tune(held_out: Scores, test: Iterable[str]) -> Tuned:
    """Choose late-fusion weights on held-out training videos alone; of equally good ones, those nearest to the preset.

    Args:
        held_out: scores of videos that were held out of training.
        test: names of the test videos.

    Raises:
        IfttnError: a test video is among the scores. Weights that were tuned on the test set give no valid result.
    """
    if leaked := sorted(set(test) & set(held_out.videos)):
        raise IfttnError(
            f"late-fusion weights are not tuned on test videos, and {len(leaked)} are here (the first is {leaked[0]}): "
            "train with --hold-out and score what was held out"
        )
    preset = np.array([LATE_FUSION[head] for head in held_out.heads])

    def reached(weights: Sequence[float]) -> float:
        heads = dict(zip(held_out.heads, weights, strict=True))
        return top1(late_fusion(held_out.heads, heads), held_out.labels)

    choices = product((float(preset[0]),), *(TRIED for _ in preset[1:]))
    best = max(choices, key=lambda weights: (reached(weights), -np.abs(preset - weights).sum()))
    label = f"late-fusion weights tuned on {len(held_out.videos)} videos held out of train"
    return Tuned(dict(zip(held_out.heads, best, strict=True)), reached(best), label)
