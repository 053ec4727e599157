"""Reads frames of a camera or of a folder of images in the same way as a video file."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from ifttn.data.frame_folder import gaps, images_of
from ifttn.data.losses import LARGEST_LOSS
from ifttn.data.video import Chunk, FrameChoice, Reader, resize_into
from ifttn.vocabulary import IfttnError

FOLDER_FPS = 25.0
"""Frames per second of a folder of images, which has no times."""


class LiveReader(Reader):
    """Reads live RGB frames, and encodes them to get motion vectors."""

    source = "no file"
    """Source of the frames, for a report."""
    is_encoded = True
    """If False, frames are only resized and have no vectors. Then no frame waits for the next one."""

    def __init__(self, frames: Iterable[np.ndarray], fps: float, size: tuple[int, int] | None = None) -> None:
        super().__init__(Path("live frames"), size)
        self.fps, self._source = fps, frames

    def chunks(
        self, choose: FrameChoice | None = None, length: int = 64, keep: Callable[[int], bool] = lambda index: True
    ) -> Iterator[Chunk]:
        """See `Reader.chunks`. Frames that are not encoded come one at a time."""
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
        """Do nothing: live frames have no file to open."""
        yield None

    def _linked(self, container: object) -> Iterator[VideoFrame]:
        self.transcoded, self.seconds = self.source, array("d")
        frames = self._pictures()
        first = next(frames, None)
        if first is not None:
            yield from self._reencoded(None, chain([first], frames))

    def _pictures(self) -> Iterator[VideoFrame]:
        for index, frame in enumerate(self._source):
            self.seconds.append(index / self.fps)
            yield VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")


class FolderReader(LiveReader):
    """Reads a folder of numbered images. The images are the frames, and an encoder gives the vectors.

    Damaged images are skipped.

    Raises:
        IfttnError: see `images_of`; or more than a tenth of the images is damaged.
    """

    source = "images"

    def __init__(self, path: Path, size: tuple[int, int] | None = None) -> None:
        super().__init__((), FOLDER_FPS, size)
        self.path, self._images = path, images_of(path)

    def count(self) -> int:
        """The number of images."""
        return len(self._images)

    def chunks(
        self, choose: FrameChoice | None = None, length: int = 64, keep: Callable[[int], bool] = lambda index: True
    ) -> Iterator[Chunk]:
        """See `LiveReader.chunks`. Each call starts from the first image."""
        self._source = self._whole_images()
        yield from super().chunks(choose, length, keep)

    def _whole_images(self) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        self._read = list[Path]()
        for path in self._images:
            image = _image(path)
            if image is not None:
                self._read.append(path)
                yield image
        lost, count = len(self._images) - len(self._read), len(self._images)
        if lost > LARGEST_LOSS * count:
            raise IfttnError(f"{self.path}: damaged, {lost} of its {count} images cannot be read")
        self.notes = (f"lost frames ({lost} of {count} images cannot be read)",) if lost else ()
        self.notes += gaps(self._images)

    def _picture(self, frame: VideoFrame, index: int) -> UInt8[np.ndarray, "H W 3"]:
        image = _image(self._read[index])
        return super()._picture(frame, index) if image is None else image


def _image(path: Path) -> UInt8[np.ndarray, "H W 3"] | None:
    """An image in RGB, or None if it is damaged."""
    content = np.fromfile(path, np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR_RGB) if len(content) else None


def reader_of(path: str | Path, size: tuple[int, int] | None = None) -> Reader:
    """The reader of a video file or of a folder of images. It resizes to `size` (width, height) if given."""
    return FolderReader(Path(path), size) if Path(path).is_dir() else Reader(path, size)
