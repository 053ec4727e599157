"""The motion vectors that FFmpeg exports with a frame, painted on cells of 8 x 8 pixels.

Shapes: N frames, h x w cells; a field has 2 planes (x, y), in pixels.
"""

from typing import no_type_check

import numpy as np
from av.sidedata.motionvectors import MotionVectors
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import PictureType, VideoFrame
from jaxtyping import Float32
from numba import njit

CELL = 8
"""Side in pixels of the smallest motion block that FFmpeg exports."""
KINDS = {int(kind): kind.name for kind in PictureType}
I_FRAME, P_FRAME, B_FRAME = int(PictureType.I), int(PictureType.P), int(PictureType.B)
# libavutil/motion_vector.h. PyAV's own to_ndarray() makes this type anew for every frame, which takes longer than
# reading the vectors does.
BLOCK = np.dtype(
    [
        ("source", np.int32),
        ("w", np.uint8),
        ("h", np.uint8),
        ("src_x", np.int16),
        ("src_y", np.int16),
        ("dst_x", np.int16),
        ("dst_y", np.int16),
        ("flags", np.uint64),
        ("motion_x", np.int32),
        ("motion_y", np.int32),
        ("motion_scale", np.uint16),
    ],
    align=True,
)


def exported_by(frame: VideoFrame) -> MotionVectors | None:
    """The vectors of a frame just as FFmpeg exports them, as rows of BLOCK; None where it has none."""
    # Not frame.side_data: frame and data would hold each other, and stay until the garbage collector comes.
    for data in SideDataContainer(frame):  # pyright: ignore[reportCallIssue]
        if type(data) is MotionVectors:
            return data
    return None


class Canvas:
    """Vectors of many frames, painted at once: a call for each frame would take longer than painting it."""

    def __init__(self) -> None:
        self._cells = np.zeros((1, 2, 0, 0), np.float32)
        self._rows, self._view = self._buffer(1 << 13)
        self._stops, self._used, self._done = [], 0, 1

    def start(self, length: int, coded: tuple[int, int], size: tuple[int, int]) -> None:
        """A new piece of so many frames."""
        self._scale = (size[0] / coded[0], size[1] / coded[1])
        # Macroblocks of 16 pixels may reach over the right and lower border.
        cells = np.empty((length + 1, 2, -(-coded[1] // 16) * 2, -(-coded[0] // 16) * 2), np.float32)
        cells[0] = self._cells[self._done - 1] if self._cells.size else 0
        self._cells, self._done = cells, 1

    def add(self, frame: VideoFrame) -> None:
        """The motion up to the next frame."""
        if frame.pict_type == I_FRAME:
            self._stops.append(-1)
            return
        vectors = exported_by(frame)
        if vectors:
            end = self._used + len(vectors) * BLOCK.itemsize
            if end > len(self._view):
                end = self._paint(end - self._used)
            self._view[self._used : end] = memoryview(vectors)
            self._used = end
        self._stops.append(self._used // BLOCK.itemsize)

    def painted(self) -> Float32[np.ndarray, "N 2 h w"]:
        """The motion up to each frame since `start`."""
        self._paint(0)
        return self._cells[1 : self._done]

    def _paint(self, needed: int) -> int:
        """Paint what has been collected and make room for `needed` bytes: up to where they reach."""
        _paint(self._rows, np.array(self._stops, np.int64), self._cells, self._done, *self._scale)
        self._done += len(self._stops)
        self._stops, self._used = [], 0
        if needed > len(self._view):
            self._rows, self._view = self._buffer(2 * needed // BLOCK.itemsize)
        return needed

    @staticmethod
    def _buffer(count: int) -> tuple[np.ndarray, memoryview]:
        raw = bytearray(count * BLOCK.itemsize)
        return np.frombuffer(raw, BLOCK), memoryview(raw)


# numba compiles plain functions only, hence `no_type_check`.
@no_type_check
@njit(nogil=True, cache=True, error_model="numpy")
def _paint(blocks, stops, cells, at, x_scale, y_scale):
    start = 0
    for stop in stops:
        if stop < 0:
            cells[at] = cells[at - 1]  # an I-frame holds no vectors: the last motion is taken to go on
        else:
            _paint_field(blocks, start, stop, cells[at], x_scale, y_scale)
            start = stop
        at += 1


@no_type_check
@njit(nogil=True, cache=True, error_model="numpy")
def _paint_field(blocks, start, stop, field, x_scale, y_scale):
    height, width = field.shape[1:]
    scale, x_unit, y_unit = 0, 0.0, 0.0
    field[:] = 0
    for i in range(start, stop):
        block = blocks[i]
        left, top = (block.dst_x - (block.w >> 1)) // CELL, (block.dst_y - (block.h >> 1)) // CELL
        if block.source >= 0 or not (0 <= left < width and 0 <= top < height):
            continue
        if block.motion_scale != scale:
            scale = block.motion_scale
            x_unit, y_unit = x_scale / scale, y_scale / scale
        # FFmpeg: src = dst + motion / motion_scale, and dst is the centre of a block of the current frame.
        x, y = np.float32(-block.motion_x * x_unit), np.float32(-block.motion_y * y_unit)
        # A block is one or two cells wide and high; loops would take twice as long.
        wide, high = block.w > CELL and left + 1 < width, block.h > CELL and top + 1 < height
        field[0, top, left], field[1, top, left] = x, y
        if wide:
            field[0, top, left + 1], field[1, top, left + 1] = x, y
        if high:
            field[0, top + 1, left], field[1, top + 1, left] = x, y
        if wide and high:
            field[0, top + 1, left + 1], field[1, top + 1, left + 1] = x, y
