"""Pictures for a browser: layers over a frame, and the encoders of PNG, JPEG, GIF and MP4.

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
Overlay = UInt8[np.ndarray, "h w c"]
"""Colours, with opacity as an optional fourth channel."""
Rectangle = tuple[float, float, float, float]
"""Left, top, width and height as fractions of a picture."""
STRIPED = 0.15
"""Evidence against an action has stripes in a map where it is stronger than this."""

SCREEN = 145
"""Pixels per inch of a figure in a notebook: a figure fills the page, and letters of 7 points are readable."""


def jpeg(picture: Picture, quality: int = 85) -> bytes:
    """Encode as JPEG, with colours at full resolution because of thin lines."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", picture[..., ::-1], options)[1].tobytes()


def for_page(picture: Overlay) -> bytes:
    """Encode as JPEG, or as PNG if the picture has an opacity."""
    if picture.shape[-1] == 3:
        return jpeg(picture)
    order = np.ascontiguousarray(picture[..., [2, 1, 0, 3]])
    return cv2.imencode(".png", order, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def png(picture: Picture, texts: Mapping[str, str] | None = None) -> bytes:
    """Encode as PNG; `PIL.Image.open(path).text` gives the texts back."""
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
    """A figure as a picture for a notebook, which by itself shows figures of pyplot only."""
    return NotebookImage(data=figure_png(figure), width=int(SCREEN * figure.get_figwidth()))


def gif(pictures: Sequence[Picture], fps: float, colours: int | None = None) -> bytes:
    """An endless GIF with at most 50 pictures a second: browsers slow down faster ones.

    `colours` is the size of a palette for all pictures, taken from the middle picture, without dithering. Regions that
    do not change then take no space.
    """
    images = [Image.fromarray(picture) for picture in pictures]
    if colours is not None:
        palette = images[len(images) // 2].quantize(colours)
        images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    memory, duration = io.BytesIO(), max(20, round(1000 / fps))
    images[0].save(
        memory, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=colours is not None
    )
    return memory.getvalue()


def mp4(pictures: Sequence[Picture], fps: float) -> bytes:
    """H.264 that every browser plays. It needs even sides; an odd side loses a pixel."""
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


def resized(picture: Picture, width: int, height: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Scale a picture to a width and a height (px)."""
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)


def over(
    under: Picture, painted: Overlay, opacity: float, where: Rectangle | None = None, *, smooth: bool = True
) -> Picture:
    """Blend a picture over another one, or over a part and with a thin frame. The page does the same (`player.js`).

    Args:
        under: the lower picture.
        painted: the upper picture, of any size.
        opacity: of the upper picture, in 0..1; an opacity in its fourth channel is multiplied by it.
        where: the part that the upper picture covers; None: all.
        smooth: whether the upper picture is interpolated when it is enlarged.
    """
    height, width, _ = under.shape
    x, y, w, h = where or (0.0, 0.0, 1.0, 1.0)
    left, top, right, bottom = round(x * width), round(y * height), round((x + w) * width), round((y + h) * height)
    colours = painted[..., :3].astype(np.float32)
    share = painted[..., 3:].astype(np.float32) / 255 if painted.shape[-1] == 4 else np.ones_like(colours[..., :1])
    both = np.concatenate([colours * share, share], axis=-1) * opacity  # premultiplied: clear pixels have no colour
    both = cv2.resize(both, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR if smooth else 0)
    drawn = under.copy()
    inside = drawn[top:bottom, left:right]
    inside[:] = np.rint(inside * (1 - both[..., 3:]) + both[..., :3])
    return drawn if where is None else cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), (160, 160, 160), 1)


def tint(colours: UInt8[np.ndarray, "*_ H W 3"]) -> UInt8[np.ndarray, "*_ H W 4"]:
    """Replace the white in colours by transparency: pale colours become full and less opaque."""
    share = 255 - colours.min(-1, keepdims=True)
    full = 255 - (255 - colours.astype(np.float32)) * 255 / np.maximum(share, 1)
    return np.concatenate([full.astype(np.uint8), share], axis=-1)


def arrows(
    field: Num[np.ndarray, "2 h w"], width: int, height: int, colour: tuple[int, int, int], *, every: int = 16
) -> UInt8[np.ndarray, "H W 4"]:
    """Arrows as long as the motion, where the motion is half a pixel or more.

    Args:
        field: displacement along x and y, in pixels of the picture.
        width: of the picture (px).
        height: of the picture (px).
        colour: red, green and blue in 0..255.
        every: distance between two arrows (px).
    """
    drawn = np.zeros((height, width), np.uint8)
    for y in range(every // 2, height, every):
        for x in range(every // 2, width, every):
            dx, dy = field[:, y * field.shape[1] // height, x * field.shape[2] // width]
            if dx * dx + dy * dy >= 0.25:
                tip = round(16 * (x + dx)), round(16 * (y + dy))  # in 1/16 px: the argument `shift` is 4
                cv2.arrowedLine(drawn, (16 * x, 16 * y), tip, 255, 1, cv2.LINE_AA, 4, 0.35)
    return np.dstack([np.full((height, width, 3), colour, np.uint8), drawn])


def heat(values: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 4"]:
    """A map in -1..1 as colours: red for evidence, blue for evidence against, more opaque where it is stronger.

    Evidence against has stripes, which are visible in a grey print too.
    """
    values = values.clip(-1, 1)
    colours = signed_colours()[np.rint(127.5 + 127.5 * values).astype(np.uint8)]
    striped = (np.add.outer(*map(np.arange, values.shape)) // 2 % 3 == 0) & (values < -STRIPED)
    strength = np.where(striped, 0.35, 1.0) * np.abs(values)
    return np.dstack([colours, np.rint(255 * strength).astype(np.uint8)])


@cache
def signed_colours() -> UInt8[np.ndarray, "256 3"]:
    """The colours of a map: from blue (evidence against) over grey (none) to red (evidence for)."""
    return np.rint(255 * colormaps["coolwarm"](np.arange(256))[:, :3]).astype(np.uint8)
