"""How sure an accuracy is, and how sure the difference between two accuracies on the same videos is.

A video that several splits test, as in HMDB51, is one cluster: its answers resemble each other and count for less than
as many different videos.
"""

from collections.abc import Sequence
from math import comb, sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Num


def wilson(correct: int | float, total: int | float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in 0..1.

    Both counts may be divided by a design effect. SciPy's interval takes whole numbers only.
    """
    share, spread = correct / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / total + spread / (4 * total))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def design_effect(values: Num[np.ndarray, " N"], videos: Sequence[str] | None) -> float:
    """How many times larger the variance of a mean is than for as many different videos (Kish), at least 1.

    Args:
        values: of N answers.
        videos: the video of each answer; None: all are different.
    """
    if videos is None:
        return 1.0
    _, which = np.unique(np.asarray(videos), return_inverse=True)
    away = values - values.mean()
    apart, together = (away**2).sum(), (np.bincount(which, away) ** 2).sum()
    return max(1.0, float(together / apart)) if apart else len(values) / (which.max() + 1)


class Paired(NamedTuple):
    """Two answers to each of the same questions, compared."""

    answers: int
    """Questions: one for each video in each split that tests it."""
    videos: int
    """Different videos among them."""
    first: float
    """Accuracy of the first, in 0..1."""
    second: float
    """Accuracy of the second, in 0..1."""
    only_first: int
    """Answers of the first that are right where the second is wrong."""
    only_second: int
    difference: float
    """Accuracy of the first less that of the second, in -1..1."""
    interval: tuple[float, float]
    """Newcombe's 95 % interval of the difference."""
    p: float
    """McNemar's exact test: the probability of a difference this large if neither were better."""


def mcnemar(
    first: Bool[np.ndarray, " N"], second: Bool[np.ndarray, " N"], videos: Sequence[str] | None = None
) -> Paired:
    """Compare two rows of a table on the same videos.

    McNemar's exact test (binomial, two-sided), and the interval of the difference of paired shares by square-and-add of
    Wilson's limits (Newcombe 1998, method 10). The test flips all answers to a video together, and the interval uses
    counts divided by the design effect.

    Args:
        first: which answers of the first are right.
        second: which answers of the second are right, in the same order.
        videos: the video of each answer; None: all are different.
    """
    changes = first.astype(int) - second.astype(int)
    only_first, only_second = int((changes > 0).sum()), int((changes < 0).sum())
    effect = design_effect(changes, videos)
    total, both = len(first) / effect, int((first & second).sum()) / effect
    names, which = np.unique(np.arange(len(first)) if videos is None else np.asarray(videos), return_inverse=True)
    return Paired(
        answers=len(first),
        videos=len(names),
        first=float(first.mean()),
        second=float(second.mean()),
        only_first=only_first,
        only_second=only_second,
        difference=(only_first - only_second) / len(first),  # exactly 0 where nothing differs
        interval=_newcombe(total, both, only_first / effect, only_second / effect),
        p=flip_test(np.bincount(which, changes).round().astype(int)),
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


def flip_test(changes: Int[np.ndarray, " V"]) -> float:
    """Probability of a sum at least as far from 0 if the sign of every change were a fair coin's: exact, two-sided.

    Where every change is one answer, this is the sign test and McNemar's test.
    """
    chances = np.ones(1)  # of each sum from -total to total; SciPy would take a second to import
    sizes, counts = np.unique(np.abs(changes[changes != 0]), return_counts=True)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        coins = np.zeros(2 * size * count + 1)
        coins[:: 2 * size] = [comb(count, heads) / 2**count for heads in range(count + 1)]
        chances = np.convolve(chances, coins)
    sums = np.arange(len(chances)) - len(chances) // 2
    return float(min(1.0, chances[np.abs(sums) >= abs(changes.sum())].sum()))
