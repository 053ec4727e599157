"""Scores of test videos, and the arithmetic on them: consensus, late fusion, accuracy and how sure we are.

Every cell of a table and every plot is arithmetic on saved scores. Shapes: N videos, K segments, A actions.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, product
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from ifttn.data.augmentation import test_crops
from ifttn.data.on_device import batches
from ifttn.data.snippets import SnippetDataset
from ifttn.experiment.machine import Machine
from ifttn.files import write_whole
from ifttn.memory import Pieces
from ifttn.model.backbone import Pyramid
from ifttn.model.network import Scorer, undisturbed
from ifttn.vocabulary import Batch, IfttnError

READINGS = ("one view", "reversed", "shuffled")
"""Of the centre view alone: the snippets in order, from last to first, and in a fixed wrong order. What does not know
order says the same of all three."""
SHUFFLE = 5
"""Seed of the wrong orders."""
TRIED = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Weights that `tune` tries for each head but the first, whose weight is the unit."""


@dataclass(frozen=True)
class Scores:
    """What each head said of each video: raw scores, before any softmax (TSN's practice)."""

    videos: tuple[str, ...]
    labels: Int[np.ndarray, " N"]
    actions: tuple[str, ...]
    heads: Mapping[str, Float[np.ndarray, "N A"]]
    """Mean over all views."""
    readings: Mapping[str, Mapping[str, Float[np.ndarray, "N A"]]] = field(default_factory=dict)
    """A name of READINGS -> head -> scores; empty where they were not made."""
    identity: str = ""
    """What the store said of the videos (`Store.identity`)."""

    def read(self, reading: str) -> "Scores | None":
        """Of one of READINGS, or of all views (""); None where that was not scored."""
        if not reading:
            return self
        return replace(self, heads=self.readings[reading]) if reading in self.readings else None

    def save(self, path: Path) -> None:
        """Write one .npz, whole or not at all."""
        content = io.BytesIO()
        arrays: dict[str, Any] = {"videos": self.videos, "labels": self.labels, "actions": self.actions}
        arrays["identity"] = self.identity
        arrays.update({f"head:{name}": scores for name, scores in self.heads.items()})
        for reading, heads in self.readings.items():
            arrays.update({f"{reading}:{name}": scores for name, scores in heads.items()})
        np.savez(content, **arrays)
        write_whole(path, content.getbuffer())

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:

            def of(prefix: str) -> dict[str, np.ndarray]:
                return {key.removeprefix(prefix): file[key] for key in file.files if key.startswith(prefix)}

            readings = {reading: heads for reading in READINGS if (heads := of(f"{reading}:"))}
            videos, actions = tuple(file["videos"].tolist()), tuple(file["actions"].tolist())
            return cls(videos, file["labels"], actions, of("head:"), readings, str(file.get("identity", "")))


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
    """Scores of every video of a data set of fixed views: mean over votes and views, each head by itself.

    Views come one after another, so that memory does not grow with them. Where it does not suffice, there are fewer
    videos at once.

    Args:
        network: every module's mode is left as it was.
        dataset: without random crops; its views are scored.
        actions: of the scores' columns.
        batch: videos at once, where the machine has no smaller number.
        workers: processes that load batches.
        machine: precision and micro-batch, as in training.
        orders: READINGS as well; for them what follows the streams is computed anew on one view.

    Raises:
        IfttnError: memory does not suffice for a single video.
    """
    machine, device = machine or Machine(), str(next(network.parameters()).device)
    row = {video.name: index for index, video in enumerate(dataset.videos)}
    said: dict[str, dict[str, Float[np.ndarray, "N A"]]] = {}

    def add(names: Sequence[str], reading: str, logits: Mapping[str, Tensor]) -> None:
        for head, x in logits.items():
            sums = said.setdefault(reading, {}).setdefault(head, np.zeros((len(row), x.shape[1]), np.float32))
            sums[[row[name] for name in names]] += x.float().cpu().numpy() / np.float32(1 if reading else dataset.crops)

    settings = dataset.store.settings
    centre = dataset.views.index(test_crops(settings.height, settings.width, dataset.size, 1)[0])
    pieces = Pieces(min(batch, machine.micro_batch or batch), "video")
    rows = [range(first, min(first + pieces.most, len(row))) for first in range(0, len(row), pieces.most)]
    keys = [[(view, index) for index in part] for view in range(dataset.crops) for part in rows]
    with undisturbed(network):
        for own, examples in zip(keys, batches(dataset, keys, device, workers), strict=True):
            read = partial(_read, network, machine, examples, orders and own[0][0] == centre)
            for names, found in pieces(read, len(own)):
                for reading, logits in found.items():
                    add(names, reading, logits)
    labels = np.array([video.label for video in dataset.videos])
    return Scores(tuple(row), labels, tuple(actions), said.pop(""), said)


def _read(
    network: Scorer, machine: Machine, examples: Batch, turned: bool, part: slice
) -> tuple[Sequence[str], Mapping[str, Mapping[str, Tensor]]]:
    """Names of some videos; "" or one of READINGS -> what each head says of them in that order."""
    names, inputs = examples.names[part], {m: x[part] for m, x in examples.inputs.items()}
    segments = next(iter(inputs.values())).shape[1]
    with machine.autocast(str(next(network.parameters()).device)):
        pyramids = network.pyramids(inputs)
        found = {"": network.read(pyramids, segments).logits}
        if turned:
            found["one view"] = found[""]
            for reading, order in _wrong_orders(names, segments).items():
                found[reading] = network.read(_reordered(pyramids, order), segments).logits
    return names, found


def _wrong_orders(names: Sequence[str], segments: int) -> dict[str, Int[np.ndarray, "N K"]]:
    last_first = np.arange(segments)[::-1]
    return {
        "reversed": np.stack([last_first for _ in names]),
        "shuffled": np.stack([wrong_order(name, segments) for name in names]),
    }


def wrong_order(video: str, segments: int) -> Int[np.ndarray, " K"]:
    """An order of a video's snippets other than the right one, the same in every run and for every network."""
    rng, right = np.random.default_rng((SHUFFLE, *video.encode())), np.arange(segments)
    order = right
    while segments > 1 and (order == right).all():
        order = rng.permutation(segments)
    return order


def _reordered(pyramids: Mapping[str, Pyramid], orders: Int[np.ndarray, "N K"]) -> dict[str, Pyramid]:
    """The pyramids of S snippets, those of each video in an order of their own. Streams see one snippet at a time, and
    so need not be asked again."""
    videos, segments = orders.shape
    places = torch.from_numpy((np.arange(videos)[:, None] * segments + orders).ravel())
    return {m: {level: x[places.to(x.device)] for level, x in pyramid.items()} for m, pyramid in pyramids.items()}


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


def top_k(scores: Float[np.ndarray, "N A"], labels: Int[np.ndarray, " N"], k: int = 5) -> float:
    """Share of videos whose action is among the k of the highest scores, in 0..1; top-1 is `top1`."""
    highest = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((highest == labels[:, None]).any(1).mean())


def mean_class_accuracy(scores: Float[np.ndarray, "N A"], labels: Int[np.ndarray, " N"]) -> float:
    """Mean over classes of the share of its videos that are right, in 0..1 (the measure of TSN's code)."""
    right = scores.argmax(1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def wilson(correct: int | float, total: int | float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in 0..1; both counts are divided by a design effect where there is one."""
    share, spread = correct / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / total + spread / (4 * total))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def design_effect(values: Num[np.ndarray, " N"], videos: Sequence[str] | None) -> float:
    """How many times the variance of a mean is that of as many different videos (Kish), at least 1.

    HMDB51's splits test some videos twice or three times, and answers to one video resemble each other: a mean over
    all answers is as sure as one over N divided by this.

    Args:
        values: of N answers.
        videos: which video each answer is to; None: N different ones.
    """
    if videos is None:
        return 1.0
    _, which = np.unique(np.asarray(videos), return_inverse=True)
    away = values - values.mean()
    apart, together = (away**2).sum(), (np.bincount(which, away) ** 2).sum()
    return max(1.0, float(together / apart)) if apart else len(values) / (which.max() + 1)


class Paired(NamedTuple):
    """Two answers to each of the same questions: how often the one is right where the other is wrong."""

    answers: int
    """Questions: a video in each split that tests it."""
    videos: int
    """Different videos among them."""
    first: float
    """Accuracy of the first, in 0..1."""
    second: float
    """Accuracy of the second, in 0..1."""
    only_first: int
    only_second: int
    difference: float
    """Accuracy of the first less that of the second, in -1..1."""
    interval: tuple[float, float]
    """Newcombe's 95 % interval of that difference."""
    p: float
    """Of McNemar's exact test: probability of a difference as large, were neither better."""


def mcnemar(
    first: Bool[np.ndarray, " N"], second: Bool[np.ndarray, " N"], videos: Sequence[str] | None = None
) -> Paired:
    """Compare two rows of a table on the same videos.

    McNemar's test in its exact form (binomial, two-sided), and the interval of the difference of paired shares with
    square-and-add of Wilson's limits (Newcombe 1998, method 10). For a large study or a small one alike. A video that
    several splits test is one cluster: the test flips all its answers together, and the interval stands on counts
    divided by the design effect.

    Args:
        first: which answers of the first are right.
        second: which answers of the second are right, in the same order.
        videos: which video each answer is to; None: N different ones.
    """
    changes = first.astype(int) - second.astype(int)
    only_first, only_second = int((changes > 0).sum()), int((changes < 0).sum())
    effect = design_effect(changes, videos)
    total, both = len(first) / effect, int((first & second).sum()) / effect
    interval = _newcombe(total, both, only_first / effect, only_second / effect)
    names, which = np.unique(np.arange(len(first)) if videos is None else np.asarray(videos), return_inverse=True)
    return Paired(
        answers=len(first),
        videos=len(names),
        first=float(first.mean()),
        second=float(second.mean()),
        only_first=only_first,
        only_second=only_second,
        difference=(only_first - only_second) / len(first),  # exactly 0 where nothing differs
        interval=interval,
        p=flip_test(np.bincount(which, changes).round().astype(int)),
    )


def _newcombe(total: float, both: float, only_first: float, only_second: float) -> tuple[float, float]:
    """95 % interval of the difference of two paired shares, from the counts of a table of two by two."""
    neither = total - both - only_first - only_second
    share, other = (both + only_first) / total, (both + only_second) / total
    (low, high), (low_other, high_other) = wilson(both + only_first, total), wilson(both + only_second, total)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    covary = both * neither - only_first * only_second
    # Newcombe's continuity correction, of positive correlations alone.
    correlation = (max(covary - total / 2, 0) if covary > 0 else covary) / sqrt(margins) if margins > 0 else 0.0

    def limit(below: float, above: float) -> float:
        return sqrt(max(below**2 - 2 * correlation * below * above + above**2, 0.0))

    difference = (only_first - only_second) / total
    return difference - limit(share - low, high_other - other), difference + limit(high - share, other - low_other)


def flip_test(changes: Int[np.ndarray, " V"]) -> float:
    """Probability of a sum as far from 0, or farther, were the sign of every change a fair coin's: exact.

    Where every change is one answer more or less, this is the sign test, and McNemar's.
    """
    chances = np.ones(1)  # of each sum from -total to total
    for size, count in zip(*np.unique(np.abs(changes[changes != 0]), return_counts=True), strict=True):
        ways = accumulate(range(count), lambda ways, k, of=int(count): ways * (of - k) // (k + 1), initial=1)
        coins = np.zeros(2 * size * count + 1)
        coins[:: 2 * size] = [each / 2 ** int(count) for each in ways]
        chances = np.convolve(chances, coins)
    sums = np.arange(len(chances)) - len(chances) // 2
    return float(min(1.0, chances[np.abs(sums) >= abs(changes.sum())].sum()))


def sign_test(gained: int, lost: int) -> float:
    """Probability of a difference as large, or larger, were a change as likely for the better as for the worse."""
    return flip_test(np.repeat([1, -1], [gained, lost]))


def confusion(predicted: Int[np.ndarray, " N"], labels: Int[np.ndarray, " N"], actions: int) -> Int[np.ndarray, "A A"]:
    """How many videos of each action (row) are taken for each (column)."""
    counts = np.zeros((actions, actions), int)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def per_class(scores: Float[np.ndarray, "N A"], labels: Int[np.ndarray, " N"], actions: Sequence[str]) -> pd.DataFrame:
    """One row an action that has videos, the worst first.

    Columns: action, videos, right, accuracy and its 95 % interval low and high (all in 0..1), and taken for: what most
    of its wrong videos are taken for, with their number.
    """
    counts = confusion(scores.argmax(1), labels, len(actions))
    rows = []
    for label in map(int, np.flatnonzero(counts.sum(1))):
        videos, right = int(counts[label].sum()), int(counts[label, label])
        wrong = np.where(np.arange(len(actions)) == label, 0, counts[label])
        taken = f"{actions[int(wrong.argmax())]} ({wrong.max()})" if wrong.any() else ""
        rows.append((actions[label], videos, right, right / videos, *wilson(right, videos), taken))
    columns = ["action", "videos", "right", "accuracy", "low", "high", "taken for"]
    return pd.DataFrame(rows, columns=columns).sort_values("accuracy", kind="stable", ignore_index=True)


class Tuned(NamedTuple):
    """Late-fusion weights that were chosen on held-out training videos, and what tells them from preset ones."""

    parts: list[dict[str, float]]
    """Weight of each head, part by part."""
    top1: float
    """On the held-out videos, which chose the weights: a little too good."""
    preset_top1: float
    """Of the preset weights on the same videos."""
    label: str
    """To stand beside every number that these weights give."""


def tune(held_out: Sequence[tuple[Scores, Mapping[str, float]]], test: Iterable[str]) -> Tuned:
    """Late-fusion weights from held-out training videos alone; of equally good ones, those nearest to the preset.

    Args:
        held_out: as for `late_fusion`: scores of videos that were held out of training, and preset weights.
        test: names of the test videos.

    Raises:
        IfttnError: a test video is among the scores: what is tuned on the test set is no result.
    """
    first = held_out[0][0]
    if leaked := sorted(set(test) & set(first.videos)):
        raise IfttnError(
            f"late-fusion weights are not tuned on test videos, and {len(leaked)} are here (the first is {leaked[0]}): "
            "train with --hold-out and score what was held out"
        )
    preset = [weight for _, heads in held_out for weight in heads.values()]

    def heads_of(weights: Sequence[float]) -> list[dict[str, float]]:
        rest = iter(weights)
        return [{head: next(rest) for head in heads} for _, heads in held_out]

    def reached(weights: Sequence[float]) -> float:
        parts = [(scores, heads) for (scores, _), heads in zip(held_out, heads_of(weights), strict=True)]
        return top1(late_fusion(parts), first.labels)

    def far(weights: Sequence[float]) -> float:
        return sum(abs(weight - other) for weight, other in zip(weights, preset, strict=True))

    choices = product((preset[0],), *(TRIED for _ in preset[1:]))
    best = max(choices, key=lambda weights: (reached(weights), -far(weights)))
    label = f"late-fusion weights tuned on {len(first.videos)} videos held out of train"
    return Tuned(heads_of(best), reached(best), reached(preset), label)


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
