"""A table in short texts, for a terminal, a page or LaTeX. This module needs no pandas."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import compress
from numbers import Real
from typing import Any

from ifttn.experiment.scores import READINGS
from ifttn.experiment.significance import compare
from ifttn.experiment.tables import Cell, Table, splits_in_words

Columns = Mapping[Any, Sequence[Any]]
"""Name -> a value for each cell of a table."""
NOTHING = float("nan")
P_OF_ORDER = {reading: f"p {reading}" for reading in READINGS[1:]}
OPTIONAL = ("top-5", "sd splits", "sd seeds", "p", *READINGS, *P_OF_ORDER.values())
"""Columns that are left out if none of their cells has a number."""
WORDS_LEFT = ("method", "column", "paper on", "data set", "actions", "system", "action", "reverse")
"""Columns that are aligned to the left on a terminal."""
ONE_SPLIT = ("Something-Something V2",)
PERCENT = ("paper", "measured", "low", "high", "top-5", "mean class", "1:1:1", "sd splits", "sd seeds", *READINGS)


def columns_of(table: Table) -> dict[str, list[Any]]:
    """The columns of `table_frames.to_frame`. A missing value is NaN, None or ""."""
    last = {cell.column: cell for cell in table.cells if cell.accuracy}
    factors = factors_of(table)
    rows = [_row(cell, last.get(cell.column), factors, len(table.splits)) for cell in table.cells]
    return {name: [row[name] for row in rows] for name in rows[0]}


def factors_of(table: Table) -> list[str]:
    """The factors that the measured data sets of a table have."""
    return [*dict.fromkeys(name for cell in table.cells if cell.accuracy for name in cell.accuracy.factors)]


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
        "videos": accuracy.videos if accuracy else None,
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


def shown(columns: Columns, without: Sequence[str] = ()) -> dict[str, list[str]]:
    """The columns as short texts. Numbers are rounded, and missing values are empty. "95 %" joins low and high.

    The result does not have empty columns of OPTIONAL, columns with one value that the caption names, and the column
    seeds if there is only one seed.

    Args:
        columns: the result of `columns_of`.
        without: additional columns to leave out.
    """
    fps = [label.endswith("(fps)") for label in columns["column"]]
    text = {
        name: [_short_text(name, *pair) for pair in zip(columns[name], fps, strict=True)] for name in map(str, columns)
    }
    text["measured"] = [
        f"{value} !" if short else value for value, short in zip(text["measured"], text["short"], strict=True)
    ]
    text["95 %"] = [f"{low}-{high}" if low else "" for low, high in zip(text["low"], text["high"], strict=True)]
    bare = [name for name in OPTIONAL if not any(text[name])]
    bare += [name for name in ("column", "paper on") if len(set(text[name])) == 1]
    bare += ["short"] + ["seeds"] * (set(text["seeds"]) <= {"", "1"})
    return {name: texts for name, texts in text.items() if name not in (*bare, *without)}


def _short_text(name: str, value: object, fps: bool) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, Real) or value != value:  # what is missing is None, NaN or pandas' NA
        return ""
    if name == "p" or name in P_OF_ORDER.values():
        return p_text(float(value))
    if fps:
        return f"{value:.0f}" if name == "paper" else f"{value:.3g}"
    return f"{value}" if name in ("videos", "seeds") else f"{value:.{1 if name in PERCENT else 2}f}"


def p_text(value: float) -> str:
    """A probability with two or three digits: 0.31, 0.004, <0.001; empty for NaN."""
    if value != value:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def reasons(columns: Columns) -> dict[str, list[str]]:
    """Reason -> the empty cells: columns, methods, or both names if only a part of the row is empty for this reason."""
    cells = [*zip(columns["method"], columns["column"], columns["why"], strict=True)]
    found: dict[str, list[str]] = {}
    for column in dict.fromkeys(columns["column"]):
        why, *others = [each for _, name, each in cells if name == column]
        if why and others and set(others) == {why}:
            found[why] = [*found.get(why, []), column]
            cells = [cell for cell in cells if cell[1] != column]
    for method in dict.fromkeys(columns["method"]):
        row = [(name, why) for each, name, why in cells if each == method]
        for why in dict.fromkeys(why for _, why in row if why):
            names = [name for name, each in row if each == why]
            whole = len(names) == len(row)
            found.setdefault(why, []).extend([method] if whole else [f"{method}: {name}" for name in names])
    return found


def ended_short(columns: Columns) -> list[str]:
    """A line for each stage that ended below the usual accuracy. Its cells are marked with "!"."""
    return list(dict.fromkeys(line for lines in columns["short"] if lines for line in lines.split("; ")))


def table_text(table: Table) -> str:
    """The table for a terminal: aligned, with the read-outs of order, the notes, and the reasons for empty cells."""
    columns = columns_of(table)
    theirs = set(columns["paper on"])
    text = shown(columns, ("95 %", "measured on", "why"))
    if len(theirs) == 1:
        text = {f"paper ({theirs.pop()})" if name == "paper" else name: texts for name, texts in text.items()}
    order = [name for name in (*READINGS, *P_OF_ORDER.values()) if name in text]
    lines = aligned({name: texts for name, texts in text.items() if name not in order})
    width = max(map(len, lines))
    rule = "-" * width
    below: list[str] = []
    if order:
        read = [bool(share) for share in text[order[0]]]
        names = [name for name in ("method", "column") if name in text]
        below = ["Order of the snippets, centre view: in order, reversed, shuffled"]
        below += [*aligned({name: [*compress(text[name], read)] for name in (*names, *order)}), rule]
    remarks = ["p: McNemar's exact test against the last measured row"] if "p" in text else []
    remarks += [f"* {note}" for note in table.notes]
    remarks += [f"! {line}" for line in ended_short(columns)]
    remarks += [f"empty: {why}: {'; '.join(methods)}" for why, methods in reasons(columns).items()]
    folded = [textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False) for line in remarks]
    title = textwrap.fill(f"Table {table.number}. {heading(table)}", width, break_on_hyphens=False)
    return "\n".join([title, rule, lines[0], rule, *lines[1:], rule, *below, *folded])


def aligned(text: Columns) -> list[str]:
    """The lines, with the headings first. Words are aligned to the left, numbers to the right."""
    columns = []
    for name, texts in text.items():
        width = max(len(name), *map(len, texts))
        columns.append([f"{each:{'<' if name in WORDS_LEFT else '>'}{width}}" for each in (name, *texts)])
    return ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]


def heading(table: Table) -> str:
    """The paper's caption, its data sets, and the source of our numbers."""
    names = dict.fromkeys(column.dataset for column in table.columns)
    theirs = f"{' and '.join(name for name in names if name not in ONE_SPLIT)}, {splits_in_words(table.splits)}"
    theirs = "; ".join([theirs, *(name for name in names if name in ONE_SPLIT)])
    ours = dict.fromkeys(_stands(cell.accuracy.dataset, cell.column.dataset) for cell in table.cells if cell.accuracy)
    on = dict.fromkeys(f"speed on {cell.speed.on}" for cell in table.cells if cell.speed)
    found = f"Measured: {', '.join([*ours, *on])}." if ours or on else "None of the runs that it needs is tested yet."
    return f"{table.caption} Paper: {theirs}. {found}"


def _stands(ours: str, theirs: str) -> str:
    same = ours.casefold().replace("-", "") == theirs.casefold().replace("-", "")
    return ours if same else f"{ours} in place of {theirs}"
