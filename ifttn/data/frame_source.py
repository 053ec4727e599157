"""Frames and motion fields of one video by number, from any source."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, UInt8

Region = tuple[slice, slice]
"""Rows and columns of a picture."""
WHOLE: Region = (slice(None), slice(None))


@dataclass(frozen=True)
class StoreSettings:
    """The settings with which all videos of a store are prepared."""

    width: int
    height: int
    bound: float
    """Displacement of byte 255, in pixels of the stored size."""
    flow: str = "tvl1"
    """Name of the optical flow, a key of flow.FLOWS."""
    quality: int = 95
    """Quality of the JPEGs, 1..100."""


class FrameSource(ABC):
    """A video whose frames and motion fields are read by number. Field t is between frames t and t + 1."""

    frames: int
    """T, the number of frames. Each motion modality has T - 1 fields."""
    settings: StoreSettings

    @abstractmethod
    def images(self, modality: str, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "C H W"]]:
        """Complete frames or fields, one after another. `indices` are sorted and unique."""

    def read(
        self,
        modality: str,
        indices: Integer[np.ndarray, " n"],
        region: Region = WHOLE,
        out: UInt8[np.ndarray, "n C h w"] | None = None,
    ) -> UInt8[np.ndarray, "n C h w"]:
        """Frames ("rgb", C = 3) or motion fields ("flow", "mv", C = 2) in the order of `indices`, cut to `region`.

        A frame with several indices is decoded once. The result is written to `out`, by default a new array.

        Raises:
            IfttnError: an index is not in the video, or the video is damaged.
        """
        height, width = self.settings.height, self.settings.width
        if out is None:
            rows, columns = len(range(height)[region[0]]), len(range(width)[region[1]])
            out = np.empty((len(indices), 3 if modality == "rgb" else 2, rows, columns), np.uint8)
        places: dict[int, list[int]] = {}
        for place, index in enumerate(indices.tolist()):
            places.setdefault(index, []).append(place)
        wanted = sorted(places)
        images = self.images(modality, wanted)
        for index in wanted:
            image = next(images)
            for place in places[index]:
                out[place] = image[:, *region]
            del image  # so that the next image reuses its memory, which is still in the cache
        return out
