"""One crop and one mirroring for a whole video: all its snippets and all its modalities.

TTN subtracts the features of two snippets and IFM multiplies those of two modalities, so their pixels must correspond.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from ifttn.vocabulary import MODALITIES, IfttnError

OFFSETS = (*((y, x) for y in (0, 2, 4) for x in (0, 2, 4)), (1, 1), (1, 3), (3, 1), (3, 3))
"""Quarters of the free (height, width) above and left of a random crop: TSN's 13 places."""

CORNERS_AND_CENTRE = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))
TEST_VIEWS = {
    1: tuple((offset, False) for offset in ((2, 2),)),
    3: tuple((offset, False) for offset in ((2, 0), (2, 2), (2, 4))),
    10: tuple((offset, mirrored) for mirrored in (False, True) for offset in CORNERS_AND_CENTRE),
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
    """The crop of every plane, bilinear, size x size.

    Planes of a motion modality are x, y, x, y, ... along C. Mirroring negates x displacements; resizing leaves their
    magnitude alone, as in TSN.
    """
    cut = planes.reshape(-1, *planes.shape[-2:])[
        :, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width
    ]
    resized = np.empty((*planes.shape[:-2], size, size), np.uint8)
    for image, plane in zip(cut, resized.reshape(-1, size, size), strict=True):
        plane[:] = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    if not crop.mirrored:
        return resized
    resized = resized[..., ::-1].copy()
    if MODALITIES[modality].is_motion:
        x_planes = resized[..., 0::2, :, :]
        # 128 is no motion; 0, which only JPEG can make of a byte, would become 256.
        x_planes[:] = 255 - np.maximum(x_planes, 1) + 1
    return resized


def _placed(height: int, width: int, shape: tuple[int, int], offset: tuple[int, int], mirrored: bool) -> Crop:
    top, left = (height - shape[0]) * offset[0] // 4, (width - shape[1]) * offset[1] // 4
    return Crop(top, left, *shape, mirrored)
