"""Arrays to pictures a browser shows: layers drawn over a frame, and PNG, JPEG, GIF and MP4 bytes. No pyplot.

Everything here may run in a thread. Shapes: H x W pixels of a picture, h x w cells of a field or a map, T frames.
"""

import io
from collections.abc import Sequence
from fractions import Fraction
from functools import cache

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from IPython.display import Image as PngImage
from jaxtyping import Float, Num, UInt8
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

Picture = UInt8[np.ndarray, "H W 3"]
Rectangle = tuple[float, float, float, float]
"""Left, top, width, height, in parts of the picture."""


SCREEN = 145
"""Pixels an inch of a figure on a screen: a page's width is a notebook's, and letters of 7 points can be read."""


def jpeg(picture: Picture, quality: int = 85) -> bytes:
    """Small and quick; colours at full resolution, for thin lines."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", picture[..., ::-1], options)[1].tobytes()


def png(picture: Picture) -> bytes:
    """Without loss."""
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()


def shown(figure: Figure) -> PngImage:
    """A figure for a notebook, which shows by itself only those that pyplot made."""
    memory = io.BytesIO()
    figure.savefig(memory, format="png")
    return PngImage(data=memory.getvalue(), width=int(SCREEN * figure.get_figwidth()))


def gif(pictures: Sequence[Picture], fps: float) -> bytes:
    """An endless loop, at most 50 pictures a second (browsers slow down what claims more)."""
    memory = io.BytesIO()
    first, *rest = [Image.fromarray(picture) for picture in pictures]
    duration = max(20, round(1000 / fps))
    first.save(memory, "GIF", save_all=True, append_images=rest, duration=duration, loop=0)
    return memory.getvalue()


def mp4(pictures: Sequence[Picture], fps: float) -> bytes:
    """H.264 as every browser plays it; sides are cut to even numbers, as its colours ask."""
    memory = io.BytesIO()
    height, width = (side // 2 * 2 for side in pictures[0].shape[:2])
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=Fraction(fps).limit_denominator(1000))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return memory.getvalue()


def resized(picture: Picture, width: int, height: int, *, smooth: bool = True) -> UInt8[np.ndarray, "_ _ 3"]:
    """Another size; not smooth keeps blocks sharp."""
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST)


def blended(under: Picture, over: Picture, opacity: float) -> Picture:
    """`over` on `under`; opacity in 0..1."""
    return cv2.addWeighted(over, opacity, under, 1 - opacity, 0)


def tinted(under: Picture, colours: Picture, opacity: float) -> Picture:
    """Colours on white laid over a picture, which shows through where they are pale."""
    share = opacity / 255 * (255 - colours.min(-1, keepdims=True)).astype(np.float32)
    full = 255 - (255 - colours.astype(np.float32)) * 255 / np.maximum(255 - colours.min(-1, keepdims=True), 1)
    return (under + share * (full - under)).astype(np.uint8)


def with_arrows(
    picture: Picture, field: Num[np.ndarray, "2 h w"], opacity: float, colour: tuple[int, int, int], *, every: int = 16
) -> Picture:
    """An arrow about every so many pixels, as long as the motion.

    Args:
        picture: what to draw on.
        field: displacement along x and y, in pixels of the picture; drawn where it is half a pixel or more.
        opacity: of the arrows, in 0..1.
        colour: of the arrows.
        every: pixels of the picture between two arrows.
    """
    height, width, _ = picture.shape
    drawn = picture.copy()
    for y in range(every // 2, height, every):
        for x in range(every // 2, width, every):
            dx, dy = field[:, y * field.shape[1] // height, x * field.shape[2] // width]
            if dx * dx + dy * dy >= 0.25:
                tip = round(16 * (x + dx)), round(16 * (y + dy))  # in sixteenths of a pixel, as `shift` says
                cv2.arrowedLine(drawn, (16 * x, 16 * y), tip, colour, 1, cv2.LINE_AA, 4, 0.35)
    return blended(picture, drawn, opacity)


def with_map(
    picture: Picture, values: Float[np.ndarray, "h w"], opacity: float, where: Rectangle = (0.0, 0.0, 1.0, 1.0)
) -> Picture:
    """A map over a part of a picture: red for, blue against; the stronger the value, the less of the picture is seen.

    Args:
        picture: what to draw on.
        values: in -1..1.
        opacity: of a value of 1 or -1.
        where: the part that the map is about, which gets a thin frame.
    """
    height, width, _ = picture.shape
    left, top = round(where[0] * width), round(where[1] * height)
    right, bottom = round((where[0] + where[2]) * width), round((where[1] + where[3]) * height)
    values = cv2.resize(values.astype(np.float32), (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    values = values.clip(-1, 1)
    colours = signed_colours()[np.rint(127.5 + 127.5 * values).astype(np.uint8)]
    share = (opacity * np.abs(values))[..., None]
    drawn = picture.copy()
    inside = drawn[top:bottom, left:right]
    inside[:] = (inside + share * (colours.astype(np.float32) - inside)).astype(np.uint8)
    return cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), (160, 160, 160), 1)


@cache
def signed_colours() -> UInt8[np.ndarray, "256 3"]:
    """From against (blue) over nothing (grey) to for (red)."""
    return np.rint(255 * colormaps["coolwarm"](np.arange(256))[:, :3]).astype(np.uint8)
