"""Work: the videos, the store, the folder of runs and the device of a training or a test."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import joblib

from ifttn.data.preparation_report import read_report
from ifttn.data.store import Store
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.processes import Machine, Processes
from ifttn.experiment.recipes import find
from ifttn.experiment.runs import Run
from ifttn.vocabulary import Split


@dataclass(frozen=True)
class Work:
    """Where the videos are, where the runs go, and how this machine trains."""

    split: Split
    store: Store
    runs: Path
    preset: str
    seed: int = 0
    device: str = "cpu"
    progress: bool = True
    hold_out: float = 0.0
    """The share of the training videos, in whole groups, that is scored after every epoch and not trained on."""
    epochs: Mapping[str, int] = field(default_factory=dict)
    """Stage -> its epochs, instead of the preset's."""
    machine: Machine = field(default_factory=Machine)
    processes: Processes = field(default_factory=Processes)

    @property
    def workers(self) -> int:
        """The number of processes that load batches: the requested one, or the preset's, at most one for each core. The
        main process takes a core if it trains on the CPU. If a GPU trains, it sleeps most of the time."""
        if self.machine.workers is not None:
            return self.machine.workers
        own = int(self.device == "cpu")
        return min(find(self.preset, PRESETS, "preset").workers, max(1, joblib.cpu_count() - own))

    def run(self, recipe: str) -> Run:
        """The run of a recipe on this split."""
        return Run.of(self.runs, self.split.dataset, self.split.number, recipe)

    @property
    def folder(self) -> Path:
        """The folder of all runs on this split."""
        return self.run("").folder

    def trained(self, recipe: str) -> Run:
        """The run of a recipe, if it fits these videos.

        Raises:
            IfttnError: there is no such run, its actions are not the split's, or its videos were prepared otherwise.
        """
        return self.run(recipe).fitting(self.split.actions, self.store.settings)


def without_failed(split: Split, store: Store) -> Split:
    """The split without the videos that preparation could not read. Its notes name them.

    Raises:
        IfttnError: the report of the preparation cannot be read.
    """
    report = read_report(store.folder)
    failed = {name for name, row in report.items() if row.status == "failed"} - set(store.index().video)
    left_out = [video.name for video in (*split.train, *split.test) if video.name in failed]
    return replace(
        split,
        train=tuple(video for video in split.train if video.name not in failed),
        test=tuple(video for video in split.test if video.name not in failed),
        notes=(*split.notes, *(f"{name}: {report[name].reason}" for name in left_out)),
    )
