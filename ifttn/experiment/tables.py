"""Tables 1-6 of the paper and our Table 7 as data. `fill` adds the numbers of our runs.

A cell is computed from saved scores, without a network. Shapes: N videos, A actions.
"""

import csv
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ifttn.experiment.recipes import find
from ifttn.experiment.scores import (
    READINGS,
    Fused,
    Scores,
    factor_accuracy,
    fuse_runs,
    mean_class_accuracy,
    top1,
    top5,
)
from ifttn.experiment.significance import Answers, Right, SeedAndSplit, numbered, share_interval
from ifttn.vocabulary import IfttnError

TABLES = Path(__file__).with_name("tables.toml")

LateFusion = Mapping[str, Mapping[str, float]]
"""Recipe -> head -> weight."""
ScoresOf = Callable[[str, int, str], Scores | None]
"""(data set, split, recipe) -> the scores of that run, or None if it is not tested."""
Factors = Mapping[str, Int[np.ndarray, " A"]]
"""Factor -> its value for each action of a data set."""


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of one late fusion on one data set."""

    dataset: str
    """Our data set, which need not be the paper's."""
    splits: tuple[int, ...]
    """The tested splits. Means are over these."""
    seeds: int
    """The number of seeds with all these splits tested. Means are over these, too."""
    short: tuple[str, ...]
    """A line for each stage of training that ended below the usual accuracy."""
    percent: Mapping[str, float]
    """Columns of `to_frame` in %. "measured" is top-1. A missing number is NaN."""
    factors: Mapping[str, float]
    """Accuracy of each factor in 0..1; empty if the data set has no factors."""
    right: Mapping[str, Answers] = field(compare=False, repr=False)
    """For all views ("") and for each of READINGS that was scored: `right_by_training`."""

    @property
    def videos(self) -> int:
        """The number of test videos, over all splits."""
        return sum(len(each.videos) for each in self.right[""].values()) // self.seeds


@dataclass(frozen=True)
class Column:
    """A column of numbers in the paper."""

    name: str
    unit: str = "%"
    dataset: str = "UCF-101"
    """The paper's data set."""
    why: str = ""
    """Why all its cells are empty."""
    ours: str = ""
    """Our data set in this column; "" if there is none."""

    @property
    def label(self) -> str:
        """The heading. A column with the name of the paper's data set gets the name of ours."""
        return f"{self.ours if self.ours and self.name == self.dataset else self.name} ({self.unit})"


@dataclass(frozen=True)
class Speed:
    """Snippets per second of a network, measured in one run with the other rows of the table."""

    median: float
    quartiles: tuple[float, float]
    on: str
    """Device, precision and size."""


def speeds(path: Path) -> dict[str, Speed]:
    """Row of `ifttn bench speed --csv` -> its speed; empty if there is no such file.

    Raises:
        IfttnError: the file has other columns.
    """
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        timed: dict[str, list[dict[str, str]]] = {}
        if not {"row", "definition", "seconds", "count", "device", "precision", "size"} <= {*(reader.fieldnames or ())}:
            raise IfttnError(f"{path} is not what `ifttn bench speed --csv` writes: remove it, or measure again")
        for each in reader:
            if each["definition"] == "snippets":
                timed.setdefault(each["row"], []).append(each)
    found = {}
    for row, rounds in timed.items():
        a_second = [float(each["count"]) / float(each["seconds"]) for each in rounds]
        low, median, high = np.quantile(a_second, [0.25, 0.5, 0.75]).tolist()
        on = "{device}, {precision}, {size} size".format(**rounds[0])
        found[row] = Speed(median, (low, high), on)
    return found


@dataclass(frozen=True)
class Cell:
    """One number of the paper, and our number."""

    method: str
    column: Column
    paper: float | None
    """None if the paper has no number there."""
    source: str
    """The late fusion, or the row of `ifttn bench speed`, that measures it; "" if nothing does."""
    accuracy: Accuracy | None = None
    speed: Speed | None = None
    """In a column of speeds."""
    why: str = ""
    """Why the cell is empty; "" if it is filled."""


@dataclass(frozen=True)
class Table:
    """One table of the paper; `fill` fills its cells."""

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
    def measured(self) -> list[Cell]:
        """The cells that hold an accuracy."""
        return [cell for cell in self.cells if cell.accuracy]


def load(path: Path = TABLES) -> dict[int, Table]:
    """The tables of a file with the layout of `tables.toml`, by number.

    Raises:
        IfttnError: a row names a late fusion that does not exist, a row does not fill the columns, or no reason is
            given for an empty cell.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return {row["number"]: _load_table(row, content["late_fusions"], content["reasons"]) for row in content["tables"]}


def _load_table(row: dict[str, Any], late_fusions: Mapping[str, LateFusion], reasons: Mapping[str, str]) -> Table:
    columns = tuple(Column(**column) for column in row["columns"])
    cells: list[Cell] = []
    for line in row["rows"]:
        if not len(line["paper"]) == len(line["measured"]) == len(columns):
            raise IfttnError(
                f"Table {row['number']}, row {line['method']!r}: one entry for each of {len(columns)} columns"
            )
        where = f"row {line['method']!r} in Table {row['number']}"
        for column, paper, source in zip(columns, line["paper"], line["measured"], strict=True):
            if source and column.unit == "%":
                find(source, late_fusions, f"late fusion of {where}:")
                why = "not measured yet"
            else:
                why = find(column.why or line.get("why", ""), reasons, f"reason why {where} is empty:")
            cells.append(Cell(line["method"], column, None if paper == "-" else float(paper), source, why=why))
    about = {name: row[name] for name in ("number", "title", "caption")}
    return Table(
        **about,
        splits=tuple(row["splits"]),
        columns=columns,
        cells=tuple(cells),
        notes=tuple(row["notes"]),
        late_fusions=late_fusions,
    )


def stand_ins(theirs: Sequence[str], ours: Sequence[str]) -> dict[str, str]:
    """The paper's data sets of one table -> our data sets in their columns.

    In a table with one data set, our first one takes its column. In a table with several, a data set with a similar
    name (hmdb51 or my-hmdb for HMDB-51) takes that column. The others fill the remaining columns in their order.
    """
    if len(theirs) == 1:
        return dict(zip(theirs, ours[:1], strict=False))
    like = {
        each: name for each in theirs for name in reversed(ours) if each.partition("-")[0].casefold() in name.casefold()
    }
    rest = [name for name in ours if name not in like.values()]
    return like | dict(zip([each for each in theirs if each not in like], rest, strict=False))


def fill(
    table: Table,
    scores: ScoresOf,
    ours: Sequence[str],
    factors: Mapping[str, Factors] | None = None,
    seeds: Sequence[ScoresOf] = (),
    timed: Mapping[str, Speed] | None = None,
    known: dict[Any, Accuracy | None] | None = None,
) -> Table:
    """The table with all cells that tested runs can fill. An empty cell says why it is empty.

    If only some splits of a cell are tested, the cell has the mean over these and names them. It has the mean over all
    seeds that are tested on these splits.

    Args:
        table: a table of `load`.
        scores: finds the scores of a run.
        ours: our data sets, the most important first; `stand_ins` chooses their columns.
        factors: our data set -> the factors of its actions, if they are known.
        seeds: find the scores of the same runs with other seeds.
        timed: the result of `speeds`.
        known: collects the accuracies of this study. Several tables have the same row.
    """
    standing = stand_ins(list(dict.fromkeys(column.dataset for column in table.columns)), ours)
    columns = {column: replace(column, ours=standing.get(column.dataset, "")) for column in table.columns}
    known = {} if known is None else known

    def filled(cell: Cell) -> Cell:
        cell = replace(cell, column=columns[cell.column])
        dataset = cell.column.ours
        if cell.column.unit == "fps":
            speed = (timed or {}).get(cell.source)
            return replace(cell, speed=speed, why="" if speed else cell.why)
        if not cell.source:
            return cell
        if not dataset:
            return replace(cell, why=f"no data set here stands for {cell.column.dataset}")
        parts, row = table.late_fusions[cell.source], (cell.source, dataset, table.splits)
        if row not in known:
            known[row] = _accuracy(parts, dataset, table.splits, (scores, *seeds), (factors or {}).get(dataset, {}))
        accuracy = known[row]
        needs = [name for name in parts if all(scores(dataset, split, name) is None for split in table.splits)]
        lacks = f"no tested run of {', '.join(needs or parts)} on {dataset}, {splits_in_words(table.splits)}"
        return replace(cell, accuracy=accuracy, why="" if accuracy else lacks)

    return replace(table, columns=tuple(columns.values()), cells=tuple(filled(cell) for cell in table.cells))


def fused_by_training(
    parts: LateFusion, dataset: str, splits: Sequence[int], seeds: Sequence[ScoresOf], reading: str = ""
) -> dict[SeedAndSplit, Fused]:
    """The late-fused scores of each seed and split on which all runs are tested, over all views or in a READING."""
    found: dict[SeedAndSplit, Fused] = {}
    for seed, split in product(range(len(seeds)), splits):
        runs = [seeds[seed](dataset, split, recipe) for recipe in parts]
        tested = [read for run in runs if run is not None and (read := run.read(reading)) is not None]
        if len(tested) == len(parts):
            found[seed, split] = fuse_runs(list(zip(tested, parts.values(), strict=True)))
    return found


def right_by_training(fused: Mapping[SeedAndSplit, Fused], of_action: Int[np.ndarray, " A"] | None = None) -> Answers:
    """For each training and video, whether the action is right, or whether a factor has the right value for it."""
    return {training: Right(each.videos, each.right(of_action)) for training, each in fused.items()}


def _accuracy(
    parts: LateFusion, dataset: str, splits: Sequence[int], seeds: Sequence[ScoresOf], factors: Factors
) -> Accuracy | None:
    every = fused_by_training(parts, dataset, splits, seeds)
    if not every:
        return None
    tested = {seed: [split for each, split in every if each == seed] for seed, _ in every}
    splits = max(tested.values(), key=len)

    fused = {training: each for training, each in every.items() if tested[training[0]] == splits}

    def fused_over(parts: LateFusion, reading: str = "") -> dict[SeedAndSplit, Fused]:
        """The scores of the seeds that are tested on all these splits."""
        found = fused_by_training(parts, dataset, splits, seeds, reading)
        return {training: each for training, each in found.items() if training in fused}

    ones = {recipe: dict.fromkeys(heads, 1.0) for recipe, heads in parts.items()}
    equal = (
        [top1(each.scores, each.labels) for each in fused_over(ones).values()]
        if sum(map(len, parts.values())) > 1
        else [np.nan]
    )
    by_reading = {reading: read for reading in READINGS if (read := fused_over(parts, reading))}
    right = {name: right_by_training(each) for name, each in {"": fused, **by_reading}.items()}
    each_training = [_accuracies(each, factors) for each in fused.values()]
    mean = {name: float(np.mean([each[name] for each in each_training])) for name in each_training[0]}
    by_seed = _top1_grid(every)
    shared = ~np.isnan(by_seed).any(0)  # the splits that all seeds have
    answers = np.concatenate([each.values for each in right[""].values()])
    low, high = share_interval(answers, *numbered(tuple(each.videos for each in right[""].values())))
    shares = {
        "measured": mean["top1"],
        "low": low,
        "high": high,
        "top-5": mean["top5"],
        "mean class": mean["mean class"],
        "1:1:1": float(np.mean(equal)),
        "sd splits": _deviation(_top1_grid(fused).mean(0)),
        "sd seeds": _deviation(by_seed[:, shared].mean(1)) if shared.any() else np.nan,
        **{name: np.mean([each.right().mean() for each in read.values()]) for name, read in by_reading.items()},
    }
    return Accuracy(
        dataset=dataset,
        splits=tuple(splits),
        seeds=len({seed for seed, _ in fused}),
        short=tuple(
            line
            for seed, split in fused
            for recipe in parts
            if (run := seeds[seed](dataset, split, recipe))
            for line in run.short
        ),
        percent={name: 100 * float(share) for name, share in shares.items()},
        factors={name: mean[name] for name in factors},
        right=right,
    )


def _accuracies(fused: Fused, factors: Factors) -> dict[str, float]:
    """The accuracies on one split. With five actions or fewer there is no top-5."""
    _, labels, scores = fused
    return {
        "top1": top1(scores, labels),
        "top5": top5(scores, labels) if scores.shape[1] > 5 else np.nan,
        "mean class": mean_class_accuracy(scores, labels),
        **factor_accuracy(scores, labels, factors),
    }


def _top1_grid(fused: Mapping[SeedAndSplit, Fused]) -> Float[np.ndarray, "seeds splits"]:
    """Top-1 of each seed and split; NaN if it is not tested."""
    seeds, splits = (sorted({training[place] for training in fused}) for place in range(2))
    reached = {training: top1(each.scores, each.labels) for training, each in fused.items()}
    return np.array([[reached.get((seed, split), np.nan) for split in splits] for seed in seeds])


def _deviation(values: Float[np.ndarray, " n"]) -> float:
    """Standard deviation; NaN of one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan


def splits_in_words(splits: Sequence[int]) -> str:
    """Splits in a sentence."""
    return f"split{'s' if len(splits) > 1 else ''} {', '.join(map(str, splits))}"
