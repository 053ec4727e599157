"""The bytes of a modality's snippets, made from frames and motion fields.

This is the only place that makes planes, from a `FrameSource`. So a network sees the same planes of a video from a
store, a video file or live frames.

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
        """`frames`: the frame in the middle of each snippet. `fields`: the motion fields of each snippet; field t is
        between frames t and t + 1. All are within the video (`sampling.snippet_indices`)."""
        self.source, self.frames, self.fields = source, frames, fields

    def planes(
        self,
        modality: str,
        region: Region = WHOLE,
        out: UInt8[np.ndarray, "K C h w"] | None = None,
        channels: int | None = None,
    ) -> UInt8[np.ndarray, "K C h w"]:
        """The bytes for a network, cut to `region`, in `out` or in a new array.

        A new array has `channels` channels, by default those of the modality. Their number decides how many frames or
        fields a snippet of "rgb" or of a `run_of` modality has.
        """
        if out is None:
            settings = self.source.settings
            height, width = len(range(settings.height)[region[0]]), len(range(settings.width)[region[1]])
            out = np.empty((len(self.frames), channels or MODALITIES[modality].channels, height, width), np.uint8)
        if modality in Groups.MODALITIES:
            out[:] = self._groups.planes(modality)[..., *region]  # cut last: the path of a pixel may leave the region
        elif modality == "rgbdiff":
            wanted, position = np.unique([self.fields, self.fields + 1], return_inverse=True)
            earlier, later = self.source.read("rgb", wanted, region)[position.reshape(2, *self.fields.shape)]
            out[:] = rgb_difference(earlier, later).reshape(out.shape)
        else:
            stored, wanted = self.stack(modality, out.shape[1])
            # Single frames may have channels last in memory, as in their JPEGs. Such an array cannot be reshaped.
            shape = (len(wanted), out.shape[0] * out.shape[1] // len(wanted), *out.shape[2:])
            images = out if shape == out.shape else out.reshape(shape, copy=False)
            self.source.read(stored, wanted, region, images)
        return out

    def stack(self, modality: str, channels: int) -> tuple[str, Integer[np.ndarray, " n"]]:
        """The stored images that make up the planes of `modality`: their stored modality and their numbers.

        A run of consecutive frames or fields is centred on its snippet. Beyond an end of the video, the last image is
        repeated. Only runs, "rgb" and the stored fields consist of stored images.
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
    """Half of the change from one frame to the next, as bytes of "rgbdiff". 128 is no change."""
    return ((256 + later.astype(np.int16) - earlier) >> 1).astype(np.uint8)
