"""A trained run, ready for a video file.

Shapes: K segments, A actions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8

from ifttn.data.augmentation import apply, test_crops
from ifttn.data.decoding import Decoded, decode
from ifttn.data.flow import FLOWS, to_bytes
from ifttn.data.sampling import centre_starts, snippet_indices
from ifttn.experiment.recipes import LATE_FUSION, Preset
from ifttn.experiment.runs import Run
from ifttn.model.network import Network


@dataclass(frozen=True)
class Prediction:
    """What a network says of one video."""

    actions: tuple[str, ...]
    scores: Float[np.ndarray, " A"]
    """Late-fused raw scores."""
    heads: Mapping[str, Float[np.ndarray, " A"]]
    """Each head's own scores."""
    votes: Mapping[str, Float[np.ndarray, "V A"]]
    """Each head's votes, of K snippets or K - 1 pairs, in temporal order."""
    seconds: Float[np.ndarray, " K"]
    """When the snippets' frames are shown."""

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest actions, each with its probability: a softmax over the late-fused scores, divided by their
        total weight so that it is as sure as one head."""
        weight = sum(LATE_FUSION[head] for head in self.heads)
        probabilities = torch.softmax(torch.from_numpy(self.scores / weight), 0)
        best = probabilities.topk(min(count, len(self.actions)))
        return [(self.actions[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


class Recognizer:
    """`Recognizer.load(run)(video)`: from a file of any size and codec to a prediction."""

    def __init__(self, network: Network, actions: tuple[str, ...], preset: Preset) -> None:
        self.network, self.actions, self.preset = network, actions, preset

    @classmethod
    def load(cls, run: Path | Run, device: str = "cpu") -> "Recognizer":
        """From a run folder.

        Raises:
            IfttnError: there is no finished run in it.
        """
        run = run if isinstance(run, Run) else Run(run)
        return cls(run.network(device), tuple(run.asked["actions"]), run.preset())

    def __call__(self, video: Path) -> Prediction:
        """Predict the action of a video file.

        Raises:
            IfttnError: the file is no video that can be decoded, or has fewer than two frames.
        """
        settings = self.preset.store
        decoded = decode(video, (settings.width, settings.height), self._needed)
        frames, fields = self._snippets(len(decoded.kinds))
        planes = {m: self._planes(m, decoded, frames, fields) for m in self.network.settings.modalities}
        votes: dict[str, list[torch.Tensor]] = {head: [] for head in self.network.heads}
        for crop in test_crops(settings.height, settings.width, self.preset.size, self.preset.crops):
            inputs = {
                m: torch.from_numpy(apply(crop, x, self.preset.size, m))[None].to(self.device)
                for m, x in planes.items()
            }
            with torch.inference_mode():
                for head, vote in self.network(inputs).votes.items():
                    votes[head].append(vote[0])
        mean = {head: torch.stack(views).mean(0).cpu() for head, views in votes.items()}
        heads = {head: vote.mean(0) for head, vote in mean.items()}
        fused = torch.stack([LATE_FUSION[head] * scores for head, scores in heads.items()]).sum(0)
        return Prediction(
            self.actions,
            fused.numpy(),
            {head: scores.numpy() for head, scores in heads.items()},
            {head: vote.numpy() for head, vote in mean.items()},
            frames / decoded.fps,
        )

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def _snippets(self, num_frames: int) -> tuple[Integer[np.ndarray, " K"], Integer[np.ndarray, "K L"]]:
        return snippet_indices(centre_starts(num_frames, self.preset.segments), num_frames)

    def _needed(self, num_frames: int) -> Integer[np.ndarray, " n"]:
        frames, fields = self._snippets(num_frames)
        between = [fields, fields + 1] if "flow" in self.network.settings.modalities else []
        return np.unique(np.concatenate([frames, *between], axis=None))

    def _planes(
        self, modality: str, decoded: Decoded, frames: Integer[np.ndarray, " K"], fields: Integer[np.ndarray, "K L"]
    ) -> UInt8[np.ndarray, "K C H W"]:
        if modality == "rgb":
            return np.ascontiguousarray(decoded.at(frames).transpose(0, 3, 1, 2))
        if modality == "mv":
            levels = decoded.on_pixels(to_bytes(decoded.cells[fields], self.preset.store.bound))  # (K, L, 2, H, W)
        else:
            flow = FLOWS[self.preset.store.flow]
            moved = [
                flow(decoded.at(np.arange(start, stop + 2)))[[*own - start]]
                for own in fields
                for start, stop in [(own.min(), own.max())]
            ]
            levels = to_bytes(np.stack(moved), self.preset.store.bound)
        return levels.reshape(len(frames), -1, *levels.shape[-2:])
