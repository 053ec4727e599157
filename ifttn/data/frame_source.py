"""Frames and motion fields of one video by number, wherever they come from."""

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
    """How the videos of a store were prepared; all videos of a store share them."""

    width: int
    height: int
    bound: float
    """Displacement in pixels of the stored size that byte 255 stands for."""
    flow: str = "tvl1"
    """Name of the optical flow, a key of flow.FLOWS."""
    quality: int = 95
    """Of the JPEGs, 1..100."""


class FrameSource(ABC):
    """A video of which `read` gives frames and motion fields by number: field t lies between frames t and t + 1."""

    frames: int
    """T; there are T - 1 fields of each motion."""
    settings: StoreSettings

    @abstractmethod
    def images(self, modality: str, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "C H W"]]:
        """Whole frames or fields, one after the other; `indices` ascend, each once."""

    def read(
        self,
        modality: str,
        indices: Integer[np.ndarray, " n"],
        region: Region = WHOLE,
        out: UInt8[np.ndarray, "n C h w"] | None = None,
    ) -> UInt8[np.ndarray, "n C h w"]:
        """Frames ("rgb", C = 3) or motion fields ("flow", "mv", C = 2) in the order of `indices`, cut to `region`.

        A frame that is asked for several times is decoded once. The result is put into `out`, by default a new array.

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
            del image  # so that the next image takes its memory, which the cache still holds
        return out
