"""Frames, motion vectors and times out of a video file, in one pass.

The motion vectors are the encoder's own, so they cost little more than decoding. Only a stream of I- and P-frames with
one reference joins each frame to the one before it: B-frames and the several reference frames of H.264 reach further,
and newer codecs export no vectors at all. Such a video is therefore encoded anew while it is read, as CoViAR does.

PyAV decodes here, because decord gives no motion vectors.

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
from ifttn.data.reencoding import UPRIGHT, encoded_anew, turn_of
from ifttn.vocabulary import IfttnError

SHORT = 256
"""Short side in pixels of a large video that is encoded anew, unless more is asked for."""

FrameChoice = Callable[[int], Sequence[int] | Integer[np.ndarray, "..."]]
"""Takes the number of frames of a video, and returns the indices of those wanted."""

DRAWN = ("ansi", "bintext", "idf", "xbin")
"""FFmpeg's codecs that draw the characters of a text file."""


@dataclass(frozen=True)
class Decoded:
    """A whole video in memory: all its motion, and the frames that were asked for."""

    frames: UInt8[np.ndarray, "F H W 3"]
    blocks: Float32[np.ndarray, "M 2 h w"]
    """Field t: by how many pixels of `frames` each block moves along x and y from frame t to frame t + 1."""
    rows: Integer[np.ndarray, " H"]
    """The block in which each row of pixels lies."""
    columns: Integer[np.ndarray, " W"]
    seconds: Float64[np.ndarray, " T"]
    """When each frame of the video is shown, counted from the first: the stream's own times."""
    fps: float
    """Frames a second on average."""
    kinds: str
    """Type of each frame that the vectors were read from: I, P, or S (P with global motion)."""
    transcoded: str
    """Why the video, or the rest of it, was encoded anew; empty where it was read as it is."""
    notes: tuple[str, ...]
    """What was lost (`Losses`)."""

    @property
    def vectors(self) -> Float32[np.ndarray, "M 2 H W"]:
        """The motion of every pixel. It is large: `on_pixels(to_bytes(blocks[...], bound))` costs far less."""
        return self.on_pixels(self.blocks)

    def on_pixels(self, blocks: Shaped[np.ndarray, "*n h w"]) -> Shaped[np.ndarray, "*n H W"]:
        """The values of blocks (some of `blocks`, in pixels or bytes) at each of their pixels."""
        return spread(blocks, self.rows, self.columns)


def read_frames(path: str | Path, indices: Sequence[int] | FrameChoice | None = None) -> UInt8[np.ndarray, "T H W 3"]:
    """The RGB frames with these numbers, or all frames, at the video's own size. No motion is read.

    Raises:
        IfttnError: the file cannot be decoded, or has no such frames.
    """
    import decord  # 0.4 GB of libraries, which only this function needs

    path = Path(path)
    try:
        with _opened(path):
            video = decord.VideoReader(_url(path), ctx=decord.cpu(0), num_threads=1)
        wanted = range(len(video)) if indices is None else indices
        wanted = np.ravel(wanted(len(video))).tolist() if callable(wanted) else wanted
        if wanted and min(wanted) >= 0 and max(wanted) < len(video):
            return video.get_batch(list(wanted)).asnumpy()
    except (decord.DECORDError, RuntimeError, FFmpegError, OSError, UnicodeError) as error:
        raise IfttnError(f"{path}: cannot be decoded as a video ({_reason(error)})") from error
    raise IfttnError(f"{path}: has {len(video)} frames; asked for {list(wanted) or 'all'}")


def decode(path: str | Path, size: tuple[int, int] | None = None, choose: FrameChoice | None = None) -> Decoded:
    """All motion vectors and the frames that `choose` picks (by default all), at `size` (width, height) where given.

    Raises as `Reader` does. A video of more than a few minutes is better read in chunks, by `Reader`.
    """
    reader = Reader(path, size)
    while True:
        chunks = [*reader.chunks(choose, length=512)]
        kinds = "".join(chunk.kinds for chunk in chunks)
        if choose is None or len(kinds) == reader.announced:
            break
        reader.announced = len(kinds)  # packed streams hold fewer frames than they announce: once more
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
    """Each frame's type, and its vectors as FFmpeg exports them (rows of VECTOR), whatever they refer to."""
    reader = Reader(path)
    with reader.opened() as container:
        for frame in reader.frames(container):
            vectors = exported_by(frame)
            yield KINDS[frame.pict_type], np.frombuffer(memoryview(vectors), VECTOR) if vectors else np.empty(0, VECTOR)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    # Some files of HMDB51 carry metadata that is not UTF-8.
    with av.open(_url(path), metadata_errors="replace") as container:
        yield container, picture_stream(container, path)


def _url(path: Path) -> str:
    """Without a protocol, FFmpeg takes what stands before a colon for one."""
    return f"file:{os.fspath(path)}"


def picture_stream(container: InputContainer, path: Path) -> VideoStream:
    """The stream of pictures that the ffmpeg program takes; IfttnError where there is none."""
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
    """The larger picture goes first, and the track that is marked as the default is five million pixels ahead
    (fftools/ffmpeg_mux_init.c)."""
    if stream.codec_context is None:
        return -1
    return stream.width * stream.height + 5_000_000 * bool(stream.disposition & Disposition.default)


def spread(
    blocks: Shaped[np.ndarray, "*n h w"], rows: Integer[np.ndarray, " H"], columns: Integer[np.ndarray, " W"]
) -> Shaped[np.ndarray, "*n H W"]:
    """The values of blocks at each pixel; `rows` and `columns` tell in which block a pixel lies (`Reader.grid`)."""
    return np.take(np.take(blocks, columns, axis=-1), rows, axis=-2)


class Chunk(NamedTuple):
    """N consecutive frames of a video."""

    frames: UInt8[np.ndarray, "F H W 3"]
    """Those that were asked for, at the size asked for."""
    indices: Integer[np.ndarray, " F"]
    """The number of each of these frames in the video."""
    blocks: Float32[np.ndarray, "M 2 h w"]
    """By how many pixels (of that size) each block moves along x and y, in the fields that end at these frames: one
    for each frame, and none for the first frame of the video."""
    kinds: str
    """Type of each of the N frames."""
    seconds: Float64[np.ndarray, " N"]
    """When each frame is shown, counted from the first of the video."""


class Reader:
    """One pass over a video, in the memory of a chunk: `for chunk in Reader(path, size).chunks()`.

    A stream that does not join each frame to the one before is encoded anew, from the first frame that shows it.
    Frames and vectors then both come from the new stream, so that they agree. A damaged packet is skipped. Frames that
    an edit list hides were trimmed off, and do not count.

    Raises:
        IfttnError: the file lost more than a tenth of its frames, has no frame, has no video stream, or is of no known
            format.
    """

    def __init__(self, path: str | Path, size: tuple[int, int] | None = None) -> None:
        self.path, self._asked = Path(path), size
        self.fps, self.transcoded, self.announced, self.notes = 0.0, "", 0, tuple[str, ...]()
        self.size = self.coded = (0, 0)
        self.seconds = array("d")
        """When each frame that was decoded so far is shown, counted from the first."""
        self._turn, self._length_size, self._to_rgb = UPRIGHT, -1, VideoReformatter()

    def chunks(
        self, choose: FrameChoice | None = None, length: int = 64, keep: Callable[[int], bool] = lambda index: True
    ) -> Iterator[Chunk]:
        """The video from its start, `length` frames at a time.

        `fps` and `size` are known with the first chunk, `transcoded` and `notes` (what was lost) after the last one.

        Args:
            choose: picks the frames to convert to RGB, given `announced`, which is `count()` unless it was set before.
            length: of a chunk, in frames.
            keep: says whether a picked frame is converted, where nobody knows how many frames there will be.
        """
        chosen, painter, at = None, BlockPainter(), 0
        with self._named(), self.opened() as container:
            frames = self._linked(container)
            for first in frames:
                if choose and chosen is None:
                    self.announced = self.announced or self.count()
                    chosen = set(np.ravel(choose(self.announced)).tolist())
                wanted = [i for i in range(at, at + length) if keep(i) and (chosen is None or i in chosen)]
                painter.start(length, self.coded, self.size)
                yield self._chunk(chain([first], islice(frames, length - 1)), painter, at, wanted)
                at += length

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (FFmpegError, OSError) as error:
            raise IfttnError(f"{self.path}: cannot be decoded as a video ({_reason(error)})") from error

    def grid(self) -> tuple[Integer[np.ndarray, " H"], Integer[np.ndarray, " W"]]:
        """The block in which each row and each column of pixels lies, at the size asked for."""
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
        """The number of frames in the index of the file, or else the number of packets with a picture."""
        with self._named(), _opened(self.path) as (container, stream):
            if stream.frames and count_shown(stream) == stream.frames:
                return stream.frames
            return sum(packet.size > 0 and not packet.is_discard for packet in container.demux(stream))

    @contextmanager
    def opened(self) -> Iterator[InputContainer]:
        """The file, set to export vectors and to decode on one core."""
        with _opened(self.path) as (container, stream):
            average, guessed = float(stream.average_rate or 25), float(stream.guessed_rate or 0)
            self.fps = guessed if 0 < guessed < 0.7 * average else average  # AVI counts the fields of H.264
            self.seconds = array("d")
            stream.codec_context.thread_count = 1  # videos are decoded in parallel already
            stream.codec_context.options = {"flags2": "+export_mvs"}
            yield container

    def _linked(self, container: InputContainer) -> Iterator[VideoFrame]:
        """The frames, each with vectors from the one before."""
        frames, last = self.frames(container), None
        self.transcoded = self._distant_references(picture_stream(container, self.path).codec_context)
        for frame in frames:
            # Most frames are P-frames, and a stream changes at others.
            if frame.pict_type != P_FRAME or last is None:
                self.transcoded = self.transcoded or self._unfit(frame, last)
            if self.transcoded:
                yield from self._encoded_anew(last, chain([frame], frames))
                return
            if last is None:
                self._set_size(frame.width, frame.height)
            yield frame
            last = frame

    def _distant_references(self, codec: VideoCodecContext) -> str:
        """Why vectors may reach further than the frame before, as far as the header tells; else empty."""
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
        """Why the video must be encoded anew from this frame on; empty where it need not."""
        if last is None:
            self._turn = turn_of(frame)
        if frame.pict_type == B_FRAME:
            return "B-frames"
        if last is None:
            return "rotated" if any(self._turn) else "interlaced" if frame.interlaced_frame else ""
        return "" if self.coded == (frame.width, frame.height) else "changes its size"

    def frames(self, container: InputContainer) -> Iterator[VideoFrame]:
        """All frames that can be decoded and are shown, as the file has them."""
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
                # AVI has no times of its own: what FFmpeg makes up is in order only as times of decoding.
                self._note_time(frame.dts if is_avi else frame.pts, float(stream.time_base or 0))
                yield frame
        losses.close(self.path, self.seconds)
        self.notes = tuple(losses.notes)

    def _packets(self, container: InputContainer, stream: VideoStream, losses: Losses) -> Iterator[Packet]:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except InvalidDataError:  # the demuxer cannot find what follows
                losses.failure()
                packet = Packet()  # for an empty packet the decoder gives the frames that it holds back
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
        if self.seconds and seconds <= self.seconds[-1]:  # unknown, or in no order
            seconds = self.seconds[-1] + 1 / self.fps
        self.seconds.append(max(0.0, seconds))

    def _encoded_anew(self, last: VideoFrame | None, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """`frames`, encoded with I- and P-frames only. The new stream starts with `last`, which is not repeated."""
        if last is not None:
            new = encoded_anew(chain([last], frames), self.coded)
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
        yield from encoded_anew(chain([first], frames), self.coded, self._turn)

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


def _reason(error: Exception) -> str:
    lines = str(error).replace("'file:", "'").strip().splitlines()
    return lines[-1][:200] if lines else type(error).__name__
