"""Fills the paper's tables and claims with the scores of a study's runs.

This module needs neither torch nor pandas, so that `ifttn tables` answers at once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int

from ifttn.data.factors import factors_of_actions
from ifttn.experiment.claims import SPLITS, Finding, decide, load_claims
from ifttn.experiment.metrics import shortfalls
from ifttn.experiment.recipes import OF_THE_PACKAGE
from ifttn.experiment.reversals import (
    COMPARED,
    PAIRS,
    Backwards,
    backwards,
    reversal_finding,
    reversals_of_factors,
    reversals_of_names,
)
from ifttn.experiment.scores import LATE_FUSION, Scores
from ifttn.experiment.tables import Cell, Factors, ScoresOf, Table, fill, load, speeds
from ifttn.vocabulary import IfttnError

EMBEDDED = {"embedded-ucf": ("ucf", 960), "embedded-hmdb": ("hmdb", 384)}
"""Embedded data set -> flavour and number of videos."""


PUBLISHED = "published.json"
"""The file that marks a folder of results with the published run (`ifttn.experiment.published`)."""


def is_published(root: Path) -> bool:
    """Whether a folder of results holds the published run."""
    return (root / PUBLISHED).exists()


def refuse_published(root: Path) -> None:
    """Raise IfttnError if the folder holds the published run, whose numbers are no results of a study."""
    if is_published(root):
        raise IfttnError(f"{root} holds the published run, which is only to be looked at: choose another folder")


def tested(runs: Path) -> dict[str, list[str]]:
    """Data set -> its tested runs ("split1/if-ttn"), in the order of the tables' columns.

    The user's own data sets come before the embedded ones. Then data sets with more runs come first, because a study
    makes most runs on its first data set. HMDB51 comes after others.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(runs.glob("*/split*/*/scores.npz")):
        dataset, split, recipe = path.parent.relative_to(runs).parts
        found.setdefault(dataset, []).append(f"{split}/{recipe}")

    def place(name: str) -> tuple[bool, int, bool, str]:
        return name in EMBEDDED, -len(found[name]), "hmdb" in name.casefold(), name

    return {name: found[name] for name in sorted(found, key=place)}


class Results:
    """The tested runs in a folder, with those of other seeds. Scores are read when they are needed, and only once."""

    def __init__(self, runs: Path, data: Path, seeds: Sequence[Path] = (), on: Sequence[str] = ()) -> None:
        """Find the runs.

        Args:
            runs: folder of the runs. Its folders `seed<n>` hold further seeds, with the same layout.
            data: folder of the data sets, for the factors of the embedded ones.
            seeds: more folders of the same runs with other seeds.
            on: data sets, in order; by default the user's own with tested runs, or else the embedded ones.

        Raises:
            IfttnError: a folder of another seed does not exist.
        """
        for folder in seeds:
            if not folder.is_dir():
                raise IfttnError(f"no folder of runs at {folder}: `ifttn reproduce --seed 1 --out results-1` makes one")
        names = list(tested(runs))
        self.runs, self.data = runs, data
        self.datasets = list(on) or [name for name in names if name not in EMBEDDED] or names
        folders = [each for folder in (runs, *seeds) for each in (folder, *sorted(folder.glob("seed*")))]
        self.scores = [_scores_in(folder) for folder in dict.fromkeys(map(Path.resolve, folders))]
        """For each seed, a function that finds the scores of a run."""

    def tables(self) -> list[Table]:
        """The paper's tables, filled with the scores of the runs. Cells without a run stay empty."""
        (scores, *others), timed = self.scores, speeds(self.runs.parent / "speed.csv")
        tables, known = _with_own(load(), self.runs), {}
        return [fill(table, scores, self.datasets, self._factors, others, timed, known) for table in tables]

    def findings(self) -> list[Finding]:
        """Whether the paper's claims hold for the runs, on every data set."""
        found = decide(load_claims(), self.scores, self.datasets, self._factors)
        for dataset in self.datasets:
            each = reversal_finding(self.backwards(dataset), self.reversals(dataset), dataset)
            found += [each] if each else []
        return found

    def backwards(self, dataset: str) -> list[Backwards]:
        """The answers of systems to the videos in order and backwards."""
        return backwards(load_claims(), self.scores, dataset, SPLITS)

    def actions(self, dataset: str) -> tuple[str, ...]:
        """The actions of the tested runs that COMPARED need; () if there is no such run."""
        late_fusions = load_claims().late_fusions
        recipes = {recipe for name in (*COMPARED, "mv-complete") for recipe in late_fusions[name]}
        runs = (self.scores[0](dataset, split, recipe) for split in SPLITS for recipe in sorted(recipes))
        return next((each.actions for each in runs if each), ())

    def reversals(self, dataset: str) -> Int[np.ndarray, " A"]:
        """The label of each action's reverse, as of `reversals_of_names`.

        The source is `reversals.toml` in the folder of the data set, otherwise the factors of an embedded data set,
        otherwise the pairs of the package for Something-Something, Jester and HMDB51.

        Raises:
            IfttnError: the data set's own file of pairs cannot be read.
        """
        own, actions = _data_folder(dataset, self.runs, self.data) / PAIRS.name, self.actions(dataset)
        if own.is_file() and actions:
            return reversals_of_names(actions, own)
        return reversals_of_factors(factors) if (factors := self._factors.get(dataset)) else reversals_of_names(actions)

    @cached_property
    def _factors(self) -> dict[str, Factors]:
        found = {name: factors_of_actions(_data_folder(name, self.runs, self.data)) for name in self.datasets}
        return {name: factors for name, factors in found.items() if factors}


def _with_own(tables: Mapping[int, Table], runs: Path) -> list[Table]:
    """The tables. The last one has an additional row for each tested run of a user's own recipe."""
    *before, last = tables.values()
    folders = {path.parent.name: path for path in sorted(runs.glob("*/split*/*/scores.npz"))}
    own = {name: Scores.load(path).heads for name, path in folders.items() if name not in OF_THE_PACKAGE}
    parts = {name: {name: {head: LATE_FUSION.get(head, 1.0) for head in heads}} for name, heads in own.items()}
    cells = [Cell(name, column, None, name, why="not measured yet") for name in own for column in last.columns]
    place = len(last.cells) - len(last.columns)  # above the last row, which the others are compared with
    cells = (*last.cells[:place], *cells, *last.cells[place:])
    return [*before, replace(last, cells=cells, late_fusions={**last.late_fusions, **parts})]


def _data_folder(dataset: str, runs: Path, data: Path) -> Path:
    """The folder of a data set: the one in the study, or the one that its store was prepared from."""
    folder = data / dataset
    for path in [] if folder.is_dir() else sorted(runs.parent.glob(f"stores/{dataset}-*/manifest.json")):
        try:
            own = runs.resolve().parent.parent / json.loads(path.read_text())["data"]
        except (OSError, ValueError, KeyError):
            continue
        if own.name == dataset:
            return own
    return folder


def not_shown(runs: Path, tables: Sequence[Table]) -> str:
    """A message if tested runs are in no cell of any table, or if there is no tested run; "" if all are shown."""
    found = tested(runs)
    if not found:
        return f"no tested run in {runs}: `ifttn reproduce --quick` fills Table 3, `ifttn reproduce` all of them"
    shown = {cell.accuracy.dataset for table in tables for cell in table.cells if cell.accuracy}
    if not shown:
        names = [f"{dataset}/{run}" for dataset, its_runs in found.items() for run in its_runs]
        return (
            f"the tested runs in {runs} ({', '.join(names[:3])}{' ...' if names[3:] else ''}) fill no cell of a table, "
            "which takes all runs of its row, in Tables 1 to 4 of split 1: `ifttn tables NUMBER` names what each lacks"
        )
    others = [dataset for dataset in found if dataset not in shown]
    return f"tested, but not in these tables: {', '.join(others)}; `ifttn tables --on NAME` shows one" if others else ""


def _scores_in(runs: Path) -> ScoresOf:
    @cache
    def scores(dataset: str, split: int, recipe: str) -> Scores | None:
        path = runs / dataset / f"split{split}" / recipe / "scores.npz"
        return replace(Scores.load(path), short=shortfalls(path.parent)) if path.exists() else None

    return scores
