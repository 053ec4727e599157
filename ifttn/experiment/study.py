"""The whole study in order: data, preparation, runs, scores. Resumable, and as many steps at once as there are cores.

Of the embedded data sets, or of one's own in their place.

Every step finds its own work done or goes on with it, so that the same study started again goes on where it was.
"""

import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from joblib.externals.loky import get_reusable_executor

from ifttn.data import diagnostic
from ifttn.data.catalogue import read_split, split_numbers
from ifttn.data.preparation import prepare
from ifttn.data.store import Store
from ifttn.experiment import pyramids, training
from ifttn.experiment.claims import Finding, judge, load_claims
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.processes import Machine
from ifttn.experiment.recipes import RECIPES
from ifttn.experiment.runs import Run
from ifttn.experiment.scores import Scores
from ifttn.experiment.tables import Factors, ScoresOf, Table, load, measure, speeds
from ifttn.files import write_whole
from ifttn.memory import explained
from ifttn.vocabulary import IfttnError

EMBEDDED = {"embedded-ucf": ("ucf", 960), "embedded-hmdb": ("hmdb", 384)}
"""Embedded data sets: flavour and number of videos."""

WEIGHTS = {
    "spatial": 0.3,
    "temporal": 0.35,
    "rgbdiff": 0.4,
    "mv-temporal": 0.2,
    "mv-if-ttn": 1.0,
    "if-ttn": 2.5,
    "ttn-separate": 3.0,
    "two-stream-i3d": 0.6,
    "din": 0.3,
    "c3d": 0.9,
    "emv-cnn": 0.5,
    "coviar": 0.6,
    "off": 0.9,
    "off-flow": 0.5,
}
"""What a recipe costs beside the others, for the estimate of the time to go."""
ABLATIONS = ("ttn-separate", "if-ttn-adaptive", "if-ttn-additive", "if-ttn-multiplicative", "rgbdiff")
SYSTEMS = ("two-stream-i3d", "din", "c3d", "emv-cnn", "coviar", "off", "off-flow")
"""Of Tables 5 and 6, that are none of ours; trained where the preset has a size of them."""
SYSTEMS_TWICE = ("two-stream-i3d", "coviar", "off", "off-flow")
"""Of these the paper prints HMDB-51's accuracy as well (Table 6); the embedded one's is of one split."""
EVERY_SPLIT = ("spatial", "temporal", "if-ttn", "mv-temporal", "mv-if-ttn")


@dataclass(frozen=True)
class Step:
    """One step: a function that does its work or finds it done."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    needs: tuple[str, ...] = ()
    weight: float = 1.0
    """Expected share of the time, for the estimate."""


@dataclass
class Progress:
    """How far a study is."""

    steps: Sequence[Step]
    seconds: dict[str, float] = field(default_factory=dict)
    """Per finished step, what it took when it was done (not what finding it done took)."""
    running: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """Step -> why; a step whose needs failed is here as well."""
    killed: set[str] = field(default_factory=set)
    """Steps whose process was killed; each is done once more, alone."""

    @property
    def share(self) -> float:
        """Of the expected work, how much is done, in 0..1."""
        return sum(t.weight for t in self.steps if t.name in self.done) / sum(t.weight for t in self.steps)

    def seconds_left(self, jobs: int) -> float | None:
        """What the steps to come will take, `jobs` at once, at the pace at which finished steps were done, be it in an
        earlier call; None before one is."""
        timed = [step for step in self.steps if step.name in self.done & self.seconds.keys()]
        to_come = sum(step.weight for step in self.steps if step.name not in self.done | self.failed.keys())
        seconds = sum(self.seconds[step.name] for step in timed)
        return to_come * seconds / sum(step.weight for step in timed) / jobs if timed else None


@dataclass(frozen=True)
class Places:
    """Where a study keeps its things, under one folder, and where it finds data sets of one's own."""

    root: Path
    own: Mapping[str, Path] = field(default_factory=dict)
    """Name -> folder; these are studied in the place of the embedded ones, and nothing is written into them."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """What is studied, the most telling first."""
        return tuple(self.own or EMBEDDED)

    def data(self, dataset: str) -> Path:
        """Videos and lists."""
        return self.own.get(dataset, self.root / "data" / dataset)

    def splits(self, dataset: str) -> tuple[int, ...]:
        """Those that are studied: all that the data set has."""
        return split_numbers(self.own[dataset]) if dataset in self.own else (1, 2, 3)

    def store(self, dataset: str, preset: str) -> Path:
        """The prepared data set at a preset's resolution."""
        return self.root / "stores" / f"{dataset}-{preset}"

    @property
    def runs(self) -> Path:
        """Trained recipes."""
        return self.root / "runs"


@dataclass(frozen=True)
class StudySettings:
    """What all runs of a study have in common, wherever their videos are."""

    preset: str
    device: str = "cpu"
    seed: int = 0
    jobs: int = 1
    """Steps at once; where it is one, each has all cores."""
    machine: Machine = field(default_factory=Machine)


def steps_of(places: Places, settings: StudySettings, *, quick: bool, videos: int | None = None) -> list[Step]:
    """Every step of the study, the most telling first. `quick`: Table 3 on one split of the first data set."""
    study: list[Step] = []
    datasets = places.datasets[: 1 if quick else None]
    for dataset in datasets:
        # The first data set has the machine to itself; the second one is made beside trainings.
        cores = 1 if study and settings.jobs > 1 else -1
        needs = (study[-1].name,) if study else ()
        if dataset not in places.own:
            arguments = (places, dataset, settings.seed, cores, videos)
            study.append(Step(f"{dataset}: videos", write_videos, arguments, needs, weight=2.0))
            needs = (study[-1].name,)
        study.append(Step(f"{dataset}: store", prepare_store, (places, dataset, settings, cores), needs, weight=2.0))
    first, *others = datasets
    peers = bool(PRESETS[settings.preset].peers)
    once = (*ABLATIONS, *(SYSTEMS if peers else ()))
    rows = [(first, 1, recipe) for recipe in (EVERY_SPLIT[:3] if quick else (*EVERY_SPLIT, *once))]
    if not quick:
        # The paper has Table 1 on split 1; the embedded set must show on all that nothing leaks its binding.
        each = EVERY_SPLIT if first in places.own else (*EVERY_SPLIT, "ttn-separate")
        rows += [(first, split, recipe) for split in places.splits(first)[1:] for recipe in each]
        rows += [(other, split, recipe) for other in others for split in places.splits(other) for recipe in EVERY_SPLIT]
        rows += [(other, 1, recipe) for other in others if peers for recipe in SYSTEMS_TWICE]
    for dataset, split, recipe in rows:
        needs = [step_name(dataset, split, needed) for needed in RECIPES[recipe].needs] or [f"{dataset}: store"]
        study.append(
            Step(
                step_name(dataset, split, recipe),
                train_and_test,
                (places, dataset, split, settings, recipe),
                needs=tuple(needs),
                weight=WEIGHTS.get(recipe, 1.6) * (1.0 if dataset == first else 0.5),
            )
        )
    return study


def step_name(dataset: str, split: int, recipe: str) -> str:
    """How the step that trains a recipe is called."""
    return f"{dataset} split {split}: {recipe}"


def write_videos(places: Places, dataset: str, seed: int, jobs: int, videos: int | None) -> None:
    """Write an embedded data set as real videos."""
    flavour, usual = EMBEDDED[dataset]
    diagnostic.write(places.data(dataset), flavour, videos=videos or usual, seed=seed, jobs=jobs, progress=jobs != 1)


def prepare_store(places: Places, dataset: str, settings: StudySettings, jobs: int) -> None:
    """Prepare a data set for a preset; `jobs` is the number of processes, -1 one a core.

    Raises:
        IfttnError: an embedded video could not be prepared, or none of one's own; those that fail are left out of the
            study, and named in the store's report.
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


def work_on(places: Places, dataset: str, split: int, settings: StudySettings) -> training.Work:
    """The split of a data set less what could not be prepared, its store, and where its runs go."""
    store = Store(places.store(dataset, settings.preset))
    return training.Work(
        split=training.without_failed(read_split(places.data(dataset), split), store),
        store=store,
        runs=places.runs,
        preset=settings.preset,
        seed=settings.seed,
        device=settings.device,
        progress=settings.jobs == 1 and dataset in places.own,  # hours: the study's own bar does not move for long
        machine=settings.machine,
    )


def train_and_test(places: Places, dataset: str, split: int, settings: StudySettings, recipe: str) -> None:
    """Train a recipe and score its test videos."""
    work = work_on(places, dataset, split, settings)
    training.train(work, recipe)
    training.test(work, recipe)


def drop_pyramids(places: Places) -> None:
    """Remove what runs shared while they trained: gigabytes that only a further training of a TTN would read."""
    for folder in places.runs.glob("*/split*"):
        pyramids.drop_pyramids(folder)


def tested(runs: Path) -> dict[str, list[str]]:
    """Data set -> its tested runs ("split1/if-ttn"), the order in which they stand in the tables.

    Data sets of one's own come before the embedded ones, those with more runs before those with fewer, as a study makes
    most of them on its first data set, and HMDB51 after others.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(runs.glob("*/split*/*/scores.npz")):
        dataset, split, recipe = path.parent.relative_to(runs).parts
        found.setdefault(dataset, []).append(f"{split}/{recipe}")

    def place(name: str) -> tuple[bool, int, bool, str]:
        return name in EMBEDDED, -len(found[name]), "hmdb" in name.casefold(), name

    return {name: found[name] for name in sorted(found, key=place)}


def _standing(runs: Path, on: Sequence[str]) -> list[str]:
    """The data sets that are shown: those that are named, else one's own, else the embedded ones."""
    names = list(tested(runs))
    return list(on) or [name for name in names if name not in EMBEDDED] or names


def measured(runs: Path, data: Path, seeds: Sequence[Path] = (), on: Sequence[str] = ()) -> list[Table]:
    """The paper's tables, filled with what the runs reach; what has no run stays empty.

    Args:
        runs: folder of the runs.
        data: folder of the data sets, for the factors of those that have any.
        seeds: folders of the same runs from other seeds, for the spread over seeds.
        on: data sets, the first studied first; by default those that have tested runs.

    Raises:
        IfttnError: a folder of another seed is not there.
    """
    for folder in seeds:
        if not folder.is_dir():
            raise IfttnError(f"no folder of runs at {folder}: `ifttn reproduce --seed 1 --out results-1` makes one")
    datasets = _standing(runs, on)
    scores, *others = (_scores_in(folder) for folder in (runs, *seeds))
    factors, timed = _factors(datasets, data), speeds(runs.parent / "speed.csv")
    return [measure(table, scores, datasets, factors, others, timed) for table in load().values()]


def judged(runs: Path, data: Path, on: Sequence[str] = ()) -> list[Finding]:
    """What the runs say of the paper's claims on every data set; the arguments are those of `measured`."""
    datasets = _standing(runs, on)
    return judge(load_claims(), _scores_in(runs), datasets, _factors(datasets, data))


def not_shown(runs: Path, tables: Sequence[Table]) -> str:
    """A line about tested runs that are in no cell of any table, or about there being none; "" where all are shown."""
    found = tested(runs)
    if not found:
        return f"no tested run in {runs}: `ifttn reproduce --quick` fills Table 3, `ifttn reproduce` all of them"
    cells = [cell for table in tables for cell in table.cells]
    if not any(cell.measured for cell in cells):
        names = [f"{dataset}/{run}" for dataset, its_runs in found.items() for run in its_runs]
        return (
            f"the tested runs in {runs} ({', '.join(names[:3])}{' ...' if names[3:] else ''}) fill no cell of a table, "
            "which takes all runs of its row, in Tables 1 to 4 of split 1: `ifttn tables NUMBER` names what each lacks"
        )
    shown = {cell.measured.dataset for cell in cells if cell.measured}
    others = [dataset for dataset in found if dataset not in shown]
    return f"tested, but not in these tables: {', '.join(others)}; `ifttn tables --on NAME` shows one" if others else ""


def _scores_in(runs: Path) -> ScoresOf:
    @cache
    def scores(dataset: str, split: int, recipe: str) -> Scores | None:
        run = Run.of(runs, dataset, split, recipe)
        return run.scores() if run.tested else None

    return scores


def _factors(datasets: Sequence[str], data: Path) -> dict[str, Factors]:
    return {name: factors for name in datasets if (factors := diagnostic.factors_of_actions(data / name))}


def run(study: Sequence[Step], *, jobs: int, timings: Path) -> Iterator[Progress]:
    """Do the steps, `jobs` at once, each as soon as what it needs is done. Yields after every change.

    A step that fails stops only those that need it. One whose process is killed is done once more, alone, and fails
    where that process is killed too. What each step took is kept in the file `timings`.
    """
    known: dict[str, float] = json.loads(timings.read_text()) if timings.exists() else {}
    progress = Progress(study, {step.name: known[step.name] for step in study if step.name in known})
    # A process of its own for each step: one that is killed disturbs no other.
    idle, futures = list[ProcessPoolExecutor](), dict[Future[float], tuple[Step, ProcessPoolExecutor]]()
    try:
        while len(progress.done) + len(progress.failed) < len(study):
            for step in _next(study, progress, jobs):
                future, pool = _begun(step, idle, jobs)
                futures[future] = step, pool
                progress.running.add(step.name)
            yield progress
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                step, pool = futures.pop(future)
                if not isinstance(future.exception(), BrokenProcessPool):
                    idle.append(pool)
                if _ended(step, future, progress):
                    known[step.name] = progress.seconds[step.name]
                    write_whole(timings, json.dumps(known, indent=1).encode())
        yield progress
        for pool in idle:
            pool.shutdown()
    except BaseException:
        _terminate([*idle, *(pool for _, pool in futures.values())])
        raise


def _begun(step: Step, idle: list[ProcessPoolExecutor], jobs: int) -> tuple[Future[float], ProcessPoolExecutor]:
    while idle:
        pool = idle.pop()
        with suppress(BrokenProcessPool):  # its process was killed since its last step
            return pool.submit(timed, step), pool
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_worker, initargs=(jobs,))
    return pool.submit(timed, step), pool


def _ended(step: Step, future: Future[float], progress: Progress) -> bool:
    """Note what became of a step. Returns whether it took longer than ever, as finding it done is quick."""
    progress.running.discard(step.name)
    error = future.exception()
    if isinstance(error, BrokenProcessPool) and step.name not in progress.killed:
        progress.killed.add(step.name)
    elif isinstance(error, BrokenProcessPool):
        progress.failed[step.name] = (
            "its process was killed twice, the second time while no other step ran; most likely this machine has too "
            "little memory for it"
        )
    elif error:
        reason = str(error) if isinstance(error, IfttnError) else f"{type(error).__name__}: {error}"
        progress.failed[step.name] = " ".join(reason.split())
    else:
        progress.done.add(step.name)
        if future.result() > progress.seconds.get(step.name, 0.0):
            progress.seconds[step.name] = future.result()
            return True
    return False


def _terminate(pools: Sequence[ProcessPoolExecutor]) -> None:
    """Leave none to finish an hour's work unseen."""
    for pool in pools:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)


def _next(study: Sequence[Step], progress: Progress, jobs: int) -> list[Step]:
    """The steps to begin now; one whose process was killed waits until it can run alone."""
    ready = _ready(study, progress)
    fresh = [step for step in ready if step.name not in progress.killed]
    if progress.running & progress.killed:
        return []
    return fresh[: jobs - len(progress.running)] if fresh or progress.running else ready[:1]


def _ready(study: Sequence[Step], progress: Progress) -> list[Step]:
    for step in study:
        broken = [need for need in step.needs if need in progress.failed]
        if broken and step.name not in progress.failed:
            progress.failed[step.name] = f"needs {broken[0]}, which failed"
    begun = progress.running | progress.done | progress.failed.keys()
    return [step for step in study if step.name not in begun and progress.done.issuperset(step.needs)]


def timed(step: Step) -> float:
    """Do a step in this process. Returns its seconds.

    Raises IfttnError where memory does not suffice, and whatever else the step raises.
    """
    started = time.monotonic()
    with explained({}):
        step.function(*step.arguments)
    seconds = time.monotonic() - started
    # joblib keeps its idle processes for five minutes, and a worker that has any cannot end.
    get_reusable_executor().shutdown(wait=True)
    return seconds


def _worker(jobs: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the study, which ends its workers
    torch.backends.cudnn.benchmark = True  # every batch of a stage but the last has the same shape
    if jobs > 1:  # several steps at once, and two threads of each would wait for one another
        torch.set_num_threads(1)
