"""Confidence intervals and tests of an accuracy, and of the difference of two accuracies on the same videos.

A video that several splits or trainings answer is one cluster: its answers resemble each other, and say less than the
answers to as many different videos. The answers of one training are a cluster, too: another seed gives another network.
"""

from collections.abc import Mapping
from functools import cache, lru_cache
from math import sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

SeedAndSplit = tuple[int, int]
"""(number of the seed, split). For each of these, a recipe is trained once."""
MANY = 1e4
"""Degrees of freedom from which Student's t counts as the normal distribution."""


class Right(NamedTuple):
    """Which answers of one training are right."""

    videos: tuple[str, ...]
    values: Bool[np.ndarray, " N"]


Answers = Mapping[SeedAndSplit, Right]
"""Training -> its answers."""


def wilson(correct: int | float, total: int | float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in 0..1.

    Both counts may be divided by a design effect. SciPy's interval takes whole numbers only.
    """
    z = 1.96
    share, spread = correct / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / total + spread / (4 * total))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def design_effect(values: Num[np.ndarray, " N"], videos: Int[np.ndarray, " N"]) -> float:
    """How many times larger the variance of a mean is than for as many different videos (Kish), at least 1.

    Args:
        values: of N answers.
        videos: the number of each answer's video, from 0.
    """
    away = values - values.mean()
    apart, together = (away**2).sum(), (np.bincount(videos, away) ** 2).sum()
    return max(1.0, float(together / apart)) if apart else len(values) / (videos.max() + 1)


def over_trainings(
    mean: float,
    interval: tuple[float, float],
    values: Num[np.ndarray, " N"],
    videos: Int[np.ndarray, " N"],
    trainings: Int[np.ndarray, " N"],
) -> tuple[float, float]:
    """A mean's 95 % interval over videos, widened to cover other trainings as well.

    The variance is the sum of the variances over clusters of videos and of trainings, minus the part that both count
    (two-way clusters: Cameron, Gelbach and Miller 2011). Student's t with Satterthwaite's degrees of freedom replaces
    the normal quantile, because few trainings give an uncertain variance. For one training the interval is unchanged.

    Args:
        mean: the mean of the values.
        interval: the interval over videos alone.
        values: the values of N answers.
        videos: the number of each answer's video, from 0.
        trainings: the number of each answer's training, from 0.
    """
    alone, by_video, by_training = (
        _variance_of_mean(values, which) for which in (np.arange(len(values)), videos, trainings)
    )
    by_video, beyond = max(by_video, alone), max(by_training - alone, 0.0)
    if not (trainings.any() and by_training):
        return interval
    freedom = trainings.max() * ((by_video + beyond) / by_training) ** 2
    times = student_t(freedom) / student_t(MANY)
    low, high = (times * sqrt((mean - limit) ** 2 + 1.96**2 * beyond) for limit in interval)
    return mean - low, mean + high


def _variance_of_mean(values: Num[np.ndarray, " N"], which: Int[np.ndarray, " N"]) -> float:
    """The variance of a mean of values in independent clusters. `which` is the cluster of each value."""
    sums = np.bincount(which, values - values.mean())
    return float((sums**2).sum() * len(sums) / max(len(sums) - 1, 1) / len(values) ** 2)


@cache
def student_t(freedom: float) -> float:
    """The quantile t with 95 % of Student's distribution in -t..t. SciPy would take a second to import.

    With t = sqrt(freedom) * tan(angle), the density of the angle is a power of its cosine.
    """
    freedom = min(freedom, MANY)
    angles = np.linspace(0, np.pi / 2, 20_001)
    heights = np.cos(angles) ** (freedom - 1)
    area = np.concatenate([[0.0], np.cumsum(heights[1:] + heights[:-1])])
    return float(sqrt(freedom) * np.tan(np.interp(0.95, area / area[-1], angles)))


class Paired(NamedTuple):
    """The comparison of two systems on the same questions."""

    answers: int
    """The number of questions: one for each video in each training that is tested on it."""
    videos: int
    """The number of different videos among them."""
    trainings: int
    """The number of trainings of each system. A training is one seed on one split."""
    first: float
    """Accuracy of the first, in 0..1."""
    second: float
    """Accuracy of the second, in 0..1."""
    only_first: int
    """Answers of the first that are right where the second is wrong."""
    only_second: int
    difference: float
    """Accuracy of the first minus that of the second, in -1..1."""
    interval: tuple[float, float]
    """95 % interval of the difference: Newcombe's, also over trainings if there are several."""
    p: float
    """McNemar's exact test for these trainings: the probability of a difference this large if neither were better."""


def mcnemar(
    first: Bool[np.ndarray, " N"],
    second: Bool[np.ndarray, " N"],
    videos: Int[np.ndarray, " N"] | None = None,
    trainings: Int[np.ndarray, " N"] | None = None,
) -> Paired:
    """Compare two rows of a table on the same videos.

    McNemar's exact test (binomial, two-sided), and the interval of the difference of paired shares by square-and-add of
    Wilson's limits (Newcombe 1998, method 10), widened by `over_trainings`. The test flips all answers to a video
    together, and the interval uses counts divided by the design effect.

    Args:
        first: which answers of the first are right.
        second: which answers of the second are right, in the same order.
        videos: the number of each answer's video, from 0; None: all are different.
        trainings: the number of each answer's training, from 0; None: all are of one.
    """
    trainings = np.zeros(len(first), int) if trainings is None else trainings
    videos = np.arange(len(first)) if videos is None else videos
    changes = first.astype(int) - second.astype(int)
    only_first, only_second = int((changes > 0).sum()), int((changes < 0).sum())
    effect = design_effect(changes, videos)
    total, both = len(first) / effect, int((first & second).sum()) / effect
    difference = (only_first - only_second) / len(first)  # exactly 0 where nothing differs
    over_videos = _newcombe(total, both, only_first / effect, only_second / effect)
    return Paired(
        answers=len(first),
        videos=int(videos.max()) + 1,
        trainings=int(trainings.max()) + 1,
        first=float(first.mean()),
        second=float(second.mean()),
        only_first=only_first,
        only_second=only_second,
        difference=difference,
        interval=over_trainings(difference, over_videos, changes, videos, trainings),
        p=flip_test(np.bincount(videos, changes).round().astype(int)),
    )


def _newcombe(total: float, both: float, only_first: float, only_second: float) -> tuple[float, float]:
    """95 % interval of the difference of two paired shares, from the counts of a two-by-two table."""
    neither = total - both - only_first - only_second
    share, other = (both + only_first) / total, (both + only_second) / total
    (low, high), (low_other, high_other) = wilson(both + only_first, total), wilson(both + only_second, total)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    covary = both * neither - only_first * only_second
    # Newcombe's continuity correction applies to positive correlations only.
    correlation = (max(covary - total / 2, 0) if covary > 0 else covary) / sqrt(margins) if margins > 0 else 0.0

    def limit(below: float, above: float) -> float:
        return sqrt(max(below**2 - 2 * correlation * below * above + above**2, 0.0))

    difference = (only_first - only_second) / total
    return difference - limit(share - low, high_other - other), difference + limit(high - share, other - low_other)


def _heads(coins: int) -> Float[np.ndarray, " n"]:
    """The probability of each number of heads among fair coins."""
    heads = np.arange(1, coins + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log((coins + 1 - heads) / heads))])
    return np.exp(ways - coins * np.log(2))


def flip_test(changes: Int[np.ndarray, " V"]) -> float:
    """Probability of a sum at least as far from 0 if the sign of every change were a fair coin's: exact, two-sided.

    Where every change is one answer, this is the sign test and McNemar's test.
    """
    chances = np.ones(1)  # of each sum from -total to total; SciPy would take a second to import
    sizes, counts = np.unique(np.abs(changes[changes != 0]), return_counts=True)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        coins = np.zeros(2 * size * count + 1)
        coins[:: 2 * size] = _heads(count)
        chances = np.convolve(chances, coins)
    sums = np.arange(len(chances)) - len(chances) // 2
    return float(min(1.0, chances[np.abs(sums) >= abs(changes.sum())].sum()))


def share_interval(
    right: Bool[np.ndarray, " N"], videos: Int[np.ndarray, " N"], trainings: Int[np.ndarray, " N"]
) -> tuple[float, float]:
    """Wilson's 95 % interval over all answers. The design effect widens it if trainings share test videos. With several
    trainings, it covers other trainings, too. The numbers are those of `numbered`."""
    values = right.astype(float)
    effect = design_effect(values, videos)
    over_videos = wilson(values.sum() / effect, len(values) / effect)
    low, high = over_trainings(values.mean(), over_videos, values, videos, trainings)
    return max(low, 0.0), min(high, 1.0)


@lru_cache(32)
def numbered(names: tuple[tuple[str, ...], ...]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """The number of each answer's video, and of its training, from 0.

    Args:
        names: for each training, the videos that it answers.
    """
    numbers: dict[str, int] = {}
    videos = np.array([numbers.setdefault(video, len(numbers)) for each in names for video in each])
    return videos, np.repeat(np.arange(len(names)), [len(each) for each in names])


def compare(first: Answers, second: Answers) -> Paired | None:
    """McNemar's test of two results on the videos of the trainings that both have."""
    both = [_on_same_videos(first[training], second[training]) for training in first if training in second]
    if not any(one.videos for one, _ in both):
        return None
    one, other = (np.concatenate([pair[side].values for pair in both]) for side in (0, 1))
    return mcnemar(one, other, *numbered(tuple(each.videos for each, _ in both)))


def _on_same_videos(first: Right, second: Right) -> tuple[Right, Right]:
    if first.videos == second.videos:
        return first, second
    place = {video: number for number, video in enumerate(second.videos)}
    kept = [number for number, video in enumerate(first.videos) if video in place]
    videos = tuple(first.videos[number] for number in kept)
    return Right(videos, first.values[kept]), Right(videos, second.values[[place[video] for video in videos]])
