"""Tables 1-6 of the paper as data, and what our runs measure beside each of its numbers.

Nothing here trains or opens a network: a cell is arithmetic on saved scores. Shapes: N videos, A actions.
"""

import textwrap
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int

from ifttn.experiment.evaluation import Scores, factor_accuracy, late_fusion, mean_class_accuracy, top1, wilson
from ifttn.experiment.recipes import PRESETS, RECIPES, find, network_settings
from ifttn.model.network import Network
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
    """What the runs of one late fusion reach. Accuracies are fractions 0..1."""

    dataset: str
    """Ours, which is seldom the paper's."""
    splits: tuple[int, ...]
    """Those measured; means are over these."""
    videos: int
    """Test videos of these splits together."""
    top1: float
    mean_class: float
    interval: tuple[float, float]
    """Wilson's 95 % interval over all these videos: a little narrow where splits share test videos, as HMDB51's do."""
    equal_weights: float | None
    """Top-1 where every head weighs 1; None: there is one head only."""
    factors: Mapping[str, float]
    """Accuracy of each factor; empty where the data set has none."""

    def read(self, on: str | None) -> tuple[float, float, float]:
        """Top-1, or the accuracy of a factor, with its 95 % interval."""
        if on is None:
            return self.top1, *self.interval
        return self.factors[on], *wilson(round(self.factors[on] * self.videos), self.videos)


@dataclass(frozen=True)
class Column:
    """A column of numbers in the paper."""

    name: str
    unit: str = "%"
    dataset: str = "UCF-101"
    """The paper's."""


@dataclass(frozen=True)
class Cell:
    """One number of the paper, and ours beside it."""

    method: str
    column: Column
    paper: float | None
    """None: the paper has none either."""
    source: str
    """Name of the late fusion that measures it; "" where none does."""
    measured: Measurement | None = None


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper that two cells of its table decide."""

    text: str
    first: str
    second: str
    relation: Literal["above", "near"]
    on: str | None = None
    """A factor; None: top-1."""


class Finding(NamedTuple):
    """What became of a claim."""

    text: str
    evidence: str
    verdict: Literal["holds", "open", "fails"]


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
    claims: tuple[Claim, ...] = ()
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
            or a row does not fill the columns.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    late_fusions: dict[str, LateFusion] = content["late_fusions"]
    for name, parts in late_fusions.items():
        for recipe, heads in parts.items():
            known = _heads(recipe)
            for head in heads:
                find(head, known, f"head of recipe {recipe!r} in late fusion {name!r} of {path.name}:")
    return {row["number"]: _table(row, late_fusions) for row in content["tables"]}


@cache
def _heads(recipe: str) -> Mapping[str, object]:
    settings = network_settings(find(recipe, RECIPES, "recipe"), PRESETS["smallest"], actions=1)
    with torch.device("meta"):
        return dict(Network(settings).heads.items())


def _table(row: dict[str, Any], late_fusions: Mapping[str, LateFusion]) -> Table:
    columns = tuple(Column(**column) for column in row["columns"])
    cells: list[Cell] = []
    for line in row["rows"]:
        if not len(line["paper"]) == len(line["measured"]) == len(columns):
            raise IfttnError(
                f"Table {row['number']}, row {line['method']!r}: one entry for each of {len(columns)} columns"
            )
        for column, paper, source in zip(columns, line["paper"], line["measured"], strict=True):
            if source:
                find(source, late_fusions, f"late fusion of row {line['method']!r} in Table {row['number']}:")
            cells.append(Cell(line["method"], column, None if paper == "-" else float(paper), source))
    claims = tuple(Claim(**claim) for claim in row["claims"])
    return Table(
        number=row["number"],
        title=row["title"],
        caption=row["caption"],
        splits=tuple(row["splits"]),
        columns=columns,
        cells=tuple(cells),
        notes=tuple(row["notes"]),
        claims=claims,
        late_fusions=late_fusions,
    )


def measure(
    table: Table, scores: ScoresOf, datasets: Mapping[str, str], factors: Mapping[str, Factors] | None = None
) -> Table:
    """The table with every cell filled that finished runs can fill; the rest stays empty.

    A cell whose splits are only partly there gets the mean over those that are, and says which.

    Args:
        table: from `load`.
        scores: finds the scores of a run.
        datasets: the paper's data set -> the one of ours that stands for it. One that is absent is not measured.
        factors: our data set -> the factors of its actions, where they have any.
    """

    def fill(cell: Cell) -> Cell:
        dataset = datasets.get(cell.column.dataset)
        if not cell.source or dataset is None:
            return cell
        measured = _measure(
            table.late_fusions[cell.source], dataset, table.splits, scores, (factors or {}).get(dataset)
        )
        return replace(cell, measured=measured)

    return replace(table, cells=tuple(fill(cell) for cell in table.cells))


def _measure(
    parts: LateFusion, dataset: str, splits: Sequence[int], scores: ScoresOf, factors: Factors | None
) -> Measurement | None:
    reads: dict[int, dict[str, float]] = {}
    videos = correct = 0
    for split in splits:
        runs = [scores(dataset, split, recipe) for recipe in parts]
        tested = [run for run in runs if run is not None]
        if len(tested) < len(runs):
            continue
        fused = late_fusion(list(zip(tested, parts.values(), strict=True)))
        equal_weights = [dict.fromkeys(heads, 1.0) for heads in parts.values()]
        labels = tested[0].labels
        reads[split] = {
            "top1": top1(fused, labels),
            "mean_class": mean_class_accuracy(fused, labels),
            "equal": top1(late_fusion(list(zip(tested, equal_weights, strict=True))), labels),
            **({} if factors is None else factor_accuracy(fused, labels, factors)),
        }
        videos += len(labels)
        correct += round(reads[split]["top1"] * len(labels))
    if not reads:
        return None
    mean: dict[str, float] = {str(name): value for name, value in pd.DataFrame(reads).mean(axis=1).items()}
    equal = mean.pop("equal")
    return Measurement(
        dataset=dataset,
        splits=tuple(reads),
        videos=videos,
        top1=mean.pop("top1"),
        mean_class=mean.pop("mean_class"),
        interval=wilson(correct, videos),
        equal_weights=equal if sum(map(len, parts.values())) > 1 else None,
        factors=mean,
    )


def findings(table: Table) -> list[Finding]:
    """What the measured cells say of the claims of a table; a claim without its two cells is left out."""
    found: list[Finding] = []
    datasets = dict.fromkeys(column.dataset for column in table.columns)
    for dataset in datasets:
        cells = {cell.source: cell for cell in table.cells if cell.column.dataset == dataset and cell.measured}
        for claim in table.claims:
            finding = _finding(claim, cells.get(claim.first), cells.get(claim.second))
            if finding:
                found.append(finding._replace(text=f"{claim.text} ({dataset})") if len(datasets) > 1 else finding)
    return found


def _finding(claim: Claim, first: Cell | None, second: Cell | None) -> Finding | None:
    a, b = first and first.measured, second and second.measured
    if not (first and second and a and b) or a.splits != b.splits or (claim.on and claim.on not in a.factors):
        return None
    (value_a, low_a, high_a), (value_b, low_b, high_b) = a.read(claim.on), b.read(claim.on)
    overlap = low_a <= high_b and low_b <= high_a
    if claim.relation == "near":
        verdict = "holds" if overlap else "fails"
    else:
        verdict = "open" if overlap else "holds" if value_a > value_b else "fails"
    names = (first.method, second.method) if first.method != second.method else (first.column.name, second.column.name)
    numbers = (
        f"{value:.3f} [{low:.3f}, {high:.3f}] of {name}"
        for name, (value, low, high) in zip(names, (a.read(claim.on), b.read(claim.on)), strict=True)
    )
    evidence = (
        f"{claim.on or 'top-1'} accuracy {', '.join(numbers)}; the 95% intervals "
        f"{'overlap' if overlap else 'do not overlap'} ({a.dataset}, {_splits(a.splits)})."
    )
    return Finding(claim.text, evidence, verdict)


def _splits(splits: Sequence[int]) -> str:
    return f"split{'s' if len(splits) > 1 else ''} {', '.join(map(str, splits))}"


def to_frame(table: Table) -> pd.DataFrame:
    """One row a cell. "paper" is in the column's unit, our accuracies are in %, factors are fractions 0..1.

    Columns: method, column, paper, measured, low, high, mean class, 1:1:1, one a factor, videos, splits,
    measured on. What was not measured is missing, never filled from the paper. `frame.attrs` holds the headings.
    """
    factors = table.factors
    frame = pd.DataFrame([_line(cell, factors, len(table.splits)) for cell in table.cells])
    frame["videos"] = frame["videos"].astype("Int64")
    frame.attrs = {"number": table.number, "title": table.title, "caption": heading(table)}
    return frame


def _line(cell: Cell, factors: Sequence[str], splits: int) -> dict[str, object]:
    found = cell.measured
    percent = {
        "measured": found and found.top1,
        "low": found and found.interval[0],
        "high": found and found.interval[1],
        "mean class": found and found.mean_class,
        "1:1:1": found and found.equal_weights,
    }
    return {
        "method": cell.method,
        "column": f"{cell.column.name} ({cell.column.unit})",
        "paper": float("nan") if cell.paper is None else cell.paper,
        **{name: float("nan") if value is None else 100 * value for name, value in percent.items()},
        **{name: found.factors.get(name, float("nan")) if found else float("nan") for name in factors},
        "videos": found.videos if found else None,
        "splits": f"{len(found.splits)} of {splits}" if found else "",
        "measured on": found.dataset if found else "",
    }


def heading(table: Table) -> str:
    """The paper's caption, its data, and where our numbers come from."""
    theirs = " and ".join(dict.fromkeys(column.dataset for column in table.columns))
    ours = dict.fromkeys(
        f"{cell.measured.dataset} for {cell.column.dataset}" for cell in table.cells if cell.measured is not None
    )
    measured = f"Measured: {', '.join(ours)}." if ours else "Nothing measured yet."
    return f"{table.caption} Paper: {theirs}, {_splits(table.splits)}. {measured}"


def as_text(table: Table) -> str:
    """The table for a terminal, aligned, with its notes and what became of its claims."""
    frame = to_frame(table)
    text = frame.map(lambda value: _text(value, 1))
    text["paper"] = [_text(cell.paper, 1 if cell.column.unit == "%" else 0) for cell in table.cells]
    for name in table.factors:
        text[name] = frame[name].map(lambda value: _text(value, 2))
    text = text.drop(columns=["measured on", *(["column"] if len(table.columns) == 1 else [])])
    lines = [list(text.columns), *text.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    names = 1 if len(table.columns) == 1 else 2
    body = [
        "  ".join(
            [entry.ljust(width) for entry, width in zip(line[:names], widths[:names], strict=True)]
            + [entry.rjust(width) for entry, width in zip(line[names:], widths[names:], strict=True)]
        ).rstrip()
        for line in lines
    ]
    width = sum(widths) + 2 * (len(widths) - 1)
    rule = "-" * width
    remarks = [f"* {note}" for note in table.notes]
    remarks += [f"[{finding.verdict}] {finding.text}: {finding.evidence}" for finding in findings(table)]
    folded = [textwrap.fill(line, width, subsequent_indent="  ") for line in remarks]
    title = textwrap.fill(f"Table {table.number}. {heading(table)}", width)
    return "\n".join([title, rule, body[0], rule, *body[1:], rule, *folded])


def _text(value: object, digits: int) -> str:
    if value is None or value is pd.NA or value != value:
        return ""
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
