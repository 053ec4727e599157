"""One crop and one mirroring for a whole video: all its snippets and all its modalities.

TTN subtracts the features of two snippets and IFM multiplies those of two modalities, so their pixels must correspond.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from ifttn.vocabulary import MODALITIES, IfttnError

OFFSETS = (*((y, x) for y in (0, 2, 4) for x in (0, 2, 4)), (1, 1), (1, 3), (3, 1), (3, 3))
"""Quarters of the free (height, width) above and left of a random crop: TSN's 13 places."""

CORNERS_AND_CENTRE = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))
TEST_VIEWS = {
    1: [((2, 2), False)],
    3: [((2, 0), False), ((2, 2), False), ((2, 4), False)],
    10: [(offset, mirrored) for mirrored in (False, True) for offset in CORNERS_AND_CENTRE],
}
"""Offsets in quarters, and mirroring, of the fixed crops of a test, by their count."""


@dataclass(frozen=True)
class Crop:
    """A rectangle of the stored frame, in pixels."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False
    """Left and right change places after cropping."""

    @property
    def region(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def random_crop(height: int, width: int, size: int, scales: Sequence[float], rng: np.random.Generator) -> Crop:
    """TSN's multi-scale corner crop of a height x width frame, mirrored half of the time.

    `scales` are sides relative to the frame's shorter side, in falling order. Height and width are drawn apart, at most
    one scale away from one another; a side within 3 px of `size` becomes `size`.
    """
    sides = [int(min(height, width) * scale) for scale in scales]
    sides = [size if abs(side - size) < 3 and size <= min(height, width) else side for side in sides]
    shapes = [(tall, wide) for i, tall in enumerate(sides) for j, wide in enumerate(sides) if abs(i - j) <= 1]
    shape, offset = shapes[rng.integers(len(shapes))], OFFSETS[rng.integers(len(OFFSETS))]
    return _placed(height, width, shape, offset, bool(rng.integers(2)))


def test_crops(height: int, width: int, size: int, count: int) -> list[Crop]:
    """The fixed square crops of a test: 1 (centre), 3 (left, centre, right), 10 (corners and centre, then mirrored).

    Their side is `size`, or the frame's shorter side where that is less.
    """
    if count not in TEST_VIEWS:
        raise IfttnError(f"{count} crops: choose one of {', '.join(map(str, TEST_VIEWS))}")
    side = min(size, height, width)
    return [_placed(height, width, (side, side), offset, mirrored) for offset, mirrored in TEST_VIEWS[count]]


def apply(
    crop: Crop, planes: UInt8[np.ndarray, "*rest C H W"], size: int, modality: str
) -> UInt8[np.ndarray, "*rest C size size"]:
    """The crop of every plane, resized to size x size (bilinear) and mirrored.

    Planes of a motion modality are x, y, x, y, ... along C. Mirroring negates x displacements; resizing leaves their
    magnitude alone, as in TSN.
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
    """Resize and mirror planes that hold the crop alone, into `fitted`."""
    targets = fitted.reshape(-1, size, size)
    if modality == "rgb":
        images = cut.reshape(-1, *cut.shape[-3:]).transpose(0, 2, 3, 1)
    else:  # OpenCV resizes four planes as channels in little more time than two
        planes = cut.reshape(-1, *cut.shape[-2:])
        images = (cv2.merge(list(planes[first : first + 4])) for first in range(0, len(planes), 4))
    step = cut.shape[-3] if modality == "rgb" else 4
    for first, image in zip(range(0, len(targets), step), images, strict=True):
        image = cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=cv2.INTER_LINEAR)
        cv2.split(cv2.flip(image, 1) if crop.mirrored else image, list(targets[first : first + step]))
    if crop.mirrored and MODALITIES[modality].is_motion:
        x_planes = fitted[..., 0::2, :, :]
        np.invert(x_planes, out=x_planes)
        x_planes += x_planes != 255  # 256 - x: 128 is no motion; of 0, which only JPEG can make of a byte, it is 255


def fit_on_device(
    cuts: UInt8[Tensor, "N K C S S"], crops: Int[Tensor, "N 3"], size: int, modality: str
) -> UInt8[Tensor, "N K C size size"]:
    """`fit` of a whole batch on its device, with the same bytes.

    Args:
        cuts: the crop of video n in the first rows and columns of its planes.
        crops: height, width and mirroring of each video; on the CPU.
        size: side of the result in pixels.
        modality: decides what mirroring does.
    """
    fitted = cuts.new_empty((*cuts.shape[:3], size, size))
    for crop in {(height, width, mirrored) for height, width, mirrored in crops.tolist()}:
        height, width, mirrored = crop
        own = (crops == torch.tensor(crop)).all(1).nonzero().flatten().to(cuts.device)
        planes = _resized(cuts[own][..., :height, :width], size)
        if mirrored:
            planes = planes.flip(-1)
            if MODALITIES[modality].is_motion:
                planes[..., 0::2, :, :] = -planes[..., 0::2, :, :].clamp(min=1)  # bytes: modulo 256
        fitted[own] = planes
    return fitted


def _resized(planes: UInt8[Tensor, "*rest h w"], size: int) -> UInt8[Tensor, "*rest size size"]:
    """OpenCV's INTER_LINEAR for bytes, in its own integers (HResizeLinear and VResizeLinear of its resize.cpp)."""
    height, width = planes.shape[-2:]
    if height == width == size:
        return planes
    (left, right), (of_left, of_right) = _taps(width, size, planes.device, clamp=True)
    rows = planes[..., left] * of_left
    rows += planes[..., right] * of_right
    rows >>= 4
    (above, below), (of_above, of_below) = _taps(height, size, planes.device, clamp=False)
    total = (rows[..., above, :] * of_above[:, None]) >> 16
    total += (rows[..., below, :] * of_below[:, None]) >> 16
    return ((total + 2) >> 2).to(torch.uint8)


def _taps(
    length: int, size: int, device: torch.device, *, clamp: bool
) -> tuple[Int[Tensor, "2 size"], Int[Tensor, "2 size"]]:
    """The two neighbours of each place along an axis, and their weights in 2048ths."""
    # OpenCV divides twice, in double precision, and goes on in single precision.
    places = ((np.arange(size) + 0.5) * (1 / (size / length)) - 0.5).astype(np.float32)
    first = np.floor(places).astype(np.int64)
    fraction = places - first.astype(np.float32)
    if clamp:  # along rows; columns keep the weights, and both neighbours are then the same
        fraction[(first < 0) | (first >= length - 1)] = 0
    weights = np.rint(np.stack([1 - fraction, fraction]) * np.float32(2048)).astype(np.int32)
    neighbours = np.clip(np.stack([first, first + 1]), 0, length - 1)
    return torch.from_numpy(neighbours).to(device), torch.from_numpy(weights).to(device)


def _placed(height: int, width: int, shape: tuple[int, int], offset: tuple[int, int], mirrored: bool) -> Crop:
    top, left = (height - shape[0]) * offset[0] // 4, (width - shape[1]) * offset[1] // 4
    return Crop(top, left, *shape, mirrored)
