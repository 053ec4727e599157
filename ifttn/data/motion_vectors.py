"""The motion vectors that FFmpeg exports with a frame, painted on a grid of blocks of 8 x 8 pixels.

A codec predicts the later of two frames from the earlier one. So its vectors belong to pixels of the later frame, while
optical flow belongs to pixels of the earlier frame.

Shapes: N frames, h x w blocks; a field has 2 planes (x, y), in pixels.
"""

from typing import no_type_check

import numpy as np
from av.sidedata.motionvectors import MotionVectors
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import PictureType, VideoFrame
from jaxtyping import Float32
from numba import njit

BLOCK_SIDE = 8
"""Side in pixels of the smallest block with its own motion vector."""
KINDS = {int(kind): kind.name for kind in PictureType}
I_FRAME, P_FRAME, B_FRAME = int(PictureType.I), int(PictureType.P), int(PictureType.B)
# From libavutil/motion_vector.h. PyAV's to_ndarray() makes this type again for every frame, which takes longer than
# reading the vectors.
_FIELDS = (
    "source i4, w u1, h u1, src_x i2, src_y i2, dst_x i2, dst_y i2, flags u8, motion_x i4, motion_y i4, motion_scale u2"
)
VECTOR = np.dtype([tuple(field.split()) for field in _FIELDS.split(", ")], align=True)


def exported_by(frame: VideoFrame) -> MotionVectors | None:
    """The vectors of a frame as FFmpeg exports them, as rows of VECTOR. None for a frame without vectors."""
    # Not frame.side_data: frame and data would refer to each other and stay in memory until the garbage collector runs.
    for data in SideDataContainer(frame):  # pyright: ignore[reportCallIssue]
        if type(data) is MotionVectors:
            return data
    return None


class BlockPainter:
    """Paints the vectors of many frames in one call. A call for each frame would take longer than the painting."""

    def __init__(self) -> None:
        self._fields = np.zeros((1, 2, 0, 0), np.float32)
        self._vectors, self._view = self._buffer(1 << 13)
        self._stops, self._used, self._done = [], 0, 1

    def start(self, length: int, coded: tuple[int, int], size: tuple[int, int]) -> None:
        """Begin the fields of the next `length` frames. Sizes are (width, height) of the file and of the result."""
        self._scale = (size[0] / coded[0], size[1] / coded[1])
        # Macroblocks of 16 pixels may extend beyond the right and lower border.
        fields = np.empty((length + 1, 2, -(-coded[1] // 16) * 2, -(-coded[0] // 16) * 2), np.float32)
        fields[0] = self._fields[self._done - 1] if self._fields.size else 0
        self._fields, self._done = fields, 1

    def add(self, frame: VideoFrame) -> None:
        """Add the vectors of the next frame."""
        if frame.pict_type == I_FRAME:
            self._stops.append(-1)
            return
        vectors = exported_by(frame)
        if vectors:
            end = self._used + len(vectors) * VECTOR.itemsize
            if end > len(self._view):
                end = self._paint(end - self._used)
            self._view[self._used : end] = memoryview(vectors)
            self._used = end
        self._stops.append(self._used // VECTOR.itemsize)

    def painted(self) -> Float32[np.ndarray, "N 2 h w"]:
        """A field for each frame since `start`: the motion from the previous frame to this frame."""
        self._paint(0)
        return self._fields[1 : self._done]

    def _paint(self, needed: int) -> int:
        """Paint the collected vectors, make room for `needed` bytes, and return their end in the buffer."""
        _paint(self._vectors, np.array(self._stops, np.int64), self._fields, self._done, *self._scale)
        self._done += len(self._stops)
        self._stops, self._used = [], 0
        if needed > len(self._view):
            self._vectors, self._view = self._buffer(2 * needed // VECTOR.itemsize)
        return needed

    @staticmethod
    def _buffer(count: int) -> tuple[np.ndarray, memoryview]:
        raw = bytearray(count * VECTOR.itemsize)
        return np.frombuffer(raw, VECTOR), memoryview(raw)


# numba compiles only plain functions, and `no_type_check` keeps the type checker of the tests from wrapping them.
@no_type_check
@njit(nogil=True, cache=True, error_model="numpy")
def _paint(vectors, stops, fields, at, x_scale, y_scale):
    start = 0
    for stop in stops:
        if stop < 0:
            fields[at] = fields[at - 1]  # an I-frame has no vectors: the last motion is repeated
        else:
            _paint_field(vectors, start, stop, fields[at], x_scale, y_scale)
            start = stop
        at += 1


@no_type_check
@njit(nogil=True, cache=True, error_model="numpy")
def _paint_field(vectors, start, stop, field, x_scale, y_scale):
    height, width = field.shape[1:]
    scale, x_unit, y_unit = 0, 0.0, 0.0
    field[:] = 0
    for i in range(start, stop):
        vector = vectors[i]
        left, top = (vector.dst_x - (vector.w >> 1)) // BLOCK_SIDE, (vector.dst_y - (vector.h >> 1)) // BLOCK_SIDE
        if vector.source >= 0 or not (0 <= left < width and 0 <= top < height):
            continue
        if vector.motion_scale != scale:
            scale = vector.motion_scale
            x_unit, y_unit = x_scale / scale, y_scale / scale
        # FFmpeg: src = dst + motion / motion_scale, and dst is the centre of a block of the current frame.
        x, y = np.float32(-vector.motion_x * x_unit), np.float32(-vector.motion_y * y_unit)
        # A vector covers one or two blocks along each axis; loops would take twice as long.
        wide, high = vector.w > BLOCK_SIDE and left + 1 < width, vector.h > BLOCK_SIDE and top + 1 < height
        field[0, top, left], field[1, top, left] = x, y
        if wide:
            field[0, top, left + 1], field[1, top, left + 1] = x, y
        if high:
            field[0, top + 1, left], field[1, top + 1, left] = x, y
        if wide and high:
            field[0, top + 1, left + 1], field[1, top + 1, left + 1] = x, y
