"""Frames and motion vectors out of a video file.

Motion vectors are the encoder's own, so they cost no more than decoding. Only an MPEG-4 Part 2 stream of I- and
P-frames joins each frame to the one before it: B-frames and the several reference frames of H.264 reach further, newer
codecs export no vectors at all. Anything else is therefore encoded anew first, as CoViAR does.

Shapes: T frames, H x W pixels, T-1 motion fields of 2 planes (x, y).
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import av
import cv2
import decord
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter
from jaxtyping import Float32, UInt8

from ifttn.vocabulary import IfttnError

GOP = 12
"""Frames from one I-frame to the next where a video is encoded anew (CoViAR)."""
CELL = 8
"""Side in pixels of MPEG-4's smallest motion block."""


@dataclass(frozen=True)
class Decoded:
    """A whole video in memory."""

    frames: UInt8[np.ndarray, "T H W 3"]
    vectors: Float32[np.ndarray, "T-1 2 H W"]
    """Field t: by how many pixels each block moves along x and y from frame t to frame t + 1."""
    fps: float
    kinds: str
    """Type of each frame that the vectors were read from: I, P, or S (P with global motion)."""


def read_frames(path: Path, indices: Sequence[int] | None = None) -> UInt8[np.ndarray, "T H W 3"]:
    """RGB frames at the video's own size, those asked for or all of them; IfttnError where there are none such."""
    try:
        video = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        wanted = range(len(video)) if indices is None else indices
        if wanted and min(wanted) >= 0 and max(wanted) < len(video):
            return video.get_batch(list(wanted)).asnumpy()
    except (decord.DECORDError, RuntimeError, OSError) as error:
        raise IfttnError(f"{path}: cannot be decoded as a video ({_reason(error)})") from error
    raise IfttnError(f"{path}: has {len(video)} frames; asked for {list(wanted) or 'all'}")


def decode(path: Path, size: tuple[int, int] | None = None) -> Decoded:
    """Frames and motion vectors in one pass, both at `size` (width, height) where given.

    Where the video had to be encoded anew, both come from the new stream, so that they agree. A damaged packet is
    skipped, but IfttnError is raised for a file that lost more than a tenth of the frames it announces, has no
    frame or no video stream, or is of no known format.
    """
    try:
        with _opened(path, path) as container:
            stream = container.streams.video[0]
            fps = float(stream.average_rate or 25)
            decoded = _read(path, container, size) if stream.codec_context.name == "mpeg4" else None
        if decoded is None:
            with _opened(path, _encoded_anew(path)) as container:
                decoded = _read(path, container, size)
    except (FFmpegError, OSError) as error:
        raise IfttnError(f"{path}: cannot be decoded as a video ({_reason(error)})") from error
    assert decoded is not None, "the new stream has no B-frames"
    return replace(decoded, fps=fps)


@contextmanager
def _opened(path: Path, source: Path | io.BytesIO) -> Iterator[InputContainer]:
    # Some files of HMDB51 carry metadata that is not UTF-8.
    with av.open(source, metadata_errors="replace") as container:
        assert isinstance(container, InputContainer)
        if not container.streams.video:
            raise IfttnError(f"{path}: holds no video stream")
        container.streams.video[0].codec_context.thread_count = 1  # videos are decoded in parallel already
        yield container


def _frames(path: Path, container: InputContainer) -> Iterator[VideoFrame]:
    stream, count = container.streams.video[0], 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except InvalidDataError:
            continue  # counted below
        for frame in frames:
            count += 1
            yield frame
    # A packed stream may hold a few frames fewer than its header says.
    if count == 0 or count < 0.9 * stream.frames:
        raise IfttnError(f"{path}: truncated or damaged, only {count} of {stream.frames} frames can be decoded")


def _read(path: Path, container: InputContainer, size: tuple[int, int] | None) -> Decoded | None:
    """The whole stream, or None at its first B-frame."""
    container.streams.video[0].codec_context.options = {"flags2": "+export_mvs"}
    frames, vectors, kinds, to_rgb = [], [], "", VideoReformatter()
    for frame in _frames(path, container):
        kind = PictureType(frame.pict_type).name
        if kind == "B":
            return None
        kinds += kind
        # An I-frame holds no vectors: the last motion is taken to go on.
        vectors.append(vectors[-1] if kind == "I" and vectors else _vectors(frame, size))
        frames.append(_resized(to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray(), size))
    return Decoded(np.stack(frames), np.stack(vectors)[1:], 0.0, kinds)


def _encoded_anew(path: Path) -> io.BytesIO:
    """The video as MPEG-4 Part 2 with I- and P-frames only, in memory, with next to no loss."""
    memory = io.BytesIO()
    with _opened(path, path) as container, av.open(memory, "w", format="avi") as target:
        stream = container.streams.video[0]
        copy = target.add_stream("mpeg4", rate=25)
        copy.width, copy.height, copy.pix_fmt = stream.width, stream.height, "yuv420p"
        copy.codec_context.gop_size, copy.codec_context.max_b_frames = GOP, 0
        copy.codec_context.options = {"flags": "+qscale", "global_quality": "236"}  # quantiser 2 of 31
        for index, frame in enumerate(_frames(path, container)):
            plain = frame.reformat(stream.width, stream.height, "yuv420p")
            plain.pts, plain.time_base, plain.pict_type = index, 1 / copy.codec_context.framerate, PictureType.NONE
            target.mux(copy.encode(plain))
        target.mux(copy.encode())
    memory.seek(0)
    return memory


def _vectors(frame: VideoFrame, size: tuple[int, int] | None) -> Float32[np.ndarray, "2 h w"]:
    """Motion from the previous frame, painted on the blocks where it ends up; zero on blocks coded without."""
    # Macroblocks of 16 pixels may reach over the right and lower border.
    cells = np.zeros((2, -(-frame.height // 16) * 2, -(-frame.width // 16) * 2), np.float32)
    exported = frame.side_data.get("MOTION_VECTORS")
    if exported is not None:
        blocks = exported.to_ndarray()
        blocks = blocks[blocks["source"] < 0]
        # FFmpeg: src = dst + motion / scale, and dst is the centre of a block of the current frame.
        moved = -np.stack([blocks["motion_x"], blocks["motion_y"]]) / blocks["motion_scale"]
        left, top = (blocks["dst_x"] - blocks["w"] // 2) // CELL, (blocks["dst_y"] - blocks["h"] // 2) // CELL
        for x, y in ((0, 0), (1, 0), (0, 1), (1, 1)):
            covered = (blocks["w"] > x * CELL) & (blocks["h"] > y * CELL)
            cells[:, top[covered] + y, left[covered] + x] = moved[:, covered]
    width, height = size or (frame.width, frame.height)
    x_scale, y_scale = width / frame.width, height / frame.height
    rows = ((np.arange(height) + 0.5) / y_scale).astype(int) // CELL
    columns = ((np.arange(width) + 0.5) / x_scale).astype(int) // CELL
    cells *= np.array([x_scale, y_scale])[:, None, None]
    return cells[:, rows][:, :, columns]


def _resized(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    if size is None or size == (image.shape[1], image.shape[0]):
        return image
    shrinks = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:200] if str(error).strip() else type(error).__name__
