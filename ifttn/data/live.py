"""Frames that come from no file, from a camera say, read as a video file is."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from ifttn.data.video import Chunk, FrameChoice, Reader, resize_into


class LiveReader(Reader):
    """Reads live RGB frames, and encodes them on the way, so that they have motion vectors as well."""

    is_encoded = True
    """If set to False, frames are only resized and have no vectors: then no frame waits for the next."""

    def __init__(self, frames: Iterable[np.ndarray], fps: float, size: tuple[int, int] | None = None) -> None:
        super().__init__(Path("live frames"), size)
        self.fps, self._source = fps, iter(frames)

    def chunks(
        self, choose: FrameChoice | None = None, length: int = 64, keep: Callable[[int], bool] = lambda index: True
    ) -> Iterator[Chunk]:
        """As `Reader.chunks`; frames that are not encoded come one at a time."""
        if self.is_encoded:
            yield from super().chunks(choose, length, keep)
            return
        for index, picture in enumerate(self._source):
            self.seconds.append(index / self.fps)
            self._set_size(picture.shape[1], picture.shape[0])
            images = np.empty((int(keep(index)), self.size[1], self.size[0], 3), np.uint8)
            for image in images:
                resize_into(picture, image)
            indices, no_vectors = np.full(len(images), index), np.empty((0, 2, 0, 0), np.float32)
            yield Chunk(images, indices, no_vectors, "I", np.array(self.seconds[-1:]))

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """Nothing is to be opened."""
        yield None

    def _linked(self, container: object) -> Iterator[VideoFrame]:
        self.transcoded, self.seconds = "no file", array("d")
        frames = self._pictures()
        first = next(frames, None)
        if first is not None:
            yield from self._encoded_anew(None, chain([first], frames))

    def _pictures(self) -> Iterator[VideoFrame]:
        for index, frame in enumerate(self._source):
            self.seconds.append(index / self.fps)
            yield VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
