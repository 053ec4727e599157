"""One random crop and mirroring for all snippets and all modalities of a video.

TTN subtracts features of two snippets, and IFM multiplies features of two modalities. So their pixels must correspond.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Int, Integer, UInt8
from torch import Tensor

from ifttn.data.cuda_kernels import Launch, arguments, launcher, machine_code
from ifttn.vocabulary import MODALITIES, IfttnError

CROPS = Path(__file__).with_name("crops.cu")
THREADS_A_BLOCK = 256
"""Threads per block of the kernel in `crops.cu`."""
OFFSETS = (*((y, x) for y in (0, 2, 4) for x in (0, 2, 4)), (1, 1), (1, 3), (3, 1), (3, 3))
"""TSN's 13 positions of a random crop: quarters of the free height above it and of the free width left of it."""

CORNERS_AND_CENTRE = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))
TEST_VIEWS = {
    1: [((2, 2), False)],
    3: [((2, 0), False), ((2, 2), False), ((2, 4), False)],
    10: [(offset, mirrored) for mirrored in (False, True) for offset in CORNERS_AND_CENTRE],
}
"""Number of fixed test crops -> the offset in quarters and the mirroring of each."""


@dataclass(frozen=True)
class Crop:
    """A rectangle of the stored frame, in pixels."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False
    """Whether the crop is mirrored left to right after cutting."""

    @property
    def region(self) -> tuple[slice, slice]:
        """The rows and columns of the crop."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    @property
    def facts(self) -> tuple[int, int, int, int, int]:
        """Top, left, height, width, and mirrored (0 or 1), as a row of a table."""
        return self.top, self.left, self.height, self.width, int(self.mirrored)


def random_crop(height: int, width: int, size: int, scales: Sequence[float], rng: np.random.Generator) -> Crop:
    """TSN's multi-scale corner crop of a height x width frame, mirrored with probability 1/2.

    `scales` are sides relative to the shorter side of the frame, in falling order. Height and width are drawn
    separately and differ by at most one scale. A side within 3 px of `size` becomes `size`.
    """
    sides = [int(min(height, width) * scale) for scale in scales]
    sides = [size if abs(side - size) < 3 and size <= min(height, width) else side for side in sides]
    shapes = [(tall, wide) for i, tall in enumerate(sides) for j, wide in enumerate(sides) if abs(i - j) <= 1]
    shape, offset = shapes[rng.integers(len(shapes))], OFFSETS[rng.integers(len(OFFSETS))]
    return _placed(height, width, shape, offset, bool(rng.integers(2)))


def test_crops(height: int, width: int, size: int, count: int) -> list[Crop]:
    """The fixed square crops of a test: 1 (centre), 3 (left, centre, right), 10 (corners and centre, then mirrored).

    Their side is `size`, or the shorter side of the frame if that is smaller.
    """
    if count not in TEST_VIEWS:
        raise IfttnError(f"{count} crops: choose one of {', '.join(map(str, TEST_VIEWS))}")
    side = min(size, height, width)
    return [_placed(height, width, (side, side), offset, mirrored) for offset, mirrored in TEST_VIEWS[count]]


def apply(
    crop: Crop, planes: UInt8[np.ndarray, "*rest C H W"], size: int, modality: str
) -> UInt8[np.ndarray, "*rest C size size"]:
    """Crop every plane, resize it to size x size (bilinear) and mirror it.

    Planes of a motion modality are x, y, x, y, ... along C. Mirroring negates x displacements. Resizing does not change
    their magnitude, as in TSN.
    """
    fitted = np.empty((*planes.shape[:-2], size, size), np.uint8)
    fit(planes[..., *crop.region], crop, size, modality, fitted)
    return fitted


def fit(
    cut: UInt8[np.ndarray, "*rest C h w"],
    crop: Crop,
    size: int,
    modality: str,
    fitted: UInt8[np.ndarray, "*rest C size size"],
) -> None:
    """Resize and mirror planes that are already cut to the crop, into `fitted`."""
    targets = fitted.reshape(-1, size, size)
    if modality == "rgb":
        images = cut.reshape(-1, *cut.shape[-3:]).transpose(0, 2, 3, 1)
    else:  # OpenCV resizes four planes as channels almost as fast as two
        planes = cut.reshape(-1, *cut.shape[-2:])
        images = (cv2.merge(list(planes[first : first + 4])) for first in range(0, len(planes), 4))
    step = cut.shape[-3] if modality == "rgb" else 4
    for first, image in zip(range(0, len(targets), step), images, strict=True):
        image = cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=cv2.INTER_LINEAR)
        cv2.split(cv2.flip(image, 1) if crop.mirrored else image, list(targets[first : first + step]))
    if crop.mirrored and MODALITIES[modality].is_motion:
        x_planes = fitted[..., 0::2, :, :]
        np.invert(x_planes, out=x_planes)
        x_planes += x_planes != 255  # this is 256 - x, so that 128 stays no motion; 0, a JPEG error, becomes 255


def fit_all(
    planes: UInt8[Tensor, "N K C H W"], crops: Integer[np.ndarray, "N 5"], size: int, modality: str
) -> UInt8[Tensor, "N K C size size"]:
    """`fit` of a batch on the CPU. `crops` holds the `Crop.facts` of each video."""
    fitted = np.empty((*planes.shape[:3], size, size), np.uint8)
    for x, (*place, mirrored), own in zip(planes.numpy(), crops.tolist(), fitted, strict=True):
        crop = Crop(*place, mirrored=bool(mirrored))
        fit(x[..., *crop.region], crop, size, modality, own)
    return torch.from_numpy(fitted)


def fit_on_device(
    planes: UInt8[Tensor, "N K C H W"],
    crops: Int[Tensor, "N 5"],
    size: int,
    modality: str,
    launch: Launch | None = None,
) -> UInt8[Tensor, "N K C size size"]:
    """`fit` of a batch on its device, with the same bytes as on the CPU. The host does not wait.

    Args:
        planes: planes that contain the crops.
        crops: `Crop.facts` of each video, on the same device.
        size: side of the result in pixels.
        modality: a motion modality has its x planes negated by mirroring.
        launch: launches the kernel; by default on the GPU of the planes. Without a GPU, or without bindings of CUDA,
            torch's operators do the work.
    """
    top, left, height, width, mirrored = crops.T
    rows, of_rows = _taps(height, size, clamp=False)
    columns, of_columns = (torch.where(mirrored[:, None].bool(), x.flip(-1), x) for x in _taps(width, size, clamp=True))
    rows, columns = rows + top[:, None], columns + left[:, None]
    is_motion = MODALITIES[modality].is_motion
    if launch or (planes.is_cuda and (launch := crop_kernel(planes.device))):
        fitted, facts = planes.new_empty((*planes.shape[:3], size, size)), crops.int()
        taps = torch.cat([rows.int(), of_rows, columns.int(), of_columns])
        (videos, snippets, channels), blocks = planes.shape[:3], -(-size * size // THREADS_A_BLOCK)
        numbers = (videos, snippets, channels, size, *planes.stride(), int(is_motion))
        pointers = arguments(planes, taps, facts, fitted, *numbers)
        with torch.cuda.device_of(planes):
            launch("fit", (blocks, videos, snippets), THREADS_A_BLOCK, 0, pointers)
        return fitted
    fitted = _fitted(planes, rows, of_rows, columns, of_columns)
    if is_motion:
        x = fitted[:, :, 0::2]
        x.copy_(torch.where(mirrored.view(-1, 1, 1, 1, 1).bool(), -x.clamp(min=1), x))  # bytes: modulo 256
    return fitted


@cache
def crop_kernel(device: torch.device) -> Launch | None:
    """A function that launches the kernel of `crops.cu`. None without bindings of CUDA."""
    try:
        with torch.cuda.device(device):
            return launcher(partial(machine_code, CROPS, defined={"PIXELS": THREADS_A_BLOCK}), {"fit": 0})
    except ImportError:
        return None


def _fitted(
    planes: UInt8[Tensor, "N K C H W"],
    rows: Int[Tensor, "2 N size"],
    of_rows: Int[Tensor, "2 N size"],
    columns: Int[Tensor, "2 N size"],
    of_columns: Int[Tensor, "2 N size"],
) -> UInt8[Tensor, "N K C size size"]:
    """OpenCV's INTER_LINEAR for bytes, with the same integers (HResizeLinear and VResizeLinear of its resize.cpp)."""
    place = [torch.arange(n, device=planes.device) for n in planes.shape[:3]]
    video, snippet, channel = (x.view(-1, *(1,) * (4 - axis)) for axis, x in enumerate(place))
    total = torch.zeros((), dtype=torch.int32, device=planes.device)
    for row, of_row in zip(rows, of_rows, strict=True):
        line = torch.zeros_like(total)
        for column, of_column in zip(columns, of_columns, strict=True):
            pixels = planes[video, snippet, channel, row[:, None, None, :, None], column[:, None, None, None]]
            line = line + pixels * of_column[:, None, None, None]
        total = total + ((line >> 4) * of_row[:, None, None, :, None] >> 16)
    return ((total + 2) >> 2).to(torch.uint8)


def _taps(
    length: Int[Tensor, " N"], size: int, *, clamp: bool
) -> tuple[Int[Tensor, "2 N size"], Int[Tensor, "2 N size"]]:
    """The two neighbours of each position along an axis, and their weights in 2048ths, for N lengths in pixels."""
    # As in OpenCV, both divisions are in double precision, and the rest in single precision.
    centres = torch.arange(size, dtype=torch.float64, device=length.device) + 0.5
    places = (centres * (1 / (size / length.double()))[:, None] - 0.5).float()
    first = places.floor()
    fraction, first, last = places - first, first.long(), length[:, None] - 1
    if clamp:  # along rows; along columns the weights stay, and both neighbours are the same pixel
        fraction = fraction.masked_fill((first < 0) | (first >= last), 0)
    weights = (torch.stack([1 - fraction, fraction]) * 2048).round().int()
    return torch.stack([first, first + 1]).clamp(min=0).minimum(last), weights


def _placed(height: int, width: int, shape: tuple[int, int], offset: tuple[int, int], mirrored: bool) -> Crop:
    top, left = (height - shape[0]) * offset[0] // 4, (width - shape[1]) * offset[1] // 4
    return Crop(top, left, *shape, mirrored)
