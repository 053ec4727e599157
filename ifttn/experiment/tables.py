"""Tables 1-6 of the paper as data, and what our runs measure beside each of its numbers.

Nothing here trains or opens a network: a cell is arithmetic on saved scores. Shapes: N videos, A actions.
"""

import textwrap
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from ifttn.experiment.networks import network_settings
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.recipes import RECIPES, find
from ifttn.experiment.scores import (
    READINGS,
    Scores,
    factor_accuracy,
    fuse_runs,
    mean_class_accuracy,
    top1,
    top_k,
)
from ifttn.experiment.significance import Paired, design_effect, mcnemar, wilson
from ifttn.model.peers.table5 import PEERS
from ifttn.model.peers.trained import build_network
from ifttn.vocabulary import IfttnError

TABLES = Path(__file__).with_name("tables.toml")

LateFusion = Mapping[str, Mapping[str, float]]
"""Recipe -> head -> weight."""
ScoresOf = Callable[[str, int, str], Scores | None]
"""(data set, split, recipe) -> the scores of that run, or None where it has not been tested."""
Factors = Mapping[str, Int[np.ndarray, " A"]]
"""Factor -> its value for each action of a data set."""


@dataclass(frozen=True)
class Measurement:
    """What the runs of one late fusion reach. Accuracies are fractions 0..1, means over splits."""

    dataset: str
    """Ours, which is seldom the paper's."""
    splits: tuple[int, ...]
    """Those measured; means are over these."""
    videos: int
    """Test videos of these splits together; one that several splits test counts in each."""
    top1: float
    top5: float | None
    """None: no more than five actions, of which five are always right."""
    mean_class: float
    interval: tuple[float, float]
    """Wilson's 95 % interval over all these answers, wider by the design effect where splits share test videos."""
    equal_weights: float | None
    """Top-1 where every head weighs 1; None: there is one head only."""
    spread_splits: float | None
    """Standard deviation of top-1 over splits; None: of one split there is none."""
    spread_seeds: float | None
    """Standard deviation over seeds of the mean over the splits that every seed has; None: there is one seed."""
    factors: Mapping[str, float]
    """Accuracy of each factor; empty where the data set has none."""
    right: Mapping[str, pd.Series] = field(compare=False, repr=False)
    """Of all views ("") and of each of READINGS that was scored: by split and video, whether it is right."""

    @property
    def readings(self) -> dict[str, float]:
        """Top-1 of each of READINGS that was scored."""
        found = {}
        for name, rows in self.right.items():
            splits = rows.index.get_level_values("split")
            found[name] = float(np.mean([rows.to_numpy()[splits == split].mean() for split in self.splits]))
        return {name: value for name, value in found.items() if name}


@dataclass(frozen=True)
class Column:
    """A column of numbers in the paper."""

    name: str
    unit: str = "%"
    dataset: str = "UCF-101"
    """The paper's."""
    why: str = ""
    """Why its cells are empty, where nothing that we run measures any."""
    ours: str = ""
    """Our data set that stands in it; "" where none does."""

    @property
    def label(self) -> str:
        """Its heading: where the paper's is the name of a data set, ours is that of the data set that stands there."""
        return f"{self.ours if self.ours and self.name == self.dataset else self.name} ({self.unit})"


@dataclass(frozen=True)
class Speed:
    """Snippets a second through a network, measured beside the others of its table in one run."""

    rate: float
    """Median."""
    quartiles: tuple[float, float]
    on: str
    """Device, precision and size."""


def speeds(path: Path) -> dict[str, Speed]:
    """Row of `ifttn bench speed --csv` -> its speed; none where there is no such file.

    Raises:
        IfttnError: the file is another one.
    """
    if not path.exists():
        return {}
    timed = pd.read_csv(path)
    if not {"row", "definition", "seconds", "count", "device", "precision", "size"} <= {*timed.columns}:
        raise IfttnError(f"{path} is not what `ifttn bench speed --csv` writes: remove it, or measure again")
    found = {}
    for row, each in timed[timed.definition == "snippets"].groupby("row"):
        low, median, high = (each["count"] / each.seconds).quantile([0.25, 0.5, 0.75])
        of = each.iloc[0]
        found[str(row)] = Speed(median, (low, high), f"{of.device}, {of.precision}, {of['size']} size")
    return found


@dataclass(frozen=True)
class Cell:
    """One number of the paper, and ours beside it."""

    method: str
    column: Column
    paper: float | None
    """None: the paper has none either."""
    source: str
    """Name of the late fusion, or of the row of `ifttn bench speed`, that measures it; "" where none does."""
    measured: Measurement | None = None
    speed: Speed | None = None
    """In the place of `measured`, where the column is one of speeds."""
    why: str = ""
    """Why nothing is measured; "" where something is."""


@dataclass(frozen=True)
class Table:
    """One table of the paper; `measure` fills it."""

    number: int
    title: str
    caption: str
    splits: tuple[int, ...]
    columns: tuple[Column, ...]
    cells: tuple[Cell, ...]
    """Row by row."""
    notes: tuple[str, ...] = ()
    late_fusions: Mapping[str, LateFusion] = field(default_factory=dict)

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        """The cells of each method."""
        width = len(self.columns)
        return [self.cells[i : i + width] for i in range(0, len(self.cells), width)]

    @property
    def factors(self) -> tuple[str, ...]:
        """Factors of the data sets that it was measured on."""
        return tuple(dict.fromkeys(f for cell in self.cells if cell.measured for f in cell.measured.factors))


def load(path: Path = TABLES) -> dict[int, Table]:
    """The tables of a file laid out as `tables.toml`, by number.

    Raises:
        IfttnError: a late fusion names a recipe or a head that does not exist, a row a late fusion that does not,
            a row does not fill the columns, or nothing says why a cell stays empty.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    late_fusions: dict[str, LateFusion] = content["late_fusions"]
    for name, parts in late_fusions.items():
        for recipe, heads in parts.items():
            known = _heads(recipe)
            for head in heads:
                find(head, known, f"head of recipe {recipe!r} in late fusion {name!r} of {path.name}:")
    return {row["number"]: _table(row, late_fusions, content["reasons"]) for row in content["tables"]}


@cache
def _heads(recipe: str) -> Mapping[str, object]:
    settings = network_settings(find(recipe, RECIPES, "recipe"), PRESETS["smallest"], actions=1)
    with torch.device("meta"):
        network = build_network(settings)
    return dict.fromkeys(network.scoring)


def _table(row: dict[str, Any], late_fusions: Mapping[str, LateFusion], reasons: Mapping[str, str]) -> Table:
    columns = tuple(Column(**column) for column in row["columns"])
    cells: list[Cell] = []
    for line in row["rows"]:
        if not len(line["paper"]) == len(line["measured"]) == len(columns):
            raise IfttnError(
                f"Table {row['number']}, row {line['method']!r}: one entry for each of {len(columns)} columns"
            )
        for column, paper, source in zip(columns, line["paper"], line["measured"], strict=True):
            if column.unit == "fps":
                find(source, PEERS, f"peer of row {line['method']!r} in Table {row['number']}:")
                why = find(column.why, reasons, f"reason why column {column.name!r} is empty:")
            elif source:
                find(source, late_fusions, f"late fusion of row {line['method']!r} in Table {row['number']}:")
                why = "not measured yet"
            else:
                reason = column.why or line.get("why", "")
                why = find(reason, reasons, f"reason why row {line['method']!r} in Table {row['number']} is empty:")
            cells.append(Cell(line["method"], column, None if paper == "-" else float(paper), source, why=why))
    return Table(
        number=row["number"],
        title=row["title"],
        caption=row["caption"],
        splits=tuple(row["splits"]),
        columns=columns,
        cells=tuple(cells),
        notes=tuple(row["notes"]),
        late_fusions=late_fusions,
    )


def stand_ins(theirs: Sequence[str], ours: Sequence[str]) -> dict[str, str]:
    """The paper's data sets of one table -> ours that stand in their columns.

    The first of ours stands in a table of one data set. In a table of several, a data set that is named like one of the
    paper's (hmdb51 or my-hmdb like HMDB-51) stands there; the others fill what is left, in their order.
    """
    if len(theirs) == 1:
        return dict(zip(theirs, ours[:1], strict=False))
    like = {
        each: name for each in theirs for name in reversed(ours) if each.partition("-")[0].casefold() in name.casefold()
    }
    rest = [name for name in ours if name not in like.values()]
    return like | dict(zip([each for each in theirs if each not in like], rest, strict=False))


def measure(
    table: Table,
    scores: ScoresOf,
    ours: Sequence[str],
    factors: Mapping[str, Factors] | None = None,
    seeds: Sequence[ScoresOf] = (),
    timed: Mapping[str, Speed] | None = None,
) -> Table:
    """The table with every cell filled that finished runs can fill; the rest stays empty, and says why.

    A cell whose splits are only partly there gets the mean over those that are, and says which.

    Args:
        table: from `load`.
        scores: finds the scores of a run.
        ours: our data sets, the first studied first; `stand_ins` says where they stand.
        factors: our data set -> the factors of its actions, where they have any.
        seeds: find the scores of the same runs from other seeds; nothing but the spread over seeds is read from them.
        timed: from `speeds`.
    """

    standing = stand_ins(list(dict.fromkeys(column.dataset for column in table.columns)), ours)
    columns = {column: replace(column, ours=standing.get(column.dataset, "")) for column in table.columns}

    def fill(cell: Cell) -> Cell:
        cell = replace(cell, column=columns[cell.column])
        dataset = cell.column.ours
        if cell.column.unit == "fps":
            speed = (timed or {}).get(cell.source)
            return replace(cell, speed=speed, why="" if speed else cell.why)
        if not cell.source:
            return cell
        if not dataset:
            return replace(cell, why=f"no data set here stands for {cell.column.dataset}")
        parts = table.late_fusions[cell.source]
        measured = _measure(parts, dataset, table.splits, (scores, *seeds), (factors or {}).get(dataset))
        needs = [name for name in parts if all(scores(dataset, split, name) is None for split in table.splits)]
        lacks = f"no tested run of {', '.join(needs or parts)} on {dataset}, {_splits(table.splits)}"
        return replace(cell, measured=measured, why="" if measured else lacks)

    return replace(table, columns=tuple(columns.values()), cells=tuple(fill(cell) for cell in table.cells))


Answer = tuple[Scores, Float[np.ndarray, "N A"]]
"""Whose videos and labels, and the fused scores of these videos."""


def answers(
    parts: LateFusion, dataset: str, splits: Sequence[int], scores: ScoresOf, reading: str = ""
) -> dict[int, Answer]:
    """What a late fusion says of the test videos of each split whose runs are all there, in one of READINGS or in
    order over all views ("")."""
    found: dict[int, Answer] = {}
    for split in splits:
        runs = [scores(dataset, split, recipe) for recipe in parts]
        read = [run.read(reading) for run in runs if run is not None]
        tested = [run for run in read if run is not None]
        if len(tested) == len(parts):
            found[split] = tested[0], fuse_runs(list(zip(tested, parts.values(), strict=True))).scores
    return found


def right(found: Mapping[int, Answer], of_action: Int[np.ndarray, " A"] | None = None) -> pd.Series:
    """By split and video, whether the action is right, or the value that a factor has for it."""
    splits: list[int] = []
    videos: list[str] = []
    values: list[bool] = []
    for split, (run, fused) in found.items():
        predicted, labels = fused.argmax(1), run.labels
        same = predicted == labels if of_action is None else of_action[predicted] == of_action[labels]
        splits += [split] * len(same)
        videos += run.videos
        values += same.tolist()
    return pd.Series(values, pd.MultiIndex.from_arrays([splits, videos], names=["split", "video"]), dtype=bool)


def _measure(
    parts: LateFusion, dataset: str, splits: Sequence[int], seeds: Sequence[ScoresOf], factors: Factors | None
) -> Measurement | None:
    found = answers(parts, dataset, splits, seeds[0])
    if not found:
        return None
    reads: dict[int, dict[str, float]] = {}
    for split, (run, fused) in found.items():
        reads[split] = {
            "top1": top1(fused, run.labels),
            **({"top5": top_k(fused, run.labels)} if len(run.actions) > 5 else {}),
            "mean_class": mean_class_accuracy(fused, run.labels),
            **({} if factors is None else factor_accuracy(fused, run.labels, factors)),
        }
    mean: dict[str, float] = {str(name): value for name, value in pd.DataFrame(reads).mean(axis=1).items()}
    ones = {recipe: dict.fromkeys(heads, 1.0) for recipe, heads in parts.items()}
    by_reading = {reading: right(answers(parts, dataset, splits, seeds[0], reading)) for reading in ("", *READINGS)}
    values = [read["top1"] for read in reads.values()]
    return Measurement(
        dataset=dataset,
        splits=tuple(found),
        videos=len(by_reading[""]),
        top1=mean.pop("top1"),
        top5=mean.pop("top5", None),
        mean_class=mean.pop("mean_class"),
        interval=_interval(by_reading[""]),
        equal_weights=_over_splits(answers(ones, dataset, splits, seeds[0])) if _heads_in(parts) > 1 else None,
        spread_splits=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        spread_seeds=_over_seeds([found, *(answers(parts, dataset, tuple(found), of) for of in seeds[1:])]),
        factors=mean,
        right={reading: rows for reading, rows in by_reading.items() if len(rows)},
    )


def _interval(right: pd.Series) -> tuple[float, float]:
    values = right.to_numpy(float)
    effect = design_effect(values, right.index.get_level_values("video").to_list())
    return wilson(values.sum() / effect, len(values) / effect)


def _over_splits(found: Mapping[int, Answer]) -> float | None:
    return float(np.mean([top1(fused, run.labels) for run, fused in found.values()])) if found else None


def _over_seeds(seeds: Sequence[Mapping[int, Answer]]) -> float | None:
    """The spread of what seeds reach on the splits that all of them have, of those that have any."""
    begun = [found for found in seeds if found]
    common = set[int]().union(*begun).intersection(*begun)
    reached = [_over_splits({split: found[split] for split in common}) for found in begun if common]
    return float(np.std([share for share in reached if share is not None], ddof=1)) if len(reached) > 1 else None


def _heads_in(parts: LateFusion) -> int:
    return sum(map(len, parts.values()))


def compared(first: pd.Series, second: pd.Series) -> Paired | None:
    """McNemar's test of two rows (`Measurement.right`, `right`) on the videos of the splits that both have."""
    both = pd.concat([first, second], axis=1, join="inner")
    videos = both.index.get_level_values("video").to_list()
    return mcnemar(both.iloc[:, 0].to_numpy(bool), both.iloc[:, 1].to_numpy(bool), videos) if len(both) else None


def _splits(splits: Sequence[int]) -> str:
    return f"split{'s' if len(splits) > 1 else ''} {', '.join(map(str, splits))}"


def to_frame(table: Table) -> pd.DataFrame:
    """One row a cell. "paper" is in the column's unit, as our speeds are (low and high: quartiles); our accuracies are
    in %, factors and p are fractions 0..1.

    Columns: method, column, paper, paper on (its data set), measured, low, high, top-5, mean class, 1:1:1, sd splits,
    sd seeds (both in points), p (McNemar's exact test against the last measured row of the column), READINGS, one a
    factor, videos, splits, measured on, why (nothing is measured). What was not measured is missing, never filled from
    the paper. `frame.attrs` holds the headings.
    """
    last = {cell.column: cell for cell in table.cells if cell.measured}
    frame = pd.DataFrame([_line(cell, last.get(cell.column), table) for cell in table.cells])
    frame["videos"] = frame["videos"].astype("Int64")
    frame.attrs = {"number": table.number, "title": table.title, "caption": heading(table)}
    return frame


def _line(cell: Cell, last: Cell | None, table: Table) -> dict[str, object]:
    found, nothing = cell.measured, float("nan")
    percent = {
        "measured": found and found.top1,
        "low": found and found.interval[0],
        "high": found and found.interval[1],
        "top-5": found and found.top5,
        "mean class": found and found.mean_class,
        "1:1:1": found and found.equal_weights,
        "sd splits": found and found.spread_splits,
        "sd seeds": found and found.spread_seeds,
        **{reading: found and found.readings.get(reading) for reading in READINGS},
    }
    numbers = {name: nothing if value is None else 100 * value for name, value in percent.items()}
    readings = {name: numbers.pop(name) for name in READINGS}
    if cell.speed:
        numbers |= {"measured": cell.speed.rate, "low": cell.speed.quartiles[0], "high": cell.speed.quartiles[1]}
    return {
        "method": cell.method,
        "column": cell.column.label,
        "paper": nothing if cell.paper is None else cell.paper,
        "paper on": cell.column.dataset,
        **numbers,
        "p": _p(cell, last),
        **readings,
        **{name: found.factors.get(name, nothing) if found else nothing for name in table.factors},
        "videos": found.videos if found else None,
        "splits": f"{len(found.splits)} of {len(table.splits)}" if found else "",
        "measured on": found.dataset if found else cell.speed.on if cell.speed else "",
        "why": cell.why,
    }


def _p(cell: Cell, last: Cell | None) -> float:
    """Against the last measured row; of a row with itself there is no test."""
    if not (cell.measured and last and last.measured) or cell.source == last.source:
        return float("nan")
    pair = compared(cell.measured.right[""], last.measured.right[""])
    return pair.p if pair else float("nan")


def orders(table: Table) -> pd.DataFrame:
    """What the order of the snippets is worth to each measured cell, on the centre view.

    Columns: method, column, one view, reversed, shuffled (top-1 in %), p reversed, p shuffled (McNemar's exact test
    against the snippets in order: 1 where no video changes).
    """
    rows = []
    for cell in table.cells:
        found = cell.measured
        if found is None or not found.readings:
            continue
        tested = {f"p {name}": compared(found.right["one view"], found.right[name]) for name in READINGS[1:]}
        rows.append(
            {
                "method": cell.method,
                "column": cell.column.label,
                **{name: 100 * found.readings[name] for name in READINGS},
                **{name: pair.p if pair else float("nan") for name, pair in tested.items()},
            }
        )
    columns = ["method", "column", *READINGS, *(f"p {name}" for name in READINGS[1:])]
    return pd.DataFrame(rows, columns=columns)


def empty(table: Table) -> dict[str, list[str]]:
    """Why cells are empty -> which: methods, with the column's name where not all of a row is empty for one reason."""
    found: dict[str, list[str]] = {}
    for row in table.rows:
        for cell in row:
            alone = len(table.columns) > 1 and any(other.why != cell.why for other in row)
            name = f"{cell.method}: {cell.column.label}" if alone else cell.method
            if cell.why and name not in found.setdefault(cell.why, []):
                found[cell.why].append(name)
    return found


def heading(table: Table) -> str:
    """The paper's caption, its data, and where our numbers come from."""
    theirs = " and ".join(dict.fromkeys(column.dataset for column in table.columns))
    ours = dict.fromkeys(_stands(cell.measured.dataset, cell.column.dataset) for cell in table.cells if cell.measured)
    on = dict.fromkeys(f"speed on {cell.speed.on}" for cell in table.cells if cell.speed)
    found = f"Measured: {', '.join([*ours, *on])}." if ours or on else "None of the runs that it needs is tested yet."
    return f"{table.caption} Paper: {theirs}, {_splits(table.splits)}. {found}"


def _stands(ours: str, theirs: str) -> str:
    same = ours.casefold().replace("-", "") == theirs.casefold().replace("-", "")
    return ours if same else f"{ours} in the place of {theirs}"


def as_text(table: Table) -> str:
    """The table for a terminal, aligned, with what the order of snippets is worth to it, why cells are empty, and its
    notes."""
    frame = to_frame(table)
    text = frame.map(lambda value: _text(value, 1))
    text["paper"] = [_text(cell.paper, 1 if cell.column.unit == "%" else 0) for cell in table.cells]
    for name in ("measured", "low", "high"):
        pairs_of = zip(table.cells, text[name], frame[name], strict=True)
        text[name] = [f"{value:.3g}" if cell.speed else shown for cell, shown, value in pairs_of]
    for name in table.factors:
        text[name] = frame[name].map(lambda value: _text(value, 2))
    text["p"] = frame["p"].map(as_p)
    theirs = frame["paper on"].unique()
    if len(theirs) == 1:
        text = text.drop(columns="paper on").rename(columns={"paper": f"paper ({theirs[0]})"})
    bare = [name for name in ("top-5", "sd splits", "sd seeds", "p") if frame[name].isna().to_numpy().all()]
    head = ["measured on", "why", *READINGS, *bare]
    width, lines = _aligned(text.drop(columns=head), one_column=len(table.columns) == 1)
    rule = "-" * width
    read = orders(table)
    second: list[str] = []
    if len(read):
        cells = read.map(lambda value: _text(value, 1))
        for name in ("p reversed", "p shuffled"):
            cells[name] = read[name].map(as_p)
        second = [
            "Order of the snippets, centre view: in order, reversed, shuffled",
            *_aligned(cells, one_column=len(table.columns) == 1)[1],
            rule,
        ]
    remarks = ["p: McNemar's exact test against the last measured row"] if "p" not in bare else []
    remarks += [f"* {note}" for note in table.notes]
    remarks += [f"empty: {why}: {'; '.join(names)}" for why, names in empty(table).items()]
    folded = [textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False) for line in remarks]
    title = textwrap.fill(f"Table {table.number}. {heading(table)}", width, break_on_hyphens=False)
    return "\n".join([title, rule, lines[0], rule, *lines[1:], rule, *second, *folded])


def _aligned(text: pd.DataFrame, one_column: bool) -> tuple[int, list[str]]:
    """The width, and the lines with their head first; words to the left, numbers to the right."""
    text = text.drop(columns=["column"] if one_column else [])
    lines = [list(text.columns), *text.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    names = 1 if one_column else 2
    body = [
        "  ".join(
            [entry.ljust(width) for entry, width in zip(line[:names], widths[:names], strict=True)]
            + [entry.rjust(width) for entry, width in zip(line[names:], widths[names:], strict=True)]
        ).rstrip()
        for line in lines
    ]
    return sum(widths) + 2 * (len(widths) - 1), body


def as_p(value: float) -> str:
    """A probability in words as short as it deserves: 0.31, 0.004, <0.001; empty where there is none."""
    if value != value:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _text(value: object, digits: int) -> str:
    if value is None or value is pd.NA or value != value:
        return ""
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
