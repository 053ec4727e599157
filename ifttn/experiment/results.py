"""What the runs of a study have measured: the paper's tables and claims, filled with the scores in their folders.

Nothing here needs torch, so that `ifttn tables` answers at once.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ifttn.data.factors import factors_of_actions
from ifttn.experiment.claims import Finding, decide, load_claims
from ifttn.experiment.scores import Scores
from ifttn.experiment.tables import Factors, ScoresOf, Table, fill, load, speeds
from ifttn.vocabulary import IfttnError

EMBEDDED = {"embedded-ucf": ("ucf", 960), "embedded-hmdb": ("hmdb", 384)}
"""Embedded data set -> flavour and number of videos."""


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
        seeds: folders of the same runs with other seeds, for the spread over seeds.
        on: data sets, in order; by default those that have tested runs.

    Raises:
        IfttnError: a folder of another seed is not there.
    """
    for folder in seeds:
        if not folder.is_dir():
            raise IfttnError(f"no folder of runs at {folder}: `ifttn reproduce --seed 1 --out results-1` makes one")
    datasets = _standing(runs, on)
    scores, *others = (_scores_in(folder) for folder in (runs, *seeds))
    factors, timed = _factors(datasets, data), speeds(runs.parent / "speed.csv")
    return [fill(table, scores, datasets, factors, others, timed) for table in load().values()]


def findings(runs: Path, data: Path, on: Sequence[str] = ()) -> list[Finding]:
    """Whether the paper's claims hold for the runs, on every data set; the arguments are those of `filled_tables`."""
    datasets = _standing(runs, on)
    return decide(load_claims(), _scores_in(runs), datasets, _factors(datasets, data))


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


def _scores_in(runs: Path) -> ScoresOf:
    @cache
    def scores(dataset: str, split: int, recipe: str) -> Scores | None:
        path = runs / dataset / f"split{split}" / recipe / "scores.npz"
        return Scores.load(path) if path.exists() else None

    return scores


def _factors(datasets: Sequence[str], data: Path) -> dict[str, Factors]:
    return {name: factors for name in datasets if (factors := factors_of_actions(data / name))}
