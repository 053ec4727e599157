"""The steps of the whole study: data, preparation, runs and scores, for the embedded data sets or for the user's own.

Every step continues its work or finds it done. A study that is started again therefore continues.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ifttn.data import diagnostic
from ifttn.data.catalogue import read_split, split_numbers
from ifttn.data.preparation import prepare
from ifttn.data.store import Store
from ifttn.experiment import pyramids, testing, training
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.processes import Machine
from ifttn.experiment.recipes import RECIPES, with_its_sources
from ifttn.experiment.results import EMBEDDED
from ifttn.experiment.steps import Step
from ifttn.experiment.work import Work, without_failed
from ifttn.vocabulary import IfttnError

WEIGHTS = {
    "spatial": 0.4,
    "temporal": 0.4,
    "rgbdiff": 0.5,
    "mv-temporal": 0.4,
    "mv-if-ttn": 1.5,
    "if-ttn": 2.4,
    "ttn-separate": 3.2,
    "two-stream-i3d": 1.3,
    "din": 1.1,
    "c3d": 1.1,
    "emv-cnn": 1.4,
    "coviar": 1.3,
    "off": 2.3,
    "off-flow": 1.1,
    "tsm": 2.7,
    "tdn": 2.6,
}
"""Expected time of a recipe relative to the others, for the estimate of the remaining time."""
CLOSE = {
    "if-ttn": 5,
    "mv-if-ttn": 4,
    "if-ttn-adaptive": 4,
    "if-ttn-additive": 3,
    "if-ttn-multiplicative": 5,
    "if-ttn-further": 4,
}
"""Row of Tables 1, 2 and 4 in a close claim -> its trainings, each from another seed, on split 1 of the embedded data
set. With fewer, repeated studies would not give the same verdict (docs/results.md)."""
SYSTEMS = ("two-stream-i3d", "din", "c3d", "emv-cnn", "coviar", "off", "off-flow")
"""The peers of Tables 5 and 6, which are trained if the preset has a size for them."""
SYSTEMS_TWICE = ("two-stream-i3d", "coviar", "off", "off-flow")
"""Peers for which the paper also prints an accuracy on HMDB-51 (Table 6). They are trained on one of its splits."""
SYSTEMS_LATER = ("tsm", "tdn")
"""The systems that came after the paper (Table 7). They are trained last, on the first data set."""
EVERY_SPLIT = ("spatial", "temporal", "if-ttn", "mv-temporal", "mv-if-ttn")
SPLIT_1 = tuple(dict.fromkeys((*EVERY_SPLIT, *CLOSE, "ttn-separate", "rgbdiff")))
"""Recipes of Tables 1 to 4."""


@dataclass(frozen=True)
class Places:
    """The folders of a study, and those of the user's own data sets."""

    root: Path
    own: Mapping[str, Path] = field(default_factory=dict)
    """Name -> folder. These data sets replace the embedded ones, and nothing is written into them."""
    further: int | None = None
    """A further seed. Its runs have their own folder."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets of the study, the most important first."""
        return tuple(self.own or EMBEDDED)

    def data(self, dataset: str) -> Path:
        """The folder of videos and lists."""
        return self.own.get(dataset, self.root / "data" / dataset)

    def splits(self, dataset: str) -> tuple[int, ...]:
        """The numbers of the data set's splits."""
        return split_numbers(self.own[dataset]) if dataset in self.own else (1, 2, 3)

    def store(self, dataset: str, preset: str) -> Path:
        """The prepared data set at a preset's resolution."""
        return self.root / "stores" / f"{dataset}-{preset}"

    @property
    def runs(self) -> Path:
        """The folder of the runs. Its folder `seed<n>` has those of a further seed, with the same layout."""
        runs = self.root / "runs"
        return runs if self.further is None else runs / f"seed{self.further}"


@dataclass(frozen=True)
class StudySettings:
    """The settings that all runs of a study share."""

    preset: str
    device: str = "cpu"
    seed: int = 0
    seeds: int | None = 1
    """Number of seeds for the rows in a close claim, from `seed` on. None: the number of CLOSE for each row."""
    jobs: int = 1
    """Steps at once. A single step uses all cores."""
    machine: Machine = field(default_factory=Machine)

    @property
    def trainings(self) -> dict[str, int]:
        """Row in a close claim -> its trainings on split 1."""
        return {row: self.seeds or usual for row, usual in CLOSE.items()}

    @property
    def every_seed(self) -> range:
        """The seeds of the study. The first one trains everything."""
        return range(self.seed, self.seed + max(self.trainings.values()))


Planned = tuple[str, int, int | None, Sequence[str]]
"""A data set, a split, a further seed or none, and the recipes that share pyramids there."""


def steps_of(places: Places, settings: StudySettings, *, quick: bool, videos: int | None = None) -> list[Step]:
    """The steps of the study, the most important first. `quick`: Table 3 on one split of the first data set."""
    study: list[Step] = []
    datasets = places.datasets[: 1 if quick else None]
    for dataset in datasets:
        # The first data set has all cores; the second one is made while networks train.
        cores = 1 if study and settings.jobs > 1 else -1
        needs = (study[-1].name,) if study else ()
        if dataset not in places.own:
            arguments = (places, dataset, settings.seed, cores, videos)
            study.append(Step(f"{dataset}: videos", write_videos, arguments, needs, weight=2.0))
            needs = (study[-1].name,)
        study.append(Step(f"{dataset}: store", prepare_store, (places, dataset, settings, cores), needs, weight=2.0))
    first, *others = datasets
    peers = bool(PRESETS[settings.preset].peers)
    rows: list[Planned] = [(first, 1, None, EVERY_SPLIT[:3] if quick else SPLIT_1)]
    if not quick:
        for number, seed in enumerate(settings.every_seed):
            rows_again = [row for row, trainings in settings.trainings.items() if number < trainings]
            again = {recipe for row in rows_again for recipe in with_its_sources(row)}
            rows += [(first, 1, seed, [recipe for recipe in SPLIT_1 if recipe in again])] if number else []
        # The paper has Table 1 on split 1. On the embedded set, all splits show that nothing leaks the binding.
        each = EVERY_SPLIT if first in places.own else (*EVERY_SPLIT, "ttn-separate")
        rows += [(first, split, None, each) for split in places.splits(first)[1:]]
        rows += [(other, split, None, EVERY_SPLIT) for other in others for split in places.splits(other)]
    if peers and not quick:  # last, because no claim is about them
        rows += [(first, 1, None, SYSTEMS), *((other, 1, None, SYSTEMS_TWICE) for other in others)]
        rows.append((first, 1, None, SYSTEMS_LATER))
    for dataset, split, seed, recipes in rows:
        there, how = (
            (places, settings) if seed is None else (replace(places, further=seed), replace(settings, seed=seed))
        )
        for recipe in recipes:
            needs = [step_name(dataset, split, needed, seed) for needed in RECIPES[recipe].needs]
            study.append(
                Step(
                    step_name(dataset, split, recipe, seed),
                    train_and_test,
                    (there, dataset, split, how, recipe, recipes),
                    needs=tuple(needs) or (f"{dataset}: store",),
                    weight=WEIGHTS.get(recipe, 1.9) * (1.0 if dataset == first else 0.5),
                )
            )
    return study


def step_name(dataset: str, split: int, recipe: str, seed: int | None = None) -> str:
    """The name of the step that trains a recipe; `seed` is a further one."""
    return f"{dataset} split {split}{'' if seed is None else f', seed {seed}'}: {recipe}"


def write_videos(places: Places, dataset: str, seed: int, jobs: int, videos: int | None) -> None:
    """Write an embedded data set as video files."""
    flavour, usual = EMBEDDED[dataset]
    diagnostic.write(places.data(dataset), flavour, videos=videos or usual, seed=seed, jobs=jobs, progress=jobs != 1)


def prepare_store(places: Places, dataset: str, settings: StudySettings, jobs: int) -> None:
    """Prepare a data set for a preset. `jobs` is the number of processes; -1 is one per core.

    Raises:
        IfttnError: an embedded video could not be prepared, or no video of a user's own data set. Some failed videos of
            the latter are left out of the study, and the store's report names them.
    """
    report = prepare(
        places.data(dataset),
        places.store(dataset, settings.preset),
        PRESETS[settings.preset].store,
        jobs=None if jobs < 0 else jobs,
        progress=jobs != 1,
        device=settings.device,
    )
    failed = report[report.status == "failed"]
    if len(failed) and (dataset not in places.own or len(failed) == len(report)):
        raise IfttnError(f"{len(failed)} videos of {dataset} failed; the first: {failed.iloc[0].reason}")


def work_on(places: Places, dataset: str, split: int, settings: StudySettings) -> Work:
    """The work on a split of a data set, without the videos that could not be prepared."""
    store = Store(places.store(dataset, settings.preset))
    return Work(
        split=without_failed(read_split(places.data(dataset), split), store),
        store=store,
        runs=places.runs,
        preset=settings.preset,
        seed=settings.seed,
        device=settings.device,
        progress=settings.jobs == 1 and dataset in places.own,  # the bar of the study does not move for hours
        machine=settings.machine,
    )


def train_and_test(
    places: Places, dataset: str, split: int, settings: StudySettings, recipe: str, together: Sequence[str]
) -> None:
    """Train a recipe and score its test videos.

    When all recipes that are trained `together` are finished, their shared pyramids are removed. They take gigabytes,
    and only another training of a TTN would read them.
    """
    work = work_on(places, dataset, split, settings)
    training.train(work, recipe)
    testing.test(work, recipe)
    if all(work.run(each).finished for each in together):
        pyramids.drop_pyramids(work.folder)
