"""Gives the panels the data sets, splits, videos and runs of a study."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import RLock

import torch
from matplotlib.figure import Figure

from ifttn.data.catalogue import read_split, split_numbers
from ifttn.data.frame_folder import is_frame_folder
from ifttn.data.store import Store
from ifttn.experiment import published, results
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.recipes import RECIPES
from ifttn.experiment.reversal_frames import gains_of_order
from ifttn.experiment.runs import Run
from ifttn.experiment.study import EMBEDDED, Places
from ifttn.experiment.tables import Table
from ifttn.recognizer import Recognizer
from ifttn.vocabulary import IfttnError, Video
from lab.accuracy_figures import order_lollipops


class Shelf:
    """The folder of results of `ifttn reproduce`, and data sets in other places.

    Args:
        results: has the folders data/, stores/ and runs/. Each store has the path of its data set.
        data: folders of further data sets. Their stores are in `results`, under the name of the folder.
        device: the device of the networks.

    Raises:
        IfttnError: the device is a GPU, but this kernel has none.
    """

    def __init__(self, results: Path | str, data: Sequence[Path | str] = (), device: str = "cpu") -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise IfttnError(f"no GPU in this kernel for device={device!r}: without `device` it works on the CPU")
        self.places, self.device = Places(Path(results)), device
        self._named = {Path(folder).resolve().name: Path(folder) for folder in data}
        self.lock = RLock()
        """Held while a network runs, because two threads must not run the same network."""
        self.split = lru_cache(8)(lambda dataset, number: read_split(self.folder(dataset), number))
        self.splits = lru_cache(8)(lambda dataset: split_numbers(self.folder(dataset)))
        self._recognizer = lru_cache(2)(lambda folder: Recognizer.load(folder, self.device))

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of the data sets.

        Raises:
            IfttnError: there is no data set.
        """
        own = self.places.root / "data"
        names = sorted(path.name for path in own.iterdir() if path.is_dir()) if own.is_dir() else []
        names = *names, *(name for name in self.elsewhere if name not in names)
        if not names:
            raise IfttnError(
                f"no data set in {own}, and no prepared one in {self.places.root / 'stores'}: `ifttn reproduce "
                "--quick` writes one and trains on it; `ifttn prepare FOLDER` prepares yours, or give its "
                'folder: Shelf("results", data=["FOLDER"])'
            )
        return names

    @property
    def published(self) -> bool:
        """Whether the folder has the published run instead of a study."""
        return results.is_published(self.places.root)

    @property
    def usual_dataset(self) -> str:
        """The data set with most runs of its first split."""
        return max(self.datasets, key=lambda name: len(self.runs(name, 1)))

    @property
    def elsewhere(self) -> dict[str, Path]:
        """Name -> folder of each data set outside the results: the argument `data`, and the data sets of stores."""
        root = self.places.root.resolve()
        stores = (Store(path.parent) for path in sorted(root.glob("stores/*/manifest.json")))
        folders = [root.parent / store.manifest["data"] for store in stores if "data" in store.manifest]
        return {each.name: each for each in folders if each.resolve().parent != root / "data"} | self._named

    def folder(self, dataset: str) -> Path:
        """The folder with the videos and lists of a data set."""
        return self.elsewhere.get(dataset, self.places.data(dataset))

    def video(self, dataset: str, name: str) -> Video:
        """A video by name. A missing video of the published run is written first.

        Raises:
            IfttnError: the data set has no such video.
        """
        split = self.split(dataset, 1)
        if self.published and name in split.missing:
            published.add_video(self.places.root, name)
            self.split.cache_clear()
            split = self.split(dataset, 1)
        for video in (*split.test, *split.train):
            if video.name == name:
                return video
        raise IfttnError(f"no video {name!r} in {dataset}: it is not in its lists, or its file is missing")

    def runs(self, dataset: str, split: int) -> dict[str, Run]:
        """Recipe -> run, of every run of a split that has begun: in the order of RECIPES, then other recipes."""
        begun = sorted(path.parent.name for path in self.places.runs.glob(f"{dataset}/split{split}/*/recipe.json"))
        names = [*(recipe for recipe in RECIPES if recipe in begun), *(name for name in begun if name not in RECIPES)]
        return {name: Run.of(self.places.runs, dataset, split, name) for name in names}

    def networks(self, dataset: str, split: int) -> dict[str, Run]:
        """Recipe -> finished run with a network. The run of a peer has scores but no network."""
        runs = self.runs(dataset, split)
        return {recipe: run for recipe, run in runs.items() if run.finished and "peer" not in run.identity["network"]}

    def usual_run(self, dataset: str, split: int) -> str:
        """The recipe whose network a panel opens first; empty: none is trained."""
        ready = self.networks(dataset, split)
        return next((recipe for recipe in ("if-ttn", "mv-if-ttn", *ready) if recipe in ready), "")

    def all_runs(self) -> dict[str, Run]:
        """Every run that has begun, by its name "<data set>/split<n>/<recipe>"."""
        folders = sorted(path.parent for path in self.places.runs.glob("*/split*/*/recipe.json"))
        return {folder.relative_to(self.places.runs).as_posix(): Run(folder) for folder in folders}

    def results(self) -> results.Results:
        """The present scores of the tested runs."""
        return results.Results(self.places.runs, self.places.root / "data")

    def tables(self) -> dict[int, Table]:
        """The paper's tables by number, with the accuracies of the tested runs. A caption names the published run."""
        tables = self.results().tables()
        ending = " Published run, not trained here." if self.published else ""
        return {table.number: replace(table, caption=table.caption + ending) for table in tables}

    def order_figure(self, dataset: str = "") -> Figure:
        """The accuracy that order gives each action of a data set, by default of the usual one (`order_lollipops`).

        Raises:
            IfttnError: no complete network is tested on the data set.
        """
        return order_lollipops(gains_of_order(self.results(), dataset or self.usual_dataset))

    def recognizer(self, run: Run) -> Recognizer:
        """The network of a finished run. The last two networks are cached.

        Raises:
            IfttnError: the run is not finished, or the data set now has other actions than in training.
        """
        dataset = run.identity["dataset"]
        if dataset in self.elsewhere or self.places.data(dataset).is_dir():
            run.fitting(self.split(dataset, run.identity["split"]).actions)
        return self._recognizer(run.folder)

    def preset(self, dataset: str) -> str:
        """The first preset for which a data set is prepared; "tiny" if there is none."""
        return next((name for name in PRESETS if self.store(dataset, name)), "tiny")

    def to_train(self, dataset: str, split: int) -> str:
        """The command that trains a network on a split. It is for the folder that contains the results."""
        if dataset in EMBEDDED and split == 1:
            return "ifttn reproduce --quick"
        preset = self.preset(dataset)
        which = shlex.quote(str(self.folder(dataset))) + (f" --preset {preset}" if preset != "tiny" else "")
        prepare = "" if self.store(dataset, preset) else f"ifttn prepare {which} && "
        return f"{prepare}ifttn train if-ttn --data {which}" + (f" --split {split}" if split > 1 else "")

    def no_network(self, dataset: str, split: int) -> IfttnError:
        """An error that says how to train a network on a split."""
        command = self.to_train(dataset, split)
        return IfttnError(f"no trained network of {dataset}, split {split}: `{command}` trains one")

    def file(self, text: str) -> Path:
        """The file of a typed or pasted path, relative to the notebook or to the folder that contains the results.

        Raises:
            IfttnError: the file does not exist, or is a folder without frames.
        """
        path = Path(text.strip("'\"")).expanduser()
        places = list(dict.fromkeys([Path.cwd(), self.places.root.resolve().parent]))
        found = next((place / path for place in places if (place / path).exists()), None)
        if found is None:
            where = "" if path.is_absolute() else f" in {' or in '.join(map(str, places))}"
            raise IfttnError(f"{path} is not there{where}: is its name misspelt?")
        if found.is_dir() and not is_frame_folder(found):
            inside = sorted(each.name for each in found.iterdir() if each.is_file())[:3]
            files = f", such as {', '.join(inside)}" if inside else "; this folder has no files"
            raise IfttnError(f"{found} is a folder: type the path of a file in it{files}")
        return found

    def store(self, dataset: str, preset: str) -> Store | None:
        """The prepared data set; None: it is not prepared for this preset."""
        folder = self.places.store(dataset, preset)
        return Store(folder) if (folder / "manifest.json").exists() else None
