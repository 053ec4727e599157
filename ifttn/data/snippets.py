"""From the store to batches: snippets of a video, drawn, cropped and stacked.

Shapes: N videos, K segments, C channels of a modality's snippet, L = STACK motion fields, H x W pixels.
"""

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import torch
from jaxtyping import Integer, UInt8
from torch.utils.data import DataLoader, Dataset, Sampler

from ifttn.data import augmentation, sampling
from ifttn.data.augmentation import Crop
from ifttn.data.planes import Snippets
from ifttn.data.store import Store
from ifttn.vocabulary import MODALITIES, Batch, IfttnError, Video

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
    fitted: bool = True
    """Crops are resized and mirrored here. Else `finish` does it for a batch, where a GPU has the time: a loader's
    cores then do little but decode."""

    def __post_init__(self) -> None:
        """Raise IfttnError for an unknown modality or videos that are not in the store."""
        if unknown := set(self.modalities) - set(MODALITIES):
            raise IfttnError(f"unknown modality {', '.join(sorted(unknown))}; choose from {', '.join(MODALITIES)}")
        stored = set(self.store.index().video)
        if absent := [video.name for video in self.videos if video.name not in stored]:
            raise IfttnError(
                f"{len(absent)} of {len(self.videos)} videos are not in {self.store.folder}, the first is {absent[0]}; "
                "run `ifttn prepare`"
            )
        settings = self.store.settings
        self.views = augmentation.test_crops(settings.height, settings.width, self.size, self.crops)
        self._memory = _Memory(2 * len(self.modalities))  # a batch in use, and the next

    @property
    def side(self) -> int:
        """Of the planes of a batch, in pixels."""
        settings = self.store.settings
        return self.size if self.fitted else min(settings.height, settings.width)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        planes = {modality: x[0] for modality, x in self._empty(1, _Memory(0)).items()}
        self._fill(key, planes)
        return planes, self.videos[key[1]].label, self.videos[key[1]].name

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """A whole batch, each video decoded to its place in it."""
        planes = self._empty(len(keys), self._memory)
        crops = [self._fill(key, {m: x[row] for m, x in planes.items()}) for row, key in enumerate(keys)]
        videos = [self.videos[index] for _, index in keys]
        return Batch(
            {modality: torch.from_numpy(x) for modality, x in planes.items()},
            torch.tensor([video.label for video in videos]),
            [video.name for video in videos],
            None if self.fitted else torch.tensor([(crop.height, crop.width, crop.mirrored) for crop in crops]),
        )

    def _empty(self, count: int, memory: "_Memory") -> dict[str, UInt8[np.ndarray, "N K C H W"]]:
        shapes = {m: (count, self.segments, MODALITIES[m].channels, self.side, self.side) for m in self.modalities}
        if self.fitted:
            return {modality: memory.array(shape) for modality, shape in shapes.items()}
        return {modality: _planes(memory.array(_laid(shape, modality)), modality) for modality, shape in shapes.items()}

    def draw(
        self, key: tuple[int, int], num_frames: int
    ) -> tuple[Integer[np.ndarray, " K"], Integer[np.ndarray, "K L"], Crop]:
        """Frames, fields and crop of a sample, of a video so long."""
        view, index = key
        if self.scales is None:
            starts, crop = sampling.centre_starts(num_frames, self.segments), self.views[view]
        else:
            rng, settings = np.random.default_rng((self.seed, view, index)), self.store.settings
            starts = sampling.random_starts(num_frames, self.segments, rng)
            crop = augmentation.random_crop(settings.height, settings.width, self.size, self.scales, rng)
        return *sampling.snippet_indices(starts, num_frames), crop

    def _fill(self, key: tuple[int, int], planes: dict[str, UInt8[np.ndarray, "K C H W"]]) -> Crop:
        """Put a sample into arrays of its shape."""
        with self.store.open(self.videos[key[1]].name) as entry:
            frames, fields, crop = self.draw(key, entry.frames)
            snippets = Snippets(entry, frames, fields)
            for modality, x in planes.items():
                if self.fitted:
                    cut = _planes(
                        np.empty(_laid((*x.shape[:2], crop.height, crop.width), modality), np.uint8), modality
                    )
                    snippets.planes(modality, crop.part, cut)
                    augmentation.fit(cut, crop, self.size, modality, x)
                else:
                    snippets.planes(modality, crop.part, x[..., : crop.height, : crop.width])
        return crop


def loader(
    dataset: SnippetDataset,
    batch: int,
    *,
    view: int | Sequence[int],
    shuffle: bool,
    workers: int = 0,
    start_batch: int = 0,
) -> DataLoader[Batch]:
    """Batches of one view of every video; the order of a shuffled view depends on (seed, view) alone.

    Of several views, one after the other: the workers go on to the next without a pause. `start_batch` goes on in the
    middle of a view with the very batches that are left of it. Where there is a GPU the batches lie in pinned memory.
    """
    views = [view] if isinstance(view, int) else view
    return DataLoader(
        dataset,
        batch_sampler=_Batches(dataset, batch, views, shuffle, start_batch),
        num_workers=workers,
        collate_fn=cast(Any, whole),
        worker_init_fn=single_threaded,
        pin_memory=torch.cuda.is_available(),
    )


def finish(batch: Batch, size: int, device: str | torch.device) -> Batch:
    """The batch on the device, and its crops fitted there if they are not yet."""
    inputs = {modality: x.to(device, non_blocking=True) for modality, x in batch.inputs.items()}
    if batch.crops is not None:
        inputs = {m: augmentation.fit_on_device(x, batch.crops, size, m) for m, x in inputs.items()}
    return Batch(inputs, batch.labels.to(device, non_blocking=True), batch.names)


class _Memory:
    """Arrays of batches that nobody holds any more, to be written again.

    Memory that the system has yet to hand out costs a batch up to a tenth of the time of its decoding.
    """

    def __init__(self, most: int) -> None:
        self.arrays = deque[np.ndarray](maxlen=most)

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return _Memory, (cast(int, self.arrays.maxlen),)

    def array(self, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
        """Of any content."""
        for array, holders in zip(self.arrays, _holders(self.arrays), strict=True):
            # Tensors and views hold the array that they are made of.
            if array.shape == shape and holders == _holders([np.empty(0)])[0]:
                return array
        array = np.empty(shape, np.uint8)
        self.arrays.append(array)
        return array


def _holders(arrays: Iterable[np.ndarray]) -> list[int]:
    return [sys.getrefcount(array) for array in arrays]


class _Batches(Sampler):
    """Keys of a dataset, batch by batch and view by view."""

    def __init__(
        self, dataset: SnippetDataset, batch: int, views: Sequence[int], shuffle: bool, start_batch: int
    ) -> None:
        self.count, self.seed = len(dataset), dataset.seed
        self.batch, self.views, self.shuffle, self.start_batch = batch, views, shuffle, start_batch

    def __len__(self) -> int:
        return len(self.views) * -(-self.count // self.batch) - self.start_batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first = self.start_batch * self.batch
        for view in self.views:
            every = np.arange(self.count)
            order = np.random.default_rng((self.seed, view)).permutation(self.count) if self.shuffle else every
            for start in range(first, self.count, self.batch):
                yield [(view, int(index)) for index in order[start : start + self.batch]]
            first = 0


def whole_frames(
    store: Store, name: str, modalities: Sequence[str], segments: int
) -> dict[str, UInt8[np.ndarray, "K C H W"]]:
    """The test snippets of a video, from the centres of its K segments, uncropped at the size of the store.

    Raises:
        IfttnError: the video is not in the store, or its entry is damaged.
    """
    with store.open(name) as entry:
        starts = sampling.centre_starts(entry.frames, segments)
        snippets = Snippets(entry, *sampling.snippet_indices(starts, entry.frames))
        return {modality: snippets.planes(modality) for modality in modalities}


def _laid(shape: tuple[int, ...], modality: str) -> tuple[int, ...]:
    """Shape in memory of planes that are still to be fitted: colours side by side, as they come from a JPEG."""
    return (*shape[:-3], *shape[-2:], shape[-3]) if modality == "rgb" else shape


def _planes(array: UInt8[np.ndarray, "..."], modality: str) -> UInt8[np.ndarray, "... C H W"]:
    """What is laid so, as planes."""
    return np.moveaxis(array, -1, -3) if modality == "rgb" else array


def whole(batch: Batch) -> Batch:
    """Of `SnippetDataset.__getitems__`, which makes whole batches already."""
    return batch


def single_threaded(worker: int) -> None:
    """At the start of a loader's worker."""
    # OpenCV's own threads deadlock or starve one another in forked workers.
    cv2.setNumThreads(0)
