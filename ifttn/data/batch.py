"""Batches on a device, built from the portions that the processes of a loader make.

A portion holds decoded pictures. If a GPU decodes, it holds the motion fields, the largest part of a batch, as JPEG
files. OpenCV decodes RGB on every device: nvJPEG interpolates colours in another way, with differences of up to 24
levels at colour edges, and a network would get other pictures in training than in use. Grey pictures of nvJPEG and
OpenCV are equal to the bit.

Shapes: N videos, K segments, C channels of a modality's snippet, M motion fields of a video, H x W pixels.
"""

import functools
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Int, Integer, UInt8
from torch import Tensor

from ifttn.data import augmentation
from ifttn.data.frame_source import StoreSettings
from ifttn.memory import lacks_memory
from ifttn.vocabulary import MODALITIES, IfttnError

Decode = Callable[[list[Tensor]], Sequence[Tensor]]
"""Grey JPEG files, a tensor of bytes each -> their pictures (1, height, width) on the device."""
AHEAD = 2
"""Batches that are prepared on a GPU while it computes another batch."""


@dataclass
class Batch:
    """Videos as bytes, which are a quarter of the size of floats when they are copied to the device."""

    inputs: dict[str, UInt8[Tensor, "N K C H W"]]
    """Planes per modality. All modalities of a video share one draw of indices and one augmentation."""
    labels: Int[Tensor, " N"]
    names: list[str]


@dataclass
class Jpegs:
    """Motion fields of some videos, as the JPEG files of the store."""

    content: UInt8[Tensor, " bytes"]
    """The files, one after another, each once."""
    lengths: list[int]
    """Lengths of the files in bytes."""
    places: Integer[np.ndarray, "N M"]
    """For each field of each video, the number of its file."""


@dataclass
class Portion:
    """Some videos of a batch, made by a data set (`SnippetDataset.fitted`, `.encoded`)."""

    planes: dict[str, Tensor]
    """(N, K, C, H, W) bytes of each decoded modality."""
    jpegs: dict[str, Jpegs]
    """JPEG files of the other modalities."""
    crops: Integer[np.ndarray, "N 5"]
    """`Crop.facts` of each video."""
    labels: list[int]
    names: list[str]


@dataclass
class Uncut:
    """A batch on the device before its crops are cut."""

    planes: dict[str, UInt8[Tensor, "N K C _ _"]]
    crops: Integer[np.ndarray, "N 5"]
    has_full_frames: dict[str, bool]
    """Whether the planes of a modality are full frames. If not, the crop fills their first rows and columns."""
    labels: Int[Tensor, " N"]
    names: list[str]

    def cut(self, size: int, facts: Integer[np.ndarray, "N 5"]) -> Batch:
        """The batch with crops of side `size`: `self.crops`, or any crops if the planes are full frames."""
        tables: Any = np.stack([facts * [0, 0, 1, 1, 1], facts])
        fit: Any = augmentation.fit_all
        if self.labels.is_cuda:
            tables, fit = uploaded(torch.from_numpy(tables), self.labels.device), augmentation.fit_on_device
        inputs = {m: fit(x, tables[int(self.has_full_frames[m])], size, m) for m, x in self.planes.items()}
        return Batch(inputs, self.labels, self.names)


def assembled(
    portions: Sequence[Portion], settings: StoreSettings, device: torch.device, decode: Decode | None, whole: bool
) -> Uncut:
    """Join the portions of one batch, in their order, on the device.

    Args:
        portions: portions with the same modalities.
        settings: settings of their store.
        device: device of the batch.
        decode: decodes JPEG files on the device; needed if the portions have JPEG files.
        whole: whether decoded planes are full frames (`Uncut.has_full_frames`).

    Raises:
        IfttnError: a motion field cannot be decoded.
    """
    planes = {m: _stacked([portion.planes[m] for portion in portions], device) for m in portions[0].planes}
    for modality in portions[0].jpegs:
        assert decode is not None
        fields = _decoded(portions, modality, settings, decode)
        starts = np.cumsum([0, *(len(portion.jpegs[modality].lengths) for portion in portions[:-1])])
        places = [portion.jpegs[modality].places + start for portion, start in zip(portions, starts, strict=True)]
        taken = fields[uploaded(torch.from_numpy(np.concatenate(places)), device)]
        planes[modality] = taken.flatten(1, 2).unflatten(1, (-1, MODALITIES[modality].channels))
    labels = torch.tensor([label for portion in portions for label in portion.labels])
    return Uncut(
        planes,
        np.concatenate([portion.crops for portion in portions]),
        {m: whole or m in portions[0].jpegs for m in planes},
        uploaded(labels, device),
        [name for portion in portions for name in portion.names],
    )


def _stacked(portions: Sequence[Tensor], device: torch.device) -> UInt8[Tensor, "N K C H W"]:
    """The parts of a batch, one after another, in the memory layout of the parts."""
    first = portions[0]
    if len(portions) == 1:
        return uploaded(first, device)
    count = sum(map(len, portions))
    whole = torch.empty_strided((count, *first.shape[1:]), first.stride(), dtype=first.dtype, device=device)
    row = 0
    for portion in portions:
        whole[row : row + len(portion)].copy_(portion.pin_memory() if whole.is_cuda else portion, non_blocking=True)
        row += len(portion)
    return whole


def uploaded(x: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the CPU to the device. The host does not wait for the copy."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x


def _decoded(
    portions: Sequence[Portion], modality: str, settings: StoreSettings, decode: Decode
) -> UInt8[Tensor, "fields 2 H W"]:
    files = [
        file for portion in portions for file in portion.jpegs[modality].content.split(portion.jpegs[modality].lengths)
    ]
    shape = (1, 2 * settings.height, settings.width)
    try:
        images = decode(files)
        if any(image.shape != shape for image in images):
            raise RuntimeError(f"a picture does not have {shape[2]} x {shape[1]} pixels")
    except RuntimeError as error:
        if lacks_memory(error):
            raise
        damaged = (name for portion in portions for name in _damaged(portion, modality, shape))
        raise IfttnError(
            f"{next(damaged, 'a video')}: a field of {modality} cannot be decoded ({str(error).splitlines()[0]}); "
            "remove its entry and prepare it again"
        ) from error
    return torch.stack(list(images)).view(-1, 2, settings.height, settings.width)


def _damaged(portion: Portion, modality: str, shape: tuple[int, int, int]) -> Iterator[str]:
    """Names of the videos with a field that OpenCV cannot decode either."""
    jpegs = portion.jpegs[modality]
    images = [cv2.imdecode(file.numpy(), cv2.IMREAD_GRAYSCALE) for file in jpegs.content.split(jpegs.lengths)]
    for name, places in zip(portion.names, jpegs.places, strict=True):
        if any(images[i] is None or images[i].shape != shape[1:] for i in places):
            yield name


@functools.cache
def nvjpeg(device: torch.device) -> Decode | None:
    """The JPEG decoder of a GPU. If torchvision was built without it, None, and a message on stderr."""
    try:
        import torchvision.io  # registers the operator; the public function prints a warning in new versions

        grey = torchvision.io.ImageReadMode.GRAY.value

        def decode(files: list[Tensor]) -> Sequence[Tensor]:
            # The decoder has its own stream. It may write to memory that earlier work of this stream still reads.
            torch.cuda.current_stream(device).synchronize()
            return torch.ops.image.decode_jpegs_cuda(files, grey, device)

        decode([torch.from_numpy(cv2.imencode(".jpg", np.zeros((16, 16), np.uint8))[1].ravel())])
    except (ImportError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[:1]
        print(f"motion fields are decoded on the CPU: this torchvision has no nvJPEG ({reason})", file=sys.stderr)
        return None
    return decode


def made_ahead(made: Iterator[Batch], count: int, device: torch.device) -> Iterator[Batch]:
    """`count` batches, which a thread makes in its own stream while the device computes earlier batches."""
    stream = torch.cuda.Stream(device)

    def following() -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.device(device), torch.cuda.stream(stream):
            batch, arrived = next(made), torch.cuda.Event()
            arrived.record(stream)
        return batch, arrived

    # Waiting threads of OpenMP would take the cores of the processes that load.
    pool = ThreadPoolExecutor(1, initializer=partial(torch.set_num_threads, 1))
    try:
        waiting = deque(pool.submit(following) for _ in range(min(AHEAD, count)))
        for number in range(count):
            batch, arrived = waiting.popleft().result()
            if number + AHEAD < count:
                waiting.append(pool.submit(following))
            current = torch.cuda.current_stream(device)
            current.wait_event(arrived)
            for tensor in (*batch.inputs.values(), batch.labels):
                tensor.record_stream(current)  # another stream made it, and must not reuse its memory too early
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
