"""What there is to look at: the data sets, splits, videos and trained runs of a study."""

import shlex
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import RLock

import torch

from ifttn.data.catalogue import read_split
from ifttn.data.store import Store
from ifttn.experiment.recipes import PRESETS, RECIPES
from ifttn.experiment.runs import Run
from ifttn.experiment.study import EMBEDDED, Places
from ifttn.recognizer import Recognizer
from ifttn.vocabulary import IfttnError, Split, Video


class Shelf:
    """A folder of results, as `ifttn reproduce` lays it out, and data sets that lie elsewhere.

    Args:
        results: holds data/, stores/ and runs/. Where a store was prepared from a folder that lies elsewhere, that
            data set is found as well.
        data: further folders of data sets; a store of one is looked for in `results`, by its name.
        device: where networks are put.

    Raises:
        IfttnError: the device is a GPU, and this kernel has none.
    """

    def __init__(self, results: Path | str, data: Sequence[Path | str] = (), device: str = "cpu") -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise IfttnError(f"no GPU in this kernel for device={device!r}: without `device` it works on the CPU")
        self.places, self.device = Places(Path(results)), device
        self._named = {Path(folder).resolve().name: Path(folder) for folder in data}
        self.lock = RLock()
        """Held by whoever runs a network: two threads must not."""
        self.split = lru_cache(8)(self._split)
        self._loaded = lru_cache(2)(self._load)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets.

        Raises:
            IfttnError: there is none.
        """
        own = self.places.root / "data"
        names = sorted(path.name for path in own.iterdir() if path.is_dir()) if own.is_dir() else []
        names = *names, *(name for name in self.elsewhere if name not in names)
        if not names:
            raise IfttnError(
                f"no data set in {own}, and none is prepared in {self.places.root / 'stores'}: `ifttn reproduce "
                "--quick` writes one and trains on it; `ifttn prepare FOLDER` prepares yours, or name it, "
                'Shelf("results", data=["FOLDER"])'
            )
        return names

    @property
    def usual_dataset(self) -> str:
        """The one with most runs of its first split."""
        return max(self.datasets, key=lambda name: len(self.runs(name, 1)))

    @property
    def elsewhere(self) -> dict[str, Path]:
        """Folders of data sets outside of the results: those named, and those that a store was prepared from."""
        root = self.places.root.resolve()
        stores = (Store(path.parent) for path in sorted(root.glob("stores/*/manifest.json")))
        folders = [root.parent / store.manifest["data"] for store in stores if "data" in store.manifest]
        return {each.name: each for each in folders if each.resolve().parent != root / "data"} | self._named

    def splits(self, dataset: str) -> tuple[int, ...]:
        """Those of 1, 2, 3 that a data set has lists for."""
        found = []
        for number in (1, 2, 3):
            try:
                found.append(self.split(dataset, number).number)
            except IfttnError:
                if number == 1:
                    raise
        return tuple(found)

    def _split(self, dataset: str, number: int) -> Split:
        return read_split(self.folder(dataset), number)

    def folder(self, dataset: str) -> Path:
        """Where the videos and lists of a data set are."""
        return self.elsewhere.get(dataset, self.places.data(dataset))

    def video(self, dataset: str, name: str) -> Video:
        """A video by name.

        Raises:
            IfttnError: the data set has no such video.
        """
        split = self.split(dataset, 1)
        for video in (*split.test, *split.train):
            if video.name == name:
                return video
        raise IfttnError(f"no video {name!r} in {dataset}: it is not in its lists, or its file is missing")

    def runs(self, dataset: str, split: int) -> dict[str, Run]:
        """Every run of a split that has begun, by recipe, in the order of the recipes."""
        runs = {recipe: Run.of(self.places.runs, dataset, split, recipe) for recipe in RECIPES}
        return {recipe: run for recipe, run in runs.items() if (run.folder / "recipe.json").exists()}

    def networks(self, dataset: str, split: int) -> dict[str, Run]:
        """The runs that can be looked into: finished, and not a peer's, of which there are scores and nothing else."""
        runs = self.runs(dataset, split)
        return {recipe: run for recipe, run in runs.items() if run.finished and RECIPES[recipe].peer is None}

    def all_runs(self) -> dict[str, Run]:
        """Every run that has begun, by "<data set>/split<n>/<recipe>"."""
        folders = sorted(path.parent for path in self.places.runs.glob("*/split*/*/recipe.json"))
        return {folder.relative_to(self.places.runs).as_posix(): Run(folder) for folder in folders}

    def recognizer(self, run: Run) -> Recognizer:
        """The network of a finished run; the last two are kept.

        Raises:
            IfttnError: the run is not finished, or the data set has other actions now than it was trained with.
        """
        dataset = run.asked["dataset"]
        if dataset in self.elsewhere or self.places.data(dataset).is_dir():
            run.fitting(self.split(dataset, run.asked["split"]).actions)
        return self._loaded(run.folder)

    def _load(self, folder: Path) -> Recognizer:
        return Recognizer.load(folder, self.device)

    def preset(self, dataset: str) -> str:
        """The first preset for which a data set is prepared; "tiny" where it is for none."""
        return next((name for name in PRESETS if self.store(dataset, name)), "tiny")

    def to_train(self, dataset: str, split: int) -> str:
        """The command that trains a network on a split, to be typed beside the folder of results."""
        if dataset in EMBEDDED and split == 1:
            return "ifttn reproduce --quick"
        preset = self.preset(dataset)
        which = shlex.quote(str(self.folder(dataset))) + (f" --preset {preset}" if preset != "tiny" else "")
        prepare = "" if self.store(dataset, preset) else f"ifttn prepare {which} && "
        return f"{prepare}ifttn train if-ttn --data {which}" + (f" --split {split}" if split > 1 else "")

    def store(self, dataset: str, preset: str) -> Store | None:
        """The prepared data set, where there is one."""
        folder = self.places.store(dataset, preset)
        return Store(folder) if (folder / "manifest.json").exists() else None
