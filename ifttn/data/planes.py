"""The bytes of a modality's snippets, made of frames and motion fields: the only place.

A network sees the same planes of a video whether they come from a store, a video file or live frames, because all of
them are made here of what a `FrameSource` gives.

Shapes: K snippets, L = STACK motion fields of a snippet, C channels of a modality's snippet, H x W pixels.
"""

from functools import cached_property

import numpy as np
from jaxtyping import Integer, UInt8

from ifttn.data.frame_source import WHOLE, FrameSource, Region
from ifttn.data.gop import Groups
from ifttn.vocabulary import MODALITIES


class Snippets:
    """K snippets of one video, in any modality."""

    def __init__(
        self, source: FrameSource, frames: Integer[np.ndarray, " K"], fields: Integer[np.ndarray, "K L"]
    ) -> None:
        """`frames`: the frame in the middle of each snippet. `fields`: its motion fields; field t lies between the
        frames t and t + 1. Both are within the video (`sampling.snippet_indices`)."""
        self.source, self.frames, self.fields = source, frames, fields

    def planes(
        self,
        modality: str,
        region: Region = WHOLE,
        out: UInt8[np.ndarray, "K C h w"] | None = None,
        channels: int | None = None,
    ) -> UInt8[np.ndarray, "K C h w"]:
        """The bytes that a network takes, cut to `region`, in `out` or in a new array.

        `channels` are those of a new array, by default the modality's. They decide how many frames or fields a snippet
        of "rgb" or of a `run_of` modality has.
        """
        if out is None:
            settings = self.source.settings
            height, width = len(range(settings.height)[region[0]]), len(range(settings.width)[region[1]])
            out = np.empty((len(self.frames), channels or MODALITIES[modality].channels, height, width), np.uint8)
        if modality in Groups.MODALITIES:
            out[:] = self._groups.planes(modality)[..., *region]  # a pixel's way may lead out of the region, and back
        elif modality == "rgbdiff":
            wanted, position = np.unique([self.fields, self.fields + 1], return_inverse=True)
            earlier, later = self.source.read("rgb", wanted, region)[position.reshape(2, *self.fields.shape)]
            out[:] = rgb_difference(earlier, later).reshape(out.shape)
        else:
            stored, wanted = self.stack(modality, out.shape[1])
            # Single frames may lie in memory as in their JPEGs, colours side by side, which no other shape describes.
            shape = (len(wanted), out.shape[0] * out.shape[1] // len(wanted), *out.shape[2:])
            images = out if shape == out.shape else out.reshape(shape, copy=False)
            self.source.read(stored, wanted, region, images)
        return out

    def stack(self, modality: str, channels: int) -> tuple[str, Integer[np.ndarray, " n"]]:
        """The stored images that lie one after another in the planes of `modality`: their name, and their numbers.

        A run of consecutive frames or fields lies around the middle of its snippet; past an end the last one is
        repeated. No other modalities than runs, "rgb" and the stored fields are such stacks.
        """
        stored = MODALITIES[modality].run_of or modality
        if stored == modality != "rgb":
            return stored, self.fields.ravel()
        count, last = channels // (3 if stored == "rgb" else 2), self.source.frames - (1 if stored == "rgb" else 2)
        return stored, (self.frames[:, None] + np.arange(count) - count // 2).clip(0, last).ravel()

    @cached_property
    def _groups(self) -> Groups:
        return Groups(self.source, self.frames)


def rgb_difference(
    earlier: UInt8[np.ndarray, "*shape"], later: UInt8[np.ndarray, "*shape"]
) -> UInt8[np.ndarray, "*shape"]:
    """Half the change from one frame to the next, as bytes of "rgbdiff": 128 is no change."""
    return ((256 + later.astype(np.int16) - earlier) >> 1).astype(np.uint8)
