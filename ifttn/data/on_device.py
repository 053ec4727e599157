"""Batches for a device: bytes cross the bus once, in pinned memory, and their crops are fitted there.

A GPU gets each batch while it computes on the one before.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ifttn.data.snippets import SnippetDataset, finish, single_threaded
from ifttn.memory import lacks_memory, loader_killed
from ifttn.vocabulary import MODALITIES, Batch, IfttnError

Keys = Sequence[tuple[int, int]]
"""(view, index of the video) of each sample of a batch."""

SHARED = Path("/dev/shm")
"""Where Linux keeps the memory through which processes hand batches over. A container of Docker has 64 MB of it."""
PREFETCHED = 2
"""Batches that each process has ready."""


def batches(dataset: SnippetDataset, keys: Sequence[Keys], device: str, workers: int = 0) -> Iterator[Batch]:
    """These samples, batch by batch, on a device. A CPU fits the crops in the loader; a GPU fits what it was handed.

    Raises:
        IfttnError: a video cannot be read, or the batches do not fit into the memory that processes share.
    """
    on_gpu = torch.device(device).type == "cuda"
    dataset = replace(dataset, fitted=False) if on_gpu else dataset
    if workers and SHARED.is_dir():
        _check_shared(dataset, keys, workers)
    loader = DataLoader(
        cast(Dataset[Batch], _HandedOver(dataset)),
        batch_sampler=[list(batch) for batch in keys],
        num_workers=workers,
        prefetch_factor=PREFETCHED if workers else None,
        collate_fn=cast(Any, _whole),
        worker_init_fn=single_threaded,
        pin_memory=on_gpu,
    )
    ready = _raised(loader)
    return _one_ahead(ready, dataset.size, torch.device(device)) if on_gpu else ready


def _check_shared(dataset: SnippetDataset, keys: Sequence[Keys], workers: int) -> None:
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


class _HandedOver(Dataset):
    """Batches of a data set as a process hands them over, and an IfttnError in the place of one that cannot be made:
    raised in a worker, its line would come with a stack, and what a queue cannot share would never come at all."""

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


def _whole(batch: Batch | IfttnError) -> Batch | IfttnError:
    return batch


def _raised(loader: DataLoader[Batch]) -> Iterator[Batch]:
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
