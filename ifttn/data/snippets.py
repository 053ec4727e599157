"""From the store to batches: snippets of a video, drawn, cropped and stacked.

Shapes: N videos, K segments, C channels of a modality's snippet, L = STACK motion fields, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Integer, UInt8
from torch.utils.data import DataLoader, Dataset

from ifttn.data import augmentation, sampling
from ifttn.data.store import Store
from ifttn.vocabulary import MODALITIES, STACK, Batch, IfttnError, Video

Sample = tuple[dict[str, UInt8[np.ndarray, "K C H W"]], int, str]
"""Bytes per modality, label, name of the video."""


@dataclass
class SnippetDataset(Dataset):
    """Samples of prepared videos, by (view, index of the video).

    With `scales`, for training: a view is an epoch, and segments and crop are drawn from (seed, view, index), so that
    a sample does not depend on workers or on what was read before. Without, for tests: snippets from the centres of
    the segments, and a view is one of the `crops` fixed crops.
    """

    store: Store
    videos: Sequence[Video]
    modalities: Sequence[str]
    segments: int
    size: int
    """Side in pixels of the crop handed to the network."""
    scales: Sequence[float] | None = None
    """Sides of random crops relative to the shorter side of the stored frame, in falling order."""
    crops: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise IfttnError for an unknown modality or videos that are not in the store."""
        if unknown := set(self.modalities) - set(MODALITIES):
            raise IfttnError(f"unknown modality {', '.join(sorted(unknown))}; choose from {', '.join(MODALITIES)}")
        if absent := [video.name for video in self.videos if video.name not in self.store]:
            raise IfttnError(
                f"{len(absent)} of {len(self.videos)} videos are not in {self.store.folder}, the first is {absent[0]}; "
                "run `ifttn prepare`"
            )
        settings = self.store.settings
        self.views = augmentation.test_crops(settings.height, settings.width, self.size, self.crops)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        planes, crop, video = self.drawn(key)
        inputs = {modality: augmentation.apply(crop, x, self.size, modality) for modality, x in planes.items()}
        return inputs, video.label, video.name

    def drawn(self, key: tuple[int, int]) -> tuple[dict[str, UInt8[np.ndarray, "K C H W"]], augmentation.Crop, Video]:
        """Stored frames of one (view, index) before its crop, the crop, and the video."""
        view, index = key
        video, settings = self.videos[index], self.store.settings
        num_frames = self.store.num_frames(video.name)
        if self.scales is None:
            starts, crop = sampling.centre_starts(num_frames, self.segments), self.views[view]
        else:
            rng = np.random.default_rng((self.seed, view, index))
            starts = sampling.random_starts(num_frames, self.segments, rng)
            crop = augmentation.random_crop(settings.height, settings.width, self.size, self.scales, rng)
        frames, fields = sampling.snippet_indices(starts, num_frames)
        planes = {modality: _read(self.store, video.name, modality, frames, fields) for modality in self.modalities}
        return planes, crop, video


def loader(
    dataset: SnippetDataset, batch: int, *, view: int, shuffle: bool, workers: int = 0, start_batch: int = 0
) -> DataLoader[Batch]:
    """Batches of one view of every video; the order of a shuffled view depends on (seed, view) alone.

    `start_batch` goes on in the middle of a view with the very batches that are left of it.
    """
    count = len(dataset)
    order = np.random.default_rng((dataset.seed, view)).permutation(count) if shuffle else np.arange(count)
    batches = [[(view, int(i)) for i in order[first : first + batch]] for first in range(0, count, batch)]
    return DataLoader(
        dataset,
        batch_sampler=batches[start_batch:],
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_single_threaded,
    )


def _read(
    store: Store, name: str, modality: str, frames: Integer[np.ndarray, " K"], fields: Integer[np.ndarray, "K L"]
) -> UInt8[np.ndarray, "K C H W"]:
    if modality == "rgb":
        return store.read(name, "rgb", frames)
    if modality != "rgbdiff":
        planes = store.read(name, modality, fields.ravel())
        return planes.reshape(len(fields), 2 * STACK, *planes.shape[2:])
    # Field t lies between frames t and t + 1.
    wanted, position = np.unique([fields, fields + 1], return_inverse=True)
    read = store.read(name, "rgb", wanted).astype(np.int16)
    earlier, later = read[position.reshape(2, *fields.shape)]
    halves = ((256 + later - earlier) >> 1).astype(np.uint8)
    return halves.reshape(len(fields), 3 * STACK, *halves.shape[3:])


def _collate(samples: list[Sample]) -> Batch:
    inputs, labels, names = zip(*samples, strict=True)
    stacked = {modality: torch.from_numpy(np.stack([each[modality] for each in inputs])) for modality in inputs[0]}
    return Batch(stacked, torch.tensor(labels), list(names))


def _single_threaded(worker: int) -> None:
    # OpenCV's own threads deadlock or starve one another in forked workers.
    cv2.setNumThreads(0)
