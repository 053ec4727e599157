"""Small drawings in HTML and SVG with texts for screen readers: time line, curves, confusion matrix, intervals.

Shapes: K snippets, A actions, N videos.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

import markupsafe
import numpy as np
from jaxtyping import Int
from markupsafe import Markup
from matplotlib import colormaps

from ifttn.experiment.scores import confusion_counts
from lab.figures import SERIES

HEAD_COLOURS = {
    **dict.fromkeys(("rgb", "ttn-rgb"), SERIES[0]),
    **dict.fromkeys(("flow", "mv", "ttn-flow"), SERIES[1]),
    "ttn": SERIES[2],
    "late fusion": SERIES[3],
}
DASHES = ("", "4,3", "1,3", "9,3,2,3")
"""The dashes of lines with the same colour (SVG's `stroke-dasharray`)."""
KIND_COLOURS = {"I": "#d55e00", "P": "#56b4e9", "B": "#bbb"}
WHEEL = "<span><i class=wheel></i>motion: hue is direction, saturation is speed</span>"
"""Legend of motion."""


def prose(text: str) -> Markup:
    """Escape a sentence for a page, and show the text between backticks as code."""
    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", str(markupsafe.escape(text))))


def breakable(name: str) -> str:
    """A name that may break into lines between its words (`words` in elements.js does the same)."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=_)", "<wbr>", escape(name))


def timeline(count: int, sampled: Sequence[int], kinds: str, cuts: Sequence[int], fps: float) -> str:
    """A time line of a video of `count` frames: K segments, the frames of their snippets, cuts and frame types.

    The page moves the cursor by the CSS variable --at (0..1), without a message to the kernel.
    """
    last = max(1, count - 1)
    middles = [(a + b) / 2 for a, b in pairwise(sampled)]
    edges = [0.0, *middles, float(last)] if len(sampled) else []
    spans = "".join(
        f"<div style='left:{100 * a / last:.2f}%;width:{100 * (b - a) / last:.2f}%'>{k}</div>"
        for k, (a, b) in enumerate(pairwise(edges), 1)
    )
    marks = "".join(
        f"<u style='left:{100 * t / last:.2f}%' title='snippet {k}: frame {t + 1}, {t / fps:.2f} s'></u>"
        for k, t in enumerate(sampled, 1)
    )
    shots = "".join(f"<s style='left:{100 * t / last:.2f}%' title='cut before frame {t + 1}'></s>" for t in cuts)
    strokes = "".join(f"<path d='{_strokes(kinds, kind)}' stroke='{KIND_COLOURS[kind]}'/>" for kind in KIND_COLOURS)
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in KIND_COLOURS if kind in kinds)
    legend = " ".join(f"<i style='background:{KIND_COLOURS[k]}'></i>{k}" for k in KIND_COLOURS if k in kinds)
    return (
        f"<div class=timeline role=img aria-label='{len(sampled)} segments; snippets at frames "
        f"{', '.join(str(t + 1) for t in sampled)}; {len(cuts)} cuts; frame types: {counts}'>"
        f"<div class=spans>{spans}{marks}</div>"
        f"<svg viewBox='-.5 0 {count} 8' preserveAspectRatio=none>{strokes}</svg>{shots}<em></em></div>"
        f"<div class=legend><span><u></u> sampled snippet</span><span><s></s> cut, estimated</span>"
        f"<span>frame types: {legend}</span></div>"
    )


def _strokes(kinds: str, kind: str) -> str:
    top = 0 if kind == "I" else 3
    return "".join(f"M{i} {top}V8" for i, each in enumerate(kinds) if each == kind)


class Curve(NamedTuple):
    """A line of a chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dashed: int = 0
    """Index into DASHES."""
    faint: bool = False
    """Drawn behind the other lines and left out of the legend."""


def chart(
    curves: Sequence[Curve],
    title: str,
    *,
    width: int = 440,
    height: int = 190,
    top: float | None = None,
    marks: Sequence[tuple[float, str]] = (),
    log: bool = False,
) -> str:
    """A line chart with a legend, which has the last value of each curve.

    Args:
        curves: lines; each ends with a dot.
        title: names both axes, such as "loss over epochs".
        width: of the picture (px).
        height: of the picture (px).
        top: the upper end of the vertical axis; None: the largest value. Without `log` the lower end is 0 or less.
        marks: positions on the horizontal axis, with their names.
        log: the vertical axis is logarithmic, and values of 0 or less are left out.
    """
    curves = [_above_zero(curve) for curve in curves] if log else curves
    points = [(x, y) for curve in curves for x, y in zip(curve.x, curve.y, strict=True)]
    if not points:
        return f"<div class=empty>{escape(title)}: nothing yet</div>"
    bottom, right, upper = 20, 8, 34 if marks else 22
    x_low, x_high = min(x for x, _ in points), max(max(x for x, _ in points), min(x for x, _ in points) + 1)
    low, high, levels = _axis([float(y) for _, y in points], top, log)
    left = max(34, 10 + 6 * max(len(f"{value:g}") for value in levels))

    def place(x: float | int, y: float | int) -> str:
        across = left + (width - left - right) * (x - x_low) / (x_high - x_low)
        share = np.log(high / y) / np.log(high / low) if log else (high - y) / (high - low)
        return f"{across:.1f},{upper + (height - upper - bottom) * share:.1f}"

    grid = "".join(_grid_line(value, place(x_low, value), width - right) for value in levels)
    lines = "".join(
        f"<polyline points='{' '.join(place(x, y) for x, y in zip(c.x, c.y, strict=True))}' fill=none "
        f"{_stroke(c)} opacity={0.3 if c.faint else 1} />"
        for c in sorted(curves, key=lambda curve: not curve.faint)
    )
    named = [c for c in curves if len(c.y) and not c.faint]
    legend = "".join(f"<span>{sample(c)} {escape(c.name)} <b>{_three_digits(c.y[-1])}</b></span>" for c in named)
    dots = "".join(
        f"<circle cx={place(c.x[-1], c.y[-1]).replace(',', ' cy=')} r=2.4 fill='{c.colour}'/>" for c in named
    )
    shown = "".join(
        f"<line x1={x} x2={x} y1={upper} y2={height - bottom} class=mark />"
        f"<text x={x} y={upper - 4} text-anchor={'end' if x > 0.9 * width else 'start'}>{name}</text>"
        for x, name in ((float(place(at, high).split(",")[0]), escape(name)) for at, name in marks)
    )
    ends = (
        f"<text x={left} y={height - 5}>{x_low:g}</text>"
        f"<text x={width - right} y={height - 5} text-anchor=end>{x_high:g}</text>"
    )
    return (
        f"<figure class=chart><svg viewBox='0 0 {width} {height}' role=img aria-label='{escape(title)}'>"
        f"<text x=4 y=13 class=title>{escape(title)}</text>{grid}{shown}{lines}{dots}{ends}</svg>"
        f"<figcaption class=legend>{legend}</figcaption></figure>"
    )


def _above_zero(curve: Curve) -> Curve:
    points = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if y > 0]
    return curve._replace(x=[x for x, _ in points], y=[y for _, y in points])


def _stroke(curve: Curve) -> str:
    # without the quotes, the end of the tag would be a part of the value
    return f"stroke='{curve.colour}' stroke-width=1.6 stroke-dasharray='{DASHES[curve.dashed] or 'none'}'"


def sample(curve: Curve) -> str:
    """A short piece of a curve for a legend."""
    return f"<svg class=sample viewBox='0 0 24 4'><line x1=0 x2=24 y1=2 y2=2 {_stroke(curve)} /></svg>"


def _axis(values: Sequence[float], top: float | None, log: bool) -> tuple[float, float, list[float]]:
    """The lowest and highest value of a vertical axis, and the values with a grid line."""
    if log:
        exponents = range(int(np.floor(np.log10(min(values)))), int(np.log10(max(values))) + 2)
        steps = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 5)]
        low = max(step for step in steps if step <= min(values))
        high = next(step for step in steps if step >= max(values) and step > low)
        return low, high, [step for step in steps if low <= step <= high]
    low, high = min(0.0, *values), top or max(0.0, *values)
    high = high if high > low else low + 1
    return low, high, _round_values(low, high)


def _three_digits(value: float) -> str:
    return "0.00" if abs(value) < 5e-4 else f"{value:#.3g}".rstrip(".")


def _grid_line(value: float, at: str, end: int) -> str:
    x, y = at.split(",")
    return (
        f"<line x1={x} x2={end} y1={y} y2={y} class=grid />"
        f"<text x={float(x) - 4} y={float(y) + 3} text-anchor=end>{value:g}</text>"
    )


def _round_values(low: float, high: float) -> list[float]:
    """Three to six round numbers."""
    rough = (high - low) / 4
    power = 10 ** np.floor(np.log10(rough))
    step = float(power * min((1, 2, 2.5, 5, 10), key=lambda m: abs(m * power - rough)))
    return [round(i * step, 10) for i in range(int(np.ceil(low / step - 1e-9)), int(high / step + 1e-9) + 1)]


def confusion_svg(predicted: Int[np.ndarray, " N"], labels: Int[np.ndarray, " N"], actions: Sequence[str]) -> str:
    """A confusion matrix: for each true action (row), the share of its videos with each prediction (column).

    The title of a cell has its counts. Its `data-pick` is "<row> <column>" (`Pickable`).
    """
    count = len(actions)
    counts = confusion_counts(predicted, labels, count)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(3, min(17, 400 // count))
    colours = colormaps["cividis"]
    cells = []
    for row, column in np.argwhere(counts):
        red, green, blue, _ = colours(float(shares[row, column]), bytes=True)
        title = f"{actions[row]} predicted as {actions[column]}: {counts[row, column]} of {counts[row].sum()}"
        cells.append(
            f"<rect x={column * side} y={row * side} width={side} height={side} fill='rgb({red},{green},{blue})' "
            f"data-pick='{row} {column}'><title>{escape(title)}</title></rect>"
        )
        if side >= 16:
            ink = "#000" if shares[row, column] > 0.55 else "#fff"
            cells.append(
                f"<text x={(column + 0.5) * side} y={(row + 0.5) * side + 3} fill='{ink}' text-anchor=middle "
                f"pointer-events=none>{100 * shares[row, column]:.0f}</text>"
            )
    total = count * side
    red, green, blue, _ = colours(0.0, bytes=True)
    legend = ""
    if side >= 10:
        legend = "".join(
            f"<text x={total + 6} y={(i + 0.5) * side + 3}>{i + 1} {escape(name)}</text>"
            f"<text x={(i + 0.5) * side} y={total + 12} text-anchor=middle>{i + 1}</text>"
            for i, name in enumerate(actions)
        )
    legend += f"<text x=0 y={total + 26}>rows: true, columns: predicted, numbers: % of the row's videos</text>"
    width = total + 215 * (side >= 10)
    return (
        f"<svg class=confusion viewBox='0 0 {width} {total + 30}' style='max-width:{width}px' role=img "
        f"aria-label='confusion matrix of {count} actions; rows are true, columns predicted'>"
        f"<rect width={total} height={total} fill='rgb({red},{green},{blue})'/>{''.join(cells)}{legend}</svg>"
    )


def interval(share: float, low: float, high: float, paper: float | None = None) -> str:
    """A share with its interval on a line from 0 to 1. A hollow mark is the paper's share."""
    theirs = "" if paper is None else f"<circle cx={100 * paper:.1f} cy=5 r=2.6 class=paper />"
    return (
        f"<svg class=interval viewBox='-3 0 106 10' role=img aria-label='{low:.3f} to {high:.3f}'>"
        f"<line x1=0 x2=100 y1=5 y2=5 class=grid />"
        f"<line x1={100 * low:.1f} x2={100 * high:.1f} y1=5 y2=5 class=range />"
        f"<circle cx={100 * share:.1f} cy=5 r=2.6 class=ours />{theirs}</svg>"
    )


def definitions(pairs: Mapping[str, object]) -> str:
    """A list of names and values."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in pairs.items()) + "</dl>"
