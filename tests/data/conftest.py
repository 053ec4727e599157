"""Small videos with a known motion."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

cv2.setNumThreads(0)


@pytest.fixture(scope="session")
def pan() -> Callable[..., np.ndarray]:
    """pan(count, width, height, step): RGB frames in which everything moves by `step` = (x, y) pixels a frame."""
    noise = np.random.default_rng(0).integers(0, 256, (500, 700, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    texture = np.interp(smooth, (smooth.min(), smooth.max()), (0, 255)).astype(np.uint8)

    def frames(count: int, width: int = 160, height: int = 120, step: tuple[int, int] = (4, 2)) -> np.ndarray:
        corners = [(200 - step[1] * i, 300 - step[0] * i) for i in range(count)]
        return np.stack([texture[top : top + height, left : left + width] for top, left in corners])

    return frames


@pytest.fixture(scope="session")
def encode_sound() -> Callable[[Path], Path]:
    """encode_sound(path): a file with one second of silence and no picture."""

    import av

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
            silence.rate = 8000
            container.mux(stream.encode(silence))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture
def root(tmp_path, pan, encode):
    """Two actions of two groups, a video each."""
    for action, step in (("Left", (-2, 0)), ("Right", (2, 0))):
        for group in (1, 2):
            encode(tmp_path / "set" / action / f"v_{action}_g{group:02}_c01.avi", pan(8, 96, 72, step))
    return tmp_path / "set"
