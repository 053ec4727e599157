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
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors
import safetensors.torch
import torch
import torchvision

from ifttn.data.store import StoreSettings
from ifttn.experiment.evaluation import Scores
from ifttn.experiment.recipes import Preset, Recipe, Schedule, network_settings
from ifttn.files import write_whole
from ifttn.model.network import Network, Scorer
from ifttn.model.peers.trained import build, settings_of
from ifttn.vocabulary import IfttnError


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

    def begin(self, asked: Mapping[str, Any]) -> None:
        """Make the folder, or find that it holds the same run.

        Raises:
            IfttnError: it holds another one; the line names what differs.
        """
        asked = _tuples(json.loads(json.dumps(asked)))
        path = self.folder / "recipe.json"
        if path.exists():
            old = _completed(self.asked)
            differing = [key for key in asked if asked[key] != old.get(key)]
            if differing:
                raise IfttnError(
                    f"{self.folder} holds another run (its {', '.join(differing)} differ): "
                    "remove the folder, or choose another one for runs"
                )
            return
        made_with = {
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        }
        write_whole(path, json.dumps({**asked, "made_with": made_with}, indent=1).encode())

    def preset(self) -> Preset:
        """The preset that it was trained at."""
        row = self.asked["preset_row"]
        return Preset(
            **{
                **row,
                "store": StoreSettings(**row["store"]),
                "schedules": {name: Schedule(**schedule) for name, schedule in row["schedules"].items()},
            }
        )

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
            IfttnError: another version wrote it, or it is damaged.
        """
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
            raise IfttnError(f"{path} is damaged: remove it to train from the start") from error
        if "processes" not in state:
            raise IfttnError(f"{path} was written by an older version: remove it to train from the start")
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
        network = build(settings_of(self.asked["network"]))
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
    """What identifies a run: the resolved recipe, and where it is trained (dataset, split, actions, seed, hold_out).

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
        "recipe_row": asdict(recipe),
        "preset_row": asdict(replace(preset, schedules=own, peers=preset.peers if recipe.peer else None)),
    }


def _completed(asked: dict[str, Any]) -> dict[str, Any]:
    """What an older version asked: fields that came later had the value that is now their default, and the schedules of
    all stages were there."""

    def later(of: type[Preset | Recipe]) -> dict[str, Any]:
        return {field.name: field.default for field in fields(of) if field.default is not MISSING}

    recipe, row = {**later(Recipe), **asked["recipe_row"]}, {**later(Preset), **asked["preset_row"]}
    row["schedules"] = {s["name"]: row["schedules"][s["name"]] for s in recipe["stages"]}
    return {"hold_out": 0.0, **asked, "recipe_row": recipe, "preset_row": row}


def _tuples(value: Any) -> Any:
    """JSON knows lists only; ours were tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
