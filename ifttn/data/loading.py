"""From a store to batches on a device: snippets of videos are drawn, cropped and stacked, by processes of their own.

Bytes go to a GPU once, from pinned memory, while it computes on the batch before; it resizes the crops itself.

Shapes: N videos, K segments, C channels of a modality's snippet, L = STACK motion fields, H x W pixels.
"""

import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from jaxtyping import Int, Integer, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ifttn.data import augmentation, sampling
from ifttn.data.augmentation import Crop
from ifttn.data.planes import Snippets
from ifttn.data.store import Store
from ifttn.memory import lacks_memory, loader_killed
from ifttn.vocabulary import MODALITIES, IfttnError, Video

Keys = Sequence[tuple[int, int]]
"""(view, index of the video) of each sample of a batch."""

SHARED = Path("/dev/shm")
"""Where Linux keeps the memory through which processes hand batches over. A container of Docker has 64 MB of it."""
PREFETCHED = 2
"""Batches that each process has ready."""


@dataclass
class Batch:
    """Videos as bytes, so that little crosses to the device."""

    inputs: dict[str, UInt8[Tensor, "N K C H W"]]
    """Per modality. All come from one index draw and one augmentation a video."""
    labels: Int[Tensor, " N"]
    names: list[str]
    crops: Int[Tensor, "N 3"] | None = None
    """Height, width and mirroring of each video's crop, where it has still to be fitted (`augmentation.fit_on_device`);
    it lies in the first rows and columns of its planes."""

    def pin_memory(self) -> "Batch":
        """Called by a loader, so that the bytes can go to the device while it computes."""
        inputs = {modality: x.pin_memory() for modality, x in self.inputs.items()}
        return replace(self, inputs=inputs, labels=self.labels.pin_memory())


@dataclass
class SnippetDataset(Dataset):
    """Samples of prepared videos, by (view, index of the video).

    With `scales`, for training: a view is an epoch, and segments and crop are drawn from (seed, view, index), so that
    a sample does not depend on workers or on what was read before. Without, for tests: snippets come from the centres
    of the segments, and a view is one of the `crops` fixed crops.
    """

    store: Store
    videos: Sequence[Video]
    modalities: Sequence[str]
    segments: int
    size: int
    """Side in pixels of the crop that the network takes."""
    scales: Sequence[float] | None = None
    """Sides of random crops relative to the shorter side of the stored frame, in falling order."""
    crops: int = 1
    seed: int = 0
    fitted: bool = True
    """Crops are resized and mirrored here. Else `finish` does it for a whole batch on a GPU, and the processes of a
    loader do little but decode."""

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
        """Height and width of the planes of a batch, in pixels."""
        settings = self.store.settings
        return self.size if self.fitted else min(settings.height, settings.width)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> tuple[dict[str, UInt8[np.ndarray, "K C H W"]], int, str]:
        """Bytes of each modality, label, and name of the video."""
        batch = self.__getitems__([key])
        return {modality: x[0].numpy() for modality, x in batch.inputs.items()}, int(batch.labels[0]), batch.names[0]

    def __getitems__(self, keys: Keys) -> Batch:
        """A whole batch, each video decoded to its place in it."""
        planes = {modality: self._empty(len(keys), modality) for modality in self.modalities}
        crops = [self._fill(key, {m: x[row] for m, x in planes.items()}) for row, key in enumerate(keys)]
        videos = [self.videos[index] for _, index in keys]
        return Batch(
            {modality: torch.from_numpy(x) for modality, x in planes.items()},
            torch.tensor([video.label for video in videos]),
            [video.name for video in videos],
            None if self.fitted else torch.tensor([(crop.height, crop.width, crop.mirrored) for crop in crops]),
        )

    def _empty(self, count: int, modality: str) -> UInt8[np.ndarray, "N K C H W"]:
        shape = (count, self.segments, MODALITIES[modality].channels, self.side, self.side)
        return self._memory.array(shape) if self.fitted else _unfitted(shape, modality, self._memory.array)

    def draw(
        self, key: tuple[int, int], num_frames: int
    ) -> tuple[Integer[np.ndarray, " K"], Integer[np.ndarray, "K L"], Crop]:
        """Frames, fields and crop of a sample, given the number of frames of its video."""
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
                    cut = _unfitted((*x.shape[:2], crop.height, crop.width), modality)
                    snippets.planes(modality, crop.region, cut)
                    augmentation.fit(cut, crop, self.size, modality, x)
                else:
                    snippets.planes(modality, crop.region, x[..., : crop.height, : crop.width])
        return crop


def _unfitted(
    shape: tuple[int, ...], modality: str, empty: Callable[[tuple[int, ...]], np.ndarray] | None = None
) -> UInt8[np.ndarray, "... C H W"]:
    """Empty planes for crops that are still to be resized: in RGB with colours side by side, as in a JPEG."""
    empty = empty or (lambda shape: np.empty(shape, np.uint8))
    if modality != "rgb":
        return empty(shape)
    return np.moveaxis(empty((*shape[:-3], *shape[-2:], shape[-3])), -1, -3)


class _Memory:
    """Arrays of batches that nobody holds any more, to be written again.

    Memory that the system has yet to hand out costs a batch up to a tenth of the time of its decoding.
    """

    def __init__(self, most: int) -> None:
        self.arrays = deque[np.ndarray](maxlen=most)

    def array(self, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
        """An array of any content."""
        for i in range(len(self.arrays)):
            # Only the deque and this call hold a free array: tensors and views hold the array that they are made of.
            if self.arrays[i].shape == shape and sys.getrefcount(self.arrays[i]) == 2:
                return self.arrays[i]
        self.arrays.append(np.empty(shape, np.uint8))
        return self.arrays[-1]


def in_order(dataset: SnippetDataset, batch: int, view: int = 0) -> list[Keys]:
    """The keys of all videos in one view, so many in a batch."""
    count = len(dataset)
    return [[(view, row) for row in range(first, min(first + batch, count))] for first in range(0, count, batch)]


def batches(dataset: SnippetDataset, keys: Sequence[Keys], device: str, workers: int = 0) -> Iterator[Batch]:
    """These samples, batch by batch, on a device. A CPU resizes crops in the loader, a GPU by itself.

    Args:
        dataset: what the keys refer to.
        keys: of each batch.
        device: "cpu", "cuda", "cuda:1", ...
        workers: processes that load; 0 is this process itself.

    Raises:
        IfttnError: a video cannot be read, or the batches do not fit into the memory that processes share.
    """
    on_gpu = torch.device(device).type == "cuda"
    dataset = replace(dataset, fitted=False) if on_gpu else dataset
    if workers and SHARED.is_dir():
        _refuse_too_little_shared_memory(dataset, keys, workers)
    loader = DataLoader(
        cast(Dataset[Batch], _BatchesOrErrors(dataset)),
        batch_sampler=[list(batch) for batch in keys],
        num_workers=workers,
        prefetch_factor=PREFETCHED if workers else None,
        collate_fn=cast(Any, _unchanged),
        worker_init_fn=_single_threaded,
        pin_memory=on_gpu,
    )
    ready = _raised(loader)
    return _one_ahead(ready, dataset.size, torch.device(device)) if on_gpu else ready


def finish(batch: Batch, size: int, device: str | torch.device) -> Batch:
    """The batch on the device, where its crops are resized if they have not been yet."""
    inputs = {modality: x.to(device, non_blocking=True) for modality, x in batch.inputs.items()}
    if batch.crops is not None:
        inputs = {m: augmentation.fit_on_device(x, batch.crops, size, m) for m, x in inputs.items()}
    return Batch(inputs, batch.labels.to(device, non_blocking=True), batch.names)


def whole_snippets(
    store: Store, video: Video, modalities: Sequence[str], segments: int
) -> dict[str, UInt8[Tensor, "K C H W"]]:
    """The test snippets of a video, from the centres of its K segments, uncropped at the size of the store.

    Raises:
        IfttnError: the video is not in the store, or its entry is damaged.
    """
    with store.open(video.name) as entry:
        starts = sampling.centre_starts(entry.frames, segments)
        snippets = Snippets(entry, *sampling.snippet_indices(starts, entry.frames))
        return {modality: torch.from_numpy(snippets.planes(modality)) for modality in modalities}


def _refuse_too_little_shared_memory(dataset: SnippetDataset, keys: Sequence[Keys], workers: int) -> None:
    a_video = dataset.segments * sum(MODALITIES[m].channels for m in dataset.modalities) * dataset.side**2
    at_once = min(PREFETCHED * workers + 1, len(keys))  # those of the workers, and the one in use
    needed, free = a_video * max(map(len, keys), default=0) * at_once, shutil.disk_usage(SHARED).free
    if needed > free:
        raise _too_small(f"{workers} workers need {needed / 1e6:,.0f} MB of it, and {free / 1e6:,.0f} MB are free")


def _too_small(why: str) -> IfttnError:
    return IfttnError(
        f"{SHARED}, the memory that processes share, is too small for the batches ({why}): give a container more "
        "(docker run --shm-size 16g), or take fewer --workers or a smaller --micro-batch; --workers 0 needs none"
    )


class _BatchesOrErrors(Dataset):
    """Batches in memory that processes share, and an IfttnError in the place of a batch that cannot be made: if a
    worker raised it, its line would come with a stack, and what a queue cannot share would never come at all."""

    def __init__(self, dataset: SnippetDataset) -> None:
        self.dataset = dataset

    def __getitems__(self, keys: Keys) -> Batch | IfttnError:
        try:
            batch = self.dataset.__getitems__(keys)
            if get_worker_info():
                for x in (*batch.inputs.values(), batch.labels, batch.crops):
                    if x is not None:
                        x.share_memory_()
            return batch
        except IfttnError as error:
            return error
        except RuntimeError as error:
            if "shared memory" not in str(error):
                raise
            return _too_small("it is full")


def _unchanged(batch: Batch | IfttnError) -> Batch | IfttnError:
    return batch


def _single_threaded(worker: int) -> None:
    # OpenCV's own threads deadlock or starve one another in forked workers.
    cv2.setNumThreads(0)


def _raised(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """The batches of a loader; raises the errors that stand among them."""
    ready: Any = iter(loader)
    try:
        for batch in ready:
            if isinstance(batch, IfttnError):
                raise batch
            yield batch
    except (EOFError, OSError, RuntimeError) as error:
        if not loader.num_workers or lacks_memory(error) or "in DataLoader worker" in str(error):
            raise  # an error of this process, or of a worker that lives
        with suppress(RuntimeError):  # here, as torch would print a stack where it finds the worker dead at the end
            ready._shutdown_workers()
        raise loader_killed() from error


def _one_ahead(batches: Iterator[Batch], size: int, device: torch.device) -> Iterator[Batch]:
    """Each batch on the device, while the next one is copied there."""
    stream = torch.cuda.Stream(device)
    ahead: list[tuple[Batch, torch.cuda.Event]] = []
    for batch in batches:
        arrived = torch.cuda.Event()
        with torch.cuda.stream(stream):
            ahead.append((finish(batch, size, device), arrived))
            arrived.record(stream)
        if len(ahead) == 2:
            yield _arrived(*ahead.pop(0))
    for batch, event in ahead:
        yield _arrived(batch, event)


def _arrived(batch: Batch, event: torch.cuda.Event) -> Batch:
    current = torch.cuda.current_stream(batch.labels.device)
    current.wait_event(event)
    for tensor in (*batch.inputs.values(), batch.labels):
        tensor.record_stream(current)  # made on another stream: not to be reused before this one is done with it
    return batch
