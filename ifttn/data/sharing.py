"""Worker processes that fill batches together, in memory that they share with the main process.

The memory is a ring with places for a few batches. A process writes the planes and JPEG files of a few videos into the
place of their batch, and sends only crops and the lengths of files through a pipe. So nothing is copied or mapped anew,
and a GPU can copy directly from the ring.
"""

import math
import mmap
import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import islice, pairwise
from multiprocessing.sharedctypes import RawArray
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch.utils.data import DataLoader, Dataset

from ifttn.data.batch import HostBatch, Jpegs, Portion
from ifttn.data.cuda_kernels import page_locked
from ifttn.data.samples import Keys, SnippetDataset
from ifttn.memory import lacks_memory, loader_killed
from ifttn.vocabulary import IfttnError

PREFETCHED = 2
"""Batches that all processes together prepare in advance."""
VIDEOS_A_PORTION = 4
"""Videos in a portion. It is small, so that all processes share the first batch and the last portion is ready soon."""
SHARE_OF_JPEGS = 8
"""Bytes of pictures for each byte of room for their JPEG files. Larger files go through the pipe, which is slower."""


class _Task(NamedTuple):
    """A portion to be made."""

    batch: int
    videos: int
    """Number of videos in the batch."""
    first: int
    """Row of the portion's first video in the batch."""
    keys: Keys


class _Packed(NamedTuple):
    """A portion without its files, and how to find them."""

    portion: Portion
    lengths: dict[str, list[int]]
    """Lengths of the files of each modality. They follow one another in the room of the portion."""
    content: UInt8[np.ndarray, " bytes"] | None
    """The files, if they do not fit into their room."""


class _Ring:
    """Memory for a few batches of a data set."""

    def __init__(self, dataset: SnippetDataset, places: int, videos: int) -> None:
        """Memory for `places` batches of at most `videos` videos. Raises MemoryError if it is not available."""
        self.dataset, self.places = dataset, places
        self.room = dataset.bytes_of_jpegs // SHARE_OF_JPEGS
        """Bytes for the JPEG files of a video."""
        planes = dataset.empty(videos, lambda shape: np.empty(shape, np.uint8))
        size = sum(x.nbytes for x in planes.values()) + videos * self.room
        self.size = -(-max(1, size) // mmap.PAGESIZE) * mmap.PAGESIZE
        """Bytes of a place, in whole pages."""
        size = places * self.size
        # Forked processes inherit such memory. Unlike /dev/shm, which has 64 MB in a container, it has no limit.
        forks = multiprocessing.get_start_method() == "fork"
        try:
            self.memory: Any = mmap.mmap(-1, size) if forks else RawArray("B", size)
        except (OSError, ValueError) as error:
            raise MemoryError(f"Tried to allocate {size / 1e6:.0f} MB that processes share") from error

    def place(self, batch: int) -> UInt8[np.ndarray, " bytes"]:
        """The memory of a batch, by its number."""
        return np.frombuffer(self.memory, np.uint8, self.size, batch % self.places * self.size)

    def rows(self, task: "_Task") -> tuple[dict[str, UInt8[np.ndarray, "n K C H W"]], UInt8[np.ndarray, " bytes"]]:
        """The planes of a task's videos, and the room for their JPEG files."""
        place = self.place(task.batch)

        def following(shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
            nonlocal place
            array, place = np.split(place, [math.prod(shape)])
            return array.reshape(shape)

        planes = self.dataset.empty(task.videos, following)
        rows = slice(task.first, task.first + len(task.keys))
        return {m: x[rows] for m, x in planes.items()}, place[rows.start * self.room : rows.stop * self.room]


class _Filler(Dataset):
    """The data set of a worker process: it fills the rows of its tasks.

    An IfttnError becomes the result. If a process raised it, its message would come with a stack trace.
    """

    def __init__(self, dataset: SnippetDataset, ring: _Ring) -> None:
        self.dataset, self.ring = dataset, ring

    def __getitems__(self, task: _Task) -> _Packed | IfttnError:
        planes, room = self.ring.rows(task)
        try:
            portion = self.dataset.fill(task.keys, planes)
        except IfttnError as error:
            return error
        lengths = {modality: list(map(len, each.files)) for modality, each in portion.jpegs.items()}
        files = np.concatenate([room[:0], *(file.numpy() for each in portion.jpegs.values() for file in each.files)])
        if fits := len(files) <= len(room):
            room[: len(files)] = files
        places = {modality: Jpegs([], each.places) for modality, each in portion.jpegs.items()}
        return _Packed(Portion(portion.crops, places), lengths, None if fits else files)


class Workers:
    """Processes that fill the batches of a data set until `close`.

    Args:
        dataset: the data set.
        count: number of processes, at least one.
        videos: largest number of videos in a batch.
        device: the device of the batches. A GPU copies directly from the memory of the processes.
    """

    def __init__(self, dataset: SnippetDataset, count: int, videos: int, device: torch.device) -> None:
        """Reserve the memory. Raises MemoryError if there is too little."""
        self.dataset, self.videos, self.device = dataset, videos, device
        self.portions = -(-videos // VIDEOS_A_PORTION)
        prefetched = -(-PREFETCHED * self.portions // count)
        # While a batch is received, tasks of so many later batches begin, and the batch before it is being copied.
        self.ring = _Ring(dataset, -(-prefetched * count // self.portions) + 2, videos)
        self._tasks = list[_Task]()
        self._processes: Any = DataLoader(
            cast(Dataset[Any], _Filler(dataset, self.ring)),
            batch_sampler=cast(Any, self._tasks),
            num_workers=count,
            prefetch_factor=prefetched,
            collate_fn=cast(Any, _unchanged),
            worker_init_fn=_single_threaded,
            persistent_workers=True,
            generator=torch.Generator(),
        )
        self._ready: Any = None
        self._locked, self._locks = set[int](), ExitStack()

    def start(self, batches: Sequence[Keys]) -> Iterator[HostBatch]:
        """Begin to fill these batches, which end the batches of the call before.

        When a batch is requested, the processes may overwrite the second batch before it.

        Raises:
            IfttnError: a video cannot be read, or a process was killed.
        """
        self._tasks[:] = [task for number, keys in enumerate(batches) for task in self._split(number, keys)]
        self._ready = iter(self._processes)  # torch tells the calling thread if a process dies
        packed = self._raised()
        return (self._batch(number, keys, islice(packed, self.portions)) for number, keys in enumerate(batches))

    def _split(self, number: int, keys: Keys) -> Iterator[_Task]:
        """As many tasks for each batch, so that the ring has a place for each batch in progress."""
        size, more = divmod(len(keys), self.portions)
        ends = [size * n + min(n, more) for n in range(self.portions + 1)]
        return (_Task(number, len(keys), first, keys[first:end]) for first, end in pairwise(ends))

    def _batch(self, number: int, keys: Keys, packed: Iterator[_Packed]) -> HostBatch:
        portions, place = list[Portion](), number % self.ring.places
        # Not before the start of the processes, which might not inherit locked memory.
        if self.device.type == "cuda" and place not in self._locked:
            self._locked.add(place)
            self._locks.enter_context(page_locked(self.ring.place(number), self.device))
        for task, each in zip(self._split(number, keys), packed, strict=True):
            _, room = self.ring.rows(task)
            content = torch.from_numpy(room if each.content is None else each.content)
            lengths = [length for own in each.lengths.values() for length in own]
            files = iter(content[: sum(lengths)].split(lengths))
            for modality, jpegs in each.portion.jpegs.items():
                jpegs.files += islice(files, len(each.lengths[modality]))
            portions.append(each.portion)
        planes, _ = self.ring.rows(_Task(number, len(keys), 0, keys))
        return self.dataset.joined(keys, planes, portions)

    def _raised(self) -> Iterator[_Packed]:
        """The results of the processes. Raises an error that a process returned in place of a result."""
        try:
            for packed in self._ready:
                if isinstance(packed, IfttnError):
                    raise packed
                yield packed
        except (EOFError, OSError, RuntimeError) as error:
            if lacks_memory(error) or "in DataLoader worker" in str(error):
                raise  # an error of a live worker
            self.close()
            raise loader_killed() from error

    def close(self) -> None:
        """End the processes."""
        ready, self._ready, self._processes = self._ready, None, None
        if ready:
            with suppress(RuntimeError):  # of a killed process, for which torch would later print a stack trace
                ready._shutdown_workers()
        self._locks.close()


def _unchanged(packed: _Packed | IfttnError) -> _Packed | IfttnError:
    return packed


def _single_threaded(worker: int) -> None:
    # OpenCV's threads can deadlock or slow one another in forked workers.
    cv2.setNumThreads(0)
