"""From a store to batches on a device. Worker processes may read the samples (`sharing`).

If the batch is for a GPU, the GPU resizes the crops and decodes motion fields (`batch`).
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import groupby

import numpy as np
import torch

from ifttn.data.batch import Batch, Decode, HostBatch, ahead, assembled, made_ahead, nvjpeg, settled
from ifttn.data.samples import Keys, SnippetDataset
from ifttn.data.sharing import Workers
from ifttn.memory import loader_killed, loader_was_killed

TRIED, REPEATED = 4, 16
"""Videos in the trial of `decoder`, and how many times nvJPEG decodes their files at once, as in a large batch."""
MUCH_FASTER = 1.5
"""Processes decode fields only if they are this many times as fast as nvJPEG, because other work needs the cores."""


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


def decoder(dataset: SnippetDataset, device: torch.device, workers: int) -> Decode | None:
    """nvJPEG, or None if the processes that load decode motion fields faster. Both give the same bytes.

    Some GPUs (A100, H100) have engines for JPEG. On the others torchvision decodes one file after another. So both are
    tried on the first videos, for less than a second.
    """
    decode, keys = nvjpeg(device), [(0, row) for row in range(min(TRIED, len(dataset)))]
    if decode is None or not keys:
        return decode
    decoded, encoded = (replace(dataset, fitted=False, encoded=encoded) for encoded in (False, True))
    files = [file for jpegs in encoded.read(keys).jpegs.values() for file in jpegs.files]
    if not files:
        return decode
    read, read_decoded = (_seconds(partial(each.read, keys)) / workers for each in (encoded, decoded))
    try:
        on_device = _seconds(lambda: (decode(REPEATED * files), settled(device))) / REPEATED
    except RuntimeError:  # a damaged file, which `assembled` names
        return decode
    return None if MUCH_FASTER * read_decoded < max(on_device, read) else decode


def _seconds(function: Callable[[], object]) -> float:
    """The time of the second call. The first one allocates memory."""
    function()
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


class Loader:
    """Makes batches of a data set on a device, with processes that live until `close`.

    Args:
        dataset: the data set of the keys.
        device: "cpu", "cuda", "cuda:1", ... For a CPU the processes resize the crops; a GPU resizes them itself.
        workers: number of processes that load; 0 loads in this process.
        decode: decodes motion fields on the device; by default, `decoder` chooses for a GPU.
    """

    def __init__(
        self, dataset: SnippetDataset, device: str | torch.device, workers: int = 0, decode: Decode | None = None
    ) -> None:
        self.device, self.workers = torch.device(device), workers
        on_gpu = self.device.type == "cuda"
        self.decode = decode or (decoder(dataset, self.device, max(1, workers)) if on_gpu else None)
        later = on_gpu or self.decode is not None or (dataset.scales is None and dataset.crops > 1)
        self.dataset = replace(dataset, fitted=not later, encoded=self.decode is not None)
        self._processes: Workers | None = None
        self._feed: Generator[Batch, None, None] | None = None

    def __call__(self, keys: Sequence[Keys]) -> Iterator[Batch]:
        """Batches of these samples, in their order. A new call ends the previous one.

        Consecutive batches that are views of the same videos are cut from the same decoded frames.

        Raises:
            IfttnError: a video cannot be read, or a process was killed.
            MemoryError: the batches do not fit into memory.
        """
        if self._feed:
            self._feed.close()
        largest = max(map(len, keys), default=1)
        if self._processes and self._processes.videos < largest:  # the first epoch had only a small batch left
            self.close()
        if self.workers and not self._processes:
            self._processes = Workers(self.dataset, self.workers, largest, self.device)
        self._feed = self._batches(keys)
        return self._feed

    def close(self) -> None:
        """End the processes."""
        if self._feed:
            self._feed.close()  # its thread must not wait for processes that have ended
        if self._processes:
            self._processes.close()
            self._processes = None

    def _batches(self, keys: Sequence[Keys]) -> Generator[Batch, None, None]:
        torch.empty((), dtype=torch.int64).random_()  # the draw of a DataLoader, before those of dropout
        groups = [[batch] for batch in keys]
        if self.dataset.whole:
            groups = [list(views) for _, views in groupby(keys, lambda batch: [index for _, index in batch])]
        first = [views[0] for views in groups]
        if self._processes:
            # One thread receives a batch while another decodes the batch before it.
            read = ahead(partial(next, self._processes.start(first)), len(first), 1)
        else:
            read = (self.dataset.read(each) for each in first)
        try:
            with closing(read):
                made = self._made(groups, read)
                yield from made_ahead(made, len(keys), self.device) if self.device.type == "cuda" else made
        except RuntimeError as error:
            if self._processes and loader_was_killed(error):
                self._processes.close()
                raise loader_killed() from error
            raise

    def _made(self, groups: Sequence[Sequence[Keys]], read: Iterator[HostBatch]) -> Iterator[Batch]:
        dataset, settings, lent = self.dataset, self.dataset.store.settings, self._processes is not None
        for group in groups:
            settled(self.device)  # the processes may now overwrite the memory of the batch before
            uncut = assembled(next(read), settings, self.device, self.decode, whole=dataset.whole, lent=lent)
            for keys in group:
                if dataset.fitted:
                    yield Batch(uncut.planes, uncut.labels, uncut.names)
                else:
                    facts = [dataset.views[view].facts for view, _ in keys] if dataset.whole else uncut.crops
                    yield uncut.cut(dataset.size, np.array(facts))
            del uncut
