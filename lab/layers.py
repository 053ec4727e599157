"""The layers that the clip inspector draws over a frame: motion as colours or arrows, and class activation maps.

Shapes: T frames shown, V votes, H x W pixels of a picture, s x s pixels of a network's crop.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ifttn.experiment.scores import LATE_FUSION, OF_PEERS
from lab import pictures
from lab.clip import Clip, Reading
from lab.figures import flow_colours


class Layer(NamedTuple):
    """The name and the first opacity of a layer in the inspector."""

    label: str
    opacity: float


LAYERS = {
    "rgb": Layer("RGB", 1.0),
    "flow": Layer("flow colours", 0.7),
    "flow arrows": Layer("flow arrows", 0.9),
    "vectors": Layer("motion vectors", 0.6),
    "vector arrows": Layer("vector arrows", 0.9),
    **{f"CAM {head}": Layer(f"CAM {head}", 0.7) for head in LATE_FUSION if head not in OF_PEERS},
}
BELOW_TO_ABOVE = sorted(LAYERS, key=lambda name: name.endswith("arrows"))
"""The order in which layers are drawn: arrows come last."""
FLOW_INK, VECTOR_INK = (255, 230, 80), (120, 255, 255)
"""Colours of the arrows."""
SHOWN_WIDTH = 400
"""About the width of a picture (px)."""
FLOW_WIDTH = 176
"""Largest width of a picture of flow (px). Flow is smooth, so that a small picture is enough."""
DARK = 24
"""Grey level of the background (0..255)."""


def head_of(layer: str) -> str:
    """The head of a layer with maps; empty: the layer has no maps."""
    return layer.removeprefix("CAM ") if layer.startswith("CAM ") else ""


def picture_size(clip: Clip) -> tuple[int, int]:
    """Width and height of a picture (px): those of a frame times a whole number."""
    height, width = clip.frames.shape[1:3]
    times = max(1, round(SHOWN_WIDTH / width))
    return times * width, times * height


class Painted(NamedTuple):
    """The pictures of one layer."""

    paint: Callable[[int], pictures.Overlay]
    """Draws the picture with a number."""
    numbers: Sequence[int]
    """For each frame shown, the number of its picture."""
    where: pictures.Rectangle | None = None
    """The part of the frame that a picture covers; None: the whole frame."""
    smooth: bool = True
    """Whether a picture is interpolated when it is enlarged."""


def painted(
    clip: Clip, name: str, reading: Reading | None, maps: Mapping[str, Float[np.ndarray, "V s s"]]
) -> Painted | None:
    """The pictures of a layer; None: the layer needs maps of a head, and there are none.

    Args:
        clip: gives frames and motion.
        name: one of `LAYERS`.
        reading: gives the vote of each frame; each vote has a map.
        maps: head -> maps in -1..1.
    """
    every, (width, height), head = range(len(clip.frames)), picture_size(clip), head_of(name)
    if head:
        if reading is None or head not in maps:
            return None
        votes = [reading.vote(head, index * clip.step) for index in every]
        return Painted(lambda i: pictures.heat(maps[head][i]), votes, reading.crop)
    if name == "rgb":
        return Painted(lambda i: clip.frames[i], every)
    times = width // clip.frames.shape[2]
    if name.endswith("arrows"):
        field, ink = (clip.flow, FLOW_INK) if name == "flow arrows" else (clip.vectors, VECTOR_INK)
        return Painted(lambda i: pictures.arrows(times * field[i], width, height, ink), every)
    if name == "flow":
        apart = -(-clip.levels.shape[-1] // FLOW_WIDTH)
        colours = flow_colours(clip.levels[..., ::apart, ::apart])
    else:
        colours = flow_colours(np.clip(128 + 8 * times * clip.vectors, 1, 255).astype(np.uint8))
    return Painted(lambda i: pictures.tint(colours[i]), every, smooth=name == "flow")


def painter(
    clip: Clip, opacities: Mapping[str, float], reading: Reading | None, maps: Mapping[str, Float[np.ndarray, "V s s"]]
) -> Callable[[int], UInt8[np.ndarray, "H W 3"]]:
    """A function that draws all visible layers of the frame with an index, as the page does.

    Args:
        clip, reading, maps: as in `painted`; a head without maps is not drawn.
        opacities: visible layer -> opacity in 0..1.
    """
    width, height = picture_size(clip)
    found = {name: painted(clip, name, reading, maps) for name in BELOW_TO_ABOVE if name in opacities}

    def paint(index: int) -> UInt8[np.ndarray, "H W 3"]:
        picture = np.full((height, width, 3), DARK, np.uint8)
        for name, layer in found.items():
            if layer is not None:
                drawn = layer.paint(layer.numbers[index])
                picture = pictures.over(picture, drawn, opacities[name], layer.where, smooth=layer.smooth)
        return picture

    return paint
