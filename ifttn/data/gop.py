"""Groups of pictures (GOPs) as CoViAR sees them (Wu et al., CVPR 2018): motion vectors accumulated from a group's
I-frame on, and what they leave unexplained of its P-frames.

Groups begin at frames 0, 12, 24, ...: so videos are encoded anew, and so is the embedded set written. Of a stream that
is read as it is the I-frames lie elsewhere, which a store does not tell; its groups are counted all the same, as if it
had been encoded anew with its own vectors. For that there are: each field joins a frame to the one before, and at an
I-frame, which has none, the last motion is taken to go on.

Shapes: G frames of a group after its I-frame (up to 11), K frames of a sample, C channels, H x W pixels.
"""

from functools import cached_property
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Integer, Shaped, UInt8

from ifttn.data.flow import from_bytes, to_bytes
from ifttn.data.reencoding import GOP
from ifttn.data.store import WHOLE, Part, StoreSettings

FURTHER = 4.0
"""Bound of accumulated vectors, in bounds of a single field. Theirs is that of one field (20 px of 340): fast and slow
would look alike there after a few frames. Within a group, the fastest ball of the embedded set goes 22 px of 96, which
is 4.5 such bounds, and the fastest of the slow ones 9 px."""


@runtime_checkable
class Footage(Protocol):
    """Frames and motion fields of one video by number: `Entry` of a store, and what `planes` makes of a file."""

    frames: int
    """T; there are T - 1 fields of each motion."""
    settings: StoreSettings

    def read(
        self,
        modality: str,
        indices: Integer[np.ndarray, " n"],
        part: Part = WHOLE,
        out: UInt8[np.ndarray, "n C h w"] | None = None,
    ) -> UInt8[np.ndarray, "n C h w"]:
        """As `Entry.read`."""
        ...


def accumulate(fields: Float32[np.ndarray, "G 2 H W"]) -> Float32[np.ndarray, "G 2 H W"]:
    """Motion from each frame to the next -> from the I-frame to each.

    Field t, in pixels (x, y), moves a pixel of frame t to where it stands in frame t + 1. A pixel is followed back to
    the nearest pixel, frame after frame; one that comes from outside is taken for that of the border.
    """
    accumulated = fields.copy()
    for before, field in pairwise(accumulated):
        field += moved(before, field)
    return accumulated


def residual(
    i_frame: UInt8[np.ndarray, "3 H W"], p_frame: UInt8[np.ndarray, "3 H W"], accumulated: Float32[np.ndarray, "2 H W"]
) -> UInt8[np.ndarray, "3 H W"]:
    """What is left of a P-frame once the I-frame, moved along accumulated vectors, is taken from it; 128 is nothing."""
    left = p_frame.astype(np.int16) - moved(i_frame, accumulated)
    return (128 + left).clip(0, 255).astype(np.uint8)


def moved(image: Shaped[np.ndarray, "C H W"], by: Float32[np.ndarray, "2 H W"]) -> Shaped[np.ndarray, "C H W"]:
    """At each pixel, what stood so far away in the image."""
    height, width = image.shape[1:]
    x = np.rint(np.arange(width) - by[0]).clip(0, width - 1)
    y = np.rint(np.arange(height)[:, None] - by[1]).clip(0, height - 1)
    return image.reshape(len(image), -1).take((y * width + x).astype(np.intp), axis=1)


def p_frames(frames: Integer[np.ndarray, "*n"]) -> Integer[np.ndarray, "*n"]:
    """The frames themselves; of an I-frame, which has neither vectors nor residual, the last frame of the group before.

    As in CoViAR's release, which never draws frame 0; here frame 1 stands for it.
    """
    return np.maximum(frames - (frames % GOP == 0), 1)


class Groups:
    """The groups of pictures around the frames of a sample. They are read once for both modalities."""

    MODALITIES = ("accumulated", "residual")

    def __init__(self, source: Footage, frames: Integer[np.ndarray, " K"]) -> None:
        self.source, self.frames = source, p_frames(frames)
        self.starts = self.frames - self.frames % GOP

    @cached_property
    def accumulated(self) -> Float32[np.ndarray, "K 2 H W"]:
        """From the I-frame of each frame's group to the frame, in pixels."""
        first, group = np.unique(self.starts, return_inverse=True)
        last = np.zeros_like(first)
        np.maximum.at(last, group, self.frames)
        spans = [np.arange(*span) for span in zip(first, last, strict=True)]
        levels = np.split(self.source.read("mv", np.concatenate(spans)), np.cumsum([len(span) for span in spans])[:-1])
        grown = [accumulate(from_bytes(fields, self.source.settings.bound)) for fields in levels]
        return np.stack([grown[g][f - s - 1] for g, f, s in zip(group, self.frames, self.starts, strict=True)])

    def planes(self, modality: str) -> UInt8[np.ndarray, "K C H W"]:
        """One of MODALITIES, of the whole picture."""
        if modality == "accumulated":
            return to_bytes(self.accumulated, FURTHER * self.source.settings.bound)
        i_frames, frames = np.split(self.source.read("rgb", np.concatenate([self.starts, self.frames])), 2)
        return np.stack([residual(*each) for each in zip(i_frames, frames, self.accumulated, strict=True)])
