"""Batches for a device: bytes cross the bus once, uncropped, while the step before computes; crops are made there.

Shapes: N videos, K segments, C channels of a modality's snippet, H x W stored pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from ifttn.data.augmentation import Crop
from ifttn.data.snippets import SnippetDataset, _collate, _single_threaded
from ifttn.vocabulary import MODALITIES, Batch

Keys = Sequence[tuple[int, int]]
"""(view, index of the video) of each sample of a batch."""


def batches(dataset: SnippetDataset, keys: Sequence[Keys], device: str, workers: int = 0) -> Iterator[Batch]:
    """These samples, batch by batch, on a device. A CPU crops in the loader; a GPU crops what it was handed."""
    on_gpu = torch.device(device).type == "cuda"
    loader = DataLoader(
        Uncropped(dataset) if on_gpu else dataset,
        batch_sampler=[list(batch) for batch in keys],
        num_workers=workers,
        collate_fn=_stacked if on_gpu else _collate,
        worker_init_fn=_single_threaded,
        pin_memory=on_gpu,
    )
    return _one_ahead(loader, dataset.size, torch.device(device)) if on_gpu else iter(loader)


@dataclass
class Uncropped(Dataset):
    """The samples of a data set before their crops, by the same keys."""

    dataset: SnippetDataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple:
        return self.dataset.drawn(key)


@dataclass
class Stored:
    """A batch of stored frames, each video with its crop."""

    planes: dict[str, UInt8[Tensor, "N K C H W"]]
    crops: list[Crop]
    labels: Int[Tensor, " N"]
    names: list[str]

    def pin_memory(self) -> "Stored":
        """In memory that a GPU can fetch by itself."""
        planes = {modality: x.pin_memory() for modality, x in self.planes.items()}
        return Stored(planes, self.crops, self.labels.pin_memory(), self.names)

    def cropped(self, size: int, device: torch.device) -> Batch:
        """The batch on a device, cropped and mirrored there."""
        inputs = {m: crop(x.to(device, non_blocking=True), self.crops, size, m) for m, x in self.planes.items()}
        return Batch(inputs, self.labels.to(device, non_blocking=True), self.names)


def crop(
    planes: UInt8[Tensor, "N K C H W"], crops: Sequence[Crop], size: int, modality: str
) -> UInt8[Tensor, "N K C size size"]:
    """Each video's crop of all its planes: `augmentation.apply` on the planes' device, to within a level of rounding.

    Planes of a motion modality are x, y, x, y, ... along C; mirroring negates x displacements.
    """
    cut = planes.new_empty((*planes.shape[:3], size, size))
    for video, own, made in zip(planes, crops, cut, strict=True):
        part = video[..., own.top : own.top + own.height, own.left : own.left + own.width].float()
        if part.shape[-2:] != (size, size):
            part = functional.interpolate(part, (size, size), mode="bilinear", align_corners=False).round()
        made.copy_(part.flip(-1) if own.mirrored else part)
        if own.mirrored and MODALITIES[modality].is_motion:
            x = made[:, 0::2]
            x.copy_(255 - x.clamp(min=1) + 1)  # 128 is no motion; 0 would become 256
    return cut


def _stacked(samples: list[tuple]) -> Stored:
    planes, crops, videos = zip(*samples, strict=True)
    stacked = {m: torch.stack([torch.from_numpy(each[m]) for each in planes]) for m in planes[0]}
    return Stored(stacked, list(crops), torch.tensor([v.label for v in videos]), [v.name for v in videos])


def _one_ahead(loader: DataLoader, size: int, device: torch.device) -> Iterator[Batch]:
    stream = torch.cuda.Stream(device)
    ahead: list[tuple[Batch, torch.cuda.Event]] = []
    for stored in loader:
        arrived = torch.cuda.Event()
        with torch.cuda.stream(stream):
            ahead.append((stored.cropped(size, device), arrived))
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
