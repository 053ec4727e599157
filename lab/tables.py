"""A table's rows (`ifttn.experiment.tables.to_frame`) for a notebook, for LaTeX and for a spreadsheet."""

import pandas as pd
from pandas.io.formats.style import Styler

from ifttn.experiment.evaluation import READINGS
from ifttn.experiment.tables import as_p

WORDS = ("method", "column", "videos", "splits", "measured on", "why")
PERCENT = ("paper", "measured", "low", "high", "top-5", "mean class", "1:1:1", "sd splits", "sd seeds", *READINGS)


def style(frame: pd.DataFrame) -> Styler:
    """For a notebook: the paper's numbers stand back, ours stand out, what was not measured is empty."""
    return (
        _formatted(frame.drop(columns=_bare(frame)))
        .set_caption(f"Table {frame.attrs['number']}. {frame.attrs['caption']}")
        .set_properties(subset=["paper"], opacity="0.65")
        .set_properties(subset=["measured"], **{"font-weight": "bold"})
        .set_table_styles([{"selector": "caption", "props": "text-align: left; caption-side: top; max-width: 60em"}])
    )


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
    """Columns about several splits, seeds, rows or orders, where there are none."""
    optional = ("sd splits", "sd seeds", "p", *READINGS)
    return [name for name in optional if frame[name].isna().to_numpy().all()]


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
