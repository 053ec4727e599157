"""Run: the folder of one trained recipe. Nothing about a run is in a file name; everything is in the folder.

recipe.json           what was asked: recipe, preset, data set, split, seed, actions
loaded.json           which weights each part started from
metrics.jsonl         one line an epoch
checkpoint.pt         while training: weights, optimiser, random states, and how far it got
weights.safetensors   when finished: weights, and the names of the videos that they were trained on
scores.npz            when tested: of all views, and of the centre view with the snippets in three orders
"""

import io
import json
import os
import pickle
import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
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
from ifttn.experiment.networks import network_settings
from ifttn.experiment.presets import Preset, Schedule
from ifttn.experiment.recipes import Recipe
from ifttn.experiment.scores import Scores
from ifttn.files import write_whole
from ifttn.model.network import Network, Scorer
from ifttn.model.peers.trained import build_network, settings_of
from ifttn.vocabulary import MODALITIES, IfttnError


class Run:
    """One run folder, whether begun, training, finished or tested.

    Args:
        folder: by custom `<runs>/<data set>/split<n>/<recipe>`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    @classmethod
    def of(cls, runs: Path, dataset: str, split: int, recipe: str) -> "Run":
        """The run of a recipe on a split of a data set."""
        return cls(Path(runs) / dataset / f"split{split}" / recipe)

    @property
    def finished(self) -> bool:
        """All its stages are trained."""
        return (self.folder / "weights.safetensors").exists()

    @property
    def tested(self) -> bool:
        """Its scores are there."""
        return (self.folder / "scores.npz").exists()

    @property
    def asked(self) -> dict[str, Any]:
        """What was asked, as recipe.json holds it.

        Raises:
            IfttnError: there is no run in the folder.
        """
        try:
            return _tuples(json.loads((self.folder / "recipe.json").read_text()))
        except FileNotFoundError:
            raise IfttnError(f"no run in {self.folder}: it holds no recipe.json; `ifttn train` makes one") from None

    def begin(self, asked: Mapping[str, Any], device: str = "cpu") -> None:
        """Make the folder, or find that it holds the same run. `device` trains it; its name is kept beside.

        Raises:
            IfttnError: it holds another one; the line names what differs.
        """
        asked = _tuples(json.loads(json.dumps(asked)))
        path = self.folder / "recipe.json"
        if path.exists():
            if differing := _differing(self.asked, asked):
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
        write_whole(path, json.dumps({**asked, "made_with": made_with}, indent=1).encode())

    def fitting(self, actions: tuple[str, ...], store: StoreSettings | None = None) -> "Run":
        """Itself, where it was trained on the actions of a data set, in their order, and on videos prepared like it.

        Raises:
            IfttnError: the actions differ, or what the network sees was prepared otherwise; the line names the first
                difference.
        """
        own = self.asked["actions"]
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
                    f"one has {getattr(store, name)}: prepare the videos as that one was, or train anew"
                )
        return self

    def _seen(self) -> list[str]:
        """The settings of a store that decide what the network sees."""
        modalities = [MODALITIES[name] for name in settings_of(self.asked["network"]).modalities]
        seen = ["width", "height", "quality"]
        seen += ["bound"] * any(modality.is_motion for modality in modalities)
        return seen + ["flow"] * any(modality.name.startswith("flow") for modality in modalities)

    def preset(self) -> Preset:
        """The preset that it was trained at; its `store` is how the videos were prepared that it was trained on."""
        row = self.asked["preset_row"]
        known = {field.name: row[field.name] for field in fields(Preset)}
        known["store"] = StoreSettings(**row["store"])
        known["schedules"] = {name: Schedule(**schedule) for name, schedule in row["schedules"].items()}
        return Preset(**known)

    def log(self, row: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl, after what a crash may have left of the last one."""
        with (self.folder / "metrics.jsonl").open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                file.write(b"" if file.read(1) == b"\n" else b"\n")
            file.write(json.dumps(row).encode() + b"\n")

    def metrics(self) -> pd.DataFrame:
        """One row an epoch: stage, epoch, of, loss, accuracy, lr, seconds, videos_per_second, waiting, ...

        An epoch that was interrupted and trained again counts once; a line that a crash cut off does not count.
        """
        rows = []
        with suppress(FileNotFoundError):
            for line in (self.folder / "metrics.jsonl").read_text().splitlines():
                with suppress(json.JSONDecodeError):
                    rows.append(json.loads(line))
        if not rows:
            columns = ["stage", "epoch", "of", "loss", "accuracy", "lr", "seconds", "videos_per_second"]
            return pd.DataFrame(columns=columns)
        return pd.DataFrame(rows).drop_duplicates(["stage", "epoch"], keep="last", ignore_index=True)

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keep how far training got; until the new checkpoint is whole on the disk, the last one stays.

        Raises:
            IfttnError: it cannot be written; the last one is still there.
        """
        content = io.BytesIO()
        torch.save(dict(state), content)
        try:
            write_whole(self.folder / "checkpoint.pt", content.getbuffer())
        except IfttnError as error:
            raise IfttnError(f"{error}; the last one is whole, and the same command goes on from it") from error

    def checkpoint(self) -> dict[str, Any] | None:
        """How far training got, or None.

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
        """Write the trained weights and the names of all videos that had a part in them; drop the checkpoint."""
        state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        names = {"trained_on": json.dumps(sorted(trained_on))}
        write_whole(self.folder / "weights.safetensors", safetensors.torch.save(state, metadata=names))
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)

    @property
    def trained_on(self) -> frozenset[str]:
        """Names of the videos that its weights, and those that they started from, were trained on.

        Raises:
            IfttnError: the weights do not say.
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
        """The trained weights of a part, named from that part on.

        Raises:
            IfttnError: the run is not finished, or has no such part.
        """
        if not self.finished:
            raise IfttnError(f"the run in {self.folder} is not finished: `ifttn train` goes on where it stopped")
        state = safetensors.torch.load_file(self.folder / "weights.safetensors")
        prefix = f"{part}." if part else ""
        chosen = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        if not chosen:
            parts = sorted({".".join(key.split(".")[:2]) for key in state})
            raise IfttnError(f"the run in {self.folder} has no part {part!r}: it has {', '.join(parts)}")
        return chosen

    def network(self, device: str = "cpu") -> Network:
        """The trained network, in evaluation mode, with all that there is to look into.

        Raises:
            IfttnError: the run is not finished, or is a peer's.
        """
        network = self.scorer(device)
        if not isinstance(network, Network):
            raise IfttnError(
                f"the run in {self.folder} is a peer's: it has scores for the tables, and nothing else; choose another"
            )
        return network

    def scorer(self, device: str = "cpu") -> Scorer:
        """The trained network, a peer's as well, in evaluation mode, for its scores."""
        network = build_network(settings_of(self.asked["network"]))
        network.load_state_dict(self.weights())
        return network.to(device).eval()

    def scores(self) -> Scores:
        """What the network said of the test videos.

        Raises:
            IfttnError: it has not been tested.
        """
        if not self.tested:
            raise IfttnError(f"the run in {self.folder} has no scores: `ifttn test` makes them")
        return Scores.load(self.folder / "scores.npz")


def asked(name: str, recipe: Recipe, preset_name: str, preset: Preset, **where: Any) -> dict[str, Any]:
    """What identifies a run: the resolved recipe, and where it is trained (dataset, split, actions, seed, hold_out, and
    `videos`, the identity of those in the store).

    Of the preset's schedules only those of the recipe's own stages: another length of TTN leaves a stream what it was,
    and so does another size of peers.
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
    """Where two runs were asked for different things, such as "preset_row.store.flow"."""
    differing = []
    for key, value in here.items():
        if isinstance(value, dict) and isinstance(there.get(key), dict):
            differing += [f"{key}.{below}" for below in _differing(there[key], value)]
        elif there.get(key) != value:
            differing.append(key)
    return differing


def _tuples(value: Any) -> Any:
    """JSON knows lists only; ours were tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
