"""Batches on a device, made from batches in the memory of the host.

A batch of the host holds decoded pictures. If a GPU decodes, it holds the motion fields, the largest part of a batch,
as JPEG files. OpenCV decodes RGB on every device: nvJPEG gives other colours at edges, and a network can be worse on
colours that it was not trained on (docs/training.md). Grey pictures of nvJPEG and OpenCV are equal to the bit.

Shapes: N videos, K segments, C channels of a modality's snippet, M motion fields of a video, H x W pixels.
"""

import functools
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Int, Integer, UInt8
from torch import Tensor

from ifttn.data import augmentation
from ifttn.data.frame_source import StoreSettings
from ifttn.memory import lacks_memory
from ifttn.vocabulary import MODALITIES, IfttnError

Made = TypeVar("Made")
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

    files: list[UInt8[Tensor, " _"]]
    """Each file once."""
    places: list[Integer[np.ndarray, " M"]]
    """For each field of each video, the number of its file."""

    @classmethod
    def joined(cls, parts: Sequence["Jpegs"]) -> "Jpegs":
        """The fields of all parts, in their order."""
        starts = accumulate((len(part.files) for part in parts), initial=0)
        places = [each + start for part, start in zip(parts, starts, strict=False) for each in part.places]
        return cls([file for part in parts for file in part.files], places)


@dataclass
class Portion:
    """The crops and JPEG files of some videos of a batch. Their decoded planes are already in the batch."""

    crops: list[tuple[int, ...]]
    """`Crop.facts` of each video."""
    jpegs: dict[str, Jpegs]
    """JPEG files of the modalities that are not decoded."""


@dataclass
class HostBatch:
    """A batch in the memory of the host."""

    planes: dict[str, UInt8[Tensor, "N K C _ _"]]
    """Bytes of each decoded modality."""
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
    read: HostBatch, settings: StoreSettings, device: torch.device, decode: Decode | None, *, whole: bool, lent: bool
) -> Uncut:
    """Bring a batch to the device.

    Args:
        read: the batch.
        settings: settings of its store.
        device: device of the result.
        decode: decodes JPEG files on the device; needed if the batch has JPEG files.
        whole: whether decoded planes are full frames (`Uncut.has_full_frames`).
        lent: whether the memory of the batch will be overwritten, so that a CPU has to copy it.

    Raises:
        IfttnError: a motion field cannot be decoded.
    """
    planes = dict[str, Tensor]()
    for modality, jpegs in read.jpegs.items():  # before any upload, for which the decoder would wait
        assert decode is not None
        fields = _decoded(read, modality, settings, decode)
        taken = fields[uploaded(torch.from_numpy(np.stack(jpegs.places)), device)]
        planes[modality] = taken.flatten(1, 2).unflatten(1, (-1, MODALITIES[modality].channels))
    for modality, x in read.planes.items():
        planes[modality] = x.clone() if lent and device.type == "cpu" else uploaded(x, device)
    has_full_frames = {m: whole or m in read.jpegs for m in planes}
    return Uncut(planes, read.crops, has_full_frames, uploaded(torch.tensor(read.labels), device), read.names)


def uploaded(x: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the CPU to the device. The host does not wait for the copy."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x


def settled(device: torch.device) -> None:
    """Wait until a GPU has done the work of the current stream. The thread sleeps meanwhile and takes no core."""
    if device.type == "cuda":
        done = torch.cuda.Event(blocking=True)
        done.record(torch.cuda.current_stream(device))
        done.synchronize()


def _decoded(read: HostBatch, modality: str, settings: StoreSettings, decode: Decode) -> UInt8[Tensor, "fields 2 H W"]:
    shape = (1, 2 * settings.height, settings.width)
    try:
        images = decode(read.jpegs[modality].files)
        if any(image.shape != shape for image in images):
            raise RuntimeError(f"a picture does not have {shape[2]} x {shape[1]} pixels")
    except RuntimeError as error:
        if lacks_memory(error):
            raise
        raise IfttnError(
            f"{_damaged(read, modality, shape)}: a field of {modality} cannot be decoded "
            f"({str(error).splitlines()[0]}); remove its entry and prepare it again"
        ) from error
    return torch.stack(list(images)).view(-1, 2, settings.height, settings.width)


def _damaged(read: HostBatch, modality: str, shape: tuple[int, int, int]) -> str:
    """The name of a video with a field that OpenCV cannot decode either."""
    jpegs = read.jpegs[modality]
    images = [cv2.imdecode(file.numpy(), cv2.IMREAD_GRAYSCALE) for file in jpegs.files]
    for name, places in zip(read.names, jpegs.places, strict=True):
        if any(images[i] is None or images[i].shape != shape[1:] for i in places):
            return name
    return "a video"


@functools.cache
def nvjpeg(device: torch.device) -> Decode | None:
    """The JPEG decoder of a GPU. If torchvision was built without it, None, and a message on stderr."""
    try:
        import torchvision.io  # registers the operator; the public function prints a warning in new versions

        grey = torchvision.io.ImageReadMode.GRAY.value

        def decode(files: list[Tensor]) -> Sequence[Tensor]:
            settled(device)  # the decoder's own stream may write to memory that earlier work of this stream reads
            return torch.ops.image.decode_jpegs_cuda(files, grey, device)

        decode([torch.from_numpy(cv2.imencode(".jpg", np.zeros((16, 16), np.uint8))[1].ravel())])
    except (ImportError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[:1]
        print(f"motion fields are decoded on the CPU: this torchvision has no nvJPEG ({reason})", file=sys.stderr)
        return None
    return decode


def ahead(following: Callable[[], Made], count: int, most: int) -> Generator[Made]:
    """`count` results of a function. A thread calls it until `most` results wait."""
    # Waiting threads of OpenMP would take the cores of the processes that load.
    pool = ThreadPoolExecutor(1, initializer=partial(torch.set_num_threads, 1))
    try:
        waiting = deque(pool.submit(following) for _ in range(min(most, count)))
        for number in range(count):
            result = waiting.popleft().result()
            if number + most < count:
                waiting.append(pool.submit(following))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def made_ahead(made: Iterator[Batch], count: int, device: torch.device) -> Iterator[Batch]:
    """`count` batches, which a thread makes in its own stream while the device computes earlier batches."""
    stream = torch.cuda.Stream(device, priority=-1)  # its short work need not wait for all that training has queued

    def following() -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.device(device), torch.cuda.stream(stream):
            batch, arrived = next(made), torch.cuda.Event()
            arrived.record(stream)
        return batch, arrived

    try:
        with closing(ahead(following, count, AHEAD)) as batches:
            for batch, arrived in batches:
                current = torch.cuda.current_stream(device)
                current.wait_event(arrived)
                for tensor in (*batch.inputs.values(), batch.labels):
                    tensor.record_stream(current)  # another stream made it, and must not reuse its memory too early
                yield batch
    finally:
        stream.synchronize()  # then other batches may take the memory on the host
