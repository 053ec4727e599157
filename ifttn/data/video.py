"""Reads frames, motion vectors and times from a video file in one pass.

The motion vectors come from the encoder, so they cost little more than decoding. Vectors join each frame to the one
before it only in a stream of I- and P-frames with one reference frame. B-frames and several reference frames of H.264
reach further, and newer codecs export no vectors. Such a video is re-encoded while it is read, as in CoViAR.

PyAV decodes here, because decord has no motion vectors.

Shapes: T frames, F of them as RGB, M = T - 1 motion fields of 2 planes (x, y), H x W pixels, h x w blocks of 8 x 8.
"""

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Float32, Float64, Integer, Shaped, UInt8

from ifttn.data.h264 import is_reference, parameters
from ifttn.data.losses import Losses, count_shown
from ifttn.data.motion_vectors import B_FRAME, BLOCK_SIDE, KINDS, P_FRAME, VECTOR, BlockPainter, exported_by
from ifttn.data.reencoding import UPRIGHT, reencoded, turn_of
from ifttn.vocabulary import IfttnError

SHORT = 256
"""Short side in pixels of a large video that is re-encoded, unless a larger size is requested."""

FrameChoice = Callable[[int], Sequence[int] | Integer[np.ndarray, "..."]]
"""Number of frames of a video -> the indices of the requested frames."""

DRAWN = ("ansi", "bintext", "idf", "xbin")
"""FFmpeg's codecs that draw the characters of a text file."""


@dataclass(frozen=True)
class Decoded:
    """A video in memory: all of its motion, and the requested frames."""

    frames: UInt8[np.ndarray, "F H W 3"]
    blocks: Float32[np.ndarray, "M 2 h w"]
    """Field t: displacement of each block along x and y from frame t to frame t + 1, in pixels of `frames`."""
    rows: Integer[np.ndarray, " H"]
    """Row of pixels -> row of blocks."""
    columns: Integer[np.ndarray, " W"]
    seconds: Float64[np.ndarray, " T"]
    """The time of each frame of the video, from the first frame on, as in the stream."""
    fps: float
    """Mean number of frames per second."""
    kinds: str
    """Type of each frame of the stream with the vectors: I, P, or S (P with global motion)."""
    transcoded: str
    """Why the video, or its rest, was re-encoded. Empty for a video that was read without re-encoding."""
    notes: tuple[str, ...]
    """What was lost (`Losses`)."""

    @property
    def vectors(self) -> Float32[np.ndarray, "M 2 H W"]:
        """The motion of every pixel. This array is large; `spread` of bytes is much smaller."""
        return spread(self.blocks, self.rows, self.columns)


def read_frames(path: str | Path, indices: Sequence[int] | FrameChoice | None = None) -> UInt8[np.ndarray, "T H W 3"]:
    """The RGB frames with these numbers, or all frames, at the size of the video. No motion is read.

    Raises:
        IfttnError: the file cannot be decoded, or does not have these frames.
    """
    import decord  # takes 0.4 GB of memory, and only this function needs it

    path = Path(path)
    with _named(path, decord.DECORDError, RuntimeError, UnicodeError):
        with _opened(path):
            video = decord.VideoReader(_url(path), ctx=decord.cpu(0), num_threads=1)
        wanted = range(len(video)) if indices is None else indices
        wanted = np.ravel(wanted(len(video))).tolist() if callable(wanted) else wanted
        if wanted and min(wanted) >= 0 and max(wanted) < len(video):
            return video.get_batch(list(wanted)).asnumpy()
    raise IfttnError(f"{path}: has {len(video)} frames; requested: {list(wanted) or 'all'}")


def decode(path: str | Path, size: tuple[int, int] | None = None, choose: FrameChoice | None = None) -> Decoded:
    """All motion vectors, and the frames that `choose` returns (by default all), at `size` (width, height) if given.

    Raises the errors of `Reader`. Read a video of more than a few minutes in chunks, with `Reader`.
    """
    reader = Reader(path, size)
    while True:
        chunks = [*reader.chunks(choose, length=512)]
        kinds = "".join(chunk.kinds for chunk in chunks)
        if choose is None or len(kinds) == reader.announced:
            break
        reader.announced = len(kinds)  # a packed stream has fewer frames than it announces: read it again
    frames, _, blocks, _, seconds = zip(*chunks, strict=True)
    return Decoded(
        np.concatenate(frames),
        np.concatenate(blocks),
        *reader.grid(),
        np.concatenate(seconds),
        reader.fps,
        kinds,
        reader.transcoded,
        reader.notes,
    )


def exported(path: str | Path) -> Iterator[tuple[str, Shaped[np.ndarray, " n"]]]:
    """The type of each frame, and its vectors as FFmpeg exports them (rows of VECTOR), with any reference frame."""
    reader = Reader(path)
    with reader.opened() as container:
        for frame in reader.frames(container):
            vectors = exported_by(frame)
            yield KINDS[frame.pict_type], np.frombuffer(memoryview(vectors), VECTOR) if vectors else np.empty(0, VECTOR)


@contextmanager
def _named(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Turn FFmpeg's errors, and these, into an IfttnError that names the file."""
    try:
        yield
    except (FFmpegError, OSError, *errors) as error:
        lines = str(error).replace("'file:", "'").strip().splitlines()
        reason = lines[-1][:200] if lines else type(error).__name__
        raise IfttnError(f"{path}: cannot be decoded as a video ({reason})") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    # Some files of HMDB51 have metadata that is not UTF-8.
    with av.open(_url(path), metadata_errors="replace") as container:
        yield container, picture_stream(container, path)


def _url(path: Path) -> str:
    """A path with the protocol "file:". Without it, FFmpeg would read the text before a colon as a protocol."""
    return f"file:{os.fspath(path)}"


def picture_stream(container: InputContainer, path: Path) -> VideoStream:
    """The video stream that the ffmpeg program chooses. Raises IfttnError if the file has no such stream."""
    if not container.streams.video:
        raise IfttnError(f"{path}: holds no video stream")
    moving = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not moving:
        raise IfttnError(f"{path}: holds a cover picture and no video stream")
    stream = max(moving, key=_preference)
    if stream.codec_context is None:
        raise IfttnError(f"{path}: FFmpeg has no decoder for its codec")
    if stream.codec_context.name in DRAWN:
        raise IfttnError(f"{path}: holds text and no video (FFmpeg would draw it as {stream.codec_context.name})")
    return stream


def _preference(stream: VideoStream) -> int:
    """Pixels of the picture, and five million more for the track that is marked as the default. The largest value is
    chosen (fftools/ffmpeg_mux_init.c)."""
    if stream.codec_context is None:
        return -1
    return stream.width * stream.height + 5_000_000 * bool(stream.disposition & Disposition.default)


def spread(
    blocks: Shaped[np.ndarray, "*n h w"], rows: Integer[np.ndarray, " H"], columns: Integer[np.ndarray, " W"]
) -> Shaped[np.ndarray, "*n H W"]:
    """The values of blocks at each pixel. `rows` and `columns` give the block of each pixel (`Reader.grid`)."""
    return np.take(np.take(blocks, columns, axis=-1), rows, axis=-2)


class Chunk(NamedTuple):
    """N consecutive frames of a video."""

    frames: UInt8[np.ndarray, "F H W 3"]
    """The requested frames, at the requested size."""
    indices: Integer[np.ndarray, " F"]
    """The number of each of these frames in the video."""
    blocks: Float32[np.ndarray, "M 2 h w"]
    """Displacement of each block along x and y, in pixels of the requested size: a field for each of the N frames, from
    the previous frame to this one. The first frame of the video has no field."""
    kinds: str
    """Type of each of the N frames."""
    seconds: Float64[np.ndarray, " N"]
    """The time of each frame, from the first frame of the video on."""


class Reader:
    """Reads a video once, with one chunk in memory: `for chunk in Reader(path, size).chunks()`.

    A stream whose vectors do not join each frame to the one before is re-encoded, from the first frame that shows
    this. Then frames and vectors both come from the new stream, so that they agree. A damaged packet is skipped. Frames
    that an edit list hides were trimmed off and do not count.

    Raises:
        IfttnError: the file lost more than a tenth of its frames, has no frame or no video stream, or has an unknown
            format.
    """

    def __init__(self, path: str | Path, size: tuple[int, int] | None = None) -> None:
        self.path, self._asked = Path(path), size
        self.fps, self.transcoded, self.announced, self.notes = 0.0, "", 0, tuple[str, ...]()
        self.size = self.coded = (0, 0)
        self.seconds = array("d")
        """The times of the frames so far, from the first frame on."""
        self._turn, self._length_size, self._to_rgb = UPRIGHT, -1, VideoReformatter()

    def chunks(
        self, choose: FrameChoice | None = None, length: int = 64, keep: Callable[[int], bool] = lambda index: True
    ) -> Iterator[Chunk]:
        """The video from its start, `length` frames at a time.

        `fps` and `size` are known with the first chunk, and `transcoded` and `notes` (what was lost) after the last.

        Args:
            choose: returns the frames to convert to RGB for `announced` frames, which is `count()` unless set before.
            length: frames in a chunk.
            keep: whether a chosen frame is converted. It serves live frames, whose number is unknown.
        """
        chosen, painter, at = None, BlockPainter(), 0
        with _named(self.path), self.opened() as container:
            frames = self._linked(container)
            for first in frames:
                if choose and chosen is None:
                    self.announced = self.announced or self.count()
                    chosen = set(np.ravel(choose(self.announced)).tolist())
                wanted = [i for i in range(at, at + length) if keep(i) and (chosen is None or i in chosen)]
                painter.start(length, self.coded, self.size)
                yield self._chunk(chain([first], islice(frames, length - 1)), painter, at, wanted)
                at += length

    def grid(self) -> tuple[Integer[np.ndarray, " H"], Integer[np.ndarray, " W"]]:
        """The block of each row and of each column of pixels, at the requested size."""
        (width, height), (coded_width, coded_height) = self.size, self.coded
        rows = ((np.arange(height) + 0.5) * coded_height / height).astype(np.int64) // BLOCK_SIDE
        columns = ((np.arange(width) + 0.5) * coded_width / width).astype(np.int64) // BLOCK_SIDE
        return rows, columns

    def _chunk(self, frames: Iterator[VideoFrame], painter: BlockPainter, at: int, wanted: list[int]) -> Chunk:
        kinds, found = "", 0
        images = np.empty((len(wanted), self.size[1], self.size[0], 3), np.uint8)
        for index, frame in enumerate(frames, at):
            kinds += KINDS[frame.pict_type]
            painter.add(frame)
            if found < len(wanted) and index == wanted[found]:
                resize_into(self._picture(frame, index), images[found])
                found += 1
        blocks = painter.painted()[1 if at == 0 else 0 :]
        seconds = np.array(self.seconds[at : at + len(kinds)])
        return Chunk(images[:found], np.array(wanted[:found], np.int64), blocks, kinds, seconds)

    def _picture(self, frame: VideoFrame, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Frame number `index` in RGB."""
        return self._to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()

    def count(self) -> int:
        """The number of frames in the index of the file. Without an index, the number of packets with a picture."""
        with _named(self.path), _opened(self.path) as (container, stream):
            if stream.frames and count_shown(stream) == stream.frames:
                return stream.frames
            return sum(packet.size > 0 and not packet.is_discard for packet in container.demux(stream))

    @contextmanager
    def opened(self) -> Iterator[InputContainer]:
        """Open the file, to export vectors and to decode on one core."""
        with _opened(self.path) as (container, stream):
            average, guessed = float(stream.average_rate or 25), float(stream.guessed_rate or 0)
            self.fps = guessed if 0 < guessed < 0.7 * average else average  # AVI counts the fields of H.264
            self.seconds = array("d")
            stream.codec_context.thread_count = 1  # several videos are already decoded in parallel
            stream.codec_context.options = {"flags2": "+export_mvs"}
            yield container

    def _linked(self, container: InputContainer) -> Iterator[VideoFrame]:
        """The frames, each with vectors from the frame before."""
        frames, last = self.frames(container), None
        self.transcoded = self._distant_references(picture_stream(container, self.path).codec_context)
        for frame in frames:
            # Most frames are P-frames, and a stream does not change at them.
            if frame.pict_type != P_FRAME or last is None:
                self.transcoded = self.transcoded or self._unfit(frame, last)
            if self.transcoded:
                yield from self._reencoded(last, chain([frame], frames))
                return
            if last is None:
                self._set_size(frame.width, frame.height)
            yield frame
            last = frame

    def _distant_references(self, codec: VideoCodecContext) -> str:
        """Why vectors may reach further than the frame before, according to the header. Empty if they do not."""
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

    def _unfit(self, frame: VideoFrame, last: VideoFrame | None) -> str:
        """Why the video must be re-encoded from this frame on. Empty if it need not."""
        if last is None:
            self._turn = turn_of(frame)
        if frame.pict_type == B_FRAME:
            return "B-frames"
        if last is None:
            return "rotated" if any(self._turn) else "interlaced" if frame.interlaced_frame else ""
        return "" if self.coded == (frame.width, frame.height) else "changes its size"

    def frames(self, container: InputContainer) -> Iterator[VideoFrame]:
        """All visible frames of the file that can be decoded, without re-encoding."""
        stream = picture_stream(container, self.path)
        losses, is_avi = Losses(container, stream), container.format.name == "avi"
        for packet in self._packets(container, stream, losses):
            try:
                frames = packet.decode()
            except InvalidDataError:
                losses.failure()
                continue
            for frame in frames:
                losses.frame(frame)
                # AVI has no times. FFmpeg makes them up, and only the times of decoding are in order.
                self._note_time(frame.dts if is_avi else frame.pts, float(stream.time_base or 0))
                yield frame
        losses.close(self.path, self.seconds)
        self.notes = tuple(losses.notes)

    def _packets(self, container: InputContainer, stream: VideoStream, losses: Losses) -> Iterator[Packet]:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except InvalidDataError:  # the demuxer cannot find the next packet
                losses.failure()
                packet = Packet()  # for an empty packet, the decoder returns the frames that it has delayed
                packet.stream = stream
            if packet is None:
                return
            losses.packet(packet)
            if self._length_size >= 0 and packet.size and not is_reference(memoryview(packet), self._length_size):
                self.transcoded = self.transcoded or "H.264: temporal layers"
            yield packet

    def _note_time(self, stamp: int | None, unit: float) -> None:
        if not self.seconds:
            self._first = (stamp or 0) * unit
        seconds = -1.0 if stamp is None else stamp * unit - self._first
        if self.seconds and seconds <= self.seconds[-1]:  # unknown, or out of order
            seconds = self.seconds[-1] + 1 / self.fps
        self.seconds.append(max(0.0, seconds))

    def _reencoded(self, last: VideoFrame | None, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """`frames`, encoded with only I- and P-frames. The new stream starts with `last`, which is not returned."""
        if last is not None:
            new = reencoded(chain([last], frames), self.coded)
            next(new)
            yield from new
            return
        first = next(frames)
        width, height = (first.height, first.width) if self._turn.transposed else (first.width, first.height)
        if self._asked:
            shrink = max(self._asked[0] / width, self._asked[1] / height, SHORT / min(width, height))
            if shrink < 1:
                width, height = round(width * shrink), round(height * shrink)
        self._set_size(width, height)
        yield from reencoded(chain([first], frames), self.coded, self._turn)

    def _set_size(self, width: int, height: int) -> None:
        self.coded = (width, height)
        self.size = self._asked or self.coded


def resize_into(picture: UInt8[np.ndarray, "h w 3"], image: UInt8[np.ndarray, "H W 3"]) -> None:
    """Resize a picture into an array."""
    height, width = image.shape[:2]
    if picture.shape == image.shape:
        image[:] = picture
    else:
        how = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_LINEAR
        cv2.resize(picture, (width, height), dst=image, interpolation=how)
