"""Re-encodes a video in memory, so that vectors join each frame to the one before, and turns it upright."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ifttn.data.gop import GOP

UNTAGGED = 2
"""FFmpeg's number for an unknown colour space (AVCOL_SPC_UNSPECIFIED)."""


class Turn(NamedTuple):
    """The turn of a decoded frame to the picture that a player shows: first transposed, then mirrored."""

    transposed: bool = False
    mirrored_y: bool = False
    """Whether top and bottom are exchanged."""
    mirrored_x: bool = False
    """Whether left and right are exchanged."""


UPRIGHT = Turn()


def turn_of(frame: VideoFrame) -> Turn:
    """The turn in a frame's display matrix, rounded to a quarter turn, as in the ffmpeg program.

    The matrix [a b; c d] maps a pixel (x, y) to (a x + c y, b x + d y) (libavutil/display.h).
    """
    # Not frame.side_data: frame and data would refer to each other and stay in memory until the garbage collector runs.
    for data in SideDataContainer(frame):  # pyright: ignore[reportCallIssue]
        if data.type is Type.DISPLAYMATRIX:
            (a, b), (c, d) = np.frombuffer(memoryview(data), np.int32)[:6].reshape(2, 3)[:, :2].tolist()
            if abs(b) + abs(c) > abs(a) + abs(d):
                return Turn(True, b < 0, c < 0)
            return Turn(False, d < 0, a < 0)
    return UPRIGHT


def upright(frame: VideoFrame, turn: Turn) -> VideoFrame:
    """The frame as a player shows it. A turned frame is in RGB."""
    if not any(turn):
        return frame
    image = frame.to_ndarray(format="rgb24")
    image = image.swapaxes(0, 1) if turn.transposed else image
    image = image[:: -1 if turn.mirrored_y else 1, :: -1 if turn.mirrored_x else 1]
    return VideoFrame.from_ndarray(np.ascontiguousarray(image, np.uint8), format="rgb24")


def reencoded(frames: Iterator[VideoFrame], size: tuple[int, int], turn: Turn = UPRIGHT) -> Iterator[VideoFrame]:
    """Turn each frame upright, encode it and decode it again. One or two frames are in memory.

    The new stream is MPEG-4 Part 2 with only I- and P-frames and very little loss. It has no tags for its colours, so
    each frame gets the tags for colour space and range of its source, if the source has them. RGB becomes BT.601 with
    limited range, which FFmpeg assumes for frames without tags.
    """
    encoder, decoder = VideoCodecContext.create("mpeg4", "w"), VideoCodecContext.create("mpeg4", "r")
    encoder.width, encoder.height, encoder.pix_fmt = *size, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.gop_size, encoder.max_b_frames = GOP, 0
    encoder.options = {"flags": "+qscale", "global_quality": "236"}  # quantiser 2 of 31
    decoder.thread_count, decoder.options = 1, {"flags2": "+export_mvs"}
    reformatter, tags = VideoReformatter(), (UNTAGGED, 0)
    for index, frame in enumerate(frames):
        source = upright(frame, turn)
        colours = {"dst_colorspace": Colorspace.ITU601, "dst_color_range": ColorRange.MPEG}
        plain = reformatter.reformat(source, *size, "yuv420p", threads=1, **(colours if source.format.is_rgb else {}))
        if not (index or source.format.is_rgb):
            tags = source.colorspace, source.color_range
        plain.pts, plain.time_base, plain.pict_type = index, encoder.time_base, PictureType.NONE
        for packet in encoder.encode(plain):
            yield from _tagged(decoder.decode(packet), *tags)
    for packet in encoder.encode():
        yield from _tagged(decoder.decode(packet), *tags)
    yield from _tagged(decoder.decode(), *tags)


def _tagged(frames: Sequence[VideoFrame], colorspace: int, color_range: int) -> Iterator[VideoFrame]:
    for frame in frames:
        if colorspace != UNTAGGED:
            frame.colorspace = colorspace
        if color_range:
            frame.color_range = color_range
        yield frame
