"""From a store to batches on a device: worker processes draw, decode and crop the snippets of videos.

The processes live as long as their loader, and share each batch in portions of a few videos. If the batch is for a GPU,
the GPU resizes the crops and decodes motion fields (`batch`).

Shapes: N videos, K segments, C channels of a modality's snippet, L = STACK motion fields, H x W pixels.
"""

import shutil
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from jaxtyping import Integer, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ifttn.data import augmentation, sampling
from ifttn.data.augmentation import Crop
from ifttn.data.batch import Batch, Decode, Jpegs, Portion, assembled, made_ahead, nvjpeg
from ifttn.data.entry import Entry
from ifttn.data.frame_source import WHOLE
from ifttn.data.planes import Snippets
from ifttn.data.store import Store
from ifttn.memory import lacks_memory, loader_killed
from ifttn.vocabulary import MODALITIES, IfttnError, Video

Keys = Sequence[tuple[int, int]]
"""(view, index of the video) of each sample of a batch."""

SHARED = Path("/dev/shm")
"""Linux's shared memory, through which processes pass batches. A Docker container has only 64 MB."""
PREFETCHED = 2
"""Batches that all processes together prepare in advance."""
VIDEOS_A_PORTION = 4
"""Videos in a portion. It is small, so that all processes share the first batch and the last portion is ready soon."""


@dataclass
class SnippetDataset(Dataset):
    """Samples of prepared videos, by (view, index of the video).

    With `scales`, for training: a view is an epoch. Segments and crop are drawn from (seed, view, index), so that a
    sample does not depend on workers or on earlier samples. Without `scales`, for tests: snippets come from the centres
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
    """Whether crops are resized and mirrored here. If not, `Uncut.cut` does it for the complete batch."""
    encoded: bool = False
    """Whether motion fields stay JPEG files, which a GPU decodes. Then `fitted` is false."""
    checked: tuple[Store, Sequence[Video]] | None = None
    """The store and videos of the last check, so that `replace` does not repeat it."""

    def __post_init__(self) -> None:
        """Raise IfttnError for an unknown modality or videos that are not in the store."""
        if unknown := set(self.modalities) - set(MODALITIES):
            raise IfttnError(f"unknown modality {', '.join(sorted(unknown))}; choose from {', '.join(MODALITIES)}")
        if self.checked is None or self.checked[0] is not self.store or self.checked[1] is not self.videos:
            stored = set(self.store.index().video)
            if absent := [video.name for video in self.videos if video.name not in stored]:
                raise IfttnError(
                    f"{len(absent)} of {len(self.videos)} videos are not in {self.store.folder}, the first is "
                    f"{absent[0]}; run `ifttn prepare`"
                )
            self.checked = self.store, self.videos
        settings = self.store.settings
        self.views = augmentation.test_crops(settings.height, settings.width, self.size, self.crops)
        self._memory = _Memory(2 * len(self.modalities))  # a batch in use, and the next

    @property
    def whole(self) -> bool:
        """Whether planes are full frames, because several views are cut from them."""
        return not self.fitted and self.scales is None and self.crops > 1

    @property
    def area(self) -> tuple[int, int]:
        """Height and width of the planes of a portion, in pixels."""
        settings = self.store.settings
        shorter = self.size if self.fitted else min(settings.height, settings.width)
        return (settings.height, settings.width) if self.whole else (shorter, shorter)

    def encodes(self, modality: str) -> bool:
        """Whether the planes of a modality stay JPEG files."""
        return self.encoded and (MODALITIES[modality].run_of or modality) in ("flow", "mv")

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> tuple[dict[str, UInt8[np.ndarray, "K C H W"]], int, str]:
        """Bytes of each modality, label, and name of the video."""
        portion = replace(self, fitted=True, encoded=False).__getitems__([key])
        return {modality: x[0].numpy() for modality, x in portion.planes.items()}, portion.labels[0], portion.names[0]

    def __getitems__(self, keys: Keys) -> Portion:
        """Some videos of a batch. Each is decoded directly into the arrays of the portion."""
        planes = {m: self._empty(len(keys), m) for m in self.modalities if not self.encodes(m)}
        files = {m: _Files() for m in self.modalities if self.encodes(m)}
        crops = [self._fill(key, {m: x[row] for m, x in planes.items()}, files) for row, key in enumerate(keys)]
        videos = [self.videos[index] for _, index in keys]
        return Portion(
            {modality: torch.from_numpy(x) for modality, x in planes.items()},
            {modality: each.jpegs() for modality, each in files.items()},
            np.array([crop.facts for crop in crops]),
            [video.label for video in videos],
            [video.name for video in videos],
        )

    def _empty(self, count: int, modality: str) -> UInt8[np.ndarray, "N K C H W"]:
        shape = (count, self.segments, MODALITIES[modality].channels, *self.area)
        return self._memory.array(shape) if self.fitted else _unfitted(shape, modality, self._memory.array)

    def draw(
        self, key: tuple[int, int], num_frames: int
    ) -> tuple[Integer[np.ndarray, " K"], Integer[np.ndarray, "K L"], Crop]:
        """Frames, fields and crop of a sample of a video with `num_frames` frames."""
        view, index = key
        if self.scales is None:
            starts, crop = sampling.centre_starts(num_frames, self.segments), self.views[view]
        else:
            rng, settings = np.random.default_rng((self.seed, view, index)), self.store.settings
            starts = sampling.random_starts(num_frames, self.segments, rng)
            crop = augmentation.random_crop(settings.height, settings.width, self.size, self.scales, rng)
        return *sampling.snippet_indices(starts, num_frames), crop

    def _fill(
        self, key: tuple[int, int], planes: dict[str, UInt8[np.ndarray, "K C H W"]], files: dict[str, "_Files"]
    ) -> Crop:
        """Decode the planes of a sample into arrays, and add its JPEG files to `files`."""
        with self.store.open(self.videos[key[1]].name) as entry:
            frames, fields, crop = self.draw(key, entry.frames)
            snippets = Snippets(entry, frames, fields)
            for modality, own in files.items():
                own.add(entry, *snippets.stack(modality, MODALITIES[modality].channels))
            for modality, x in planes.items():
                if self.fitted:
                    cut = _unfitted((*x.shape[:2], crop.height, crop.width), modality)
                    snippets.planes(modality, crop.region, cut)
                    augmentation.fit(cut, crop, self.size, modality, x)
                elif self.whole:
                    snippets.planes(modality, WHOLE, x)
                else:
                    snippets.planes(modality, crop.region, x[..., : crop.height, : crop.width])
        return crop


class _Files:
    """Collects the JPEG files of one modality."""

    def __init__(self) -> None:
        self.files, self.places = list[np.ndarray](), list[np.ndarray]()

    def add(self, entry: Entry, stored: str, wanted: Integer[np.ndarray, " M"]) -> None:
        """Add the files of one video."""
        numbers, place = np.unique(wanted, return_inverse=True)
        self.places.append(place + len(self.files))
        self.files += entry.jpegs(stored, numbers)

    def jpegs(self) -> Jpegs:
        """All files so far."""
        return Jpegs(torch.from_numpy(np.concatenate(self.files)), list(map(len, self.files)), np.stack(self.places))


def _unfitted(
    shape: tuple[int, ...], modality: str, empty: Callable[[tuple[int, ...]], np.ndarray] | None = None
) -> UInt8[np.ndarray, "... C H W"]:
    """Empty planes for crops before resizing. RGB planes have their channels last in memory, as a JPEG has."""
    empty = empty or (lambda shape: np.empty(shape, np.uint8))
    if modality != "rgb":
        return empty(shape)
    return np.moveaxis(empty((*shape[:-3], *shape[-2:], shape[-3])), -1, -3)


class _Memory:
    """Arrays that are used again when no batch holds them any more.

    New memory from the system would cost a batch up to a tenth of the time of its decoding.
    """

    def __init__(self, most: int) -> None:
        self.arrays = deque[np.ndarray](maxlen=most)

    def array(self, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
        """An array of this shape, with arbitrary content."""
        for i in range(len(self.arrays)):
            # Only the deque and this call refer to a free array: tensors and views refer to the array of their memory.
            if self.arrays[i].shape == shape and sys.getrefcount(self.arrays[i]) == 2:
                return self.arrays[i]
        self.arrays.append(np.empty(shape, np.uint8))
        return self.arrays[-1]


def in_order(dataset: SnippetDataset, batch: int, view: int = 0) -> list[Keys]:
    """The keys of all videos in one view, in batches of `batch` videos."""
    count = len(dataset)
    return [[(view, row) for row in range(first, min(first + batch, count))] for first in range(0, count, batch)]


def batches(
    dataset: SnippetDataset, keys: Sequence[Keys], device: str | torch.device, workers: int = 0
) -> Iterator[Batch]:
    """Load these samples with a new `Loader`, which is closed after the last batch."""
    loader = Loader(dataset, device, workers)
    feed = loader(keys)

    def closed() -> Iterator[Batch]:
        with closing(loader):
            yield from feed

    return closed()


class Loader:
    """Makes batches of a data set on a device, with processes that live until `close`.

    Args:
        dataset: the data set of the keys.
        device: "cpu", "cuda", "cuda:1", ... For a CPU the processes resize the crops; a GPU resizes them itself.
        workers: number of processes that load; 0 loads in this process.
        decode: decodes motion fields on the device; by default nvJPEG on a GPU. Without nvJPEG, the processes decode.
    """

    def __init__(
        self, dataset: SnippetDataset, device: str | torch.device, workers: int = 0, decode: Decode | None = None
    ) -> None:
        self.device, self.workers = torch.device(device), workers
        on_gpu = self.device.type == "cuda"
        self.decode = decode or (nvjpeg(self.device) if on_gpu else None)
        later = on_gpu or self.decode is not None or (dataset.scales is None and dataset.crops > 1)
        self.dataset = replace(dataset, fitted=not later, encoded=self.decode is not None)
        self._chunks = list[Keys]()
        self._processes: Any = None
        self._ready: Any = None
        self._feed: Generator[Batch, None, None] | None = None

    def __call__(self, keys: Sequence[Keys]) -> Iterator[Batch]:
        """Batches of these samples, in their order. A new call ends the previous one.

        Consecutive batches that are views of the same videos are cut from the same decoded frames.

        Raises:
            IfttnError: a video cannot be read, or the batches do not fit into shared memory.
        """
        if self.workers and not self._processes:
            largest = max(map(len, keys), default=1)
            prefetched = -(-PREFETCHED * -(-largest // VIDEOS_A_PORTION) // self.workers)
            if SHARED.is_dir():
                most = (
                    largest + VIDEOS_A_PORTION * prefetched * self.workers
                )  # the batch in assembly, and the portions that are ready
                self._refuse_too_little_shared_memory(min(most, sum(map(len, keys))))
            self._processes = DataLoader(
                cast(Dataset[Portion], _PortionsOrErrors(self.dataset)),
                batch_sampler=cast(Any, self._chunks),
                num_workers=self.workers,
                prefetch_factor=prefetched,
                collate_fn=cast(Any, _unchanged),
                worker_init_fn=_single_threaded,
                persistent_workers=True,
                generator=torch.Generator(),
            )
        if self._feed:
            self._feed.close()
        self._feed = self._batches(keys)
        return self._feed

    def close(self) -> None:
        """End the processes."""
        if self._feed:
            self._feed.close()  # its thread must not wait for processes that have ended
        self._end_processes()

    def _end_processes(self) -> None:
        ready, self._ready, self._processes = self._ready, None, None
        if ready:
            ready._shutdown_workers()

    def _batches(self, keys: Sequence[Keys]) -> Generator[Batch, None, None]:
        torch.empty((), dtype=torch.int64).random_()  # the draw of a DataLoader, before those of dropout
        groups = [[batch] for batch in keys]
        if self.dataset.whole:
            groups = [list(views) for _, views in groupby(keys, lambda batch: [index for _, index in batch])]
        most = VIDEOS_A_PORTION if self.workers else max(map(len, keys), default=1)
        split = [[group[0][first : first + most] for first in range(0, len(group[0]), most)] for group in groups]
        chunks = [chunk for each in split for chunk in each]
        if self.workers:
            self._chunks[:] = chunks
            self._ready = iter(self._processes)  # in the calling thread, which is told if a process dies
        portions = self._raised() if self.workers else map(self.dataset.__getitems__, chunks)
        made = self._made(groups, map(len, split), portions)
        yield from made_ahead(made, len(keys), self.device) if self.device.type == "cuda" else made

    def _made(
        self, groups: Sequence[Sequence[Keys]], counts: Iterable[int], portions: Iterator[Portion]
    ) -> Iterator[Batch]:
        dataset = self.dataset
        for group, count in zip(groups, counts, strict=True):
            own = list(islice(portions, count))
            uncut = assembled(own, dataset.store.settings, self.device, self.decode, dataset.whole)
            del own
            for keys in group:
                if dataset.fitted:
                    yield Batch(uncut.planes, uncut.labels, uncut.names)
                else:
                    facts = [dataset.views[view].facts for view, _ in keys] if dataset.whole else uncut.crops
                    yield uncut.cut(dataset.size, np.array(facts))
            del uncut

    def _raised(self) -> Iterator[Portion]:
        """The portions of the processes. Raises an error that a process returned in place of a portion."""
        try:
            for portion in self._ready:
                if isinstance(portion, IfttnError):
                    raise portion
                yield portion
        except (EOFError, OSError, RuntimeError) as error:
            if lacks_memory(error) or "in DataLoader worker" in str(error):
                raise  # an error of a live worker
            with suppress(RuntimeError):  # ended now, because torch would later print a stack trace for it
                self._end_processes()
            raise loader_killed() from error

    def _refuse_too_little_shared_memory(self, videos: int) -> None:
        dataset, free = self.dataset, shutil.disk_usage(SHARED).free
        # The JPEG of a field takes less than half of its bytes.
        channels = sum(MODALITIES[m].channels / (1 + dataset.encodes(m)) for m in dataset.modalities)
        needed = videos * dataset.segments * channels * dataset.area[0] * dataset.area[1]
        if needed > free:
            raise _too_small(f"{self.workers} workers need {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free")


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


def _too_small(why: str) -> IfttnError:
    return IfttnError(
        f"the shared memory {SHARED} is too small for the batches ({why}): give a container more "
        "(docker run --shm-size 16g), or use fewer --workers or a smaller --micro-batch; --workers 0 needs none"
    )


class _PortionsOrErrors(Dataset):
    """Portions in shared memory, or an IfttnError in place of a portion that cannot be made. If a worker raised the
    error, its message would come with a stack trace, and a portion that cannot be shared would never come."""

    def __init__(self, dataset: SnippetDataset) -> None:
        self.dataset = dataset

    def __getitems__(self, keys: Keys) -> Portion | IfttnError:
        try:
            portion = self.dataset.__getitems__(keys)
            for x in (*portion.planes.values(), *(jpegs.content for jpegs in portion.jpegs.values())):
                x.share_memory_()
            return portion
        except IfttnError as error:
            return error
        except RuntimeError as error:
            if "shared memory" not in str(error):
                raise
            return _too_small("it is full")


def _unchanged(portion: Portion | IfttnError) -> Portion | IfttnError:
    return portion


def _single_threaded(worker: int) -> None:
    # OpenCV's threads can deadlock or slow one another in forked workers.
    cv2.setNumThreads(0)
