"""Groups of pictures (GOPs) as in CoViAR (Wu et al., CVPR 2018): motion vectors accumulated from the I-frame of a
group, and the residuals of its P-frames.

Groups begin at frames 0, 12, 24, ..., as in videos that are re-encoded and in the embedded data set. In other videos,
I-frames are at other places, which a store does not keep. Their groups are counted in the same way, as if they were
re-encoded with their own vectors: each field joins a frame to the one before it, and at an I-frame, which has no
vectors, the last motion is repeated.

Shapes: G frames of a group after its I-frame (up to 11), K frames of a sample, C channels, H x W pixels.
"""

from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Integer, Shaped, UInt8

from ifttn.data.flow import from_bytes, to_bytes
from ifttn.data.frame_source import FrameSource

GOP = 12
"""Frames from one I-frame to the next in a video that is re-encoded (the default of MPEG-4 and of CoViAR)."""
ACCUMULATED_BOUND = 4.0
"""Bound of accumulated vectors divided by the bound of a field.

CoViAR uses the bound of a field (20 px of 340). With it, fast and slow motion would look the same after a few frames:
within a group, the fastest ball of the embedded data set moves 22 px of 96, which is 4.5 such bounds, and the fastest
slow ball 9 px.
"""


def accumulate(fields: Float32[np.ndarray, "G 2 H W"]) -> Float32[np.ndarray, "G 2 H W"]:
    """Motion from each frame to the next -> motion from the I-frame to each frame.

    Field t, in pixels (x, y), is the motion from frame t to frame t + 1. A pixel is followed back frame by frame,
    always to the nearest pixel. A pixel from outside the picture counts as a pixel of its border.
    """
    accumulated = fields.copy()
    for before, field in pairwise(accumulated):
        field += moved(before, field)
    return accumulated


def residual(
    i_frame: UInt8[np.ndarray, "3 H W"], p_frame: UInt8[np.ndarray, "3 H W"], accumulated: Float32[np.ndarray, "2 H W"]
) -> UInt8[np.ndarray, "3 H W"]:
    """A P-frame minus the I-frame, which is moved along the accumulated vectors. 128 is no difference."""
    left = p_frame.astype(np.int16) - moved(i_frame, accumulated)
    return (128 + left).clip(0, 255).astype(np.uint8)


def moved(image: Shaped[np.ndarray, "C H W"], by: Float32[np.ndarray, "2 H W"]) -> Shaped[np.ndarray, "C H W"]:
    """An image moved along a field: each pixel takes the value at its position minus the displacement."""
    height, width = image.shape[1:]
    x = np.rint(np.arange(width) - by[0]).clip(0, width - 1)
    y = np.rint(np.arange(height)[:, None] - by[1]).clip(0, height - 1)
    return image.reshape(len(image), -1).take((y * width + x).astype(np.intp), axis=1)


def p_frames(frames: Integer[np.ndarray, "*n"]) -> Integer[np.ndarray, "*n"]:
    """Replace each I-frame by the last frame of the group before: an I-frame has no vectors and no residual.

    This follows CoViAR's release, which never draws frame 0. Here frame 1 replaces frame 0.
    """
    return np.maximum(frames - (frames % GOP == 0), 1)


class Groups:
    """The groups of pictures of the frames of a sample. Vectors are read once for both modalities."""

    MODALITIES = ("accumulated", "residual")

    def __init__(self, source: FrameSource, frames: Integer[np.ndarray, " K"]) -> None:
        self.source, self.frames = source, p_frames(frames)
        self.starts = self.frames - self.frames % GOP

    @cached_property
    def accumulated(self) -> Float32[np.ndarray, "K 2 H W"]:
        """For each frame, the motion from the I-frame of its group, in pixels."""
        first, group = np.unique(self.starts, return_inverse=True)
        last = np.zeros_like(first)
        np.maximum.at(last, group, self.frames)
        spans = [np.arange(*span) for span in zip(first, last, strict=True)]
        levels = np.split(self.source.read("mv", np.concatenate(spans)), np.cumsum([len(span) for span in spans])[:-1])
        grown = [accumulate(from_bytes(fields, self.source.settings.bound)) for fields in levels]
        return np.stack([grown[g][f - s - 1] for g, f, s in zip(group, self.frames, self.starts, strict=True)])

    def planes(self, modality: str) -> UInt8[np.ndarray, "K C H W"]:
        """The bytes of one of MODALITIES, for the complete picture."""
        if modality == "accumulated":
            return to_bytes(self.accumulated, ACCUMULATED_BOUND * self.source.settings.bound)
        i_frames, frames = np.split(self.source.read("rgb", np.concatenate([self.starts, self.frames])), 2)
        return np.stack([residual(*each) for each in zip(i_frames, frames, self.accumulated, strict=True)])
