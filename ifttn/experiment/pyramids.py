"""Computes the pyramids of frozen streams once, for every run that uses the same streams.

A frozen stream gives the same features for the same view in every epoch. Where a preset fixes the number of views of a
video, the features of these views are written to disk as half floats, and are memory-mapped when they are read.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ifttn.data.loading import batches, in_order
from ifttn.data.samples import SnippetDataset
from ifttn.files import held, not_written, partial_beside
from ifttn.model.backbone import LEVELS, Backbone, Pyramid
from ifttn.model.network import normalise
from ifttn.vocabulary import MODALITIES, IfttnError

FOLDER = "pyramids"


class FrozenPyramids:
    """The pyramids of one frozen stream for a training set.

    Args:
        folder: the folder of the runs on this split. Pyramids are kept below it until `drop_pyramids`.
        stream: the frozen stream, in evaluation mode.
        modality: the input of the stream.
        dataset: the training videos. Only the modality of the stream is read.
        scene: everything else that decides the views (split, seed, crops). Runs share pyramids only if all values are
            equal. The names, order and content of the videos are always compared.
    """

    def __init__(
        self, folder: Path, stream: Backbone, modality: str, dataset: SnippetDataset, scene: Sequence[object]
    ) -> None:
        self.stream, self.modality, self.dataset = stream, modality, replace(dataset, modalities=(modality,))
        videos = dataset.store.identity(video.name for video in dataset.videos)
        digest = hashlib.sha256(repr((modality, *scene, videos)).encode())
        for tensor in stream.state_dict().values():
            digest.update(tensor.cpu().numpy().tobytes())
        self.folder = Path(folder) / FOLDER / f"{modality}-{digest.hexdigest()[:16]}"
        self.opened: dict[int, dict[int, np.ndarray]] = {}

    def view(self, view: int, batch: int = 16) -> dict[int, np.ndarray]:
        """Level -> (videos, K, C, H, W) half floats of one view. Missing pyramids are computed."""
        folder = self.folder / f"view{view}"
        if view not in self.opened:
            if not folder.exists():
                self._compute(view, folder, batch)
            self.opened[view] = {level: np.load(folder / f"level{level}.npy", mmap_mode="r") for level in LEVELS}
        return self.opened[view]

    def bytes_to_write(self, views: Iterable[int]) -> int:
        """The disk space in bytes of those views that are not computed yet."""
        missing = sum(not (self.folder / f"view{view}").exists() for view in views)
        shape = (1, 1, MODALITIES[self.modality].channels, self.dataset.size, self.dataset.size)
        pyramid, _ = self._pyramid(torch.zeros(shape, dtype=torch.uint8))
        values = sum(x.numel() for x in pyramid.values()) * self.dataset.segments * len(self.dataset)
        return missing * values * np.dtype(np.float16).itemsize

    def _compute(self, view: int, folder: Path, batch: int) -> None:
        partial = partial_beside(folder)
        partial.mkdir(parents=True)
        files: dict[int, np.ndarray] = {}
        row, device = 0, str(next(self.stream.parameters()).device)
        try:
            for examples in batches(self.dataset, in_order(self.dataset, batch, view), device):
                pyramid, segments = self._pyramid(examples.inputs[self.modality])
                for level, x in pyramid.items():
                    x = x.unflatten(0, (-1, segments)).half().cpu().numpy()
                    if level not in files:
                        shape = (len(self.dataset), *x.shape[1:])
                        path = partial / f"level{level}.npy"
                        files[level] = np.lib.format.open_memmap(path, "w+", np.float16, shape)
                        _reserve(path)
                    files[level][row : row + len(x)] = x
                row += len(examples.names)
            files.clear()
            if not folder.exists():  # else another run has computed the same pyramids in the meantime
                os.replace(partial, folder)
        except OSError as error:
            raise not_written(folder, error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @torch.inference_mode()
    def _pyramid(self, images: torch.Tensor) -> tuple[Pyramid, int]:
        device = next(self.stream.parameters()).device
        return self.stream(normalise(images.to(device).flatten(0, 1), self.modality)), images.shape[1]

    def rows(self, view: int, videos: np.ndarray, device: str) -> Pyramid:
        """The pyramid of some videos in one view: level -> (S, C, H, W)."""
        found = {level: torch.from_numpy(x[videos]) for level, x in self.view(view).items()}
        if torch.device(device).type == "cuda":  # from pinned memory, so that the host does not wait
            found = {level: x.pin_memory().to(device, non_blocking=True) for level, x in found.items()}
        # The layout is changed before the conversion: half floats move faster.
        return {
            level: x.flatten(0, 1).contiguous(memory_format=torch.channels_last).float() for level, x in found.items()
        }


def _reserve(path: Path) -> None:
    """Reserve the disk space of a file now: a write to a mapped file on a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def announce(folder: Path, wanted: int, aloud: bool) -> None:
    """Print how much disk space the pyramids will take, before they are computed.

    Raises:
        IfttnError: the disk has less free space.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    line = f"{folder / FOLDER}: features of the frozen streams take {wanted / 1e6:,.0f} MB of disk"
    if wanted > free:
        raise IfttnError(f"{line}, and {free / 1e6:,.0f} MB are free: make room, or choose another folder for runs")
    if aloud and wanted:
        print(f"{line} while the rest is trained ({free / 1e6:,.0f} MB are free)", file=sys.stderr)


def drop_pyramids(folder: Path) -> None:
    """Remove the pyramids of a split, unless a training reads them now: the last training removes them."""
    if (folder / FOLDER).exists():
        with suppress(IfttnError), held(folder):
            shutil.rmtree(folder / FOLDER)
