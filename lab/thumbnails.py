"""Strips of a few frames side by side, which the grid of clips plays. They are cached on disk.

Shapes: H x W pixels of a frame, T frames.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Integer, UInt8

from ifttn.data.frame_folder import images_of, size_and_time
from ifttn.data.store import Store
from ifttn.data.video import read_frames, resize_into
from ifttn.files import write_whole
from ifttn.vocabulary import IfttnError, Video
from lab.pictures import Picture, jpeg

FRAMES = 8
"""Number of frames in a strip, from the first to the last frame of the video."""
SIZE = 160, 120
"""Width and height of a frame in a strip (px). Other aspect ratios are squeezed, as a network sees them."""


def strip(video: Video, store: Store | None, folder: Path) -> bytes:
    """FRAMES frames of a video side by side as one JPEG, in temporal order.

    Args:
        video: of a data set.
        store: gives the frames if it has the video; else they come from the video's file.
        folder: the cache. A strip that is older than the file of its video is replaced.

    Raises:
        IfttnError: the video cannot be read.
    """
    path = folder / f"{video.name}.jpg"
    with suppress(OSError):
        changed = size_and_time(video.path)[1] if video.path.exists() else 0
        if path.stat().st_mtime_ns >= changed:
            return path.read_bytes()
    frames = _frames(video, store)
    picture = np.empty((SIZE[1], len(frames) * SIZE[0], 3), np.uint8)
    for number, frame in enumerate(frames):
        resize_into(frame, picture[:, number * SIZE[0] : (number + 1) * SIZE[0]])
    content = jpeg(picture, 75)
    with suppress(IfttnError):  # full disk or no permission: the next call makes the strip again
        write_whole(path, content)
    return content


def _frames(video: Video, store: Store | None) -> Sequence[Picture] | UInt8[np.ndarray, "T H W 3"]:
    if store is not None and video.name in store:
        with store.open(video.name) as entry:
            return entry.read("rgb", _spread(entry.frames)).transpose(0, 2, 3, 1)
    if not video.path.is_dir():
        return read_frames(video.path, _spread)
    images = images_of(video.path)
    found = [(images[index], cv2.imread(str(images[index]))) for index in _spread(len(images)).tolist()]
    if broken := [path for path, image in found if image is None]:
        raise IfttnError(f"{broken[0]}: cannot be read as an image")
    return [image[..., ::-1] for _, image in found if image is not None]


def _spread(count: int) -> Integer[np.ndarray, " T"]:
    """Indices of FRAMES evenly spaced frames, from the first to the last."""
    return np.linspace(0, count - 1, FRAMES).round().astype(int)
