"""A table's rows (`ifttn.experiment.tables.to_frame`) for a notebook, for LaTeX and for a spreadsheet."""

from html import escape

import pandas as pd
from pandas.io.formats.style import Styler

from ifttn.data import diagnostic
from ifttn.experiment.scores import READINGS
from ifttn.experiment.tables import as_p
from lab.sketches import prose

WORDS = ("method", "column", "paper on", "95 %", "videos", "splits", "measured on", "why")
PERCENT = ("paper", "measured", "low", "high", "top-5", "mean class", "1:1:1", "sd splits", "sd seeds", *READINGS)


LEAST = ("method", "column", "paper", "paper on", "measured", "95 %", "p", "reversed")
"""Columns of a notebook, whose page is narrow, beside the factors."""


def style(frame: pd.DataFrame) -> Styler:
    """For a notebook: the paper's numbers stand back, ours stand out, what was not measured is empty.

    Only the columns that tell rows apart; `to_csv` has all. Why cells are empty is said once, above.
    """
    known = frame["low"].notna().to_list()
    span = [f"{a:.1f}-{b:.1f}" if k else "" for k, a, b in zip(known, frame["low"], frame["high"], strict=True)]
    bare = {*_bare(frame), *(["column"] if len(set(frame["column"])) == 1 else [])}
    shown = [name for name in LEAST if name not in bare] + [name for name in diagnostic.FACTORS if name in frame]
    left = pd.DataFrame(frame.assign(**{"95 %": span})[shown])
    words = [name for name in LEAST[:2] if name in shown]
    left["method"] = ["" if a == b else a for a, b in zip(left["method"], ["", *left["method"]], strict=False)]
    lines = {"text-align": "left", "white-space": "nowrap"}
    said = [prose(f"Table {frame.attrs['number']}. {frame.attrs['caption']}")]
    said += [f"<br><small>Empty, {prose(why)}: {escape(', '.join(of))}.</small>" for why, of in _empty(frame).items()]
    return (
        _formatted(left)
        .set_caption("".join(said))
        .set_properties(subset=["paper"], opacity="0.65")
        .set_properties(subset=["measured"], **{"font-weight": "bold"})
        .set_properties(subset=words, **lines)
        .set_table_styles(
            [
                {
                    "selector": "caption",
                    "props": "text-align: left; caption-side: top; max-width: 60em; color: inherit",
                },
                {"selector": "", "props": "margin-bottom: 1.2em"},
                {"selector": "td, th", "props": "padding: .2em .7em"},
                *({"selector": f".col_heading.col{i}", "props": "text-align: left"} for i in range(len(words))),
            ]
        )
    )


def _empty(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Why cells are empty -> of which methods."""
    found: dict[str, list[str]] = {}
    for why, method in zip(frame["why"], frame["method"], strict=True):
        if why and method not in found.setdefault(why, []):
            found[why].append(method)
    return found


def to_latex(frame: pd.DataFrame) -> str:
    """For a paper: a `table` environment in booktabs style (`\\usepackage{booktabs}`)."""
    escaped = _formatted(frame.drop(columns=["splits", "measured on", "why", *_bare(frame)]), escape="latex")
    return escaped.to_latex(
        hrules=True,
        position_float="centering",
        column_format="".join("l" if name in WORDS[:2] else "r" for name in escaped.columns),
        caption=_escaped(frame.attrs["caption"]),
        label=f"tab:{frame.attrs['number']}",
    )


def to_csv(frame: pd.DataFrame) -> str:
    """For a spreadsheet: every digit, empty where nothing was measured."""
    return frame.to_csv(index=False)


def _bare(frame: pd.DataFrame) -> list[str]:
    """Columns about several splits, seeds, rows, orders, or data sets of the paper, where there are none."""
    optional = ("top-5", "sd splits", "sd seeds", "p", *READINGS)
    empty = [name for name in optional if frame[name].isna().to_numpy().all()]
    return empty + (["paper on"] if len(set(frame["paper on"])) == 1 else [])


def _formatted(frame: pd.DataFrame, escape: str | None = None) -> Styler:
    less = "$<$" if escape == "latex" else "&lt;"
    digits = {name: 1 if name in PERCENT else 2 for name in frame.columns if name not in WORDS}
    numbers = {name: f"{{:.{count}f}}" for name, count in digits.items()} | {"p": lambda p: as_p(p).replace("<", less)}
    numbers = {name: show for name, show in numbers.items() if name in frame}
    styler = frame.style
    styler.format(numbers, na_rep="", escape=escape)
    styler.format_index(escape=escape, axis=1)
    return styler.hide(axis="index")


def _escaped(text: str) -> str:
    for mark in "&%_#":
        text = text.replace(mark, f"\\{mark}")
    return text
