"""Batches for a device: bytes cross the bus once, in pinned memory, and their crops are fitted there.

A GPU gets each batch while it computes on the one before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from ifttn.data.snippets import SnippetDataset, finish, single_threaded, whole
from ifttn.vocabulary import Batch

Keys = Sequence[tuple[int, int]]
"""(view, index of the video) of each sample of a batch."""


def batches(dataset: SnippetDataset, keys: Sequence[Keys], device: str, workers: int = 0) -> Iterator[Batch]:
    """These samples, batch by batch, on a device. A CPU fits the crops in the loader; a GPU fits what it was handed."""
    on_gpu = torch.device(device).type == "cuda"
    loader = DataLoader(
        replace(dataset, fitted=False) if on_gpu else dataset,
        batch_sampler=[list(batch) for batch in keys],
        num_workers=workers,
        collate_fn=cast(Any, whole),
        worker_init_fn=single_threaded,
        pin_memory=on_gpu,
    )
    return _one_ahead(loader, dataset.size, torch.device(device)) if on_gpu else iter(loader)


def _one_ahead(loader: DataLoader[Batch], size: int, device: torch.device) -> Iterator[Batch]:
    stream = torch.cuda.Stream(device)
    ahead: list[tuple[Batch, torch.cuda.Event]] = []
    for batch in loader:
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
