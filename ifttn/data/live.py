"""Frames that come from no file, read as a video is."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from ifttn.data.video import Choice, Piece, Reader, fit


class Live(Reader):
    """Frames that come from no file, from a camera say: encoded on their way, so that they have vectors as well."""

    is_encoded = True
    """Else frames are resized and nothing more, and have no vectors: then no frame waits for the next."""

    def __init__(self, frames: Iterable[np.ndarray], fps: float, size: tuple[int, int] | None = None) -> None:
        super().__init__(Path("live frames"), size)
        self.fps, self._source = fps, iter(frames)

    def pieces(
        self, choose: Choice | None = None, length: int = 64, keep: Callable[[int], bool] = lambda index: True
    ) -> Iterator[Piece]:
        """As `Reader.pieces`; frames that are not encoded come one at a time."""
        if self.is_encoded:
            yield from super().pieces(choose, length, keep)
            return
        for index, picture in enumerate(self._source):
            self.seconds.append(index / self.fps)
            self._coded_as(picture.shape[1], picture.shape[0])
            images = np.empty((int(keep(index)), self.size[1], self.size[0], 3), np.uint8)
            for image in images:
                fit(picture, image)
            indices = np.full(len(images), index)
            yield Piece(images, indices, np.empty((1, 2, 0, 0), np.float32), "I", np.array(self.seconds[-1:]))

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """Nothing is to be opened."""
        yield None

    def _joined(self, container: object) -> Iterator[VideoFrame]:
        self.transcoded, self.seconds = "no file", array("d")
        frames = self._pictures()
        first = next(frames, None)
        if first is not None:
            yield from self._anew(None, chain([first], frames))

    def _pictures(self) -> Iterator[VideoFrame]:
        for index, frame in enumerate(self._source):
            self.seconds.append(index / self.fps)
            yield VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
