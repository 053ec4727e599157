"""Pictures that a browser shows: layers over a frame, and the only encoders of PNG, JPEG, GIF and MP4. No pyplot.

All functions may run in a thread. Shapes: H x W pixels of a picture, h x w cells of a field or a map, T frames.
"""

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from IPython.display import Image as NotebookImage
from jaxtyping import Float, Num, UInt8
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

Picture = UInt8[np.ndarray, "H W 3"]
Rectangle = tuple[float, float, float, float]
"""Left, top, width, height, in parts of the picture."""

SCREEN = 145
"""Pixels of a figure's inch in a notebook: a figure is as wide as the page, and letters of 7 points can be read."""


def jpeg(picture: Picture, quality: int = 85) -> bytes:
    """Small and quick, with colours at full resolution for thin lines."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", picture[..., ::-1], options)[1].tobytes()


def png(picture: Picture, texts: Mapping[str, str] | None = None) -> bytes:
    """Without loss; the texts can be read from `PIL.Image.open(path).text`."""
    info, memory = PngInfo(), io.BytesIO()
    for key, text in (texts or {}).items():
        info.add_itxt(key, text)
    Image.fromarray(picture).save(memory, "PNG", pnginfo=info)
    return memory.getvalue()


def figure_png(figure: Figure) -> bytes:
    """A matplotlib figure as a PNG."""
    memory = io.BytesIO()
    figure.savefig(memory, format="png")
    return memory.getvalue()


def in_notebook(figure: Figure) -> NotebookImage:
    """A figure for a notebook, which shows only figures of pyplot by itself."""
    return NotebookImage(data=figure_png(figure), width=int(SCREEN * figure.get_figwidth()))


def gif(pictures: Sequence[Picture], fps: float, colours: int | None = None) -> bytes:
    """An endless loop of at most 50 pictures a second, as browsers slow faster ones down.

    With `colours`, all pictures have so many colours, those of the middle picture, and no dithering: what stays still
    from picture to picture takes no space.
    """
    images = [Image.fromarray(picture) for picture in pictures]
    if colours is not None:
        palette = images[len(images) // 2].quantize(colours)
        images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    memory, duration = io.BytesIO(), max(20, round(1000 / fps))
    images[0].save(
        memory,
        "GIF",
        save_all=True,
        append_images=images[1:],
        duration=duration,
        loop=0,
        optimize=colours is not None,
    )
    return memory.getvalue()


def mp4(pictures: Sequence[Picture], fps: float) -> bytes:
    """H.264 as every browser plays it; its colours need even sides, so that an odd side loses a pixel."""
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
    """The picture at another size; with sharp pixels if not smooth."""
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST)


def blended(under: Picture, over: Picture, opacity: float) -> Picture:
    """`over` on `under`; opacity in 0..1."""
    return cv2.addWeighted(over, opacity, under, 1 - opacity, 0)


def tinted(under: Picture, colours: Picture, opacity: float) -> Picture:
    """Colours on white over a picture, which shows through where they are pale."""
    share = opacity / 255 * (255 - colours.min(-1, keepdims=True)).astype(np.float32)
    full = 255 - (255 - colours.astype(np.float32)) * 255 / np.maximum(255 - colours.min(-1, keepdims=True), 1)
    return (under + share * (full - under)).astype(np.uint8)


def with_arrows(
    picture: Picture, field: Num[np.ndarray, "2 h w"], opacity: float, colour: tuple[int, int, int], *, every: int = 16
) -> Picture:
    """Arrows as long as the motion, `every` so many pixels, where the motion is half a pixel or more.

    Args:
        picture: to draw on.
        field: displacement along x and y, in pixels of the picture.
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
    """A map over a part of a picture, red for evidence and blue for evidence against, more opaque where it is stronger.

    Args:
        picture: to draw on.
        values: in -1..1.
        opacity: of a value of 1 or -1.
        where: the part that the map covers, which gets a thin frame.
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
    """From blue (evidence against) over grey (none) to red (evidence for)."""
    return np.rint(255 * colormaps["coolwarm"](np.arange(256))[:, :3]).astype(np.uint8)
