"""Run: the folder of one trained recipe, with these files.

recipe.json           the run's identity (recipe, preset, data set, split, seed, actions) and the machine
loaded.json           which weights each part started from
metrics.jsonl         one line per epoch
checkpoint.pt         while training: weights, optimiser, random states, position
weights.safetensors   when finished: weights, and the names of the videos that they were trained on
scores.npz            when tested: scores of all views, and of the centre view with the snippets in three orders
"""

import io
import json
import os
import pickle
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors
import safetensors.torch
import torch
import torchvision

from ifttn.data.store import StoreSettings
from ifttn.experiment.metrics import METRICS, read_metrics
from ifttn.experiment.networks import network_settings
from ifttn.experiment.presets import Preset, Schedule
from ifttn.experiment.recipes import Recipe
from ifttn.experiment.scores import Scores
from ifttn.files import write_whole
from ifttn.model.network import Network, Scorer
from ifttn.model.peers.trained import build_network, settings_of
from ifttn.vocabulary import MODALITIES, IfttnError


class Run:
    """A run that is begun, finished or tested.

    Args:
        folder: usually `<runs>/<data set>/split<n>/<recipe>`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    @classmethod
    def of(cls, runs: Path, dataset: str, split: int, recipe: str) -> "Run":
        """The run of a recipe on a split of a data set."""
        return cls(Path(runs) / dataset / f"split{split}" / recipe)

    @property
    def finished(self) -> bool:
        """Whether all stages are trained."""
        return (self.folder / "weights.safetensors").exists()

    @property
    def tested(self) -> bool:
        """Whether it has scores."""
        return (self.folder / "scores.npz").exists()

    @property
    def identity(self) -> dict[str, Any]:
        """The content of recipe.json: `identity_of` the run, and the machine that trained it.

        Raises:
            IfttnError: there is no run in the folder.
        """
        try:
            return _tuples(json.loads((self.folder / "recipe.json").read_text()))
        except FileNotFoundError:
            raise IfttnError(f"no run in {self.folder}: it holds no recipe.json; `ifttn train` makes one") from None

    def begin(self, identity: Mapping[str, Any], device: str = "cpu") -> None:
        """Make the folder, or find the same run in it. The name of the training `device` is recorded, too.

        Raises:
            IfttnError: the folder holds another run. The message names the differences.
        """
        identity = _tuples(json.loads(json.dumps(identity)))
        path = self.folder / "recipe.json"
        if path.exists():
            if differing := _differing(self.identity, identity):
                raise IfttnError(
                    f"{self.folder} holds another run (its {', '.join(differing)} differ): "
                    "remove the folder, or choose another one for runs"
                )
            return
        on_gpu = torch.device(device).type == "cuda"
        made_with = {
            "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or "cpu",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        }
        write_whole(path, json.dumps({**identity, "made_with": made_with}, indent=1).encode())

    def fitting(self, actions: tuple[str, ...], store: StoreSettings | None = None) -> "Run":
        """The run itself, if it was trained on these actions in this order, and on videos with the same preparation.

        Raises:
            IfttnError: the actions or the preparation of the videos differ. The message names the first difference.
        """
        own = self.identity["actions"]
        for number, (mine, theirs) in enumerate(zip_longest(own, actions), 1):
            if mine != theirs:
                raise IfttnError(
                    f"the run in {self.folder} was trained with {mine or 'nothing'} as action {number} of {len(own)}, "
                    f"and the data set has {theirs or 'nothing'} there, of {len(actions)}: give the list of actions "
                    "that it was trained with, or train it on this one"
                )
        trained = self.preset().store
        for name in self._seen() if store else ():
            if getattr(trained, name) != getattr(store, name):
                raise IfttnError(
                    f"the run in {self.folder} was trained on a store with {name} {getattr(trained, name)}, and this "
                    f"store has {getattr(store, name)}: prepare the videos with the same settings, or train again"
                )
        return self

    def _seen(self) -> list[str]:
        """The settings of a store that the network's input depends on."""
        modalities = [MODALITIES[name] for name in settings_of(self.identity["network"]).modalities]
        seen = ["width", "height", "quality"]
        seen += ["bound"] * any(modality.is_motion for modality in modalities)
        return seen + ["flow"] * any(modality.name.startswith("flow") for modality in modalities)

    def preset(self) -> Preset:
        """The preset of the training. Its `store` has the settings of the training's store.

        Raises:
            IfttnError: another version of this package made the run.
        """
        row = self.identity["preset_row"]
        try:
            known = {field.name: row[field.name] for field in fields(Preset)}
            known["store"] = StoreSettings(**row["store"])
            known["schedules"] = {name: Schedule(**schedule) for name, schedule in row["schedules"].items()}
        except (KeyError, TypeError) as error:
            raise IfttnError(f"another version of ifttn made {self.folder} ({error}): train it again") from error
        return Preset(**known)

    def log(self, row: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl, also if a crash cut the last line off."""
        with (self.folder / "metrics.jsonl").open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                file.write(b"" if file.read(1) == b"\n" else b"\n")
            file.write(json.dumps(row).encode() + b"\n")

    def metrics(self) -> pd.DataFrame:
        """One row per epoch: stage, epoch, of, loss, accuracy, lr, seconds, videos_per_second, waiting, ...

        If an epoch was trained twice after an interruption, its last line counts. A line that was cut off does not.
        """
        rows = read_metrics(self.folder)
        return pd.DataFrame(rows, columns=None if rows else pd.Index(METRICS))

    def tensorboard(self) -> Any:
        """A writer of <run>/tensorboard.

        Raises:
            IfttnError: TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise IfttnError("TensorBoard is not installed: `pip install tensorboard`, or train without it") from error
        return SummaryWriter(str(self.folder / "tensorboard"))

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Save a checkpoint. The last one stays until the new one is completely on the disk.

        Raises:
            IfttnError: the checkpoint cannot be written. The last one still exists.
        """
        content = io.BytesIO()
        torch.save(dict(state), content)
        try:
            write_whole(self.folder / "checkpoint.pt", content.getbuffer())
        except IfttnError as error:
            raise IfttnError(f"{error}; the last one is complete, and the same command continues from it") from error

    def checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, or None.

        Raises:
            IfttnError: it is damaged.
        """
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
            raise IfttnError(f"{path} is damaged: remove it to train from the start") from error
        return state

    def finish(self, network: Scorer, trained_on: Iterable[str]) -> None:
        """Write the trained weights and the names of all videos that they depend on. Remove the checkpoint."""
        state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        names = {"trained_on": json.dumps(sorted(trained_on))}
        write_whole(self.folder / "weights.safetensors", safetensors.torch.save(state, metadata=names))
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)

    @property
    def trained_on(self) -> frozenset[str]:
        """Names of the videos that its weights, and the weights that they started from, were trained on.

        Raises:
            IfttnError: the file of weights does not name them.
        """
        with safetensors.safe_open(self.folder / "weights.safetensors", "pt") as file:
            names = (file.metadata() or {}).get("trained_on")
        if names is None:
            raise IfttnError(
                f"the weights in {self.folder} do not say which videos they were trained on, and so cannot be tested: "
                "remove the folder and train it again"
            )
        return frozenset(json.loads(names))

    def weights(self, part: str = "") -> dict[str, torch.Tensor]:
        """The trained weights of a part, by their names within it.

        Raises:
            IfttnError: the run is not finished, or has no such part.
        """
        if not self.finished:
            raise IfttnError(f"the run in {self.folder} is not finished: `ifttn train` continues it")
        state = safetensors.torch.load_file(self.folder / "weights.safetensors")
        prefix = f"{part}." if part else ""
        chosen = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        if not chosen:
            parts = sorted({".".join(key.split(".")[:2]) for key in state})
            raise IfttnError(f"the run in {self.folder} has no part {part!r}: it has {', '.join(parts)}")
        return chosen

    def network(self, device: str = "cpu") -> Network:
        """The trained network in evaluation mode.

        Raises:
            IfttnError: the run is not finished, or is a peer's, which only has scores.
        """
        network = self.scorer(device)
        if not isinstance(network, Network):
            raise IfttnError(
                f"the run in {self.folder} is a peer's: it has scores for the tables, and nothing else; choose another"
            )
        return network

    def scorer(self, device: str = "cpu") -> Scorer:
        """The trained network in evaluation mode, which may be a peer."""
        network = build_network(settings_of(self.identity["network"]))
        try:
            network.load_state_dict(self.weights())
        except RuntimeError as error:
            raise IfttnError(f"the weights in {self.folder} are of another network than the one now made") from error
        return network.to(device).eval()

    def scores(self) -> Scores:
        """The scores of the test videos.

        Raises:
            IfttnError: it has not been tested.
        """
        if not self.tested:
            raise IfttnError(f"the run in {self.folder} has no scores: `ifttn test` makes them")
        return Scores.load(self.folder / "scores.npz")


def identity_of(name: str, recipe: Recipe, preset_name: str, preset: Preset, **where: Any) -> dict[str, Any]:
    """What identifies a run: recipe, preset, and `where` it is trained (dataset, split, actions, seed, hold_out, and
    `videos`, the identity of the videos in the store).

    It has only the schedules of the recipe's own stages, and the size of peers only for a peer, so that a change to
    another recipe's training does not make this one another run.
    """
    network = network_settings(recipe, preset, len(where["actions"]))
    own = {stage.name: preset.schedules[stage.name] for stage in recipe.stages}
    return {
        "recipe": name,
        "preset": preset_name,
        **where,
        "network": asdict(network),
        "recipe_row": {key: value for key, value in asdict(recipe).items() if key != "why"},
        "preset_row": asdict(replace(preset, schedules=own, peers=preset.peers if recipe.peer else None)),
    }


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The keys in which two runs differ, such as "preset_row.store.flow"."""
    differing = []
    for key, value in here.items():
        if isinstance(value, dict) and isinstance(there.get(key), dict):
            differing += [f"{key}.{below}" for below in _differing(there[key], value)]
        elif there.get(key) != value:
            differing.append(key)
    return differing


def _tuples(value: Any) -> Any:
    """JSON has lists where our rows have tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
