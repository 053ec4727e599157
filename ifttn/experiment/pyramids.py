"""Pyramids of frozen streams, computed once and read by every run that stands on the same streams.

While a stage trains only what follows the streams, a stream says the same of the same view in every epoch. With a
fixed number of views a video, its pyramids go to disk as half floats, memory-mapped when read.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ifttn.data.snippets import SnippetDataset, loader
from ifttn.files import partial_beside
from ifttn.model.backbone import LEVELS, Backbone, Pyramid
from ifttn.model.network import normalise


class FrozenPyramids:
    """The pyramids of one frozen stream over a training set.

    Args:
        folder: where pyramids of all streams are kept; may be removed at any time that no run is training.
        stream: the frozen stream, in evaluation mode.
        modality: what it sees.
        dataset: training videos. Of its modalities only this one is read.
        scene: whatever else decides the views (split, seed, crops), so that pyramids are shared only where all agree.
    """

    def __init__(
        self, folder: Path, stream: Backbone, modality: str, dataset: SnippetDataset, scene: Sequence[object]
    ) -> None:
        self.stream, self.modality, self.dataset = stream, modality, replace(dataset, modalities=(modality,))
        digest = hashlib.sha256(repr((modality, *scene)).encode())
        for tensor in stream.state_dict().values():
            digest.update(tensor.cpu().numpy().tobytes())
        self.folder = Path(folder) / f"{modality}-{digest.hexdigest()[:16]}"
        self.opened: dict[int, dict[int, np.ndarray]] = {}

    def view(self, view: int, batch: int = 32) -> dict[int, np.ndarray]:
        """Level -> (videos, K, C, H, W) half floats of one view, computed if they are not there yet."""
        folder = self.folder / f"view{view}"
        if view not in self.opened:
            if not folder.exists():
                self._compute(view, folder, batch)
            self.opened[view] = {level: np.load(folder / f"level{level}.npy", mmap_mode="r") for level in LEVELS}
        return self.opened[view]

    def _compute(self, view: int, folder: Path, batch: int) -> None:
        partial = partial_beside(folder)
        partial.mkdir(parents=True)
        files: dict[int, np.ndarray] = {}
        row = 0
        try:
            for examples in loader(self.dataset, batch, view=view, shuffle=False):
                pyramid, segments = self._pyramid(examples.inputs[self.modality])
                for level, x in pyramid.items():
                    x = x.unflatten(0, (-1, segments)).half().cpu().numpy()
                    if level not in files:
                        shape = (len(self.dataset), *x.shape[1:])
                        path = partial / f"level{level}.npy"
                        files[level] = np.lib.format.open_memmap(path, "w+", np.float16, shape)
                    files[level][row : row + len(x)] = x
                row += len(examples.names)
            files.clear()
            if not folder.exists():  # else another run computed the same in the meantime
                os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @torch.inference_mode()
    def _pyramid(self, images: torch.Tensor) -> tuple[Pyramid, int]:
        device = next(self.stream.parameters()).device
        return self.stream(normalise(images.to(device).flatten(0, 1), self.modality)), images.shape[1]

    def rows(self, view: int, videos: np.ndarray, device: str) -> Pyramid:
        """The pyramid of some videos in one view: level -> (S, C, H, W)."""
        return {
            level: torch.from_numpy(x[videos])
            .to(device)
            .float()
            .flatten(0, 1)
            .contiguous(memory_format=torch.channels_last)
            for level, x in self.view(view).items()
        }
