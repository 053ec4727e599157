"""What the runs of a study have measured: the paper's tables and claims, filled with the scores in their folders.

Nothing here needs torch, so that `ifttn tables` answers at once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from ifttn.data.factors import factors_of_actions
from ifttn.experiment.claims import SPLITS, Claims, Finding, decide, load_claims
from ifttn.experiment.metrics import shortfalls
from ifttn.experiment.recipes import OF_THE_PACKAGE
from ifttn.experiment.reversals import (
    COMPARED,
    NONE,
    PAIRS,
    Backwards,
    backwards,
    order_gains,
    reversal_finding,
    reversal_frame,
    reversals_of_factors,
    reversals_of_names,
)
from ifttn.experiment.scores import LATE_FUSION, Scores
from ifttn.experiment.tables import Cell, Factors, ScoresOf, Table, fill, fused_by_training, load, speeds
from ifttn.vocabulary import IfttnError

EMBEDDED = {"embedded-ucf": ("ucf", 960), "embedded-hmdb": ("hmdb", 384)}
"""Embedded data set -> flavour and number of videos."""


PUBLISHED = "published.json"
"""File in a folder of results that was made of the published run (`ifttn.experiment.published`)."""


def is_published(root: Path) -> bool:
    """Whether a folder of results was made of the published run."""
    return (root / PUBLISHED).exists()


def refuse_published(root: Path) -> None:
    """Raise IfttnError where it was: that run is to be looked at, and its numbers are no results of a study."""
    if is_published(root):
        raise IfttnError(f"{root} holds the published run, which is only to be looked at: choose another folder")


def tested(runs: Path) -> dict[str, list[str]]:
    """Data set -> its tested runs ("split1/if-ttn"), in the order of the tables' columns.

    One's own data sets come before the embedded ones, those with more runs before those with fewer (a study makes most
    runs on its first data set), and HMDB51 after others.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(runs.glob("*/split*/*/scores.npz")):
        dataset, split, recipe = path.parent.relative_to(runs).parts
        found.setdefault(dataset, []).append(f"{split}/{recipe}")

    def place(name: str) -> tuple[bool, int, bool, str]:
        return name in EMBEDDED, -len(found[name]), "hmdb" in name.casefold(), name

    return {name: found[name] for name in sorted(found, key=place)}


def _standing(runs: Path, on: Sequence[str]) -> list[str]:
    """The data sets that are shown: the named ones, else one's own, else the embedded ones."""
    names = list(tested(runs))
    return list(on) or [name for name in names if name not in EMBEDDED] or names


def filled_tables(runs: Path, data: Path, seeds: Sequence[Path] = (), on: Sequence[str] = ()) -> list[Table]:
    """The paper's tables, filled with the scores of the runs. Cells without a run stay empty.

    Args:
        runs: folder of the runs.
        data: folder of the data sets, for the factors of the embedded ones.
        seeds: further folders of the same runs with other seeds, beside those in `runs`.
        on: data sets, in order; by default those that have tested runs.

    Raises:
        IfttnError: a folder of another seed is not there.
    """
    datasets = _standing(runs, on)
    scores, *others = _scores_of_seeds(runs, seeds)
    factors, timed = _factors(datasets, runs, data), speeds(runs.parent / "speed.csv")
    tables = _with_own(load(), runs)
    return [fill(table, scores, datasets, factors, others, timed) for table in tables]


def _with_own(tables: Mapping[int, Table], runs: Path) -> list[Table]:
    """The tables. The last one has a row more for each tested run of a recipe that this package does not have."""
    *before, last = tables.values()
    folders = {path.parent.name: path for path in sorted(runs.glob("*/split*/*/scores.npz"))}
    own = {name: Scores.load(path).heads for name, path in folders.items() if name not in OF_THE_PACKAGE}
    parts = {name: {name: {head: LATE_FUSION.get(head, 1.0) for head in heads}} for name, heads in own.items()}
    cells = [Cell(name, column, None, name, why="not measured yet") for name in own for column in last.columns]
    place = len(last.cells) - len(last.columns)  # above the last row, which the others are compared with
    cells = (*last.cells[:place], *cells, *last.cells[place:])
    return [*before, replace(last, cells=cells, late_fusions={**last.late_fusions, **parts})]


def findings(runs: Path, data: Path, seeds: Sequence[Path] = (), on: Sequence[str] = ()) -> list[Finding]:
    """Whether the paper's claims hold for the runs, on every data set; the arguments are those of `filled_tables`."""
    datasets, scores, content = _standing(runs, on), _scores_of_seeds(runs, seeds), load_claims()
    found = decide(content, scores, datasets, _factors(datasets, runs, data))
    for dataset in datasets:
        reverse = _reversals(dataset, scores[0], runs, data)
        found += [each] if (each := reversal_finding(_backwards(content, scores, dataset), reverse, dataset)) else []
    return found


def reversal_table(runs: Path, data: Path, on: Sequence[str] = ()) -> pd.DataFrame:
    """What networks call actions that are played backwards, as `reversal_frame`; empty where no action has a reverse.

    The reverse of an action is named by `reversals.toml` in the folder of the data set, else found from the factors of
    an embedded data set, else named by the package for Something-Something, Jester and HMDB51. The arguments are those
    of `filled_tables`.

    Raises:
        IfttnError: the data set's own file of pairs cannot be read.
    """
    scores, content, frames = _scores_of_seeds(runs, ()), load_claims(), [pd.DataFrame()]
    for dataset in _standing(runs, on):
        reverse = _reversals(dataset, scores[0], runs, data)
        if (reverse != NONE).any():
            found = _backwards(content, scores, dataset)
            frames.append(reversal_frame(found, _actions(dataset, scores[0]), reverse, dataset))
    return pd.concat(frames, ignore_index=True)


def gains_of_order(runs: Path, dataset: str) -> pd.DataFrame:
    """How much accuracy each action of a data set owes to the order of snippets (`order_gains`), for IF-TTN, else for
    MV-IF-TTN.

    Raises:
        IfttnError: neither is tested in both orders.
    """
    scores, content = _scores_of_seeds(runs, ()), load_claims()
    for name in ("complete", "mv-complete"):
        order, shuffled = (
            fused_by_training(content.late_fusions[name], dataset, SPLITS, scores, reading)
            for reading in ("one view", "shuffled")
        )
        if order:
            return order_gains(order, shuffled, _actions(dataset, scores[0]))
    raise IfttnError(f"no run of if-ttn or mv-if-ttn on {dataset} in {runs} is tested in order and shuffled")


def _backwards(content: Claims, scores: Sequence[ScoresOf], dataset: str) -> list[Backwards]:
    return backwards(content, scores, dataset, SPLITS)


def _actions(dataset: str, scores: ScoresOf) -> tuple[str, ...]:
    """Of the tested runs that COMPARED need; () where there are none."""
    recipes = {recipe for name in (*COMPARED, "mv-complete") for recipe in load_claims().late_fusions[name]}
    tested = (scores(dataset, split, recipe) for split in SPLITS for recipe in sorted(recipes))
    return next((each.actions for each in tested if each), ())


def _reversals(dataset: str, scores: ScoresOf, runs: Path, data: Path) -> Int[np.ndarray, " A"]:
    folder, actions = _data_folder(dataset, runs, data), _actions(dataset, scores)
    if (folder / PAIRS.name).is_file() and actions:
        return reversals_of_names(actions, folder / PAIRS.name)
    factors = factors_of_actions(folder)
    return reversals_of_factors(factors) if factors else reversals_of_names(actions)


def _data_folder(dataset: str, runs: Path, data: Path) -> Path:
    """The folder of a data set: in the study, or where its store was prepared from."""
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
    """A message if tested runs are in no cell of any table, or if there is no tested run; "" where all are shown."""
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


def _scores_of_seeds(runs: Path, seeds: Sequence[Path]) -> list[ScoresOf]:
    """Of each seed: a folder of runs has those of further seeds in `seed<n>`, each laid out as the folder itself."""
    for folder in seeds:
        if not folder.is_dir():
            raise IfttnError(f"no folder of runs at {folder}: `ifttn reproduce --seed 1 --out results-1` makes one")
    folders = [each for folder in (runs, *seeds) for each in (folder, *sorted(folder.glob("seed*")))]
    return [_scores_in(folder) for folder in dict.fromkeys(map(Path.resolve, folders))]


def _scores_in(runs: Path) -> ScoresOf:
    @cache
    def scores(dataset: str, split: int, recipe: str) -> Scores | None:
        path = runs / dataset / f"split{split}" / recipe / "scores.npz"
        return replace(Scores.load(path), short=shortfalls(path.parent)) if path.exists() else None

    return scores


def _factors(datasets: Sequence[str], runs: Path, data: Path) -> dict[str, Factors]:
    found = {name: factors_of_actions(_data_folder(name, runs, data)) for name in datasets}
    return {name: factors for name, factors in found.items() if factors}
