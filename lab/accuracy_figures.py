"""Matplotlib figures of accuracy against training videos, against the order of snippets, and against time.

Shapes: A actions.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from lab.figures import COLUMN, HEAD_NAMES, PAGE, SERIES, paper_style


@paper_style
def clips_curve(table: pd.DataFrame, title: str, actions: int) -> Figure:
    """Accuracy against the number of training videos of an action, with a line for each head.

    Bands are 95 % intervals. With several seeds, bars go from the lowest to the highest accuracy. The dotted line is
    chance.

    Args:
        table: `ifttn.experiment.clips.curve`.
        title: of the figure.
        actions: the number of actions.
    """
    figure = Figure(figsize=(COLUMN + 1.3, 2.6))
    axes = figure.subplots()
    axes.axhline(100 / actions, color="0.55", lw=0.7, ls=":")
    for number, (head, rows) in enumerate(table.groupby("head", sort=False)):
        colour = "black" if head == "together" else SERIES[number % len(SERIES)]
        mean, low, high, lowest, highest = 100 * rows[["accuracy", "low", "high", "lowest", "highest"]].to_numpy().T
        axes.fill_between(rows["clips"], low, high, color=colour, alpha=0.13, lw=0)
        label = HEAD_NAMES.get(str(head), str(head))
        axes.plot(rows["clips"], mean, "o-", color=colour, ms=3.5, lw=1.8 if head == "together" else 1.1, label=label)
        if (highest > lowest).any():
            axes.vlines(rows["clips"], lowest, highest, color=colour, lw=0.8)
    counts = sorted(table["clips"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, map(str, counts))
    axes.minorticks_off()
    axes.set(ylim=(0, 101), xlabel="training videos of each action", ylabel="top-1 accuracy (%)", title=title)
    axes.grid(color="0.92", lw=0.5)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


CHANGE = ("#b2432f", "#c9c4ba", "#00698c")
"""The colours of a loss, of no change and of a gain."""
MOST = 15
"""If there are more than 2 * MOST actions, the figure shows the MOST largest and the MOST smallest gains."""


@paper_style
def order_lollipops(gains: pd.DataFrame) -> Figure:
    """The accuracy that order gives each action: with snippets in order minus with shuffled snippets.

    The left half has the gain with its interval, the right half both accuracies.

    Args:
        gains: `ifttn.experiment.reversal_frames.order_gains`, the largest gain first.
    """
    left_out = max(0, len(gains) - 2 * MOST)
    rows = pd.concat([gains.head(MOST), gains.tail(MOST)]) if left_out else gains
    places = np.arange(len(rows)) + np.where(np.arange(len(rows)) >= MOST, 1.4, 0.0) * bool(left_out)
    colours = LinearSegmentedColormap.from_list("change", CHANGE)(Normalize(-1, 1)(_stretched(rows["gain"].to_numpy())))
    figure = Figure(figsize=(PAGE, 0.75 + 0.155 * (places[-1] + 1)))
    change, both = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1.1))
    percent = 100 * rows[["gain", "low", "high", "in order", "shuffled"]].to_numpy().T
    gain, low, high, order, shuffled = percent
    change.axvline(0, color="0.55", lw=0.7)
    change.hlines(places, low, high, color="0.8", lw=3.2, capstyle="round")
    change.hlines(places, 0, gain, color=colours, lw=1.4)
    change.scatter(gain, places, s=26, color=colours, edgecolor="white", linewidth=0.6, zorder=3)
    both.hlines(places, shuffled, order, color=colours, lw=1.4)
    both.scatter(
        shuffled, places, s=15, facecolor="white", edgecolor=colours, linewidth=0.9, zorder=3, label="shuffled"
    )
    both.scatter(order, places, s=17, color=colours, zorder=3, label="in order")
    names = [name if len(name) <= 58 else f"{name[:56]}..." for name in rows["action"]]
    change.set_yticks(places, names)
    change.set(xlabel="points of accuracy that order gives", title="In order minus shuffled, with 95 % interval")
    both.set(xlim=(-4, 104), xlabel="accuracy (%)", title="Shuffled (open) and in order (full)")
    for axes in (change, both):
        axes.grid(axis="x", color="0.92", lw=0.5)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    change.set_ylim(places[-1] + 0.8, -0.8)
    if left_out:
        where = {"transform": change.get_yaxis_transform(), "color": "0.45", "size": 6, "va": "center", "ha": "left"}
        change.text(0.01, MOST + 0.2, f"{left_out} actions between", style="italic", **where)
    return figure


def _stretched(gain: Float[np.ndarray, " A"]) -> Float[np.ndarray, " A"]:
    """Gains in -1..1 on a square-root scale, so that small gains have different colours."""
    return np.sign(gain) * np.sqrt(np.abs(gain))


@paper_style
def accuracy_against_time(points: Mapping[str, tuple[float, float]]) -> Figure:
    """The accuracy of systems against their time.

    Args:
        points: name -> seconds for a video, and accuracy in 0..1.
    """
    figure = Figure(figsize=(COLUMN, 0.7 * COLUMN))
    axes = figure.subplots()
    for i, (name, (seconds, accuracy)) in enumerate(points.items()):
        axes.plot(seconds, accuracy, "o", ms=5, color=SERIES[i % len(SERIES)])
        axes.annotate(name, (seconds, accuracy), (5, 4), textcoords="offset points", size=6)
    axes.set(xlabel="seconds for a video, from the file to the prediction", ylabel="accuracy", ylim=(0, 1.05))
    axes.set_xlim(0, 1.3 * max((seconds for seconds, _ in points.values()), default=1.0))
    return figure
