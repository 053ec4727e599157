"""Run: the folder of one trained recipe. Nothing about a run is in a file name; everything is in the folder.

recipe.json           what was asked: recipe, preset, data set, split, seed, actions
metrics.jsonl         one line an epoch
checkpoint.pt         while training: weights, optimiser, and how far it got
weights.safetensors   when finished
scores.npz            when tested
"""

import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch
import torch
import torchvision

from ifttn.data.store import StoreSettings
from ifttn.experiment.evaluation import Scores
from ifttn.experiment.recipes import Preset, Recipe, Schedule, network_settings
from ifttn.model.network import Network, NetworkSettings
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
            old = self.asked
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
        write_atomically(path, json.dumps({**asked, "made_with": made_with}, indent=1).encode())

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
        """Add a line to metrics.jsonl."""
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> pd.DataFrame:
        """One row an epoch: stage, epoch, of, loss, accuracy, lr, seconds, videos_per_second.

        An epoch that was interrupted and trained again counts once.
        """
        with suppress(FileNotFoundError):
            rows = pd.read_json(self.folder / "metrics.jsonl", lines=True)
            return rows.drop_duplicates(["stage", "epoch"], keep="last", ignore_index=True)
        return pd.DataFrame(columns=["stage", "epoch", "of", "loss", "accuracy", "lr", "seconds", "videos_per_second"])

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keep how far training got."""
        partial = self.folder / "checkpoint.pt.partial"
        torch.save(dict(state), partial)
        os.replace(partial, self.folder / "checkpoint.pt")

    def checkpoint(self, device: str) -> dict[str, Any] | None:
        """How far training got, or None."""
        path = self.folder / "checkpoint.pt"
        return torch.load(path, map_location=device, weights_only=True) if path.exists() else None

    def finish(self, network: Network) -> None:
        """Write the trained weights, and drop the checkpoint."""
        state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        write_atomically(self.folder / "weights.safetensors", safetensors.torch.save(state))
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)

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
        """The trained network, in evaluation mode."""
        network = Network(NetworkSettings(**self.asked["network"]))
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
    """What identifies a run: the resolved recipe, and where it is trained (dataset, split, actions, seed)."""
    return {
        "recipe": name,
        "preset": preset_name,
        **where,
        "network": asdict(network_settings(recipe, preset, len(where["actions"]))),
        "recipe_row": asdict(recipe),
        "preset_row": asdict(preset),
    }


def _tuples(value: Any) -> Any:
    """JSON knows lists only; ours were tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def write_atomically(path: Path, content: bytes) -> None:
    """A reader finds the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)
