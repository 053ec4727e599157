"""A table as a DataFrame: of numbers for a spreadsheet, and of short texts for a terminal, a page or LaTeX."""

import textwrap

import pandas as pd

from ifttn.experiment.scores import READINGS
from ifttn.experiment.tables import Cell, Table, compare, heading

NOTHING = float("nan")
P_OF_ORDER = {reading: f"p {reading}" for reading in READINGS[1:]}
OPTIONAL = ("top-5", "sd splits", "sd seeds", "p", *READINGS, *P_OF_ORDER.values())
"""Columns that are left out where none of their cells has a number."""
WORDS_LEFT = ("method", "column", "paper on", "data set", "actions", "system", "action", "reverse")
"""Columns that stand to the left on a terminal."""
WORDS = ("method", "column", "paper on", "splits", "measured on", "why")
PERCENT = ("paper", "measured", "low", "high", "top-5", "mean class", "1:1:1", "sd splits", "sd seeds", *READINGS)


def to_frame(table: Table) -> pd.DataFrame:
    """One row for each cell. What was not measured is missing, never filled from the paper.

    Columns: method, column, paper (in the column's unit), paper on (its data set), measured, low, high (in % with its
    95 % interval, or a speed with its quartiles), top-5, mean class, 1:1:1 (all weights are 1), sd splits, sd seeds
    (all in %), p (McNemar's exact test against the last measured row of the column), READINGS (top-1 in %), p reversed,
    p shuffled (McNemar's exact test against the snippets in order: 1 where no video changes), a column for each factor
    (fractions 0..1), videos (in all splits), splits, seeds, short (stages that ended short of what is usual), measured
    on, why (the cell is empty). `frame.attrs` holds number, title, caption, notes and the names of the factors.
    """
    factors = dict.fromkeys(name for cell in table.cells if cell.accuracy for name in cell.accuracy.factors)
    last = {cell.column: cell for cell in table.cells if cell.accuracy}
    frame = pd.DataFrame([_row(cell, last.get(cell.column), [*factors], len(table.splits)) for cell in table.cells])
    frame = frame.astype({"videos": "Int64", "seeds": "Int64"})
    frame.attrs.update(number=table.number, title=table.title, caption=heading(table))
    frame.attrs.update(notes=table.notes, factors=[*factors])
    return frame


def _row(cell: Cell, last: Cell | None, factors: list[str], splits: int) -> dict[str, object]:
    accuracy, speed = cell.accuracy, cell.speed
    percent = accuracy.percent if accuracy else {}
    numbers = {name: percent.get(name, NOTHING) for name in PERCENT[1:]}
    if speed:
        numbers |= {"measured": speed.median, "low": speed.quartiles[0], "high": speed.quartiles[1]}
    readings = {name: numbers.pop(name) for name in READINGS}
    against_last = last is not None and cell.source != last.source
    return {
        "method": cell.method,
        "column": cell.column.label,
        "paper": NOTHING if cell.paper is None else cell.paper,
        "paper on": cell.column.dataset,
        **numbers,
        "p": _p(cell, "", last, "") if against_last else NOTHING,
        **readings,
        **{name: _p(cell, "one view", cell, reading) for reading, name in P_OF_ORDER.items()},
        **{name: accuracy.factors.get(name, NOTHING) if accuracy else NOTHING for name in factors},
        "videos": len(accuracy.right[""]) // accuracy.seeds if accuracy else None,
        "splits": f"{len(accuracy.splits)} of {splits}" if accuracy else "",
        "seeds": accuracy.seeds if accuracy else None,
        "short": "; ".join(accuracy.short) if accuracy else "",
        "measured on": accuracy.dataset if accuracy else speed.on if speed else "",
        "why": cell.why,
    }


def _p(cell: Cell, reading: str, other: Cell | None, other_reading: str) -> float:
    first, second = (each.accuracy.right if each and each.accuracy else {} for each in (cell, other))
    if reading not in first or other_reading not in second:
        return NOTHING
    pair = compare(first[reading], second[other_reading])
    return pair.p if pair else NOTHING


def shown(frame: pd.DataFrame, without: tuple[str, ...] = ()) -> pd.DataFrame:
    """A frame of `to_frame` as short texts: numbers are rounded, what is missing is empty.

    Left out are the columns `without`, those of OPTIONAL that are empty, those of one value in every row that the
    caption names, and seeds where there is one. "95 %" joins low and high.
    """
    fps = frame["column"].str.endswith("(fps)")
    text = pd.DataFrame(
        {name: [_short_text(str(name), *pair) for pair in zip(frame[name], fps, strict=True)] for name in frame}
    )
    text["measured"] += ["" if lines == "" else " !" for lines in text["short"]]
    text["95 %"] = (text["low"] + "-" + text["high"]).where(text["low"] != "", "")
    bare = [name for name in OPTIONAL if not any(text[name])]
    bare += [name for name in ("column", "paper on") if len(set(text[name])) == 1]
    bare += ["short"] + ["seeds"] * (set(text["seeds"]) <= {"", "1"})
    return text.drop(columns=[*bare, *without], errors="ignore")


def _short_text(name: str, value: object, fps: bool) -> str:
    if isinstance(value, str):
        return value
    if value is None or value is pd.NA or value != value:
        return ""
    if name == "p" or name in P_OF_ORDER.values():
        return p_text(float(str(value)))
    if fps:
        return f"{value:.0f}" if name == "paper" else f"{value:.3g}"
    return f"{value}" if name in ("videos", "seeds") else f"{value:.{1 if name in PERCENT else 2}f}"


def p_text(value: float) -> str:
    """A probability with the digits that it deserves: 0.31, 0.004, <0.001; empty where there is none."""
    if value != value:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def reasons(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Why cells are empty -> which: methods, with the column's name where only a part of the row is empty for it."""
    found: dict[str, list[str]] = {}
    for method, row in frame.groupby("method", sort=False):
        for why, cells in row[row["why"] != ""].groupby("why", sort=False):
            whole = len(cells) == len(row)
            found.setdefault(str(why), []).extend(
                [str(method)] if whole else [f"{method}: {name}" for name in cells["column"]]
            )
    return found


def ended_short(frame: pd.DataFrame) -> list[str]:
    """A line for each stage that ended short of what is usual; its cells are marked with "!"."""
    return list(dict.fromkeys(line for lines in frame["short"] if lines for line in str(lines).split("; ")))


def table_text(table: Table) -> str:
    """The table for a terminal: aligned, with the read-outs of order, the notes, and why cells are empty."""
    frame = to_frame(table)
    theirs = frame["paper on"].unique()
    text = shown(frame, ("95 %", "measured on", "why"))
    if len(theirs) == 1:
        text = text.rename(columns={"paper": f"paper ({theirs[0]})"})
    order = [name for name in (*READINGS, *P_OF_ORDER.values()) if name in text]
    lines = aligned(text.drop(columns=order))
    width = max(map(len, lines))
    rule = "-" * width
    below: list[str] = []
    if order:
        names = [name for name in ("method", "column") if name in text]
        below = ["Order of the snippets, centre view: in order, reversed, shuffled"]
        below += [*aligned(text.loc[text[order[0]] != "", [*names, *order]]), rule]
    remarks = ["p: McNemar's exact test against the last measured row"] if "p" in text else []
    remarks += [f"* {note}" for note in table.notes]
    remarks += [f"! {line}" for line in ended_short(frame)]
    remarks += [f"empty: {why}: {'; '.join(methods)}" for why, methods in reasons(frame).items()]
    folded = [textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False) for line in remarks]
    title = textwrap.fill(f"Table {table.number}. {heading(table)}", width, break_on_hyphens=False)
    return "\n".join([title, rule, lines[0], rule, *lines[1:], rule, *below, *folded])


def aligned(text: pd.DataFrame) -> list[str]:
    """The lines with their head first; words stand to the left, numbers to the right."""
    words = [name for name in WORDS_LEFT if name in text]
    widths = {name: max(len(name), *map(len, text[name])) for name in text}
    left = text.assign(**{name: text[name].str.ljust(widths[name]) for name in words})
    left.columns = [name.ljust(widths[name]) if name in words else name for name in left]
    apart = [width + (name not in words[:1]) for name, width in widths.items()]
    return [line.rstrip() for line in left.to_string(index=False, col_space=apart).splitlines()]
