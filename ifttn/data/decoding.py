"""Frames and motion vectors out of a video file, in one pass.

Motion vectors are the encoder's own, so they cost little more than decoding. Only a stream of I- and P-frames with one
reference joins each frame to the one before it: B-frames and the several reference frames of H.264 reach further, newer
codecs export no vectors at all. Anything else is therefore encoded anew on the way, as CoViAR does.

Shapes: T frames, F of them as RGB, M = T - 1 motion fields of 2 planes (x, y), H x W pixels, h x w cells of 8 x 8.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, no_type_check

import av
import cv2
import decord
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.sidedata.motionvectors import MotionVectors
from av.sidedata.sidedata import SideDataContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Float32, Integer, Shaped, UInt8
from numba import njit

from ifttn.data.headers import is_reference, parameters
from ifttn.vocabulary import IfttnError

GOP = 12
"""Frames from one I-frame to the next where a video is encoded anew (MPEG-4's default, and CoViAR's)."""
CELL = 8
"""Side in pixels of the smallest motion block that FFmpeg exports."""
SHORT = 256
"""Short side in pixels of a large video that is encoded anew, unless more is asked for."""

Choice = Callable[[int], Sequence[int] | Integer[np.ndarray, "..."]]
"""From how many frames a video has to those wanted."""

DRAWN = ("ansi", "bintext", "idf", "xbin")
"""FFmpeg's codecs that draw the characters of a text file."""

KINDS = {int(kind): kind.name for kind in PictureType}
I, P, B = int(PictureType.I), int(PictureType.P), int(PictureType.B)  # noqa: E741
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


@dataclass(frozen=True)
class Decoded:
    """A whole video in memory: all its motion, and the frames that were asked for."""

    frames: UInt8[np.ndarray, "F H W 3"]
    indices: Integer[np.ndarray, " F"]
    """Which frame of the video each is; ascending."""
    cells: Float32[np.ndarray, "M 2 h w"]
    """Field t: by how many pixels of `frames` each cell moves along x and y from frame t to frame t + 1."""
    rows: Integer[np.ndarray, " H"]
    """The cell in which each row of pixels lies."""
    columns: Integer[np.ndarray, " W"]
    fps: float
    kinds: str
    """Type of each frame that the vectors were read from: I, P, or S (P with global motion)."""
    transcoded: str
    """Why the video, or the rest of it, was encoded anew; empty where it was read as it is."""

    @property
    def vectors(self) -> Float32[np.ndarray, "M 2 H W"]:
        """The motion of every pixel. Large: `on_pixels(to_bytes(cells[...], bound))` costs a fraction of it."""
        return self.on_pixels(self.cells)

    def on_pixels(self, cells: Shaped[np.ndarray, "*n h w"]) -> Shaped[np.ndarray, "*n H W"]:
        """What is known of each cell (`cells` or a part of it, in pixels or bytes), at each pixel in it."""
        return np.take(np.take(cells, self.columns, axis=-1), self.rows, axis=-2)

    def at(self, indices: Integer[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n H W 3"]:
        """The frames of these numbers, all of which were asked for."""
        return self.frames[np.searchsorted(self.indices, indices)]


def read_frames(path: Path, indices: Sequence[int] | None = None) -> UInt8[np.ndarray, "T H W 3"]:
    """RGB frames at the video's own size, those asked for or all of them; IfttnError where there are none such."""
    try:
        with av.open(path, metadata_errors="replace") as container:
            _video(container, path)
        video = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        wanted = range(len(video)) if indices is None else indices
        if wanted and min(wanted) >= 0 and max(wanted) < len(video):
            return video.get_batch(list(wanted)).asnumpy()
    except (decord.DECORDError, RuntimeError, FFmpegError, OSError) as error:
        raise IfttnError(f"{path}: cannot be decoded as a video ({_reason(error)})") from error
    raise IfttnError(f"{path}: has {len(video)} frames; asked for {list(wanted) or 'all'}")


def decode(path: Path, size: tuple[int, int] | None = None, choose: Choice | None = None) -> Decoded:
    """All motion vectors and the frames asked for, in one pass, both at `size` (width, height) where given.

    `choose` says which frames to convert to RGB, given how many there are; by default all. Raises as `Reader` does.
    """
    reader = Reader(path, size)
    while True:
        pieces = [*reader.pieces(choose, length=512)]
        kinds = "".join(piece.kinds for piece in pieces)
        if choose is None or len(kinds) == reader.announced:
            break
        reader.announced = len(kinds)  # packed streams hold fewer frames than they announce: once more
    return Decoded(
        _joined([piece.frames for piece in pieces]),
        _joined([piece.indices for piece in pieces]),
        _joined([piece.cells for piece in pieces])[1:],
        *reader.grid(),
        reader.fps,
        kinds,
        reader.transcoded,
    )


def exported(path: Path) -> Iterator[tuple[str, Shaped[np.ndarray, " n"]]]:
    """Each frame's type and its vectors just as FFmpeg exports them (of type BLOCK), whatever they refer to."""
    reader = Reader(path)
    with reader.opened() as container:
        for frame in reader.frames(container):
            vectors = _exported(frame)
            yield KINDS[frame.pict_type], np.frombuffer(memoryview(vectors), BLOCK) if vectors else np.empty(0, BLOCK)


def _video(container: InputContainer, path: Path) -> VideoStream:
    """The first stream of pictures that move; IfttnError where there is none."""
    if not container.streams.video:
        raise IfttnError(f"{path}: holds no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise IfttnError(f"{path}: FFmpeg has no decoder for its codec")
    if stream.codec_context.name in DRAWN:
        raise IfttnError(f"{path}: holds text and no video (FFmpeg would draw it as {stream.codec_context.name})")
    if stream.disposition & Disposition.attached_pic:
        raise IfttnError(f"{path}: holds a cover picture and no video stream")
    return stream


def _exported(frame: VideoFrame) -> MotionVectors | None:
    # Not frame.side_data: frame and data would hold each other, and stay until the garbage collector comes.
    for data in SideDataContainer(frame):  # pyright: ignore[reportCallIssue]
        if type(data) is MotionVectors:
            return data
    return None


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


class Piece(NamedTuple):
    """Some frames of a video in a row."""

    frames: UInt8[np.ndarray, "F H W 3"]
    """Those that were asked for, at the size asked for."""
    indices: Integer[np.ndarray, " F"]
    """Which frame of the video each is."""
    cells: Float32[np.ndarray, "N 2 h w"]
    """By how many pixels (of that size) each cell moved along x and y up to each frame, since the one before."""
    kinds: str


class Reader:
    """One pass over a video, in the memory of one piece: `for piece in Reader(path, size).pieces()`.

    A stream that does not join each frame to the one before is encoded anew, from the first frame that shows it;
    frames and vectors both come from the new stream, so that they agree. A damaged packet is skipped, but IfttnError
    is raised for a file that lost more than a tenth of the frames it announces, has no frame or no video stream, or is
    of no known format.
    """

    def __init__(self, path: Path, size: tuple[int, int] | None = None) -> None:
        self.path, self._asked = path, size
        self.fps, self.transcoded, self.announced = 0.0, "", 0
        self.size = self.coded = (0, 0)
        self._header, self._length_size, self._to_rgb = 0, -1, VideoReformatter()

    def pieces(
        self, choose: Choice | None = None, length: int = 64, keep: Callable[[int], bool] = lambda index: True
    ) -> Iterator[Piece]:
        """From the start, `length` frames at a time, those that `choose` picks as RGB; by default all, and of them
        those that `keep` says, which serves where nothing knows how many there will be.

        `choose` is given `announced`: what the index of the file says unless it has been set, or else its header, or
        else how many packets there are. With the first piece `fps` and `size` are known, by the last one `transcoded`.
        """
        chosen, canvas, at = None, _Canvas(), 0
        try:
            with self.opened() as container:
                frames = self._joined(container)
                for first in frames:
                    if choose and chosen is None:
                        self.announced = self.announced or self._count(container)
                        chosen = set(np.ravel(choose(self.announced)).tolist())
                    wanted = [i for i in range(at, at + length) if keep(i) and (chosen is None or i in chosen)]
                    yield self._piece(chain([first], islice(frames, length - 1)), canvas, at, length, wanted)
                    at += length
        except (FFmpegError, OSError) as error:
            raise IfttnError(f"{self.path}: cannot be decoded as a video ({_reason(error)})") from error

    def grid(self) -> tuple[Integer[np.ndarray, " H"], Integer[np.ndarray, " W"]]:
        """The cell in which each row and each column of pixels of the size asked for lies."""
        (width, height), (coded_width, coded_height) = self.size, self.coded
        rows = ((np.arange(height) + 0.5) * coded_height / height).astype(np.int64) // CELL
        columns = ((np.arange(width) + 0.5) * coded_width / width).astype(np.int64) // CELL
        return rows, columns

    def _piece(self, frames: Iterator[VideoFrame], canvas: "_Canvas", at: int, length: int, wanted: list[int]) -> Piece:
        kinds, found = "", 0
        images = np.empty((len(wanted), self.size[1], self.size[0], 3), np.uint8)
        canvas.start(length, self.coded, self.size)
        for index, frame in enumerate(frames, at):
            kinds += KINDS[frame.pict_type]
            canvas.add(frame)
            if found < len(wanted) and index == wanted[found]:
                self._into(images[found], frame)
                found += 1
        return Piece(images[:found], np.array(wanted[:found], np.int64), canvas.painted(), kinds)

    def _into(self, image: UInt8[np.ndarray, "H W 3"], frame: VideoFrame) -> None:
        whole = self._to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
        if self.size == (frame.width, frame.height):
            image[:] = whole
        else:
            shrinks = self.size[0] < frame.width
            cv2.resize(whole, self.size, dst=image, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)

    def _count(self, container: InputContainer) -> int:
        stream = container.streams.video[0]
        listed = sum(entry.size > 0 for entry in stream.index_entries)  # AVI lists dropped frames as empty
        if stream.frames:
            return listed if listed >= 0.9 * stream.frames else stream.frames
        with self.opened() as other:
            return sum(packet.size > 0 for packet in other.demux(video=0))

    @contextmanager
    def opened(self) -> Iterator[InputContainer]:
        """The file, set to export vectors and to decode on one core."""
        # Some files of HMDB51 carry metadata that is not UTF-8.
        with av.open(self.path, metadata_errors="replace") as container:
            stream = _video(container, self.path)
            self.fps, self._header = float(stream.average_rate or 25), stream.frames
            stream.codec_context.thread_count = 1  # videos are decoded in parallel already
            stream.codec_context.options = {"flags2": "+export_mvs"}
            yield container

    def _joined(self, container: InputContainer) -> Iterator[VideoFrame]:
        frames, last = self.frames(container), None
        self.transcoded = self._far(container.streams.video[0].codec_context)
        for frame in frames:
            # Most frames are P-frames, and a stream changes at others.
            if frame.pict_type != P or last is None:
                self.transcoded = self.transcoded or self._odd(frame, last)
            if self.transcoded:
                yield from self._anew(last, chain([frame], frames))
                return
            if last is None:
                self._coded_as(frame.width, frame.height)
            yield frame
            last = frame

    def _far(self, codec: VideoCodecContext) -> str:
        """Why vectors may reach further than the frame before, as far as the header says."""
        self._length_size = -1
        if codec.name != "h264":
            return "" if codec.name == "mpeg4" else f"{codec.name}: neither MPEG-4 nor H.264"
        found = parameters(codec.extradata or b"")
        if found is None:
            return "H.264: unknown references"
        self._length_size = found.length_size
        if found.references > 1:
            return "H.264: several references"
        return "" if found.progressive else "interlaced"

    def _odd(self, frame: VideoFrame, last: VideoFrame | None) -> str:
        """The same, as far as a frame says."""
        if frame.pict_type == B:
            return "B-frames"
        if last is None:
            return "rotated" if frame.rotation else "interlaced" if frame.interlaced_frame else ""
        return "" if self.coded == (frame.width, frame.height) else "changes its size"

    def frames(self, container: InputContainer) -> Iterator[VideoFrame]:
        """All that can be decoded, as they are."""
        count = 0
        for packet in container.demux(container.streams.video[0]):
            if self._length_size >= 0 and packet.size and not is_reference(memoryview(packet), self._length_size):
                self.transcoded = self.transcoded or "H.264: temporal layers"
            try:
                frames = packet.decode()
            except InvalidDataError:
                continue  # counted below
            for frame in frames:
                count += 1
                yield frame
        # A packed stream may hold a few frames fewer than its header says.
        if count == 0 or count < 0.9 * self._header:
            raise IfttnError(f"{self.path}: truncated or damaged, only {count} of {self._header} frames can be decoded")

    def _anew(self, last: VideoFrame | None, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """MPEG-4 Part 2 with I- and P-frames only, with next to no loss; `last` starts it and is not repeated."""
        if last is not None:
            new = _encoded_anew(chain([last], frames), self.coded)
            next(new)
            yield from new
            return
        first = next(frames)
        width, height = first.width, first.height
        if first.rotation % 180:
            width, height = height, width
        if self._asked:
            shrink = max(self._asked[0] / width, self._asked[1] / height, SHORT / min(width, height))
            if shrink < 1:
                width, height = round(width * shrink), round(height * shrink)
        self._coded_as(width, height)
        yield from _encoded_anew(chain([first], frames), self.coded)

    def _coded_as(self, width: int, height: int) -> None:
        self.coded = (width, height)
        self.size = self._asked or self.coded


class Live(Reader):
    """Frames that come from no file, from a camera say: encoded on their way, so that they have vectors as well."""

    def __init__(self, frames: Iterable[np.ndarray], fps: float, size: tuple[int, int] | None = None) -> None:
        super().__init__(Path("live frames"), size)
        self.fps, self._source = fps, iter(frames)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """Nothing is to be opened."""
        yield None

    def _joined(self, container: object) -> Iterator[VideoFrame]:
        self.transcoded = "no file"
        frames = (VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24") for frame in self._source)
        first = next(frames, None)
        if first is not None:
            yield from self._anew(None, chain([first], frames))


class _Canvas:
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
        if frame.pict_type == I:
            self._stops.append(-1)
            return
        vectors = _exported(frame)
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


def _encoded_anew(frames: Iterator[VideoFrame], size: tuple[int, int]) -> Iterator[VideoFrame]:
    """Each frame after an encoder and a decoder, one after the other: nothing but a frame or two is kept."""
    encoder, decoder = VideoCodecContext.create("mpeg4", "w"), VideoCodecContext.create("mpeg4", "r")
    encoder.width, encoder.height, encoder.pix_fmt = *size, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.gop_size, encoder.max_b_frames = GOP, 0
    encoder.options = {"flags": "+qscale", "global_quality": "236"}  # quantiser 2 of 31
    decoder.thread_count, decoder.options = 1, {"flags2": "+export_mvs"}
    reformatter = VideoReformatter()
    for index, frame in enumerate(frames):
        plain = reformatter.reformat(_upright(frame), *size, "yuv420p", threads=1)
        plain.pts, plain.time_base, plain.pict_type = index, encoder.time_base, PictureType.NONE
        for packet in encoder.encode(plain):
            yield from decoder.decode(packet)
    for packet in encoder.encode():
        yield from decoder.decode(packet)
    yield from decoder.decode()


def _upright(frame: VideoFrame) -> VideoFrame:
    if not frame.rotation:
        return frame
    turned = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    return VideoFrame.from_ndarray(np.ascontiguousarray(turned, np.uint8), format="rgb24")


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:200] if str(error).strip() else type(error).__name__
