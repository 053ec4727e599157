"""Matplotlib figures: the paper's Figures 1, 6 and 7, training curves, confusion matrices, times.

`accuracy_figures` has the figures of accuracy. Every function returns a new `Figure` and does not use pyplot.
Shapes: H x W pixels, C motion planes x1, y1, x2, y2, ... in bytes around 128, N videos, A actions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, hsv_to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from ifttn.experiment.scores import confusion_counts
from lab.pictures import STRIPED, heat

COLUMN, PAGE = 3.3, 6.9
"""Width of one column and of two columns (inches)."""

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""The colours of Okabe and Ito, which colour-blind readers can distinguish."""

paper_style = rc_context(
    {
        "font.size": 7,
        "axes.titlesize": 7,
        "axes.labelsize": 7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.labelsize": 6,
        "ytick.labelsize": 6,
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.h_pad": 0.02,
        "figure.constrained_layout.w_pad": 0.02,
        "figure.constrained_layout.hspace": 0.02,
        "figure.constrained_layout.wspace": 0.02,
        "figure.dpi": 200,
    }
)


def flow_colours(motion: UInt8[np.ndarray, "*_ C H W"], full: float | None = None) -> UInt8[np.ndarray, "*_ H W 3"]:
    """The mean field of each stack as colours: hue is direction (red right, green-yellow down), white is no motion.

    Args:
        motion: stacks of motion planes, which get a common scale.
        full: motion with full colour (levels from 128); by default the 99th percentile of `motion`, at least 8.
    """
    field = motion.astype(np.float32) - 128
    x, y = field[..., 0::2, :, :].mean(-3), field[..., 1::2, :, :].mean(-3)
    speed = np.hypot(x, y)
    if full is None:
        full = max(8.0, float(np.percentile(speed, 99)))
    hue = np.arctan2(y, x) / (2 * np.pi) % 1
    colours = hsv_to_rgb(np.stack([hue, np.clip(speed / full, 0, 1), np.ones_like(hue)], axis=-1))
    return np.rint(255 * colours).astype(np.uint8)


@dataclass(frozen=True)
class CamExample:
    """A pair of neighbouring snippets of one video, and the maps of one action."""

    title: str
    frames: UInt8[np.ndarray, "2 H W 3"]
    motion: UInt8[np.ndarray, "2 C H W"]
    spatial: Float[np.ndarray, "2 H W"]
    """A value for each pixel (`ifttn.insight.cam.on_pixels`). Plain image resizing would shift it by half a cell."""
    temporal: Float[np.ndarray, "2 H W"]
    pair: Float[np.ndarray, "H W"]
    """The map of IF-TTN, which belongs to both snippets."""
    probabilities: tuple[float, float, float] | None = None
    """The probabilities of the action by the spatial stream, the temporal stream and IF-TTN."""
    outlined: Bool[np.ndarray, "2 H W"] | None = None
    """Regions that get a contour."""


@paper_style
def figure_6(examples: Sequence[CamExample], notes: Sequence[str] = ()) -> Figure:
    """Figure 6: the evidence for an action in the maps of the spatial stream, the temporal stream and IF-TTN.

    A map is divided by its head's largest absolute value in the pair. So the two snippets of a head can be compared,
    but not two heads. The notes are below the last four columns: the motion and the three maps.
    """
    _, height, width, _ = examples[0].frames.shape
    tall = 2 * PAGE / 5.2 * height / width + 0.42
    heights = [tall] * len(examples) + [0.55]
    heights[-2] += 0.115 * max((note.count("\n") + 1 for note in notes), default=0)
    figure = Figure(figsize=(PAGE, sum(heights)))
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    blocks = [_cam_block(part, example) for part, example in zip(parts[:-1], examples, strict=True)]
    for axes, note in zip(blocks[-1][1, 1:], notes, strict=False):
        axes.set_xlabel(note)
    wheel, scale = (part.subplots() for part in parts[-1].subfigures(1, 2, width_ratios=(1, 3)))
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    _tile(wheel, flow_colours(np.rint(128 + 127 * (np.hypot(x, y) < 1) * np.stack([x, y])).astype(np.uint8), 127.0))
    wheel.spines[:].set_visible(False)
    wheel.set_ylabel("direction\nof motion", rotation=0, ha="right", va="center")
    figure.colorbar(ScalarMappable(Normalize(-1, 1), "coolwarm"), scale, orientation="horizontal", ticks=[-1, 0, 1])
    scale.axvspan(-1, -STRIPED, facecolor="none", edgecolor="white", hatch="//////", linewidth=0)
    scale.set_xlabel("evidence against (-1, striped) and for (+1) the action, as a share of the head's largest value")
    return figure


def _cam_block(part: SubFigure, example: CamExample) -> np.ndarray:
    """Two rows of five tiles: frame, motion and three maps."""
    part.suptitle(example.title, x=0.005, ha="left", weight="bold")
    tiles = part.subplots(2, 5)
    shown = [("spatial CAM", example.spatial), ("temporal CAM", example.temporal)]
    shown.append(("IF-TTN CAM", np.stack([example.pair] * 2)))
    for column, title in enumerate(["frame", "motion"]):
        tiles[0, column].set_title(title)
    for row, images in enumerate(zip(example.frames, flow_colours(example.motion), strict=True)):
        tiles[row, 0].set_ylabel(("first snippet", "second snippet")[row])
        for column, image in enumerate(images):
            _tile(tiles[row, column], image)
    for column, (title, maps) in enumerate(shown):
        probability = f", p = {example.probabilities[column]:.2f}" if example.probabilities else ""
        tiles[0, column + 2].set_title(title + probability)
        scaled = maps / max(float(np.abs(maps).max()), 1e-12)
        for row in range(2):
            _overlay(tiles[row, column + 2], example.frames[row], scaled[row])
    if example.outlined is not None:
        for axes, row in product(tiles.T, range(2)):
            axes[row].contour(example.outlined[row], [0.5], colors="black", linewidths=0.7)
    return tiles


def _overlay(axes: Axes, frame: UInt8[np.ndarray, "H W 3"], scaled: Float[np.ndarray, "H W"]) -> None:
    """A map over a grey frame. Stronger evidence is more opaque."""
    grey = frame.mean(-1, keepdims=True) / 255
    painted = heat(scaled) / 255
    opacity = 0.7 * painted[..., 3:]
    _tile(axes, (1 - opacity) * grey + opacity * painted[..., :3])


def _tile(axes: Axes, image: np.ndarray) -> None:
    """A picture without axes."""
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="0.7")


@dataclass(frozen=True)
class DrawnAction:
    """The drawings of one action: by TSN, and of the first and second snippet by TTN."""

    action: str
    drawings: UInt8[np.ndarray, "3 H W 3"]
    photographs: Sequence[UInt8[np.ndarray, "_ _ 3"] | None]
    """The nearest real frame of each drawing; None: no frame is near, and the tile is black."""
    motion: UInt8[np.ndarray, "2 C H W"] | None = None
    """The motion that TTN draws. It gets a row."""
    note: str = ""
    """A line under the block, such as the probabilities of the pair and of the swapped pair."""
    succeeded: bool = True
    """False: the network that drew the pair predicts another action for it. The title says so."""


@paper_style
def figure_1_7(actions: Sequence[DrawnAction]) -> Figure:
    """Figures 1 and 7: a block for each action, with the nearest real frames above the drawings."""
    columns = min(2, len(actions))
    rows = -(-len(actions) // columns)
    lines = 2 + any(drawn.motion is not None for drawn in actions)
    _, height, width, _ = actions[0].drawings.shape
    notes = 0.11 * max(drawn.note.count("\n") + 1 for drawn in actions)
    figure = Figure(figsize=(COLUMN * columns, rows * (lines * COLUMN / 3.15 * height / width + 0.4 + notes)))
    parts = figure.subfigures(rows, columns, squeeze=False).flat
    for part, drawn in zip(parts, actions, strict=False):
        _block(part.subplots(lines, 3), drawn)
        title = drawn.action if drawn.succeeded else f"{drawn.action}: this drawing did not succeed"
        part.suptitle(title, weight="bold", color="black" if drawn.succeeded else SERIES[1])
        part.supxlabel(drawn.note, size=6)
    return figure


@paper_style
def contact_sheet(pairs: Mapping[str, Sequence[tuple[UInt8[np.ndarray, "2 H W 3"], bool]]]) -> Figure:
    """A row of frame pairs for each name. A pair with the flag False has a red border."""
    _, height, width, _ = next(iter(pairs.values()))[0][0].shape
    columns = max(len(row) for row in pairs.values())
    figure = Figure(figsize=(PAGE, len(pairs) * (PAGE - 1.6) / columns / 2 * height / width * 1.04))
    for axes, (name, row) in zip(figure.subplots(len(pairs), columns, squeeze=False), pairs.items(), strict=True):
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", size=5)
        for tile, (frames, right) in zip(axes, row, strict=False):
            _tile(tile, np.concatenate(list(frames), 1))
            tile.spines[:].set(color="0.7" if right else "red", linewidth=0.5 if right else 2.0)
    return figure


def _block(tiles: np.ndarray, drawn: DrawnAction) -> None:
    for column, title in enumerate(["TSN", "TTN, first snippet", "TTN, second snippet"]):
        tiles[0, column].set_title(title)
        photograph = _middle(drawn.photographs[column], drawn.drawings[column].shape)
        _tile(tiles[0, column], np.zeros_like(drawn.drawings[column]) if photograph is None else photograph)
        if photograph is None:  # the tile is black as in the paper; the words say why
            where = {"ha": "center", "va": "center", "transform": tiles[0, column].transAxes}
            tiles[0, column].text(0.5, 0.5, "none is near", color="0.75", **where)
        _tile(tiles[1, column], drawn.drawings[column])
    for row, label in enumerate(["nearest frame", "drawing", "drawn motion"][: len(tiles)]):
        tiles[row, 0].set_ylabel(label)
    if len(tiles) > 2:
        blank = np.full_like(drawn.drawings[:2], 255)
        fields = blank if drawn.motion is None else flow_colours(drawn.motion)
        for axes, image in zip(tiles[2, 1:], fields, strict=True):
            _tile(axes, image)
        tiles[2, 0].set(xticks=[], yticks=[])
        tiles[2, 0].spines[:].set_visible(False)


def _middle(image: np.ndarray | None, like: tuple[int, ...]) -> np.ndarray | None:
    """The middle of a photograph, cropped to the aspect ratio of a drawing."""
    if image is None:
        return None
    height, width, _ = image.shape
    tall, wide = min(height, width * like[0] // like[1]), min(width, height * like[1] // like[0])
    top, left = (height - tall) // 2, (width - wide) // 2
    return image[top : top + tall, left : left + wide]


HEAD_NAMES = {"rgb": "spatial", "flow": "temporal", "mv": "temporal", "ttn": "IF-TTN"}


@paper_style
def localisation(table: pd.DataFrame) -> Figure:
    """Pointing game and energy of every head in every region, with intervals, beside a random map and a Gaussian.

    The values are divided by the region's share of the frame: a constant map has the value 1 (dotted line).

    Args:
        table: `ifttn.insight.localisation.localisation_table`.
    """
    heads, regions, methods = (list(table.index.unique(level)) for level in ("head", "region", "method"))
    figure = Figure(figsize=(PAGE, 3.2))
    panels = figure.subplots(2, len(regions), squeeze=False, sharex=True, sharey="row")
    for (row, measured), (column, region) in product(enumerate(("pointing", "energy")), enumerate(regions)):
        axes = panels[row, column]
        for number, method in enumerate(methods):
            rows = table.xs((region, method), level=("region", "method")).reindex(heads)
            places = np.arange(len(heads)) + (number - (len(methods) - 1) / 2) * 0.18
            names = [measured, f"{measured} low", f"{measured} high"]
            share, low, high = rows[names].div(rows["area"], axis=0).to_numpy().T
            style = {"fmt": "o", "ms": 3, "lw": 1, "color": SERIES[number % len(SERIES)], "label": method}
            axes.errorbar(places, share, yerr=np.maximum([share - low, high - share], 0), **style)
        axes.axhline(1, color="0.6", lw=0.6, ls=":")
        axes.set_xticks(range(len(heads)), [HEAD_NAMES.get(head, head) for head in heads])
        if row == 0:
            axes.set_title(region)
    panels[0, 0].set_ylabel("pointing game / area")
    panels[1, 0].set_ylabel("evidence / area")
    for row in panels:
        row[0].set_ylim(0, None)
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(methods), frameon=False
    )
    return figure


@paper_style
def order_gaps(gaps: Mapping[str, Float[np.ndarray, " _"]]) -> Figure:
    """The evidence for order: p(A,B) - p(B,A) of every pair as a dot, and the mean, on a line for each condition."""
    figure = Figure(figsize=(COLUMN + 1.2, 0.5 + 0.3 * len(gaps)))
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for line, values in enumerate(gaps.values()):
        axes.plot(
            values, line + rng.uniform(-0.2, 0.2, len(values)), ".", color=SERIES[line % len(SERIES)], ms=4, alpha=0.6
        )
        axes.plot([values.mean()] * 2, [line - 0.35, line + 0.35], color="black", lw=1.2)
        counted = f"{values.mean():+.2f}  (> 0: {(values > 0).sum()} of {len(values)})"
        axes.text(1.08, line, counted, va="center", size=6)
    axes.axvline(0, color="0.6", lw=0.6, ls=":")
    axes.set_yticks(range(len(gaps)), list(gaps))
    axes.set(xlim=(-1.05, 1.05), xlabel="p(A,B) - p(B,A)")
    axes.invert_yaxis()
    return figure


@paper_style
def training_curves(metrics: Mapping[str, pd.DataFrame]) -> Figure:
    """The loss over the epochs: a panel for each run, a colour for each stage.

    Args:
        metrics: name -> a row for each epoch in the order of training, with columns `stage` and `loss`.
    """
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(PAGE * columns / 3, 1.6 * rows))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for axes, (name, table) in zip(panels, metrics.items(), strict=False):
        numbered = table.assign(number=np.arange(1, len(table) + 1))
        for i, (stage, lines) in enumerate(numbered.groupby("stage", sort=False)):
            axes.plot(lines["number"], lines["loss"], ".-", color=SERIES[i % len(SERIES)], lw=1, ms=3, label=str(stage))
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.legend(frameon=False)
    panels[0].set_ylim(0, None)  # after all lines: the panels share the axis, and now it fits all
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("loss")
    return figure


@paper_style
def confusion_figure(scores: Float[np.ndarray, "N A"], labels: Int[np.ndarray, " N"], actions: Sequence[str]) -> Figure:
    """The confusion matrix: for each true action (row), the share of its videos with each prediction (column)."""
    count = len(actions)
    counts = confusion_counts(scores.argmax(1), labels, count)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(COLUMN + 1, COLUMN + 0.8) if count <= 24 else (PAGE, PAGE))
    axes = figure.subplots()
    picture = axes.imshow(100 * shares, cmap="cividis", vmin=0, vmax=100)
    size = 6 if count <= 24 else 3
    axes.set_xticks(range(count), actions, rotation=90, size=size)
    axes.set_yticks(range(count), actions, size=size)
    axes.set(xlabel="predicted", ylabel="true", title=f"top-1 {100 * np.trace(counts) / max(counts.sum(), 1):.1f} %")
    for row, column in np.argwhere(shares >= 0.005) if count <= 24 else ():
        share = shares[row, column]
        ink = "black" if share > 0.6 else "white"
        axes.text(column, row, f"{100 * share:.0f}", color=ink, size=5, ha="center", va="center")
    figure.colorbar(picture, ax=axes, shrink=0.7, label="% of the action's videos")
    return figure


@paper_style
def time_bars(seconds: Mapping[str, float]) -> Figure:
    """A bar for the time of each step, in order."""
    figure = Figure(figsize=(COLUMN, 0.35 + 0.17 * len(seconds)))
    axes = figure.subplots()
    bars = axes.barh(list(seconds), list(seconds.values()), color=SERIES[0], height=0.7)
    labels = [
        f"{length / 60:.1f} min" if length >= 120 else f"{length:.{1 if length >= 1 else 2}f} s"
        for length in seconds.values()
    ]
    axes.bar_label(bars, labels, padding=2, size=6)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("seconds")
    return figure
